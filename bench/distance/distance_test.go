package distance

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

const patience = 20 * time.Second

// echo sends back what it gets, until the test ends, and half-closes after it.
func echo(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return listener
}

func line(t *testing.T, to string, roundTrip time.Duration) *Line {
	t.Helper()
	l, err := Listen("127.0.0.1:0", to, roundTrip)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func dial(t *testing.T, l *Line) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// TestBytesComeWholeAndLate: all of them, in order, and no answer before a round
// trip is over.
func TestBytesComeWholeAndLate(t *testing.T) {
	const roundTrip = 40 * time.Millisecond
	c := dial(t, line(t, echo(t).Addr().String(), roundTrip))
	for range 3 {
		begin := time.Now()
		if _, err := c.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 4)
		if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "ping" {
			t.Fatalf("%q, %v", answer, err)
		}
		if took := time.Since(begin); took < roundTrip {
			t.Errorf("an answer after %v", took)
		}
	}
	sent := make([]byte, 20<<20) // more than is ever in transit
	rand.Read(sent)
	go func() {
		_, _ = c.Write(sent)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d came back, %v", len(got), len(sent), err)
	}
}

// TestServerThatIsGone: connections break, new ones too, until the line leads to
// another server.
func TestServerThatIsGone(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := line(t, listener.Addr().String(), time.Millisecond)
	c := dial(t, l)
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	reset(server.(*net.TCPConn))
	if n, err := c.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("the server died, the connection is up: %d, %v", n, err)
	}
	if n, err := dial(t, l).Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("there is no server, the connection is up: %d, %v", n, err)
	}
	l.Redirect(echo(t).Addr().String())
	c = dial(t, l)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 1 {
		t.Errorf("the other server does not answer: %v", err)
	}
}
