package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/edekd/edekd/cache"
	"github.com/edekd/edekd/cache/ring"
	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/internal/race"
	"github.com/edekd/edekd/keys"
	"github.com/edekd/edekd/proxy/authn"
	"github.com/edekd/edekd/proxy/authn/secret"
	"github.com/edekd/edekd/proxy/authz"
	"github.com/edekd/edekd/upstream"
	upstreamkms "github.com/edekd/edekd/upstream/kms"
)

// behind is a far provider whose requests can be counted and made to fail.
type behind struct {
	keys.Far
	mu    sync.Mutex
	made  []edek.Caller // callers of Generate
	fail  error         // what Generate and Decrypt answer instead
	roll  error         // what Roll answers instead
	state *upstream.State
	hold  chan struct{} // while it is open, edekd's own generates wait

	copied    int      // requests of Copy that were answered
	lie       bool     // with other material than the key's
	single    int      // requests of Decrypt
	batches   []int    // EDEKs of each request of DecryptBatch
	batchFail error    // what DecryptBatch answers instead
	given     [][]byte // what Decrypt and DecryptBatch handed out

	opens func(ctx context.Context) // called by Decrypt before it answers
}

func (b *behind) with(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

func (b *behind) Generate(ctx context.Context, c edek.Caller, name string, n int) ([]edek.EDEK, error) {
	b.mu.Lock()
	b.made = append(b.made, c)
	err, hold := b.fail, b.hold
	b.mu.Unlock()
	if hold != nil && c.User == "" {
		<-hold
	}
	if err != nil {
		return nil, err
	}
	return b.Far.Generate(ctx, c, name, n)
}

func (b *behind) Decrypt(ctx context.Context, c edek.Caller, name, version string, iv, wrapped []byte) ([]byte, error) {
	b.mu.Lock()
	b.single++
	err, opens := b.fail, b.opens
	b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	dek, err := b.Far.Decrypt(ctx, c, name, version, iv, wrapped)
	b.with(func() { b.given = append(b.given, dek) })
	if opens != nil {
		opens(ctx)
	}
	return dek, err
}

func (b *behind) Copy(ctx context.Context, versionName string) (*edek.KeyVersion, error) {
	v, err := b.Far.Copy(ctx, versionName)
	b.with(func() {
		b.copied++
		if b.lie {
			v.Material[0]++
		}
	})
	return v, err
}

func (b *behind) As(c edek.Caller) keys.Remote { return rolling{b.Far.As(c), b} }

func (b *behind) State() upstream.State {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state != nil {
		return *b.state
	}
	return b.Far.State()
}

// copies counts the answers to Copy.
func (s *sidecar) copies() (n int) {
	s.far.with(func() { n = s.far.copied })
	return n
}

// madeFor counts the generates that were forwarded for a user, "" for edekd.
func (b *behind) madeFor(user string) (n int) {
	b.with(func() {
		for _, c := range b.made {
			if c.User == user {
				n++
			}
		}
	})
	return n
}

type rolling struct {
	keys.Remote
	b *behind
}

func (r rolling) Roll(ctx context.Context, name string, material []byte) (*edek.KeyVersion, error) {
	v, err := r.Remote.Roll(ctx, name, material)
	r.b.with(func() {
		if r.b.roll != nil {
			err = r.b.roll
		}
	})
	return v, err
}

// sidecar is a KMS over real parts with another one, ours too, behind it.
type sidecar struct {
	*kms
	back  *kms              // the KMS behind
	rules *authz.Authorizer // of the KMS behind
	far   *behind
	cache *cache.Cache

	mu      sync.Mutex
	changes []string // of the state
}

// stateChanges are those told so far.
func (s *sidecar) stateChanges() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.changes, ", ")
}

