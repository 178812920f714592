package cache

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"golang.org/x/sync/singleflight"

	"github.com/edekd/edekd/cache/dek"
	"github.com/edekd/edekd/cache/flight"
	"github.com/edekd/edekd/cache/grant"
	"github.com/edekd/edekd/cache/near"
	"github.com/edekd/edekd/cache/ring"
	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/internal/quietly"
	"github.com/edekd/edekd/keys"
	"github.com/edekd/edekd/upstream"
)

// FarConfig says how far keys are served: those whose material stays behind
// another KMS.
type FarConfig struct {
	// Poll is how often what is known of keys in use is compared with what the
	// other KMS says. What was not confirmed for three polls is asked anew before
	// it is used, unless no node answers.
	Poll    time.Duration
	Timeout time.Duration // of one request to the other KMS, all attempts together

	// Grant is how long, after a request of his own was granted, a caller is
	// served from what was fetched ahead, and GrantOutage how much longer while no
	// node answers. With LocalAuthorization every caller is.
	Grant, GrantOutage time.Duration
	LocalAuthorization bool

	DEKBytes int64         // memory for DEKs that were opened, 0: none are remembered
	DEKAge   time.Duration // how old they may become

	// Copies has EDEKs opened by copies of key versions, which edekd fetches in its
	// own name, instead of DEKs being remembered. The bounds are those of DEKs.
	Copies bool

	Ring     ring.Config     // Fetch, Fair and Metrics are set by New
	Reserved map[string]bool // short names of callers who get the rings' reserve
	// HotFile keeps the names of the keys used most over a restart, "" for none.
	HotFile string

	Log *slog.Logger
	// StateChanged is told of each change of State, beside the log. It must not be
	// nil.
	StateChanged func(is, was upstream.State)
}

const (
	// farKeysMax bounds how many far keys are known at once, so that they take
	// some 50 MiB without their metadata.
	farKeysMax   = 100_000
	farShards    = 64
	farHot       = time.Minute // a key used since then is polled
	farPollBatch = 50          // keys of one question of the poll
)

// farSide is what the cache knows of far keys.
type farSide struct {
	c       FarConfig
	cache   *Cache
	start   time.Time
	ones    []*farProvider
	written *farProvider // who gets changes; nil: a provider of near keys
	near    bool         // there are near keys, too
	seed    maphash.Seed
	shards  [farShards]farShard
	flight  singleflight.Group // refreshes, by key
	rings   *ring.Rings
	grants  *grant.Table
	deks    *dek.Cache   // nil: none are remembered
	copies  *near.Copies // nil: there are none

	flights flight.Group  // decrypts under way
	epochs  atomic.Uint64 // the highest epoch of any key

	life     context.Context // ends with the side
	cancel   context.CancelFunc
	closing  sync.Mutex // held to end life, and to begin what has to end with it
	ended    sync.WaitGroup
	renewals renewals

	synchronous, changes, denied *metrics.Counter

	mayNotFetch, mayNotCopy quietly.Minutely

	emptied atomic.Int64 // when all rings were last found empty, ns since the start
}

// farProvider is a provider of far keys, with what the side knows of it.
type farProvider struct {
	keys.Far
	outages   *grant.Outages
	questions questions
	mute      atomic.Bool   // edekd's last question was not answered, and nothing was since
	answers   atomic.Uint64 // so far, see missed
}

// heard notes that the other KMS has answered something.
func (p *farProvider) heard() {
	p.answers.Add(1)
	if p.mute.Load() {
		p.mute.Store(false)
	}
}

// missed notes that a question was not answered in its time, unless something else
// was since there were so many answers.
func (p *farProvider) missed(answers uint64) {
	if p.answers.Load() == answers {
		p.mute.Store(true)
	}
}

// State is the provider's, but CacheOnly too while nothing that was asked of it is
// answered: that all its nodes hang is believed elsewhere only after some attempts,
// which are rare where little is asked.
func (p *farProvider) State() upstream.State {
	if p.mute.Load() {
		return max(upstream.CacheOnly, p.Far.State())
	}
	return p.Far.State()
}

func (p *farProvider) gone() bool { return p.State() >= upstream.CacheOnly }

// unheard reports whether a question failed because no answer came, and not because
// of what came: one key's answer must not keep others from being looked at.
func unheard(err error) bool {
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, context.DeadlineExceeded)
}

