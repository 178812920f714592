package kms

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream"
)

// calls makes n calls at once and reports those that failed.
func calls(t *testing.T, n int, call func() error) {
	t.Helper()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if err := call(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// hang answers nothing, not even OPTIONS, until it is released or the client goes.
func hang(release <-chan struct{}) func(http.ResponseWriter, *http.Request) bool {
	return func(_ http.ResponseWriter, r *http.Request) bool {
		io.Copy(io.Discard, r.Body) // so that the server sees the client go
		select {
		case <-release:
			return false
		case <-r.Context().Done():
			return true
		}
	}
}

// cut sends text and closes the connection.
func cut(text string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			io.WriteString(conn, text)
			conn.Close()
		}
		return true
	}
}

func html(status int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
		w.WriteHeader(status)
		io.WriteString(w, "<html>Service</html>")
		return true
	}
}

func text(body string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, body)
		return true
	}
}

// Whatever one of two nodes does, no read fails, the node is put out of use, and
// comes back once it behaves.
func TestOneNodeMisbehaves(t *testing.T) {
	head := "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n[ {"
	for what, misbehave := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"closes at once":          cut(""),
		"closes in the header":    cut(head[:30]),
		"closes in the body":      cut(head),
		"speaks another protocol": cut("SSH-2.0-OpenSSH_9.6\r\n"),
		"is an error page":        html(503),
		"is a login page":         html(200),
		"redirects":               html(307),
		"knows nobody":            html(401),
		"forbids it all":          html(403),
		"has no such page":        html(404),
		"fails without a reason":  func(w http.ResponseWriter, _ *http.Request) bool { answer(w, 500, object{"error": "x"}); return true },
		"answers with nothing":    text(""),
		"answers with junk":       text("[ { \"a\" : [ ] } ]"),
		"answers another status":  func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(204); return true },
	} {
		t.Run(what, func(t *testing.T) {
			good, bad := startFake(t, "k"), startFake(t, "k")
			bad.set(misbehave)
			c := newClient(t, nil, good, bad)
			eventually(t, "the node is out of use", func() bool {
				calls(t, 4, func() error { return generate(c, "k", 3) })
				return c.Nodes()[1].Opened > 0
			})
			if c.State() != upstream.OK {
				t.Errorf("state %v", c.State())
			}
			bad.set(nil)
			eventually(t, "the node is used again", func() bool { return c.Nodes()[1].Usable })
		})
	}
}

// However long an attempt may take, nobody waits that long for a node that hangs.
func TestOneNodeHangs(t *testing.T) {
	good, bad := startFake(t, "k"), startFake(t, "k")
	release := make(chan struct{})
	bad.set(hang(release))
	c := newClient(t, func(c *Config) { c.Attempt = time.Hour }, good, bad)
	eventually(t, "the node is out of use", func() bool {
		calls(t, 24, func() error { return generate(c, "k", 1) })
		return !c.Nodes()[1].Usable
	})
	if s := c.Nodes()[1]; s.Opened != 1 || s.Faults == 0 {
		t.Errorf("%+v", s)
	}
	if err := c.InvalidateEverywhere(t.Context(), "k"); err != nil {
		t.Error(err)
	}
	close(release)
	eventually(t, "the node is used again", func() bool { return c.Nodes()[1].Usable })
	calls(t, 24, func() error { return generate(c, "k", 1) })
	if got := bad.seen(); !slices.ContainsFunc(got, func(r string) bool { return strings.Contains(r, "/k/_invalidatecache") }) {
		t.Errorf("the node is used again and was not told of a change: %q", got)
	}
}

// A host that is gone does not refuse connections: they are not made.
func TestAHostDoesNotTakeConnections(t *testing.T) {
	good := startFake(t, "k")
	c := newClient(t, func(c *Config) { c.Attempt = time.Hour }, good, &fake{addr: fullListener(t)})
	eventually(t, "the node is out of use", func() bool {
		calls(t, 24, func() error { return generate(c, "k", 1) })
		return !c.Nodes()[1].Usable
	})
}

