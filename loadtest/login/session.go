package login

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edekd/edekd/loadtest/wire"
)

// Session is one identity at one server: what all connections of one Hadoop
// process to it share. It is safe for concurrent use.
type Session struct {
	identity *Identity
	host     string // as in the service's principal
	addr     string // host:port as in the URL

	mu   sync.Mutex // held during a login, so that one is enough for all
	auth atomic.Pointer[string]
}

// NewSession makes a session that is not logged in yet.
func NewSession(i *Identity, host, addr string) *Session {
	s := &Session{identity: i, host: host, addr: addr}
	if i.token != "" {
		header := "X-Hadoop-Delegation-Token: " + i.token + "\r\n"
		s.auth.Store(&header)
	}
	return s
}

// Identity returns who it is.
func (s *Session) Identity() *Identity { return s.identity }

// AppendTarget completes a request's target with what the identity adds to it.
func (s *Session) AppendTarget(target []byte) []byte { return s.identity.appendAs(target) }

// Auth returns the header lines that say who asks; ok is false before the login.
func (s *Session) Auth() (lines string, ok bool) {
	if p := s.auth.Load(); p != nil {
		return *p, true
	}
	return "", false
}

// Forget drops a cookie that the server no longer takes, unless another one has
// taken its place. A delegation token stays: there is no other.
func (s *Session) Forget(lines string) {
	if p := s.auth.Load(); p != nil && *p == lines && s.identity.NeedsLogin() {
		s.auth.CompareAndSwap(p, nil)
	}
}

// Refusal is a server's no to a login.
type Refusal struct {
	Status int
	Reason string
}

func (r *Refusal) Error() string { return fmt.Sprintf("login refused: %d %s", r.Status, r.Reason) }

var errNoCookie = errors.New("login: the server sent no hadoop.auth cookie")

// Login does the handshake over a connection, unless somebody else has done it in
// the meantime: OPTIONS to the target of the request to come, with nothing; when
// that is answered by 401, again with user.name or a ticket; from then on the
// cookie counts. requests is the number of answers it took.
func (s *Session) Login(c *wire.Conn, target []byte, deadline time.Time) (requests int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.Auth(); ok {
		return 0, nil
	}
	options := wire.Request{Method: "OPTIONS", Target: target, Host: s.addr}
	a, err := c.Do(wire.Append(nil, &options), deadline)
	if err != nil {
		return 0, err
	}
	if a.Status == 401 {
		if c.Over() {
			return 1, errors.New("login: the server closes the connection after its challenge")
		}
		if s.identity.ticket == nil {
			options.Target = append(append(bytes.Clone(target), mark(target)+"user.name="...), url.QueryEscape(s.identity.Name)...)
		} else {
			token, err := s.identity.ticket(s.host)
			if err != nil {
				return 1, err
			}
			options.Auth = "Authorization: Negotiate " + base64.StdEncoding.EncodeToString(token) + "\r\n"
		}
		requests++
		if a, err = c.Do(wire.Append(nil, &options), deadline); err != nil {
			return requests, err
		}
	}
	requests++
	if a.Status != 200 {
		return requests, &Refusal{Status: a.Status, Reason: string(a.Reason)}
	}
	if !s.Note(a) {
		return requests, errNoCookie
	}
	return requests, nil
}

// Note takes over the cookie of an answer, and tells whether there was one. Like
// Java's client, any answer's counts, and an empty one takes it away.
func (s *Session) Note(a *wire.Answer) bool {
	for field := range a.Fields("Set-Cookie") {
		value, ok := bytes.CutPrefix(field, []byte("hadoop.auth="))
		if !ok || !s.identity.NeedsLogin() {
			continue
		}
		if end := bytes.IndexByte(value, ';'); end >= 0 {
			value = value[:end]
		}
		if value = bytes.Trim(value, `"`); len(value) == 0 {
			s.auth.Store(nil)
			return false
		}
		header := `Cookie: hadoop.auth="` + string(value) + "\"\r\n"
		s.auth.Store(&header)
		return true
	}
	return false
}
