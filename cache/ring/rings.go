// Package ring keeps EDEKs of keys that live elsewhere ready before anybody
// asks for them, one ring for each key.
//
// What it promises: an EDEK is handed out once. What was fetched before a Drop
// is not taken after it, also when it arrives later. Takers never wait: not for
// a fetch, not for each other, not for somebody who drops or fills; and on the
// way of a take nothing is allocated. All rings, and all fetches under way,
// stay within Config.Budget.
//
// Who may have an EDEK is not decided here, nor where they come from.
//
// One goroutine, the keeper, decides what is fetched. It knows three degrees of
// hurry. A ring that a caller found empty is filled at once, as each further
// caller would make a call of his own. One that fell below its watermark (a
// share of Config.Size, or what is drained during a few fetches, whatever is
// more) is filled at once too, but after an outage at a pace. Growth, towards
// what outlives Config.Cover, has a pace always: half as many calls more as the
// drain needs in the long run.
package ring

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/edekd/edekd/edek"
)

// Config says how rings are kept. Where a default is named, zero means that.
type Config struct {
	// Fetch makes n EDEKs of a key, or fewer. The result is the rings' own from
	// then on. It should end soon after its context does. After an edek.NotFound the
	// key has no ring until somebody takes again.
	Fetch func(ctx context.Context, name string, n int) ([]edek.EDEK, error)

	Size         int           // EDEKs in the ring of a used key, at least, if the budget allows: Hadoop's encrypted.key.cache.size; default 100
	LowWatermark float64       // the share of Size below which a ring is filled, Hadoop's low.watermark; default 0.3
	Expiry       time.Duration // a key unused for so long is forgotten, Hadoop's encrypted.key.cache.expiry; default 12 h

	Cover   time.Duration // how long a ring should outlive an outage at the drain measured; default 10 min, less than 0: no growth
	Budget  int64         // bytes, for rings, their EDEKs and fetches under way together; default 64 MiB
	Chunk   int           // EDEKs in one fetch at most; default 500
	Fetches int           // fetches at once at most, of all keys; default 16
	Reserve float64       // the share of each ring that only privileged takers get while the upstream is not well, 0 to less than 1

	// Fair reports whether the upstream is well. While it is not, rings are not
	// grown. It is asked about once a second and must not block. nil: yes,
	// unless fetches fail.
	Fair func() bool

	Metrics *metrics.Set // where drain, misses, refills and memory are counted
}

// Rings are the rings of all keys. They are safe for concurrent use. Names may
// alias reused buffers: what is kept is copied.
type Rings struct {
	Config
	table   *table
	order   atomic.Uint64 // of drops and of rings made
	bytes   atomic.Int64
	crowded atomic.Bool // a ring could not be made, or not filled, for lack of memory
	flagged atomic.Pointer[ring]
	wake    chan struct{}
	warming struct {
		sync.Mutex
		names []string
	}
	cancel context.CancelFunc
	ended  sync.WaitGroup
	meters meters
}

// New makes rings and starts their keeper. Close ends it.
func New(c Config) *Rings {
	c.Size = cmp.Or(c.Size, 100)
	c.LowWatermark = cmp.Or(c.LowWatermark, 0.3)
	c.Expiry = cmp.Or(c.Expiry, 12*time.Hour)
	c.Cover = max(0, cmp.Or(c.Cover, 10*time.Minute))
	c.Budget = cmp.Or(c.Budget, 64<<20)
	c.Chunk = cmp.Or(c.Chunk, 500)
	c.Fetches = cmp.Or(c.Fetches, 16)
	rs := &Rings{Config: c, table: newTable(), wake: make(chan struct{}, 1)}
	rs.meters = newMeters(rs)
	ctx, cancel := context.WithCancel(context.Background())
	rs.cancel = cancel
	k := newKeeper(rs)
	rs.ended.Go(func() { k.run(ctx) })
	return rs
}

// Close ends the keeper and waits for it and for fetches under way, whose
// contexts it ends. Takes go on until the rings are empty.
func (rs *Rings) Close() {
	rs.cancel()
	rs.ended.Wait()
}

