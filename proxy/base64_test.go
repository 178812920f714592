package proxy

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
)

// commonsDecode is what Apache Commons Codec's lenient decoder does, in slow
// words: the text ends at the first '=', what is no letter of either alphabet
// does not count, and a last letter that stands alone is dropped.
func commonsDecode(src []byte) []byte {
	text, _, _ := strings.Cut(string(src), "=")
	var letters strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '+':
			letters.WriteByte('-')
		case c == '/':
			letters.WriteByte('_')
		case strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", c) >= 0:
			letters.WriteByte(c)
		}
	}
	s := letters.String()
	if len(s)%4 == 1 {
		s = s[:len(s)-1]
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func TestAppendBase64(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		if got := appendBase64(nil, []byte(in)); string(got) != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	f("", "")
	f("=", "")
	f("A", "")
	f("QQ", "A")
	f("QQ==", "A")
	f("QR", "A") // loose bits do not count
	f("QUI=", "AB")
	f("QUJD", "ABC")
	f("QUJDR", "ABC")
	f("QUJDRA", "ABCD")
	f(" QU\r\nJD ", "ABC")
	f("Q!U*J\x00Dé", "ABC")
	f("QQ==QQ==", "A") // nothing after '='
	f("=QUJD", "")
	f("-_+/", "\xfb\xff\xbf")
	f("\xff\xfe", "")
}

func FuzzBase64(f *testing.F) {
	for _, seed := range []string{"", "=", "QUJD", "QUJDRA==", "-_+/", "a b\nc", "AA=A", "\xff\xff\xff\xffAAA", strings.Repeat("A", 5)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		want := commonsDecode(src)
		if got := appendBase64([]byte("<"), src); string(got) != "<"+string(want) {
			t.Fatalf("%q: %q, want %q", src, got, want)
		}
		inPlace := bytes.Clone(src)
		if got := appendBase64(inPlace[:0], inPlace); !bytes.Equal(got, want) {
			t.Fatalf("%q in place: %q, want %q", src, got, want)
		}
	})
}