type farShard struct {
	mu   sync.RWMutex
	keys map[string]*FarKey
}

// FarKey is a key that lives behind another KMS. It is safe for concurrent use.
type FarKey struct {
	name     string
	side     *farSide
	provider *farProvider
	facts    atomic.Pointer[facts]
	used     atomic.Int64 // when last asked for, ns since the side's start, kept to about a second

	mu     sync.Mutex // held to write facts, epoch and purged
	epoch  uint64     // another with each change, and no other key's: what was asked for before counts for nothing
	purged uint64     // epoch in which the nodes were told to forget EDEKs from before a roll
}

// facts are what the other KMS said of a key.
type facts struct {
	metadata *edek.Metadata
	current  string // name of the current version
	checked  int64  // when the question was sent that last confirmed them, ns since the side's start
	oldest   int    // version that EDEKs are taken of at least: the newest that is known, or that an EDEK has shown
	told     bool   // an EDEK showed a newer one than metadata, and all nodes were told to forget the key since
}

// newFarSide returns nil where all keys are near.
func newFarSide(k *Cache, provider keys.Provider, c Config) *farSide {
	ones, others := keys.FarOnes(provider)
	if len(ones) == 0 {
		return nil
	}
	s := &farSide{c: c.Far, cache: k, start: time.Now(), near: others, seed: maphash.MakeSeed(),
		grants:      grant.New(grant.Config{TTL: c.Far.Grant, Stale: c.Far.Grant + c.Far.GrantOutage, Bytes: grantBytes}),
		synchronous: c.Metrics.NewCounter(`edekd_upstream_forwarded_generates_total`),
		changes:     c.Metrics.NewCounter(`edekd_upstream_changes_seen_total`),
		denied:      c.Metrics.NewCounter(`edekd_upstream_denials_total`)}
	for i := range s.shards {
		s.shards[i].keys = map[string]*FarKey{}
	}
	for _, far := range ones {
		one := &farProvider{Far: far, questions: newQuestions()}
		one.outages = s.grants.Outages(one.gone)
		s.ones = append(s.ones, one)
	}
	s.written = s.one(keys.Written(provider))
	c.Metrics.NewGauge("edekd_upstream_staleness_seconds", s.staleness)
	c.Metrics.NewGauge(`edekd_cache_bytes{cache="grants"}`, func() float64 { return float64(s.grants.Bytes()) })
	c.Metrics.NewGauge(`edekd_cache_limit_bytes{cache="grants"}`, func() float64 { return grantBytes })
	s.registerState(c.Metrics)
	rings := c.Far.Ring
	rings.Fetch, rings.Metrics = s.fetch, c.Metrics
	rings.Fair = func() bool { return s.state() == upstream.OK }
	s.rings = ring.New(rings)
	switch {
	case c.Far.Copies:
		s.copies = near.New(near.Config{Bytes: c.Far.DEKBytes, MaxAge: c.Far.DEKAge, Metrics: c.Metrics})
	case c.Far.DEKBytes > 0:
		s.deks = dek.New(dek.Config{Bytes: c.Far.DEKBytes, MaxAge: c.Far.DEKAge, Metrics: c.Metrics})
	}
	s.warmUp()
	s.life, s.cancel = context.WithCancel(context.Background())
	s.ended.Go(func() { s.poll(s.life) })
	s.ended.Go(func() { s.watchState(s.life) })
	return s
}

func (s *farSide) close() {
	s.closing.Lock()
	s.cancel()
	s.closing.Unlock()
	s.ended.Wait()
	s.renewals.close()
	s.saveHot()
	s.rings.Close()
	if s.deks != nil {
		s.deks.Close()
	}
	if s.copies != nil {
		s.copies.Close()
	}
}

// begin runs f beside what the side does already, and reports whether it does: not
// once the side is closed.
func (s *farSide) begin(f func()) bool {
	s.closing.Lock()
	defer s.closing.Unlock()
	if s.life.Err() != nil {
		return false
	}
	s.ended.Go(f)
	return true
}

func (s *farSide) now() int64 { return int64(time.Since(s.start)) }

func (s *farSide) shard(name string) *farShard {
	return &s.shards[maphash.String(s.seed, name)%farShards]
}

