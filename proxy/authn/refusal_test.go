package authn

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

func TestImpersonationIsRefused(t *testing.T) {
	s := newServer(t, nil)
	const denied = "403 AuthorizationException org.apache.hadoop.security.authorize.AuthorizationException: User: %s is not allowed to impersonate "
	const nobody = " IllegalArgumentException java.lang.IllegalArgumentException: Null user: doAs names nobody"
	valid := "hadoop.auth=" + s.sign(alice)
	f := func(query, want string) {
		t.Helper()
		for _, method := range []string{"GET", "OPTIONS"} {
			ctx := s.refused(strings.Replace(want, "%s", "alice", 1), method, path+"?"+query, "Cookie", valid)
			if _, set := cookieOf(ctx); set {
				t.Errorf("%s: a valid cookie was answered with another one", query)
			}
			ctx = s.refused(strings.Replace(want, "%s", "bob", 1), method, path+"?user.name=bob&"+query)
			if _, set := cookieOf(ctx); !set {
				t.Errorf("%s: the real user got no cookie", query)
			}
		}
	}
	f("doAs=eve", denied+"eve")
	f("DOAS=eve", denied+"eve")
	f("doas=eve&doAs=bob", denied+"eve")
	f("doAs=alice&eek_op=generate", denied+"alice")
	f("a;doAs=eve", denied+"eve")
	f("do%41s=e%20ve", denied+"e ve")
	f("doA%C5%BF=eve", denied+"eve") // equal to "doAs" but for case in Unicode, and to Java
	f("doAs=", "500"+nobody)
	f("doAs", "400"+nobody)
	f("doAs&doAs=eve", "400"+nobody)
	s.as("alice", "GET", path+"?doAs2=eve&xdoAs=eve&a=doAs", "Cookie", valid)
}

// Bodies and headers as a KMS 3.4.3 sent them.
func TestChallengeInJettysWords(t *testing.T) {
	s := newServer(t, nil)
	raw := func(method, target string, headers ...string) string {
		t.Helper()
		ctx := request(t, method, target, headers...)
		ctx.Response.Header.Set("Expires", "from a filter before")
		ctx.Response.Header.Set("Cache-Control", "no-cache")
		ctx.SetContentType("application/json")
		s.authenticate(ctx)
		var b bytes.Buffer
		ctx.Response.SkipBody = ctx.IsHead()
		w := bufio.NewWriter(&b)
		if err := ctx.Response.Write(w); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	const html = `<html>
<head>
<meta http-equiv="Content-Type" content="text/html;charset=ISO-8859-1"/>
<title>Error 401 Authentication required</title>
</head>
<body><h2>HTTP ERROR 401 Authentication required</h2>
<table>
<tr><th>URI:</th><td>/kms/v1/keys/names</td></tr>
<tr><th>STATUS:</th><td>401</td></tr>
<tr><th>MESSAGE:</th><td>Authentication required</td></tr>
<tr><th>SERVLET:</th><td>webservices-driver</td></tr>
</table>

</body>
</html>
`
	challenge := []string{"WWW-Authenticate: PseudoAuth", "Set-Cookie: hadoop.auth=; HttpOnly"}
	page := append([]string{"Cache-Control: must-revalidate,no-cache,no-store"}, challenge...)
	f := func(method, reason string, lines []string, body string, accept ...string) {
		t.Helper()
		var headers []string
		for _, a := range accept {
			headers = append(headers, "Accept", a)
		}
		head, got, _ := strings.Cut(raw(method, path+"?x=<y>", headers...), "\r\n\r\n")
		status, head, _ := strings.Cut(head, "\r\n")
		if status != "HTTP/1.1 401 "+reason || got != body {
			t.Errorf("%s %q: %s\n%s", method, accept, status, got)
		}
		seen := map[string]bool{}
		for line := range strings.SplitSeq(head, "\r\n") {
			if name, _, _ := strings.Cut(line, ":"); name != "Date" && name != "Server" {
				seen[line] = true
			}
		}
		for _, line := range lines {
			if !seen[line] {
				t.Errorf("%s %q: no %s in %v", method, accept, line, seen)
			}
		}
		if len(seen) != len(lines) {
			t.Errorf("%s %q: more headers than %v: %v", method, accept, lines, seen)
		}
	}
	withHTML := append([]string{"Content-Type: text/html;charset=iso-8859-1", "Content-Length: 433"}, page...)
	withJSON := append([]string{"Content-Type: application/json", "Content-Length: 115"}, page...)
	withText := append([]string{"Content-Type: text/plain;charset=iso-8859-1", "Content-Length: 136"}, page...)
	bare := append([]string{"Content-Length: 0"}, challenge...)
	f("GET", reasonNone, withHTML, html)
	f("POST", reasonNone, withHTML, html)
	f("HEAD", reasonNone, withHTML, "")
	for _, method := range []string{"PUT", "DELETE", "OPTIONS", "PATCH", "get"} {
		f(method, reasonNone, bare, "")
	}
	f("GET", reasonNone, withHTML, html, "text/html, image/gif, image/jpeg, */*; q=0.2")
	f("GET", reasonNone, withHTML, html, "*/*; q=.2")
	const json = "{\n\"servlet\":\"webservices-driver\",\n\"message\":\"Authentication required\",\n\"url\":\"/kms/v1/keys/names\",\n\"status\":\"401\"\n}"
	f("GET", reasonNone, withJSON, json, "application/json")
	f("GET", reasonNone, withJSON, json, "text/*;q=0.1, application/json;q=0.9")
	f("GET", reasonNone, withText,
		"HTTP ERROR 401 Authentication required\nURI: /kms/v1/keys/names\nSTATUS: 401\nMESSAGE: Authentication required\nSERVLET: webservices-driver\n", "text/plain")
	for _, accept := range []string{"*", "text/xml", "application/*", "image/png", "text/html;q=0"} {
		f("GET", reasonNone, append([]string{"Content-Length: 0"}, page...), "", accept)
	}
	g := func(target, want string, headers ...string) {
		t.Helper()
		if got := raw("GET", target, headers...); !strings.Contains(got, want) {
			t.Errorf("%s: no %s in\n%s", target, want, got)
		}
	}
	g("/kms/v1/key/x%27y'z%C3%A9", "<td>/kms/v1/key/x%27y&apos;z%C3%A9</td>")
	g(`/kms/v1/key/a%2Fb<&"x/_metadata?x=<y>`, "<td>/kms/v1/key/a%2Fb&lt;&amp;&quot;x/_metadata</td>")
	g("http://evil/kms/v1/keys/names?x", "<td>/kms/v1/keys/names</td>")
	g("/jmx", "<th>SERVLET:</th><td>jmx</td>")
	g("/kms/jmx", "<th>SERVLET:</th><td>jmx-servlet</td>")
	g(path, "Invalid signed text: a<b>'&c/d\r\n", "Cookie", "hadoop.auth=a<b>'&c/d")
	g(path, "Invalid signed text: a&amp;lt;b&amp;gt;&amp;apos;&amp;amp;c/d</h2>", "Cookie", "hadoop.auth=a<b>'&c/d")
	g(path, "Invalid signed text: a?b\r\n", "Cookie", "hadoop.auth=a\u00e9b")
	g("/kms/v1/key/\u00e9", "<td>/kms/v1/key/?</td>")
}
