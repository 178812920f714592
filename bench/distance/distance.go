// Package distance puts a network's delay between two processes of one machine.
//
// A Line listens for one and passes on to the other what it reads, late by half a
// round trip in each direction, in the order in which it came. A new connection
// costs a round trip, as TCP's handshake does. What happens to a connection on one
// side happens to it on the other as much later: an end, a reset, a server that is
// not there. A stopped process stays a stopped process: the connection is up and
// nothing comes.
package distance

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	chunk = 32 << 10 // bytes read at a time
	// chunks on their way in one direction; beyond, the sender waits. 256 of them
	// in 15 ms are more than any network brings.
	inTransit = 256
)

// Line is the way to one server. It is safe for concurrent use.
type Line struct {
	listener net.Listener
	oneWay   time.Duration
	to       atomic.Pointer[string]

	mu     sync.Mutex
	conns  map[net.Conn]struct{} // both sides
	closed bool
	ended  sync.WaitGroup
}

// Listen opens a line from addr to a server, both host:port. Close it.
func Listen(addr, to string, roundTrip time.Duration) (*Line, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	l := &Line{listener: listener, oneWay: roundTrip / 2, conns: map[net.Conn]struct{}{}}
	l.Redirect(to)
	l.ended.Go(l.accept)
	return l, nil
}

// Addr is where the line begins.
func (l *Line) Addr() string { return l.listener.Addr().String() }

// Redirect leads connections that are made from now on to another server: the one
// before, started again, has another port.
func (l *Line) Redirect(to string) { l.to.Store(&to) }

// Close cuts all connections and waits until nothing is left of them.
func (l *Line) Close() error {
	err := l.listener.Close()
	l.mu.Lock()
	l.closed = true
	for c := range l.conns {
		c.Close()
	}
	l.mu.Unlock()
	l.ended.Wait()
	return err
}

func (l *Line) accept() {
	for {
		c, err := l.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, for one
			time.Sleep(time.Millisecond)
			continue
		}
		if l.add(c) {
			l.ended.Go(func() { l.serve(c.(*net.TCPConn)) })
		}
	}
}

// add keeps a connection for Close. After that it closes it and returns false.
func (l *Line) add(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		c.Close()
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *Line) remove(c net.Conn) {
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
	c.Close()
}

func (l *Line) serve(near *net.TCPConn) {
	defer l.remove(near)
	time.Sleep(2 * l.oneWay)
	c, err := net.Dial("tcp", *l.to.Load())
	if err != nil {
		reset(near)
		return
	}
	far := c.(*net.TCPConn)
	if !l.add(far) {
		return
	}
	defer l.remove(far)
	var both sync.WaitGroup
	both.Go(func() { l.pass(near, far) })
	both.Go(func() { l.pass(far, near) })
	both.Wait()
}

// packet is what was read at once: bytes, or at the end an error.
type packet struct {
	due   time.Time
	bytes []byte
	err   error
}

// pass moves what comes from one side to the other until one of them ends.
func (l *Line) pass(from, to *net.TCPConn) {
	way := make(chan packet, inTransit)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(way)
		for {
			p := packet{bytes: make([]byte, chunk)}
			n, err := from.Read(p.bytes)
			p.bytes, p.err, p.due = p.bytes[:n], err, time.Now().Add(l.oneWay)
			way <- p
			if err != nil {
				return
			}
		}
	})
	defer reading.Wait()
	var broken bool
	for p := range way { // to its end, so that the reader is never stuck
		if broken {
			continue
		}
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.bytes); err != nil {
			broken = true
			reset(from)
			continue
		}
		switch {
		case p.err == nil:
		case p.err == io.EOF:
			to.CloseWrite()
		default:
			reset(to)
		}
	}
}

// reset closes a connection as one is that a process left when it died.
func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}
