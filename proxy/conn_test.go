package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valyala/fasthttp"
)

// counted counts how often a connection was told a deadline.
type counted struct {
	net.Conn
	told int
}

func (c *counted) SetReadDeadline(t time.Time) error  { c.told++; return c.Conn.SetReadDeadline(t) }
func (c *counted) SetWriteDeadline(t time.Time) error { c.told++; return c.Conn.SetWriteDeadline(t) }

// Deadlines pass to the moment, although the connection is seldom told of them.
func TestDeadlines(t *testing.T) {
	const idle, request = time.Hour, 10 * time.Second
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer here.Close()
		defer there.Close()
		beneath := &counted{Conn: here}
		c := newConn(beneath)
		buf := make([]byte, 10)
		send := func(wait time.Duration) {
			go func() {
				time.Sleep(wait)
				there.Write([]byte("x"))
			}()
		}
		read := func(limit time.Duration) (time.Duration, error) {
			begun := time.Now()
			c.SetReadDeadline(begun.Add(limit))
			_, err := c.Read(buf)
			return time.Since(begun), err
		}
		timesOut := func(limit time.Duration) {
			t.Helper()
			if took, err := read(limit); took != limit || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%v instead of %v: %v", took, limit, err)
			}
		}
		// Requests that arrive whole, for longer than any deadline.
		for range 30 {
			send(idle - time.Minute)
			if took, err := read(idle); took != idle-time.Minute || err != nil {
				t.Fatalf("%v: %v", took, err)
			}
			c.SetReadDeadline(time.Now().Add(request))
		}
		if beneath.told > 31 {
			t.Errorf("%d deadlines were told", beneath.told)
		}
		timesOut(request)
		timesOut(idle)
		timesOut(request)
		// Without a deadline, after one has passed.
		send(10 * idle)
		c.SetDeadline(time.Time{})
		if _, err := c.Read(buf); err != nil {
			t.Error(err)
		}
		timesOut(request)

		for _, pause := range []time.Duration{0, time.Second, idle} {
			begun := time.Now()
			c.SetWriteDeadline(begun.Add(request))
			if _, err := c.Write([]byte("nobody reads")); time.Since(begun) != request || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a write of %v: %v", time.Since(begun), err)
			}
			time.Sleep(pause)
		}
		// A part is taken before an old deadline passes, the rest after it.
		c.SetWriteDeadline(time.Now().Add(request))
		c.Write(nil)
		time.Sleep(request / 2)
		c.SetWriteDeadline(time.Now().Add(request))
		go func() {
			io.ReadFull(there, buf[:3])
			time.Sleep(request - time.Second)
			io.ReadFull(there, buf[:3])
		}()
		if n, err := c.Write([]byte("abcdef")); n != 6 || err != nil || string(buf[:3]) != "def" {
			t.Errorf("%d bytes, %q: %v", n, buf[:3], err)
		}
	})
}

func TestPipelinedAnswersComeInOrder(t *testing.T) {
	k := newKMS(t)
	var text strings.Builder
	const n = 60
	for i := range n {
		text.WriteString(requestText("POST", "/kms/v1/keys?user.name=x", fmt.Sprintf(`{"name":"k%d"}`, i)))
		text.WriteString(requestText("GET", fmt.Sprintf("/kms/v1/key/k%d/_metadata?user.name=x", i), ""))
		text.WriteString(requestText("GET", "/kms/v1/nothing?user.name=x", ""))
	}
	answers := k.raw(t, text.String(), 3*n)
	for i := range n {
		if a := answers[3*i]; a.StatusCode != 201 {
			t.Fatalf("create %d: %d %s", i, a.StatusCode, a.body)
		}
		contains(t, answers[3*i+1].body, fmt.Sprintf(`"name" : "k%d"`, i))
		remote(t, answers[3*i+2], 500, classNoSuchPath)
	}
}

