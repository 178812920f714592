package cache

import (
	"context"
	"errors"
	"hash/maphash"
	"strings"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/dgraph-io/ristretto/v2"
	"golang.org/x/sync/singleflight"

	"github.com/edekd/edekd/edek"
)

// unknownAge bounds how long a name that did not exist may go on not existing
// after another writer of the same store created it. A create of our own is
// seen at once.
const unknownAge = time.Second

// unknownBytes bounds what names that do not exist may occupy, per table.
const unknownBytes = 4 << 20

// maxTouch is how long uses of an entry may go unnoted, where its life does not
// depend on them.
const maxTouch = 10 * time.Second

// entry is a remembered answer: a value, or the fact that there is none.
type entry[V any] struct {
	key    string // compared on every hit: the cache beneath compares hashes only
	value  V
	absent *edek.Error // what the provider said, when it knows no such key

	epoch  uint64         // taken before the provider was asked
	now    *atomic.Uint64 // the key's epoch today
	loaded int64          // table clock, ns
	used   atomic.Int64   // table clock, ns; kept to table.touch
	cost   int64          // bytes, of known keys

	out   atomic.Bool // ristretto does not hold it, or no longer
	stray atomic.Bool // and the front has counted it as its own
}

// recalled is a load's error that another table remembers. It may be old already:
// remembered anew it would be believed for longer than unknownAge.
type recalled struct{ error }

// table remembers one kind of answer in ristretto. What it adds: an answer is
// good only while its key's epoch is the one taken before the provider was
// asked, so no answer outlives a change, however late it arrives; one caller
// asks while others wait; and a front, where an answer is found from the moment
// it is there: ristretto takes things in when it finds the time, or not at all.
type table[V any] struct {
	load      func(ctx context.Context, key string) (V, error)
	epoch     func(key string) *atomic.Uint64
	cost      func(V) int64
	own       func(V) string
	maxAge    time.Duration                       // since the provider was asked; 0: unlimited
	maxIdle   time.Duration                       // since the last hit; 0: unlimited
	touch     int64                               // ns after which a use is noted again
	known     *ristretto.Cache[string, *entry[V]] // nil: remember nothing
	unknown   *ristretto.Cache[string, *entry[V]]
	front     *front[V] // of known
	flight    singleflight.Group
	start     time.Time
	hit, miss *metrics.Counter
}

type tableConfig[V any] struct {
	name            string
	load            func(ctx context.Context, key string) (V, error)
	epoch           func(key string) *atomic.Uint64 // of the key, or of the key that the version is of
	cost            func(V) int64                   // bytes, without the key
	own             func(V) string                  // what a value calls itself: a key of the same text shares its memory
	maxAge, maxIdle time.Duration
	bytes           int64 // 0: remember nothing
	typicalBytes    int64 // of one entry, sizes the admission counters
	set             *metrics.Set
}

func newTable[V any](c tableConfig[V]) (*table[V], error) {
	t := &table[V]{
		load: c.load, epoch: c.epoch, cost: c.cost, own: c.own, maxAge: c.maxAge, maxIdle: c.maxIdle, start: time.Now(),
		touch: int64(maxTouch),
		hit:   c.set.NewCounter(`edekd_cache_hits_total{cache="` + c.name + `"}`),
		miss:  c.set.NewCounter(`edekd_cache_misses_total{cache="` + c.name + `"}`),
	}
	if c.maxIdle > 0 {
		t.touch = min(t.touch, int64(c.maxIdle/64))
	}
	if c.bytes == 0 {
		return t, nil
	}
	var err error
	t.front = newFront[V](c.bytes / c.typicalBytes)
	if t.known, err = newRistretto(c.bytes, c.typicalBytes, t.front.leave); err != nil {
		return nil, err
	}
	if t.unknown, err = newRistretto[V](unknownBytes, 256, nil); err != nil {
		t.known.Close()
		return nil, err
	}
	c.set.NewGauge(`edekd_cache_bytes{cache="`+c.name+`"}`, func() float64 { now, _ := t.bytes(); return float64(now) })
	c.set.NewGauge(`edekd_cache_limit_bytes{cache="`+c.name+`"}`, func() float64 { _, most := t.bytes(); return float64(most) })
	return t, nil
}

// newRistretto makes a cache for so many bytes in entries of a typical size. leave,
// unless nil, is told of each entry that it lets go or does not take in.
func newRistretto[V any](bytes, typical int64, leave func(*entry[V])) (*ristretto.Cache[string, *entry[V]], error) {
	a, b := maphash.MakeSeed(), maphash.MakeSeed()
	return ristretto.NewCache(&ristretto.Config[string, *entry[V]]{
		NumCounters:        10 * bytes / typical,
		MaxCost:            bytes,
		BufferItems:        64,
		OnExit:             leave,
		IgnoreInternalCost: true, // entryBytes counts it
		KeyToHash: func(key string) (uint64, uint64) {
			return maphash.String(a, key), maphash.String(b, key)
		},
	})
}

