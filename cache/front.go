package cache

import (
	"hash/maphash"
	"sync/atomic"
)

const (
	frontPlaces = 4096
	// frontCost is the cost of the dearest answer that a front takes, so that
	// it holds 16 MiB at most.
	frontCost = 4 << 10
)

// front is a small table in which each key has one place, shared with few
// others; the newest answer has it. Reading it is one hash and one load.
type front[V any] struct {
	seed   maphash.Seed
	places [frontPlaces]atomic.Pointer[entry[V]]
}

func newFront[V any]() *front[V] { return &front[V]{seed: maphash.MakeSeed()} }

func (f *front[V]) place(key string) *atomic.Pointer[entry[V]] {
	return &f.places[maphash.String(f.seed, key)%frontPlaces]
}

func (f *front[V]) put(place *atomic.Pointer[entry[V]], e *entry[V]) {
	if e.cost <= frontCost {
		place.Store(e)
	}
}