func TestSlowSendersGetAnAnswer(t *testing.T) {
	k := newIdleKMS(t)
	k.http.ReadTimeout = 150 * time.Millisecond
	address := k.serveTCP(t)
	connect := func() *client {
		tcp, err := net.Dial("tcp", address)
		return newClient(t, tcp, err)
	}
	for _, half := range []string{
		"POST /kms/v1/keys?user.name=x HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"name\":",
		"POST /kms/v1/keys?user.name=x HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"n",
		"GET /kms/v1/keys/na",
		"GET /kms/v1/keys/names HTTP/1.1\r\nHost: h\r\n",
		"POST /kms/v1/keys?user.name=x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 14\r\n\r\n",
	} {
		c := connect()
		c.send(t, half)
		a := c.answer(t, "POST")
		if a.StatusCode == 100 {
			a = c.answer(t, "POST")
		}
		contains(t, remote(t, a, 408, classIO), "in time")
		c.closed(t)
	}
	// A byte now and then does not extend the time.
	c := connect()
	c.send(t, requestText("POST", "/kms/v1/keys?user.name=x", strings.Repeat(" ", 60<<10))[:400])
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				if _, err := c.Write([]byte(" ")); err != nil {
					return
				}
			}
		}
	}()
	remote(t, c.answer(t, "POST"), 408, classIO)
}

func TestClosingMidRequestHarmsNobody(t *testing.T) {
	k := newKMS(t)
	for _, half := range []string{"", "P", "POST /kms/v1/keys", "POST /kms/v1/keys?user.name=x HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{\"name\":\"half\"}"} {
		c := k.dial(t)
		if half != "" {
			c.send(t, half)
		}
		c.Close()
	}
	k.create(t, "k1")
	if a := k.call(t, "GET", "/keys/names", ""); a.body != `[ "k1" ]` {
		t.Error(a.body)
	}
}

func TestExpectContinue(t *testing.T) {
	k := newKMS(t)
	head := func(length int) string {
		return fmt.Sprintf("POST /kms/v1/keys?user.name=x HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", length)
	}
	c := k.dial(t)
	c.send(t, head(13))
	if a := c.answer(t, "POST"); a.StatusCode != 100 {
		t.Fatalf("%d", a.StatusCode)
	}
	c.send(t, `{"name":"k1"}`)
	if a := c.answer(t, "POST"); a.StatusCode != 201 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	c.send(t, head(64<<10+1))
	contains(t, remote(t, c.answer(t, "POST"), 400, classIllegalArgument), "edekd.limits.body-bytes")
	c.closed(t)
}

// Clients send the whole body before they look for an answer. The refusal must
// be there to be read, though nobody reads the body.
func TestRefusedBodyIsAnsweredWhileItIsSent(t *testing.T) {
	k := newIdleKMS(t)
	address := k.serveTCP(t)
	dial := func() (net.Conn, error) { return net.Dial("tcp", address) }
	f := func(target, framing, body string) {
		t.Helper()
		nc, err := dial()
		c := newClient(t, nc, err)
		c.send(t, "POST "+target+"?user.name=x HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"+framing+"\r\n\r\n"+body)
		a := c.answer(t, "POST")
		contains(t, remote(t, a, 400, classIllegalArgument), "edekd.limits.batch-body-bytes")
		if !a.Close {
			t.Error("no Connection: close")
		}
		c.closed(t)
	}
	body := strings.Repeat(" ", 20<<20)
	length := fmt.Sprintf("Content-Length: %d", len(body))
	f("/kms/v1/keys", length, body)
	f("/kms/v1/key/k/_reencryptbatch", length, body)
	f("/kms/v1/keyversion/k@0/_eek", length, body)
	f("/kms/v1/keys", "Transfer-Encoding: chunked", chunked(body))
	f("/kms/v1/key/k/_reencryptbatch", "Transfer-Encoding: chunked", chunked(body))
	f("/kms/v1/keys", "Content-Length: 9000000000", "") // refused before it is read

	certified := httptest.NewTLSServer(nil) // lends its certificate
	defer certified.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k.serve(t, tls.NewListener(Listener(l), &tls.Config{Certificates: certified.TLS.Certificates}))
	dial = func() (net.Conn, error) {
		return tls.Dial("tcp", l.Addr().String(), certified.Client().Transport.(*http.Transport).TLSClientConfig)
	}
	f("/kms/v1/keys", length, body)
}

