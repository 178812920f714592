package spnego_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/edekd/edekd/proxy/authn/spnego"
)

func TestDecode(t *testing.T) {
	for n := range 70 {
		token := make([]byte, n)
		for i := range token {
			token[i] = byte(0xff - i*n)
		}
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding} {
			text := encoding.EncodeToString(token)
			got, err := spnego.Decode([]byte(" " + text + "\t"))
			if err != nil || string(got) != string(token) {
				t.Fatalf("%s: %x, %v, want %x", text, got, err, token)
			}
		}
	}
	largest := base64.StdEncoding.EncodeToString(make([]byte, spnego.MaxToken))
	if got, err := spnego.Decode([]byte(largest)); err != nil || len(got) != spnego.MaxToken {
		t.Errorf("the largest token: %d bytes, %v", len(got), err)
	}
	f := func(text, want string) {
		t.Helper()
		_, err := spnego.Decode([]byte(text))
		checkRefusal(t, err, spnego.Malformed, want)
	}
	f("YII===", "not base64")
	f("YI I=", "not base64")
	f("YI\r\nI=", "not base64")
	f("Y", "not base64")
	f("YII,", "not base64")
	f("YII=YII=", "not base64")
	f(strings.Repeat("A", 100_000), "larger than 65536 bytes")
}
