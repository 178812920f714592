package interop

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/edekd/edekd/hadoop/conf"
	"github.com/edekd/edekd/hadoop/tlsstore"
)

// tlsFiles are the stores of a site, all made by keytool, and the folder of
// configuration of its clients.
//
//	ca.pem           the authority of everything below
//	first.jks        PKCS#12, as keytool of JDK 17 makes it when asked for nothing else
//	second.jks       JKS, of the same server a year later
//	sealed.jks       JKS whose key has a password of its own; resealed.jks follows it
//	trusted.jks      the authority alone
//	client.jks       what clients prove themselves with
//	stranger.jks     another authority
//	ssl.jceks        the passwords of sealed.jks, by CredentialShell of both releases
type tlsFiles struct {
	dir    string
	client *http.Client // trusts the authority, and has a certificate
}

const storePassword = "storepass"

func makeTLSFiles(t *testing.T) tlsFiles {
	t.Helper()
	dir := t.TempDir()
	var lines []string
	keytool := func(format string, args ...any) {
		lines = append(lines, strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " "))
	}
	// The end of every line; keys have the same password unless the line says otherwise.
	const all = " -storepass " + storePassword + " -noprompt"
	own := func(store, subject, options string) {
		keytool("-genkeypair -keystore %s -alias own -dname CN=%s -validity 30 %s"+all, store, subject, options)
	}
	issued := func(store, subject, algorithm, options string) {
		const names = " -ext san=dns:localhost,ip:127.0.0.1"
		own(store, subject, "-keyalg "+algorithm+" "+options)
		keytool("-certreq -keystore %s -alias own -file %s.csr %s"+all, store, store, options)
		keytool("-gencert -keystore ca.jks -alias own -infile %s.csr -outfile %s.pem -rfc -validity 20"+names+all, store, store)
		keytool("-importcert -keystore %s -alias ca -file ca.pem"+all, store)
		keytool("-importcert -keystore %s -alias own -file %s.pem %s"+all, store, store, options)
	}
	own("ca.jks", "ca", "-keyalg EC -ext bc:c")
	keytool("-exportcert -keystore ca.jks -alias own -rfc -file ca.pem" + all)
	own("stranger.jks", "stranger", "-keyalg EC")
	keytool("-importcert -keystore trusted.jks -alias ca -file ca.pem -storetype jks" + all)
	issued("first.jks", "first", "RSA", "")
	issued("second.jks", "second", "EC", "-storetype jks -keypass "+storePassword)
	issued("sealed.jks", "first", "RSA", "-storetype jks -keypass keyspass")
	issued("resealed.jks", "second", "RSA", "-storetype jks -keypass keyspass")
	issued("client.jks", "client", "EC", "")

	source := filepath.Join(RepoRoot(t), "hadoop", "tlsstore", "testdata", "Keytool.java")
	program := Java(t, "3.4.3", "--add-exports=java.base/sun.security.tools.keytool=ALL-UNNAMED", source)
	program.Dir, program.Stdin = dir, strings.NewReader(strings.Join(lines, "\n")+"\n")
	if out, err := program.CombinedOutput(); err != nil {
		t.Fatalf("keytool: %v\n%s", err, out)
	}

	f := tlsFiles{dir: dir}
	for alias, by := range map[string][2]string{
		"ssl.server.keystore.password":    {"3.3.6", storePassword},
		"ssl.server.keystore.keypassword": {"3.4.3", "keyspass"},
	} {
		program := Java(t, by[0], "org.apache.hadoop.security.alias.CredentialShell",
			"create", alias, "-value", by[1], "-provider", f.credentials())
		if out, err := program.CombinedOutput(); err != nil {
			t.Fatalf("hadoop credential create %s: %v\n%s", alias, err, out)
		}
	}
	for file, truststore := range map[string]string{"ssl-client.xml": "trusted.jks", "stranger-client.xml": "stranger.jks"} {
		writeFile(t, f.path(file), siteXML(
			"ssl.client.truststore.location", f.path(truststore),
			"ssl.client.truststore.type", "jks",
			"ssl.client.truststore.password", storePassword,
			"ssl.client.keystore.location", f.path("client.jks"),
			"ssl.client.keystore.type", "jks",
			"ssl.client.keystore.password", storePassword,
			"ssl.client.keystore.keypassword", storePassword,
			// Without effect in this file: clients look for it in core-site.xml.
			"hadoop.ssl.require.client.cert", "true"))
	}
	f.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: f.config(t)}}
	return f
}