func TestBodyLimits(t *testing.T) {
	k := newKMS(t, func(c *Config) { c.Limits.BatchBody = 1 << 20; c.Limits.BatchEntries = 3 })
	k.create(t, "k1")
	pad := func(text string, n int) string { return text + strings.Repeat(" ", n-len(text)) }
	if a := k.call(t, "POST", "/keys", pad(`{"name":"k2"}`, 64<<10)); a.StatusCode != 201 {
		t.Errorf("64 KiB: %d %s", a.StatusCode, a.body)
	}
	remote(t, k.call(t, "POST", "/keys", pad(`{"name":"k3"}`, 64<<10+1)), 400, classIllegalArgument)
	if a := k.call(t, "POST", "/key/k1/_reencryptbatch", pad("[]", 1<<20)); a.StatusCode != 200 || a.body != "[ ]" {
		t.Errorf("1 MiB: %d %s", a.StatusCode, a.body)
	}
	remote(t, k.call(t, "POST", "/key/k1/_reencryptbatch", pad("[]", 1<<20+1)), 400, classIllegalArgument)
	remote(t, k.call(t, "POST", "/key/k1/_reencryptbatch/..", pad("[]", 1<<20)), 400, classIllegalArgument)
	remote(t, k.call(t, "PUT", "/key/k1/_reencryptbatch", pad("[]", 1<<20)), 400, classIllegalArgument)

	// The limit of one request is not that of the next on its connection.
	c := k.dial(t)
	go io.WriteString(c.Conn, requestText("POST", "/kms/v1/key/k1/_reencryptbatch?user.name=x", pad("[]", 1<<20))+
		requestText("POST", "/kms/v1/keys?user.name=x", pad(`{"name":"k4"}`, 1<<20)))
	if a := c.answer(t, "POST"); a.StatusCode != 200 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	remote(t, c.answer(t, "POST"), 400, classIllegalArgument)

	entry := `{"versionName":"k1@0","iv":"AAAAAAAAAAAAAAAAAAAAAA","encryptedKeyVersion":{"versionName":"EEK","material":"AAAA"}}`
	if a := k.call(t, "POST", "/key/k1/_reencryptbatch", "["+entry+","+entry+","+entry+"]"); a.StatusCode != 200 {
		t.Errorf("3 entries: %d %s", a.StatusCode, a.body)
	}
	for _, four := range []string{"[" + entry + "," + entry + "," + entry + "," + entry + "]", "[{},{},{},{}]", "[null,1,[],2]"} {
		contains(t, remote(t, k.call(t, "POST", "/key/k1/_reencryptbatch", four), 400, classIllegalArgument), "at most 3 entries")
	}
}

func TestHeaderLimit(t *testing.T) {
	k := newKMS(t)
	get := func(n int) string {
		return "GET /kms/v1/keys/names?user.name=x HTTP/1.1\r\nHost: h\r\nX-Padding: " + strings.Repeat("p", n) + "\r\n\r\n"
	}
	if a := k.raw(t, get(60<<10), 1)[0]; a.StatusCode != 200 {
		t.Errorf("60 KiB: %d %s", a.StatusCode, a.body)
	}
	for _, text := range []string{get(64 << 10), "GET /kms/v1/key/" + strings.Repeat("n", 70<<10) + " HTTP/1.1\r\nHost: h\r\n\r\n", strings.Repeat("G", 100<<10)} {
		c := k.dial(t)
		go io.WriteString(c.Conn, text)
		contains(t, remote(t, c.answer(t, "GET"), 431, classIllegalArgument), "hadoop.http.max.request.header.size")
		c.closed(t)
	}
}

