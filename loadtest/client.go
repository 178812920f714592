package loadtest

import (
	"context"
	"crypto/tls"
	"errors"
	"sync/atomic"
	"time"

	"github.com/edekd/edekd/loadtest/login"
	"github.com/edekd/edekd/loadtest/target"
	"github.com/edekd/edekd/loadtest/wire"
)

// client is one connection to one server, opened when it is needed. Only abort may
// be called while another method runs.
type client struct {
	dialer  wire.Dialer
	addr    string // host:port as in the URL
	base    string // path before what is asked
	timeout time.Duration
	counted func() // called for each answer

	conn    *wire.Conn
	current atomic.Pointer[wire.Conn] // conn, for abort
	target  []byte
	request []byte
}

func newClient(t target.Target, config *tls.Config, timeout time.Duration, counted func()) *client {
	c := &client{dialer: wire.Dialer{Addr: t.Addr}, addr: t.Addr, base: t.Path + "/v1/", timeout: timeout, counted: counted}
	if t.TLS {
		config = config.Clone()
		config.ServerName = t.Host
		c.dialer.TLS = config
	}
	return c
}

// close ends the connection.
func (c *client) close() {
	if c.conn != nil {
		c.current.Store(nil)
		c.conn.Close()
		c.conn = nil
	}
}

// abort makes a running request fail soon.
func (c *client) abort() {
	if conn := c.current.Load(); conn != nil {
		conn.Abort()
	}
}

// connect sees to a connection that can be used.
func (c *client) connect(ctx context.Context, deadline time.Time) error {
	if c.conn != nil && !c.conn.Over() {
		return nil
	}
	c.close()
	conn, err := c.dialer.Dial(ctx, deadline)
	if err != nil {
		return err
	}
	c.conn = conn
	c.current.Store(conn)
	return nil
}

// do sends one request and returns the answer, valid until the next call. path
// follows /kms/v1/. Like Hadoop's client on Java's, it logs in first where that is
// needed, once more when it is told 401, and sends again when a connection used
// before turns out to have been closed.
func (c *client) do(ctx context.Context, s *login.Session, method string, path, body []byte) (*wire.Answer, error) {
	deadline := time.Now().Add(c.timeout)
	c.target = s.AppendTarget(append(append(c.target[:0], c.base...), path...))
	for resent, again := false, false; ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := c.connect(ctx, deadline); err != nil {
			return nil, err
		}
		used := c.conn.Used()
		a, auth, err := c.once(s, method, body, deadline)
		switch {
		case err != nil && errors.Is(err, wire.ErrUnanswered) && used && !resent:
			resent = true
		case err != nil:
			return nil, err
		case a == nil: // logged in, and the connection ended with it
		case a.Status == 401 && !again && s.Identity().NeedsLogin():
			s.Forget(auth)
			again = true
		default:
			return a, nil
		}
	}
}

// once logs in if need be and sends the request. Without answer and error the
// connection was over after the login.
func (c *client) once(s *login.Session, method string, body []byte, deadline time.Time) (a *wire.Answer, auth string, err error) {
	auth, ok := s.Auth()
	if !ok {
		if err := c.login(s, deadline); err != nil {
			return nil, "", err
		}
		if c.conn.Over() {
			return nil, "", nil
		}
		auth, _ = s.Auth()
	}
	c.request = wire.Append(c.request[:0], &wire.Request{Method: method, Target: c.target, Host: c.addr, Auth: auth, Body: body})
	if a, err = c.conn.Do(c.request, deadline); err != nil {
		return nil, "", err
	}
	c.counted()
	s.Note(a)
	return a, auth, nil
}

// login does the handshake on the connection that is open.
func (c *client) login(s *login.Session, deadline time.Time) error {
	n, err := s.Login(c.conn, c.target, deadline)
	for range n {
		c.counted()
	}
	return err
}