func (f tlsFiles) path(name string) string { return filepath.Join(f.dir, name) }

func (f tlsFiles) credentials() string { return "jceks://file" + f.path("ssl.jceks") }

// config is what clients written in Go connect with.
func (f tlsFiles) config(t *testing.T) *tls.Config {
	t.Helper()
	authority, err := os.ReadFile(f.path("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	c := &tls.Config{RootCAs: x509.NewCertPool()}
	c.RootCAs.AppendCertsFromPEM(authority)
	properties := conf.New(os.LookupEnv, nil)
	properties.Override(tlsstore.KeystoreLocation, f.path("client.jks"), "test")
	properties.Override(tlsstore.KeystorePassword, storePassword, "test")
	loaded, err := tlsstore.Load(properties, properties)
	if err != nil {
		t.Fatal(err)
	}
	c.Certificates = loaded.Certificates
	return c
}

// tlsSite is an ssl-server.xml, for edekd and the Java KMS alike.
type tlsSite struct {
	tlsFiles
	text string // of ssl-server.xml
	live string // the keystore named there
	next string // the store that takes its place in the end
	asks bool   // whether clients need a certificate
}

// plain has its passwords in clear text, and the type jks for PKCS#12.
func (f tlsFiles) plain(t *testing.T) tlsSite {
	live := f.copyOf(t, "first.jks")
	return tlsSite{tlsFiles: f, live: live, next: "second.jks", text: siteXML(
		tlsstore.KeystoreLocation, live,
		tlsstore.KeystoreType, "jks",
		tlsstore.KeystorePassword, storePassword,
		// For the Java KMS, which looks every ten seconds otherwise.
		"ssl.server.stores.reload.interval", "200")}
}

// strict has its passwords in a credential store, and asks for certificates.
func (f tlsFiles) strict(t *testing.T) tlsSite {
	live := f.copyOf(t, "sealed.jks")
	return tlsSite{tlsFiles: f, live: live, next: "resealed.jks", asks: true, text: siteXML(
		"hadoop.security.credential.provider.path", f.credentials(),
		tlsstore.KeystoreLocation, live,
		tlsstore.KeystoreType, "jks",
		tlsstore.NeedClientAuth, "true",
		"ssl.server.truststore.location", f.path("trusted.jks"),
		"ssl.server.truststore.type", "jks",
		"ssl.server.truststore.password", storePassword,
		"ssl.server.stores.reload.interval", "200")}
}

func (f tlsFiles) copyOf(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(f.path(name))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "live.jks")
	writeFile(t, path, string(content))
	return path
}

// renew puts the next keystore in the place of the first, in one step, and waits
// for its certificate on the port.
func (s tlsSite) renew(t *testing.T, addr string) {
	t.Helper()
	if err := os.Rename(s.copyOf(t, s.next), s.live); err != nil {
		t.Fatal(err)
	}
	soon(t, "the new certificate", func() bool {
		return s.subject(t, addr) == "CN=second"
	})
}

// subject is whose certificate new connections see.
func (f tlsFiles) subject(t *testing.T, addr string) string {
	t.Helper()
	c, err := tls.Dial("tcp", addr, f.config(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].Subject.String()
}

// checks are those of OverTLS.java.
func (s tlsSite) checks() []string {
	checks := []string{
		"creates-a-key", "generates-and-decrypts", "reencrypts-a-batch-of-many-records",
		"cookies-are-for-tls-only",
		"a-token-names-the-address-of-tls", "a-token-decrypts", "the-renewer-renews", "the-owner-cancels",
		"a-cancelled-token-opens-nothing",
		"the-key-shell",
		"a-server-of-an-unknown-authority-is-not-used",
	}
	if s.asks {
		checks = append(checks, "without-a-certificate-there-is-no-way-in")
	}
	return append(checks, "a-provider-is-in-use", "a-provider-goes-on", "an-open-connection-goes-on",
		"new-connections-see-the-new-certificate", "the-key-is-served-as-before")
}

// run runs OverTLS.java against the KMS at addr; a realm of nil is simple
// authentication.
func (s tlsSite) run(t *testing.T, hadoop, addr string, realm *kerberizedRealm) {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	options := withConfiguration(t, hadoop, s.dir)
	name, keytab := "simple", "none"
	if realm != nil {
		options = append(options, "-Djava.security.krb5.conf="+realm.Config)
		name, keytab = testRealm, realm.users
	}
	program := Java(t, hadoop, append(options, checksPackage+"OverTLS",
		"kms://https@localhost:"+port+"/kms", "https://localhost:"+port+"/kms", name, keytab, fmt.Sprint(s.asks))...)
	RunChecks(t, program, map[string]func(){
		"renew the certificate": func() { s.renew(t, addr) },
	}, s.checks()...)
}

var overTLS = []string{"hadoop.kms.ssl.enabled", "true"}

// TestOverTLS puts the same ssl-server.xml before a Java KMS and before edekd, and
// the same clients before both.
func TestOverTLS(t *testing.T) {
	files := makeTLSFiles(t)
	realm := startRealm(t)
	krb5 := []string{"KRB5_CONFIG=" + realm.Config}

	t.Run("java-3.4.3", func(t *testing.T) {
		site := files.strict(t)
		kms := StartJavaKMS(t, "3.4.3", JavaKMSOptions{
			JVM:  []string{"-Djava.security.krb5.conf=" + realm.Config},
			Site: slices.Concat(realm.site(), overTLS), Rules: kerberizedRules, SSL: site.text, Client: files.client})
		site.run(t, "3.4.3", kms.Addr, &realm)
	})
	EachHadoop(t, func(t *testing.T, hadoop string) {
		t.Run("plain", func(t *testing.T) {
			site := files.plain(t)
			edekd := startEdekd(t, edekdOptions{site: overTLS, rules: kerberizedRules, ssl: site.text, client: files.client})
			site.run(t, hadoop, edekd.Addr, nil)
		})
		t.Run("strict", func(t *testing.T) {
			site := files.strict(t)
			edekd := startEdekd(t, edekdOptions{site: slices.Concat(realm.site(), overTLS), rules: kerberizedRules, env: krb5,
				ssl: site.text, client: files.client})
			site.run(t, hadoop, edekd.Addr, &realm)
		})
	})
	t.Run("environment", func(t *testing.T) {
		f := func(store, subject string) {
			edekd := startEdekd(t, edekdOptions{client: files.client, env: []string{"KMS_SSL_ENABLED=true",
				"KMS_SSL_KEYSTORE_FILE=" + files.path(store), "KMS_SSL_KEYSTORE_PASS=" + storePassword}})
			if got := files.subject(t, edekd.Addr); edekd.scheme != "https" || got != subject {
				t.Errorf("%s: %s with the certificate of %s", store, edekd.scheme, got)
			}
		}
		f("first.jks", "CN=first")
		f("second.jks", "CN=second")
	})
	t.Run("haproxy", func(t *testing.T) {
		const proxy, known, unknown = "127.0.0.9", "127.0.0.5", "127.0.0.6"
		site := files.plain(t)
		edekd := startEdekd(t, edekdOptions{client: files.client, ssl: site.text, rules: kerberizedRules,
			site: append([]string{
				"edekd.proxies.trusted", proxy,
				"edekd.proxies.protocol", "proxy-v2",
				"hadoop.kms.proxyuser.hive.users", "joe",
				"hadoop.kms.proxyuser.hive.hosts", known,
			}, overTLS...)})
		balancer := balance(t, balancing{mode: "tcp", server: "send-proxy-v2 source " + proxy}, edekd.Addr)
		list := func(status int, from, to string) {
			t.Helper()
			curl(t, nil, status, "--cacert", files.path("ca.pem"), "--interface", from,
				"https://"+to+"/kms/v1/keys/names?user.name=hive&doAs=joe")
		}
		list(200, known, balancer)
		list(403, unknown, balancer)
		list(200, known, edekd.Addr)
		list(403, unknown, edekd.Addr)
		site.run(t, "3.4.3", balancer, nil)
	})
}
