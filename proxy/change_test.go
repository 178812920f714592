package proxy

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/proxy/audit"
)

// sink is an audit file on a disk that fills up on command.
type sink struct {
	lockedBuffer
	full    atomic.Bool
	fullAt  atomic.Pointer[string] // becomes full at a line that contains this
	refused chan struct{}          // one token when it refused something
}

func (s *sink) Write(p []byte) (int, error) {
	if at := s.fullAt.Load(); at != nil && strings.Contains(string(p), *at) {
		s.full.Store(true)
	}
	if s.full.Load() {
		select {
		case s.refused <- struct{}{}:
		default:
		}
		return 0, errors.New("no space left on device")
	}
	return s.lockedBuffer.Write(p)
}

func newKMSWithSink(t *testing.T) (*kms, *sink) {
	s := &sink{refused: make(chan struct{}, 1)}
	k := newKMS(t, func(c *Config) {
		c.Audit = audit.New(s, audit.Options{Wait: 300 * time.Millisecond})
		t.Cleanup(func() {
			s.full.Store(false)
			s.fullAt.Store(nil)
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			c.Audit.Close(ctx)
		})
	})
	return k, s
}

// The audit log breaks between a change and its line: the change stands and
// its client gets an answer that says so, on a connection that stays open.
func TestChangeWithoutAuditLineIsAnswered(t *testing.T) {
	f := func(method, target, body, op, name, after string) {
		t.Helper()
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			changeWithoutAuditLine(t, method, target, body, op, name, after)
		})
	}
	f("POST", "/keys", `{"name":"new"}`, "CREATE_KEY", "new", `"new"`)
	f("POST", "/key/old", `{}`, "ROLL_NEW_VERSION", "old", `"versions" : 2`)
	f("DELETE", "/key/old", "", "DELETE_KEY", "old", "{ }")
	f("POST", "/key/old/_invalidatecache", "", "INVALIDATE_CACHE", "old", `"old"`)
}

func changeWithoutAuditLine(t *testing.T, method, target, body, op, name, after string) {
	k, disk := newKMSWithSink(t)
	k.create(t, "old")
	disk.fullAt.Store(&op)
	c := k.dial(t)
	c.send(t, requestText(method, "/kms/v1"+target+"?user.name=x", body))
	a := c.answer(t, method)
	contains(t, remote(t, a, 500, classIO), op+" has happened")
	if strings.Contains(a.body, "no space") || a.Header.Get("Location") != "" {
		t.Errorf("%v %s", a.Header, a.body)
	}
	c.send(t, requestText("GET", "/kms/v1/key/"+name+"/_metadata?user.name=x", ""))
	contains(t, c.answer(t, "GET").body, after)

	// From now on changes are refused before they are made.
	for _, refused := range [][3]string{{"POST", "/keys", `{"name":"second"}`}, {"POST", "/key/old", "{}"}, {"DELETE", "/key/old", ""}} {
		c.send(t, requestText(refused[0], "/kms/v1"+refused[1]+"?user.name=x", refused[2]))
		contains(t, remote(t, c.answer(t, refused[0]), 500, classIO), "refused: the audit log cannot be written")
	}
	c.send(t, requestText("GET", "/kms/v1/key/second/_metadata?user.name=x", ""))
	if a := c.answer(t, "GET"); a.body != "{ }" {
		t.Errorf("%s: a refused create was done: %s", op, a.body)
	}
	c.send(t, requestText("GET", "/kms/v1/key/"+name+"/_metadata?user.name=x", ""))
	contains(t, c.answer(t, "GET").body, after)
	if a := k.raw(t, requestText("GET", "/readyz", ""), 1)[0]; a.StatusCode != 503 {
		t.Errorf("%s: /readyz says %d %s", op, a.StatusCode, a.body)
	}

	// When the disk has room again, the line is there and changes go on.
	disk.fullAt.Store(nil)
	disk.full.Store(false)
	deadline := time.Now().Add(10 * time.Second)
	for k.c.Audit.Ready() != nil && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	k.create(t, "third")
	contains(t, disk.String(), op)
}

