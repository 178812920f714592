package ring

import (
	"cmp"
	"math"
	"slices"
)

// divide gives each ring its part of the budget. If there is not enough for
// all, there is a time T such that every ring gets what is drained in T, but no
// less than a slab and what outlasts a few fetches, and no more than it would
// like. So what shrinks first is the ring that is asked least. If there is not
// even the least for all, the rings asked most get theirs and the others
// nothing. Only when something was refused, rings lose what they have.
func (k *keeper) divide(rings []*ring, refused bool) {
	room := k.Budget - min(k.Budget/8, int64(k.Fetches)*int64(k.Chunk)*2*edekBytes)
	k.table.all(func(r *ring) { room -= r.cost() })
	room = max(0, room/slabBytes)

	k.short = false // so that levels says what a ring would like
	type share struct {
		*ring
		least, most int64 // slabs
	}
	shares := make([]share, len(rings))
	var least, most int64
	for i, r := range rings {
		_, _, goal := k.levels(r)
		working := max(r.fast(), r.slow) * (k.latency + rest.Seconds()) * headway * 2
		// One more than it takes: the first is used up by and by.
		s := share{r, int64(slabsFor(int(working))) + 1, int64(slabsFor(int(goal))) + 1}
		s.least = min(max(2, s.least), s.most)
		shares[i] = s
		least += s.least
		most += s.most
	}
	k.short = most > room
	if !k.short {
		return
	}
	part := func(s share, seconds float64) int64 {
		return min(s.most, max(s.least, int64(s.slow*seconds/slabEDEKs)+1))
	}
	switch {
	case least > room:
		slices.SortFunc(shares, func(a, b share) int { return cmp.Compare(b.slow, a.slow) })
		for _, s := range shares {
			s.allowance = 0
			if s.least <= room {
				s.allowance = (s.least - 1) * slabEDEKs
				room -= s.least
			}
		}
	default:
		low, high := 0.0, 1e9 // seconds
		for range 30 {
			middle := math.Sqrt((low + 1e-3) * high)
			var sum int64
			for _, s := range shares {
				sum += part(s, middle)
			}
			if sum <= room {
				low = middle
			} else {
				high = middle
			}
		}
		for _, s := range shares {
			s.allowance = (part(s, low) - 1) * slabEDEKs
		}
	}
	if !refused {
		return
	}
	for _, s := range shares {
		k.shrink(s.ring, s.allowance)
	}
	k.makeRoom(rings)
}

// makeRoom forgets some of the rings that nobody has asked lately when there
// are so many that no other finds a place.
func (k *keeper) makeRoom(rings []*ring) {
	if (k.table.count.Load()+1)*(ringBytes+slabBytes) <= k.Budget {
		return
	}
	coldest := slices.Clone(rings)
	slices.SortFunc(coldest, func(a, b *ring) int {
		return cmp.Or(cmp.Compare(a.slow, b.slow), a.used.Compare(b.used))
	})
	for _, r := range coldest[:(len(coldest)+15)/16] {
		k.end(r)
	}
}
