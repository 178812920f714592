package tlsstore

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var localhost = []net.IP{net.IPv4(127, 0, 0, 1)}

// load loads lines of one configuration.
func load(t testing.TB, lines ...string) (*Loaded, error) {
	t.Helper()
	c := configuration(t, lines...)
	return Load(c, c)
}

func mustLoad(t testing.TB, lines ...string) *Loaded {
	t.Helper()
	loaded, err := load(t, lines...)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// subjects names what a Loaded serves: common names of each chain.
func subjects(t testing.TB, l *Loaded) string {
	t.Helper()
	var names []string
	for _, c := range l.Certificates {
		names = append(names, c.Leaf.Subject.CommonName+"/"+string(rune('0'+len(c.Certificate))))
	}
	return strings.Join(names, " ")
}

func TestStoresOfAllKinds(t *testing.T) {
	f := func(store, want string, lines ...string) {
		t.Helper()
		path := fixture(t, store)
		loaded := mustLoad(t, append([]string{KeystoreLocation + " " + path}, lines...)...)
		if got := subjects(t, loaded); got != want {
			t.Errorf("%s serves %s, want %s", store, got, want)
		}
		if len(loaded.Warnings) > 0 {
			t.Errorf("%s: %v", store, loaded.Warnings)
		}
		if !slices.Equal(loaded.Files, []string{path}) {
			t.Errorf("%s: files %v", store, loaded.Files)
		}
		if left := time.Until(loaded.NotAfter); left < 22*time.Hour || left > 25*time.Hour {
			t.Errorf("%s: expires in %v", store, left)
		}
	}
	const password, key = KeystorePassword + " changeit", KeystoreKeyPassword + " keychange"
	f("rsa.p12", "rsa/2", password, KeystoreType+" pkcs12")
	f("rsa-17.jks", "rsa/2", password, KeystoreType+" jks")
	f("rsa.jks", "rsa/2", password, key)
	f("rsa.jks", "rsa/2", password, key, KeystoreType+" PKCS12")
	f("rsa.jceks", "rsa/2", password, key, KeystoreType+" jceks")
	f("two.p12", "ec/2 rsa/2", password)
	f("two.jks", "ec/2 rsa/2", password)
	f("two.jceks", "ec/2 rsa/2", password)
	f("rsa.pem", "rsa/2", KeystoreType+" pem")
	f("ec.pem", "ec/2")
}

func TestPEMFilesOfOurOwnProperties(t *testing.T) {
	chain, key := fixture(t, "rsa.pem"), fixture(t, "rsa.pem")
	f := func(want string, lines ...string) {
		t.Helper()
		loaded, err := load(t, lines...)
		switch {
		case want == "" && err != nil:
			t.Error(err)
		case want == "" && subjects(t, loaded) != "rsa/2":
			t.Errorf("serves %s", subjects(t, loaded))
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%v, want %q", err, want)
		}
	}
	f("", CertificateFile+" "+chain, KeyFile+" "+key)
	f("", CertificateFile+" "+chain, KeyFile+" "+key, KeystoreLocation+" /nowhere")
	f(KeyFile+": "+CertificateFile+" is set, the key of the certificate is not", CertificateFile+" "+chain)
	f(CertificateFile+": "+KeyFile+" is set, the certificate", KeyFile+" "+key)
	f("do not make a TLS certificate", CertificateFile+" "+chain, KeyFile+" "+fixture(t, "ec.pem"))
	f("no such file", CertificateFile+" "+chain, KeyFile+" /nowhere")

	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	loaded := mustLoad(t, CertificateFile+" "+chain, KeyFile+" "+key)
	if len(loaded.Warnings) != 1 || !strings.Contains(loaded.Warnings[0].Error(), "mode 0644 lets other users at it. Try: chmod 600") {
		t.Errorf("warnings %v", loaded.Warnings)
	}
}

func TestRefusals(t *testing.T) {
	const password = KeystorePassword + " changeit"
	f := func(want string, lines ...string) {
		t.Helper()
		_, err := load(t, lines...)
		problems := Problems(nil)
		if !errors.As(err, &problems) {
			t.Fatalf("%v: %v", lines, err)
		}
		for _, p := range problems {
			if p.Place == "" || p.Property == "" || p.What == "" || p.Remedy == "" {
				t.Errorf("%v: %+v", lines, p)
			}
			if strings.Contains(err.Error(), "changeit") {
				t.Errorf("a password in %v", p)
			}
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", lines, err, want)
		}
	}
	store := func(name string) string { return KeystoreLocation + " " + fixture(t, name) }

	f("no certificate is named")
	f(KeystorePassword+": not set", store("rsa.p12"))
	f(KeystoreLocation+`: "rsa.p12" is not an absolute path`, KeystoreLocation+" rsa.p12", password)
	f(KeystoreLocation+": stat /nowhere", KeystoreLocation+" /nowhere", password)
	f("is not a file", KeystoreLocation+" "+t.TempDir(), password)
	f(KeystoreType+`: stores of type "bcfks" cannot be read`, store("rsa.p12"), password, KeystoreType+" bcfks")
	for _, name := range []string{"rsa.p12", "rsa-17.jks", "rsa.jks", "rsa.jceks"} {
		f(":3: "+KeystorePassword+": ", store(name), KeystorePassword+" wrong")
		f("password", store(name), KeystorePassword+" wrong")
	}
	f(KeystoreKeyPassword+": ", store("rsa.jks"), password)
	f(`the password does not open key "rsa"`, store("rsa.jks"), password)
	f(`the password does not open key "rsa"`, store("rsa.jceks"), password, KeystoreKeyPassword+" wrong")
	f(`the password does not open key "rsa"`, store("rsa.p12"), password, KeystoreKeyPassword+" wrong")
	f("printable ASCII", store("rsa.jks"), KeystorePassword+" pässword")
	f("holds no private key", store("trust.jks"), password)
	f("holds no private key", store("empty.p12"), password)
	f("does not make a TLS certificate", KeystoreLocation+" "+written(t, "-----BEGIN nothing"), password)
	f("the private key is encrypted", KeystoreLocation+" "+written(t, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n"))
	f("neither a JKS, JCEKS or PKCS#12 keystore nor PEM", KeystoreLocation+" "+written(t, "hello"), password)
	f("is empty", KeystoreLocation+" "+written(t, ""), password)
	f("larger than", KeystoreLocation+" "+written(t, strings.Repeat("x", maxStore+513)), password)
	f(NeedClientAuth+`: "maybe" is neither`, store("ec.pem"), NeedClientAuth+" maybe")
	f(TruststoreLocation+": stat /nowhere", store("ec.pem"), NeedClientAuth+" true", TruststoreLocation+" /nowhere")
	f(TruststorePassword+": ", store("ec.pem"), NeedClientAuth+" true", TruststoreLocation+" "+fixture(t, "trust.p12"))
	f(TruststorePassword+": ", store("ec.pem"), NeedClientAuth+" true", TruststoreLocation+" "+fixture(t, "trust.jks"), TruststorePassword+" wrong")
	f("holds no trusted certificate", store("ec.pem"), NeedClientAuth+" true", TruststoreLocation+" "+fixture(t, "empty.p12"), TruststorePassword+" changeit")
	f("no truststore is named", store("ec.pem"), NeedClientAuth+" true")
	f("no truststore is named", CertificateFile+" "+fixture(t, "ec.pem"), KeyFile+" "+fixture(t, "ec.pem"), NeedClientAuth+" true")
	f(EnabledProtocols+`: "TLSv1,TLSv1.1" leaves nothing`, store("ec.pem"), EnabledProtocols+" TLSv1,TLSv1.1")
	f("credential.provider.path: ", store("rsa.p12"), "hadoop.security.credential.provider.path bcfks://file@/x")
	f(IncludeCiphers+`: "(" is not a regular expression`, store("ec.pem"), IncludeCiphers+" (")
	f(IncludeCiphers+": leaves no cipher suite for TLS 1.2", store("ec.pem"), IncludeCiphers+" SSL_RSA_WITH_RC4_128_MD5")
	f(ExcludeCiphers+": leaves no cipher suite for TLS 1.2", store("ec.pem"), ExcludeCiphers+" .*")
	// All at once.
	f(EnabledProtocols, KeystoreLocation+" /nowhere", EnabledProtocols+" SSLv3")
	f("/nowhere", KeystoreLocation+" /nowhere", EnabledProtocols+" SSLv3")
}

// written returns a new file with that content.
func written(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCutOffStoresAreRefused(t *testing.T) {
	for _, name := range []string{"two.p12", "two.jks", "two.jceks", "ec.pem"} {
		content, err := os.ReadFile(fixture(t, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, cut := range []int{1, 3, 4, 20, len(content) / 4, len(content) / 2, len(content) - 30} {
			_, err := load(t, KeystoreLocation+" "+written(t, string(content[:cut])), KeystorePassword+" changeit")
			if err == nil || !strings.Contains(err.Error(), KeystoreLocation) && !strings.Contains(err.Error(), KeystorePassword) {
				t.Errorf("%d bytes of %s: %v", cut, name, err)
			}
		}
	}
}

func TestExpiredCertificatesAreServedWithAWarning(t *testing.T) {
	loaded := mustLoad(t, KeystoreLocation+" "+fixture(t, "expired.pem"))
	if len(loaded.Warnings) != 1 || !strings.Contains(loaded.Warnings[0].What, "CN=expired expired on ") || loaded.NotAfter.After(time.Now()) {
		t.Errorf("warnings %v, expiry %v", loaded.Warnings, loaded.NotAfter)
	}
}

func TestKeystoresThatOthersMayReadDrawAWarning(t *testing.T) {
	f := func(mode os.FileMode, want int) {
		t.Helper()
		path := fixture(t, "rsa.p12")
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if loaded := mustLoad(t, KeystoreLocation+" "+path, KeystorePassword+" changeit"); len(loaded.Warnings) != want {
			t.Errorf("mode %#o: %v", mode, loaded.Warnings)
		}
	}
	f(0o600, 0)
	f(0o640, 0)
	f(0o644, 1)
}
