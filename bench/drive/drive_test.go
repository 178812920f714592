package drive

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// serve answers on l until the test ends.
func serve(t *testing.T, l net.Listener, handler fasthttp.RequestHandler) Target {
	t.Helper()
	server := &fasthttp.Server{Handler: handler}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		l.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return Target{Network: l.Addr().Network(), Addr: l.Addr().String()}
}

func listen(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func open(t *testing.T, target Target, connections int) *Pool {
	t.Helper()
	p, err := NewPool(target, connections, []byte(small))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func selfSigned(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

const small, large = "GET /small HTTP/1.1\r\nHost: h\r\n\r\n", "GET /large HTTP/1.1\r\nHost: h\r\n\r\n"

// echo answers /large with more than any buffer holds, in chunks when asked to,
// and counts.
func echo(count *atomic.Int64) fasthttp.RequestHandler {
	body := strings.Repeat("0123456789", 50_000)
	return func(ctx *fasthttp.RequestCtx) {
		count.Add(1)
		switch string(ctx.Path()) {
		case "/large":
			ctx.SetBodyString(body)
		case "/chunked":
			ctx.SetBodyStream(strings.NewReader(body), -1)
		case "/wrong":
			ctx.SetStatusCode(500)
		default:
			ctx.SetBodyString("ok")
		}
	}
}

// TestClosed: what the client counts is what the server counts, over each kind of
// connection.
func TestClosed(t *testing.T) {
	f := func(name string, l net.Listener, client *tls.Config) {
		t.Helper()
		var served atomic.Int64
		target := serve(t, l, echo(&served))
		target.TLS = client
		p := open(t, target, 8)
		for _, requests := range []Requests{{[]byte(small)}, {[]byte(small), []byte(large), []byte(strings.Replace(large, "large", "chunked", 1))}} {
			served.Store(0)
			n, err := p.Closed(50*time.Millisecond, 5, requests)
			if err != nil || n < 5 || int64(n) != served.Load() {
				t.Errorf("%s: %d answered, %d served, %v", name, n, served.Load(), err)
			}
		}
		a, err := p.Exchange([]byte(large))
		if err != nil || len(a) < 500_000 || !strings.HasSuffix(string(a), "6789") {
			t.Errorf("%s: an answer of %d bytes, %v", name, len(a), err)
		}
	}
	f("tcp", listen(t, "tcp", "127.0.0.1:0"), nil)
	f("unix", listen(t, "unix", filepath.Join(t.TempDir(), "s")), nil)
	f("tls", tls.NewListener(listen(t, "tcp", "127.0.0.1:0"), selfSigned(t)), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
}

func TestLargeRequestsAreWrittenWhole(t *testing.T) {
	var read atomic.Int64
	target := serve(t, listen(t, "tcp", "127.0.0.1:0"), func(ctx *fasthttp.RequestCtx) { read.Add(int64(len(ctx.Request.Body()))) })
	body := strings.Repeat("x", 3<<20)
	request := "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3145728\r\n\r\n" + body
	n, err := open(t, target, 4).Closed(time.Millisecond, 4, Requests{[]byte(request)})
	if err != nil || int64(n)*int64(len(body)) != read.Load() {
		t.Errorf("%d requests, %d bytes, %v", n, read.Load(), err)
	}
}

func TestWrongAnswersEndIt(t *testing.T) {
	var served atomic.Int64
	target := serve(t, listen(t, "tcp", "127.0.0.1:0"), echo(&served))
	if _, err := open(t, target, 2).Closed(time.Minute, 2, Requests{[]byte("GET /wrong HTTP/1.1\r\nHost: h\r\n\r\n")}); err == nil || !strings.Contains(err.Error(), "500") {
		t.Errorf("an answer 500: %v", err)
	}
	if _, err := open(t, target, 2).Open(Plan{Rate: 1000, Length: time.Minute, Requests: Requests{[]byte("GET /wrong HTTP/1.1\r\nHost: h\r\n\r\n")}}); err == nil {
		t.Error("an open loop takes 500 for an answer")
	}
}

// TestLenientLoadsCountWrongAnswers: in their places, and those that come after on
// the same connections are none.
func TestLenientLoadsCountWrongAnswers(t *testing.T) {
	var served atomic.Int64
	target := serve(t, listen(t, "tcp", "127.0.0.1:0"), echo(&served))
	wrong := []byte("GET /wrong HTTP/1.1\r\nHost: h\r\n\r\n")
	l, err := open(t, target, 2).Open(Plan{Rate: 500, Length: 100 * time.Millisecond, InOrder: true, Lenient: true,
		Requests: Requests{wrong, []byte(small), []byte(small), wrong, []byte(small)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []struct{ from, to, want int }{{0, 100, 20}, {0, 10, 2}, {2, 6, 0}, {6, 8, 1}} {
		if got := l.Failed(time.Duration(at.from)*time.Millisecond, time.Duration(at.to)*time.Millisecond); got != at.want {
			t.Errorf("%d failed from %d to %d ms, want %d", got, at.from, at.to, at.want)
		}
	}
}

// TestStallIsFeltByAllItHeldUp: the server stands still for 300 ms once. A client
// that waits with it would see one slow request; here every request that was due
// meanwhile is late.
func TestStallIsFeltByAllItHeldUp(t *testing.T) {
	const stall = 300 * time.Millisecond
	var stalled atomic.Pointer[time.Time]
	target := serve(t, listen(t, "tcp", "127.0.0.1:0"), func(ctx *fasthttp.RequestCtx) {
		if string(ctx.Path()) == "/stall" {
			until := time.Now().Add(stall)
			stalled.Store(&until)
		}
		if until := stalled.Load(); until != nil {
			time.Sleep(time.Until(*until))
		}
		ctx.SetBodyString("ok")
	})
	p := open(t, target, 4)
	did := false
	l, err := p.Open(Plan{Rate: 1000, Length: time.Second, Requests: Requests{[]byte(small)}, Events: []Event{
		{At: 400 * time.Millisecond, Request: []byte("GET /stall HTTP/1.1\r\nHost: h\r\n\r\n")},
		{At: 900 * time.Millisecond, Do: func() error { did = true; return nil }}}})
	if err != nil || !did {
		t.Fatalf("%v, second event %v", err, did)
	}
	late := 0
	for _, v := range l.Between(400*time.Millisecond, 700*time.Millisecond) {
		if v > 50_000 {
			late++
		}
	}
	// Of 300, all but those due in the last 50 ms.
	if late < 200 {
		t.Errorf("%d requests felt a stall that held up 300", late)
	}
	if n := len(l.Between(0, time.Second)); n != 1000 {
		t.Errorf("%d latencies of 1000 arrivals", n)
	}
}

func TestEach(t *testing.T) {
	paths := make(chan string, 10)
	target := serve(t, listen(t, "tcp", "127.0.0.1:0"), func(ctx *fasthttp.RequestCtx) { paths <- string(ctx.Path()) })
	took, err := open(t, target, 1).Each(3, Requests{[]byte(small), []byte(large)})
	if err != nil || len(took) != 3 || len(paths) != 4 {
		t.Fatalf("%v %d %v", took, len(paths), err)
	}
	if got := <-paths + <-paths + <-paths + <-paths; got != "/small/small/large/small" { // the first is hello
		t.Errorf("%q", got)
	}
}

func TestNoAllocationsPerRequest(t *testing.T) {
	var served atomic.Int64
	target := serve(t, listen(t, "tcp", "127.0.0.1:0"), echo(&served))
	p := open(t, target, 4)
	n := testing.AllocsPerRun(1, func() {
		if _, err := p.Closed(100*time.Millisecond, 4, Requests{[]byte(small)}); err != nil {
			t.Fatal(err)
		}
	})
	if per := n / float64(served.Load()/2); per > 0.1 {
		t.Errorf("%v allocations per request", per)
	}
}