func TestWhatIsNotHTTP(t *testing.T) {
	k := newKMS(t)
	for _, text := range []string{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "nonsense\r\n\r\n", "GET / HTTP/1.1 HTTP/1.1\x00\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"GET /kms/v1/keys/names HTTP/1.1\r\nno colon\r\n\r\n", "GET /kms/v1/keys/names HTTP/1.1\r\n\r\n", "GET /kms/v1/keys/names HTTP/9.9\r\nHost: h\r\n\r\n"} {
		c := k.dial(t)
		c.send(t, text)
		if a := c.answer(t, "GET"); a.StatusCode/100 != 4 {
			t.Errorf("%q: %d %s", text, a.StatusCode, a.body)
		}
	}
	k.create(t, "k1")
}

func TestHeadAndHTTP10(t *testing.T) {
	k := newKMS(t)
	k.create(t, "k1")
	c := k.dial(t)
	c.send(t, requestText("HEAD", "/kms/v1/keys/names?user.name=x", ""))
	if a := c.answer(t, "HEAD"); a.StatusCode != 200 || a.body != "" || a.ContentLength != int64(len(`[ "k1" ]`)) {
		t.Errorf("%d %d %q", a.StatusCode, a.ContentLength, a.body)
	}
	c.send(t, requestText("GET", "/kms/v1/keys/names?user.name=x", "")) // the connection is in step
	if a := c.answer(t, "GET"); a.body != `[ "k1" ]` {
		t.Errorf("%q", a.body)
	}
	for _, keep := range []bool{false, true} {
		c := k.dial(t)
		header := ""
		if keep {
			header = "Connection: keep-alive\r\n"
		}
		for range 2 {
			c.send(t, "GET /kms/v1/keys/names?user.name=x HTTP/1.0\r\n"+header+"\r\n")
			if a := c.answer(t, "GET"); a.StatusCode != 200 || a.body != `[ "k1" ]` || len(a.TransferEncoding) > 0 {
				t.Errorf("%d %q", a.StatusCode, a.body)
			}
			if !keep {
				c.closed(t)
				break
			}
		}
	}
}

func TestConnectionHeaderIsObeyed(t *testing.T) {
	k := newKMS(t)
	c := k.dial(t)
	for range 3 {
		c.send(t, requestText("GET", "/kms/v1/keys/names?user.name=x", "", "Connection: keep-alive"))
		if a := c.answer(t, "GET"); a.StatusCode != 200 || a.Close {
			t.Fatalf("%d %v", a.StatusCode, a.Header)
		}
	}
	c.send(t, requestText("GET", "/kms/v1/keys/names?user.name=x", "", "Connection: close"))
	if a := c.answer(t, "GET"); !a.Close {
		t.Errorf("%v", a.Header)
	}
	c.closed(t)
}

