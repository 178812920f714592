package main

import (
	"strconv"
	"strings"
	"testing"
)

// smuggledUsers: front may act for bob. Nothing else that is written beside or
// instead of it makes it anybody else.
func smuggledUsers(t *testing.T, a *arena) {
	count := 0
	f := func(user string, status int, query string, headers ...string) {
		t.Helper()
		count++
		key := "smuggled-user-" + strconv.Itoa(count)
		w := a.wire(t)
		w.send(request("GET", "/kms/v1/key/"+key+"/_metadata?"+query, "", append(headers, a.as("front"))...))
		got, _ := w.answer()
		if got.StatusCode != status {
			t.Errorf("%q: %s, want %d: %s", query, got.Status, status, got.body)
			return
		}
		if status == 200 {
			if l := a.actor(t, key); l.User != user || (user == "bob") != (l.RealUser == "front") {
				t.Errorf("%q: it was %+v", query, l)
			}
		}
	}
	f("front", 200, "")
	f("bob", 200, "doAs=bob")
	f("bob", 200, "DOAS=bob")
	f("bob", 200, "x=%26doAs=alice;%64o%41s=bo%62&doAs=bob")
	f("bob", 200, "doAs=bob&doAs=bob&dOaS=%62ob")
	f("", 403, "doAs=alice")
	f("", 403, "doas=alice&doAs=bob")
	f("", 403, "%64oAs=alice;doAs=bob")
	f("", 403, "x;DoAs=alice")
	f("", 403, "doA%C5%BF=alice&doAs=bob")
	f("", 403, "doAs=alice#&doAs=bob")
	f("", 403, "doAs=Bob")
	f("", 403, "doAs=bob%20")
	f("", 500, "doAs=bob@"+attackRealm+"x")
	f("", 403, "doAs=bob?doAs=alice")
	f("", 500, "doAs=bob%26doAs=alice")
	f("", 403, "doAs=b%D0%BEb")
	f("", 403, "doAs=bob%E2%80%AE")
	f("", 403, "doAs=bob,alice")
	f("", 403, "doAs=*")
	f("", 403, "doAs=bob%ff")
	f("", 403, "doAs=hdfs&user.name=bob")
	f("", 400, "doAs=bob&doAs=alice")
	f("", 400, "doAs=bob&DOAS=alice")
	f("", 400, "doAs=bob;doas=alice")
	f("", 400, "doAs=bob&%64oAs=alice")
	f("", 400, "doAs=bob&doAs")
	f("", 400, "doAs=bob&doAs=")
	f("", 400, "doAs")
	f("", 500, "doAs=")
	f("", 400, "doAs=bob%00")
	f("", 400, "doAs=bob%0D%0AX-A:%20b")
	f("front", 200, "user.name=alice")
	f("front", 200, "+doAs=alice")
	f("front", 200, "doAs%00=alice")
	f("front", 200, "do%2541s=alice")
	f("front", 200, "op=nothing&op=GETDELEGATIONTOKEN")
	f("front", 200, "OP=GETDELEGATIONTOKEN")
	f("front", 200, "", "doAs: alice", "X-Hadoop-DoAs: alice", "user.name: alice")
	f("front", 200, "delegation=forged") // the cookie counts before it
	f("", 400, "op=CANCELDELEGATIONTOKEN&op=x")
	refused(t, "a token for another", a.ask(t, "GET", "/kms/v1/?op=GETDELEGATIONTOKEN&doAs=alice", a.as("front")), 403)
	refused(t, "a token for two", a.ask(t, "GET", "/kms/v1/?op=GETDELEGATIONTOKEN&doAs=bob&doAs=alice", a.as("front")), 400)
	refused(t, "no proxy user", a.ask(t, "GET", whoAsks+"?doAs=alice", a.as("mallory")), 403)
	refused(t, "no proxy user for himself", a.ask(t, "GET", whoAsks+"?doAs=mallory", a.as("mallory")), 403)
	refused(t, "no user", a.ask(t, "GET", whoAsks+"?user.name=alice", ""), 401)
	refused(t, "no user but doAs", a.ask(t, "GET", whoAsks+"?doAs=bob", ""), 401)
}

