package kms

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/edekd/edekd/edek"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a KMS that speaks the real wire, and misbehaves when told to.
type fake struct {
	tb     testing.TB
	server *httptest.Server
	addr   string

	mu       sync.Mutex
	keys     map[string][]*edek.ZoneKey
	requests []string // "METHOD target", OPTIONS left out
	cookies  []string // of the same requests
	logins   int
	conns    int
	// misbehave, when set, may answer itself and say so.
	misbehave func(w http.ResponseWriter, r *http.Request) bool
}

func newFake(tb testing.TB) *fake {
	f := &fake{tb: tb, keys: map[string][]*edek.ZoneKey{}}
	f.server = httptest.NewUnstartedServer(f)
	f.server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			f.mu.Lock()
			f.conns++
			f.mu.Unlock()
		}
	}
	f.server.Config.ErrorLog = nil
	return f
}

func startFake(tb testing.TB, names ...string) *fake {
	f := newFake(tb)
	f.server.Start()
	f.addr = f.server.Listener.Addr().String()
	tb.Cleanup(f.server.Close)
	for _, name := range names {
		f.roll(name)
	}
	return f
}

func (f *fake) roll(name string) string {
	n := len(f.keys[name])
	material := make([]byte, 32)
	material[0] = byte(n)
	f.keys[name] = append(f.keys[name], edek.NewZoneKey(&edek.KeyVersion{Name: name, VersionName: edek.VersionName(name, n), Material: material}, edek.AESCTR))
	return edek.VersionName(name, n)
}

func (f *fake) set(misbehave func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	f.misbehave = misbehave
	f.mu.Unlock()
}

func (f *fake) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string{}, f.requests...)
}

func (f *fake) connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conns
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func fromB64(s string) []byte {
	s = strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(s)
	b, _ := base64.RawURLEncoding.DecodeString(s)
	return b
}

type object = map[string]any

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if v == nil {
		io.WriteString(w, "{ }")
		return
	}
	json.NewEncoder(w).Encode(v)
}

func exception(w http.ResponseWriter, status int, class, message string) {
	answer(w, status, object{"RemoteException": object{"message": message, "exception": class[strings.LastIndexByte(class, '.')+1:], "javaClassName": class}})
}