func TestDraining(t *testing.T) {
	k := newKMS(t)
	k.create(t, "k1")
	probe := func(path string) answered {
		t.Helper()
		return k.raw(t, requestText("GET", path, ""), 1)[0]
	}
	if a := probe("/readyz"); a.StatusCode != 200 || a.Close {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	open := k.dial(t)
	open.send(t, requestText("GET", "/kms/v1/keys/names?user.name=x", ""))
	open.answer(t, "GET")
	k.Drain()
	f := func(text string, status int) {
		t.Helper()
		c := k.dial(t)
		go io.WriteString(c.Conn, text)
		if a := c.answer(t, "GET"); a.StatusCode != status || !a.Close {
			t.Errorf("%.80q: %d %v", text, a.StatusCode, a.Header)
		}
		c.closed(t)
	}
	f(requestText("GET", "/readyz", ""), 503)
	f(requestText("GET", "/healthz", ""), 200)
	f(requestText("GET", "/metrics", ""), 200)
	f(requestText("GET", "/elsewhere?user.name=x", ""), 404)
	f(requestText("GET", "/jmx?user.name=x", ""), 200)
	f(requestText("GET", "/kms/v1/keys/names?user.name=x", ""), 200)
	f(requestText("GET", "/kms/v1/keys/names", ""), 401)
	f(requestText("POST", "/kms/v1/keys?user.name=x", `{"name":"k2"}`), 201)
	f(requestText("POST", "/kms/v1/keys?user.name=x", `{`), 500)
	f(requestText("GET", "/kms/v1/nothing?user.name=x", ""), 500)
	f(requestText("POST", "/kms/v1/keys?user.name=x", strings.Repeat(" ", 65<<10)), 400)
	f(requestText("GET", "/kms/v1/keys/names?user.name=x&doAs=y", ""), 403)
	f(requestText("PUT", "/kms/v1/?op=RENEWDELEGATIONTOKEN", ""), 403)
	f("nonsense\r\n\r\n", 400)
	open.send(t, requestText("GET", "/kms/v1/keys/names?user.name=x", ""))
	if a := open.answer(t, "GET"); a.StatusCode != 200 || !a.Close {
		t.Errorf("an open connection: %d %v", a.StatusCode, a.Header)
	}
	open.closed(t)
}

// A request that has begun is answered, though the server stops.
func TestShutdownFinishesRunningRequests(t *testing.T) {
	k := newIdleKMS(t)
	begun := make(chan struct{}, 1)
	k.http.HeaderReceived = func(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
		begun <- struct{}{}
		return k.bodyLimit(h)
	}
	k.serve(t, k.listener)
	c := k.dial(t)
	c.send(t, "POST /kms/v1/keys?user.name=x HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"name\"")
	<-begun
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- k.Shutdown(ctx) }()
	for !k.draining.Load() {
		time.Sleep(time.Millisecond)
	}
	c.send(t, `:"k1"}`)
	if a := c.answer(t, "POST"); a.StatusCode != 201 || !a.Close {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// The headers of every answer, refusals included.
func TestHeadersOfEveryAnswer(t *testing.T) {
	k := newKMS(t, func(c *Config) { c.Headers = [][2]string{{"X-Site", "east"}} })
	for _, text := range []string{requestText("GET", "/healthz", ""), requestText("GET", "/kms/v1/keys/names?user.name=x", ""), requestText("GET", "/kms/v1/x?user.name=x", ""),
		requestText("POST", "/kms/v1/keys?user.name=x", strings.Repeat(" ", 65<<10)), "nonsense\r\n\r\n",
		requestText("POST", "/kms/v1/keys?user.name=x", strings.Repeat(" ", 65<<10), "Expect: 100-continue")} {
		h := k.raw(t, text, 1)[0].Header
		for name, want := range map[string]string{"Cache-Control": "no-cache", "Pragma": "no-cache", "X-Content-Type-Options": "nosniff", "X-Xss-Protection": "1; mode=block", "X-Site": "east"} {
			if h.Get(name) != want {
				t.Errorf("%.60q: %s: %q", text, name, h.Get(name))
			}
		}
		if at, err := http.ParseTime(h.Get("Expires")); err != nil || time.Since(at).Abs() > time.Minute || h.Get("Server") != "" {
			t.Errorf("%.60q: %v", text, h)
		}
	}
}

func TestAccessLog(t *testing.T) {
	var log lockedBuffer
	k := newKMS(t, func(c *Config) { c.AccessLog = &log })
	k.raw(t, requestText("GET", "/kms/v1/keys/names?user.name=a%0Ab%22", "", "User-Agent: agent\"\\", "Referer: r"), 1)
	k.raw(t, requestText("GET", "/kms/v1/keys/names", ""), 1)
	lines := bytes.Split([]byte(strings.TrimSpace(log.String())), []byte("\n"))
	if len(lines) != 2 {
		t.Fatalf("%q", lines)
	}
	contains(t, string(lines[1]), ` - - [`)
	contains(t, string(lines[1]), `"GET /kms/v1/keys/names HTTP/1.1" 401 `)
}

// A stop may come before serving has begun, or in the very moment.
func TestShutdownBeforeServe(t *testing.T) {
	for range 50 {
		k := newIdleKMS(t)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- k.Serve(Listener(l)) }()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if err := k.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		select {
		case err := <-served:
			if err != nil {
				t.Error(err)
			}
		case <-ctx.Done():
			t.Fatal("serving goes on")
		}
		cancel()
	}
}
