package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

const (
	// maxCalls bounds the requests under way at once; more wait.
	maxCalls = 64
	// maxPacket bounds what is read from the server at once, in bytes: the names
	// of maxListed nodes.
	maxPacket = 64 << 20
	// patience is how long a request waits for a connection that is gone: the
	// time in which another server of the ensemble is found as a rule. After
	// that, requests fail at once until there is a connection again.
	patience = 3 * time.Second
	// silence is how long a server may keep a request waiting. After that its
	// connection ends and another server is tried, sooner than the library would,
	// which lets a server be silent for two thirds of the session timeout.
	silence = 5 * time.Second
)

// ErrAway is in every error that says that ZooKeeper could not be asked.
var ErrAway = errors.New("ZooKeeper is out of reach")

// Status is what the connection is like.
type Status struct {
	Connected bool
	Since     time.Time // when it came to be so
	Err       error     // why the last attempt to connect failed; nil while connected
}

// conn is a session, and the one that follows when it expires.
type conn struct {
	settings Settings
	zk       *zk.Conn
	dialer   *dialer
	acl      []zk.ACL
	log      *slog.Logger
	slots    chan struct{}
	stop     context.CancelFunc
	drained  chan struct{}

	mu        sync.Mutex
	connected bool
	closed    bool
	since     time.Time
	changed   chan struct{} // closed when connected changes
	session   uint64        // counts connections made
	observers []observer
}

// observer is told what happens, in order, and must not block.
type observer interface {
	// node tells that a watched node changed, which ends the watch.
	node(path string)
	// reconnected tells of a new connection, after any number of lost ones. All
	// watches are gone.
	reconnected()
}

// connect begins a session and waits for it. Everything it starts ends with
// close, or with its error.
func connect(ctx context.Context, s Settings, log *slog.Logger) (*conn, error) {
	if len(s.Servers) == 0 {
		return nil, errors.New("ZooKeeper: no server is named")
	}
	lifetime, stop := context.WithCancel(context.Background())
	c := &conn{
		settings: s,
		acl:      zk.WorldACL(zk.PermAll),
		log:      log,
		slots:    make(chan struct{}, maxCalls),
		stop:     stop,
		drained:  make(chan struct{}),
		since:    time.Now(),
		changed:  make(chan struct{}),
	}
	c.dialer = &dialer{ctx: lifetime, timeout: max(time.Second, s.ConnectTimeout/time.Duration(len(s.Servers)))}
	if s.Principal != "" {
		c.dialer.login = newKerberos(s.Principal, s.Keytab)
		if _, err := c.dialer.login.Client(); err != nil {
			stop()
			return nil, fmt.Errorf("log in to ZooKeeper: %w", err)
		}
		c.acl = []zk.ACL{{Perms: zk.PermAll, Scheme: "sasl", ID: s.identity()}}
	}
	var events <-chan zk.Event
	var err error
	c.mu.Lock() // the callback waits until zk is set
	c.zk, events, err = zk.Connect(s.Servers, s.SessionTimeout,
		zk.WithDialer(c.dialer.dial), zk.WithHostProvider(new(hosts)), zk.WithMaxBufferSize(maxPacket),
		zk.WithEventCallback(c.event), zk.WithLogInfo(false), zk.WithLogger(libraryLog{log}))
	c.mu.Unlock()
	if err != nil {
		stop()
		return nil, fmt.Errorf("ZooKeeper: %w", err)
	}
	go func() {
		for range events {
		}
		close(c.drained)
	}()
	limit := s.ConnectTimeout
	if c.dialer.login != nil {
		limit += kdcPatience
	}
	log.Info("connecting to ZooKeeper", "servers", strings.Join(s.Servers, ","), "wait", limit)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := c.await(ctx, limit); err != nil {
		c.close()
		return nil, err
	}
	if err := c.makeFolder(ctx, ""); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// close ends the session and waits for what connect started.
func (c *conn) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.zk.Close()
	c.stop()
	<-c.drained
}

func (c *conn) status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Status{Connected: c.connected, Since: c.since}
	if !s.Connected {
		s.Err = c.dialer.lastFault()
	}
	return s
}

// observe adds an observer. It learns nothing of what happened before.
func (c *conn) observe(o observer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.observers = append(c.observers, o)
}

// connection returns a number that changes with each new connection, 0 while
// there is none.
func (c *conn) connection() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.connected {
		return 0
	}
	return c.session
}