// fullListener listens with a backlog that is full: what connects to it waits.
func fullListener(t *testing.T) string {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(bound.(*syscall.SockaddrInet4).Port))
	for range 100 {
		conn, err := net.DialTimeout("tcp", addr, 200*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("it takes any number of connections")
	return ""
}

// A list that takes long at one of two nodes: the node says that it lives, and
// stays in use.
func TestANodeThatIsBusy(t *testing.T) {
	asked := make(chan struct{})
	var once sync.Once
	busy := func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodOptions {
			once.Do(func() { close(asked) })
			return false
		}
		<-asked
		return false
	}
	a, b := startFake(t, "k"), startFake(t, "k")
	a.set(busy)
	b.set(busy)
	c := newClient(t, nil, a, b)
	if _, err := c.Names(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Nodes() {
		if !s.Usable || s.Opened != 0 || s.Faults != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// Any answer shows that a node lives, a refusal too, and none needs a KDC. What
// stands before a node may say that it does not.
func TestAlive(t *testing.T) {
	f := startFake(t)
	c := newClient(t, func(c *Config) { c.Kerberos = &Kerberos{Principal: "edekd", Keytab: "/no/such/keytab"} }, f)
	for status, lives := range map[int]bool{200: true, 401: true, 403: true, 502: false, 503: false} {
		f.set(html(status))
		if err := c.alive(t.Context(), 0); (err == nil) != lives {
			t.Errorf("%d: %v", status, err)
		}
	}
	f.set(hang(nil))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.alive(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// A body that comes by drops does not keep anybody longer than an attempt.
func TestOneNodeIsSlow(t *testing.T) {
	good, bad := startFake(t, "k"), startFake(t, "k")
	bad.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodOptions {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		for range 10_000 {
			if _, err := io.WriteString(w, " "); err != nil || r.Context().Err() != nil {
				return true
			}
			w.(http.Flusher).Flush()
			time.Sleep(10 * time.Millisecond)
		}
		return true
	})
	c := newClient(t, func(c *Config) { c.Attempt = 2 * time.Second; c.Open = time.Hour }, good, bad)
	for round := 0; c.Nodes()[1].Opened == 0; round++ {
		if round == 10 {
			t.Fatal("the node stays in use")
		}
		calls(t, 24, func() error { return generate(c, "k", 1) })
	}
}

func TestNodesThatComeAndGo(t *testing.T) {
	good, bad := startFake(t, "k"), startFake(t, "k")
	var n atomic.Int64
	bad.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodOptions || n.Add(1)%20 < 10 {
			return false
		}
		return cut("")(w, r)
	})
	c := newClient(t, func(c *Config) { c.Open = time.Millisecond }, good, bad)
	// A moment's slowness can keep requests away from a node for a while.
	eventually(t, "the node was out of use three times", func() bool {
		calls(t, 4, func() error { return generate(c, "k", 1) })
		return c.Nodes()[1].Opened >= 3
	})
}

// With nobody left, everybody is refused without waiting, and told why.
func TestAllNodesGone(t *testing.T) {
	var mu sync.Mutex
	var told []upstream.State
	f := startFake(t, "k")
	f.set(cut(""))
	c := newClient(t, func(c *Config) {
		c.Open = time.Hour
		c.Changed = func(s upstream.State) { mu.Lock(); told = append(told, s); mu.Unlock() }
	}, f)
	for round := 0; c.State() == upstream.OK; round++ {
		if round == 1000 {
			t.Fatal("the node stays in use")
		}
		wantKind(t, generate(c, "k", 1), edek.Unavailable, "the upstream KMS did not answer", f.addr)
	}
	before := len(f.seen())
	wantKind(t, generate(c, "k", 1), edek.Unavailable, "cache-only")
	_, err := c.Metadata(t.Context(), alice, "k")
	wantKind(t, err, edek.Unavailable, "cache-only")
	wantKind(t, c.Delete(t.Context(), alice, "k"), edek.Unavailable, "cache-only")
	if after := len(f.seen()); after != before {
		t.Errorf("%d requests to a node known to be gone", after-before)
	}
	eventually(t, "the change is told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Equal(told, []upstream.State{upstream.CacheOnly})
	})
}

func TestARedirectIsNotFollowed(t *testing.T) {
	elsewhere, f := startFake(t, "k"), startFake(t, "k")
	for _, status := range []int{301, 302, 303, 307, 308} {
		f.set(func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "http://"+elsewhere.addr+r.RequestURI, status)
			return true
		})
		c := newClient(t, nil, f)
		wantKind(t, generate(c, "k", 1), edek.Unavailable, "redirects are not followed")
		_, err := c.Roll(t.Context(), alice, "k", nil)
		wantKind(t, err, edek.Unsettled)
	}
	if got := elsewhere.seen(); len(got) != 0 || elsewhere.logins != 0 {
		t.Errorf("the redirect was followed: %q", got)
	}
}

