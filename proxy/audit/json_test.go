package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/edekd/edekd/edek"
)

// proxied is what knox does for alice.
func proxied(op Op, key, client string, request uint64) Event {
	return Event{Op: op, Key: key, Caller: edek.Caller{User: "alice", Full: "alice@REALM", Real: "knox"},
		Client: netip.MustParseAddr(client), Request: request}
}

func jsonOf(line string) map[string]any {
	var o map[string]any
	if json.Unmarshal([]byte(line), &o) != nil {
		return nil
	}
	return o
}

func TestGoldenJSON(t *testing.T) {
	zone := time.Local
	time.Local = time.FixedZone("", 3600)
	defer func() { time.Local = zone }()

	bubble(t, Options{JSON: new(sink)}, func(t *testing.T, l *Log, text *sink) {
		time.Sleep(7 * time.Millisecond)
		f := func(log func(), want string) {
			t.Helper()
			log()
			synctest.Wait()
			got := jsonSink(l).next()
			want = `{"time":"2000-01-01T01:00:00.007+01:00",` + want + "}\n"
			if got != want || jsonOf(got) == nil {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if n := strings.Count(text.next(), "\n"); n != 1 {
				t.Errorf("%d lines of text", n)
			}
		}
		e := proxied(GetMetadata, "k1", "2001:db8::1", 0x2a)
		const who = `"user":"alice","principal":"alice@REALM","realUser":"knox","client":"2001:db8::1","requestId":"2a"`
		f(func() { l.OK(e, "") },
			`"decision":"allowed","op":"GET_METADATA","key":"k1",`+who)
		f(func() {
			_ = l.Admin(t.Context(), proxied(CreateKey, `k"\`, "2001:db8::1", 0x2a), "UserProvidedMaterial:false")
		},
			`"decision":"allowed","op":"CREATE_KEY","key":"k\"\\",`+who+`,"details":"UserProvidedMaterial:false"`)
		f(func() { l.Count(proxied(GenerateEEK, "k1", "2001:db8::1", 0x2a)) },
			`"decision":"allowed","op":"GENERATE_EEK","key":"k1",`+who+`,"count":1,"intervalMs":0`)
		f(func() { _ = l.Unauthorized(e) },
			`"decision":"denied","status":403,"op":"GET_METADATA","key":"k1",`+who)
		f(func() { _ = l.Unauthorized(proxied(KeyGenerateEEK, "k1", "2001:db8::1", 0x2a)) },
			`"decision":"denied","status":403,"op":"GENERATE_EEK","layer":"key","key":"k1",`+who)
		f(func() { l.Error(e, 500, "GET", "no\nmore") },
			`"decision":"failed","status":500,"op":"GET_METADATA","key":"k1",`+who+`,"method":"GET","error":"no\u000amore"`)
		f(func() {
			_ = l.Unauthenticated(Event{Client: home, Request: 1}, "GET", "http://h/kms/v1/keys/names?delegation=abc&x=%2f", "no")
		},
			`"decision":"unauthenticated","status":401,"client":"10.0.0.1","requestId":"1","method":"GET","url":"http://h/kms/v1/keys/names?delegation=***&x=%2f","error":"no"`)
		if l.Lines() != 7 {
			t.Errorf("%d lines: events count once, whatever the number of forms", l.Lines())
		}
	})
}

// What the text has no room for: how the sender proved who they are, and which
// server writes.
func TestProofAndServerInJSON(t *testing.T) {
	bubble(t, Options{JSON: new(sink), Server: "kms1.example.com"}, func(t *testing.T, l *Log, _ *sink) {
		e := proxied(KeyGenerateEEK, "k1", "10.0.0.1", 1)
		e.RealFull, e.Auth, e.Status = "knox/gw@REALM", "kerberos", 500
		if err := l.Unauthorized(e); err != nil {
			t.Fatal(err)
		}
		const want = `{"time":"2000-01-01T00:00:00.000Z","decision":"denied","server":"kms1.example.com","status":500,"op":"GENERATE_EEK","layer":"key","key":"k1",` +
			`"user":"alice","principal":"alice@REALM","realUser":"knox","realPrincipal":"knox/gw@REALM","auth":"kerberos","client":"10.0.0.1","requestId":"1"}`
		if got := jsonSink(l).next(); !reflect.DeepEqual(jsonOf(got), jsonOf(want)) {
			t.Errorf("got %s", got)
		}
	})
}

// jsonSink is where l writes its JSON.
func jsonSink(l *Log) *sink { return l.queue.outs[len(l.queue.outs)-1].(*sink) }

// A total tells of client and real user only what is true of all its hits.
func TestTotalsInJSON(t *testing.T) {
	f := func(want string, hits ...Event) {
		t.Helper()
		bubble(t, Options{JSON: new(sink)}, func(t *testing.T, l *Log, _ *sink) {
			for _, e := range hits {
				l.Count(e)
			}
			time.Sleep(11 * time.Second)
			synctest.Wait()
			lines := strings.Split(jsonSink(l).next(), "\n")
			if got := jsonOf(lines[1]); len(lines) != 3 || !reflect.DeepEqual(got, jsonOf(want)) {
				t.Errorf("got  %s\nwant %s", lines, want)
			}
		})
	}
	const begin = `{"time":"2000-01-01T00:00:10.000Z","decision":"allowed","op":"DECRYPT_EEK","key":"k","user":"alice","principal":"alice@REALM",`
	here := proxied(DecryptEEK, "k", "10.0.0.1", 1)
	again := proxied(DecryptEEK, "k", "10.0.0.1", 2)
	there := proxied(DecryptEEK, "k", "10.0.0.2", 3)
	direct := here
	direct.Caller.Real = ""
	f(begin+`"realUser":"knox","client":"10.0.0.1","count":2,"intervalMs":10000}`, here, again)
	f(begin+`"mixed":true,"count":3,"intervalMs":10000}`, here, there, here)
	f(begin+`"mixed":true,"count":2,"intervalMs":10000}`, here, direct)
	ticket, token, other := here, here, here
	ticket.RealFull, ticket.Auth = "knox/gw@REALM", "kerberos"
	token.RealFull, token.Auth = "knox/gw@REALM", "token"
	other.RealFull, other.Auth = "knox/gw2@REALM", "kerberos"
	f(begin+`"realUser":"knox","realPrincipal":"knox/gw@REALM","auth":"kerberos","client":"10.0.0.1","count":2,"intervalMs":10000}`, ticket, ticket)
	f(begin+`"mixed":true,"count":2,"intervalMs":10000}`, ticket, token)
	f(begin+`"mixed":true,"count":2,"intervalMs":10000}`, ticket, other)
}

func TestJSONAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(sink)
		l := New(nil, Options{JSON: s})
		l.OK(by("u", GetKeys, ""), "")
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := s.next(); !strings.HasPrefix(got, `{"time":"2000-01-01T`) || strings.Count(got, "\n") != 1 || l.Lines() != 1 {
			t.Errorf("%q, %d lines", got, l.Lines())
		}
	})
}