// event is called by the library's reader, in the order of what the server says.
func (c *conn) event(e zk.Event) {
	c.mu.Lock()
	var tell func(observer)
	switch {
	case e.Type != zk.EventSession:
		if path, ok := strings.CutPrefix(e.Path, c.settings.Chroot); ok {
			tell = func(o observer) { o.node(path) }
		}
	case e.State == zk.StateHasSession && !c.connected:
		if c.session++; c.session > 1 {
			c.log.Info("ZooKeeper is connected again", "server", e.Server, "away", time.Since(c.since).Round(time.Millisecond))
		}
		c.turn(true)
		tell = observer.reconnected
	case e.State == zk.StateDisconnected && c.connected:
		c.turn(false)
		if !c.closed {
			c.log.Warn("the connection to ZooKeeper is lost", "server", e.Server)
		}
	}
	observers := c.observers
	c.mu.Unlock()
	if tell != nil {
		for _, o := range observers {
			tell(o)
		}
	}
}

func (c *conn) turn(connected bool) {
	c.connected, c.since = connected, time.Now()
	close(c.changed)
	c.changed = make(chan struct{})
}

// await waits for a connection, until it has been gone for the given time.
func (c *conn) await(ctx context.Context, limit time.Duration) error {
	for {
		c.mu.Lock()
		connected, since, changed := c.connected, c.since, c.changed
		c.mu.Unlock()
		if connected {
			return nil
		}
		timer := time.NewTimer(time.Until(since.Add(limit)))
		select {
		case <-changed:
			timer.Stop()
			continue
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		gone := fmt.Sprintf("for %v", time.Since(since).Round(time.Millisecond))
		if fault := c.dialer.lastFault(); fault != nil {
			return fmt.Errorf("%w %s: %w", ErrAway, gone, fault)
		}
		return fmt.Errorf("%w %s", ErrAway, gone)
	}
}

// ask runs one request. With again it is repeated when the connection broke
// under it, so it must be one that may happen twice; without, the error then
// leaves open whether it happened.
func ask[T any](ctx context.Context, c *conn, again bool, f func(*zk.Conn) (T, error)) (T, error) {
	var none T
	ctx, cancel := context.WithTimeout(ctx, c.settings.ConnectTimeout)
	defer cancel()
	for attempt := 0; ; attempt++ {
		if err := c.await(ctx, patience); err != nil {
			return none, err
		}
		connection, begun := c.connection(), time.Now()
		answer, err := once(ctx, c, f)
		if errors.Is(err, context.DeadlineExceeded) && time.Since(begun) >= silence && c.connection() == connection {
			c.log.Warn("a server of ZooKeeper does not answer, another one is tried", "server", c.zk.Server())
			c.dialer.hangUp()
		}
		switch {
		case !isAway(err):
			return answer, err
		case (again || errors.Is(err, zk.ErrNoServer)) && attempt < c.settings.Retries && ctx.Err() == nil:
			continue
		}
		return none, fmt.Errorf("%w: %w", ErrAway, err)
	}
}

// isAway tells errors of the connection from answers of the server.
func isAway(err error) bool {
	for _, e := range []error{zk.ErrConnectionClosed, zk.ErrSessionExpired, zk.ErrNoServer, zk.ErrClosing,
		zk.ErrSessionMoved, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// once runs f, which knows no context, in a goroutine that may outlive the call.
func once[T any](ctx context.Context, c *conn, f func(*zk.Conn) (T, error)) (T, error) {
	var none T
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return none, ctx.Err()
	}
	type outcome struct {
		answer T
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		defer func() { <-c.slots }()
		answer, err := f(c.zk)
		done <- outcome{answer, err}
	}()
	select {
	case o := <-done:
		return o.answer, o.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// node is what a read returns.
type node struct {
	data    []byte
	version int32
}

// get reads a node, and watches it if it exists and watch is set. Watches end
// with the connection: what observers are told of as reconnected.
func (c *conn) get(ctx context.Context, path string, watch bool) (node, error) {
	if watch {
		defer c.dialer.watch(c.settings.Chroot + path)()
	}
	return ask(ctx, c, true, func(z *zk.Conn) (node, error) {
		data, stat, err := z.Get(c.settings.Chroot + path)
		if err != nil {
			return node{}, explain(err, path)
		}
		return node{data: data, version: stat.Version}, nil
	})
}

// set replaces what a node of the given version holds, whatever its version for
// -1, and returns the new version.
func (c *conn) set(ctx context.Context, path string, data []byte, version int32) (int32, error) {
	return ask(ctx, c, false, func(z *zk.Conn) (int32, error) {
		stat, err := z.Set(c.settings.Chroot+path, data, version)
		if err != nil {
			return 0, explain(err, path)
		}
		return stat.Version, nil
	})
}

func (c *conn) create(ctx context.Context, path string, data []byte) error {
	_, err := ask(ctx, c, false, func(z *zk.Conn) (struct{}, error) {
		_, err := z.Create(c.settings.Chroot+path, data, 0, c.acl)
		return struct{}{}, explain(err, path)
	})
	return err
}

func (c *conn) delete(ctx context.Context, path string, version int32) error {
	_, err := ask(ctx, c, false, func(z *zk.Conn) (struct{}, error) {
		return struct{}{}, explain(z.Delete(c.settings.Chroot+path, version), path)
	})
	return err
}

func (c *conn) children(ctx context.Context, path string) ([]string, error) {
	return ask(ctx, c, true, func(z *zk.Conn) ([]string, error) {
		names, _, err := z.Children(c.settings.Chroot + path)
		return names, explain(err, path)
	})
}

// parent returns the path above a path, "" above which nothing is.
func parent(path string) string { return path[:strings.LastIndexByte(path, '/')] }

// count returns how many children a node has.
func (c *conn) count(ctx context.Context, path string) (int, error) {
	return ask(ctx, c, true, func(z *zk.Conn) (int, error) {
		_, stat, err := z.Get(c.settings.Chroot + path)
		if err != nil {
			return 0, explain(err, path)
		}
		return int(stat.NumChildren), nil
	})
}

// sync returns when the server that is asked knows all that the ensemble knew
// when it was called, and has told of what was watched.
func (c *conn) sync(ctx context.Context, path string) error {
	_, err := ask(ctx, c, true, func(z *zk.Conn) (string, error) {
		return z.Sync(c.settings.Chroot + path)
	})
	return err
}

// makeFolder makes a node and those above it, the one the connection string ends
// in included, unless they exist. The path "" is that one.
func (c *conn) makeFolder(ctx context.Context, path string) error {
	full := c.settings.Chroot + path
	for end := 1; end <= len(full); end++ {
		if end < len(full) && full[end] != '/' {
			continue
		}
		_, err := ask(ctx, c, true, func(z *zk.Conn) (struct{}, error) {
			exists, _, err := z.Exists(full[:end])
			if err == nil && !exists {
				_, err = z.Create(full[:end], nil, 0, c.acl)
			}
			return struct{}{}, err
		})
		if err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return fmt.Errorf("make %s: %w", full[:end], explain(err, full[:end]))
		}
	}
	return nil
}

// openToAll reports whether everybody who reaches ZooKeeper may read a node.
func (c *conn) openToAll(ctx context.Context, path string) (bool, error) {
	return ask(ctx, c, true, func(z *zk.Conn) (bool, error) {
		acl, _, err := z.GetACL(c.settings.Chroot + path)
		for _, a := range acl {
			if a.Scheme == "world" && a.Perms&zk.PermRead != 0 {
				return true, nil
			}
		}
		return false, explain(err, path)
	})
}

// warnIfOpen logs when everybody may read a node, which holds what the words say.
func (c *conn) warnIfOpen(ctx context.Context, path, what string) {
	open, err := c.openToAll(ctx, path)
	switch {
	case err != nil:
		c.log.Warn("who may read a node of ZooKeeper was not found out", "node", c.settings.Chroot+path, "err", err)
	case open && c.settings.Principal == "":
		c.log.Warn("everybody who reaches ZooKeeper can read the secrets of "+what+": set the auth type to sasl", "node", c.settings.Chroot+path)
	case open:
		c.log.Warn("everybody who reaches ZooKeeper can read the secrets of "+what+", made before the auth type was sasl: give the nodes the ACL of this server", "node", c.settings.Chroot+path, "acl", "sasl:"+c.settings.identity()+":cdrwa")
	}
}

// explain says what to look at when ZooKeeper knows the node but not us.
func explain(err error, path string) error {
	if errors.Is(err, zk.ErrNoAuth) || errors.Is(err, zk.ErrInvalidACL) {
		return fmt.Errorf("%s: %w: give all servers the same auth type and principals with the same first part, "+
			"and see that ZooKeeper removes host and realm from principals (kerberos.removeHostFromPrincipal, kerberos.removeRealmFromPrincipal)", path, err)
	}
	return err
}

// libraryLog takes the library's messages, all of which it means as errors.
type libraryLog struct{ log *slog.Logger }

func (l libraryLog) Printf(format string, args ...any) {
	l.log.Debug("ZooKeeper client: " + strings.TrimSpace(fmt.Sprintf(format, args...)))
}
