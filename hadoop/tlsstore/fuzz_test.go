package tlsstore

import (
	"bytes"
	"os"
	"testing"
)

func FuzzReadStore(f *testing.F) {
	for _, name := range []string{"pkcs12/testdata/keytool-17.p12", "../jceks/testdata/keytool-17.jks"} {
		content, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		passwords := [][]byte{nil, []byte("changeit")}
		if (&file{content: content}).format() == formatPKCS12 {
			passwords = passwords[:1] // iterations are what a damaged file may cost; package pkcs12 bounds them
		}
		for _, password := range passwords {
			before := bytes.Clone(content)
			if certs, err := trustedCertificates(&file{content: content}, password); err == nil && len(certs) > len(content) {
				t.Errorf("%d certificates in %d bytes", len(certs), len(content))
			}
			if pair, err := pemKey(content, content); err == nil && len(pair.Certificate) == 0 {
				t.Error("a key without certificate")
			}
			if !bytes.Equal(before, content) {
				t.Error("the content was changed")
			}
		}
	})
}