// Take fills dst from the front with EDEKs that nobody else gets, and returns
// what it could fill: all of dst, a part, or nothing. The first take of a key
// makes its ring. A privileged taker may have the reserve too. All that is
// asked for counts as drain.
func (rs *Rings) Take(name string, dst []edek.EDEK, privileged bool) []edek.EDEK {
	for {
		r := rs.table.find(name)
		if r == nil {
			if r = rs.table.findOrAdd(name, rs.admit); r == nil {
				rs.meters.missed.Inc()
				return dst[:0]
			}
		}
		if n := rs.take(r, dst, privileged); n >= 0 {
			return dst[:n]
		}
	}
}

// Miss counts n EDEKs of a key as asked for and not found, and has its ring filled
// like after a Take.
func (rs *Rings) Miss(name string, n int) {
	if r := rs.table.find(name); r != nil {
		r.asked.Add(int64(n))
		rs.miss(r)
	}
}

func (rs *Rings) miss(r *ring) {
	r.missed.Add(1)
	rs.meters.missed.Inc()
	rs.flag(r)
}

// Depth is how many EDEKs of a key a taker could have.
func (rs *Rings) Depth(name string, privileged bool) int {
	r := rs.table.find(name)
	if r == nil {
		return 0
	}
	depth := r.chain.Load().depth.Load()
	if !privileged {
		depth -= r.keep.Load()
	}
	return int(max(0, depth))
}

// Any reports whether there is an EDEK in any ring.
func (rs *Rings) Any() bool {
	return rs.table.any(func(r *ring) bool { return r.chain.Load().depth.Load() > 0 })
}

// take returns how many EDEKs it copied, less than 0 if the ring was forgotten
// meanwhile.
func (rs *Rings) take(r *ring, dst []edek.EDEK, privileged bool) int64 {
	want, keep := int64(len(dst)), int64(0)
	if !privileged {
		keep = r.keep.Load()
	}
	c := r.chain.Load()
	n := c.claim(want, keep)
	for n == 0 && c.closed() {
		newer := r.chain.Load()
		if newer == c {
			return -1
		}
		c = newer
		n = c.claim(want, keep)
	}
	r.asked.Add(want)
	if n > 0 {
		if usedUp := c.fetch(dst, n); usedUp > 0 {
			rs.bytes.Add(-usedUp * slabBytes)
		}
	}
	if n < want {
		rs.miss(r)
	} else if c.depth.Load() < r.mark.Load() {
		rs.flag(r)
	}
	return n
}

// flag tells the keeper to look at a ring.
func (rs *Rings) flag(r *ring) {
	if r.flagged.Load() || !r.flagged.CompareAndSwap(false, true) {
		return
	}
	for {
		head := rs.flagged.Load()
		r.nextFlagged = head
		if rs.flagged.CompareAndSwap(head, r) {
			break
		}
	}
	select {
	case rs.wake <- struct{}{}:
	default: // it will wake anyway
	}
}

// Drop forgets the EDEKs of a key and which versions of it are too old: it may
// have been rolled, deleted or made anew. What was fetched before the call is
// not taken after it.
func (rs *Rings) Drop(name string) {
	// First the order, then the look: a ring made in between is younger than
	// what must not get into it.
	order := rs.order.Add(1)
	r := rs.table.find(name)
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch.Store(order)
	r.version = 0
	rs.empty(r)
	rs.flag(r)
}

// DropBelow forgets the EDEKs of a key that are of older versions than the one
// given, and its ring refuses such from now on, until Drop. No ring is made for
// that: a new one refuses no version, so Fetch is to call DropBelow before it
// returns.
func (rs *Rings) DropBelow(name string, version int) {
	r := rs.table.find(name)
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if version <= r.version || r.forgotten {
		return
	}
	r.version = version
	old, kept := r.chain.Load(), &chain{}
	r.chain.Store(kept)
	var some [slabEDEKs]edek.EDEK
	for {
		n := old.claim(slabEDEKs, 0)
		if n == 0 {
			break
		}
		usedUp := old.fetch(some[:], n)
		rs.bytes.Add(-usedUp * slabBytes)
		if l := newSlabs(some[:n], version); l.count > 0 && rs.reserve(l.count*slabBytes) {
			kept.append(l)
		}
	}
	_, slabs := old.close()
	rs.bytes.Add(-slabs * slabBytes)
	rs.flag(r)
}

