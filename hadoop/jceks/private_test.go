package jceks

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"testing"
)

// certificates reads a file of testdata for TLS.
func certificates(t testing.TB, name string, pw *Password) map[string]*Entry {
	t.Helper()
	entries, err := ParseCertificates(golden(t, name), pw)
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string]*Entry)
	for _, e := range entries {
		m[e.Alias()] = e
	}
	return m
}

func TestPrivateKeysOfKeytool(t *testing.T) {
	f := func(file, alias, pass string) {
		t.Helper()
		e := certificates(t, file, password(t, "changeit"))[alias]
		der, err := e.PrivateKey(password(t, pass))
		if err != nil {
			t.Fatal(err)
		}
		key, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			t.Fatal(err)
		}
		chain := e.Certificates()
		if len(chain) != 1 {
			t.Fatalf("%s: chain of %d", alias, len(chain))
		}
		cert, err := x509.ParseCertificate(chain[0])
		if err != nil {
			t.Fatal(err)
		}
		public := key.(crypto.Signer).Public().(interface{ Equal(crypto.PublicKey) bool })
		if !public.Equal(cert.PublicKey) {
			t.Errorf("%s %s: key and certificate do not belong together", file, alias)
		}
		for _, wrong := range []string{"", "wrong"} {
			if _, err := e.PrivateKey(password(t, wrong)); !errors.Is(err, ErrPassword) {
				t.Errorf("%s %s with password %q: %v", file, alias, wrong, err)
			}
		}
	}
	f("keytool-17.jks", "rsa", "keychange")
	f("keytool-17.jks", "ec", "changeit")
	f("keytool-17.jceks", "pair", "changeit")
}

func TestCertificatesNeedNoPassword(t *testing.T) {
	f := func(file, alias string, kind Kind, count int) {
		t.Helper()
		e := certificates(t, file, nil)[alias]
		if e.Kind() != kind || len(e.Certificates()) != count {
			t.Errorf("%s %s: kind %d with %d certificates", file, alias, e.Kind(), len(e.Certificates()))
		}
		if _, err := e.PrivateKey(password(t, "changeit")); kind != PrivateKey && !errors.Is(err, ErrType) {
			t.Errorf("%s %s has a private key: %v", file, alias, err)
		}
	}
	f("keytool-17.jks", "root", Certificate, 1)
	f("keytool-17.jks", "rsa", PrivateKey, 1)
	f("keytool-17.jceks", "root", Certificate, 1)
	f("keytool-17.jceks", "aeskey", SecretKey, 0)
}

func TestParseCertificatesRefuses(t *testing.T) {
	jks := golden(t, "keytool-17.jks")
	f := func(what string, data []byte, pw *Password, want error) {
		t.Helper()
		if _, err := ParseCertificates(data, pw); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	pw := password(t, "changeit")
	f("nothing", nil, pw, ErrFormat)
	f("PKCS#12", []byte("\x30\x82\x00\x00"), pw, ErrFormat)
	f("mark alone", jks[:4], pw, ErrFormat)
	f("wrong password", jks, password(t, "wrong"), ErrPassword)
	f("altered", append(bytes.Clone(jks[:len(jks)-1]), jks[len(jks)-1]^1), pw, ErrPassword)
	for cut := 5; cut < len(jks); cut += 97 {
		f("cut off", jks[:cut], nil, ErrFormat)
	}
	if _, err := Parse(jks, pw); !errors.Is(err, ErrFormat) {
		t.Errorf("JKS as a key store: %v", err)
	}
}

func FuzzPrivateKey(f *testing.F) {
	pw := password(f, "changeit")
	for _, name := range []string{"keytool-17.jks", "keytool-17.jceks"} {
		data := golden(f, name)
		f.Add(data[:len(data)-20])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		entries, err := ParseCertificates(append(bytes.Clone(body), make([]byte, 20)...), nil)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		for _, e := range entries {
			total := 0
			for _, der := range e.Certificates() {
				total += len(der)
			}
			if total > len(body) {
				t.Errorf("%d bytes of certificates in a file of %d", total, len(body))
			}
			if bytes.Contains(e.raw, costly(t)) {
				continue // rounds are what a damaged file may cost; MaxIterations bounds them
			}
			if _, err := e.PrivateKey(pw); err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrPassword) && !errors.Is(err, ErrType) {
				t.Error(err)
			}
		}
	})
}

// costly is how the object identifier of JCEKS's sealing is written, behind
// which the number of rounds stands.
func costly(t *testing.T) []byte {
	t.Helper()
	der, err := asn1.Marshal(oidJCEKS)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestIterationsOfPrivateKeysAreBounded(t *testing.T) {
	e := certificates(t, "keytool-17.jceks", nil)["pair"]
	rounds := binary.BigEndian.AppendUint32([]byte{2, 3}, Iterations)
	at := bytes.Index(e.raw, []byte{2, 3, rounds[3], rounds[4], rounds[5]})
	if at < 0 {
		t.Fatal("no iteration count found")
	}
	e.raw[at+2] = 0x7F
	if _, err := e.PrivateKey(password(t, "changeit")); !errors.Is(err, ErrFormat) {
		t.Errorf("0x7F0D40 iterations: %v", err)
	}
}