// Each form has every event once, whichever file it was that stood still.
func TestOneOfTwoFilesIsFull(t *testing.T) {
	bubble(t, Options{JSON: new(sink), QueueBytes: 500}, func(t *testing.T, l *Log, text *sink) {
		for _, full := range []*sink{text, jsonSink(l)} {
			full.fail(syscall.ENOSPC, 0)
			l.OK(by("u", GetKeys, ""), "")
			synctest.Wait()
			if err := l.Ready(); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("Ready: %v", err)
			}
			for range 5 {
				l.OK(by("u", GetKeys, ""), "")
			}
			if err := l.Unauthorized(by("u", GetKeys, "")); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("denial: %v", err)
			}
			full.fail(nil, 0)
			time.Sleep(refusalHold)
			synctest.Wait()
			a, b := text.next(), jsonSink(l).next()
			if strings.Count(a, "\n") != strings.Count(b, "\n") || !strings.Contains(a, "lost 3 successes") || jsonOf(lastLine(b))["decision"] != "lost" ||
				jsonOf(lastLine(b))["successes"] != 3.0 || l.Pending() != 0 {
				t.Errorf("text %s\nJSON %s", a, b)
			}
		}
	})
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSuffix(s, "\n"), "\n")
	return lines[len(lines)-1]
}

func TestAppendJSONString(t *testing.T) {
	f := func(s string, limit int, want string) {
		t.Helper()
		if got := string(appendJSONString(nil, s, limit)); got != want {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	}
	f(`plain "quoted" DOMAIN\user`, 100, `plain \"quoted\" DOMAIN\\user`)
	f("a\r\n\x1b[2J\u0085\u2028\u202e\x7f", 100, `a\u000d\u000a\u001b[2J\u0085\u2028\u202e\u007f`)
	f("é\xff", 100, `é\\xff`)
	f("abcdef", 4, `abcd...(2 bytes cut)`)
}

func FuzzJSON(f *testing.F) {
	f.Add("k\"\\\n", "u\x00\u202e", "\xff")
	f.Fuzz(func(t *testing.T, key, user, text string) {
		r := record{Event: by(user, DecryptEEK, key), verdict: failed, status: 500, text: text}
		line := appendJSON(nil, &r)
		var o struct{ Key, User, Error string }
		if err := json.Unmarshal(line, &o); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if bytes.Count(line, []byte("\n")) != 1 || bytes.ContainsFunc(line[:len(line)-1], func(r rune) bool {
			return unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control)
		}) {
			t.Fatalf("%q", line)
		}
		for _, pair := range [][2]string{{key, o.Key}, {user, o.User}, {text, o.Error}} {
			if utf8.ValidString(pair[0]) && len(pair[0]) <= maxName && pair[0] != pair[1] {
				t.Fatalf("%q came back as %q", pair[0], pair[1])
			}
		}
	})
}