func newProxied(t testing.TB) *authn.Authenticator {
	t.Helper()
	ring, err := secret.NewRandom(time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	auth, err := authn.New(authn.Config{Secrets: ring, WriteError: WriteError, ProxyUsers: everybody{}})
	if err != nil {
		t.Fatal(err)
	}
	return auth
}

func farTestConfig() cache.FarConfig {
	return cache.FarConfig{Poll: time.Hour, Timeout: 10 * time.Second, Grant: time.Hour,
		Ring: ring.Config{Size: 100, LowWatermark: 0.3, Cover: -1}}
}

// newSidecar makes a sidecar. far may change how it serves, near puts a store of
// its own first in the chain.
func newSidecar(t testing.TB, near bool, adjust ...func(*cache.FarConfig)) *sidecar {
	t.Helper()
	s := &sidecar{rules: authz.New(policy(t, openRules...), noGroups{})}
	s.back = newKMS(t, func(c *Config) { c.Authn, c.Authz = newProxied(t), s.rules })
	address := s.back.serveTCP(t)
	c := farTestConfig()
	for _, f := range adjust {
		f(&c)
	}
	far, err := keys.OpenKMS("kms://http@"+address+"/kms", upstreamkms.Config{Service: "edekd"}, c.Copies)
	if err != nil {
		t.Fatal(err)
	}
	s.far = &behind{Far: far}
	var provider keys.Provider = s.far
	if near {
		dir := t.TempDir()
		own, err := keys.Open(t.Context(), []string{"sqlite://file@" + filepath.Join(dir, "keys.db")}, keys.Options{IdentityFile: filepath.Join(dir, "identity.pgp")})
		if err != nil {
			t.Fatal(err)
		}
		provider = keys.Chain(own, s.far)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.StateChanged = func(is, was upstream.State) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changes = append(s.changes, was.String()+" to "+is.String())
	}
	s.cache, err = cache.New(provider, cache.Config{Enabled: true, Idle: 10 * time.Minute, CurrentAge: 30 * time.Second,
		Suite: edek.AESCTR, Metrics: metrics.NewSet(), Far: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.cache.Close()
		provider.Close()
	})
	s.kms = newKMS(t, func(c *Config) { c.Authn, c.Cache, c.UpstreamUser = newProxied(t), s.cache, "edekd" })
	return s
}

// as sends one request as a user.
func (k *kms) as(t testing.TB, user, method, target, body string) answered {
	t.Helper()
	separator := "?"
	if strings.Contains(target, "?") {
		separator = "&"
	}
	return k.raw(t, requestText(method, "/kms/v1"+target+separator+"user.name="+user, body), 1)[0]
}

const generateOne = "/key/k1/_eek?eek_op=generate&num_keys=1"

// generateAs asks for one EDEK of k1 as a user.
func (k *kms) generateAs(t testing.TB, user string) eek {
	t.Helper()
	a := k.as(t, user, "GET", generateOne, "")
	var list []eek
	if err := json.Unmarshal([]byte(a.body), &list); a.StatusCode != 200 || err != nil {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	return list[0]
}

// decryptAnswer is the body of the answer to a decrypt.
func (k *kms) decryptAnswer(t testing.TB, e eek) string {
	t.Helper()
	a := k.call(t, "POST", "/keyversion/"+e.VersionName+"/_eek?eek_op=decrypt", e.decryptBody("k1"))
	if a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	return a.body
}

// eventually polls for what has to come.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come", what)
		}
	}
}

