package proxy

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/internal/race"
	"github.com/edekd/edekd/proxy/authn"
	"github.com/edekd/edekd/proxy/authn/secret"
)

// serveUnix answers connections to the socket it returns, until the test ends.
func (k *kms) serveUnix(t *testing.T, auth *authn.Authenticator) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- k.ServeUnix(Listener(auth.Listener(l))) }()
	t.Cleanup(func() {
		if err := k.Shutdown(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return path
}

func localAuthn(t *testing.T, users map[uint32]string) *authn.Authenticator {
	t.Helper()
	ring, err := secret.NewRandom(time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	auth, err := authn.New(authn.Config{Secrets: ring, WriteError: WriteError, Users: users, ProxyUsers: everybody{}})
	if err != nil {
		t.Fatal(err)
	}
	return auth
}

// Over a Unix socket the users of known processes need say nothing, whatever
// they send, and all others have to authenticate.
func TestUnixSocket(t *testing.T) {
	me := uint32(os.Getuid())
	f := func(uid uint32, user string, anonymous int) {
		t.Helper()
		auth := localAuthn(t, map[uint32]string{uid: "alice"})
		var access lockedBuffer
		k := newKMS(t, func(c *Config) { c.Authn, c.AccessLog = auth, &access })
		k.create(t, "k1")
		path := k.serveUnix(t, auth)
		nc, err := net.Dial("unix", path)
		c := newClient(t, nc, err)
		ask := func(status int, text string) answered {
			t.Helper()
			c.send(t, text)
			a := c.answer(t, strings.Fields(text)[0])
			if a.StatusCode != status {
				t.Errorf("%.80q: %d %s", text, a.StatusCode, a.body)
			}
			return a
		}
		if a := ask(anonymous, requestText("GET", "/kms/v1/key/k1/_metadata", "")); user == "alice" && len(a.Cookies()) > 0 {
			t.Errorf("a cookie for a process: %v", a.Cookies())
		}
		ask(200, requestText("POST", "/kms/v1/key/k1/_invalidatecache?user.name=bob", ""))
		large := "[" + strings.Repeat(" ", 1<<20) + "]"
		ask(200, requestText("POST", "/kms/v1/key/k1/_reencryptbatch?user.name=bob", large))
		if user == "alice" {
			ask(200, requestText("POST", "/kms/v1/key/k1/_reencryptbatch", large))
			ask(100, requestText("POST", "/kms/v1/key/k1/_reencryptbatch", large, "Expect: 100-continue"))
			if a := c.answer(t, "POST"); a.StatusCode != 200 {
				t.Errorf("after 100: %d %s", a.StatusCode, a.body)
			}
		}
		nc, err = net.Dial("unix", path)
		c = newClient(t, nc, err)
		ask(400, requestText("POST", "/kms/v1/key/k1/_reencryptbatch?user.name=bob", "["+strings.Repeat(" ", 17<<20)+"]"))
		contains(t, k.closedAudit(t), "OK[op=INVALIDATE_CACHE, key=k1, user="+user+"] ")
		contains(t, access.String(), fmt.Sprintf("\nunix:%d - %s [", me, user))
	}
	f(me, "alice", 200)
	f(me+1, "bob", 401)
}

func TestUnixConnectionsEndAtShutdown(t *testing.T) {
	for _, uid := range []uint32{uint32(os.Getuid()), 1 << 30} {
		auth := localAuthn(t, map[uint32]string{uid: "alice"})
		k := newKMS(t, func(c *Config) { c.Authn = auth })
		path := k.serveUnix(t, auth)
		nc, err := net.Dial("unix", path)
		c := newClient(t, nc, err)
		c.send(t, requestText("GET", "/healthz", ""))
		if a := c.answer(t, "GET"); a.StatusCode != 200 {
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
		if err := k.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		c.closed(t)
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			t.Error("a connection after the end")
		}
	}
}

func TestRequestsOfProcessesDoNotAllocate(t *testing.T) {
	me := uint32(os.Getuid())
	auth := localAuthn(t, map[uint32]string{me: "alice"})
	k := newKMS(t, func(c *Config) { c.Authn = auth })
	k.create(t, "k1")
	path := filepath.Join(t.TempDir(), "s")
	socket, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := auth.Listener(socket).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for _, op := range []string{"generate", "decrypt"} {
		for _, doAs := range []string{"", "doAs=bob&"} {
			raw := bytes.Replace(k.hotRequest(t, op), []byte("_eek?"), []byte("_eek?"+doAs), 1)
			var ctx fasthttp.RequestCtx
			ctx.Init(&fasthttp.Request{}, server.RemoteAddr(), nil)
			if err := ctx.Request.Read(bufioReader(raw)); err != nil {
				t.Fatal(err)
			}
			ctx.Request.Header.Del("Cookie")
			body := bytes.Clone(ctx.Request.Body())
			handle := func() {
				copy(ctx.Request.Body(), body)
				ctx.Response.Reset()
				k.handle(&ctx)
			}
			for range 100 {
				handle()
			}
			if ctx.Response.StatusCode() != 200 || len(ctx.Response.Header.Peek("Set-Cookie")) > 0 {
				t.Fatalf("%s: %d %s", op, ctx.Response.StatusCode(), ctx.Response.Body())
			}
			if n := testing.AllocsPerRun(2000, handle); n != 0 && !race.Enabled {
				t.Errorf("%s %s: %v allocations", op, doAs, n)
			}
		}
	}
}