// What hands out keys goes on while the audit log stands still.
func TestHotRequestsGoOnWithoutAuditLog(t *testing.T) {
	k, disk := newKMSWithSink(t)
	k.create(t, "k1")
	e := k.generate(t, "k1", 1)[0]
	disk.full.Store(true)
	k.call(t, "GET", "/key/k1/_metadata", "") // a line to stall at
	<-disk.refused
	for range 50 {
		k.decrypt(t, "k1", k.generate(t, "k1", 1)[0])
		k.decrypt(t, "k1", e)
	}
}

func TestCreate(t *testing.T) {
	f := func(k *kms, body, want string) {
		t.Helper()
		a := k.call(t, "POST", "/keys", body)
		if a.StatusCode != 201 {
			t.Fatalf("%s: %d %s", body, a.StatusCode, a.body)
		}
		a = k.call(t, "GET", "/key/k/_metadata", "")
		before, _, _ := strings.Cut(a.body, "\"created\"")
		if _, got, _ := strings.Cut(before, "\"k\",\n"); strings.Join(strings.Fields(got), "") != want {
			t.Errorf("%s: %s, want %s", body, strings.Join(strings.Fields(got), ""), want)
		}
		if a := k.call(t, "DELETE", "/key/k", ""); a.StatusCode != 200 || a.body != "" {
			t.Errorf("delete: %d %s", a.StatusCode, a.body)
		}
	}
	k := newKMS(t)
	const acl = `"attributes":{"key.acl.name":"k"},`
	f(k, `{"name":"k"}`, `"cipher":"AES/CTR/NoPadding","length":128,"description":null,`+acl)
	f(k, `{"name":"k","length":0,"cipher":null,"attributes":null,"material":null}`, `"cipher":"AES/CTR/NoPadding","length":128,"description":null,`+acl)
	f(k, `{"name":"k","length":256,"cipher":"AES/CBC/PKCS5Padding","description":""}`, `"cipher":"AES/CBC/PKCS5Padding","length":256,"description":"",`+acl)
	f(k, `{"name":"k","attributes":{"a":"b"}}`, `"cipher":"AES/CTR/NoPadding","length":128,"description":null,"attributes":{"a":"b","key.acl.name":"k"},`)
	f(k, `{"name":"k","attributes":{"key.acl.name":"other"}}`, `"cipher":"AES/CTR/NoPadding","length":128,"description":null,"attributes":{"key.acl.name":"other"},`)
	off := newKMS(t, func(c *Config) { c.KeyAuthorization, c.DefaultBitLength, c.DefaultCipher = false, 192, "AES/X" })
	f(off, `{"name":"k","unknown":[{}]}`, `"cipher":"AES/X","length":192,"description":null,"attributes":{},`)

	a := k.call(t, "POST", "/keys", `{"name":"given","length":128,"material":"AAECAwQFBgcICQoLDA0ODw=="}`)
	if want := "{\n  \"material\" : \"AAECAwQFBgcICQoLDA0ODw\",\n  \"name\" : \"given\",\n  \"versionName\" : \"given@0\"\n}"; a.body != want {
		t.Errorf("%s", a.body)
	}
	if l := a.Header.Get("Location"); l != "http://kms.example:9600/kms/v1/key/given" {
		t.Errorf("Location %s", l)
	}
	log := k.closedAudit(t)
	for _, line := range []string{
		"OK[op=CREATE_KEY, key=given, user=x] UserProvidedMaterial:true Description:null",
		"OK[op=CREATE_KEY, key=k, user=x] UserProvidedMaterial:false Description:null",
		"OK[op=DELETE_KEY, key=k, user=x]",
	} {
		contains(t, log, line)
	}
}

