package tlsstore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edekd/edekd/hadoop/conf"
)

// fixtures is a folder of stores made by OpenSSL and by the JDK's keytool. The
// password of stores is "changeit".
//
//	root.crt, other.crt             two authorities
//	rsa.pem, ec.pem, expired.pem    keys with chains below root, by way of an intermediate
//	client.pem, stranger.pem        client certificates of root and of other
//	*.crt                           the same without their keys
//	rsa.p12, ec.p12                 PKCS#12 by OpenSSL
//	rsa-17.jks                      PKCS#12 by keytool, whatever its name says
//	rsa.jks, rsa.jceks              key password "keychange"
//	two.p12, two.jks, two.jceks     rsa and ec; in two.jks root as well
//	many.p12                        those and apple, pear and plum
//	trust.jks, trust.p12            root
//	empty.p12                       a certificate, no key
var fixtures = sync.OnceValues(makeFixtures)

var fixturesDir string

func TestMain(m *testing.M) {
	code := m.Run()
	if fixturesDir != "" {
		os.RemoveAll(fixturesDir)
	}
	os.Exit(code)
}

// fixture returns the path of a copy of a file that the test may change.
func fixture(t testing.TB, name string) string {
	t.Helper()
	dir, err := fixtures()
	if err != nil {
		t.Fatalf("%v (run make setup)", err)
	}
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// identity is a key with its chain.
type identity struct {
	key   crypto.Signer
	chain []*x509.Certificate // its own first
}

var serial int64

// issue makes a certificate below issuer, or one that signs itself.
func issue(issuer *identity, template *x509.Certificate, key crypto.Signer) (*identity, error) {
	serial++
	template.SerialNumber = big.NewInt(serial)
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	}
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.chain[0], issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	id := &identity{key, []*x509.Certificate{cert}}
	if issuer != nil && issuer.chain[0].Subject.CommonName != issuer.chain[0].Issuer.CommonName {
		id.chain = append(id.chain, issuer.chain...)
	}
	return id, nil
}

func (id *identity) pem() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(id.key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for _, c := range id.chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text, nil
}

func makeFixtures() (string, error) {
	dir, err := os.MkdirTemp("", "tlsstore")
	if err != nil {
		return "", err
	}
	fixturesDir = dir
	if err := makeKeys(dir); err != nil {
		return "", err
	}
	source, err := filepath.Abs("testdata/Keytool.java")
	if err != nil {
		return "", err
	}
	return dir, firstError(
		run(dir, "", "openssl pkcs12 -export -in rsa.pem -name rsa -out rsa.p12 -passout pass:changeit"),
		run(dir, "", "openssl pkcs12 -export -in ec.pem -name ec -out ec.p12 -passout pass:changeit"),
		run(dir, "", "openssl pkcs12 -export -in apple.pem -name apple -out apple.p12 -passout pass:changeit"),
		run(dir, "", "openssl pkcs12 -export -in pear.pem -name pear -out pear.p12 -passout pass:changeit"),
		run(dir, "", "openssl pkcs12 -export -in plum.pem -name plum -out plum.p12 -passout pass:changeit"),
		run(dir, "", "openssl pkcs12 -export -nokeys -in root.crt -out empty.p12 -passout pass:changeit"),
		run(dir, `-importkeystore -srckeystore rsa.p12 -srcstorepass changeit -destkeystore rsa-17.jks -deststorepass changeit
-importkeystore -srckeystore rsa.p12 -srcstorepass changeit -destkeystore rsa.jks -deststoretype jks -deststorepass changeit -srcalias rsa -destkeypass keychange
-importkeystore -srckeystore rsa.p12 -srcstorepass changeit -destkeystore rsa.jceks -deststoretype jceks -deststorepass changeit -srcalias rsa -destkeypass keychange
-importkeystore -srckeystore rsa.p12 -srcstorepass changeit -destkeystore two.p12 -deststorepass changeit
-importkeystore -srckeystore ec.p12 -srcstorepass changeit -destkeystore two.p12 -deststorepass changeit
-importkeystore -srckeystore two.p12 -srcstorepass changeit -destkeystore two.jks -deststoretype jks -deststorepass changeit
-importkeystore -srckeystore two.p12 -srcstorepass changeit -destkeystore two.jceks -deststoretype jceks -deststorepass changeit
-importcert -noprompt -file root.crt -alias root -keystore trust.jks -storetype jks -storepass changeit
-importcert -noprompt -file root.crt -alias root -keystore trust.p12 -storepass changeit
-importcert -noprompt -file root.crt -alias root -keystore two.jks -storepass changeit
-importkeystore -srckeystore two.p12 -srcstorepass changeit -destkeystore many.p12 -deststorepass changeit
-importkeystore -srckeystore apple.p12 -srcstorepass changeit -destkeystore many.p12 -deststorepass changeit
-importkeystore -srckeystore pear.p12 -srcstorepass changeit -destkeystore many.p12 -deststorepass changeit
-importkeystore -srckeystore plum.p12 -srcstorepass changeit -destkeystore many.p12 -deststorepass changeit
`, "java -XX:TieredStopAtLevel=1 --add-exports java.base/sun.security.tools.keytool=ALL-UNNAMED "+source),
	)
}

