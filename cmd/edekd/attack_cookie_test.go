package main

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"
)

// whoAsks is a request that everybody authenticated may send.
const whoAsks = "/kms/v1/keys/names"

// tryCookies sends one request for each cookie and returns the statuses; a broken
// request costs the connection.
func (p *process) tryCookies(t *testing.T, cookies []string) (statuses []int) {
	t.Helper()
	w := p.wire(t)
	for _, c := range cookies {
		w.send(request("GET", whoAsks, "", cookieHeader(c)))
		got, ok := w.answer()
		if !ok || got.Close {
			w.conn.Close()
			w = p.wire(t)
		}
		if strings.Contains(got.Header.Get("Set-Cookie"), "u=") {
			t.Errorf("%q is answered with a cookie", c)
		}
		statuses = append(statuses, got.StatusCode)
	}
	return statuses
}

func forgedCookies(t *testing.T, a *arena) {
	good := a.cookies["mallory"]
	var tries []string
	mark := strings.LastIndex(good, "&s=")
	for i := mark; i < len(good); i++ {
		for bit := range 8 {
			b := []byte(good)
			b[i] ^= 1 << bit
			tries = append(tries, string(b))
		}
	}
	for i := range mark {
		b := []byte(good)
		b[i] ^= 1 << (i % 3)
		tries = append(tries, string(b))
	}
	for n := range len(good) {
		tries = append(tries, good[:n], good[n+1:])
	}
	for i, status := range a.tryCookies(t, tries) {
		// A control character makes the whole request broken.
		if broken := strings.IndexFunc(tries[i], func(r rune) bool { return r < ' ' || r == 0x7f }) >= 0; status != 401 && !(broken && status == 400) {
			t.Errorf("%q: %d", tries[i], status)
		}
	}

	text, signature := good[:mark], good[mark+len("&s="):]
	alice := strings.ReplaceAll(text, "mallory", "alice")
	old := hmac.New(sha1.New, []byte(signingSecret))
	old.Write([]byte(alice))
	tries = []string{
		sign("another secret", alice), sign("", alice), sign(signingSecret+"\n", alice), sign(signature, alice),
		alice + "&s=" + signature,
		alice + "&s=" + base64.StdEncoding.EncodeToString(old.Sum(nil)),
		alice + "&s=", alice, "&s=", "&s=" + signature, "s=" + signature,
		good + "&s=" + signature, good + "&s=", good + "=", good + " ", good + "\t", " " + good,
		alice + "&s=" + signature + "&s=" + signature, alice + "&" + good, good + "&" + alice, good + "&u=alice",
		text + "&s=" + strings.ToLower(signature), text + "&s=" + strings.TrimRight(signature, "="),
		text + "&s=" + strings.NewReplacer("+", "-", "/", "_", "=", "%3D").Replace(signature),
		strings.ReplaceAll(text, "&", "%26") + "&s=" + signature,
		strings.Replace(text, "u=mallory", "u=alice", 1) + "&s=" + signature,
	}
	for i, status := range a.tryCookies(t, tries) {
		if status != 401 {
			t.Errorf("%q: %d", tries[i], status)
		}
	}
	if got := a.ask(t, "GET", whoAsks, cookieHeader(good)); got.StatusCode != 200 {
		t.Errorf("the good one: %s", got.Status)
	}
}

func cookiesOfAnotherType(t *testing.T, a *arena) {
	got := a.simple.ask(t, "GET", whoAsks+"?user.name=alice", "")
	simple, _, _ := strings.Cut(strings.TrimPrefix(got.Header.Get("Set-Cookie"), `hadoop.auth="`), `"`)
	if got := a.simple.ask(t, "GET", whoAsks, cookieHeader(simple)); got.StatusCode != 200 {
		t.Fatalf("%q at home: %s", simple, got.Status)
	}
	refused(t, "simple's at kerberos", a.ask(t, "GET", whoAsks, cookieHeader(simple)), 401)
	refused(t, "kerberos's at simple", a.simple.ask(t, "GET", whoAsks, a.as("alice")), 401)
	until := time.Now().Add(time.Hour).UnixMilli()
	for _, kind := range []string{"simple", "simple-dt", "kerberos", "Kerberos-dt", "kerberos-dt ", "multi-scheme", ""} {
		c := sign(signingSecret, fmt.Sprintf("u=alice&p=alice@%s&t=%s&e=%d", attackRealm, kind, until))
		refused(t, c, a.ask(t, "GET", whoAsks, cookieHeader(c)), 401)
	}
}

func expiredCookies(t *testing.T, a *arena) {
	now := time.Now().UnixMilli()
	who := "u=alice&p=alice@" + attackRealm + "&t=kerberos-dt"
	f := func(rest string, status int) {
		t.Helper()
		c := sign(signingSecret, who+rest)
		if got := a.ask(t, "GET", whoAsks, cookieHeader(c)); got.StatusCode != status {
			t.Errorf("%s: %s, want %d", c, got.Status, status)
		}
	}
	f(fmt.Sprintf("&e=%d", now+60_000), 200)
	f(fmt.Sprintf("&i=%d&e=%d", now+60_000, now+60_000), 200)
	f(fmt.Sprintf("&e=%d", now-1), 401)
	f(fmt.Sprintf("&i=%d&e=%d", now-1, now+60_000), 401)
	for _, e := range []string{"0", "1", "-2", "", " ", "+9999999999999", "09999999999999", "99999999999999999999", "9223372036854775808", "1e15", "0x7fffffffffffffff", "９９９９９９９９９９９９９"} {
		f("&e="+e, 401)
	}
	f(fmt.Sprintf("&e=%d&e=%d", now-1, now+60_000), 401)
	f(fmt.Sprintf("&e=%d&u=bob", now+60_000), 401)
	f(fmt.Sprintf("&i=&e=%d", now+60_000), 401)
}
