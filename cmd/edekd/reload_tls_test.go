package main

import (
	"crypto/tls"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const storePassword = "changeit"

// keytool runs Java's program on a store.
func keytool(t *testing.T, store string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("keytool", append(args, "-keystore", store, "-storepass", storePassword)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("keytool %q: %v (\"make setup\" installs Java)\n%s", args, err, out)
	}
	return out
}

// newStore makes a store of that type with a key for somebody.
func newStore(t *testing.T, path, kind, name string) {
	t.Helper()
	keytool(t, path, "-genkeypair", "-storetype", kind, "-keypass", storePassword, "-keyalg", "EC", "-groupname", "secp256r1",
		"-alias", "key", "-dname", "CN="+name, "-ext", "san=ip:127.0.0.1", "-validity", "2")
}

// Java's stores are read again: the server's key, of either type, the clients'
// authorities, and what names them.
func TestTLSStoresAreReadAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	newStore(t, in("first"), "JKS", "first")
	newStore(t, in("second"), "PKCS12", "second")
	newStore(t, in("client.p12"), "PKCS12", "client")
	pair := clientCertificate(t, in("client.p12"))
	keytool(t, in("client.p12"), "-exportcert", "-alias", "key", "-file", in("client.cer"))
	keytool(t, in("trust"), "-importcert", "-noprompt", "-storetype", "JKS", "-alias", "client", "-file", in("client.cer"))
	keytool(t, in("second"), "-exportcert", "-alias", "key", "-file", in("second.cer"))
	keytool(t, in("distrust"), "-importcert", "-noprompt", "-storetype", "JKS", "-alias", "other", "-file", in("second.cer"))

	store, trust := in("server.store"), in("trust.store")
	install := func(path, from string) {
		t.Helper()
		rename(t, path, read(t, from))
	}
	install(store, in("first"))
	install(trust, in("trust"))
	s := newSite(t, "hadoop.kms.ssl.enabled", "true")
	server := func(properties ...string) {
		t.Helper()
		rename(t, s.file("ssl-server.xml"), "<configuration>\n"+propertiesXML(t, append([]string{
			"ssl.server.keystore.type", "jks",
			"ssl.server.keystore.password", storePassword,
			"ssl.server.keystore.keypassword", storePassword,
		}, properties...)...)+"</configuration>")
	}
	server("ssl.server.keystore.location", store)
	p := s.start(t)
	addr := strings.TrimPrefix(p.base, "https://")

	kept := p.steady(t, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}})
	kept.login("?user.name=test")
	served := func(name string, certificates ...tls.Certificate) func() bool {
		return func() bool {
			if kept.status("") != 200 {
				t.Error("the old connection does not go on")
			}
			c, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", addr, &tls.Config{InsecureSkipVerify: true,
				MaxVersion: tls.VersionTLS12, Certificates: certificates}) // the client learns of a refusal while it connects
			if err != nil {
				return name == ""
			}
			defer c.Close()
			return c.ConnectionState().PeerCertificates[0].Subject.CommonName == name
		}
	}
	if !served("first")() {
		t.Fatal("the first key is not served")
	}
	install(store, in("second"))
	p.within(aSecond, "a PKCS#12 store takes the place of a JKS store", served("second"))
	write(t, store, read(t, in("first"))[:100])
	p.complains(store, "Try: ")
	p.stays("a broken store changes nothing", served("second"))
	install(store, in("first"))
	p.within(aSecond, "the JKS store is back", served("first"))

	later := in("later.store")
	server("ssl.server.keystore.location", later)
	p.complains(s.file("ssl-server.xml")+":", later, "Try: ")
	p.stays("a store that is not there changes nothing", served("first"))
	install(later, in("second"))
	p.within(aSecond, "the store arrives after the file that names it", served("second"))

	authorities := []string{"ssl.server.keystore.location", later, "ssl.server.need.client.auth", "true",
		"ssl.server.truststore.type", "jks", "ssl.server.truststore.location", trust, "ssl.server.truststore.password", storePassword}
	server(authorities...)
	p.within(aSecond, "clients need a certificate", served(""))
	if !served("second", pair)() {
		t.Error("a client with a certificate is refused")
	}
	install(trust, in("distrust"))
	p.within(aSecond, "an authority is removed", served("", pair))
	write(t, trust, "no store")
	p.complains(trust, "Try: ")
	p.stays("a broken truststore changes nothing", served("", pair))
	install(trust, in("trust"))
	p.within(aSecond, "the authority is back", served("second", pair))

	rename(t, s.file("ssl-server.xml"), "<configuration>\n</broken>")
	p.complains(s.file("ssl-server.xml")+":2", "Try: ")
	p.stays("a broken ssl-server.xml changes nothing", served("second", pair))
	if err := os.Remove(s.file("ssl-server.xml")); err != nil {
		t.Fatal(err)
	}
	p.complains(s.file("ssl-server.xml") + ": it was there and is gone")
	// What has become of kms-site.xml keeps no certificate from being renewed.
	write(t, s.file("kms-site.xml"), "<broken")
	p.complains(s.file("kms-site.xml")+":", "Try: ")
	server(append(authorities, "ssl.server.keystore.location", store)...)
	p.within(aSecond, "another store beside a broken kms-site.xml", served("first", pair))
	p.stop()
}

// clientCertificate takes the key out of a store of keytool.
func clientCertificate(t *testing.T, store string) tls.Certificate {
	t.Helper()
	out, err := exec.Command("openssl", "pkcs12", "-in", store, "-nodes", "-passin", "pass:"+storePassword).Output()
	if err != nil {
		t.Fatalf("openssl: %v: run make setup", err)
	}
	pair, err := tls.X509KeyPair(out, out)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}
