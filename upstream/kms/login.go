package kms

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/edekd/edekd/internal/krb5client"
)

// session is the service's login at one node.
type session struct {
	cookie atomic.Pointer[string] // the header's value; nil: to be logged in

	mu      sync.Mutex
	running *login
}

// login is a handshake under way, for all who wait for it.
type login struct {
	done   chan struct{}
	cookie string
	err    error
}

// forget drops a cookie that is no longer taken, unless a newer one is there.
func (s *session) forget(cookie string) {
	if p := s.cookie.Load(); p != nil && *p == cookie {
		s.cookie.CompareAndSwap(p, nil)
	}
}

// credentials returns the Cookie header for requests to a node, "" under simple
// authentication, where the name in the query is enough. The first to need one
// logs in; the others wait for it.
func (c *Client) credentials(ctx context.Context, n *node) (string, error) {
	if c.config.Kerberos == nil {
		return "", nil
	}
	if p := n.session.cookie.Load(); p != nil {
		return *p, nil
	}
	s := &n.session
	s.mu.Lock()
	if p := s.cookie.Load(); p != nil {
		s.mu.Unlock()
		return *p, nil
	}
	l := s.running
	if l == nil {
		l = &login{done: make(chan struct{})}
		s.running = l
		c.logins.Go(func() {
			// Not the first caller's context: the others did not go away with him.
			ctx, cancel := context.WithTimeout(c.ctx, c.set.Attempt())
			defer cancel()
			l.cookie, l.err = c.handshake(ctx, n)
			s.mu.Lock()
			if l.err == nil {
				s.cookie.Store(&l.cookie)
			}
			s.running = nil
			s.mu.Unlock()
			close(l.done)
		})
	}
	s.mu.Unlock()
	select {
	case <-l.done:
		return l.cookie, l.err
	case <-ctx.Done():
		return "", fmt.Errorf("log in: %w", ctx.Err())
	}
}

// handshake sends OPTIONS with the service's credentials and returns the cookie
// that the node gives for them, as a header.
func (c *Client) handshake(ctx context.Context, n *node) (string, error) {
	r := &request{op: "log in", method: http.MethodOptions}
	q, err := http.NewRequestWithContext(ctx, r.method, n.base+c.parameters(r), nil)
	if err != nil {
		return "", err
	}
	q.Header.Set("User-Agent", agent)
	var proof *krb5client.Context
	if k := c.config.Kerberos; k != nil {
		var token []byte
		if token, proof, err = k.begin(n.host); err != nil {
			return "", err
		}
		q.Header.Set("Authorization", "Negotiate "+base64.StdEncoding.EncodeToString(token))
	}
	resp, err := c.pooled.RoundTrip(q)
	if err != nil {
		return "", fmt.Errorf("log in: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		// Not wrapped: an exception here is nobody's answer but edekd's own.
		return "", fmt.Errorf("log in: %v", refused(n, resp))
	}
	io.CopyN(io.Discard, resp.Body, maxError) // for the connection's sake
	if proof != nil {
		if err := verify(proof, resp.Header.Get("WWW-Authenticate")); err != nil {
			return "", fmt.Errorf("log in: the server does not prove that it is HTTP/%s: %w", n.host, err)
		}
	}
	value, err := authCookie(resp.Header)
	if err != nil {
		return "", err
	}
	for field := range strings.SplitSeq(value, "&") {
		if name, ok := strings.CutPrefix(field, "u="); ok {
			c.as.Store(&name)
			break
		}
	}
	return `hadoop.auth="` + value + `"`, nil
}

// authCookie finds the value of Hadoop's cookie.
func authCookie(h http.Header) (string, error) {
	for _, field := range h.Values("Set-Cookie") {
		value, ok := strings.CutPrefix(field, "hadoop.auth=")
		if !ok {
			continue
		}
		value, _, _ = strings.Cut(value, ";")
		value = strings.Trim(value, `"`)
		if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' || r == '"' }) {
			break
		}
		return value, nil
	}
	return "", errors.New("log in: the server gives no hadoop.auth cookie: is this a KMS?")
}

// probe tries a node that is out of use: whether it takes the service's login,
// whether it answers if it did not, and what it has missed.
func (c *Client) probe(ctx context.Context, i int) error {
	n := c.nodes[i]
	cookie, err := c.handshake(ctx, n)
	if err != nil {
		return err
	}
	if c.config.Kerberos != nil {
		n.session.cookie.Store(&cookie)
	}
	if n.broken.Swap(false) { // before the question: what others find out meanwhile stays
		if err := c.unnamed(ctx, n); atFault(err) {
			n.broken.Store(true)
			return err
		}
	}
	return c.settle(ctx, n)
}

// alive asks a node for any answer: with the login that there is, or with none,
// since a new one depends on the KDC, too. A server that says itself that it, or
// the one behind it, is out of order does not live.
func (c *Client) alive(ctx context.Context, i int) error {
	n := c.nodes[i]
	q, err := http.NewRequestWithContext(ctx, http.MethodOptions, n.base+c.parameters(&request{}), nil)
	if err != nil {
		return err
	}
	q.Header.Set("User-Agent", agent)
	if p := n.session.cookie.Load(); p != nil {
		q.Header.Set("Cookie", *p)
	}
	resp, err := c.pooled.RoundTrip(q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, maxError) // for the connection's sake
	if resp.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("%s: %s", n.addr, oneLine(resp.Status, 200))
	}
	return nil
}
