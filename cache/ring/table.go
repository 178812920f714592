package ring

import (
	"hash/maphash"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
)

const shards = 256

// table finds rings by name. Readers take no lock; each shard's map is copied
// when it changes, which is seldom and cheap, as a shard holds few.
type table struct {
	seed  maphash.Seed
	shard [shards]struct {
		rings   atomic.Pointer[map[string]*ring]
		writing sync.Mutex
	}
	count atomic.Int64
}

func newTable() *table {
	t := &table{seed: maphash.MakeSeed()}
	for i := range t.shard {
		t.shard[i].rings.Store(&map[string]*ring{})
	}
	return t
}

// find returns the ring of a key, or nil. name may alias a reused buffer.
func (t *table) find(name string) *ring {
	return (*t.shard[maphash.String(t.seed, name)%shards].rings.Load())[name]
}

// findOrAdd returns the ring of a key, and makes one if there is none and
// admit allows it.
func (t *table) findOrAdd(name string, admit func(name string) *ring) *ring {
	s := &t.shard[maphash.String(t.seed, name)%shards]
	s.writing.Lock()
	defer s.writing.Unlock()
	old := *s.rings.Load()
	if r := old[name]; r != nil {
		return r
	}
	name = strings.Clone(name)
	r := admit(name)
	if r == nil {
		return nil
	}
	rings := make(map[string]*ring, len(old)+1)
	maps.Copy(rings, old)
	rings[name] = r
	s.rings.Store(&rings)
	t.count.Add(1)
	return r
}

// remove takes a ring out.
func (t *table) remove(r *ring) {
	s := &t.shard[maphash.String(t.seed, r.name)%shards]
	s.writing.Lock()
	defer s.writing.Unlock()
	old := *s.rings.Load()
	if old[r.name] != r {
		return
	}
	rings := maps.Clone(old)
	delete(rings, r.name)
	s.rings.Store(&rings)
	t.count.Add(-1)
}

// all calls f for every ring.
func (t *table) all(f func(*ring)) {
	t.any(func(r *ring) bool {
		f(r)
		return false
	})
}

// any reports whether f holds for a ring, and asks no further then.
func (t *table) any(f func(*ring) bool) bool {
	for i := range t.shard {
		for _, r := range *t.shard[i].rings.Load() {
			if f(r) {
				return true
			}
		}
	}
	return false
}
