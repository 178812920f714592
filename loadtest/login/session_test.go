package login

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/loadtest/wire"
)

// dialScripted connects to a server that gives prepared answers and returns the
// requests it got, once it has given all.
func dialScripted(t *testing.T, answers ...string) (*wire.Conn, func() []string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	got := make(chan []string, 1)
	go func() {
		var lines []string
		defer func() { got <- lines }()
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		r := bufio.NewReader(conn)
		for _, a := range answers {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			lines = append(lines, strings.TrimSpace(req.Method+" "+req.RequestURI+" "+req.Header.Get("Authorization")))
			io.WriteString(conn, a)
		}
	}()
	c, err := (&wire.Dialer{Addr: listener.Addr().String()}).Dial(t.Context(), soon())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, func() []string { return <-got }
}

func soon() time.Time { return time.Now().Add(20 * time.Second) }

const (
	challenge = "HTTP/1.1 401 Authentication required\r\nWWW-Authenticate: PseudoAuth\r\nContent-Length: 0\r\n\r\n"
	welcome   = "HTTP/1.1 200 OK\r\nSet-Cookie: other=1\r\nSet-Cookie: hadoop.auth=\"u=a&s=x\"; Path=/; HttpOnly\r\nContent-Length: 0\r\n\r\n"
)

func TestHandshake(t *testing.T) {
	negotiate := &Identity{Name: "k", ticket: func(host string) ([]byte, error) { return []byte("ticket for " + host), nil }}
	f := func(i *Identity, requests []string, answers ...string) {
		t.Helper()
		c, got := dialScripted(t, answers...)
		s := NewSession(i, "kms1", "kms1:9600")
		n, err := s.Login(c, s.AppendTarget([]byte("/kms/v1/key/k/_eek?eek_op=generate")), soon())
		if err != nil || n != len(requests) {
			t.Errorf("%d requests: %v", n, err)
		}
		if all := got(); fmt.Sprint(all) != fmt.Sprint(requests) {
			t.Errorf("requests %q, want %q", all, requests)
		}
		if lines, ok := s.Auth(); !ok || lines != "Cookie: hadoop.auth=\"u=a&s=x\"\r\n" {
			t.Errorf("%q %v", lines, ok)
		}
		// Another worker that waited for the login has nothing to do.
		if n, err := s.Login(c, nil, soon()); n != 0 || err != nil {
			t.Errorf("a second login: %d %v", n, err)
		}
	}
	const target = "/kms/v1/key/k/_eek?eek_op=generate"
	f(Simple("a b&c"), []string{"OPTIONS " + target, "OPTIONS " + target + "&user.name=a+b%26c"}, challenge, welcome)
	f(Simple("a").For("joe"), []string{"OPTIONS " + target + "&doAs=joe", "OPTIONS " + target + "&doAs=joe&user.name=a"}, challenge, welcome)
	f(negotiate, []string{"OPTIONS " + target, "OPTIONS " + target + " Negotiate dGlja2V0IGZvciBrbXMx"}, challenge, welcome)
	f(Simple("a"), []string{"OPTIONS " + target}, welcome)
}

func TestHandshakeRefused(t *testing.T) {
	f := func(why string, i *Identity, answers ...string) {
		t.Helper()
		c, got := dialScripted(t, answers...)
		s := NewSession(i, "kms1", "kms1:9600")
		if _, err := s.Login(c, []byte("/kms/v1/"), soon()); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%v, want %q", err, why)
		}
		if _, ok := s.Auth(); ok {
			t.Error("logged in nevertheless")
		}
		got()
	}
	f("login refused: 401 Authentication required", Simple("a"), challenge, challenge)
	f("login refused: 403 Forbidden", Simple("a"), "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
	f("no hadoop.auth cookie", Simple("a"), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	f("no hadoop.auth cookie", Simple("a"), "HTTP/1.1 200 OK\r\nSet-Cookie: hadoop.auth=; HttpOnly\r\nContent-Length: 0\r\n\r\n")
	f("closes the connection", Simple("a"), strings.Replace(challenge, "Content", "Connection: close\r\nContent", 1))
	f("no ticket", &Identity{ticket: func(string) ([]byte, error) { return nil, errors.New("no ticket") }}, challenge)
	f("connection closed", Simple("a"))
}

// TestCookies: any answer's cookie counts, an empty one takes it away, and one
// that somebody else has replaced is not forgotten.
func TestCookies(t *testing.T) {
	answer := func(cookie string) *wire.Answer {
		c, _ := dialScripted(t, "HTTP/1.1 200 OK\r\nSet-Cookie: hadoop.auth="+cookie+"\r\nContent-Length: 0\r\n\r\n")
		a, err := c.Do(wire.Append(nil, &wire.Request{Method: "GET", Target: []byte("/"), Host: "h"}), soon())
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	s := NewSession(Simple("a"), "h", "h:1")
	s.Note(answer(`"one"`))
	first, ok := s.Auth()
	if !ok || first != "Cookie: hadoop.auth=\"one\"\r\n" {
		t.Errorf("%q %v", first, ok)
	}
	s.Note(answer(`two; HttpOnly`))
	s.Forget(first)
	second, ok := s.Auth()
	if !ok || second != "Cookie: hadoop.auth=\"two\"\r\n" {
		t.Errorf("%q %v", second, ok)
	}
	s.Forget(second)
	if _, ok := s.Auth(); ok {
		t.Error("the cookie is not forgotten")
	}
	s.Note(answer("three"))
	s.Note(answer(`""`))
	if lines, ok := s.Auth(); ok {
		t.Errorf("%q after an empty cookie", lines)
	}

	token, err := Token("t", "abc")
	if err != nil {
		t.Fatal(err)
	}
	s = NewSession(token, "h", "h:1")
	s.Note(answer("cookie"))
	lines, ok := s.Auth()
	s.Forget(lines)
	if again, stays := s.Auth(); !ok || !stays || again != lines || lines != "X-Hadoop-Delegation-Token: abc\r\n" || token.NeedsLogin() {
		t.Errorf("%q %q", lines, again)
	}
}