// find returns a far key that is known, nil for none.
func (s *farSide) find(name string) *FarKey {
	shard := s.shard(name)
	shard.mu.RLock()
	f := shard.keys[name]
	shard.mu.RUnlock()
	return f
}

// one returns a provider as the side knows it, nil for one of near keys.
func (s *farSide) one(p keys.Provider) *farProvider {
	for _, one := range s.ones {
		if keys.Provider(one.Far) == p {
			return one
		}
	}
	return nil
}

// learn notes that provider knows a key.
func (s *farSide) learn(name string, provider *farProvider) *FarKey {
	shard := s.shard(name)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if f := shard.keys[name]; f != nil {
		if f.provider == provider {
			return f
		}
		f.drop()
	}
	if len(shard.keys) >= farKeysMax/farShards {
		for other, f := range shard.keys { // any one: which is the coldest is not worth a search
			f.drop()
			delete(shard.keys, other)
			s.cache.Invalidate(other)
			break
		}
	}
	f := &FarKey{name: strings.Clone(name), side: s, provider: provider, epoch: s.epochs.Add(1)}
	f.used.Store(s.now())
	shard.keys[f.name] = f
	return f
}

// forget ends what is known of a key, since it has changed.
func (s *farSide) forget(name string) {
	s.remove(name)
	if s.deks != nil {
		s.deks.Drop(name)
	}
}

// remove gives the place of a key free.
func (s *farSide) remove(name string) {
	s.cache.Invalidate(name) // before the look, too: see ask
	shard := s.shard(name)
	shard.mu.Lock()
	f := shard.keys[name]
	delete(shard.keys, name)
	shard.mu.Unlock()
	if f != nil {
		f.drop()
	}
	s.cache.Invalidate(name)
}

// all returns the known keys.
func (s *farSide) all() (list []*FarKey) {
	for i := range s.shards {
		shard := &s.shards[i]
		shard.mu.RLock()
		for _, f := range shard.keys {
			list = append(list, f)
		}
		shard.mu.RUnlock()
	}
	return list
}

// current returns the facts about the key if they may be used, and notes the
// use. Facts that nobody can confirm now stay good: what they are used for
// needs a grant, whose time is bounded.
func (f *FarKey) current() *facts {
	now := f.side.now()
	if now-f.used.Load() > int64(time.Second) {
		f.used.Store(now)
	}
	known := f.facts.Load()
	if known == nil || f.old(known, now) && !f.provider.gone() {
		return nil
	}
	return known
}

// old reports whether facts were not confirmed for too long.
func (f *FarKey) old(known *facts, now int64) bool { return now-known.checked > int64(3*f.side.c.Poll) }

// drop forgets the facts of a key, the EDEKs that were made ahead, the copies of its
// versions and its DEKs: nobody looks any more whether it becomes another key.
func (f *FarKey) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch = f.side.epochs.Add(1)
	f.facts.Store(nil)
	f.side.rings.Drop(f.name)
	f.side.dropCopies(f.name)
	if f.side.deks != nil {
		f.side.deks.Forget(f.name)
	}
}

// doubt has the key looked at anew before it is used, if anybody answers. What was
// asked before counts for nothing.
func (f *FarKey) doubt() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.facts.Load(); known != nil {
		doubted := *known
		doubted.checked -= int64(4 * f.side.c.Poll)
		f.epoch = f.side.epochs.Add(1)
		f.facts.Store(&doubted)
	}
}

func (f *FarKey) epochNow() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.epoch
}

// take takes in what was said of the key in answer to a question that was sent
// at the given time and epoch. When the key is another than it was, all nodes are
// told to forget it first. It returns nil if the question has to be asked again: the
// key has been changed through us since, or EDEKs say otherwise.
func (f *FarKey) take(ctx context.Context, m *edek.Metadata, asked int64, epoch uint64) *facts {
	for {
		before := f.facts.Load()
		switch {
		case before == nil:
		case before.differ(m):
			f.side.changes.Inc()
			f.tell(ctx, "a key was changed behind edekd, and not all servers could be told to forget what they had made of it")
		case before.outrun(m) && !before.told:
			f.tellOutrun(ctx, before, epoch)
			return nil
		}
		if known, taken := f.replace(before, m, asked, epoch); taken {
			return known
		}
	}
}

