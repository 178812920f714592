package groups

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edekd/edekd/internal/freeport"
)

// slapd is a real OpenLDAP server with the entries of testdata/directory.ldif.
type slapd struct {
	dir      string
	port     int
	tlsPort  int
	truststr string // PEM file of its authority
	process  *exec.Cmd
}

const (
	readerName     = "cn=reader,dc=example,dc=com"
	readerPassword = "let me read"
)

// newSlapd makes and starts a server that ends with the test.
func newSlapd(t *testing.T) *slapd {
	t.Helper()
	s := &slapd{dir: t.TempDir(), port: freePort(t), tlsPort: freePort(t)}
	s.truststr = filepath.Join(s.dir, "ca.pem")
	writeCertificates(t, s.dir)
	for _, name := range []string{"db", "run"} {
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	config, err := os.ReadFile("testdata/slapd.conf")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("@DIR@", s.dir, "@READER@", readerPassword).Replace(string(config))
	if err := os.WriteFile(s.config(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(tool(t, "slapadd"), "-f", s.config(), "-l", "testdata/directory.ldif").CombinedOutput(); err != nil {
		t.Fatalf("slapadd: %v\n%s", err, out)
	}
	s.start(t)
	t.Cleanup(s.stop)
	return s
}

func (s *slapd) config() string { return filepath.Join(s.dir, "slapd.conf") }
func (s *slapd) url() string    { return fmt.Sprintf("ldap://127.0.0.1:%d", s.port) }
func (s *slapd) tlsURL() string { return fmt.Sprintf("ldaps://127.0.0.1:%d", s.tlsPort) }

// tool finds a program where administrators have it.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	if err != nil {
		t.Fatalf("%v: run make setup", err)
	}
	return path
}

func (s *slapd) start(t *testing.T) {
	t.Helper()
	s.process = exec.Command(tool(t, "slapd"), "-d", "0", "-f", s.config(), "-h", s.url()+" "+s.tlsURL())
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	for _, port := range []int{s.port, s.tlsPort} {
		deadline := time.Now().Add(20 * time.Second)
		for {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err == nil {
				c.Close()
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("slapd does not listen: %v", err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// stop kills the server; start brings it back.
func (s *slapd) stop() {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
	s.process = nil
}

// freeze makes the server accept connections and answer nothing, until thaw.
func (s *slapd) freeze(t *testing.T) (thaw func()) {
	t.Helper()
	signal := func(sig syscall.Signal) {
		if err := s.process.Process.Signal(sig); err != nil {
			t.Error(err)
		}
	}
	signal(syscall.SIGSTOP)
	eventually(t, "each of its threads stands still", s.standsStill)
	return func() { signal(syscall.SIGCONT) }
}

// standsStill reports whether all threads are stopped: a signal takes its time, in
// which one may still answer (proc_pid_stat(5)).
func (s *slapd) standsStill() bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.process.Process.Pid))
	for _, thread := range threads {
		stat, _ := os.ReadFile(thread)
		if _, state, _ := strings.Cut(string(stat), ") "); !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return err == nil && len(threads) > 0
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := freeport.Take()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// writeCertificates makes an authority and a certificate for 127.0.0.1.
func writeCertificates(t *testing.T, dir string) {
	t.Helper()
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	write := func(name, kind string, der []byte, err error) {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	caKey := newKey()
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	write("ca.pem", "CERTIFICATE", der, err)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "ldap"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter}
	key := newKey()
	der, err = x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	write("cert.pem", "CERTIFICATE", der, err)
	der, err = x509.MarshalPKCS8PrivateKey(key)
	write("key.pem", "PRIVATE KEY", der, err)
}