// Warm makes rings for keys and fills them to Config.Size by and by, in the
// order given, when nothing more urgent is to be done.
func (rs *Rings) Warm(names []string) {
	rs.warming.Lock()
	defer rs.warming.Unlock()
	room := max(0, int(rs.Budget/(ringBytes+slabBytes))-len(rs.warming.names))
	for _, name := range names[:min(room, len(names))] {
		rs.warming.names = append(rs.warming.names, string([]byte(name)))
	}
}

// Hot returns the names of the keys with the highest drain, the highest first,
// n at most: those that a restart should Warm.
func (rs *Rings) Hot(n int) []string {
	type hot struct {
		name  string
		drain float64
	}
	var all []hot
	rs.table.all(func(r *ring) {
		if drain := r.drain(); drain > 0 {
			all = append(all, hot{r.name, drain})
		}
	})
	slices.SortFunc(all, func(a, b hot) int {
		return cmp.Or(cmp.Compare(b.drain, a.drain), cmp.Compare(a.name, b.name))
	})
	names := make([]string, min(n, len(all)))
	for i := range names {
		names[i] = all[i].name
	}
	return names
}

// Stat describes a ring.
type Stat struct {
	Name    string
	Depth   int64   // EDEKs in it
	Bytes   int64   // of memory, with the ring itself
	Drain   float64 // EDEKs asked for a second, over some minutes
	Misses  int64   // takes that were not filled, since the ring was made
	Reserve int64   // EDEKs that only privileged takers get at present
}

// Each calls f for every ring, in no order.
func (rs *Rings) Each(f func(Stat)) {
	rs.table.all(func(r *ring) {
		c := r.chain.Load()
		f(Stat{Name: r.name, Depth: max(0, c.depth.Load()), Bytes: r.cost() + max(0, c.slabs.Load())*slabBytes,
			Drain: r.drain(), Misses: r.missed.Load(), Reserve: r.keep.Load()})
	})
}

// Bytes returns the memory of all rings and of fetches under way. It is never
// more than Config.Budget.
func (rs *Rings) Bytes() int64 { return rs.bytes.Load() }

// reserve takes bytes from the budget if there are so many.
func (rs *Rings) reserve(bytes int64) bool {
	for {
		now := rs.bytes.Load()
		if now+bytes > rs.Budget {
			rs.crowded.Store(true)
			return false
		}
		if rs.bytes.CompareAndSwap(now, now+bytes) {
			return true
		}
	}
}

// admit makes a ring unless there are so many that each could not have a slab.
func (rs *Rings) admit(name string) *ring {
	r := &ring{name: name}
	if (rs.table.count.Load()+1)*(ringBytes+slabBytes) > rs.Budget || !rs.reserve(r.cost()) {
		rs.crowded.Store(true)
		return nil
	}
	r.chain.Store(&chain{})
	r.made = rs.order.Add(1)
	r.mark.Store(1)
	r.allowance = slabEDEKs // until the budget is divided
	return r
}

// empty gives a ring, which is locked, a new chain.
func (rs *Rings) empty(r *ring) {
	old := r.chain.Load()
	if r.forgotten {
		return
	}
	r.chain.Store(&chain{})
	edeks, slabs := old.close()
	rs.bytes.Add(-slabs * slabBytes)
	rs.meters.dropped.AddInt64(edeks)
}

// forget ends a ring. Whoever asks for its key again makes another.
func (rs *Rings) forget(r *ring) {
	rs.table.remove(r) // before the chain is closed: see take
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.forgotten {
		return
	}
	r.forgotten = true
	_, slabs := r.chain.Load().close()
	rs.bytes.Add(-slabs*slabBytes - r.cost())
}

// shrink forgets EDEKs until no more than depth are left.
func (rs *Rings) shrink(r *ring, depth int64) {
	c := r.chain.Load()
	if n := c.claim(math.MaxInt64, depth); n > 0 {
		rs.bytes.Add(-c.fetch(nil, n) * slabBytes)
		rs.meters.shed.AddInt64(n)
	}
}

// errOld says that all EDEKs fetched were of versions known to be too old, or
// that there were none.
var errOld = errors.New("no EDEKs of a version that may be handed out: the upstream has not noticed a roll yet")