// granted lets a user earn a grant and waits for the ring.
func (s *sidecar) granted(t testing.TB, user string) {
	t.Helper()
	eventually(t, "a ring for "+user, func() bool {
		before := s.far.madeFor(user)
		if a := s.as(t, user, "GET", generateOne, ""); a.StatusCode != 200 {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
		return s.far.madeFor(user) == before
	})
}

// The whole life of a key through the sidecar is what it is without.
func TestFarKeysLive(t *testing.T) {
	s := newSidecar(t, false)
	s.create(t, "k1")
	first := s.generate(t, "k1", 3)
	dek := s.decrypt(t, "k1", first[0])
	if string(s.back.decrypt(t, "k1", first[0])) != string(dek) {
		t.Error("another DEK than behind")
	}
	same := func(method, target, body string) {
		t.Helper()
		a, b := s.call(t, method, target, body), s.back.call(t, method, target, body)
		if a.StatusCode != b.StatusCode || a.body != b.body {
			t.Errorf("%s %s: %d %s\nbehind: %d %s", method, target, a.StatusCode, a.body, b.StatusCode, b.body)
		}
	}
	if a := s.call(t, "POST", "/key/k1", "{}"); a.StatusCode != 200 || !strings.Contains(a.body, "k1@1") {
		t.Fatalf("roll: %d %s", a.StatusCode, a.body)
	}
	for _, e := range s.generate(t, "k1", 50) {
		if e.VersionName != "k1@1" {
			t.Fatalf("%s after the roll", e.VersionName)
		}
	}
	for _, target := range []string{"/keys/names", "/key/k1/_metadata", "/keys/metadata?key=k1&key=none&key=k1", "/key/k1/_currentversion",
		"/keyversion/k1@0", "/keyversion/k1@7", "/key/k1/_versions", "/key/none/_metadata", "/key/none/_versions"} {
		same("GET", target, "")
	}
	same("POST", "/keyversion/k1@0/_eek?eek_op=reencrypt", first[1].decryptBody("k1"))
	same("POST", "/keyversion/k1@0/_eek?eek_op=decrypt", first[1].decryptBody("other"))
	same("POST", "/keyversion/k1@9/_eek?eek_op=decrypt", first[1].decryptBody("k1"))
	current := s.generate(t, "k1", 1)[0]
	batch := fmt.Sprintf("[%s,%s]", batchEntryText(t, first[2]), batchEntryText(t, current))
	same("POST", "/key/k1/_reencryptbatch", batch)
	same("POST", "/key/k1/_decryptbatch", batch)
	if a := s.call(t, "POST", "/key/k1/_invalidatecache", ""); a.StatusCode != 200 {
		t.Errorf("invalidate: %d %s", a.StatusCode, a.body)
	}
	if a := s.call(t, "DELETE", "/key/k1", ""); a.StatusCode != 200 {
		t.Errorf("delete: %d %s", a.StatusCode, a.body)
	}
	if a := s.call(t, "GET", generateOne, ""); a.StatusCode != 500 {
		t.Errorf("generate of a deleted key: %d %s", a.StatusCode, a.body)
	}
}

func batchEntryText(t testing.TB, e eek) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{"versionName": e.VersionName, "iv": e.IV, "encryptedKeyVersion": map[string]any{
		"versionName": "EEK", "name": "k1", "material": e.EncryptedKeyVersion.Material}})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A user gets from a ring only what the KMS behind lets him have, each real user
// apart, and nothing after a denial of whatever kind.
func TestRingsAreForWhoIsGranted(t *testing.T) {
	s := newSidecar(t, false)
	s.create(t, "k1")
	s.granted(t, "alice")

	s.rules.Set(policy(t, append([]string{"key.acl.k1.GENERATE_EEK", "alice,edekd", "hadoop.kms.blacklist.DECRYPT_EEK", "mallory"}, openRules...)...), noGroups{})
	direct := s.back.as(t, "eve", "GET", generateOne, "")
	if a := s.as(t, "eve", "GET", generateOne, ""); a.StatusCode != direct.StatusCode || a.body != direct.body || a.StatusCode == 200 {
		t.Errorf("a stranger at a full ring: %d %s, without sidecar %d %s", a.StatusCode, a.body, direct.StatusCode, direct.body)
	}
	before := s.far.madeFor("alice")
	if a := s.as(t, "oozie", "GET", generateOne+"&doAs=alice", ""); a.StatusCode != 200 || s.far.madeFor("alice") != before+1 {
		t.Errorf("alice's grant served somebody who acts for her: %d", a.StatusCode)
	}

	// Revoked at the KMS behind, alice has her grant until something is denied.
	s.rules.Set(policy(t, append([]string{"key.acl.k1.GENERATE_EEK", "edekd", "key.acl.k1.DECRYPT_EEK", "bob"}, openRules...)...), noGroups{})
	if a := s.as(t, "alice", "GET", generateOne, ""); a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	if a := s.as(t, "alice", "POST", "/keyversion/k1@0/_eek?eek_op=decrypt", wholeEEK); a.StatusCode != 403 {
		t.Errorf("decrypt: %d %s", a.StatusCode, a.body)
	}
	if a := s.as(t, "alice", "GET", generateOne, ""); a.StatusCode != 500 || !strings.Contains(a.body, "AuthorizationException") {
		t.Errorf("generate after a denial: %d %s", a.StatusCode, a.body)
	}
}

// Local rules count as for near keys, before anything is asked behind.
func TestLocalRulesCountForFarKeys(t *testing.T) {
	s := newSidecar(t, false)
	s.create(t, "k1")
	s.granted(t, "alice")
	s.c.Authz.Set(policy(t, append([]string{"key.acl.k1.GENERATE_EEK", "bob", "key.acl.k1.READ", "bob"}, openRules...)...), noGroups{})
	made := s.far.madeFor("alice")
	if a := s.as(t, "alice", "GET", generateOne, ""); a.StatusCode != 500 || !strings.Contains(a.body, "AuthorizationException") || s.far.madeFor("alice") != made {
		t.Errorf("generate: %d %s", a.StatusCode, a.body)
	}
	for _, target := range []string{"/key/k1/_currentversion", "/keyversion/k1@0", "/key/k1/_versions", "/key/k1/_metadata", "/keys/metadata?key=k1"} {
		if a := s.as(t, "alice", "GET", target, ""); a.StatusCode != 403 {
			t.Errorf("%s: %d %s", target, a.StatusCode, a.body)
		}
	}
}

