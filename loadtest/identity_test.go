package loadtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/internal/kdc"
	"github.com/edekd/edekd/loadtest/cpu"
	"github.com/edekd/edekd/loadtest/login"
	"github.com/edekd/edekd/loadtest/result"
)

// selfSigned writes a certificate for the loopback address and its key, and
// returns who trusts it.
func selfSigned(t *testing.T) (certificate, key string, trust *tls.Config) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, "certificate.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return certificate, key, &tls.Config{RootCAs: roots}
}

func TestTLS(t *testing.T) {
	certificate, key, trust := selfSigned(t)
	s := start(t, "localhost", nil, "hadoop.kms.ssl.enabled", "true", "edekd.tls.certificate-file", certificate, "edekd.tls.key-file", key)
	for _, profile := range []Profile{Clients, LoginStorm} {
		o := small(profile, s)
		o.TLS = trust
		res := mustRun(t, o)
		if counts := clean(t, &res.Steps[0]); counts["decrypt"]+counts["first-decrypt"] != 100 || !res.TLS {
			t.Errorf("%s: %v", profile, counts)
		}
	}
	o := small(Clients, s)
	o.TLS = &tls.Config{}
	if _, err := Run(t.Context(), o); err == nil || classify(err).Class != "TLS certificate" {
		t.Errorf("an unknown certificate: %v", err)
	}
}

// kerberized is a server under Kerberos that lets alice act for joe.
func kerberized(t *testing.T) (*kdc.KDC, *server) {
	t.Helper()
	realm := kdc.Start(t, "EXAMPLE.TEST")
	realm.Add("HTTP/localhost", "alice", "bob")
	t.Setenv("KRB5_CONFIG", realm.Config)
	return realm, start(t, "localhost", realm.Env(""),
		"hadoop.kms.authentication.type", "kerberos",
		"hadoop.kms.authentication.kerberos.keytab", realm.Keytab("HTTP/localhost"),
		"hadoop.kms.authentication.kerberos.principal", "HTTP/localhost",
		"hadoop.kms.proxyuser.alice.users", "joe,jim",
		"hadoop.kms.proxyuser.alice.hosts", "*")
}

func TestKerberosAndTokens(t *testing.T) {
	realm, s := kerberized(t)
	principals, err := login.NewKeytab(realm.Keytab("alice", "bob"), []string{"alice", "bob@EXAMPLE.TEST"})
	if err != nil {
		t.Fatal(err)
	}
	defer principals.Close()
	cache, err := login.NewCCache(realm.Kinit("alice"))
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	alice := cache.Identities()[0]
	if alice.Name != "alice@EXAMPLE.TEST" {
		t.Errorf("the cache is of %s", alice.Name)
	}
	f := func(kind string, profile Profile, want map[string]int64, identities ...*login.Identity) {
		t.Helper()
		o := small(profile, s)
		o.Kind, o.Identities = kind, identities
		res := mustRun(t, o)
		counts := clean(t, &res.Steps[0])
		if fmt.Sprint(counts) != fmt.Sprint(want) {
			t.Errorf("%s as %s: %v, want %v", profile, kind, counts, want)
		}
	}
	decrypts := map[string]int64{"decrypt": 100}
	f("kerberos", Clients, decrypts, principals.Identities()...)
	f("kerberos", Clients, decrypts, alice, alice.For("joe"))
	f("kerberos", LoginStorm, map[string]int64{"login": 100, "first-decrypt": 100}, alice)

	tokens, err := GetTokens(t.Context(), s.target, nil, 20*time.Second, []*login.Identity{alice, alice.For("joe"), alice.For("jim")})
	if err != nil {
		t.Fatal(err)
	}
	f("token", Clients, decrypts, tokens.Identities...)
	f("token", LoginStorm, map[string]int64{"first-decrypt": 100}, tokens.Identities...)
	if err := tokens.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := small(Clients, s)
	o.Identities = tokens.Identities
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "HTTP 403") {
		t.Errorf("cancelled tokens: %v", err)
	}

	if _, err := GetTokens(t.Context(), s.target, nil, 20*time.Second, []*login.Identity{alice, alice.For("mallory")}); err == nil {
		t.Error("a token for somebody alice may not act for")
	}
	o = small(Clients, s)
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "login") {
		t.Errorf("a name alone, under Kerberos: %v", err)
	}
	if _, err := login.NewKeytab(realm.Keytab("alice"), []string{"nobody"}); err == nil {
		t.Error("a principal that is not in the keytab is logged in")
	}
	if _, err := login.NewCCache(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a cache that does not exist is a login")
	}
}