// A hundred megabytes are refused when they are announced, or once there is more
// than an answer can have.
func TestAnEndlessAnswer(t *testing.T) {
	for _, announced := range []bool{true, false} {
		f := startFake(t, "k")
		const size = 100 << 20
		taken := make(chan int, 100)
		f.set(func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", "application/json")
			if announced {
				w.Header().Set("Content-Length", strconv.Itoa(size))
			}
			block, n := []byte(strings.Repeat(" ", 64<<10)), 0
			for n < size {
				m, err := w.Write(block)
				n += m
				if err != nil {
					break
				}
			}
			taken <- n
			return true
		})
		ctx := t.Context()
		var c *Client
		for _, call := range []func() error{
			func() error { return generate(c, "k", 500) },
			func() error {
				_, err := c.Decrypt(ctx, alice, "k", "k@0", make([]byte, 16), make([]byte, 32))
				return err
			},
		} {
			c = newClient(t, nil, f)
			wantKind(t, call(), edek.Unavailable, "longer than one to the question can be")
			if n := <-taken; n > size/2 {
				t.Errorf("%d bytes were read", n)
			}
		}
		c = newClient(t, nil, f)
		// How large metadata and material are, their maker decides.
		_, err := c.Metadata(ctx, alice, "k")
		wantKind(t, err, edek.Corrupt)
		<-taken
		_, err = c.CurrentVersion(ctx, alice, "k")
		wantKind(t, err, edek.Corrupt)
		if n := <-taken; n > size/2 {
			t.Errorf("%d bytes were read", n)
		}
		_, err = c.Version(ctx, alice, "k@0")
		wantKind(t, err, edek.Corrupt)
		_, err = c.Roll(ctx, alice, "k", nil)
		wantKind(t, err, edek.Unsettled, "has made the change")
		wantNoFault(t, c)
	}
}

func TestExceptionsAreBounded(t *testing.T) {
	f := startFake(t)
	c := newClient(t, nil, f)
	f.set(func(w http.ResponseWriter, _ *http.Request) bool {
		exception(w, 403, "org.apache.hadoop.security.authorize.AuthorizationException", "no\x00\x1b[31m"+strings.Repeat("ü", 5000)+"\nsecond line")
		return true
	})
	var foreign *edek.Foreign
	if err := generate(c, "k", 1); !errors.As(err, &foreign) || foreign.Status != 403 || len(foreign.Text) > maxErrorText || !strings.HasPrefix(foreign.Text, "no??[31müü") {
		t.Errorf("%v", err)
	}
	for _, class := range []string{"", "java.io.IOException\r\nX-Evil: 1", "a b", strings.Repeat("a", 201), "<script>"} {
		f.set(func(w http.ResponseWriter, _ *http.Request) bool {
			answer(w, 500, object{"RemoteException": object{"message": "m", "javaClassName": class}})
			return true
		})
		if err := generate(newClient(t, nil, f), "k", 1); edek.KindOf(err) != edek.Unavailable || errors.As(err, &foreign) {
			t.Errorf("%q: %v", class, err)
		}
	}
	// The web server's own refusal of one odd request says nothing against the node.
	// Nor does that of another edekd, which writes it down as Hadoop does.
	for status, misbehave := range map[string]func(http.ResponseWriter, *http.Request) bool{"414": html(414),
		"431": func(w http.ResponseWriter, _ *http.Request) bool {
			exception(w, 431, "java.io.IOException", "too long")
			return true
		}} {
		f.set(misbehave)
		c = newClient(t, nil, f)
		wantKind(t, generate(c, strings.Repeat("k", 100), 1), edek.Invalid, status)
		if c.Nodes()[0].Faults != 0 {
			t.Errorf("%s: a long name is taken for a fault of the node", status)
		}
	}
}

