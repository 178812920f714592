package cookie

import (
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	f := func(header, want string, found bool) {
		t.Helper()
		value, ok := Find([]byte(header))
		if string(value) != want || ok != found {
			t.Errorf("%q: %q %v, want %q %v", header, value, ok, want, found)
		}
	}
	// All of these were put to Jetty 9.4.57, with the same result.
	f(`hadoop.auth="u=a&s=x="`, "u=a&s=x=", true)
	f(`hadoop.auth=u=a&s=x=`, "u=a&s=x=", true)
	f(`hadoop.auth=`, "", true)
	f(`hadoop.auth=""`, "", true)
	f(`hadoop.auth= ;x=1`, "", true)
	f(`hadoop.auth`, "", false)
	f(`hadoop.auth;x=1`, "", false)
	f(`x=1; hadoop.auth="abc"; hadoop.auth=def`, "abc", true)
	f(`xhadoop.auth=1;hadoop.auth=2`, "2", true)
	f(`HADOOP.AUTH=abc`, "", false)
	f(`"hadoop.auth"=abc`, "", false)
	f(`hadoop.auth="a\"b"`, "", false)
	f(`hadoop.auth="a"b`, "", false)
	f(`hadoop.auth="a"b; hadoop.auth=c`, "c", true)
	f(`hadoop.auth="a""b"`, "", false)
	f(`hadoop.auth=a"b`, "", false)
	f(`hadoop.auth="a;b"`, "", false)
	f(`hadoop.auth="abc`, "", false)
	f(`hadoop.auth="`, "", false)
	f(`hadoop.auth="a\`, "", false)
	f(`hadoop.auth=a\b`, "", false)
	f("hadoop.auth=\"a\tb\"", "", false)
	f("hadoop.auth=\"a\x01b\"", "", false)
	f(`hadoop.auth=a b`, "a b", true)
	f(`hadoop.auth = abc`, "abc", true)
	f(` hadoop.auth=abc `, "abc", true)
	f(`hadoop.auth= "abc" `, "abc", true)
	f(`hadoop.auth="a" ;x=1`, "a", true)
	f(`hadoop.auth="a" b;x=1`, "", false)
	f(`$Version=1; hadoop.auth="abc"; $Path=/`, "abc", true)
	f(`a="x; hadoop.auth=1"; hadoop.auth=2`, "2", true)
	f(`a="x; hadoop.auth=1`, "", false)
	f(`a=b"; hadoop.auth=1`, "1", true)
	f(`=x; hadoop.auth=1`, "1", true)
	f(`hadoop.auth=a;;hadoop.auth=b`, "a", true)
	f(`;;; ; hadoop.auth=b`, "b", true)
	f(``, "", false)
	// These Jetty skips.
	f(`hadoop.auth=a,b`, "a,b", true)
	f(`hadoop.auth="café"`, "café", true)
}

func FuzzFind(f *testing.F) {
	f.Add(`a="x; hadoop.auth=1"; hadoop.auth="2"`)
	f.Add(`hadoop.auth`)
	f.Fuzz(func(t *testing.T, header string) {
		value, found := Find([]byte(header))
		if !found {
			return
		}
		if !strings.Contains(header, string(value)) || !Carries(string(value)) {
			t.Fatalf("%q holds %q?", header, value)
		}
		// What was found goes out in quotes and comes back as it was.
		again, found := Find([]byte("a=b; " + Name + `="` + string(value) + `"; c="d"`))
		if !found || string(again) != string(value) {
			t.Fatalf("%q came back as %q", value, again)
		}
	})
}

func TestParse(t *testing.T) {
	f := func(text string, want Token, ok bool) {
		t.Helper()
		got, err := Parse(text)
		if got != want || (err == nil) != ok {
			t.Errorf("%q: %+v %v", text, got, err)
		}
	}
	alice := Token{User: "alice", Principal: "alice/h@R", Type: "kerberos-dt", Expires: 1700000000000}
	f("u=alice&p=alice/h@R&t=kerberos-dt&e=1700000000000", alice, true)
	alice.IdleUntil = 5
	f("u=alice&p=alice/h@R&t=kerberos-dt&i=5&e=1700000000000", alice, true)
	f("u=a=b&p==&t= &e=1", Token{User: "a=b", Principal: "=", Type: " ", Expires: 1}, true)
	f("u=a&p=a&t=t&e=0", Token{User: "a", Principal: "a", Type: "t"}, true)
	f("u=a&p=a&t=t&e=-1", Token{User: "a", Principal: "a", Type: "t", Expires: Never}, true)
	for _, bad := range []string{
		"", "u", "u=", "ANONYMOUS", "u=a", "u=a&p=a&t=t", "u=a&p=a&t=t&e=", "u=&p=a&t=t&e=1", "u=a&p=&t=t&e=1", "u=a&p=a&t=&e=1",
		"p=a&u=a&t=t&e=1", "u=a&u=b&p=a&t=t&e=1", "u=a&p=a&t=t&e=1&u=root", "u=a&p=a&t=t&e=1&", "u=a&p=a&t=t&e=1&s=x",
		"u=a&p=a&t=t&e=-2", "u=a&p=a&t=t&e=-0", "u=a&p=a&t=t&e=00", "u=a&p=a&t=t&i=-1&e=1",
		"u=a&p=a&t=t&e=+1", "u=a&p=a&t=t&e=01", "u=a&p=a&t=t&e= 1", "u=a&p=a&t=t&e=1_0",
		"u=a&p=a&t=t&e=9223372036854775808", "u=a&p=a&t=t&e=x", "u=a&p=a&t=t&i=&e=1", "u=a&p=a&t=t&i=0&e=1", "u=a&p=a&t=t&i=1",
		"u=a&p=a&t=t&i=1&i=1&e=1", "u=a\nb&p=a&t=t&e=1", "u=a&p=a&t=t\x00&e=1", `"u=a&p=a&t=t&e=1"`, "U=a&p=a&t=t&e=1",
	} {
		f(bad, Token{}, false)
	}
}

// Whatever is accepted is exactly what Append writes: a text has one meaning
// and a meaning one text.
func FuzzParse(f *testing.F) {
	f.Add("u=alice&p=alice&t=simple-dt&e=1700000000000")
	f.Add("u=alice&p=alice&t=simple-dt&i=17&e=1700000000000")
	f.Add("u=a&p=a&t=t&e=1&s=x")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := Parse(text)
		if err != nil {
			return
		}
		if again := string(token.Append(nil)); again != text {
			t.Errorf("%q is written as %q", text, again)
		}
		for _, v := range []string{token.User, token.Principal, token.Type} {
			if CheckValue(v) != nil {
				t.Errorf("%q holds the value %q", text, v)
			}
		}
	})
}

