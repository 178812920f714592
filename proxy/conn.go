package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// A connection closed while the peer is still sending is reset, and a reset
// can overtake the answer just written. So after an answer to a request that
// was not read whole, the connection is half closed and what still comes is
// thrown away for a moment.
const (
	lingerTime  = time.Second
	lingerBytes = 32 << 20
)

// Listener wraps l for Serve, so that refusals of unread requests arrive.
// Wrap the TCP listener, or peer's over it, beneath TLS.
func Listener(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newConn(c), nil
}

// conn is a connection of one client.
type conn struct {
	net.Conn
	linger      atomic.Bool
	begun       time.Time
	read, write deadline
}

func newConn(c net.Conn) *conn { return &conn{Conn: c, begun: time.Now()} }

// deadline is one that is put off many times before it passes, if it ever does:
// fasthttp sets three for each request. The connection beneath, for which each
// costs as much as a small request's parsing, is told only before it might wait
// longer than wanted, and when it has given up too early. So a deadline counts
// for reads or writes that begin after it was set.
//
// TLS closes idle connections from another goroutine than the one that serves
// them, with a write: both may set deadlines.
type deadline struct {
	wanted, set atomic.Int64 // ns since the connection's begin, 0: none
}

func (d *deadline) want(c *conn, t time.Time) {
	var at int64
	if !t.IsZero() {
		at = max(1, int64(t.Sub(c.begun)))
	}
	d.wanted.Store(at)
}

// late reports whether the connection beneath might wait too long.
func (d *deadline) late() bool {
	wanted, set := d.wanted.Load(), d.set.Load()
	return wanted != 0 && (set == 0 || wanted < set)
}

// early reports whether err says that the connection beneath has waited for as
// long as it was told, and that was not long enough.
func (d *deadline) early(c *conn, err error) bool {
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	wanted := d.wanted.Load()
	return wanted != d.set.Load() && (wanted == 0 || int64(time.Since(c.begun)) < wanted)
}

// tell sets the deadline beneath.
func (d *deadline) tell(c *conn, set func(time.Time) error) error {
	wanted := d.wanted.Load()
	var t time.Time
	if wanted != 0 {
		t = c.begun.Add(time.Duration(wanted))
	}
	d.set.Store(wanted)
	return set(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.read.want(c, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.write.want(c, t)
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	c.read.want(c, t)
	c.write.want(c, t)
	return nil
}

func (c *conn) Read(p []byte) (int, error) {
	tell := c.read.late()
	for {
		if tell {
			if err := c.read.tell(c, c.Conn.SetReadDeadline); err != nil {
				return 0, err
			}
		}
		n, err := c.Conn.Read(p)
		if tell = c.read.early(c, err); !tell || n > 0 {
			return n, err
		}
	}
}

func (c *conn) Write(p []byte) (n int, err error) {
	tell := c.write.late()
	for {
		if tell {
			if err := c.write.tell(c, c.Conn.SetWriteDeadline); err != nil {
				return n, err
			}
		}
		var m int
		m, err = c.Conn.Write(p[n:])
		n += m
		if tell = c.write.early(c, err); !tell {
			return n, err
		}
	}
}

func (c *conn) Close() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && c.linger.Load() {
		if half.CloseWrite() == nil && c.Conn.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
			io.CopyN(io.Discard, c.Conn, lingerBytes)
		}
	}
	return c.Conn.Close()
}

// linger marks a connection for a slow close.
func linger(nc net.Conn) {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	if c, ok := nc.(*conn); ok {
		c.linger.Store(true)
	}
}
