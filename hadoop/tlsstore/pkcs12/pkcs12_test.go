package pkcs12

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"testing"
)

func golden(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestReadsWhatOthersWrote(t *testing.T) {
	f := func(file, password string, keys, trusted string, certificates int) {
		t.Helper()
		s, err := Parse(golden(t, file), []byte(password))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		var names []string
		for _, k := range s.Keys {
			names = append(names, k.Alias)
			der, err := k.Open([]byte(password))
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			key, err := x509.ParsePKCS8PrivateKey(der)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			public := key.(crypto.Signer).Public().(interface{ Equal(crypto.PublicKey) bool })
			for _, c := range s.Certificates {
				cert, err := x509.ParseCertificate(c.DER)
				if err != nil {
					t.Fatal(err)
				}
				if bytes.Equal(c.ID, k.ID) != (public.Equal(cert.PublicKey) && !c.Trusted) {
					t.Errorf("%s: key %s and certificate %s", file, k.Alias, cert.Subject)
				}
			}
			if _, err := k.Open([]byte("wrong")); !errors.Is(err, ErrPassword) {
				t.Errorf("%s: key %s with the wrong password: %v", file, k.Alias, err)
			}
		}
		if got := strings.Join(names, " "); got != keys {
			t.Errorf("%s: keys %s, want %s", file, got, keys)
		}
		names = nil
		for _, c := range s.Certificates {
			if c.Trusted {
				names = append(names, c.Alias)
			}
		}
		if got := strings.Join(names, " "); got != trusted || len(s.Certificates) != certificates {
			t.Errorf("%s: %q are trusted among %d certificates, want %q among %d", file, got, len(s.Certificates), trusted, certificates)
		}
		for _, wrong := range []string{"wrong", password + "x"} {
			if _, err := Parse(golden(t, file), []byte(wrong)); !errors.Is(err, ErrPassword) {
				t.Errorf("%s with password %q: %v", file, wrong, err)
			}
		}
		if _, err := Parse(golden(t, file), nil); !errors.Is(err, ErrPassword) {
			t.Errorf("%s without password: %v", file, err)
		}
	}
	f("keytool-17.p12", "changeit", "rsa ec", "root", 3)
	f("keytool-legacy.p12", "changeit", "rsa ec", "root", 3)
	f("openssl-3.p12", "pässword", "openssl", "", 1)
	f("openssl-legacy.p12", "", "openssl", "", 1)
}

func TestKeysMayHaveAPasswordOfTheirOwn(t *testing.T) {
	s, err := Parse(golden(t, "keypass.p12"), []byte("changeit"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Keys[0].Open([]byte("changeit")); !errors.Is(err, ErrPassword) {
		t.Errorf("with the store's password: %v", err)
	}
	der, err := s.Keys[0].Open([]byte("keychange"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x509.ParsePKCS8PrivateKey(der); err != nil {
		t.Error(err)
	}
}

func TestCutOffStores(t *testing.T) {
	data := golden(t, "keytool-17.p12")
	for cut := 0; cut < len(data); cut += 101 {
		if _, err := Parse(data[:cut], []byte("changeit")); !errors.Is(err, ErrFormat) {
			t.Errorf("%d of %d bytes: %v", cut, len(data), err)
		}
	}
	if _, err := Parse(append(bytes.Clone(data), 0), []byte("changeit")); !errors.Is(err, ErrFormat) {
		t.Error("a byte too many")
	}
	altered := bytes.Clone(data)
	altered[len(data)/2] ^= 1
	if _, err := Parse(altered, []byte("changeit")); !errors.Is(err, ErrPassword) {
		t.Errorf("altered: %v", err)
	}
}

func TestRoundsAreBounded(t *testing.T) {
	data := golden(t, "keytool-17.p12")
	at := bytes.LastIndex(data, []byte{2, 2, 0x27, 0x10}) // 10000, of the MAC
	if at < 0 {
		t.Fatal("no iteration count found")
	}
	s := &Store{budget: MaxRounds}
	if err := s.spend(MaxRounds + 1); !errors.Is(err, ErrFormat) {
		t.Errorf("more than all: %v", err)
	}
	if err := s.spend(0); !errors.Is(err, ErrFormat) {
		t.Errorf("none: %v", err)
	}
	if err := s.spend(MaxRounds); err != nil {
		t.Error(err)
	}
	if err := s.spend(1); !errors.Is(err, ErrFormat) {
		t.Errorf("one too many: %v", err)
	}
	hostile := bytes.Clone(data)
	hostile[at+2], hostile[at+3] = 0xFF, 0xFF // negative
	if _, err := Parse(hostile, []byte("changeit")); !errors.Is(err, ErrFormat) {
		t.Errorf("negative rounds: %v", err)
	}
}

// The vectors of RFC 2268 whose effective length is that of the key.
func TestRC2(t *testing.T) {
	f := func(key, sealed, want string) {
		t.Helper()
		c, err := newRC2([]byte(key))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, rc2BlockSize)
		c.Decrypt(got, []byte(sealed))
		if string(got) != want {
			t.Errorf("key %x: %x, want %x", key, got, want)
		}
	}
	f("\xff\xff\xff\xff\xff\xff\xff\xff", "\x27\x8b\x27\xe4\x2e\x2f\x0d\x49", "\xff\xff\xff\xff\xff\xff\xff\xff")
	f("\x30\x00\x00\x00\x00\x00\x00\x00", "\x30\x64\x9e\xdf\x9b\xe7\xd2\xc2", "\x10\x00\x00\x00\x00\x00\x00\x01")
	f("\x88\xbc\xa9\x0e\x90\x87\x5a\x7f\x0f\x79\xc3\x84\x62\x7b\xaf\xb2", "\x22\x69\x55\x2a\xb0\xf8\x5c\xa6", "\x00\x00\x00\x00\x00\x00\x00\x00")
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"keytool-17.p12", "keytool-legacy.p12", "openssl-3.p12", "openssl-legacy.p12"} {
		f.Add(golden(f, name))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data, nil) // with a password nothing would get past the MAC
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrPassword) {
				t.Fatal(err)
			}
			return
		}
		total := 0
		for _, c := range s.Certificates {
			total += len(c.DER)
		}
		s.budget = 1000
		for _, k := range s.Keys {
			total += len(k.der)
			if _, err := k.Open([]byte("changeit")); err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrPassword) {
				t.Error(err)
			}
		}
		if total > len(data) {
			t.Errorf("%d bytes of content in a file of %d", total, len(data))
		}
	})
}

// FuzzBags looks at what stands behind the seals.
func FuzzBags(f *testing.F) {
	for _, name := range []string{"keytool-17.p12", "keytool-legacy.p12"} {
		s, err := Parse(golden(f, name), []byte("changeit"))
		if err != nil {
			f.Fatal(err)
		}
		for _, k := range s.Keys {
			f.Add(k.der)
		}
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		k := &Key{store: &Store{budget: 1000}, der: der}
		if _, err := k.Open([]byte("changeit")); err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrPassword) {
			t.Error(err)
		}
	})
}
