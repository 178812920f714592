package audit

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestAppendClean(t *testing.T) {
	f := func(s string, limit int, want string) {
		t.Helper()
		if got := string(appendClean([]byte("<"), s, limit)); got != "<"+want {
			t.Errorf("%q: got %q, want %q", s, got, "<"+want)
		}
	}
	f("", 10, "")
	f("plain text, [brackets] and 'quotes'", 100, "plain text, [brackets] and 'quotes'")
	f(`DOMAIN\user`, 100, `DOMAIN\user`)
	f("Schlüssel 鍵 🔑", 100, "Schlüssel 鍵 🔑")
	f("a\r\n2026-01-01 00:00:00,000 OK[op=X]", 100, `a\r\n2026-01-01 00:00:00,000 OK[op=X]`)
	f("tab\there", 100, `tab\there`)
	f("nul\x00 esc\x1b[2J del\x7f", 100, `nul\u0000 esc\u001b[2J del\u007f`)
	f("next line\u0085 sep\u2028\u2029", 100, `next line\u0085 sep\u2028\u2029`)
	f("turned \u202egnp.txt\u2066\u200f", 100, `turned \u202egnp.txt\u2066\u200f`)
	f("not UTF-8 \xff\xc3(", 100, `not UTF-8 \xff\xc3(`)
	f("the sign itself \ufffd", 100, "the sign itself \ufffd")
	f("abcdef", 6, "abcdef")
	f("abcdefg", 6, "abcdef...(1 bytes cut)")
	f("abcdé", 5, "abcd...(2 bytes cut)")
	f("\x80\x80\x80\x80\x80\x80\x80\x80", 5, `\x80...(7 bytes cut)`)
}

func FuzzAppendClean(f *testing.F) {
	f.Add("a\r\nb\x00\u202e\xff", 4)
	f.Add(strings.Repeat("é", 40), 33)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit &= 0xfff
		got := string(appendClean(nil, s, limit))
		if !utf8.ValidString(got) {
			t.Errorf("%q: %q is not UTF-8", s, got)
		}
		for _, r := range got {
			if unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control) {
				t.Errorf("%q: %q contains %U", s, got, r)
			}
		}
		if len(got) > 6*limit+len("...(9223372036854775807 bytes cut)") {
			t.Errorf("%d bytes from a limit of %d", len(got), limit)
		}
		if len(s) <= limit && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) && got != s {
			t.Errorf("plain %q became %q", s, got)
		}
	})
}
