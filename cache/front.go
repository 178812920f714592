package cache

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"
	"unsafe" // for the size of a place
)

// strayBytes bounds what a front alone holds.
const strayBytes = 16 << 20

// front is a table in which each key has one place; the newest answer has it.
// Reading it is one hash and one load. It holds what the cache beneath holds, and
// within strayBytes what that one has not taken in, or has let go.
type front[V any] struct {
	seed   maphash.Seed
	places []atomic.Pointer[entry[V]] // a power of two of them
	strays atomic.Int64               // bytes, of entries that are only here
}

// newFront makes a front for about so many entries.
func newFront[V any](entries int64) *front[V] {
	return &front[V]{seed: maphash.MakeSeed(), places: make([]atomic.Pointer[entry[V]], 1<<bits.Len64(uint64(2*entries)))}
}

func (f *front[V]) place(key string) *atomic.Pointer[entry[V]] {
	return &f.places[maphash.String(f.seed, key)&uint64(len(f.places)-1)]
}

// put gives e its place.
func (f *front[V]) put(place *atomic.Pointer[entry[V]], e *entry[V]) {
	if old := place.Swap(e); old != nil && old != e {
		f.displaced(old)
	}
	if e.out.Load() {
		f.stray(place, e)
	}
}

// leave is told that the cache beneath does not hold e, or no longer. It may be
// told of nil, of what was gone already.
func (f *front[V]) leave(e *entry[V]) {
	if e == nil {
		return
	}
	e.out.Store(true)
	f.stray(f.place(e.key), e)
}

// stray counts an entry that is only here, and lets it go where there are too
// many. Whoever takes it from its place meanwhile counts it out: so the place is
// looked at after the counting.
func (f *front[V]) stray(place *atomic.Pointer[entry[V]], e *entry[V]) {
	if !e.stray.CompareAndSwap(false, true) {
		return
	}
	if f.strays.Add(e.cost) > strayBytes {
		place.CompareAndSwap(e, nil)
	}
	if place.Load() != e {
		f.displaced(e)
	}
}

// displaced counts out an entry that has lost its place.
func (f *front[V]) displaced(e *entry[V]) {
	if e.stray.CompareAndSwap(true, false) {
		f.strays.Add(-e.cost)
	}
}

// bytes is what the places and what is only here take, and the most it can be.
func (f *front[V]) bytes() (now, most int64) {
	places := int64(len(f.places)) * int64(unsafe.Sizeof(f.places[0]))
	return places + f.strays.Load(), places + strayBytes
}
