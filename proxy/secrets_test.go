package proxy

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edekd/edekd/edek"
)

func randomKey() []byte {
	b := make([]byte, 16)
	rand.Read(b)
	return b
}

// forms are the ways key bytes may be written.
func forms(key []byte) []string {
	return []string{string(key), base64.StdEncoding.EncodeToString(key), base64.RawStdEncoding.EncodeToString(key), base64.RawURLEncoding.EncodeToString(key),
		hex.EncodeToString(key), strings.ToUpper(hex.EncodeToString(key)), fmt.Sprint(key)[1:40], fmt.Sprintf("%q", key)[1:20]}
}

func holds(text string, key []byte) bool {
	for _, form := range forms(key) {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

type eek struct {
	VersionName, IV     string
	EncryptedKeyVersion struct {
		Material    string
		Name        *string
		VersionName string
	}
}

func (k *kms) generate(t testing.TB, name string, n int) (list []eek) {
	t.Helper()
	a := k.call(t, "GET", fmt.Sprintf("/key/%s/_eek?eek_op=generate&num_keys=%d", name, n), "")
	if err := json.Unmarshal([]byte(a.body), &list); err != nil || len(list) != n {
		t.Fatalf("generate %s: %d %.300s", name, a.StatusCode, a.body)
	}
	return list
}

func (e *eek) decryptBody(name string) string {
	return fmt.Sprintf(`{"name":%q,"iv":%q,"material":%q}`, name, e.IV, e.EncryptedKeyVersion.Material)
}

// decrypt returns the DEK of an EDEK.
func (k *kms) decrypt(t testing.TB, name string, e eek) []byte {
	t.Helper()
	a := k.call(t, "POST", "/keyversion/"+e.VersionName+"/_eek?eek_op=decrypt", e.decryptBody(name))
	var v struct{ Material, Name, VersionName string }
	if err := json.Unmarshal([]byte(a.body), &v); err != nil || a.StatusCode != 200 || v.Name != name || v.VersionName != "EK" {
		t.Fatalf("decrypt: %d %s", a.StatusCode, a.body)
	}
	dek, err := base64.RawURLEncoding.DecodeString(v.Material)
	if err != nil || len(dek) == 0 {
		t.Fatalf("%s: %v", a.body, err)
	}
	return dek
}

func TestNoLogHoldsKeyBytes(t *testing.T) {
	var access lockedBuffer
	k := newIdleKMS(t, func(c *Config) { c.AccessLog = &access })
	k.http.ReadTimeout = 300 * time.Millisecond
	k.serve(t, k.listener)
	given, rolled := randomKey(), randomKey()
	text := func(key []byte) string { return base64.StdEncoding.EncodeToString(key) }
	status := func(want int, a answered) {
		t.Helper()
		if a.StatusCode != want {
			t.Errorf("%d %s, want %d", a.StatusCode, a.body, want)
		}
	}
	whole := fmt.Sprintf(`{"name":"k1","length":128,"material":%q}`, text(given))
	status(201, k.call(t, "POST", "/keys", whole))
	status(500, k.call(t, "POST", "/keys", whole))
	status(200, k.call(t, "POST", "/key/k1", fmt.Sprintf(`{"material":%q}`, text(rolled))))
	status(200, k.call(t, "GET", "/keyversion/k1@0", ""))
	status(200, k.call(t, "GET", "/key/k1/_currentversion", ""))
	status(200, k.call(t, "GET", "/key/k1/_versions", ""))
	dek := k.decrypt(t, "k1", k.generate(t, "k1", 1)[0])

	for _, body := range []string{
		whole[:len(whole)-1],
		whole[:len(whole)-3],
		strings.Replace(whole, `"length"`, `length`, 1),
		strings.Replace(whole, "128", `"128"`, 1),
		strings.Replace(whole, "128", "256", 1),
		strings.Replace(whole, `"name":"k1"`, `"name":7`, 1),
		strings.Replace(whole, "{", `{"name":{"material":`, 1),
		fmt.Sprintf(`{"name":"k2","material":[%q]}`, text(given)),
		fmt.Sprintf(`{"name":"k2","material":{"material":%q}}`, text(given)),
		fmt.Sprintf(`[%q]`, text(given)),
		fmt.Sprintf("%q\xff", text(given)),
		text(given),
		fmt.Sprintf(`{"name":"k2","cipher":"X","length":128,"attributes":{"a":1},"material":%q}`, text(given)),
	} {
		for _, target := range []string{"/keys", "/key/k1", "/keyversion/k1@0/_eek?eek_op=decrypt", "/key/k1/_reencryptbatch"} {
			if a := k.call(t, "POST", target, body); a.StatusCode < 400 && target != "/key/k1" {
				t.Errorf("%s %s: %d %s", target, body, a.StatusCode, a.body)
			} else if a.StatusCode >= 400 && holds(a.body, given) {
				t.Errorf("the refusal quotes key bytes: %s", a.body)
			}
		}
		k.raw(t, requestText("POST", "/kms/v1/keys", body), 1)                                                                                // nobody
		k.raw(t, strings.Replace(requestText("POST", "/kms/v1/keys?user.name=x", body), "application/json", "text/plain", 1), 1)              // wrong type
		k.raw(t, "POST /kms/v1/keys?user.name=x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"+body+"\r\n"+body+"\r\n\r\n", 1)    // no chunks
		k.raw(t, "POST /kms/v1/keys?user.name=x HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n"+body, 1)  // the rest is no request
		k.raw(t, fmt.Sprintf("POST /kms/v1/keys HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n%s\r\n\r\n", body), 1)       // no header
		k.raw(t, requestText("POST", "/kms/v1/keys?user.name=x", body+strings.Repeat(" ", 70<<10)), 1)                                        // too large
		k.raw(t, requestText("POST", "/kms/v1/keys?user.name=x&doAs=y", body), 1)                                                             // not allowed
		k.raw(t, requestText("PUT", "/kms/v1/keys?user.name=x", body), 1)                                                                     // wrong method
		k.raw(t, requestText("POST", "/kms/v1/keys?op=getdelegationtoken&user.name=x", body)+requestText("GET", "/kms/v1/keys/names", ""), 2) // token operation
	}
	k.raw(t, fmt.Sprintf("POST /kms/v1/keys?user.name=x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", len(whole)+1, whole), 1) // never whole
	auditText := k.closedAudit(t)
	for name, log := range map[string]string{"kms.log": k.log.String(), "access log": access.String(), "audit log": auditText} {
		if !strings.Contains(log, "k") {
			t.Errorf("%s is empty", name)
		}
		for what, key := range map[string][]byte{"given material": given, "rolled material": rolled, "DEK": dek} {
			if holds(log, key) {
				t.Errorf("%s holds the %s", name, what)
			}
		}
	}
}

// closedAudit returns the audit log once a change has put all lines before it
// into the file.
func (k *kms) closedAudit(t testing.TB) string {
	t.Helper()
	if a := k.call(t, "POST", "/key/last/_invalidatecache", ""); a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	b, err := os.ReadFile(k.auditLog)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What brought or carried key bytes is cleared when the request is done,
// whatever became of it.
func TestBuffersAreCleared(t *testing.T) {
	k := newIdleKMS(t)
	var mu sync.Mutex
	var made []*request
	k.requests.New = func() any {
		mu.Lock()
		defer mu.Unlock()
		made = append(made, new(request))
		return made[len(made)-1]
	}
	key := randomKey()
	text := base64.StdEncoding.EncodeToString(key)
	f := func(method, target, body string, status int, secret ...[]byte) string {
		t.Helper()
		ctx := hotContext(t, []byte(requestText(method, "/kms/v1"+target, body)))
		k.handle(ctx)
		answer := string(ctx.Response.Body())
		if got := ctx.Response.StatusCode(); got != status {
			t.Fatalf("%s %s: %d %s, want %d", method, target, got, answer, status)
		}
		if b := ctx.Request.Body(); !bytes.Equal(b, make([]byte, len(b))) {
			t.Errorf("%s %s: left in the body: %q", method, target, b)
		}
		if len(made) == 0 {
			t.Fatal("no request was made")
		}
		for _, r := range made {
			for what, buffer := range map[string][]byte{"keys": r.keys[:cap(r.keys)], "EDEKs": r.edeks[:cap(r.edeks)], "name": r.nameBuf[:cap(r.nameBuf)]} {
				for _, s := range append(secret, key) {
					if holds(string(buffer), s) {
						t.Errorf("%s %s: key bytes are left in %s", method, target, what)
					}
				}
			}
			for _, e := range r.batch[:cap(r.batch)] {
				if e.present || e.iv != nil || e.wrapped != nil {
					t.Errorf("%s %s: an entry is left: %+v", method, target, e)
				}
			}
		}
		return answer
	}
	whole := fmt.Sprintf(`{"name":"k1","length":128,"material":%q}`, text)
	escaped := strings.ReplaceAll(whole, "A", `\u0041`)
	f("POST", "/keys?user.name=x", whole, 201)
	f("POST", "/keys?user.name=x", escaped, 500) // exists
	f("POST", "/keys", whole, 401)
	f("POST", "/keys?user.name=x&doAs=y", whole, 403)
	f("POST", "/keys?op=getdelegationtoken", whole, 400)
	f("POST", "/nothing?user.name=x", whole, 500)
	f("PUT", "/keys?user.name=x", whole, 500)
	f("POST", "/keys?user.name=x", whole[:len(whole)-1], 500)
	f("POST", "/key/k1?user.name=x", strings.Replace(whole, `"material":`, `"x":`, 1), 200)
	f("POST", "/key/k1?user.name=x", whole, 200)
	f("GET", "/keyversion/k1@0?user.name=x", "", 200)
	f("GET", "/key/k1/_currentversion?user.name=x", "", 200)
	f("GET", "/key/k1/_versions?user.name=x", "", 200)

	var list []eek
	must(t, []byte(f("GET", "/key/k1/_eek?eek_op=generate&user.name=x", "", 200)), &list)
	zone := edek.NewZoneKey(&edek.KeyVersion{Name: "k1", VersionName: list[0].VersionName, Material: bytes.Clone(key)}, edek.AESCTR)
	iv, _ := base64.RawURLEncoding.DecodeString(list[0].IV)
	wrapped, _ := base64.RawURLEncoding.DecodeString(list[0].EncryptedKeyVersion.Material)
	dek, err := zone.AppendDEK(nil, iv, wrapped)
	if err != nil {
		t.Fatal(err)
	}
	answer := f("POST", "/keyversion/"+list[0].VersionName+"/_eek?eek_op=decrypt&user.name=x", list[0].decryptBody("k1"), 200, dek)
	if !holds(answer, dek) {
		t.Errorf("not the DEK: %s", answer)
	}
	f("POST", "/keyversion/"+list[0].VersionName+"/_eek?eek_op=reencrypt&user.name=x", list[0].decryptBody("k1"), 200, dek)
	f("POST", "/key/k1?user.name=x", `{}`, 200)
	b, _ := json.Marshal([]any{map[string]any{"versionName": list[0].VersionName, "iv": list[0].IV,
		"encryptedKeyVersion": map[string]any{"versionName": "EEK", "material": list[0].EncryptedKeyVersion.Material}}})
	f("POST", "/key/k1/_reencryptbatch?user.name=x", string(b), 200, dek)
	f("POST", "/key/k1/_reencryptbatch?user.name=x", string(b)[:len(b)-1]+",{}]", 400, dek)
	longer := strings.Replace(string(b), `"material":"`, `"material":"`+strings.Repeat("AAAA", 100), 1)
	if answer := f("POST", "/key/k1/_decryptbatch?user.name=x", string(b)[:len(b)-1]+","+longer[1:], 200, dek); !holds(answer, dek) {
		t.Errorf("not the DEK: %s", answer)
	}
	f("POST", "/key/k1/_decryptbatch?user.name=x", string(b)[:len(b)-1]+","+strings.Replace(string(b)[1:], `"iv":"`, `"iv":"AAAA`, 1), 500, dek)
	f("POST", "/key/k1/_decryptbatch?user.name=x&doAs=y", string(b), 403, dek)
}

// A defect of ours in one handler costs that request its answer and nothing
// else.
func TestPanicIsAnError(t *testing.T) {
	var key = base64.StdEncoding.EncodeToString(randomKey())
	k := newKMS(t, func(c *Config) { c.Cache = nil })
	c := k.dial(t)
	for range 3 {
		c.send(t, requestText("POST", "/kms/v1/keys?user.name=x", fmt.Sprintf(`{"name":"k1","material":%q}`, key)))
		a := c.answer(t, "POST")
		contains(t, remote(t, a, 500, classInternal), "its log says why")
		if strings.Contains(a.body, "nil pointer") {
			t.Errorf("%s", a.body)
		}
	}
	c.send(t, requestText("GET", "/healthz", ""))
	if a := c.answer(t, "GET"); a.StatusCode != 200 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	contains(t, k.log.String(), "nil pointer")
	contains(t, k.log.String(), "create")
	if strings.Contains(k.log.String(), key) {
		t.Error("the log holds key bytes")
	}
}
