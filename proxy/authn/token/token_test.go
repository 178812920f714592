package token

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/edekd/edekd/hadoop/writable"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Computed with the JDK from the rules of Hadoop's Token.
const (
	vectorURL        = "HQAFYWxpY2UEeWFybgCKAYvP5WgAigGL8_HsAAECFM6kZatzFlil8D8cY313C8bNch7IBmttcy1kdAA"
	vectorIdentifier = "0005616c696365047961726e008a018bcfe568008a018bf3f1ec000102"
	vectorPassword   = "cea465ab731658a5f03f1c637d770bc6cd721ec8"
)

var vector = Identifier{Owner: "alice", Renewer: "yarn", Issued: 1700000000000, MaxDate: 1700604800000, Sequence: 1, KeyID: 2}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVector(t *testing.T) {
	identifier := vector.Append(nil)
	if got := hex.EncodeToString(identifier); got != vectorIdentifier {
		t.Errorf("identifier %s", got)
	}
	key := NewMasterKey(2, 0, []byte{1, 2, 3, 4, 5, 6, 7, 8})
	sum := password(hashOf(DefaultAlgorithm), key, identifier)
	if got := hex.EncodeToString(sum); got != vectorPassword {
		t.Errorf("password %s", got)
	}
	token := &Token{Identifier: identifier, Password: sum, Kind: Kind}
	if got := string(token.AppendURL(nil)); got != vectorURL {
		t.Errorf("text %s", got)
	}
	back, err := ParseURL([]byte(vectorURL))
	if err != nil {
		t.Fatal(err)
	}
	if string(back.Identifier) != string(identifier) || string(back.Password) != string(sum) || back.Kind != Kind || back.Service != "" {
		t.Errorf("came back as %x, %x, %q, %q", back.Identifier, back.Password, back.Kind, back.Service)
	}
	id, err := ParseIdentifier(back.Identifier)
	if err != nil || id != vector {
		t.Errorf("%+v, %v", id, err)
	}
}

func TestIdentifierText(t *testing.T) {
	const want = "kms-dt owner=alice, renewer=yarn, realUser=, issueDate=1700000000000, maxDate=1700604800000, sequenceNumber=1, masterKeyId=2"
	if got := vector.String(); got != want {
		t.Errorf("%s", got)
	}
}

func TestRealUser(t *testing.T) {
	f := func(owner, real, want string) {
		t.Helper()
		if got := (&Identifier{Owner: owner, RealUser: real}).Real(); got != want {
			t.Errorf("%q for %q: %q, want %q", real, owner, got, want)
		}
	}
	f("alice", "", "")
	f("alice", "hive", "hive")
	f("alice", "alice", "")
}

func TestSpellings(t *testing.T) {
	raw := func(service string) []byte {
		b := writable.AppendBytes(nil, vector.Append(nil))
		b = writable.AppendBytes(b, unhex(t, vectorPassword))
		return writable.AppendText(writable.AppendText(b, "another kind"), service)
	}
	f := func(text string, ok bool) {
		t.Helper()
		token, err := ParseURL([]byte(text))
		if (err == nil) != ok {
			t.Errorf("%.200q: %v", text, err)
		}
		if ok && hex.EncodeToString(token.Password) != vectorPassword {
			t.Errorf("%.200q: other password", text)
		}
	}
	for size := range 3 {
		b := raw(strings.Repeat("s", size))
		f(base64.RawURLEncoding.EncodeToString(b), true)
		f(base64.URLEncoding.EncodeToString(b), true)
		f(base64.RawStdEncoding.EncodeToString(b), true)
		f(base64.StdEncoding.EncodeToString(b), true)
	}
	f(base64.RawURLEncoding.EncodeToString(raw(strings.Repeat("kms://http@h1;h2:9600/kms", 500))), true)
	f(base64.RawURLEncoding.EncodeToString(raw(strings.Repeat("s", labelMax+1))), false)
	f(base64.RawURLEncoding.EncodeToString(append(raw(""), 0)), false) // something behind the end
	f(vectorURL+"=", true)
	f(vectorURL+"==", false)
	f(vectorURL+"===", false)
	f(vectorURL+"====", false)
	f(vectorURL+"\n", false)
	f(vectorURL+" ", false)
	f(" "+vectorURL, false)
	f(vectorURL[:20]+"\r\n"+vectorURL[20:], false)
	f(vectorURL[:20]+"="+vectorURL[20:], false)
	f(vectorURL[:len(vectorURL)-1]+"B", false) // bits that mean nothing
	f(vectorURL[:len(vectorURL)-1], false)
	f("", false)
	f("=", false)
	f(strings.Repeat("A", encodedMax+4), false)
}