// A change that may have arrived is never sent again, to nobody.
func TestAChangeWhoseOutcomeIsUnknown(t *testing.T) {
	for what, misbehave := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"closed":           cut(""),
		"half an answer":   cut("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"),
		"junk":             text("{}"),
		"a balancer's 502": html(502),
		"another status":   func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(204); return true },
	} {
		a, b := startFake(t, "k"), startFake(t, "k")
		a.set(misbehave)
		b.set(misbehave)
		c, ctx := newClient(t, nil, a, b), t.Context()
		_, err := c.Roll(ctx, alice, "k", nil)
		wantKind(t, err, edek.Unsettled, "the outcome is unknown", "hadoop key list -metadata")
		_, err = c.Create(ctx, alice, &edek.NewKey{Name: "n"})
		wantKind(t, err, edek.Unsettled, "the outcome is unknown")
		if what != "half an answer" && what != "junk" { // delete has no body to miss
			wantKind(t, c.Delete(ctx, alice, "k"), edek.Unsettled, "the outcome is unknown")
		}
		if n := len(a.seen()) + len(b.seen()); n > 3 {
			t.Errorf("%s: %d requests for three changes", what, n)
		}
	}
}

// What the filter before the interface stops has not happened.
func TestAChangeThatIsNotLetIn(t *testing.T) {
	f := startFake(t, "k")
	f.set(html(401))
	_, err := newClient(t, nil, f).Roll(t.Context(), alice, "k", nil)
	wantKind(t, err, edek.Unavailable, "does not accept edekd's login")
}

func TestAChangeOfACallerThatLeaves(t *testing.T) {
	f := startFake(t, "k")
	arrived := make(chan struct{})
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		close(arrived)
		return hang(nil)(w, r)
	})
	c := newClient(t, nil, f)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	_, err := c.Roll(ctx, alice, "k", nil)
	wantKind(t, err, edek.Unsettled)
	if c.Nodes()[0].Faults != 0 {
		t.Error("the caller's leaving is taken for a fault of the node")
	}
}

// A node that cannot be connected to has got nothing: the change goes elsewhere.
func TestAChangeGoesPastANodeThatIsNotThere(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := &fake{addr: listener.Addr().String()}
	listener.Close()
	f := startFake(t, "k")
	c := newClient(t, func(c *Config) { c.Open = time.Hour }, gone, f)
	for range 30 {
		if _, err := c.Roll(t.Context(), alice, "k", nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(f.seen()); n != 30 {
		t.Errorf("%d requests for 30 changes", n)
	}
}

// How long a list of all keys takes is nobody's fault.
func TestAListThatTakesLong(t *testing.T) {
	f := startFake(t, "k")
	f.set(hang(nil))
	c := newClient(t, func(c *Config) { c.Attempt = 20 * time.Millisecond }, f)
	for range 20 {
		_, err := c.Names(t.Context(), alice)
		wantKind(t, err, edek.Unavailable, "takes too long")
	}
	if s := c.Nodes()[0]; s.Faults != 0 || !s.Usable {
		t.Errorf("%+v", s)
	}
}

func TestCallersThatLeaveAreNoFault(t *testing.T) {
	f := startFake(t, "k")
	f.set(hang(nil))
	c := newClient(t, nil, f)
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		_, err := c.Generate(ctx, alice, "k", 1)
		wantKind(t, err, edek.Unavailable)
		cancel()
	}
	if s := c.Nodes()[0]; s.Faults != 0 || !s.Usable || s.InFlight != 0 {
		t.Errorf("%+v", s)
	}
}