func eek(name string, n int, iv, wrapped []byte, inner any) object {
	return object{"versionName": edek.VersionName(name, n), "iv": b64(iv), "encryptedKeyVersion": object{"material": b64(wrapped), "name": inner, "versionName": "EEK"}}
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	misbehave := f.misbehave
	if r.Method == http.MethodOptions {
		f.logins++
	} else {
		f.requests = append(f.requests, r.Method+" "+r.RequestURI)
		f.cookies = append(f.cookies, r.Header.Get("Cookie"))
	}
	f.mu.Unlock()
	if misbehave != nil && misbehave(w, r) {
		return
	}
	if r.URL.Query().Get("user.name") == "" {
		http.Error(w, "Authentication required", 401)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.serve(w, r)
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	path, _ := strings.CutPrefix(r.URL.Path, "/kms/v1/")
	query := r.URL.Query()
	body, _ := io.ReadAll(r.Body)
	if r.Method == http.MethodOptions {
		w.Header().Set("Set-Cookie", `hadoop.auth="u=`+query.Get("user.name")+`&p=x&t=simple-dt&e=1&s=c2ln"; HttpOnly`)
		return
	}
	find := func(version string) *edek.ZoneKey {
		name, n, _ := edek.SplitVersion(version)
		if n < len(f.keys[name]) {
			return f.keys[name][n]
		}
		exception(w, 400, "java.lang.IllegalArgumentException", "'"+version+"' not found")
		return nil
	}
	metadata := func(name string) any {
		if f.keys[name] == nil {
			return object{}
		}
		return object{"name": name, "cipher": "AES/CTR/NoPadding", "length": 256, "description": nil, "attributes": object{"key.acl.name": name},
			"created": 1700000000000, "versions": len(f.keys[name])}
	}
	version := func(status int, z *edek.ZoneKey) {
		answer(w, status, object{"material": b64(z.AppendMaterial(nil)), "name": z.Name(), "versionName": z.VersionName()})
	}
	switch name, tail := path, path[strings.LastIndexByte(path, '/')+1:]; {
	case path == "keys" && r.Method == "POST":
		var k struct{ Name string }
		json.Unmarshal(body, &k)
		if f.keys[k.Name] != nil {
			exception(w, 500, "java.io.IOException", "Key "+k.Name+" already exists in jceks://file@/k\n\tat nowhere")
			return
		}
		f.roll(k.Name)
		version(201, f.keys[k.Name][0])
	case path == "keys/names":
		names := []string{}
		for name := range f.keys {
			names = append(names, name)
		}
		answer(w, 200, names)
	case path == "keys/metadata":
		all := []any{}
		for _, name := range query["key"] {
			all = append(all, metadata(name))
		}
		answer(w, 200, all)
	case tail == "_metadata":
		name = name[len("key/") : len(name)-len("/_metadata")]
		answer(w, 200, metadata(name))
	case tail == "_currentversion":
		name = name[len("key/") : len(name)-len("/_currentversion")]
		if all := f.keys[name]; all != nil {
			version(200, all[len(all)-1])
			return
		}
		answer(w, 200, nil)
	case tail == "_versions":
		name = name[len("key/") : len(name)-len("/_versions")]
		all := []any{}
		for _, z := range f.keys[name] {
			all = append(all, object{"material": b64(z.AppendMaterial(nil)), "name": name, "versionName": z.VersionName()})
		}
		answer(w, 200, all)
	case tail == "_invalidatecache":
		w.Header().Set("Content-Type", "text/plain;charset=utf-8")
	case tail == "_eek" && r.Method == "GET":
		name = name[len("key/") : len(name)-len("/_eek")]
		zones := f.keys[name]
		if zones == nil {
			exception(w, 500, "java.io.IOException", "No KeyVersion exists for key '"+name+"' ")
			return
		}
		n, _ := strconv.Atoi(query.Get("num_keys"))
		all := []any{}
		for range n {
			e, _ := zones[len(zones)-1].AppendGenerate(nil, 1)
			all = append(all, eek(name, len(zones)-1, e[:16], e[16:], name))
		}
		answer(w, 200, all)
	case tail == "_eek":
		version := path[len("keyversion/") : len(path)-len("/_eek")]
		z := find(version)
		if z == nil {
			return
		}
		var in struct{ Name, IV, Material string }
		json.Unmarshal(body, &in)
		if query.Get("eek_op") == "decrypt" {
			dek, _ := z.AppendDEK(nil, fromB64(in.IV), fromB64(in.Material))
			answer(w, 200, object{"material": b64(dek), "name": z.Name(), "versionName": "EK"})
			return
		}
		zones := f.keys[z.Name()]
		re, _ := z.AppendReencrypted(nil, zones[len(zones)-1], fromB64(in.IV), fromB64(in.Material))
		answer(w, 200, eek(z.Name(), len(zones)-1, fromB64(in.IV), re, z.Name()))
	case tail == "_reencryptbatch":
		name = name[len("key/") : len(name)-len("/_reencryptbatch")]
		var in []struct {
			VersionName, IV     string
			EncryptedKeyVersion struct{ Material string }
		}
		json.Unmarshal(body, &in)
		zones, all := f.keys[name], []any{}
		for _, e := range in {
			_, n, _ := edek.SplitVersion(e.VersionName)
			iv, wrapped := fromB64(e.IV), fromB64(e.EncryptedKeyVersion.Material)
			if n == len(zones)-1 {
				all = append(all, eek(name, n, iv, wrapped, nil))
				continue
			}
			re, _ := zones[n].AppendReencrypted(nil, zones[len(zones)-1], iv, wrapped)
			all = append(all, eek(name, len(zones)-1, iv, re, name))
		}
		answer(w, 200, all)
	case strings.HasPrefix(path, "keyversion/"):
		name, n, _ := edek.SplitVersion(path[len("keyversion/"):])
		if n >= len(f.keys[name]) {
			answer(w, 200, nil)
			return
		}
		version(200, f.keys[name][n])
	case r.Method == "POST":
		name = name[len("key/"):]
		f.roll(name)
		version(200, f.keys[name][len(f.keys[name])-1])
	case r.Method == "DELETE":
		name = name[len("key/"):]
		if f.keys[name] == nil {
			exception(w, 500, "java.io.IOException", "Key "+name+" does not exist in jceks://file@/k")
			return
		}
		delete(f.keys, name)
	default:
		exception(w, 500, "com.sun.jersey.api.NotFoundException", "null for uri: "+r.RequestURI)
	}
}

// newClient makes a client of fakes that gives up soon, but not too soon for a
// slow machine where nothing hangs.
func newClient(tb testing.TB, change func(*Config), fakes ...*fake) *Client {
	tb.Helper()
	config := Config{Address: Address{Scheme: "http", Path: "/kms"}, Service: "edekd", Attempt: 20 * time.Second, Open: 20 * time.Millisecond}
	for _, f := range fakes {
		config.Nodes = append(config.Nodes, f.addr)
	}
	if change != nil {
		change(&config)
	}
	c, err := New(config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

var alice = edek.Caller{User: "alice", Full: "alice@EXAMPLE"}

// eventually waits for something that has to come.
func eventually(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatal("never: " + what)
		}
	}
}

func wantKind(tb testing.TB, err error, kind edek.Kind, texts ...string) {
	tb.Helper()
	if edek.KindOf(err) != kind {
		tb.Errorf("%v: kind %v, want %v", err, edek.KindOf(err), kind)
	}
	for _, text := range texts {
		if !strings.Contains(fmt.Sprint(err), text) {
			tb.Errorf("%v: %q is missing", err, text)
		}
	}
}

func generate(c *Client, name string, n int) error {
	_, err := c.Generate(context.Background(), alice, name, n)
	return err
}
