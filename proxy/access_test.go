package proxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/edekd/edekd/cache"
	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/hadoop/conf"
	"github.com/edekd/edekd/keys"
	"github.com/edekd/edekd/proxy/audit"
	"github.com/edekd/edekd/proxy/authz"
)

// openRules are those of the kms-acls.xml that comes with Hadoop: everything is
// open to everyone.
var openRules = []string{"default.key.acl.MANAGEMENT", "*", "default.key.acl.GENERATE_EEK", "*",
	"default.key.acl.DECRYPT_EEK", "*", "default.key.acl.READ", "*"}

// policy reads rules written as names and values.
func policy(tb testing.TB, rules ...string) *authz.Policy {
	tb.Helper()
	c := conf.New(os.LookupEnv, nil)
	for i := 0; i < len(rules); i += 2 {
		c.Override(rules[i], rules[i+1], "test")
	}
	p, _, err := authz.NewPolicy(c)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// noGroups is a directory in which nobody has a group.
type noGroups struct{}

func (noGroups) Of(string) ([]string, error) { return nil, nil }

// everyRow has a request for each row that rules exist for, about key k1.
var everyRow = []struct {
	row                  row
	method, target, body string
}{
	{rowCreate, "POST", "/keys", `{"name":"new","attributes":{"key.acl.name":"k1"}}`},
	{rowNames, "GET", "/keys/names", ""},
	{rowKeysMetadata, "GET", "/keys/metadata?key=k1", ""},
	{rowMetadata, "GET", "/key/k1/_metadata", ""},
	{rowCurrentVersion, "GET", "/key/k1/_currentversion", ""},
	{rowKeyVersion, "GET", "/keyversion/k1@0", ""},
	{rowVersions, "GET", "/key/k1/_versions", ""},
	{rowGenerate, "GET", "/key/k1/_eek?eek_op=generate", ""},
	{rowDecrypt, "POST", "/keyversion/k1@0/_eek?eek_op=decrypt", wholeEEK},
	{rowReencrypt, "POST", "/keyversion/k1@0/_eek?eek_op=reencrypt", wholeEEK},
	{rowReencryptBatch, "POST", "/key/k1/_reencryptbatch", `[{"versionName":"k1@0","iv":"AAAAAAAAAAAAAAAAAAAAAA","encryptedKeyVersion":{"versionName":"EEK","material":"AAAA"}}]`},
	{rowDecryptBatch, "POST", "/key/k1/_decryptbatch", `[{"versionName":"k1@0","iv":"AAAAAAAAAAAAAAAAAAAAAA","encryptedKeyVersion":{"versionName":"EEK","material":"AAAA"}}]`},
	{rowInvalidate, "POST", "/key/k1/_invalidatecache", ""},
	{rowRoll, "POST", "/key/k1", "{}"},
	{rowDelete, "DELETE", "/key/k1", ""},
}

const wholeEEK = `{"name":"k1","iv":"AAAAAAAAAAAAAAAAAAAAAA","material":"AAAAAAAAAAAAAAAAAAAAAA"}`

// Every row is closed by its rule at the KMS layer alone, and by that of the
// key layer alone, and is open without both. The rules change while the server
// runs and count for the next request.
func TestEveryRowAsksBothLayers(t *testing.T) {
	asked := map[row]bool{}
	for _, c := range everyRow {
		asked[c.row] = true
		call := rowCalls[c.row]
		if call == nil {
			t.Fatalf("no rules for %s", rowLabels[c.row])
		}
		access := authz.New(policy(t, openRules...), noGroups{})
		k := newKMS(t, func(config *Config) { config.Authz = access })
		k.create(t, "k1")
		ask := func() answered { return k.call(t, c.method, c.target, c.body) }

		shut := append([]string{}, openRules...)
		for _, needed := range call.Types {
			shut = append(shut, "hadoop.kms.acl."+needed.String(), "somebody")
		}
		access.Set(policy(t, shut...), noGroups{})
		contains(t, remote(t, ask(), 403, classAuthorization), "User:x not allowed to do '"+call.Op.String()+"'")
		if n := k.meters.unauthorized.Count(); n != 1 {
			t.Errorf("%s: %d denials counted", rowLabels[c.row], n)
		}

		if call.OnKeys {
			access.Set(policy(t, append([]string{"key.acl.k1." + call.Right.String(), "somebody"}, openRules...)...), noGroups{})
			switch a := ask(); c.row {
			case rowCreate:
				contains(t, remote(t, a, 403, classAuthorization), "User [x] is not authorized to create key !!")
			case rowGenerate:
				contains(t, remote(t, a, 500, classIO), string(classAuthorization)+": User [x] is not authorized")
			default:
				contains(t, remote(t, a, 403, classAuthorization), "perform ["+call.Right.String()+"] on key with ACL name [k1]!!")
			}
			if n := k.meters.unauthorized.Count(); n != 1 {
				t.Errorf("%s: a denial of the key layer is counted among those of the KMS layer", rowLabels[c.row])
			}
		}

		access.Set(policy(t, openRules...), noGroups{})
		if a := ask(); a.StatusCode >= 300 {
			t.Errorf("%s under open rules: %d %s", rowLabels[c.row], a.StatusCode, a.body)
		}
	}
	for i, call := range rowCalls {
		if call != nil && !asked[row(i)] {
			t.Errorf("no request for %s", rowLabels[i])
		}
	}
}

// Without the key layer its rules mean nothing, and new keys name none.
func TestKeyLayerSwitchedOff(t *testing.T) {
	nobody := authz.New(policy(t), noGroups{})
	k := newKMS(t, func(c *Config) { c.Authz, c.KeyAuthorization = nobody, false })
	k.create(t, "k1")
	if a := k.call(t, "GET", "/key/k1/_metadata", ""); strings.Contains(a.body, edek.AttributeACLName) {
		t.Errorf("%s", a.body)
	}
	for _, c := range everyRow {
		if a := k.call(t, c.method, c.target, c.body); a.StatusCode >= 300 {
			t.Errorf("%s: %d %s", rowLabels[c.row], a.StatusCode, a.body)
		}
	}
}

// brokenGroups is a directory that does not answer.
type brokenGroups struct{}

func (brokenGroups) Of(string) ([]string, error) {
	return nil, errors.New("the directory does not answer")
}

// Where groups decide and cannot be looked up, the answer is an error that
// makes clients try another server: never yes, and no denial either. Nothing
// was changed.
func TestFailedLookUpIsNoDenial(t *testing.T) {
	access := authz.New(policy(t, openRules...), noGroups{})
	k := newKMS(t, func(c *Config) { c.Authz = access })
	k.create(t, "k1")
	layers := map[string][]string{
		"KMS layer": append([]string{"hadoop.kms.acl.CREATE", " staff", "hadoop.kms.acl.DELETE", " staff", "hadoop.kms.acl.ROLLOVER", " staff",
			"hadoop.kms.acl.GET", " staff", "hadoop.kms.acl.GET_KEYS", " staff", "hadoop.kms.acl.GET_METADATA", " staff",
			"hadoop.kms.acl.GENERATE_EEK", " staff", "hadoop.kms.acl.DECRYPT_EEK", " staff"}, openRules...),
		"key layer": {"default.key.acl.MANAGEMENT", " staff", "default.key.acl.READ", " staff",
			"default.key.acl.GENERATE_EEK", " staff", "default.key.acl.DECRYPT_EEK", " staff"},
	}
	for layer, rules := range layers {
		access.Set(policy(t, rules...), brokenGroups{})
		for _, c := range everyRow {
			if c.row == rowNames && layer == "key layer" {
				continue
			}
			a := k.call(t, c.method, c.target, c.body)
			if text := remote(t, a, 500, classIO); text != "the groups of user x cannot be looked up now" {
				t.Errorf("%s, %s: %q", layer, rowLabels[c.row], text)
			}
		}
	}
	if n := k.meters.unauthorized.Count(); n != 0 {
		t.Errorf("%d denials counted", n)
	}

	// The right to see the material of a new version is asked for before it is made.
	access.Set(policy(t, append([]string{"hadoop.kms.acl.GET", " staff"}, openRules...)...), brokenGroups{})
	remote(t, k.call(t, "POST", "/key/k1", "{}"), 500, classIO)
	remote(t, k.call(t, "POST", "/keys", `{"name":"new"}`), 500, classIO)
	access.Set(policy(t, openRules...), noGroups{})
	contains(t, k.call(t, "GET", "/key/k1/_metadata", "").body, `"versions" : 1`)
	if a := k.call(t, "GET", "/keys/names", ""); a.body != `[ "k1" ]` {
		t.Errorf("%s", a.body)
	}
	if text := k.closedAudit(t); strings.Contains(text, "UNAUTHORIZED") {
		t.Errorf("a failed look-up is audited as a denial: %s", text)
	}
}

// Who may not get key bytes sees none of those he made.
func TestMaterialIsNotShownWithoutGet(t *testing.T) {
	rules := append([]string{"hadoop.kms.acl.GET", "somebody", "hadoop.kms.acl.SET_KEY_MATERIAL", "somebody"}, openRules...)
	k := newKMS(t, func(c *Config) { c.Authz = authz.New(policy(t, rules...), noGroups{}) })
	for target, name := range map[string]string{"/keys": `{"name":"k1"`, "/key/k1": `{"description":"x"`} {
		if target == "/key/k1" {
			k.call(t, "POST", "/keys", `{"name":"k1"}`)
		}
		a := k.call(t, "POST", target, name+`,"material":"AAECAwQFBgcICQoLDA0ODw","length":128}`)
		contains(t, remote(t, a, 403, classAuthorization), "on 'k1'")
		if a := k.call(t, "POST", target, strings.Replace(name, "k1", "k2", 1)+"}"); a.StatusCode >= 300 || !strings.Contains(a.body, `"material" : null`) {
			t.Errorf("%s: %d %s", target, a.StatusCode, a.body)
		}
	}
}

// held is a provider that holds up one of the questions it is asked.
type held struct {
	keys.Provider
	before  bool          // before it looks, or with the answer in hand
	left    atomic.Int64  // questions until the one that is held up
	reached chan struct{} // closed then
	release chan struct{}
}

func (p *held) hold(n int64, before bool) {
	p.before, p.reached, p.release = before, make(chan struct{}), make(chan struct{})
	p.left.Store(n)
}

func holdUp[V any](p *held, look func() (V, error)) (V, error) {
	wait := p.left.Add(-1) == 0
	stop := func() {
		if wait {
			close(p.reached)
			<-p.release
		}
	}
	if p.before {
		stop()
		return look()
	}
	defer stop()
	return look()
}

func (p *held) Metadata(ctx context.Context, name string) (*edek.Metadata, error) {
	return holdUp(p, func() (*edek.Metadata, error) { return p.Provider.Metadata(ctx, name) })
}

func (p *held) Version(ctx context.Context, name string) (*edek.KeyVersion, error) {
	return holdUp(p, func() (*edek.KeyVersion, error) { return p.Provider.Version(ctx, name) })
}

func (p *held) Versions(ctx context.Context, name string) ([]*edek.KeyVersion, error) {
	return holdUp(p, func() ([]*edek.KeyVersion, error) { return p.Provider.Versions(ctx, name) })
}

// During any of the questions that a request asks about a key, the key is deleted,
// and another of its name is made, which the sender has no right to.
func TestNewKeyIsNotUsedUnderTheOldOnesRules(t *testing.T) {
	for _, remembers := range []bool{true, false} {
		t.Run(fmt.Sprint("remembers ", remembers), func(t *testing.T) { testNewKeyUnderOldRules(t, remembers) })
	}
}

func testNewKeyUnderOldRules(t *testing.T, remembers bool) {
	dir := t.TempDir()
	inner, err := keys.Open(t.Context(), []string{"sqlite://file@" + filepath.Join(dir, "keys.db")}, keys.Options{IdentityFile: filepath.Join(dir, "identity.pgp")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inner.Close() })
	provider := &held{Provider: inner}
	cached, err := cache.New(provider, cache.Config{Enabled: remembers, Suite: edek.AESCTR, Metrics: metrics.NewSet(), Idle: time.Hour, CurrentAge: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cached.Close)
	access := authz.New(policy(t, "key.acl.open.ALL", "*", "key.acl.shut.READ", "boss",
		"key.acl.shut.GENERATE_EEK", "boss", "key.acl.shut.DECRYPT_EEK", "boss"), noGroups{})
	k := newKMS(t, func(c *Config) { c.Cache, c.Authz = cached, access })
	create := func(aclName string) {
		t.Helper()
		v, err := cached.Create(t.Context(), edek.Caller{}, &edek.NewKey{Name: "k1", Cipher: "AES/CTR/NoPadding", BitLength: 128,
			Attributes: map[string]string{edek.AttributeACLName: aclName}})
		if err != nil {
			t.Fatal(err)
		}
		v.Zero()
	}
	remove := func() {
		t.Helper()
		if err := cached.Delete(t.Context(), edek.Caller{}, "k1"); err != nil {
			t.Fatal(err)
		}
	}
	// during asks while the n-th question is held up, and reports whether there was one.
	during := func(n int64, before bool, method, target, body string) (a answered, reached bool) {
		create("open")
		defer remove()
		provider.hold(n, before)
		got := make(chan answered, 1)
		go func() { got <- k.call(t, method, target, body) }()
		select {
		case a = <-got:
			return a, false
		case <-provider.reached:
		}
		remove()
		create("shut")
		close(provider.release)
		return <-got, true
	}
	for _, c := range everyRow {
		switch c.row {
		case rowCurrentVersion, rowKeyVersion, rowVersions, rowGenerate, rowDecrypt, rowDecryptBatch:
		default:
			continue
		}
		for _, before := range []bool{true, false} {
			n := int64(1)
			for ; ; n++ {
				a, reached := during(n, before, c.method, c.target, c.body)
				if !reached {
					if a.StatusCode != 200 {
						t.Errorf("%s, nothing changed: %d %s", rowLabels[c.row], a.StatusCode, a.body)
					}
					break
				}
				if !strings.Contains(a.body, "AuthorizationException") {
					t.Errorf("%s, question %d: %d %s", rowLabels[c.row], n, a.StatusCode, a.body)
				}
			}
			if n < 3 {
				t.Errorf("%s asked %d questions", rowLabels[c.row], n-1)
			}
		}
	}
}

// unborn is a provider in which keys seem not to be there yet to whoever asks
// for their metadata: as it is when a key is created between two questions.
type unborn struct {
	keys.Provider
	on atomic.Bool
}

func (p *unborn) Metadata(ctx context.Context, name string) (*edek.Metadata, error) {
	if p.on.Load() {
		return nil, &edek.Error{Kind: edek.NotFound, Op: "metadata", Key: name, Text: "Key " + name + " not found"}
	}
	return p.Provider.Metadata(ctx, name)
}

// A key that comes to be after its rules were asked for is not used: nobody was
// asked about it.
func TestKeyBornAfterTheQuestionIsNotUsed(t *testing.T) {
	dir := t.TempDir()
	inner, err := keys.Open(t.Context(), []string{"sqlite://file@" + filepath.Join(dir, "keys.db")}, keys.Options{IdentityFile: filepath.Join(dir, "identity.pgp")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inner.Close() })
	provider := &unborn{Provider: inner}
	cached, err := cache.New(provider, cache.Config{Suite: edek.AESCTR, Metrics: metrics.NewSet(), Idle: time.Minute, CurrentAge: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cached.Close)
	k := newKMS(t, func(c *Config) { c.Cache = cached })
	k.create(t, "k1")
	provider.on.Store(true)
	for _, c := range everyRow {
		a := k.call(t, c.method, c.target, c.body)
		switch c.row {
		case rowCreate, rowNames, rowInvalidate:
		case rowKeysMetadata:
			if a.body != "[ { } ]" {
				t.Errorf("%s: %d %s", rowLabels[c.row], a.StatusCode, a.body)
			}
		case rowMetadata, rowCurrentVersion, rowKeyVersion:
			if a.body != "{ }" {
				t.Errorf("%s: %d %s", rowLabels[c.row], a.StatusCode, a.body)
			}
		case rowVersions:
			if a.body != "[ ]" {
				t.Errorf("%s: %d %s", rowLabels[c.row], a.StatusCode, a.body)
			}
		case rowGenerate:
			contains(t, remote(t, a, 500, classIO), "No KeyVersion exists for key 'k1'")
		case rowDecrypt, rowReencrypt, rowReencryptBatch:
			contains(t, remote(t, a, 400, classIllegalArgument), "'k1@0' not found")
		case rowRoll:
			contains(t, remote(t, a, 500, classIO), "Can't find Metadata for key k1")
		case rowDelete:
			contains(t, remote(t, a, 500, classIO), "Key k1 does not exist in sqlite://file@")
		}
	}
	provider.on.Store(false)
	contains(t, k.call(t, "GET", "/key/k1/_metadata", "").body, `"versions" : 1`)
}

// The status in the audit is the one that the client got, and the proof is told.
func TestAuditedStatusOfKeyDenials(t *testing.T) {
	object := &sink{refused: make(chan struct{}, 1)}
	k := newKMS(t, func(c *Config) {
		c.Authz = authz.New(policy(t, "default.key.acl.MANAGEMENT", "*"), noGroups{})
		c.Audit = audit.New(nil, audit.Options{JSON: object})
		t.Cleanup(func() { c.Audit.Close(context.Background()) })
	})
	k.create(t, "k1")
	f := func(target, op string, status int) {
		t.Helper()
		if a := k.raw(t, requestText("GET", target, ""), 1)[0]; a.StatusCode != status {
			t.Errorf("%s: %d %s", target, a.StatusCode, a.body)
		}
		var lines []string
		for line := range strings.Lines(object.String()) {
			if strings.Contains(line, `"denied"`) {
				lines = append(lines, line)
			}
		}
		if len(lines) < 2 {
			t.Fatalf("%s: %q", target, lines)
		}
		lines = lines[len(lines)-2:]
		for i, name := range []string{op, "ALL"} {
			if part := fmt.Sprintf(`"decision":"denied","status":%d,"op":"%s","layer":"key"`, status, name); !strings.Contains(lines[i], part) || !strings.Contains(lines[i], `"auth":"simple"`) {
				t.Errorf("%s: %s", target, lines[i])
			}
		}
	}
	f("/kms/v1/key/k1/_eek?eek_op=generate&num_keys=1&user.name=alice", "GENERATE_EEK", 500)
	f("/kms/v1/key/k1/_metadata?user.name=alice", "READ", 403)
}

// unreadable is a store that describes keys and cannot read their material.
type unreadable struct{ keys.Provider }

func (unreadable) Version(_ context.Context, name string) (*edek.KeyVersion, error) {
	return nil, &edek.Error{Kind: edek.Corrupt, Op: "version", Key: name, Text: "the seal is broken"}
}

// Who may not use a key is denied, and not told of the store, also when the key
// could not be used by anybody.
func TestDenialComesBeforeTheStore(t *testing.T) {
	dir := t.TempDir()
	provider, err := keys.Open(t.Context(), []string{"sqlite://file@" + filepath.Join(dir, "keys.db")}, keys.Options{IdentityFile: filepath.Join(dir, "identity.pgp")})
	if err != nil {
		t.Fatal(err)
	}
	v, err := provider.Create(t.Context(), &edek.NewKey{Name: "k1", Cipher: "AES/CTR/NoPadding", BitLength: 128})
	if err != nil {
		t.Fatal(err)
	}
	v.Zero()
	cached, err := cache.New(unreadable{provider}, cache.Config{Enabled: true, Idle: time.Hour, CurrentAge: time.Hour, Suite: edek.AESCTR, Metrics: metrics.NewSet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cached.Close()
		provider.Close()
	})
	access := authz.New(policy(t, openRules...), noGroups{})
	k := newKMS(t, func(c *Config) { c.Cache, c.Authz = cached, access })
	if a := k.call(t, "GET", generateOne, ""); a.StatusCode != 500 || strings.Contains(a.body, "AuthorizationException") {
		t.Errorf("who may: %d %s", a.StatusCode, a.body)
	}
	access.Set(policy(t, "default.key.acl.GENERATE_EEK", "somebody"), noGroups{})
	if a := k.call(t, "GET", generateOne, ""); a.StatusCode != 500 || !strings.Contains(a.body, "AuthorizationException") {
		t.Errorf("who may not: %d %s", a.StatusCode, a.body)
	}
}
