package groups

import (
	"container/list"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edekd/edekd/hadoop/conf"
)

const (
	// staleFactor times T is how long groups are served while look-ups fail.
	staleFactor = 10
	// pause is how long a look-up that failed is not repeated.
	pause = time.Second
	// maxEntries bounds the users that are remembered; the one asked for
	// longest ago gives way.
	maxEntries = 10_000
	// maxName bounds the names that are looked up, in bytes; directories of the
	// Windows kind allow about this much.
	maxName = 1024
	// maxRunning bounds the look-ups that run at the same time, each of which
	// may hold a thread or a process.
	maxRunning = 16
	// maxFlights bounds the look-ups that run or wait to.
	maxFlights = 1000
)

var (
	errTimeout = errors.New("the look-up takes too long: is the directory (SSSD or nslcd of this host, or the LDAP server) reachable?")
	errBusy    = errors.New("too many look-ups are waiting: is the directory (SSSD or nslcd of this host, or the LDAP server) reachable?")
)

// generations gives every Cache of the process values of its own.
var generations atomic.Uint64

// Cache is a Mapping that remembers. It looks a user up once at a time however
// many ask, renews entries in the background before they run out, and serves
// what it knows while look-ups fail. See the package comment for the times.
// Make one with New. It needs no closing: connections to an LDAP server that are
// not used end by themselves within 30 s.
type Cache struct {
	// OnFailure, if set before the first use, is told of every look-up that
	// fails or takes too long, also where callers do not notice because known
	// groups are served. For each user about one a second comes.
	OnFailure func(err error)

	mapping  Mapping
	static   map[string][]string
	warnings []conf.Warning
	files    []string
	ttl      time.Duration // T: how long groups are believed
	negative time.Duration // the same for the absence of groups; not at all if not positive
	timeout  time.Duration // of one look-up
	running  chan struct{} // holds a value for each look-up that runs

	generation atomic.Uint64

	mu      sync.Mutex
	entries map[string]*list.Element
	order   list.List // of *entry, the last used first
	flights map[string]*flight
}

// entry is what is known of a user.
type entry struct {
	user    string
	groups  []string
	began   time.Time // of the look-up that told the groups; zero if none did
	expired bool      // by Refresh
	failed  time.Time // when the last look-up failed; zero if it did not
	err     error     // why it did
}

// flight is a look-up that is waited for. It stays among the Cache's flights
// when nobody waits any longer, so that no second one is started.
type flight struct {
	user   string
	began  time.Time
	done   chan struct{}
	once   sync.Once // closes done, after groups and err were set
	groups []string
	err    error
}

// land lets those who wait for f go on. Only the first call counts.
func (f *flight) land(groups []string, err error) {
	f.once.Do(func() {
		f.groups, f.err = groups, err
		close(f.done)
	})
}

// Membership is the groups of a user, and how long they may be remembered.
type Membership struct {
	// Groups must not be changed.
	Groups []string
	// Until is when the Cache must be asked again. Asking then, rather than
	// when the groups run out, is what lets them be renewed in the background.
	Until time.Time
}

func newCache(mapping Mapping, ttl, negative, timeout time.Duration) *Cache {
	c := &Cache{
		mapping:  mapping,
		ttl:      ttl,
		negative: negative,
		timeout:  timeout,
		running:  make(chan struct{}, maxRunning),
		entries:  map[string]*list.Element{},
		flights:  map[string]*flight{},
	}
	c.generation.Store(generations.Add(1))
	return c
}

// Warnings returns what was noticed in the properties that New read.
func (c *Cache) Warnings() []conf.Warning { return c.warnings }

// Files returns the files that New read beside the configuration: passwords and
// truststores for LDAP. When one changes, New should be called again.
func (c *Cache) Files() []string { return c.files }

// Generation changes whenever the groups of some user turn out to be others
// than the Cache said before, and at Refresh. No two Caches of a process ever
// have the same. Conclusions drawn from groups are to be remembered together
// with the generation read before the groups were asked for, and to be
// forgotten when it is no longer the current one.
func (c *Cache) Generation() uint64 { return c.generation.Load() }

// Refresh makes every entry run out at once; what is known serves only while
// look-ups fail. Nothing that is being looked up is waited for by later callers.
func (c *Cache) Refresh() {
	c.mu.Lock()
	clear(c.flights)
	for _, element := range c.entries {
		e := element.Value.(*entry)
		e.expired, e.failed, e.err = true, time.Time{}, nil
	}
	c.mu.Unlock()
	c.generation.Store(generations.Add(1))
}

// Adopt takes over what old knows, run out as after Refresh: every user is looked
// up anew, and what old knew serves only while that fails. It is for a Cache with
// the same source of groups that is reached otherwise, by another password say.
// Call it before the first use.
func (c *Cache) Adopt(old *Cache) {
	old.mu.Lock()
	defer old.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for element := old.order.Front(); element != nil; element = element.Next() {
		e := element.Value.(*entry)
		if e.began.IsZero() {
			continue // it only tells of a failure
		}
		c.entries[e.user] = c.order.PushBack(&entry{user: e.user, groups: e.groups, began: e.began, expired: true})
	}
}

// Of returns the groups of a user, see Lookup.
func (c *Cache) Of(user string) ([]string, error) {
	m, err := c.Lookup(user)
	return m.Groups, err
}

