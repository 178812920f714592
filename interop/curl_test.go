package interop

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	krb5client "github.com/jcmturner/gokrb5/v8/client"
	krb5config "github.com/jcmturner/gokrb5/v8/config"
	krb5keytab "github.com/jcmturner/gokrb5/v8/keytab"
	krb5spnego "github.com/jcmturner/gokrb5/v8/spnego"
)

// curl runs curl as the principal whose ticket is in cache, "" for nobody, as the
// function curl does.
func (r kerberizedRealm) curl(t *testing.T, cache string, status int, args ...string) (all, body string) {
	t.Helper()
	return curl(t, r.Env(cache), status, args...)
}

// curl returns an answer with its headers, and the body alone. The status must be
// the one wanted.
func curl(t *testing.T, env []string, status int, args ...string) (all, body string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "curl", append([]string{"--silent", "--show-error", "--include", "--max-time", "60"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	all = strings.ReplaceAll(string(out), "HTTP/1.1 100 Continue\r\n\r\n", "")
	head, body, _ := strings.Cut(all, "\r\n\r\n")
	if err != nil || !strings.HasPrefix(head, fmt.Sprintf("HTTP/1.1 %d ", status)) {
		t.Errorf("curl %.300q: %v, want status %d:\n%.1000s", args, err, status, out)
	}
	return all, body
}

// negotiate makes curl send a ticket with the request itself.
func negotiate(args ...string) []string {
	return append([]string{"--negotiate", "--user", ":"}, args...)
}

func inJSON(args ...string) []string {
	return append([]string{"-H", "Content-Type: application/json"}, args...)
}

// field returns a field of a JSON object.
func field(t *testing.T, text string, path ...string) string {
	t.Helper()
	raw := json.RawMessage(text)
	for _, name := range path {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(raw, &object); err != nil || object[name] == nil {
			t.Fatalf("no %s in %.300s: %v", name, text, err)
		}
		raw = object[name]
	}
	return strings.Trim(string(raw), `"`)
}

// TestCurl is for clients that make no handshake first, as Kudu and Ranger do not
// either: the ticket comes with the request, whatever that is.
func TestCurl(t *testing.T) {
	realm := startRealm(t)
	edekd := StartKerberizedEdekd(t, realm)
	realm.createOnEach(t, edekd.Addr)
	_, port, _ := strings.Cut(edekd.Addr, ":")
	base := "http://localhost:" + port + "/kms/v1"
	generate := base + "/key/kerberized/_eek?eek_op=generate&num_keys="
	decrypt := base + "/keyversion/kerberized%400/_eek?eek_op=decrypt"
	alice, bob, hive := realm.Kinit("alice"), realm.Kinit("bob"), realm.Kinit("hive/localhost")
	const nobody = ""

	_, eeks := realm.curl(t, alice, 200, negotiate(generate+"400")...)
	var all []map[string]any
	if err := json.Unmarshal([]byte(eeks), &all); err != nil || len(all) != 400 {
		t.Fatalf("%d encrypted keys, want 400: %v", len(all), err)
	}
	encrypted := all[0]["encryptedKeyVersion"].(map[string]any)
	body, err := json.Marshal(map[string]any{"name": "kerberized", "iv": all[0]["iv"], "material": encrypted["material"]})
	if err != nil {
		t.Fatal(err)
	}
	question := string(body)
	_, answer := realm.curl(t, alice, 200, negotiate(inJSON("--data", question, decrypt)...)...)
	dek := field(t, answer, "material")
	decrypts := func(t *testing.T, cache string, args ...string) {
		t.Helper()
		if _, answer := realm.curl(t, cache, 200, inJSON(append(args, "--data", question)...)...); field(t, answer, "material") != dek {
			t.Errorf("curl %q: another key", args)
		}
	}

	t.Run("nobody", func(t *testing.T) {
		for _, args := range [][]string{{generate + "1"}, negotiate(generate + "1"), inJSON("--data", question, decrypt)} {
			if all, _ := realm.curl(t, nobody, 401, args...); !strings.Contains(all, "WWW-Authenticate: Negotiate\r\n") {
				t.Errorf("curl %q is not asked for a ticket:\n%s", args, all)
			}
		}
	})

	t.Run("rules", func(t *testing.T) {
		all, _ := realm.curl(t, bob, 403, negotiate(inJSON("--data", question, decrypt)...)...)
		if !strings.Contains(all, "User:bob not allowed to do 'DECRYPT_EEK' on 'kerberized'") {
			t.Errorf("bob is told:\n%s", all)
		}
	})

	t.Run("large bodies", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "batch")
		writeFile(t, file, eeks)
		if len(eeks) <= 64<<10 {
			t.Fatalf("a batch of %d bytes is not large", len(eeks))
		}
		batch := inJSON("--data-binary", "@"+file, base+"/key/kerberized/_reencryptbatch")
		for _, header := range []string{"Expect:", "Expect: 100-continue", "Transfer-Encoding: chunked"} {
			_, answer := realm.curl(t, alice, 200, negotiate(append(batch, "-H", header)...)...)
			var again []map[string]any
			if err := json.Unmarshal([]byte(answer), &again); err != nil || len(again) != 400 {
				t.Errorf("%s: %d encrypted keys, want 400: %v", header, len(again), err)
			}
		}
		realm.curl(t, nobody, 401, negotiate(batch...)...)
		realm.curl(t, nobody, 401, negotiate(append(batch, "-H", "Expect: 100-continue")...)...)
	})

	t.Run("doAs", func(t *testing.T) {
		decrypts(t, hive, negotiate(decrypt+"&doAs=joe")...)
		for _, q := range []struct{ cache, as, text string }{
			{hive, "mallory", "User: hive/localhost@" + testRealm + " is not allowed to impersonate mallory"},
			{alice, "joe", "User: alice@" + testRealm + " is not allowed to impersonate joe"},
		} {
			all, _ := realm.curl(t, q.cache, 403, negotiate(generate+"1&doAs="+q.as)...)
			if !strings.Contains(all, q.text) {
				t.Errorf("want %q, got\n%s", q.text, all)
			}
		}
	})

	t.Run("cookie jar", func(t *testing.T) {
		jar := filepath.Join(t.TempDir(), "jar")
		realm.curl(t, alice, 200, negotiate("--cookie-jar", jar, "-X", "OPTIONS", base+"/")...)
		decrypts(t, nobody, "--cookie", jar, decrypt)
		all, _ := realm.curl(t, nobody, 200, "--cookie", jar, generate+"1")
		if strings.Contains(all, "Set-Cookie") {
			t.Errorf("a valid cookie is answered by another one:\n%s", all)
		}
		realm.curl(t, hive, 200, negotiate("--cookie-jar", jar, "-X", "OPTIONS", base+"/")...)
		decrypts(t, nobody, "--cookie", jar, decrypt+"&doAs=joe")
		realm.curl(t, nobody, 403, "--cookie", jar, generate+"1&doAs=mallory")
		// With a cookie that is worth nothing the ticket counts, and makes another.
		all, _ = realm.curl(t, alice, 200, negotiate("--cookie", `hadoop.auth="u=bob&p=bob&t=kerberos-dt&e=9999999999999&s=c3B1bg=="`, generate+"1")...)
		if !strings.Contains(all, `Set-Cookie: hadoop.auth="u=alice&p=alice@`+testRealm) {
			t.Errorf("no cookie for a ticket:\n%s", all)
		}
	})

	t.Run("tokens", func(t *testing.T) {
		yarn := realm.Kinit("yarn/rm.example.com")
		_, answer := realm.curl(t, alice, 200, negotiate(base+"/?op=GETDELEGATIONTOKEN&renewer=yarn")...)
		token := field(t, answer, "Token", "urlString")
		inQuery, inHeader := "&delegation="+token, "X-Hadoop-Delegation-Token: "+token
		decrypts(t, nobody, "-H", inHeader, decrypt)
		decrypts(t, nobody, decrypt+inQuery)
		if all, _ := realm.curl(t, nobody, 200, "-H", inHeader, generate+"1"); strings.Contains(all, "Set-Cookie") {
			t.Errorf("a cookie for a token, which would outlive it:\n%s", all)
		}

		put := func(op string) []string { return []string{"-X", "PUT", base + "/?op=" + op + "&token=" + token} }
		realm.curl(t, nobody, 401, put("RENEWDELEGATIONTOKEN")...)
		realm.curl(t, bob, 403, negotiate(put("RENEWDELEGATIONTOKEN")...)...)
		realm.curl(t, yarn, 400, negotiate(base+"/?op=RENEWDELEGATIONTOKEN&token="+token)...)
		_, answer = realm.curl(t, yarn, 200, negotiate(put("RENEWDELEGATIONTOKEN")...)...)
		field(t, answer, "long")
		realm.curl(t, yarn, 200, negotiate(put("CANCELDELEGATIONTOKEN")...)...)
		realm.curl(t, yarn, 404, negotiate(put("CANCELDELEGATIONTOKEN")...)...)
		realm.curl(t, yarn, 403, negotiate(put("RENEWDELEGATIONTOKEN")...)...)
		for _, args := range [][]string{{"-H", inHeader, generate + "1"}, {generate + "1" + inQuery}} {
			if all, _ := realm.curl(t, nobody, 403, args...); !strings.Contains(all, "can't be found in cache") {
				t.Errorf("a cancelled token is answered\n%s", all)
			}
		}

		_, answer = realm.curl(t, hive, 200, negotiate(base+"/?op=GETDELEGATIONTOKEN&doAs=joe")...)
		decrypts(t, nobody, "-H", "X-Hadoop-Delegation-Token: "+field(t, answer, "Token", "urlString"), decrypt)
		realm.curl(t, nobody, 401, base+"/?op=GETDELEGATIONTOKEN")
	})

	t.Run("OPTIONS", func(t *testing.T) {
		realm.curl(t, nobody, 401, "-X", "OPTIONS", generate+"1")
		all, _ := realm.curl(t, alice, 200, negotiate("-X", "OPTIONS", generate+"1")...)
		for _, want := range []string{"Set-Cookie: hadoop.auth=\"u=alice&", "WWW-Authenticate: Negotiate oX", "Allow: "} {
			if !strings.Contains(all, want) {
				t.Errorf("no %q in\n%s", want, all)
			}
		}
	})

	t.Run("URL-safe tickets", func(t *testing.T) {
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
			ticket := encoding.EncodeToString(realm.ticket(t, "alice", "HTTP/localhost"))
			decrypts(t, nobody, "-H", "Authorization: Negotiate "+ticket, decrypt)
			realm.curl(t, nobody, 401, "-H", "Authorization: Negotiate "+ticket, generate+"1")
		}
	})
}

// ticket returns a token for a Negotiate header whose two alphabets of base64
// differ.
func (r kerberizedRealm) ticket(t *testing.T, principal, service string) []byte {
	t.Helper()
	config, err := krb5config.Load(r.Config)
	if err != nil {
		t.Fatal(err)
	}
	keytab, err := krb5keytab.Load(r.Keytab(principal))
	if err != nil {
		t.Fatal(err)
	}
	client := krb5client.NewWithKeytab(principal, testRealm, keytab, config)
	defer client.Destroy()
	for {
		request := &http.Request{Header: http.Header{}, URL: new(url.URL)}
		if err := krb5spnego.SetSPNEGOHeader(client, request, service); err != nil {
			t.Fatal(err)
		}
		text := strings.TrimPrefix(request.Header.Get("Authorization"), "Negotiate ")
		token, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsAny([]byte(text), "+/") {
			return token
		}
	}
}
