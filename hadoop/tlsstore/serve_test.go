package tlsstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// serve serves on 127.0.0.1 what c says; each answer names the version of TLS.
func serve(t testing.TB, c *tls.Config) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", c)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		ErrorLog: log.New(io.Discard, "", 0), // refused handshakes are expected
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, tls.VersionName(r.TLS.Version))
		}),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return l.Addr().String()
}

func reloadable(t testing.TB, lines ...string) *Reloadable {
	t.Helper()
	c := configuration(t, lines...)
	r, err := NewReloadable(func() (*Loaded, error) { return Load(c, c) })
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// roots trusts the fixtures' authority.
func roots(t testing.TB) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(fixture(t, "root.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return pool
}

// dial connects and returns what the server showed. Reading is what tells a
// client of TLS 1.3 that its certificate was refused.
func dial(addr string, c *tls.Config) (tls.ConnectionState, error) {
	conn, err := tls.Dial("tcp", addr, c)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n")
	if _, err := io.ReadAll(conn); err != nil {
		return tls.ConnectionState{}, err
	}
	return conn.ConnectionState(), nil
}

func TestVersions(t *testing.T) {
	f := func(protocols string, want ...bool) {
		t.Helper()
		lines := []string{KeystoreLocation + " " + fixture(t, "rsa.pem")}
		if protocols != "" {
			lines = append(lines, EnabledProtocols+" "+protocols)
		}
		r := reloadable(t, lines...)
		addr := serve(t, r.Config())
		for i, version := range []uint16{tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
			_, err := dial(addr, &tls.Config{RootCAs: roots(t), ServerName: "rsa.example.com", MinVersion: version, MaxVersion: version})
			if (err == nil) != want[i] {
				t.Errorf("%q, %s: %v", protocols, tls.VersionName(version), err)
			}
		}
		if warned := len(r.Current().Warnings) > 0; warned != strings.Contains(protocols, "TLSv1.1") {
			t.Errorf("%q: %v", protocols, r.Current().Warnings)
		}
	}
	f("", false, true, true)
	f("TLSv1.2", false, true, true)
	f("TLSv1.2,TLSv1.3", false, true, true)
	f("TLSv1.3", false, false, true)
	f("TLSv1,SSLv2Hello,TLSv1.1,TLSv1.2", false, true, false)
}

func TestNameDecidesAmongSeveralKeys(t *testing.T) {
	for _, store := range []string{"two.p12", "two.jks", "two.jceks"} {
		addr := serve(t, reloadable(t, KeystoreLocation+" "+fixture(t, store), KeystorePassword+" changeit").Config())
		f := func(name, want string, suites ...uint16) {
			t.Helper()
			c := &tls.Config{RootCAs: roots(t), ServerName: name, CipherSuites: suites}
			if suites != nil {
				c.MaxVersion = tls.VersionTLS12
			}
			c.InsecureSkipVerify = true // names are what is tested, and some match none
			state, err := dial(addr, c)
			if err != nil {
				t.Fatal(err)
			}
			if got := state.PeerCertificates[0].Subject.CommonName; got != want || len(state.PeerCertificates) != 2 {
				t.Errorf("%s: %q is shown %s, want %s", store, name, got, want)
			}
		}
		f("rsa.example.com", "rsa")
		f("RSA.Example.com", "rsa")
		f("localhost", "rsa")
		f("ec.example.com", "ec")
		f("node1.cluster.example.com", "ec")
		const ec, rsa = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
		f("a.node1.cluster.example.com", "ec", ec, rsa) // matches none
		f("", "ec", ec, rsa)
		f("", "rsa") // crypto/tls as a client of TLS 1.3 likes RSA more
		f("unknown.example.com", "ec", ec, rsa)
		f("", "rsa", rsa)
	}
}

func TestChainsLeadToTheRoot(t *testing.T) {
	for _, store := range []string{"rsa.p12", "rsa-17.jks", "rsa.jks", "rsa.jceks", "rsa.pem"} {
		lines := []string{KeystoreLocation + " " + fixture(t, store), KeystorePassword + " changeit"}
		if store == "rsa.jks" || store == "rsa.jceks" {
			lines = append(lines, KeystoreKeyPassword+" keychange")
		}
		addr := serve(t, reloadable(t, lines...).Config())
		if _, err := dial(addr, &tls.Config{RootCAs: roots(t), ServerName: "rsa.example.com"}); err != nil {
			t.Errorf("%s: %v", store, err)
		}
	}
}

func TestClientCertificatesAreAGate(t *testing.T) {
	f := func(lines ...string) {
		t.Helper()
		addr := serve(t, reloadable(t, append(lines, NeedClientAuth+" true")...).Config())
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			g := func(client string, want bool) {
				t.Helper()
				c := &tls.Config{RootCAs: roots(t), ServerName: "ec.example.com", MinVersion: version, MaxVersion: version}
				if client != "" {
					pair, err := tls.LoadX509KeyPair(fixture(t, client), fixture(t, client))
					if err != nil {
						t.Fatal(err)
					}
					c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
				}
				if _, err := dial(addr, c); (err == nil) != want {
					t.Errorf("%v: client %q, %s: %v", lines, client, tls.VersionName(version), err)
				}
			}
			g("", false)
			g("client.pem", true)
			g("stranger.pem", false)
		}
	}
	const password = TruststorePassword + " changeit"
	store := KeystoreLocation + " " + fixture(t, "ec.pem")
	trust := func(name string) string { return TruststoreLocation + " " + fixture(t, name) }
	f(store, trust("trust.jks"), password)
	f(store, trust("trust.jks")) // Java needs no password to look at certificates
	f(store, trust("trust.p12"), password, TruststoreType+" jks")
	f(store, trust("root.crt"), TruststoreType+" pem")
	f(KeystoreLocation+" "+fixture(t, "two.jks"), KeystorePassword+" changeit") // the keystore stands in
}

func TestCipherSuites(t *testing.T) {
	f := func(want string, lines ...string) {
		t.Helper()
		loaded := mustLoad(t, append(lines, KeystoreLocation+" "+fixture(t, "rsa.pem"))...)
		var names []string
		for _, id := range loaded.Config.CipherSuites {
			names = append(names, strings.TrimPrefix(tls.CipherSuiteName(id), "TLS_ECDHE_"))
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%v: %s, want %s", lines, got, want)
		}
	}
	const (
		gcm = "ECDSA_WITH_AES_128_GCM_SHA256 ECDSA_WITH_AES_256_GCM_SHA384 RSA_WITH_AES_128_GCM_SHA256 RSA_WITH_AES_256_GCM_SHA384"
		cha = "RSA_WITH_CHACHA20_POLY1305_SHA256 ECDSA_WITH_CHACHA20_POLY1305_SHA256"
		cbc = "ECDSA_WITH_AES_128_CBC_SHA ECDSA_WITH_AES_256_CBC_SHA RSA_WITH_AES_128_CBC_SHA RSA_WITH_AES_256_CBC_SHA"
	)
	all := map[string]bool{}
	for _, s := range tls.CipherSuites() {
		all[strings.TrimPrefix(s.Name, "TLS_ECDHE_")] = true
	}
	for _, name := range strings.Fields(gcm + " " + cha + " " + cbc) {
		if !all[name] {
			t.Errorf("crypto/tls has no %s any more", name)
		}
	}
	f(order(gcm, cha))
	f(order(gcm, cha, cbc), ExcludeCiphers+" TLS_ECDHE_RSA_WITH_RC4_128_SHA,SSL_DHE_RSA_EXPORT_WITH_DES40_CBC_SHA, SSL_RSA_WITH_DES_CBC_SHA,SSL_RSA_EXPORT_WITH_RC4_40_MD5")
	f(order(gcm, cbc), ExcludeCiphers+" .*CHACHA20.*")
	f("RSA_WITH_AES_256_GCM_SHA384", IncludeCiphers+" TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,TLS_AES_256_GCM_SHA384,TLS_RSA_WITH_AES_256_GCM_SHA384")
	f("RSA_WITH_AES_128_GCM_SHA256", IncludeCiphers+" TLS_ECDHE_RSA_.*", ExcludeCiphers+" .*_SHA,.*_256_.*,.*CHACHA.*")
	f("", IncludeCiphers+" TLS_AES_128_GCM_SHA256", EnabledProtocols+" TLSv1.3")

	loaded := mustLoad(t, KeystoreLocation+" "+fixture(t, "rsa.pem"), ExcludeCiphers+" TLS_AES_128_GCM_SHA256")
	if len(loaded.Warnings) != 1 || !strings.Contains(loaded.Warnings[0].What, "TLS_AES_128_GCM_SHA256 is offered all the same") {
		t.Errorf("warnings %v", loaded.Warnings)
	}
}

// order puts names into the order of crypto/tls.
func order(groups ...string) string {
	names := " " + strings.Join(groups, " ") + " "
	var sorted []string
	for _, s := range tls.CipherSuites() {
		if name := strings.TrimPrefix(s.Name, "TLS_ECDHE_"); strings.Contains(names, " "+name+" ") {
			sorted = append(sorted, name)
		}
	}
	return strings.Join(sorted, " ")
}

func TestJavaAndCurl(t *testing.T) {
	client := filepath.Join(filepath.Dir(fixture(t, "root.crt")), "client.p12")
	if err := run(".", "", "openssl pkcs12 -export -in "+fixture(t, "client.pem")+" -name client -out "+client+" -passout pass:changeit"); err != nil {
		t.Fatal(err)
	}
	gate := []string{NeedClientAuth + " true", TruststoreLocation + " " + fixture(t, "trust.p12"), TruststorePassword + " changeit"}
	two := []string{KeystoreLocation + " " + fixture(t, "two.jks"), KeystorePassword + " changeit"}
	open := "https://" + serve(t, reloadable(t, two...).Config())
	closed := "https://" + serve(t, reloadable(t, append(two, gate...)...).Config())
	trust := fixture(t, "trust.p12")

	args := []string{"-XX:TieredStopAtLevel=1", "testdata/HttpsClient.java"}
	var want []string
	f := func(answer, url, own, protocol string) {
		args = append(args, strings.Join([]string{url, trust, own, protocol}, ","))
		want = append(want, answer)
	}
	f("200 TLS 1.3", open, "", "")
	f("200 TLS 1.2", open, "", "TLSv1.2")
	f("200 TLS 1.3", closed, client, "")
	f("200 TLS 1.2", closed, client, "TLSv1.2")
	f("refused", closed, "", "TLSv1.2")
	out, err := exec.CommandContext(t.Context(), "java", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := strings.TrimSpace(string(out)); got != strings.Join(want, "\n") {
		t.Errorf("Java got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}

	curl := func(want string, args ...string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "curl", append([]string{"-sS", "--cacert", fixture(t, "root.crt")}, args...)...).CombinedOutput()
		if want == "" && err == nil || want != "" && string(out) != want {
			t.Errorf("curl %v: %s (%v), want %q", args, out, err, want)
		}
	}
	curl("TLS 1.3", open)
	curl("TLS 1.2", "--tls-max", "1.2", open)
	curl("", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", open)
	curl("", closed)
	curl("TLS 1.3", "--cert", fixture(t, "client.pem"), closed)
	curl("", "--cert", fixture(t, "stranger.pem"), closed)
}

// replace renames a new file over path, as careful deployment does.
func replace(t testing.TB, path, with string) {
	t.Helper()
	content, err := os.ReadFile(with)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestReloadDropsNoConnection(t *testing.T) {
	path := fixture(t, "rsa.p12")
	r := reloadable(t, KeystoreLocation+" "+path, KeystorePassword+" changeit")
	addr := serve(t, r.Config())
	shown := func() string {
		t.Helper()
		state, err := dial(addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0].Subject.CommonName
	}

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var requests, dials atomic.Int64
	var group sync.WaitGroup
	failed := make(chan error, 8)
	for range 4 {
		group.Go(func() {
			client := &http.Client{Transport: &http.Transport{
				TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
				DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
					dials.Add(1)
					return new(net.Dialer).DialContext(ctx, network, addr)
				},
			}}
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				response, err := client.Get("https://" + addr)
				if err == nil {
					_, err = io.Copy(io.Discard, response.Body)
					response.Body.Close()
				}
				if err != nil {
					failed <- err
					return
				}
				requests.Add(1)
			}
		})
	}
	await := func(n int64) {
		t.Helper()
		for start := requests.Load(); requests.Load() < start+n; {
			select {
			case err := <-failed:
				t.Fatal(err)
			case <-ctx.Done():
				t.Fatal("requests do not go on")
			case <-time.After(time.Millisecond):
			}
		}
	}
	await(20)
	for _, step := range []struct{ file, want string }{{"ec.p12", "ec"}, {"rsa-17.jks", "rsa"}, {"ec.p12", "ec"}} {
		replace(t, path, fixture(t, step.file))
		if err := r.Reload(); err != nil {
			t.Fatal(err)
		}
		if got := shown(); got != step.want {
			t.Errorf("after %s: %s", step.file, got)
		}
		await(20)
	}
	before := r.Current()
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	var problems Problems
	if err := r.Reload(); !errors.As(err, &problems) || r.Current() != before || shown() != "ec" {
		t.Errorf("a store cut off: %v", err)
	}
	await(20)
	cancel()
	group.Wait()
	if n := dials.Load(); n != 4 {
		t.Errorf("4 clients made %d connections", n)
	}
}

// A client that resumes a session must not outlive the trust in its certificate.
func TestResumedSessionsAreHeldToTheTruststoreOfNow(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		trust := fixture(t, "root.crt")
		r := reloadable(t, KeystoreLocation+" "+fixture(t, "ec.pem"), NeedClientAuth+" true", TruststoreLocation+" "+trust)
		addr := serve(t, r.Config())
		pair, err := tls.LoadX509KeyPair(fixture(t, "client.pem"), fixture(t, "client.pem"))
		if err != nil {
			t.Fatal(err)
		}
		client := &tls.Config{RootCAs: roots(t), ServerName: "ec.example.com", MinVersion: version, MaxVersion: version,
			Certificates: []tls.Certificate{pair}, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
		for i := range 2 {
			state, err := dial(addr, client)
			if err != nil || state.DidResume != (i == 1) {
				t.Fatalf("connection %d: %v, resumed %t", i, err, state.DidResume)
			}
		}
		replace(t, trust, fixture(t, "other.crt"))
		if err := r.Reload(); err != nil {
			t.Fatal(err)
		}
		if _, err := dial(addr, client); err == nil {
			t.Errorf("%s: a session of a client no longer trusted was resumed", tls.VersionName(version))
		}
	}
}
