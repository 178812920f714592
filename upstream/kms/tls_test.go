package kms

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"testing"

	"github.com/edekd/edekd/edek"
)

func startTLSFake(tb testing.TB, config *tls.Config, names ...string) *fake {
	f := newFake(tb)
	f.server.TLS = config
	f.server.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are what is tested
	f.server.StartTLS()
	f.addr = f.server.Listener.Addr().String()
	tb.Cleanup(f.server.Close)
	for _, name := range names {
		f.roll(name)
	}
	return f
}

func TestTLS(t *testing.T) {
	f := startTLSFake(t, nil, "k")
	trusting := func(c *Config) {
		pool := x509.NewCertPool()
		pool.AddCert(f.server.Certificate())
		c.Scheme, c.TLS = "https", &tls.Config{RootCAs: pool}
	}
	if err := generate(newClient(t, trusting, f), "k", 1); err != nil {
		t.Fatal(err)
	}
	wantKind(t, generate(newClient(t, func(c *Config) { c.Scheme = "https" }, f), "k", 1), edek.Unavailable, "certificate")

	// What talks without TLS, or sends there, gets nothing.
	plain := startFake(t, "k")
	wantKind(t, generate(newClient(t, trusting, plain), "k", 1), edek.Unavailable)
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, "http://"+plain.addr+r.RequestURI, http.StatusTemporaryRedirect)
		return true
	})
	wantKind(t, generate(newClient(t, trusting, f), "k", 1), edek.Unavailable, "redirects are not followed")
	if got := plain.seen(); len(got) != 0 {
		t.Errorf("a request went out without TLS: %q", got)
	}

	// Nor what can only do versions long broken.
	old := startTLSFake(t, &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}, "k")
	wantKind(t, generate(newClient(t, func(c *Config) {
		trusting(c)
		c.TLS.RootCAs.AddCert(old.server.Certificate())
	}, old), "k", 1), edek.Unavailable, "protocol version")
}
