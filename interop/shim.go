package interop

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// ShimMode is what a Shim does with connections.
type ShimMode int

// The ways a host can be there or fail to be.
const (
	ShimForward ShimMode = iota // a healthy host
	ShimRefuse                  // nobody listens: connection refused
	ShimCut                     // accepts and closes at once
	ShimHang                    // accepts, reads, never answers
)

// Shim is a TCP forwarder between Hadoop's client and one KMS that can be told to
// break, so that one KMS can play several hosts of a load-balancing provider. It
// expects clients that do not pipeline, as the JDK's does not.
type Shim struct {
	addr string

	mu       sync.Mutex
	target   string
	mode     ShimMode
	listener net.Listener
	conns    map[net.Conn]struct{}
	requests []string
	swallow  *Swallow
	wg       sync.WaitGroup
}

// Swallow makes shims lose answers: the request reaches the KMS, the KMS answers,
// and the client sees the connection end before the first byte. Shims that share
// one Swallow share its budget.
type Swallow struct {
	// Request is the start of the request line, such as "POST /kms/v1/keys ".
	Request string
	// Header is what the request's head must hold too, "" for anything.
	Header string
	// Reset ends the connection by RST; otherwise it is closed in good order.
	Reset bool

	mu   sync.Mutex
	left int
}

// NewSwallow loses the next times answers to requests that start so.
func NewSwallow(times int, request string) *Swallow {
	return &Swallow{Request: request, left: times}
}

func (s *Swallow) take(line string, head []byte) bool {
	if s == nil || !strings.HasPrefix(line, s.Request) || !bytes.Contains(head, []byte(s.Header)) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left == 0 {
		return false
	}
	s.left--
	return true
}

var requestLine = regexp.MustCompile(`^(GET|POST|PUT|DELETE|OPTIONS) \S+ HTTP/1\.1\r\n`)

// StartShims forwards one port on each of the given loopback addresses to
// target, and returns that port with one shim per address, all healthy.
func StartShims(tb testing.TB, target string, hosts ...string) (port string, shims []*Shim) {
	tb.Helper()
	for attempt := 0; ; attempt++ {
		listeners, err := listenOnOnePort(hosts)
		if err != nil && attempt < 20 {
			continue
		}
		if err != nil {
			tb.Fatal(err)
		}
		for _, l := range listeners {
			s := &Shim{addr: l.Addr().String(), target: target, listener: l, conns: map[net.Conn]struct{}{}}
			s.wg.Go(func() { s.serve(l) })
			tb.Cleanup(func() {
				s.Set(tb, ShimRefuse)
				s.wg.Wait()
			})
			shims = append(shims, s)
		}
		_, port, _ = net.SplitHostPort(listeners[0].Addr().String())
		return port, shims
	}
}

// listenOnOnePort lets the kernel pick a port on the first host and asks for the
// same one on the others, which may be taken.
func listenOnOnePort(hosts []string) (listeners []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
		}
	}()
	port := "0"
	for _, h := range hosts {
		l, err := net.Listen("tcp", net.JoinHostPort(h, port))
		if err != nil {
			return listeners, fmt.Errorf("one port on all of %v: %w", hosts, err)
		}
		listeners = append(listeners, l)
		_, port, _ = net.SplitHostPort(l.Addr().String())
	}
	return listeners, nil
}

// Set changes the mode. Leaving ShimForward ends every open connection, in the
// middle of a request if there is one.
func (s *Shim) Set(tb testing.TB, mode ShimMode) {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mode = mode
	if mode != ShimForward {
		for c := range s.conns {
			c.Close()
		}
	}
	switch {
	case mode == ShimRefuse && s.listener != nil:
		s.listener.Close()
		s.listener = nil
	case mode != ShimRefuse && s.listener == nil:
		l, err := net.Listen("tcp", s.addr)
		if err != nil {
			tb.Errorf("shim listens again: %v", err)
			return
		}
		s.listener = l
		s.wg.Go(func() { s.serve(l) })
	}
}

// Lead makes new connections go to another KMS.
func (s *Shim) Lead(target string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.target = target
}

// Lose makes the shim swallow answers as w says; nil stops it.
func (s *Shim) Lose(w *Swallow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.swallow = w
}

// Requests returns how many request lines starting with prefix went to the KMS.
func (s *Shim) Requests(prefix string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.requests {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

func (s *Shim) serve(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		mode, ok := s.admit(client)
		if !ok || mode == ShimCut {
			s.drop(client)
			continue
		}
		s.wg.Go(func() {
			defer s.drop(client)
			if mode == ShimHang {
				_, _ = io.Copy(io.Discard, client)
				return
			}
			s.forward(client)
		})
	}
}

// admit notes an open connection, unless the shim stopped in between.
func (s *Shim) admit(c net.Conn) (ShimMode, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
	return s.mode, s.mode != ShimRefuse
}

func (s *Shim) drop(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	c.Close()
}

func (s *Shim) forward(client net.Conn) {
	s.mu.Lock()
	target := s.target
	s.mu.Unlock()
	server, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		return
	}
	if _, ok := s.admit(server); !ok {
		s.drop(server)
		return
	}
	defer s.drop(server)

	var mu sync.Mutex
	var losing *Swallow // set while the answer under way is to be lost
	s.wg.Go(func() {
		defer s.drop(server)
		buf := make([]byte, 64<<10)
		for {
			n, err := client.Read(buf)
			if err != nil {
				return
			}
			if w := s.note(buf[:n]); w != nil {
				mu.Lock()
				losing = w
				mu.Unlock()
			}
			if _, err := server.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		mu.Lock()
		lost := losing
		mu.Unlock()
		if lost != nil {
			if tcp, ok := client.(*net.TCPConn); ok && lost.Reset {
				_ = tcp.SetLinger(0)
			}
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

// note records the request line that chunk may start with, and returns the
// Swallow that wants its answer.
func (s *Shim) note(chunk []byte) *Swallow {
	line := requestLine.Find(chunk)
	if line == nil {
		return nil
	}
	text := string(bytes.TrimSpace(line))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, text)
	if s.swallow.take(text, chunk) {
		return s.swallow
	}
	return nil
}
