package zookeeper

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/edekd/edekd/proxy/authn/secret"
)

const (
	// lookInterval is how often the node is read although no change was told.
	lookInterval = time.Minute
	// repairInterval is how long to wait after something went wrong.
	repairInterval = time.Second
)

// SecretsStatus is what the signing secrets are like.
type SecretsStatus struct {
	// Read is when the node was last read. While it lags, cookies are signed
	// with secrets known from before.
	Read time.Time
	// Err is what has been wrong since then, nil if nothing is.
	Err error
	// Due is when the secrets roll over next.
	Due time.Time
}

// Secrets follows the signing secrets that Java's ZKSignerSecretProvider keeps
// in a node, and rolls them over with the other servers.
//
// The node has the current secret, the one before it, and the next one, so that
// all servers roll over at the same moment without asking each other. After
// that each proposes a new next secret and the first one wins. A secret signs
// for one validity period and verifies for another; a cookie lives no longer
// than one. Whoever writes other secrets into the node ends the old ones: every
// server that reaches ZooKeeper follows at once, and within a minute at the
// latest.
//
// While ZooKeeper cannot be reached the known secrets go on: at the next
// roll-over the one that all servers agreed on becomes current, as on every
// other server, and then signs until ZooKeeper is back, however long that takes.
// Secrets that verify only end as if ZooKeeper was there.
type Secrets struct {
	c        *conn
	path     string
	validity time.Duration
	log      *slog.Logger
	ring     *secret.Ring

	// Owned by the goroutine of follow, and by openSecrets before it.
	next, current, previous []byte
	due                     time.Time
	version                 int32 // of the node that next comes from

	mu     sync.Mutex
	status SecretsStatus

	changed chan struct{} // asks for a look at the node
	watched atomic.Bool   // the node's next change will be told
	stop    context.CancelFunc
	done    sync.WaitGroup
}

// openSecrets makes the node, or reads the one that another server made.
func openSecrets(ctx context.Context, c *conn, cfg SecretsConfig, log *slog.Logger) (*Secrets, error) {
	if cfg.Validity <= 0 {
		return nil, fmt.Errorf("signing secrets: validity %v is not positive: set token.validity to a number of seconds above 0", cfg.Validity)
	}
	s := &Secrets{c: c, path: cfg.Path, validity: cfg.Validity, log: log, changed: make(chan struct{}, 1)}
	c.observe(s)
	if err := s.look(ctx); err != nil {
		return nil, fmt.Errorf("signing secrets in ZooKeeper: %w", err)
	}
	c.warnIfOpen(ctx, s.path, "cookies")
	background, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.done.Go(func() { s.follow(background) })
	return s, nil
}

// close ends following. The ring keeps its last secrets.
func (s *Secrets) close() {
	s.stop()
	s.done.Wait()
}

// Ring returns the secrets to sign and verify with. It is the same one always.
func (s *Secrets) Ring() *secret.Ring { return s.ring }

// Status returns what the secrets are like at the moment.
func (s *Secrets) Status() SecretsStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// node implements observer.
func (s *Secrets) node(path string) {
	if path == s.path {
		s.watched.Store(false)
		s.wake()
	}
}

// reconnected implements observer.
func (s *Secrets) reconnected() {
	s.watched.Store(false)
	s.wake()
}

