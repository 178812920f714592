package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

const (
	firstBuffer = 8 << 10
	keptBuffer  = 1 << 20  // a larger buffer is given back after the answer
	maxHead     = 64 << 10 // bytes of status line and header
	maxBody     = 64 << 20 // bytes of an answer's body
)

// ErrUnanswered means that the server closed the connection before the first byte
// of an answer. On a connection used before, it had probably closed an idle one:
// Java's client then sends the request again, once.
var ErrUnanswered = errors.New("connection closed before an answer")

// Dialer opens connections to one address.
type Dialer struct {
	Addr string      // host:port
	TLS  *tls.Config // nil: plain TCP
}

// Conn is one connection. Only Abort may be called while another method runs.
type Conn struct {
	conn   net.Conn
	buf    []byte
	filled int
	used   bool // an answer has been read
	over   bool // no more answers will come
	answer Answer
}

// Dial opens a connection, TLS handshake included, before the deadline.
func (d *Dialer) Dial(ctx context.Context, deadline time.Time) (*Conn, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", d.Addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	if d.TLS != nil {
		secured := tls.Client(conn, d.TLS)
		if err := secured.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fmt.Errorf("TLS handshake: %w", err)
		}
		conn = secured
	}
	return newConn(conn), nil
}

func newConn(conn net.Conn) *Conn { return &Conn{conn: conn, buf: make([]byte, firstBuffer)} }

// Used tells whether an answer has come over the connection before.
func (c *Conn) Used() bool { return c.used }

// Over tells that the connection is of no more use: after an error, or an answer
// that ended it.
func (c *Conn) Over() bool { return c.over }

// Abort makes a running Do fail soon, and all later ones.
func (c *Conn) Abort() error { return c.conn.SetDeadline(time.Unix(1, 0)) }

// Close closes the connection and clears what was read from it.
func (c *Conn) Close() error {
	clear(c.buf)
	return c.conn.Close()
}

// Do sends the bytes of one request and reads the answer, which stays valid until
// the next call. See Over for whether another call makes sense.
func (c *Conn) Do(request []byte, deadline time.Time) (*Answer, error) {
	c.wipe()
	c.over = true
	if err := c.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(request); err != nil {
		if c.used && !isTimeout(err) {
			return nil, fmt.Errorf("%w: %w", ErrUnanswered, err)
		}
		return nil, err
	}
	if err := c.read(); err != nil {
		if c.filled == 0 && !isTimeout(err) {
			return nil, fmt.Errorf("%w: %w", ErrUnanswered, err)
		}
		return nil, err
	}
	c.used, c.over = true, c.answer.Close
	return &c.answer, nil
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// wipe clears the last answer.
func (c *Conn) wipe() {
	clear(c.buf[:c.filled])
	c.filled = 0
	if len(c.buf) > keptBuffer {
		c.buf = make([]byte, firstBuffer)
	}
}

// fill reads some more bytes; the buffer grows, up to the limit.
func (c *Conn) fill(limit int) error {
	if c.filled == len(c.buf) {
		if c.filled >= limit {
			return fmt.Errorf("an answer of more than %d bytes", limit)
		}
		grown := make([]byte, min(2*len(c.buf), limit))
		copy(grown, c.buf)
		clear(c.buf)
		c.buf = grown
	}
	n, err := c.conn.Read(c.buf[c.filled:])
	c.filled += n
	if n > 0 {
		return nil
	}
	return err
}