// What edekd may read for itself answers nobody else.
func TestKeyMaterialIsAskedForAsTheCaller(t *testing.T) {
	s := newSidecar(t, false)
	s.create(t, "k1")
	s.rules.Set(policy(t, append([]string{"hadoop.kms.acl.GET", "edekd", "hadoop.kms.acl.GET_METADATA", "edekd", "hadoop.kms.acl.GET_KEYS", "edekd",
		"hadoop.kms.acl.ROLLOVER", "edekd", "hadoop.kms.acl.DELETE", "edekd", "hadoop.kms.acl.CREATE", "edekd"}, openRules...)...), noGroups{})
	for _, c := range everyRow {
		if c.row == rowGenerate || c.row == rowDecrypt || c.row == rowReencrypt || c.row == rowReencryptBatch || c.row == rowDecryptBatch {
			continue
		}
		if a := s.as(t, "eve", c.method, c.target, c.body); a.StatusCode != 403 || !strings.Contains(a.body, "eve") {
			t.Errorf("%s %s: %d %s", c.method, c.target, a.StatusCode, a.body)
		}
	}
}

// The name that the KMS behind lets do everything is nobody's here.
func TestEdekdsOwnNameIsRefused(t *testing.T) {
	s := newSidecar(t, false)
	s.create(t, "k1")
	for _, c := range everyRow {
		for _, who := range []string{"edekd", "x&doAs=edekd", "edekd&doAs=x"} {
			if a := s.as(t, who, c.method, c.target, c.body); a.StatusCode != 403 {
				t.Errorf("%s as %s: %d %s", c.target, who, a.StatusCode, a.body)
			}
		}
	}
}

// A change of which nobody knows whether it happened is no error that clients
// would answer by sending it again, and is not followed by older EDEKs.
func TestUnsettledChange(t *testing.T) {
	s := newSidecar(t, false)
	s.create(t, "k1")
	s.granted(t, "x")
	s.far.with(func() {
		s.far.roll = &edek.Error{Kind: edek.Unsettled, Op: "roll", Key: "k1", Text: "it is unknown whether k1 was rolled: look at its metadata"}
	})
	a := s.call(t, "POST", "/key/k1", "{}")
	if a.StatusCode != 400 || !strings.Contains(a.body, "java.lang.RuntimeException") || !strings.Contains(a.body, "unknown") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if e := s.generate(t, "k1", 1)[0]; e.VersionName != "k1@1" {
		t.Errorf("%s after a roll that happened", e.VersionName)
	}
}

// In an outage who has a grant is served from the ring, everybody else is told
// the state at once, and nobody that the key is unknown.
func TestOutage(t *testing.T) {
	s := newSidecar(t, false)
	s.create(t, "k1")
	s.granted(t, "alice")
	if a := s.raw(t, requestText("GET", "/readyz", ""), 1)[0]; a.StatusCode != 200 || !strings.Contains(a.body, "upstream: ok") {
		t.Errorf("/readyz: %d %s", a.StatusCode, a.body)
	}
	gone := upstream.CacheOnly
	s.far.with(func() {
		s.far.state = &gone
		s.far.fail = &edek.Error{Kind: edek.Unavailable, Op: "ask", Text: "cache-only: no node can be reached"}
	})
	if a := s.as(t, "alice", "GET", generateOne, ""); a.StatusCode != 200 {
		t.Errorf("alice: %d %s", a.StatusCode, a.body)
	}
	if a := s.as(t, "bob", "GET", generateOne, ""); a.StatusCode != 500 || !strings.Contains(a.body, "cache-only") || !strings.Contains(a.body, "java.io.IOException") {
		t.Errorf("bob: %d %s", a.StatusCode, a.body)
	}
	if a := s.raw(t, requestText("GET", "/readyz", ""), 1)[0]; a.StatusCode != 200 || !strings.Contains(a.body, "upstream: cache-only") {
		t.Errorf("/readyz: %d %s", a.StatusCode, a.body)
	}
	for s.as(t, "alice", "GET", "/key/k1/_eek?eek_op=generate&num_keys=1000", "").StatusCode == 200 {
		t.Error("more than the ring had")
	}
	eventually(t, "an empty ring", func() bool { return s.as(t, "alice", "GET", generateOne, "").StatusCode != 200 })
	if a := s.raw(t, requestText("GET", "/readyz", ""), 1)[0]; a.StatusCode != 503 || !strings.Contains(a.body, "upstream: down") {
		t.Errorf("/readyz: %d %s", a.StatusCode, a.body)
	}
	// What lasts less than a look is not told.
	eventually(t, "word of the change", func() bool {
		told := s.stateChanges()
		return told == "ok to down" || told == "ok to cache-only, cache-only to down"
	})
}