// What Java says to the same bytes is in interop.
func TestUndecodable(t *testing.T) {
	identifier := vector.Append(nil)
	token := func(identifier []byte) []byte {
		return (&Token{Identifier: identifier, Password: make([]byte, 20), Kind: Kind}).AppendURL(nil)
	}
	encoded := func(raw []byte) []byte { return base64.RawURLEncoding.AppendEncode(nil, raw) }
	f := func(text []byte, want string) {
		t.Helper()
		_, _, err := parse(text)
		if refused := (*Error)(nil); !errors.As(err, &refused) || err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	f(nil, "java.io.EOFException")
	f([]byte("x"), "java.io.IOException: not the base64 text of a delegation token")
	f(encoded(writable.AppendVInt(nil, 5)), "java.io.EOFException")
	f(encoded(writable.AppendVInt(nil, -5)), "java.io.IOException: tried to deserialize -5 bytes of data!  newLength must be non-negative.")
	f(encoded(writable.AppendVInt(nil, math.MaxInt32)), "java.io.EOFException")
	f(encoded(writable.AppendVLong(nil, math.MaxInt32+1)), "java.io.IOException: value too long to fit in integer")
	for cut := range len(identifier) {
		f(token(identifier[:cut]), "java.io.EOFException")
	}
	f(token(append([]byte{1}, identifier[1:]...)), "java.io.IOException: Unknown version of delegation token 1")
	f(token(append([]byte{0xff}, identifier[1:]...)), "java.io.IOException: Unknown version of delegation token -1")
	f(token(append([]byte{0}, writable.AppendVInt(nil, -1)...)), "java.io.IOException: tried to deserialize -1 bytes of data!  newLength must be non-negative.")
	f(token(append([]byte{0}, writable.AppendVInt(nil, NameMax+1)...)), "java.io.EOFException")
	f(token(append([]byte{0}, writable.AppendText(nil, strings.Repeat("n", NameMax+1))...)), "java.io.IOException: tried to deserialize 1025 bytes of data, but maxLength = 1024")
	f(token(append(identifier, 0)), "java.io.IOException: more data than a delegation token has")
	nobody := vector
	nobody.Owner = ""
	f(token(nobody.Append(nil)), ClassInvalidToken+": Token with no owner ("+nobody.String()+")")
}

func TestCredentialsAreNotPrinted(t *testing.T) {
	secret := []byte("topsecret")
	values := []any{
		&Token{Identifier: vector.Append(nil), Password: secret, Kind: Kind},
		&MasterKey{ID: 2, Secret: secret},
		&Record{Sequence: 1, Password: secret},
	}
	for _, value := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
			s := fmt.Sprintf(verb, value)
			for _, shows := range []string{"topsecret", hex.EncodeToString(secret), fmt.Sprintf("%d", secret), fmt.Sprintf("%#v", secret)} {
				if strings.Contains(s, strings.Trim(shows, "[]")) {
					t.Errorf("%s of %T shows %s", verb, value, s)
				}
			}
		}
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add([]byte(vectorURL))
	f.Add([]byte(vectorURL + "="))
	f.Add([]byte("HQ"))
	f.Fuzz(func(t *testing.T, text []byte) {
		token, err := ParseURL(text)
		if err != nil {
			return
		}
		again, err := ParseURL(token.AppendURL(nil))
		if err != nil || string(again.Identifier) != string(token.Identifier) || string(again.Password) != string(token.Password) ||
			again.Kind != token.Kind || again.Service != token.Service {
			t.Errorf("%s came back as another token (%v)", text, err)
		}
		plain := strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(string(text))
		if got := string(token.AppendURL(nil)); got != plain {
			t.Errorf("%s was read as %s", text, got)
		}
	})
}

func FuzzParseIdentifier(f *testing.F) {
	f.Add(vector.Append(nil))
	f.Add((&Identifier{Owner: "alice@EXAMPLE.COM", RealUser: "hive", Issued: -1, MaxDate: math.MaxInt64, Sequence: math.MinInt32, KeyID: -113}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := ParseIdentifier(b)
		if err == nil && string(id.Append(nil)) != string(b) {
			t.Errorf("%x was read as %x", b, id.Append(nil))
		}
	})
}
