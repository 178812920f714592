package wire

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// script is a connection that answers with prepared bytes, in pieces of a size.
type script struct {
	net.Conn // none: only what is below is called
	text     string
	piece    int
	sent     bytes.Buffer
}

func (s *script) Read(b []byte) (int, error) {
	if s.text == "" {
		return 0, io.EOF
	}
	n := copy(b, s.text[:min(s.piece, len(s.text))])
	s.text = s.text[n:]
	return n, nil
}

func (s *script) Write(b []byte) (int, error)   { return s.sent.Write(b) }
func (s *script) SetDeadline(_ time.Time) error { return nil }
func (s *script) Close() error                  { return nil }

// answer reads one answer from a text that comes in pieces.
func answer(text string, piece int) (*Answer, error) {
	return newConn(&script{text: text, piece: piece}).Do([]byte("request"), time.Time{})
}

func TestAnswers(t *testing.T) {
	f := func(text string, status int, body string, closes bool) {
		t.Helper()
		for _, piece := range []int{1, 7, 1 << 20} {
			a, err := answer(text, piece)
			if err != nil {
				t.Errorf("%.60q in pieces of %d: %v", text, piece, err)
				continue
			}
			if a.Status != status || string(a.Body) != body || a.Close != closes {
				t.Errorf("%.60q in pieces of %d: %d %.60q close=%v", text, piece, a.Status, a.Body, a.Close)
			}
		}
	}
	f("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello", false)
	f("HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", 200, "", false)
	f("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", 200, "hi", true)
	f("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, "hi", true)
	f("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi", 200, "hi", false)
	f("HTTP/1.1 204 No Content\r\n\r\n", 204, "", false)
	// Interim answers are dropped.
	f("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, "x", false)
	// Ended by the connection.
	f("HTTP/1.1 500 Oh\r\nContent-Type: text/html\r\n\r\n<p>", 500, "<p>", true)
	// Chunks, with extension and trailer, as Jetty sends large answers.
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\n", 200, "abc0123456789", false)
	// Larger than the first buffer.
	large := strings.Repeat("0123456789", 12345)
	f("HTTP/1.1 200 OK\r\nContent-Length: 123450\r\n\r\n"+large, 200, large, false)
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1e23a\r\n"+large+"\r\n0\r\n\r\n", 200, large, false)
}

func TestBrokenAnswers(t *testing.T) {
	f := func(text string) {
		t.Helper()
		if a, err := answer(text, 3); err == nil {
			t.Errorf("%.60q is taken for %d %.60q", text, a.Status, a.Body)
		} else if errors.Is(err, ErrUnanswered) {
			t.Errorf("%.60q: %v, though something came", text, err)
		}
	}
	f("HTTP/1.1 20 OK\r\n\r\n")
	f("HTTP/2 200 OK\r\n\r\n")
	f("SSH-2.0-x\r\n\r\n")
	f("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell")
	f("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and more")
	f("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello")
	f("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 4\r\n\r\nhello")
	f("HTTP/1.1 200 OK\r\nA: b\nContent-Length: 5\r\n\r\nhello")
	f("HTTP/1.1 200 OK\r\nno colon\r\n\r\n")
	f("HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n")
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n")
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n")
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n")
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP")
	f("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
	f("HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 2*maxHead))
}

func TestFields(t *testing.T) {
	a, err := answer("HTTP/1.1 401 Go away\r\nset-cookie: a\r\nContent-Length: 0\r\nSet-Cookie:  b \r\n\r\n", 5)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for v := range a.Fields("Set-Cookie") {
		all = append(all, string(v))
	}
	if got := strings.Join(all, "|"); got != "a|b" || string(a.Field("Set-Cookie")) != "a" {
		t.Errorf("cookies %q", got)
	}
	if a.Field("Set") != nil || string(a.Reason) != "Go away" {
		t.Errorf("field %q, reason %q", a.Field("Set"), a.Reason)
	}
}

func TestRequestsAreReadBack(t *testing.T) {
	f := func(r Request, length int64) {
		t.Helper()
		text := Append(nil, &r)
		got, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		body, err := io.ReadAll(got.Body)
		if err != nil {
			t.Fatal(err)
		}
		if got.Method != r.Method || got.RequestURI != string(r.Target) || got.Host != r.Host ||
			got.ContentLength != length || !bytes.Equal(body, r.Body) || got.Header.Get("Cookie") != `hadoop.auth="c"` {
			t.Errorf("%q is read as %+v", text, got)
		}
		if _, has := got.Header["Content-Length"]; has != (r.Body != nil) {
			t.Errorf("Content-Length in %q", text)
		}
	}
	const cookie = "Cookie: hadoop.auth=\"c\"\r\n"
	f(Request{Method: "GET", Target: []byte("/kms/v1/key/a%2Fb/_eek?eek_op=generate&num_keys=1"), Host: "h:9600", Auth: cookie}, 0)
	f(Request{Method: "POST", Target: []byte("/kms/v1/key/a"), Host: "h:9600", Auth: cookie, Body: []byte("{ }")}, 3)
	f(Request{Method: "POST", Target: []byte("/kms/v1/key/a/_invalidatecache"), Host: "h", Auth: cookie}, 0)
}

// TestOneConnection is over a real socket: answers one after the other, keys gone
// from the buffer, an idle connection closed by the server, and one aborted.
func TestOneConnection(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	hang, closeIdle := make(chan struct{}), make(chan struct{})
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			served <- err
			return
		}
		r := bufio.NewReader(conn)
		for range 2 {
			if _, err := http.ReadRequest(r); err != nil {
				served <- err
				return
			}
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nsecret key")
		}
		<-closeIdle
		conn.Close()
		conn, err = listener.Accept()
		<-hang
		conn.Close()
		served <- err
	}()
	t.Cleanup(func() { listener.Close() })
	dialer := Dialer{Addr: listener.Addr().String()}
	soon := time.Now().Add(20 * time.Second)
	c, err := dialer.Dial(context.Background(), soon)
	if err != nil {
		t.Fatal(err)
	}
	request := Append(nil, &Request{Method: "GET", Target: []byte("/"), Host: "h"})
	for i := range 2 {
		if c.Used() != (i > 0) {
			t.Errorf("used = %v before request %d", c.Used(), i)
		}
		a, err := c.Do(request, soon)
		if err != nil || string(a.Body) != "secret key" {
			t.Fatalf("answer %d: %v %v", i, a, err)
		}
	}
	close(closeIdle)
	if c.Over() {
		t.Error("the connection is over before it is closed")
	}
	if _, err := c.Do(request, soon); !errors.Is(err, ErrUnanswered) || !c.Over() {
		t.Errorf("a closed idle connection: %v", err)
	}
	c.Close()
	if bytes.Contains(c.buf, []byte("secret")) {
		t.Error("the buffer still holds an answer")
	}

	if c, err = dialer.Dial(context.Background(), soon); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	failed := make(chan error, 1)
	go func() {
		_, err := c.Do(request, soon)
		failed <- err
	}()
	// Do sets its own deadline first: abort until it has been heard.
	for done := false; !done; {
		if err := c.Abort(); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-failed:
			if !isTimeout(err) {
				t.Errorf("an aborted request: %v", err)
			}
			done = true
		case <-time.After(time.Millisecond):
		}
	}
	close(hang)
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestNoAllocations(t *testing.T) {
	const text = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello"
	s := &script{piece: 1 << 20}
	c := newConn(s)
	var request []byte
	r := &Request{Method: "GET", Target: []byte("/"), Host: "h"}
	if n := testing.AllocsPerRun(100, func() {
		s.text = text
		s.sent.Reset()
		request = Append(request[:0], r)
		if _, err := c.Do(request, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a request", n)
	}
}

// FuzzAnswer compares with net/http what both take for an answer.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), uint8(1))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), uint8(4))
	f.Add([]byte("HTTP/1.0 401 No\r\nWWW-Authenticate: Negotiate\r\n\r\nx"), uint8(9))
	f.Fuzz(func(t *testing.T, text []byte, piece uint8) {
		ours, err := answer(string(text), int(piece)+1)
		if err != nil {
			return
		}
		theirs, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(text)), nil)
		if err != nil || theirs.StatusCode < 200 {
			return
		}
		body, err := io.ReadAll(theirs.Body)
		if err != nil {
			return
		}
		if ours.Status != theirs.StatusCode || !bytes.Equal(ours.Body, body) {
			t.Errorf("%q: %d %q, net/http says %d %q", text, ours.Status, ours.Body, theirs.StatusCode, body)
		}
	})
}
