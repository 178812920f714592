package target

import (
	"fmt"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		all, err := Parse(text)
		if err != nil {
			t.Error(err)
			return
		}
		if got := fmt.Sprint(all); got != fmt.Sprint(want) {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	f("http://localhost:9600/kms", "http://localhost:9600/kms")
	f("https://h", "https://h:9600/kms")
	f("http://h:1/a/b/", "http://h:1/a/b")
	f("http://[::1]:9600/kms", "http://[::1]:9600/kms")
	f("kms://http@h1;h2.example.com;10.0.0.1:9292/kms", "http://h1:9292/kms", "http://h2.example.com:9292/kms", "http://10.0.0.1:9292/kms")
	f("kms://https@h", "https://h:9600/kms")
	f("kms://https@[::1]:16000/kms", "https://[::1]:16000/kms")
}

func TestRefused(t *testing.T) {
	f := func(text string) {
		t.Helper()
		if all, err := Parse(text); err == nil {
			t.Errorf("%q is taken for %v", text, all)
		} else if !strings.Contains(err.Error(), fmt.Sprintf("%q", text)) {
			t.Errorf("%q is not in %v", text, err)
		}
	}
	f("")
	f("localhost:9600")
	f("ftp://h/kms")
	f("http://h/kms?user.name=x")
	f("http://u:p@h/kms")
	f("http://h:0/kms")
	f("http://h:99999/kms")
	f("kms://h:9600/kms")
	f("kms://ftp@h:9600/kms")
	f("kms://http@:9600/kms")
	f("kms://http@a;;b:9600/kms")
	f("kms://http@h:port/kms")
	f("kms://http@h:1/k ms")
}

func TestLoopback(t *testing.T) {
	f := func(host string, want bool) {
		t.Helper()
		if got, err := Loopback(t.Context(), host); err != nil || got != want {
			t.Errorf("%s: %v %v", host, got, err)
		}
	}
	f("localhost", true)
	f("127.0.0.1", true)
	f("127.8.9.1", true)
	f("::1", true)
	f("::ffff:127.0.0.1", true)
	f("0.0.0.0", false)
	f("10.0.0.1", false)
	if _, err := Loopback(t.Context(), "no.such.host.invalid"); err == nil {
		t.Error("a host that does not exist has an address")
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"http://localhost:9600/kms", "kms://https@a;b:1/kms", "kms://http@[::1]:2", "https://h/%2F", "http://0//"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := Parse(text)
		if err != nil {
			return
		}
		for _, one := range all {
			again, err := Parse(one.String())
			if err != nil || len(again) != 1 || again[0] != one {
				t.Errorf("%q holds %+v, whose URL %s reads as %+v (%v)", text, one, one, again, err)
			}
		}
	})
}