func (s *Secrets) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// follow looks when there is something to see, and rolls over when it is time.
func (s *Secrets) follow(ctx context.Context) {
	wait := lookInterval
	for {
		timer := time.NewTimer(min(wait, time.Until(s.due)))
		select {
		case <-timer.C:
		case <-s.changed:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
		if now := time.Now(); !now.Before(s.due) {
			s.rollOver(ctx, now)
		}
		// A server that does not answer must not put off the roll-over.
		limited, cancel := context.WithDeadline(ctx, s.due)
		wait = lookInterval
		if err := s.look(limited); err != nil {
			wait = repairInterval
		}
		cancel()
	}
}

// rollOver makes the next secret current. When it is not known, because
// ZooKeeper has been away for longer than a period, the current one goes on.
func (s *Secrets) rollOver(ctx context.Context, now time.Time) {
	previous := s.current
	if len(s.next) > 0 {
		s.current, s.next = s.next, nil
	} else {
		previous = nil
	}
	clear(s.previous)
	s.previous = previous
	s.due = s.due.Add((now.Sub(s.due)/s.validity + 1) * s.validity)
	s.ring.Replace(s.current, s.previous)
	if len(previous) > 0 {
		// The first of the servers to get here decides. Who comes later, or
		// does not reach ZooKeeper, learns more from look.
		_ = s.propose(ctx, s.version)
	}
}

// propose writes a new next secret and what is current into the node of the
// given version, or makes the node for version -1.
func (s *Secrets) propose(ctx context.Context, version int32) error {
	n := secretNode{next: randomSecret(), current: s.current, previous: s.previous, roll: s.due.UnixMilli()}
	data := n.append(nil)
	var err error
	if version < 0 {
		if err = s.c.makeFolder(ctx, parent(s.path)); err == nil {
			err = s.c.create(ctx, s.path, data)
		}
	} else {
		_, err = s.c.set(ctx, s.path, data, version)
	}
	if err == nil {
		clear(data)
	}
	return err
}

// look reads the node and follows it. The watch of the reading before, if it has
// not been used up, stays.
func (s *Secrets) look(ctx context.Context) error {
	err := s.lookOnce(ctx)
	// A lost race is settled by who won it.
	for range 5 {
		if !errors.Is(err, zk.ErrBadVersion) && !errors.Is(err, zk.ErrNodeExists) && !errors.Is(err, zk.ErrNoNode) && !errors.Is(err, errAgain) {
			break
		}
		err = s.lookOnce(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.status.Err == nil && ctx.Err() == nil && s.ring != nil {
		s.log.Error("signing secrets do not follow ZooKeeper, those known go on", "err", err)
	}
	s.status.Err, s.status.Due = err, s.due
	if err == nil {
		s.status.Read = time.Now()
	}
	return err
}

// errAgain says that the node was written and is to be read.
var errAgain = errors.New("read again")

func (s *Secrets) lookOnce(ctx context.Context) error {
	watch := !s.watched.Swap(true)
	raw, err := s.c.get(ctx, s.path, watch)
	if err != nil && watch {
		s.watched.Store(false)
	}
	if errors.Is(err, zk.ErrNoNode) {
		return s.create(ctx)
	}
	if err != nil {
		return err
	}
	defer clear(raw.data)
	n, err := parseSecretNode(raw.data)
	if err != nil {
		return fmt.Errorf("%s holds no signing secrets: %w: name another path, or stop all servers that use it and remove the node", s.c.settings.Chroot+s.path, err)
	}
	return s.adopt(ctx, n, raw.version)
}

// create makes the node, with what is known if it was there before.
func (s *Secrets) create(ctx context.Context) error {
	if s.ring != nil {
		s.log.Warn("the node of the signing secrets was removed, it is made again with the secrets known", "node", s.path)
		if err := s.propose(ctx, -1); err != nil {
			return err
		}
		return errAgain
	}
	s.current, s.due = randomSecret(), time.Now().Add(s.validity)
	err := s.propose(ctx, -1)
	clear(s.current)
	s.current, s.due = nil, time.Time{}
	if err != nil {
		return err
	}
	return errAgain
}

// adopt takes over what the node says. Copies are made of what is kept.
func (s *Secrets) adopt(ctx context.Context, n *secretNode, version int32) error {
	now := time.Now()
	switch {
	case s.ring == nil:
		ring, err := secret.NewShared(n.current, n.previous)
		if err != nil {
			return err
		}
		s.ring = ring
		s.take(n, n.due(now, s.validity))
	case secret.Equal(n.current, s.current):
		// As expected: only next may be news.
		s.take(&secretNode{next: n.next, current: s.current, previous: s.previous}, s.due)
	case secret.Equal(n.next, s.current):
		// We rolled over and nobody could write it down.
		if err := s.propose(ctx, version); err != nil {
			return err
		}
		return errAgain
	case secret.Equal(n.current, s.next):
		// Another server's clock is ahead. Some Java servers write dates that
		// have passed; the next roll-over is a period away all the same.
		s.take(n, n.due(now.Add(s.validity/2), s.validity))
	default:
		s.log.Warn("the signing secrets in ZooKeeper are others than those known here and are taken over: cookies signed with ours end", "node", s.path)
		s.take(n, n.due(now, s.validity))
	}
	s.version = version
	return nil
}

// take keeps copies of the node's secrets.
func (s *Secrets) take(n *secretNode, due time.Time) {
	next, current, previous := clone(n.next), clone(n.current), clone(n.previous)
	for _, old := range [][]byte{s.next, s.current, s.previous} {
		clear(old)
	}
	s.next, s.current, s.previous, s.due = next, current, previous, due
	s.ring.Replace(current, previous)
}

func clone(b []byte) []byte { return append([]byte(nil), b...) }

func randomSecret() []byte {
	b := make([]byte, secretSize)
	rand.Read(b) // never fails
	return b
}