// entryBytes is what one entry costs beside key text and value: the entry, the
// key's header and ristretto's own bookkeeping.
const entryBytes = 250

// get answers from memory or asks the provider. key may alias a buffer that is
// reused after the call.
func (t *table[V]) get(ctx context.Context, key string) (V, error) {
	if t.known != nil {
		if e := t.front.find(key); e != nil && t.good(e) {
			t.hit.Inc()
			return e.value, nil
		}
		if e, ok := t.known.Get(key); ok && e.key == key && t.good(e) {
			t.front.put(e)
			t.hit.Inc()
			return e.value, nil
		}
		if e, ok := t.unknown.Get(key); ok && e.key == key && t.good(e) {
			t.hit.Inc()
			return e.value, e.absent
		}
	}
	t.miss.Inc()
	return t.fill(ctx, strings.Clone(key))
}

// good reports whether a remembered answer may still be given, and notes its
// use.
func (t *table[V]) good(e *entry[V]) bool {
	if e.epoch != e.now.Load() {
		return false
	}
	now := int64(time.Since(t.start))
	if e.absent != nil {
		return now-e.loaded < int64(unknownAge)
	}
	if t.maxAge > 0 && now-e.loaded >= int64(t.maxAge) {
		return false
	}
	used := e.used.Load()
	if t.maxIdle > 0 && now-used >= int64(t.maxIdle) {
		return false
	}
	if now-used > t.touch {
		e.used.Store(now)
		t.known.Get(e.key) // ristretto does not see what the front answers
	}
	return true
}

// fill asks the provider, once for all who wait for the same key. A flight during
// which the key changed is not accepted, and another one is taken: it may have
// looked before a change this caller knows of, and of two questions it may have
// asked one about a deleted key and the other about the next of that name.
func (t *table[V]) fill(ctx context.Context, key string) (V, error) {
	epoch := t.epoch(key)
	var zero V
	for range maxLooks {
		shared, err, _ := t.flight.Do(key, func() (any, error) {
			return t.ask(ctx, key, epoch)
		})
		if err != nil {
			return zero, err
		}
		if e := shared.(*entry[V]); e.epoch == epoch.Load() {
			if e.absent != nil {
				return zero, e.absent
			}
			return e.value, nil
		}
	}
	return zero, changing(key)
}

// ask loads one answer and remembers it. It runs for all waiting callers, so
// it does not end with the context of the one that started it.
func (t *table[V]) ask(ctx context.Context, key string, epoch *atomic.Uint64) (*entry[V], error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
	defer cancel()
	e := t.newEntry(key, epoch)
	value, err := t.load(ctx, key)
	old, known := err.(recalled)
	if known {
		err = old.error
	}
	if err != nil {
		typed, ok := errors.AsType[*edek.Error](err)
		if !ok || typed.Kind != edek.NotFound {
			return nil, err
		}
		e.absent = typed
		if t.unknown != nil && !known {
			t.unknown.Set(key, e, entryBytes+int64(len(key)+len(typed.Text)))
		}
		return e, nil
	}
	e.value = value
	t.remember(e)
	return e, nil
}

// newEntry makes an entry of a key about which the provider is asked after it.
func (t *table[V]) newEntry(key string, epoch *atomic.Uint64) *entry[V] {
	e := &entry[V]{key: key, epoch: epoch.Load(), now: epoch, loaded: int64(time.Since(t.start))}
	e.used.Store(e.loaded)
	return e
}

// take remembers an answer that nobody asked for.
func (t *table[V]) take(key string, value V, epoch *atomic.Uint64) {
	e := t.newEntry(key, epoch)
	e.value = value
	t.remember(e)
}

// remember takes in a known key.
func (t *table[V]) remember(e *entry[V]) {
	if t.known != nil {
		if t.own != nil {
			if own := t.own(e.value); own == e.key {
				e.key = own
			}
		}
		e.cost = entryBytes + int64(len(e.key)) + t.cost(e.value)
		t.front.put(e)
		if !t.known.Set(e.key, e, e.cost) {
			t.front.leave(e)
		}
	}
}

// bytes is what is remembered, and the most it can be, of a table that remembers.
func (t *table[V]) bytes() (now, most int64) {
	now, most = t.front.bytes()
	for _, c := range []*ristretto.Cache[string, *entry[V]]{t.known, t.unknown} {
		now += c.MaxCost() - c.RemainingCost()
		most += c.MaxCost()
	}
	return now, most
}

func (t *table[V]) close() {
	if t.known != nil {
		t.known.Close()
		t.unknown.Close()
	}
}