// differ reports whether m is of another key than the facts, or of one that has
// changed since.
func (known *facts) differ(m *edek.Metadata) bool {
	return known.metadata.Created != m.Created || known.metadata.Versions != m.Versions
}

// outrun reports whether EDEKs have shown a newer version than m knows.
func (known *facts) outrun(m *edek.Metadata) bool { return known.oldest >= m.Versions }

// replace puts what was said in the place of the facts before, which must still be
// there: else what has changed is to be found out anew. It is nil where nothing may
// be taken in any more.
func (f *FarKey) replace(before *facts, m *edek.Metadata, asked int64, epoch uint64) (known *facts, taken bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.epoch != epoch {
		return nil, true
	}
	now := f.facts.Load()
	if now != nil && now.checked > asked {
		return now, true
	}
	if now != before {
		return nil, false
	}
	switch {
	case before == nil:
	case before.differ(m):
		f.side.rings.Drop(f.name)
		f.epoch = f.side.epochs.Add(1)
		if f.side.deks != nil {
			f.side.deks.Drop(f.name)
		}
		f.side.dropCopies(f.name)
	case before.outrun(m):
		f.side.rings.Drop(f.name) // with its bound: no version so new is known anywhere
	}
	known = &facts{metadata: m, current: m.CurrentVersion(), checked: asked, oldest: m.Versions - 1}
	f.side.rings.DropBelow(f.name, known.oldest)
	f.facts.Store(known)
	return known, true
}

// lookup returns a far key with facts that may be used, nil for a key that is
// not known to be far.
func (s *farSide) lookup(ctx context.Context, name string) (*FarKey, *facts, error) {
	f := s.find(name)
	if f == nil {
		return nil, nil, nil
	}
	used := f.used.Load()
	if known := f.current(); known != nil {
		return f, known, nil
	}
	if f.facts.Load() != nil && s.now()-used <= int64(farHot) { // it was polled, or would have been
		err := s.confirm(ctx, f)
		if known := f.current(); known != nil && s.find(name) == f {
			return f, known, nil
		}
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			// The error itself, which compare has logged, may name others' keys.
			return nil, nil, &edek.Error{Kind: edek.Unavailable, Op: "metadata", Key: name,
				Text: s.state().String() + ": the KMS behind did not answer in time"}
		}
		// Whatever became of the others: one key's answer can spoil those of all.
	}
	answers := f.provider.answers.Load()
	_, err, _ := s.flight.Do(name, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.c.Timeout)
		defer cancel()
		_, err := s.ask(ctx, strings.Clone(name))
		return nil, err
	})
	if err != nil {
		if unheard(err) {
			f.provider.missed(answers)
		}
		if known := f.facts.Load(); known != nil && f.provider.gone() && s.find(name) == f {
			return f, known, nil // nobody can confirm them now
		}
		return nil, nil, s.worded(err)
	}
	if f = s.find(name); f == nil {
		return nil, nil, nil
	}
	if known := f.current(); known != nil {
		return f, known, nil
	}
	return nil, nil, changing(name)
}

// ask finds out which provider has a key and what it says of it, and takes in
// what is said of a far one.
func (s *farSide) ask(ctx context.Context, name string) (described, error) {
	for range 10 {
		f := s.find(name)
		var epoch uint64
		if f != nil {
			epoch = f.epochNow()
		}
		change := s.cache.epoch(name)
		before, asked := change.Load(), s.now()
		done := s.cache.observe("metadata")
		p, m, err := keys.Holder(ctx, s.cache.provider, name)
		done(err)
		if err != nil {
			if f != nil && edek.KindOf(err) == edek.NotFound {
				f.vanished(ctx)
			}
			return described{}, err
		}
		far := s.one(p)
		if far == nil {
			if f != nil {
				s.forget(name)
			}
			return described{Metadata: m}, nil
		}
		far.heard()
		if f == nil || f.provider != far {
			f = s.learn(name, far)
			if epoch = f.epochNow(); change.Load() != before {
				continue // the answer may be from before a change, of which the new place knows nothing
			}
		}
		if f.take(ctx, m, asked, epoch) != nil {
			return described{m, true}, nil
		}
	}
	return described{}, changing(name)
}

// denied reports whether an answer of another KMS denies the caller something.
func denied(err error) bool {
	f, ok := errors.AsType[*edek.Foreign](err)
	return ok && f.Denies()
}
