package main

import (
	"strings"
	"testing"
)

// nastyNames break lines, fields, terminals and readers.
var nastyNames = []string{"a&b", "a b", `a"b`, "a'b", `a\b`, "a,b", "a=b", "a]b", "a;b", "a%b", "a\nb", "a\r\nOK[op=DELETE_KEY, key=k, user=alice] ", "a\tb", "a\x00b", "a\x1b[31mb", "a\x7fb", "a\u0085b", "a\u2028b", "a\u2029b", "a\u202eb", "a\u200bb",
	"\u0430lice", "alice\u0301", "ａlice", "ALICE", "\xff\xfe", "é", "😀", "x, key=treasure, user=alice] OK[op=DELETE_KEY", "<script>", "${jndi:ldap://x}", strings.Repeat("n", 3000), "../../etc/passwd", "key=", `{"decision":"allowed"}`, "alice\x00"}

func escape(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		b.WriteString("%" + string(hex[s[i]>>4]) + string(hex[s[i]&15]))
	}
	return b.String()
}

// nastyUsers: a server that believes user.name takes everybody for who he says
// to be, and nobody for two, or for somebody else.
func nastyUsers(t *testing.T, a *arena) {
	for _, name := range nastyNames {
		got := a.simple.ask(t, "GET", whoAsks+"?user.name="+escape(name), "")
		if got.StatusCode != 200 && got.StatusCode != 400 && got.StatusCode != 500 {
			t.Errorf("%q: %s", name, got.Status)
		}
		set := got.Header.Values("Set-Cookie")
		if len(set) > 1 || strings.Contains(strings.Join(set, ""), "u=alice&") {
			t.Errorf("%q gets %q", name, set)
		}
		if got.StatusCode == 200 && len(set) == 1 {
			cookie, _, _ := strings.Cut(set[0], ";")
			if again := a.simple.ask(t, "GET", whoAsks, "Cookie: "+cookie); again.StatusCode != 200 {
				t.Errorf("%q: his own cookie: %s", name, again.Status)
			}
		}
		// Nobody may act for alice, whatever he is called.
		want := got.StatusCode
		if want == 200 {
			want = 403
		}
		if got := a.simple.ask(t, "DELETE", "/kms/v1/key/"+escape(name)+"?user.name="+escape(name)+"&doAs=alice", ""); got.StatusCode != want {
			t.Errorf("%q as alice: %s, want %d", name, got.Status, want)
		}
	}
	for _, query := range []string{"user.name=alice%00", "user.name=", "user.name=a%26u=alice", "User.Name=alice", "user.name%00=alice", "user%2Ename=a&user.name=alice", "user.name=bob&user.name=alice"} {
		got := a.simple.ask(t, "GET", whoAsks+"?"+query, "")
		if strings.Contains(got.Header.Get("Set-Cookie"), "u=alice") {
			t.Errorf("%s: %s", query, got.Header.Get("Set-Cookie"))
		}
	}
}

// logInjection puts nasty names and credentials wherever something may log
// them; TestAttacks looks at the logs at its end.
func logInjection(t *testing.T, a *arena) {
	token := a.issue(t, a.process, "", a.ticket(t, "front"))
	for _, name := range nastyNames {
		e := escape(name)
		raw := strings.NewReplacer("\n", "", "\r", "", "\x00", "", "\x1b", "", "\x7f", "", "\t", "", " ", "").Replace(name)
		json := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "\x00", `\u0001`, "\x1b", `\u001b`, "\x7f", `\u007f`).Replace(name)
		for _, header := range []string{"", a.as("mallory"), "User-Agent: " + raw, "Referer: http://x/" + raw + "?delegation=" + token + ";token=" + token, "Cookie: hadoop.auth=" + raw, "Authorization: Negotiate " + raw, tokenHeader(raw), "X-Forwarded-For: " + raw} {
			a.ask(t, "GET", "/kms/v1/key/"+e+"/_metadata?"+e+"="+e, header)
			a.ask(t, "GET", "/kms/v1/key/"+raw+"/_eek?eek_op="+e, header)
			a.ask(t, "GET", "/"+raw, header)
		}
		a.ask(t, "GET", whoAsks+"?doAs="+e, a.as("front"))
		a.ask(t, "GET", "/kms/v1/?op=GETDELEGATIONTOKEN&renewer="+e+"&service="+e, a.as("mallory"))
		for _, body := range []string{`{"name":"` + json + `","cipher":"` + json + `"}`, `{"name":"k","attributes":{"key.acl.name":"treasure","x":"` + json + `"}}`, `{"name":"treasure","description":"` + json + `"}`, `{"name":` + json} {
			a.ask(t, "POST", "/kms/v1/keys", a.as("mallory"), body)
		}
		a.ask(t, "POST", "/kms/v1/keyversion/"+e+"/_eek?eek_op=decrypt", a.as("mallory"), `{"name":"`+json+`","iv":"`+json+`","material":"`+json+`"}`)
	}
	for _, method := range []string{"G\x1bET", "OK[op=X]", "GET\t", strings.Repeat("M", 5000)} {
		a.wire(t).send(request(method, whoAsks, "", a.as("mallory")))
	}
	// Credentials, wherever a client may put them.
	for _, query := range []string{"delegation=" + token, "DELEGATION=" + token, "x=y;delegation=" + token, "%64elegation=" + token, "token=" + token, "x;token=" + token + "&y", "op=CANCELDELEGATIONTOKEN;token=" + token, "op=RENEWDELEGATIONTOKEN&token=" + token} {
		for _, target := range []string{whoAsks + "?" + query, "http://h" + whoAsks + "?" + query} {
			a.ask(t, "GET", target, "")
			a.ask(t, "POST", target+"&x", a.as("mallory"), "{}")
			a.ask(t, "GET", target, "Cookie: hadoop.auth="+strings.ReplaceAll(a.cookies["mallory"], "&", "%26"))
		}
	}
	// Key bytes that a client sends and that cannot be used.
	const material = "c2VjcmV0LWtleS1ieXRlcw"
	a.secret = append(a.secret, material)
	for _, body := range []string{`{"name":"treasure","material":"` + material + `"}`, `{"name":"k","length":7,"material":"` + material + `"}`, `{"name":"k","material":"` + material, `{"name":"k","material":["` + material + `"]}`,
		`{"name":"k","material":{"x":"` + material + `"}}`, `"` + material + `"`, `{"` + material + `":1}`, material, `{"name":"k","length":"` + material + `"}`, `{"name":"k","cipher":{"x":"` + material + `"}}`} {
		a.ask(t, "POST", "/kms/v1/keys", a.as("mallory"), body)
		a.ask(t, "POST", "/kms/v1/key/trinket", a.as("front"), body)
		a.ask(t, "POST", "/kms/v1/keyversion/treasure@0/_eek?eek_op=decrypt", a.as("mallory"), body)
		a.ask(t, "POST", "/kms/v1/key/treasure/_reencryptbatch", a.as("mallory"), "["+body+"]")
	}
}