// A key rolled, or deleted and made anew, behind the sidecar is followed.
func TestChangesBehindAreFollowed(t *testing.T) {
	s := newSidecar(t, false, func(c *cache.FarConfig) { c.Poll = 20 * time.Millisecond })
	s.create(t, "k1")
	s.granted(t, "alice")
	if a := s.back.call(t, "POST", "/key/k1", "{}"); a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	version := func() string {
		a := s.as(t, "alice", "GET", generateOne, "")
		var list []eek
		if err := json.Unmarshal([]byte(a.body), &list); err != nil || len(list) != 1 {
			return a.body
		}
		return list[0].VersionName
	}
	eventually(t, "the new version", func() bool { return version() == "k1@1" })
	for range 200 {
		if v := version(); v != "k1@1" {
			t.Fatalf("%s after k1@1", v)
		}
	}
	s.back.call(t, "DELETE", "/key/k1", "")
	s.back.create(t, "k1")
	eventually(t, "the new key", func() bool { return version() == "k1@0" })
}

// A provider of a chain that cannot be reached is never taken for one that does
// not know the key, and near keys before it go on.
func TestChainOfNearAndFar(t *testing.T) {
	s := newSidecar(t, true)
	s.back.create(t, "k1")
	s.create(t, "near")
	if dek := s.decrypt(t, "near", s.generate(t, "near", 1)[0]); len(dek) != 16 {
		t.Errorf("near: %d bytes", len(dek))
	}
	e := s.generate(t, "k1", 1)[0]
	if string(s.decrypt(t, "k1", e)) != string(s.back.decrypt(t, "k1", e)) {
		t.Error("far: another DEK")
	}
	if a := s.call(t, "POST", "/key/k1", "{}"); a.StatusCode != 500 || !strings.Contains(a.body, "read only here") {
		t.Errorf("a roll beyond the first provider: %d %s", a.StatusCode, a.body)
	}
	if a := s.call(t, "GET", "/keys/names", ""); !strings.Contains(a.body, "near") || !strings.Contains(a.body, "k1") {
		t.Error(a.body)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s.back.Shutdown(ctx)
	if a := s.call(t, "POST", "/keys", `{"name":"k2"}`); a.StatusCode != 500 || strings.Contains(a.body, "exist") {
		t.Errorf("create: %d %s", a.StatusCode, a.body)
	}
	if a := s.call(t, "GET", "/key/k2/_metadata", ""); a.StatusCode != 500 {
		t.Errorf("metadata of a key that may be behind: %d %s", a.StatusCode, a.body)
	}
	s.generate(t, "near", 1)
}

// An EDEK from a ring costs no allocation, as one of a near key.
func TestGenerateFromRingDoesNotAllocate(t *testing.T) {
	s := newSidecar(t, false, func(c *cache.FarConfig) { c.Ring.Size = 20_000 })
	s.create(t, "k1")
	ctx := hotContext(t, s.hotRequest(t, "generate"))
	handle := func() {
		ctx.Response.Reset()
		s.handle(ctx)
	}
	s.granted(t, "x")
	// What is fetched meanwhile would be counted.
	hold := make(chan struct{})
	defer close(hold)
	eventually(t, "a ring that holds enough", func() bool { return s.cache.Ready("k1") > 6000 })
	s.far.with(func() { s.far.hold = hold })
	if n := testing.AllocsPerRun(2000, handle); n != 0 && !race.Enabled {
		t.Errorf("%v allocations per request", n)
	}
	if ctx.Response.StatusCode() != 200 {
		t.Errorf("%d %s", ctx.Response.StatusCode(), ctx.Response.Body())
	}
}

// With a cache of DEKs, who was lately let decrypt gets again what anybody got,
// and nobody else does; without a node too. An EDEK is found by all of it.
func TestDecryptCache(t *testing.T) {
	s := newSidecar(t, false, func(c *cache.FarConfig) { c.DEKBytes, c.DEKAge = 1<<20, time.Hour })
	s.create(t, "k1")
	e := s.generate(t, "k1", 2)
	decrypt := func(user string, e eek) answered {
		return s.as(t, user, "POST", "/keyversion/"+e.VersionName+"/_eek?eek_op=decrypt", e.decryptBody("k1"))
	}
	first := decrypt("alice", e[0])
	decrypt("bob", e[1])
	s.far.with(func() { s.far.fail = &edek.Error{Kind: edek.Unavailable, Op: "ask", Text: "no node"} })
	if a := decrypt("alice", e[0]); a.StatusCode != 200 || a.body != first.body {
		t.Errorf("remembered: %d %s, was %s", a.StatusCode, a.body, first.body)
	}
	if a := decrypt("alice", e[1]); a.StatusCode != 200 {
		t.Errorf("what another opened: %d %s", a.StatusCode, a.body)
	}
	s.hot(t, "alice", e[0])
	if a := decrypt("eve", e[0]); a.StatusCode != 500 {
		t.Errorf("a stranger: %d %s", a.StatusCode, a.body)
	}
	if a := s.as(t, "oozie", "POST", "/keyversion/k1@0/_eek?eek_op=decrypt&doAs=alice", e[0].decryptBody("k1")); a.StatusCode != 500 {
		t.Errorf("somebody who acts for alice: %d %s", a.StatusCode, a.body)
	}
	other := e[0]
	other.IV = e[1].IV
	if a := decrypt("alice", other); a.StatusCode != 500 {
		t.Errorf("another IV: %d %s", a.StatusCode, a.body)
	}
	// The local rules come before what is remembered.
	s.c.Authz.Set(policy(t, append([]string{"hadoop.kms.blacklist.DECRYPT_EEK", "alice"}, openRules...)...), noGroups{})
	if a := decrypt("alice", e[0]); a.StatusCode != 403 {
		t.Errorf("forbidden here: %d %s", a.StatusCode, a.body)
	}
	s.c.Authz.Set(policy(t, openRules...), noGroups{})
	// A denial ends it.
	s.far.with(func() {
		s.far.fail = &edek.Foreign{Status: 403, Class: string(classAuthorization), Text: "no", Node: "n"}
	})
	if a := s.as(t, "alice", "GET", "/key/k1/_eek?eek_op=generate&num_keys=5000", ""); a.StatusCode != 403 {
		t.Errorf("generate: %d %s", a.StatusCode, a.body)
	}
	if a := decrypt("alice", e[0]); a.StatusCode != 403 {
		t.Errorf("after a denial: %d %s", a.StatusCode, a.body)
	}
	s.far.with(func() { s.far.fail = nil })
	if a := s.call(t, "DELETE", "/key/k1", ""); a.StatusCode != 200 {
		t.Errorf("delete: %d %s", a.StatusCode, a.body)
	}
	if a := decrypt("bob", e[0]); a.StatusCode != 400 {
		t.Errorf("of a deleted key: %d %s", a.StatusCode, a.body)
	}
}

// hot checks that a decrypt that is answered from memory costs no allocation.
func (s *sidecar) hot(t *testing.T, user string, e eek) {
	t.Helper()
	ctx := hotContext(t, []byte(requestText("POST", "/kms/v1/keyversion/"+e.VersionName+"/_eek?eek_op=decrypt&user.name="+user, e.decryptBody("k1"))))
	s.handle(ctx)
	cookie := string(ctx.Response.Header.Peek("Set-Cookie"))
	cookie, _, _ = strings.Cut(cookie, ";")
	ctx = hotContext(t, []byte(requestText("POST", "/kms/v1/keyversion/"+e.VersionName+"/_eek?eek_op=decrypt", e.decryptBody("k1"), "Cookie: "+cookie)))
	body := bytes.Clone(ctx.Request.Body())
	handle := func() {
		copy(ctx.Request.Body(), body)
		ctx.Response.Reset()
		s.handle(ctx)
	}
	for range 100 {
		handle()
	}
	if ctx.Response.StatusCode() != 200 {
		t.Fatalf("%d %s", ctx.Response.StatusCode(), ctx.Response.Body())
	}
	if n := testing.AllocsPerRun(1000, handle); n != 0 && !race.Enabled {
		t.Errorf("%v allocations per decrypt from memory", n)
	}
}
