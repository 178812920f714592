package groups

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

const (
	// maxIdle bounds the sessions that are kept for the next look-up, idleFor how
	// long: a directory is asked in bursts, and shows it when connections pile up.
	maxIdle = 4
	idleFor = 30 * time.Second

	// maxAnswers bounds what a server may send in a session, in bytes, and thereby
	// the memory it can take.
	maxAnswers = 16 << 20
)

// The library believes any length a server announces and makes room for it.
func init() { ber.MaxPacketLengthBytes = maxAnswers }

// session is a connection to a server that has let us in. It serves one look-up
// at a time.
type session struct {
	conn           *ldap.Conn
	wire           *wire
	server, binder int
	used           bool // by an earlier look-up, so the server may have ended it meanwhile
	read           time.Duration
	tell           time.Duration // the time limit for the server
	deadline       time.Time     // of the look-up
	expiry         *time.Timer
}

// wire is the connection under a session. It bounds what is read.
type wire struct {
	net.Conn
	left atomic.Int64
}

func (w *wire) Read(p []byte) (int, error) {
	if w.left.Load() <= 0 {
		return 0, fmt.Errorf("the server has sent more than %d bytes", maxAnswers)
	}
	n, err := w.Conn.Read(p)
	w.left.Add(int64(-n))
	return n, err
}

// entity is what a search found.
type entity struct {
	dn    string
	entry *ldap.Entry
}

func (e entity) all(attribute string) []string { return e.entry.GetEqualFoldAttributeValues(attribute) }

func (e entity) first(attribute string) (string, bool) {
	values := e.all(attribute)
	if len(values) == 0 {
		return "", false
	}
	return values[0], true
}

// attempt does a look-up with one server and binder. A session that was idle
// and turns out to be dead is no failure of the server.
func (m *directory) attempt(server, binder int, user string, deadline time.Time) ([]string, error) {
	for {
		s, err := m.session(server, binder, deadline)
		if err != nil {
			return nil, m.failure(server, err)
		}
		groups, err := m.lookup(s, user)
		if err == nil {
			m.keep(s)
			return groups, nil
		}
		s.close()
		m.dropIdle()
		if !s.used || !isBroken(err) || !time.Now().Before(deadline) {
			return nil, m.failure(server, err)
		}
	}
}

func (m *directory) failure(server int, err error) error {
	return fmt.Errorf("%s: %w", m.servers[server].url, err)
}

// session returns one that is idle, or opens one.
func (m *directory) session(server, binder int, deadline time.Time) (*session, error) {
	if s := m.takeIdle(server, binder); s != nil {
		s.begin(deadline)
		return s, nil
	}
	ready := deadline
	if m.connectTimeout > 0 {
		ready = earlier(ready, time.Now().Add(m.connectTimeout))
	}
	if len(m.servers) > 1 { // leave time for the others
		ready = earlier(ready, time.Now().Add(m.timeout/time.Duration(m.attempts)))
	}
	s, err := m.open(server, binder, ready)
	if err != nil {
		return nil, err
	}
	s.begin(deadline)
	return s, nil
}

// open connects to a server and binds.
func (m *directory) open(server, binder int, deadline time.Time) (*session, error) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	to := m.servers[server]
	tcp, err := new(net.Dialer).DialContext(ctx, "tcp", to.address)
	if err != nil {
		return nil, timely(err, deadline)
	}
	w := &wire{Conn: tcp}
	w.left.Store(maxAnswers)
	var channel net.Conn = w
	if to.tls != nil {
		secure := tls.Client(w, to.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			tcp.Close()
			return nil, timely(err, deadline)
		}
		channel = secure
	}
	if err := w.SetDeadline(deadline); err != nil {
		tcp.Close()
		return nil, err
	}
	s := &session{conn: ldap.NewConn(channel, to.tls != nil), wire: w, server: server, binder: binder,
		read: m.readTimeout, tell: m.searchTimeout}
	s.conn.Start()
	as := m.binders[binder]
	err = guard(func() error {
		_, err := s.conn.SimpleBind(&ldap.SimpleBindRequest{Username: as.name, Password: as.password, AllowEmptyPassword: as.name == ""})
		return err
	})
	if err != nil {
		s.close()
		return nil, timely(err, deadline)
	}
	return s, nil
}