// Without key authorization a version that is missing is Java's accident.
func TestMissingVersionWithoutKeyAuthorization(t *testing.T) {
	k := newKMS(t, func(c *Config) { c.KeyAuthorization = false })
	a := k.call(t, "POST", "/keyversion/k@0/_eek?eek_op=decrypt", `{"name":"k","iv":"AAAA","material":"AAAA"}`)
	if m := remote(t, a, 500, classNullPointer); m != "KeyVersion name 'k@0' does not exist" {
		t.Error(m)
	}
}

func TestLookups(t *testing.T) {
	k := newKMS(t)
	f := func(target, want string) {
		t.Helper()
		if a := k.call(t, "GET", target, ""); a.StatusCode != 200 || a.body != want || a.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %v %s, want %s", target, a.StatusCode, a.Header, a.body, want)
		}
	}
	f("/keys/names", "[ ]")
	f("/keys/metadata", "[ ]")
	f("/keys/metadata?key=none", "[ { } ]")
	f("/key/none", "{ }")
	f("/key/none/_metadata", "{ }")
	f("/key/none/_currentversion", "{ }")
	f("/key/none/_versions", "[ ]")
	f("/keyversion/none@0", "{ }")
	f("/keyversion/none", "{ }")
	f("/keyversion/@0", "{ }")

	version := func(n string, material string) string {
		return "{\n  \"material\" : \"" + material + "\",\n  \"name\" : \"b\",\n  \"versionName\" : \"b@" + n + "\"\n}"
	}
	k.call(t, "POST", "/keys", `{"name":"b","length":128,"material":"AAAAAAAAAAAAAAAAAAAAAA"}`)
	k.create(t, "a")
	f("/keys/names", `[ "a", "b" ]`)
	f("/key/b/_versions", "[ "+version("0", "AAAAAAAAAAAAAAAAAAAAAA")+" ]")
	if a := k.call(t, "POST", "/key/b", `{"material":"__________________8"}`); a.StatusCode != 500 {
		t.Errorf("15 bytes: %d %s", a.StatusCode, a.body)
	}
	if a := k.call(t, "POST", "/key/b", `{"material":"_____________________w"}`); a.StatusCode != 200 || a.body != version("1", "_____________________w") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	f("/key/b/_versions", "[ "+version("0", "AAAAAAAAAAAAAAAAAAAAAA")+", "+version("1", "_____________________w")+" ]")
	f("/key/b/_currentversion", version("1", "_____________________w"))
	f("/keyversion/b@0", version("0", "AAAAAAAAAAAAAAAAAAAAAA"))
	f("/keyversion/b%401", version("1", "_____________________w"))
	f("/keyversion/b@2", "{ }")
	f("/keyversion/b@01", "{ }") // one version has one name
	f("/keyversion/b@-0", "{ }")
	f("/keyversion/b@99999999999999999999", "{ }")

	body := k.call(t, "GET", "/keys/metadata?key=b&key=none&key=a&key=b&key=%62", "").body
	var order []string
	for _, part := range strings.Split(body, "\"name\" : \"")[1:] {
		order = append(order, part[:1])
	}
	if got := strings.Join(order, ""); got != "babb" || strings.Count(body, "{ }") != 1 || strings.Index(body, "{ }") > strings.Index(body, `"a"`) {
		t.Errorf("%s: %s", got, body)
	}
}

func TestReencrypt(t *testing.T) {
	k := newKMS(t)
	k.create(t, "k1")
	old := k.generate(t, "k1", 1)[0]
	dek := k.decrypt(t, "k1", old)
	k.call(t, "POST", "/key/k1", "{}")
	a := k.call(t, "POST", "/keyversion/k1@0/_eek?eek_op=reencrypt", old.decryptBody("k1"))
	var e eek
	must(t, []byte(a.body), &e)
	if e.VersionName != "k1@1" || e.EncryptedKeyVersion.VersionName != edek.EEK || e.EncryptedKeyVersion.Name == nil || *e.EncryptedKeyVersion.Name != "k1" ||
		e.IV != old.IV || e.EncryptedKeyVersion.Material == old.EncryptedKeyVersion.Material {
		t.Errorf("%s", a.body)
	}
	if got := k.decrypt(t, "k1", e); string(got) != string(dek) {
		t.Error("another DEK")
	}
	contains(t, remote(t, k.call(t, "POST", "/keyversion/k1@0/_eek?eek_op=reencrypt", old.decryptBody("k2")), 400, classIllegalArgument), "does not belong")
}

