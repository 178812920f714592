// Package near keeps copies of far keys' versions near for a bounded time, so
// that EDEKs can be opened without the server that the keys belong to.
//
// It holds other people's key bytes. So: no copy is given out that was fetched
// longer ago than Config.MaxAge, used or not, and none that was asked for before
// the key was dropped; what is too old, dropped, or has to make room is let go
// at that moment, and its bytes are zeroed once nobody can read them any more
// (edek.ZoneKey: by the next collection of garbage, which the runtime makes every
// two minutes at least). Whether a copy is right, and whether the one who asks
// may use it, is for the caller to know.
package near

import (
	"context"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/edekd/edekd/edek"
)

const (
	shards = 64
	// copyBytes is what a copy costs beside names and material: the ZoneKey with
	// its key schedules, the entry and its place in the map. A wish counts as much,
	// since it is about to be a copy.
	copyBytes = 900
	// Pause is how long a version of which no copy could be kept is not wanted
	// again.
	Pause = 30 * time.Second
)

// Config bounds Copies.
type Config struct {
	Bytes   int64         // memory
	MaxAge  time.Duration // of a copy, since the request was sent that fetched it
	Metrics *metrics.Set  // where uses and memory are counted
}

// Copies are safe for concurrent use. Names may alias reused buffers: what is
// kept is copied.
type Copies struct {
	maxAge    time.Duration
	start     time.Time
	seed      maphash.Seed
	shards    [shards]shard
	hit, miss *metrics.Counter
	cancel    context.CancelFunc
	swept     sync.WaitGroup

	count atomic.Int64 // of copies and wishes
	next  atomic.Int64 // when somebody may be told again that a copy ends
}

type shard struct {
	sync.RWMutex
	copies      map[id]*held
	epoch       uint64 // changes with every Drop of one of its keys
	bytes, room int64
}

type id struct {
	name    string
	version int
}

// held is a copy, or the wish for one.
type held struct {
	zone  *edek.ZoneKey // nil: there is none yet
	born  time.Duration // when the request was sent that fetched it, on the clock of Copies
	asked time.Duration // when it was last wanted
	used  atomic.Int64  // when it was last asked for
	told  atomic.Int64  // when somebody was last told that it ends
}

// cost is what an entry takes with the given copy, nil for a wish.
func cost(i id, z *edek.ZoneKey) int64 {
	bytes := copyBytes + len(i.name)
	if z != nil {
		bytes += len(z.VersionName()) + z.DEKSize() // the ZoneKey's name is part of its version's
	}
	return int64(bytes)
}

// Wish is a copy that is to be fetched; see Copies.Want.
type Wish struct {
	id    id
	epoch uint64
	at    time.Duration
}

// New makes Copies and starts the goroutine that lets go of what is too old.
// Close ends it.
func New(c Config) *Copies {
	k := &Copies{maxAge: c.MaxAge, start: time.Now(), seed: maphash.MakeSeed(),
		hit:  c.Metrics.NewCounter(`edekd_near_hits_total`),
		miss: c.Metrics.NewCounter(`edekd_near_misses_total`)}
	c.Metrics.NewGauge("edekd_near_bytes", func() float64 { return float64(k.Bytes()) })
	for i := range k.shards {
		k.shards[i].copies, k.shards[i].room = map[id]*held{}, c.Bytes/shards
	}
	ctx, cancel := context.WithCancel(context.Background())
	k.cancel = cancel
	k.swept.Go(func() {
		tick := time.NewTicker(max(c.MaxAge/16, 10*time.Millisecond))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				k.sweep()
			}
		}
	})
	return k
}

// Close lets go of all copies and keeps none any more.
func (k *Copies) Close() {
	k.cancel()
	k.swept.Wait()
	for i := range k.shards {
		s := &k.shards[i]
		s.Lock()
		s.epoch++
		s.room, s.bytes = 0, 0
		clear(s.copies)
		s.Unlock()
	}
}

func (k *Copies) now() time.Duration { return time.Since(k.start) }

func (k *Copies) shard(name string) *shard {
	return &k.shards[maphash.String(k.seed, name)%shards]
}