// TestCookiesExpire: a cookie that the server takes no more is replaced in the
// middle of the load, unnoticed but for a request more.
func TestCookiesExpire(t *testing.T) {
	s := start(t, "127.0.0.1", nil, "hadoop.kms.authentication.token.validity", "2")
	o := small(Clients, s)
	o.Hold = 4500 * time.Millisecond
	res := mustRun(t, o)
	if counts := clean(t, &res.Steps[0]); counts["decrypt"] != 450 {
		t.Errorf("%v", counts)
	}
}

// TestManyUsers: each of many names does some of the work.
func TestManyUsers(t *testing.T) {
	s := start(t, "127.0.0.1", nil)
	o := small(Clients, s)
	o.Identities = nil
	for i := range 50 {
		o.Identities = append(o.Identities, login.Simple(fmt.Sprint("user", i)))
	}
	o.Rates, o.Meters = []float64{500}, []cpu.Meter{cpu.Process(s.pid)}
	res := mustRun(t, o)
	if counts := clean(t, &res.Steps[0]); counts["decrypt"] != 500 || res.Identities != 50 {
		t.Errorf("%v", counts)
	}
	// Each user's first request comes with a handshake of two. What was answered
	// before the first reading, late on a busy machine, is not the step's.
	if n := res.Steps[0].Server.Requests; n < 1 || n > 600 {
		t.Errorf("%d requests for 500 decrypts of 50 users", n)
	}
}

// TestHandshakesAreRequests: they cost the server as much as others.
func TestHandshakesAreRequests(t *testing.T) {
	s := start(t, "127.0.0.1", nil)
	n := 0
	c := newClient(s.target, nil, 20*time.Second, func() { n++ })
	defer c.close()
	session := login.NewSession(login.Simple("hdfs"), s.target.Host, s.target.Addr)
	for _, want := range []int{3, 4} {
		if a, err := c.do(t.Context(), session, "GET", []byte("keys/names"), nil); err != nil || a.Status != 200 || n != want {
			t.Errorf("%d requests, want %d: %v, %v", n, want, a, err)
		}
	}
}

func TestTokensAreChecked(t *testing.T) {
	for _, text := range []string{"", "a b", "a\r\nX: y", "é"} {
		if _, err := login.Token("x", text); err == nil {
			t.Errorf("%q is a token", text)
		}
	}
}

func TestOptionsRefused(t *testing.T) {
	f := func(why string, change func(o *Options)) {
		t.Helper()
		o := small(Clients, &server{})
		if err := o.Check(); err != nil {
			t.Fatal(err)
		}
		change(o)
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%v, want %q", err, why)
		}
	}
	f("0 connections", func(o *Options) { o.Connections = 0 })
	f("0 targets", func(o *Options) { o.Targets = nil })
	f("0 identities", func(o *Options) { o.Identities = nil })
	f("no zone keys", func(o *Options) { o.CreateKeys = 0 })
	f("keys to make", func(o *Options) { o.CreateKeys = -1 })
	f("a skew of 1", func(o *Options) { o.Skew = 1 })
	f("a timeout", func(o *Options) { o.Timeout = 0 })
	f("EDEKs in a batch", func(o *Options) { o.Batch = 0 })
	f("EDEKs for each key", func(o *Options) { o.EDEKsPerKey = MaxBatch + 1 })
	f("a rollover", func(o *Options) { o.RollEvery = -1 })
	f("a rate", func(o *Options) { o.Rates = []float64{-1} })
	f("closed loop", func(o *Options) { o.Closed = true })
	f("a load of", func(o *Options) { o.Closed, o.Rates, o.Hold = true, nil, 0 })
}

func TestProfilesKnowTheirOperations(t *testing.T) {
	for _, p := range []Profile{NameNode, Clients, Mixed, Reencrypt, LoginStorm} {
		for _, op := range p.Operations() {
			if got, ok := result.ParseOp(op.String()); !ok || got != op {
				t.Errorf("%s: %s is read as %v", p, op, got)
			}
		}
	}
}