// Lookup returns the groups of a user. It waits for a look-up where nothing
// recent is known, at most for the time that one may take. An error tells that
// the groups could not be found out, and names the user.
func (c *Cache) Lookup(user string) (Membership, error) {
	now := time.Now()
	if groups, ok := c.static[user]; ok {
		return Membership{groups, now.Add(c.ttl)}, nil
	}
	if user == "" || len(user) > maxName {
		return Membership{Until: now.Add(c.ttl)}, nil
	}

	c.mu.Lock()
	var known entry // stays zero for a user who is new
	if element := c.entries[user]; element != nil {
		c.order.MoveToFront(element)
		known = *element.Value.(*entry)
	}
	pausing := now.Sub(known.failed) < pause
	end := known.began.Add(c.life(known.groups))
	if !known.expired && now.Before(end) {
		defer c.mu.Unlock()
		if m := c.membership(known.groups, known.began); now.Before(m.Until) {
			return m, nil
		}
		if !pausing {
			c.start(user, now)
		}
		return Membership{known.groups, earlier(now.Add(pause), end)}, nil
	}

	// A failure that is not long ago will likely repeat: do not wait for it.
	if failing := now.Sub(known.failed) < pause+c.timeout; failing {
		stale, ok := c.stale(known, now)
		if !pausing && ok {
			c.start(user, now)
		}
		if pausing || ok {
			c.mu.Unlock()
			return stale, errorUnless(ok, known.err)
		}
	}
	f := c.start(user, now)
	c.mu.Unlock()

	<-f.done
	if f.err != nil {
		stale, ok := c.stale(known, time.Now())
		return stale, errorUnless(ok, f.err)
	}
	return c.membership(f.groups, f.began), nil
}

// errorUnless returns err unless there is an answer all the same.
func errorUnless(ok bool, err error) error {
	if ok {
		return nil
	}
	return err
}

// life is how long a look-up's answer is believed.
func (c *Cache) life(groups []string) time.Duration {
	if len(groups) > 0 {
		return c.ttl
	}
	return max(c.negative, 0)
}

// membership is the answer from a look-up, to be renewed when three quarters
// of its life are over.
func (c *Cache) membership(groups []string, began time.Time) Membership {
	return Membership{groups, began.Add(c.life(groups) / 4 * 3)}
}

// stale is the answer while look-ups fail. That a user had no groups is none.
func (c *Cache) stale(known entry, now time.Time) (Membership, bool) {
	end := known.began.Add(staleFactor * c.ttl)
	if len(known.groups) == 0 || !now.Before(end) {
		return Membership{}, false
	}
	return Membership{known.groups, earlier(now.Add(pause), end)}, true
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// start returns the user's look-up under way, or begins one. c.mu is held.
func (c *Cache) start(user string, now time.Time) *flight {
	f, ok := c.flights[user]
	if ok {
		return f
	}
	f = &flight{user: user, began: now, done: make(chan struct{})}
	if len(c.flights) >= maxFlights {
		f.land(nil, lookupError(user, errBusy))
		return f
	}
	c.flights[user] = f
	go c.run(f)
	return f
}

// run looks a user up as soon as less than maxRunning others are. Callers stop
// waiting after c.timeout; what the mapping says later is still recorded.
func (c *Cache) run(f *flight) {
	timer := time.AfterFunc(c.timeout, func() {
		c.settle(f, nil, errTimeout, false)
	})
	defer timer.Stop()
	select {
	case c.running <- struct{}{}:
	case <-f.done:
		c.forget(f)
		return
	}
	groups, err := c.mapping.Of(f.user)
	<-c.running
	c.settle(f, groups, err, true)
}

// forget takes a look-up out of those under way.
func (c *Cache) forget(f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights[f.user] == f {
		delete(c.flights, f.user)
	}
}

// settle records what became of a look-up, unless Refresh made it worthless,
// and lets those go on who wait for it. over tells that the mapping has come back.
func (c *Cache) settle(f *flight, groups []string, err error, over bool) {
	if err != nil {
		groups, err = nil, lookupError(f.user, err)
	}
	groups = slices.Clip(groups)
	c.mu.Lock()
	current := c.flights[f.user] == f
	if current && over {
		delete(c.flights, f.user)
	}
	if current {
		c.record(f, groups, err)
	}
	c.mu.Unlock()
	f.land(groups, err)
	if current && err != nil && c.OnFailure != nil {
		c.OnFailure(err)
	}
}

// record writes an entry. c.mu is held.
func (c *Cache) record(f *flight, groups []string, err error) {
	element, ok := c.entries[f.user]
	if !ok {
		if len(c.entries) >= maxEntries {
			oldest := c.order.Back()
			delete(c.entries, c.order.Remove(oldest).(*entry).user)
		}
		element = c.order.PushFront(&entry{user: f.user})
		c.entries[f.user] = element
	}
	e := element.Value.(*entry)
	if err != nil {
		e.failed, e.err = time.Now(), err
		return
	}
	changed := !e.began.IsZero() && !slices.Equal(e.groups, groups)
	*e = entry{user: f.user, groups: groups, began: f.began}
	if changed {
		c.generation.Store(generations.Add(1))
	}
}

func lookupError(user string, err error) error {
	return fmt.Errorf("groups of user %q: %w", user, err)
}