func TestCheckValue(t *testing.T) {
	for _, good := range []string{"a", "a b", `a"b`, "a;b", "é", "a=b", "€", " "} {
		if err := CheckValue(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "&", "a&t=x", "a\r\nb", "\x00", "a\x7f", "a\tb"} {
		if CheckValue(bad) == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

func TestSplitAtTheLastSignature(t *testing.T) {
	f := func(value, text, signature string, ok bool) {
		t.Helper()
		gotText, gotSignature, gotOK := Split([]byte(value))
		if string(gotText) != text || string(gotSignature) != signature || gotOK != ok {
			t.Errorf("%q: %q %q %v", value, gotText, gotSignature, gotOK)
		}
	}
	f("u=a&s=x&s=y=", "u=a&s=x", "y=", true)
	f("&s=", "", "", true)
	f("u=a&S=x", "", "", false)
	f("", "", "", false)
}

func TestAppendSigned(t *testing.T) {
	token := Token{User: "a", Principal: "a", Type: "t", Expires: 1}
	got := AppendSigned([]byte("before "), &token, func(dst, text []byte) []byte {
		if string(text) != "u=a&p=a&t=t&e=1" {
			t.Errorf("signed %q", text)
		}
		return append(dst, "sig"...)
	})
	if string(got) != "before u=a&p=a&t=t&e=1&s=sig" {
		t.Errorf("%q", got)
	}
}

func TestAppendSet(t *testing.T) {
	f := func(a Attributes, value string, expires int64, secure bool, want string) {
		t.Helper()
		if got := string(a.AppendSet(nil, []byte(value), expires, secure)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	f(Attributes{}, "v", 1700000000000, false, `hadoop.auth="v"; HttpOnly`)
	f(Attributes{}, "", 0, false, `hadoop.auth=; HttpOnly`)
	f(Attributes{}, "v", 1, true, `hadoop.auth="v"; Secure; HttpOnly`)
	f(Attributes{Path: "/kms", Domain: "example.com", Persistent: true}, "v", 1700000000999, true,
		`hadoop.auth="v"; Path=/kms; Domain=example.com; Expires=Tue, 14-Nov-2023 22:13:20 GMT; Secure; HttpOnly`)
	f(Attributes{Persistent: true}, "", 0, false, `hadoop.auth=; Expires=Thu, 01-Jan-1970 00:00:00 GMT; HttpOnly`)
}

func TestAttributesCheck(t *testing.T) {
	for _, bad := range []Attributes{{Path: "/; Secure"}, {Domain: "a\r\nSet-Cookie: b"}, {Path: `"`}} {
		if bad.Check() == nil {
			t.Errorf("%+v passed", bad)
		}
	}
	if err := (&Attributes{Path: "/kms", Domain: "example.com"}).Check(); err != nil {
		t.Error(err)
	}
}