// begin gives a session to a look-up.
func (s *session) begin(deadline time.Time) {
	s.deadline = deadline
	s.wire.left.Store(maxAnswers)
}

// search finds all entries under base that match. What the server left out is
// an error.
func (s *session) search(base, filter string, attributes []string) ([]entity, error) {
	deadline := s.deadline
	if s.read > 0 {
		deadline = earlier(deadline, time.Now().Add(s.read))
	}
	if err := s.wire.SetDeadline(deadline); err != nil {
		return nil, fmt.Errorf("%w: %w", errBroken, err)
	}
	limit := 0
	if s.tell > 0 {
		limit = int((min(s.tell, time.Until(deadline)) + time.Second - 1) / time.Second)
	}
	var result *ldap.SearchResult
	err := guard(func() (err error) {
		result, err = s.conn.Search(&ldap.SearchRequest{BaseDN: base, Scope: ldap.ScopeWholeSubtree,
			DerefAliases: ldap.DerefAlways, TimeLimit: max(limit, 0), Filter: filter, Attributes: attributes})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("search under %q: %w", base, timely(err, deadline))
	}
	found := make([]entity, len(result.Entries))
	for i, e := range result.Entries {
		found[i] = entity{e.DN, e}
	}
	return found, nil
}

// close ends a session without waiting for the server.
func (s *session) close() {
	_ = s.wire.SetDeadline(time.Unix(1, 0)) // nothing is written or read any more
	_ = s.conn.Close()
}

// keep puts a session aside for the next look-up.
func (m *directory) keep(s *session) {
	if err := s.wire.SetDeadline(time.Time{}); err != nil {
		s.close()
		return
	}
	s.used = true
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.idle) >= maxIdle || s.server != m.server || s.binder != m.binder {
		go s.close()
		return
	}
	m.idle = append(m.idle, s)
	s.expiry = time.AfterFunc(idleFor, func() { m.expire(s) })
}

func (m *directory) expire(s *session) {
	m.mu.Lock()
	i := slices.Index(m.idle, s)
	if i >= 0 {
		m.idle = slices.Delete(m.idle, i, i+1)
	}
	m.mu.Unlock()
	if i >= 0 {
		s.close()
	}
}

// takeIdle returns the session kept last, nil for none.
func (m *directory) takeIdle(server, binder int) *session {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, s := range slices.Backward(m.idle) {
		if s.server == server && s.binder == binder {
			m.idle = slices.Delete(m.idle, i, i+1)
			s.expiry.Stop()
			return s
		}
	}
	return nil
}

// dropIdle closes the sessions that are kept, since one of their kind failed.
func (m *directory) dropIdle() {
	m.mu.Lock()
	idle := m.idle
	m.idle = nil
	m.mu.Unlock()
	for _, s := range idle {
		s.expiry.Stop()
		s.close()
	}
}

var (
	errBroken   = errors.New("the connection is broken")
	errNoAnswer = errors.New("the directory did not answer in time")
)

// guard turns a panic of the library, which takes a server's messages apart
// without looking, into an error.
func guard(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: the server sent what is not LDAP", errBroken)
		}
	}()
	return do()
}

// timely says of an error that comes when the time is over that this is why.
func timely(err error, deadline time.Time) error {
	if network := net.Error(nil); errors.As(err, &network) && network.Timeout() || !time.Now().Before(deadline) {
		return errNoAnswer
	}
	return err
}

// isBroken reports whether an error is of the connection rather than an answer.
func isBroken(err error) bool {
	var answer *ldap.Error
	return !errors.As(err, &answer) || answer.ResultCode >= ldap.ErrorNetwork
}

// isRefusal reports whether the directory does not accept name and password.
func isRefusal(err error) bool { return ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials) }
