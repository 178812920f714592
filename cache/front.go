package cache

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"
	"unsafe" // for the size of a place
)

// strayBytes bounds what a front alone holds.
const strayBytes = 16 << 20

// front is a table in which each key has two places side by side, so that reading
// it is a hash and a load or two; of two keys in the same places a third pushes one
// out. It holds what the cache beneath holds, and within strayBytes what that one
// has not taken in, or has let go.
type front[V any] struct {
	seed   maphash.Seed
	places []atomic.Pointer[entry[V]] // a power of two of them
	strays atomic.Int64               // bytes, of entries that are only here
}

// newFront makes a front for about so many entries.
func newFront[V any](entries int64) *front[V] {
	return &front[V]{seed: maphash.MakeSeed(), places: make([]atomic.Pointer[entry[V]], 2<<bits.Len64(uint64(entries)))}
}

// of returns the places of a key, the preferred one first.
func (f *front[V]) of(key string) (first, second *atomic.Pointer[entry[V]]) {
	i := maphash.String(f.seed, key) & uint64(len(f.places)-1)
	return &f.places[i], &f.places[i^1]
}

// find returns the key's entry or nil.
func (f *front[V]) find(key string) *entry[V] {
	first, second := f.of(key)
	if e := first.Load(); e != nil && e.key == key {
		return e
	}
	if e := second.Load(); e != nil && e.key == key {
		return e
	}
	return nil
}

// put gives e a place: that of an older entry of its key, one that is free, or the
// preferred one.
func (f *front[V]) put(e *entry[V]) {
	place, second := f.of(e.key)
	if one := place.Load(); one != nil && one.key != e.key {
		if other := second.Load(); other == nil || other.key == e.key {
			place = second
		}
	}
	if old := place.Swap(e); old != nil && old != e {
		f.displaced(old)
	}
	if e.out.Load() {
		f.stray(e)
	}
}

// leave is told that the cache beneath does not hold e, or no longer. It may be
// told of nil, of what was gone already.
func (f *front[V]) leave(e *entry[V]) {
	if e == nil {
		return
	}
	e.out.Store(true)
	f.stray(e)
}

// stray counts an entry that is only here, and lets it go where there are too
// many. Whoever takes it from its place meanwhile counts it out: so the places are
// looked at after the counting.
func (f *front[V]) stray(e *entry[V]) {
	if !e.stray.CompareAndSwap(false, true) {
		return
	}
	first, second := f.of(e.key)
	if f.strays.Add(e.cost) > strayBytes && !first.CompareAndSwap(e, nil) {
		second.CompareAndSwap(e, nil)
	}
	if !f.placed(e) {
		f.displaced(e)
	}
}

// displaced counts out an entry that has lost its place. Whoever gave it a place
// again meanwhile found it counted still: so the places are looked at after that.
func (f *front[V]) displaced(e *entry[V]) {
	if !e.stray.CompareAndSwap(true, false) {
		return
	}
	f.strays.Add(-e.cost)
	if f.placed(e) {
		f.stray(e)
	}
}

func (f *front[V]) placed(e *entry[V]) bool {
	first, second := f.of(e.key)
	return first.Load() == e || second.Load() == e
}

// bytes is what the places and what is only here take, and the most it can be.
func (f *front[V]) bytes() (now, most int64) {
	places := int64(len(f.places)) * int64(unsafe.Sizeof(f.places[0]))
	return places + f.strays.Load(), places + strayBytes
}
