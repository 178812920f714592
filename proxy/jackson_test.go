package proxy

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/edekd/edekd/edek"
)

func TestAppendString(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		if got := string(appendString([]byte("<"), in)); got != "<"+want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	f("", `""`)
	f("plain", `"plain"`)
	f(`"\/`, `"\"\\/"`)
	f("\b\t\n\f\r", `"\b\t\n\f\r"`)
	f("\x00\x1f\x7f", "\"\\u0000\\u001F\x7f\"")
	f("é€😀", `"é€😀"`)
	f("<>&'\u2028", "\"<>&'\u2028\"") // Jackson leaves them
	f("a\xffb\xc3", "\"a\uFFFDb\uFFFD\"")
	f("\uFFFD", "\"\uFFFD\"")
}

func FuzzAppendString(f *testing.F) {
	for _, seed := range []string{"", "k1", "a\"b\\c", "\x00\x1f\u2028", "é\xff\xc3\x28", "\xed\xa0\x80", "\U0010ffff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text := appendString(nil, s)
		var back string
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatalf("%q is written %s: %v", s, text, err)
		}
		if want := string([]rune(s)); back != want {
			t.Fatalf("%q comes back as %q", s, back)
		}
		for _, c := range text {
			if c < 0x20 {
				t.Fatalf("%q is written with the control byte %#02x", s, c)
			}
		}
	})
}

func pointer(s string) *string { return &s }

func TestShapesOfAnswers(t *testing.T) {
	f := func(got []byte, want string) {
		t.Helper()
		if string(got) != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	f(appendKeyVersion(nil, []byte{0xfb, 0xff, 0xbf, 0}, "k", "k@0"), `{
  "material" : "-_-_AA",
  "name" : "k",
  "versionName" : "k@0"
}`)
	f(appendKeyVersion(nil, []byte{}, "k", "EK"), `{
  "material" : "",
  "name" : "k",
  "versionName" : "EK"
}`)
	f(appendKeyVersion(nil, nil, "k", "k@0"), `{
  "material" : null,
  "name" : "k",
  "versionName" : "k@0"
}`)
	f(appendEncryptedKey(nil, "k@1", []byte("iviviviviviviviv"), []byte("w"), pointer("k")), `{
  "encryptedKeyVersion" : {
    "material" : "dw",
    "name" : "k",
    "versionName" : "EEK"
  },
  "versionName" : "k@1",
  "iv" : "aXZpdml2aXZpdml2aXZpdg"
}`)
	f(appendEncryptedKey(nil, "k@1", []byte("iv"), []byte("w"), nil), `{
  "encryptedKeyVersion" : {
    "material" : "dw",
    "name" : null,
    "versionName" : "EEK"
  },
  "versionName" : "k@1",
  "iv" : "aXY"
}`)
	f(appendMetadata(nil, &edek.Metadata{Name: "k", Cipher: "AES/CTR/NoPadding", BitLength: 128, Created: 1700000000000, Versions: 2}), `{
  "name" : "k",
  "cipher" : "AES/CTR/NoPadding",
  "length" : 128,
  "description" : null,
  "attributes" : { },
  "created" : 1700000000000,
  "versions" : 2
}`)
	f(appendMetadata(nil, &edek.Metadata{Name: "k", Cipher: "AES", BitLength: 256, Description: pointer(""),
		Attributes: map[string]string{"b": "2", "a": "1"}, Created: 3, Versions: 1}), `{
  "name" : "k",
  "cipher" : "AES",
  "length" : 256,
  "description" : "",
  "attributes" : {
    "a" : "1",
    "b" : "2"
  },
  "created" : 3,
  "versions" : 1
}`)
	items := func(elements ...string) []byte {
		var l list
		var out []byte
		for _, e := range elements {
			out = appendString(l.next(out), e)
		}
		return l.end(out)
	}
	f(items(), `[ ]`)
	f(items("a"), `[ "a" ]`)
	f(items("a", "b", "c"), `[ "a", "b", "c" ]`)
}

// What is written is what encoding/json reads, whatever the names are.
func TestAnswersSurviveAnyName(t *testing.T) {
	for _, name := range []string{"", "k", "a/b", "é", `key %^[\n{]}|"<>\`, "\x00\n\t", "\xff\xfe", strings.Repeat("\x01", 5000), strings.Repeat("\xff", 300)} {
		readable := string([]rune(name))
		material := []byte(name + "material")
		var version struct{ Material, Name, VersionName string }
		must(t, appendKeyVersion(nil, material, name, edek.VersionName(name, 7)), &version)
		if b, _ := base64.RawURLEncoding.DecodeString(version.Material); string(b) != string(material) || version.Name != readable || version.VersionName != readable+"@7" {
			t.Errorf("%.20q: %+v", name, version)
		}
		m := edek.Metadata{Name: name, Cipher: name, BitLength: 128, Description: &name, Attributes: map[string]string{name: name}, Created: 1 << 40, Versions: 3}
		var back edek.Metadata
		must(t, []byte(strings.Replace(string(appendMetadata(nil, &m)), `"length"`, `"bitLength"`, 1)), &back)
		m = edek.Metadata{Name: readable, Cipher: readable, BitLength: 128, Description: &readable, Attributes: map[string]string{readable: readable}, Created: 1 << 40, Versions: 3}
		if !reflect.DeepEqual(back, m) {
			t.Errorf("%.20q: %+v", name, back)
		}
	}
}

func must(t *testing.T, text []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

// A list of key versions that outgrows its buffer must not leave key bytes in
// the buffer it outgrew.
func TestGrowingAnswersLeaveNoKeyBytesBehind(t *testing.T) {
	material := []byte("0123456789abcdef")
	wire := base64.RawURLEncoding.EncodeToString(material)
	var l list
	var left [][]byte
	out := make([]byte, 0, 8)
	for range 200 {
		before := out
		out = appendKeyVersion(l.next(out), material, "k", "k@0")
		if cap(before) != cap(out) {
			left = append(left, before[:cap(before)])
		}
	}
	end := l.end(out)
	if cap(end) != cap(out) {
		left = append(left, out[:cap(out)])
	}
	if len(left) < 3 {
		t.Fatalf("the buffer grew %d times", len(left))
	}
	for _, b := range left {
		if strings.Contains(string(b), wire) {
			t.Fatalf("key bytes are left in a buffer of %d bytes", len(b))
		}
	}
}