func TestReencryptBatch(t *testing.T) {
	k := newKMS(t)
	k.create(t, "k1")
	k.create(t, "k2")
	var edeks []eek
	for range 3 {
		edeks = append(edeks, k.generate(t, "k1", 2)...)
		k.call(t, "POST", "/key/k1", "{}")
	}
	k.call(t, "POST", "/key/k1", "{}")
	edeks = append(edeks, k.generate(t, "k1", 2)...)
	edeks[0], edeks[7] = edeks[7], edeks[0] // a current one first
	entry := func(e eek) string {
		return `{"versionName":"` + e.VersionName + `","iv":"` + e.IV + `","encryptedKeyVersion":{"versionName":"EEK","material":"` + e.EncryptedKeyVersion.Material + `"}}`
	}
	var entries []string
	for _, e := range edeks {
		entries = append(entries, entry(e))
	}
	a := k.call(t, "POST", "/key/k1/_reencryptbatch", "["+strings.Join(entries, ",")+"]")
	var got []eek
	must(t, []byte(a.body), &got)
	if len(got) != len(edeks) {
		t.Fatalf("%d EDEKs: %s", len(got), a.body)
	}
	for i, e := range got {
		was := edeks[i]
		if e.VersionName != "k1@4" || e.EncryptedKeyVersion.VersionName != edek.EEK || e.IV != was.IV {
			t.Errorf("entry %d: %+v", i, e)
		}
		unchanged := was.VersionName == "k1@4"
		if unchanged != (e.EncryptedKeyVersion.Name == nil) || unchanged != (e.EncryptedKeyVersion.Material == was.EncryptedKeyVersion.Material) {
			t.Errorf("entry %d of %s: %+v", i, was.VersionName, e)
		}
		if string(k.decrypt(t, "k1", e)) != string(k.decrypt(t, "k1", was)) {
			t.Errorf("entry %d: another DEK", i)
		}
	}
	contains(t, k.closedAudit(t), "OK[op=REENCRYPT_EEK_BATCH, key=k1, user=x] reencrypted 8 keys")

	foreign := entry(k.generate(t, "k2", 1)[0])
	for i := range len(entries) + 1 {
		mixed := append(append(append([]string{}, entries[:i]...), foreign), entries[i:]...)
		a := k.call(t, "POST", "/key/k1/_reencryptbatch", "["+strings.Join(mixed, ",")+"]")
		contains(t, remote(t, a, 400, classIllegalArgument), "KeyVersion 'k2@0' does not belong to the key 'k1'")
	}
	if a := k.call(t, "POST", "/key/none/_reencryptbatch", "[]"); a.StatusCode != 200 || a.body != "[ ]" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

// A failed request leaves its line too, with nothing in it that could pass for
// a line of its own.
func TestFailuresAreAudited(t *testing.T) {
	k := newKMS(t)
	k.call(t, "POST", "/keyversion/a%0A2026-01-01%20OK[op=X]@0/_eek?eek_op=decrypt", `{"name":"k","iv":"AAAA","material":"AAAA"}`)
	k.raw(t, requestText("GET", "/kms/v1/keys/names?secret", ""), 1)
	log := k.closedAudit(t)
	contains(t, log, "ERROR[user=x] Method:'POST' Exception:'")
	contains(t, log, "UNAUTHENTICATED RemoteHost:")
	for line := range strings.Lines(log) {
		if strings.HasPrefix(line, "2026-01-01 OK") {
			t.Errorf("a forged line: %s", log)
		}
	}
}