// Get returns the copy of a version of a key, nil for none, which may be used for
// as long as one request takes. ends says that a quarter of its life is over and
// another is wanted. Somebody is told so every Pause, and all copies take another
// quarter for their turns: those that were fetched together, or not renewed in an
// outage, would otherwise be wanted together.
func (k *Copies) Get(name string, version int) (z *edek.ZoneKey, ends bool) {
	s, now := k.shard(name), k.now()
	s.RLock()
	defer s.RUnlock()
	h := s.copies[id{name, version}]
	if h == nil || h.zone == nil || now-h.born >= k.maxAge {
		k.miss.Inc()
		return nil, false
	}
	h.used.Store(int64(now))
	k.hit.Inc()
	if now-h.born < k.maxAge/4 {
		return h.zone, false
	}
	next, told := k.next.Load(), h.told.Load()
	if int64(now) < next || now-time.Duration(told) < Pause || !k.next.CompareAndSwap(next, int64(now)+int64(k.maxAge/4)/max(1, k.count.Load())) {
		return h.zone, false
	}
	h.told.Store(int64(now))
	return h.zone, true
}

// Want reports whether a copy is to be fetched: there is none, or a quarter of its
// life is over, and nobody was told so within Pause. Who is told takes the wish
// before he sends his request, and answers with Put if he can.
func (k *Copies) Want(name string, version int) (w Wish, wanted bool) {
	s, now, i := k.shard(name), k.now(), id{name, version}
	s.Lock()
	defer s.Unlock()
	h := s.copies[i]
	if h == nil {
		bytes := cost(i, nil)
		if !k.makeRoom(s, bytes) {
			return Wish{}, false
		}
		h = &held{}
		h.used.Store(int64(now))
		i.name = strings.Clone(name)
		s.copies[i] = h
		s.bytes += bytes
		k.count.Add(1)
	} else if h.zone != nil && now-h.born < k.maxAge/4 || now-h.asked < Pause {
		return Wish{}, false
	}
	h.asked = now
	return Wish{id{strings.Clone(name), version}, s.epoch, now}, true
}

// Put keeps a copy that was fetched to fulfil a wish, and reports whether it did:
// not when the key was dropped meanwhile, the place had to be given to another, or
// there is none so large.
func (k *Copies) Put(w Wish, z *edek.ZoneKey) bool {
	s := k.shard(w.id.name)
	s.Lock()
	defer s.Unlock()
	h := s.copies[w.id]
	if h == nil || s.epoch != w.epoch || cost(w.id, z) > s.room {
		return false
	}
	h.used.Store(int64(k.now())) // it is not the one to go first
	h.hold(s, w.id, z)
	h.born = w.at
	k.makeRoom(s, 0)
	return s.copies[w.id] == h
}

// hold puts a copy, nil for none, in the place of the one that is there.
func (h *held) hold(s *shard, i id, z *edek.ZoneKey) {
	s.bytes += cost(i, z) - cost(i, h.zone)
	h.zone = z
}

// Drop lets go of all copies of a key. None that was wished for before the call
// is there after it.
func (k *Copies) Drop(name string) {
	s := k.shard(name)
	s.Lock()
	defer s.Unlock()
	s.epoch++
	for i := range s.copies {
		if i.name == name {
			k.remove(s, i)
		}
	}
}

// Any reports whether there is a copy of anything.
func (k *Copies) Any() bool {
	for i := range k.shards {
		s := &k.shards[i]
		s.RLock()
		for _, h := range s.copies {
			if h.zone != nil {
				s.RUnlock()
				return true
			}
		}
		s.RUnlock()
	}
	return false
}

// Bytes returns the memory in use, never more than Config.Bytes.
func (k *Copies) Bytes() (sum int64) {
	for i := range k.shards {
		s := &k.shards[i]
		s.RLock()
		sum += s.bytes
		s.RUnlock()
	}
	return sum
}

func (k *Copies) sweep() {
	for i := range k.shards {
		s := &k.shards[i]
		s.Lock()
		now := k.now()
		for i, h := range s.copies {
			if h.zone != nil && now-h.born >= k.maxAge {
				h.hold(s, i, nil)
			}
			if h.zone == nil && now-h.asked >= 4*Pause { // no answer comes any more
				k.remove(s, i)
			}
		}
		s.Unlock()
	}
}

// makeRoom lets go of others until there is room for so many bytes.
func (k *Copies) makeRoom(s *shard, bytes int64) bool {
	if bytes > s.room {
		return false
	}
	for s.bytes+bytes > s.room {
		k.evict(s)
	}
	return true
}

// evict lets go of one: of a few that the map offers, the one not asked for the
// longest.
func (k *Copies) evict(s *shard) {
	const few = 16
	var oldest id
	var out *held
	looked := 0
	for i, h := range s.copies {
		if out == nil || h.used.Load() < out.used.Load() {
			oldest, out = i, h
		}
		if looked++; looked == few {
			break
		}
	}
	k.remove(s, oldest)
}

func (k *Copies) remove(s *shard, i id) {
	s.bytes -= cost(i, s.copies[i].zone)
	delete(s.copies, i)
	k.count.Add(-1)
}