// falseAddresses: only listed proxies are believed where a request comes from.
func falseAddresses(t *testing.T, a *arena) {
	count := 0
	f := func(from string, status int, client string, headers ...string) {
		t.Helper()
		count++
		key := "address-" + strconv.Itoa(count)
		w := a.wireFrom(t, from)
		w.send(request("GET", "/kms/v1/key/"+key+"/_metadata?doAs=bob", "", append(headers, a.as("gateway"))...))
		if got, _ := w.answer(); got.StatusCode != status {
			t.Errorf("%s %q: %s %s", from, headers, got.Status, got.body)
		} else if status == 200 {
			if l := a.actor(t, key); l.Client != client {
				t.Errorf("%s %q: it was %+v", from, headers, l)
			}
		}
	}
	const good = "X-Forwarded-For: 10.1.2.3"
	f("127.0.0.2", 200, "10.1.2.3", good)
	f("127.0.0.2", 200, "10.1.2.3", "X-Forwarded-For: 6.6.6.6, 10.1.2.3")
	f("127.0.0.2", 200, "10.1.2.3", "X-Forwarded-For: 6.6.6.6", good)
	f("127.0.0.2", 403, "", good, "X-Forwarded-For: 6.6.6.6")
	f("127.0.0.2", 403, "", "X-Forwarded-For: 10.1.2.3, 6.6.6.6")
	f("127.0.0.2", 403, "", "X-Forwarded-For: 10.1.2.3, unknown")
	f("127.0.0.2", 403, "", "X-Forwarded-For: 10.1.2.3,")
	f("127.0.0.2", 403, "")
	f("127.0.0.1", 403, "", good)
	f("127.0.0.3", 403, "", good)
	f("127.0.0.1", 403, "", good, "X-Forwarded-For: 127.0.0.2")
	f("127.0.0.1", 403, "", "Forwarded: for=10.1.2.3", "X-Real-IP: 10.1.2.3", "Client-IP: 10.1.2.3", "True-Client-IP: 10.1.2.3", "Via: 10.1.2.3")
	for _, from := range []string{"127.0.0.1", "127.0.0.2"} {
		w := a.wireFrom(t, from)
		w.send("PROXY TCP4 10.1.2.3 127.0.0.1 1 2\r\n" + request("GET", whoAsks+"?doAs=bob", "", a.as("gateway")))
		if got, _ := w.answer(); got.StatusCode != 400 {
			t.Errorf("PROXY from %s: %s", from, got.Status)
		}
	}
}

// unauthenticatedPages: without a name one sees that the server lives.
func unauthenticatedPages(t *testing.T, a *arena) {
	for _, path := range []string{"/", "/jmx", "/jmx?qry=java.lang:type=Memory", "/kms/jmx", "/metrics", "/prom", "/conf", "/logs", "/logs/", "/logs/kms-audit.log", "/logLevel", "/logLevel?log=x&level=DEBUG",
		"/stacks", "/prof", "/static/", "/static/../logs/kms.log", "/debug/pprof/", "/debug/vars", "/kms", "/kms/", "/kms/v1", "/kms/v1/", "/kms/v1/keys/names", "/kms/v1/key/treasure", "/kms/../kms/v1/keys/names",
		"/healthz/../metrics", "/healthz;/metrics", "/healthz/", "/healthz%2f..%2fmetrics", "/readyz/..;/jmx", "//metrics", "/./jmx", "/%6dx", "/JMX", "/jmx%00", "/jmx;x", "/jmx/", "*", "http://evil/metrics", "/../../etc/passwd", "/kms/WEB-INF/web.xml"} {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "PROPFIND", "get"} {
			got := a.ask(t, method, path, "")
			if got.StatusCode != 401 && got.StatusCode != 400 {
				t.Errorf("%s %s: %s %.200s", method, path, got.Status, got.body)
			}
			for _, tell := range []string{"treasure", "java.lang:", "edekd_", "alice"} {
				if strings.Contains(strings.ReplaceAll(got.body, path, ""), tell) {
					t.Errorf("%s %s tells %s", method, path, tell)
				}
			}
		}
	}
	for path, text := range map[string]string{"/healthz": "ok\n", "/readyz": "ready\n"} {
		if got := a.ask(t, "GET", path, ""); got.StatusCode != 200 || got.body != text {
			t.Errorf("%s: %s %s", path, got.Status, got.body)
		}
		refused(t, "POST "+path, a.ask(t, "POST", path, ""), 401)
	}
}