// run runs a command in dir.
func run(dir, input, command string) error {
	words := strings.Fields(command)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", command, err, out)
	}
	return nil
}

func makeKeys(dir string) error {
	ids := map[string]*identity{}
	create := func(name, issuer string, rsaKey bool, template x509.Certificate) error {
		var key crypto.Signer
		var err error
		if rsaKey {
			key, err = rsa.GenerateKey(rand.Reader, 2048)
		} else {
			key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		}
		if err != nil {
			return err
		}
		template.Subject = pkix.Name{CommonName: name}
		if ids[name], err = issue(ids[issuer], &template, key); err != nil {
			return err
		}
		text, err := ids[name].pem()
		if err != nil {
			return err
		}
		_, chain, _ := bytes.Cut(text, []byte("-----END PRIVATE KEY-----\n"))
		return firstError(
			os.WriteFile(filepath.Join(dir, name+".pem"), text, 0o600),
			os.WriteFile(filepath.Join(dir, name+".crt"), chain, 0o600),
		)
	}
	authority := x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	server := func(names ...string) x509.Certificate {
		return x509.Certificate{DNSNames: names, IPAddresses: localhost, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature}
	}
	client := x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature}
	old := server("expired.example.com")
	old.NotBefore, old.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	return firstError(
		create("root", "", false, authority),
		create("other", "", false, authority),
		create("intermediate", "root", false, authority),
		create("rsa", "intermediate", true, server("rsa.example.com", "localhost")),
		create("ec", "intermediate", false, server("ec.example.com", "*.cluster.example.com")),
		create("apple", "root", false, server("apple.example.com", "*.example.com")),
		create("pear", "root", true, server("pear.example.com", "*.fruit.example.com")),
		create("plum", "root", true, server("plum.fruit.example.com")),
		create("expired", "intermediate", false, old),
		create("client", "root", false, client),
		create("stranger", "other", false, client),
	)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// xmlFile makes an XML file of lines "name value".
func xmlFile(t testing.TB, lines ...string) string {
	t.Helper()
	var text bytes.Buffer
	text.WriteString("<configuration>\n")
	for _, line := range lines {
		name, value, _ := strings.Cut(line, " ")
		fmt.Fprintf(&text, "<property><name>%s</name><value>%s</value></property>\n", name, value)
	}
	text.WriteString("</configuration>\n")
	path := filepath.Join(t.TempDir(), "ssl-server.xml")
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// configuration returns the properties of an XML file made of lines. Those of
// site and of ssl alike come from one file here.
func configuration(t testing.TB, lines ...string) *conf.Configuration {
	t.Helper()
	c := conf.New(os.LookupEnv, nil)
	if err := c.LoadFile(xmlFile(t, lines...)); err != nil {
		t.Fatal(err)
	}
	return c
}
