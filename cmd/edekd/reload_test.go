package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func rotate(t *testing.T, path string) {
	t.Helper()
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLogFilesAreReopened(t *testing.T) {
	t.Parallel()
	logs := filepath.Join(t.TempDir(), "logs")
	p := newSite(t, "edekd.log.dir", logs, "edekd.access-log.enabled", "true").start(t)
	p.must("POST", "/kms/v1/keys", `{"name":"before"}`, nil)
	names := []string{"kms.log", "kms-audit.log", "kms-access.log"}
	for _, name := range names {
		rotate(t, filepath.Join(logs, name))
	}
	p.signal(syscall.SIGHUP)
	p.eventuallySays("reloaded: log files")
	p.must("POST", "/kms/v1/keys", `{"name":"after"}`, nil)
	p.stop()
	f := func(name, text string) {
		t.Helper()
		if !strings.Contains(read(t, filepath.Join(logs, name)), text) {
			t.Errorf("%s lacks %q", name, text)
		}
	}
	f("kms.log.1", "edekd is serving")
	f("kms.log", "edekd has stopped")
	f("kms-audit.log.1", "key=before")
	f("kms-audit.log", "key=after")
	f("kms-access.log.1", "POST /kms/v1/keys")
	f("kms-access.log", "POST /kms/v1/keys")
}

func TestSigningSecretIsReadAgain(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	write(t, file, "the first secret")
	p := newSite(t, "hadoop.kms.authentication.signer.secret.provider", "file",
		"hadoop.kms.authentication.signature.secret.file", file).start(t)
	login := func() *http.Cookie {
		resp, err := fresh.Get(p.base + "/kms/v1/keys/names?user.name=test")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		for _, c := range resp.Cookies() {
			if c.Name == "hadoop.auth" {
				return c
			}
		}
		t.Fatalf("no cookie with status %d", resp.StatusCode)
		return nil
	}
	accepted := func(c *http.Cookie) bool {
		req, err := http.NewRequest("GET", p.base+"/kms/v1/keys/names", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.AddCookie(c)
		resp, err := fresh.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	}
	first := login()
	if !accepted(first) {
		t.Fatal("a new cookie is not accepted")
	}

	write(t, file, "") // broken: the old one stays in force
	p.signal(syscall.SIGHUP)
	p.eventuallySays("reload failed")
	if !strings.Contains(p.said(), file) {
		t.Error("the broken file is not named")
	}
	if !accepted(first) || !accepted(login()) {
		t.Error("a broken file changed the secret")
	}

	write(t, file, "the second secret")
	p.signal(syscall.SIGHUP)
	p.eventually("the old cookie ends", func() bool { return !accepted(first) })
	if !accepted(login()) {
		t.Error("no cookies of the new secret")
	}
	p.stop()
}

// certificateEnd is when the certificate with number 0 would expire; each of the
// following lives a day longer.
var certificateEnd = time.Now().AddDate(1, 0, 0).Truncate(time.Second)

// selfSigned writes a certificate with the given number and its key.
func selfSigned(t *testing.T, number int64, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(number), Subject: pkix.Name{CommonName: "edekd"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: certificateEnd.AddDate(0, 0, int(number)), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyBytes, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, certFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})))
	write(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyBytes})))
}

func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	selfSigned(t, 1, certFile, keyFile)
	p := newSite(t, "hadoop.kms.ssl.enabled", "true", "edekd.tls.certificate-file", certFile, "edekd.tls.key-file", keyFile).start(t)
	addr, ok := strings.CutPrefix(p.base, "https://")
	if !ok {
		t.Fatalf("the start-up line names %s", p.base)
	}
	dial := func(c *tls.Config) (*tls.Conn, error) {
		c.InsecureSkipVerify = true // the test looks at the serial number
		return tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", addr, c)
	}
	must := func(c *tls.Conn, err error) *tls.Conn {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	serial := func() int64 {
		return must(dial(&tls.Config{})).ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}

	if c, err := dial(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		c.Close()
		t.Error("TLS 1.1 is served")
	}
	must(dial(&tls.Config{MaxVersion: tls.VersionTLS12}))
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	wantEnd := func(number int) {
		t.Helper()
		resp, err := client.Get(p.base + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("\nedekd_tls_not_after_seconds %d\n", certificateEnd.AddDate(0, 0, number).Unix())
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	old := must(dial(&tls.Config{NextProtos: []string{"h2", "http/1.1"}}))
	if state := old.ConnectionState(); state.NegotiatedProtocol != "http/1.1" || state.Version != tls.VersionTLS13 {
		t.Errorf("%q over %s", state.NegotiatedProtocol, tls.VersionName(state.Version))
	}
	oldReader := bufio.NewReader(old)
	ask := func() {
		t.Helper()
		if _, err := io.WriteString(old, "GET /kms/v1/keys/names?user.name=test HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if resp := p.answer(oldReader); resp.StatusCode != 200 {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	ask()

	// Certificate and key that do not fit: the old ones stay in force.
	selfSigned(t, 2, certFile, filepath.Join(dir, "other.pem"))
	p.signal(syscall.SIGHUP)
	p.eventuallySays("reload failed")
	if !strings.Contains(p.said(), certFile) {
		t.Error("the broken file is not named")
	}
	if n := serial(); n != 1 {
		t.Errorf("certificate %d after a failed reload", n)
	}
	wantEnd(1)

	selfSigned(t, 3, certFile, keyFile)
	p.signal(syscall.SIGHUP)
	p.eventually("new connections see the new certificate", func() bool { return serial() == 3 })
	ask() // the old connection goes on
	wantEnd(3)
	p.stop()
}

// Changes of kms-acls.xml count within a second, in whatever way the file was
// replaced; a broken file
// changes nothing, and neither does one that is gone.
func TestRulesAreReadAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	file := filepath.Join(s.dir, "kms-acls.xml")
	rule := func(users string) string {
		return "<configuration>\n<property><name>hadoop.kms.acl.GET_KEYS</name>\n<value>" + users + "</value></property></configuration>"
	}
	write(t, file, rule("test"))
	p := s.start(t)
	// within waits until GET_KEYS is answered so, a second from now.
	within := func(what string, status int) {
		t.Helper()
		p.within(aSecond, what, func() bool {
			got, err := p.call(kept, "GET", "/kms/v1/keys/names", "", nil)
			return err == nil && got == status
		})
	}
	within("the rule lets test in", 200)
	write(t, file, rule("nobody"))
	within("the rule has changed", 403)

	write(t, file+".new", rule("test"))
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	within("the file was renamed over", 200)

	write(t, file, rule("nobody")+"<broken")
	p.eventuallySays("reload failed")
	if said := p.said(); !strings.Contains(said, file+":3") || !strings.Contains(said, "Try: ") {
		t.Errorf("where and what to try is missing:\n%s", said)
	}
	within("the old rule stays", 200)

	if err := os.Remove(file); err != nil { // without the file every operation would be open
		t.Fatal(err)
	}
	p.eventuallySays(file + ": it was there and is gone")
	within("the rule of the missing file stays", 200)
	write(t, file, rule("nobody"))
	within("the file is there again", 403)
	p.stop()
}
