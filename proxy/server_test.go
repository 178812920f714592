package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/valyala/fasthttp/fasthttputil"

	"github.com/edekd/edekd/cache"
	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/internal/logfile"
	"github.com/edekd/edekd/keys"
	"github.com/edekd/edekd/proxy/audit"
	"github.com/edekd/edekd/proxy/authn"
	"github.com/edekd/edekd/proxy/authn/secret"
	"github.com/edekd/edekd/proxy/authz"
	"github.com/edekd/edekd/proxy/jmx"
	"github.com/edekd/edekd/proxy/peer"
)

var testLimits = Limits{NumKeys: 10_000, BatchEntries: 20_000, BatchBody: 16 << 20, Body: 64 << 10, Header: 64 << 10}

// kms is a server over real parts, all but the network.
type kms struct {
	*Server
	listener *fasthttputil.InmemoryListener
	auditLog string // path
	log      *lockedBuffer
	provider keys.Provider
}

func newKMS(tb testing.TB, adjust ...func(*Config)) *kms {
	tb.Helper()
	k := newIdleKMS(tb, adjust...)
	k.serve(tb, k.listener)
	return k
}

// serve answers connections from l until the test ends.
func (k *kms) serve(tb testing.TB, l net.Listener) {
	served := make(chan error, 1)
	go func() { served <- k.Serve(l) }()
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		k.Shutdown(ctx)
		if err := <-served; err != nil {
			tb.Error(err)
		}
	})
}

// serveTCP answers connections to the address it returns.
func (k *kms) serveTCP(tb testing.TB) (address string) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	k.serve(tb, Listener(l))
	return l.Addr().String()
}

// newIdleKMS makes a server that listens nowhere yet.
func newIdleKMS(tb testing.TB, adjust ...func(*Config)) *kms {
	tb.Helper()
	dir := tb.TempDir()
	provider, err := keys.Open(context.Background(), []string{"sqlite://file@" + filepath.Join(dir, "keys.db")},
		keys.Options{IdentityFile: filepath.Join(dir, "identity.pgp")})
	if err != nil {
		tb.Fatal(err)
	}
	k := &kms{listener: fasthttputil.NewInmemoryListener(), auditLog: filepath.Join(dir, "kms-audit.log"),
		log: &lockedBuffer{}, provider: provider}
	set := metrics.NewSet()
	cached, err := cache.New(provider, cache.Config{Enabled: true, Idle: 10 * time.Minute, CurrentAge: 30 * time.Second,
		Suite: edek.AESCTR, Metrics: set})
	if err != nil {
		tb.Fatal(err)
	}
	ring, err := secret.NewRandom(time.Hour, time.Now())
	if err != nil {
		tb.Fatal(err)
	}
	auth, err := authn.New(authn.Config{Secrets: ring, WriteError: WriteError})
	if err != nil {
		tb.Fatal(err)
	}
	file, err := logfile.Open(k.auditLog, logfile.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	auditLog := audit.New(file, audit.Options{})
	c := Config{Peers: peer.New(nil, peer.None), Cache: cached, Authn: auth, Authz: authz.New(policy(tb, openRules...), noGroups{}), Audit: auditLog, JMX: jmx.New("KMS"), Metrics: set,
		Log: slog.New(slog.NewTextHandler(k.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Limits: testLimits, IdleTimeout: time.Minute,
		DefaultCipher: "AES/CTR/NoPadding", DefaultBitLength: 128, KeyAuthorization: true, Open: []string{"/metrics"}}
	for _, f := range adjust {
		f(&c)
	}
	k.Server = New(c)
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		auditLog.Close(ctx)
		file.Close()
		cached.Close()
		provider.Close()
	})
	return k
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// raw sends bytes on a connection of its own and reads n answers.
func (k *kms) raw(t testing.TB, text string, n int) []answered {
	t.Helper()
	c := k.dial(t)
	go io.WriteString(c.Conn, text)
	var all []answered
	for range n {
		all = append(all, c.answer(t, "GET"))
	}
	return all
}

// client is one connection to a server.
type client struct {
	net.Conn
	r *bufio.Reader
}

func newClient(t testing.TB, c net.Conn, err error) *client {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &client{c, bufio.NewReader(c)}
}

func (k *kms) dial(t testing.TB) *client {
	t.Helper()
	c, err := k.listener.Dial()
	return newClient(t, c, err)
}

func (c *client) send(t testing.TB, text string) {
	t.Helper()
	c.SetWriteDeadline(time.Now().Add(15 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// answer reads the next answer, which is one to the given method.
func (c *client) answer(t testing.TB, method string) answered {
	t.Helper()
	a, err := c.tryAnswer(method)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	return a
}

func (c *client) tryAnswer(method string) (answered, error) {
	c.SetReadDeadline(time.Now().Add(15 * time.Second))
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		return answered{}, err
	}
	body, err := io.ReadAll(resp.Body)
	return answered{resp, string(body)}, err
}

// closed fails unless the server has closed the connection.
func (c *client) closed(t testing.TB) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(15 * time.Second))
	if b, err := c.r.ReadByte(); err != io.EOF {
		t.Errorf("the connection is not closed: read %q, %v", b, err)
	}
}

type answered struct {
	*http.Response
	body string
}

// call sends one request as user x and returns the answer.
func (k *kms) call(t testing.TB, method, target, body string) answered {
	t.Helper()
	separator := "?"
	if strings.Contains(target, "?") {
		separator = "&"
	}
	return k.raw(t, requestText(method, "/kms/v1"+target+separator+"user.name=x", body), 1)[0]
}

// requestText is a request as it goes over the wire.
func requestText(method, target, body string, headers ...string) string {
	text := method + " " + target + " HTTP/1.1\r\nHost: kms.example:9600\r\n"
	for _, h := range headers {
		text += h + "\r\n"
	}
	if body != "" {
		text += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	return text + "\r\n" + body
}

func (k *kms) create(t testing.TB, name string) {
	t.Helper()
	if a := k.call(t, "POST", "/keys", fmt.Sprintf(`{"name":%q}`, name)); a.StatusCode != 201 {
		t.Fatalf("create %s: %d %s", name, a.StatusCode, a.body)
	}
}

func bufioReader(raw []byte) *bufio.Reader { return bufio.NewReader(bytes.NewReader(raw)) }
