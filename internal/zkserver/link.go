package zkserver

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// link stands between clients and the server: it forwards bytes, and can be cut
// while the server lives on.
type link struct {
	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex
	target string
	state  linkState
	conns  map[net.Conn]struct{}
}

type linkState int

const (
	forwarding linkState = iota
	cut                  // connections end at once
	hanging              // connections stay open and nothing passes
	closed
)

func newLink(tb testing.TB) *link {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	k := &link{listener: l, state: cut, conns: map[net.Conn]struct{}{}}
	k.wg.Go(k.serve)
	tb.Cleanup(func() {
		k.set(closed)
		l.Close()
		k.wg.Wait()
	})
	return k
}

// set changes what happens to connections. Those that are open end, except when
// they are to hang.
func (k *link) set(s linkState) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state == closed {
		return
	}
	k.state = s
	if s == hanging {
		return
	}
	for c := range k.conns {
		c.Close()
	}
}

// lead sends new connections to addr.
func (k *link) lead(addr string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.target = addr
}

func (k *link) server() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.target
}

func (k *link) serve() {
	for {
		client, err := k.listener.Accept()
		if err != nil {
			return
		}
		if !k.admit(client) {
			continue
		}
		k.wg.Go(func() { k.forward(client) })
	}
}

// admit keeps c for as long as the link lets connections be.
func (k *link) admit(c net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state == cut || k.state == closed {
		c.Close()
		return false
	}
	k.conns[c] = struct{}{}
	return true
}

func (k *link) drop(c net.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, c)
	c.Close()
}

func (k *link) forward(client net.Conn) {
	defer k.drop(client)
	server, err := net.DialTimeout("tcp", k.server(), 5*time.Second)
	if err != nil || !k.admit(server) {
		return
	}
	defer k.drop(server)
	var both sync.WaitGroup
	both.Go(func() {
		k.copy(server, client)
		server.Close()
	})
	k.copy(client, server)
	client.Close()
	both.Wait()
}

// copy passes bytes on until one side ends. What arrives while the link hangs is
// swallowed.
func (k *link) copy(to io.Writer, from io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		k.mu.Lock()
		swallow := k.state == hanging
		k.mu.Unlock()
		if swallow {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
