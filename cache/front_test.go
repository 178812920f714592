package cache

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/edekd/edekd/edek"
)

// In a cache for far fewer keys than are asked for, entries come, leave and push
// each other out at the same time. What the front says that it alone holds is then
// what it holds, and no more than its bound.
func TestFrontCountsWhatItAloneHolds(t *testing.T) {
	ctx, s := t.Context(), newStore()
	k := newCache(t, s, hadoopDefaults)
	k.metadata.known.UpdateMaxCost(64 << 10)
	const keys = 3000
	f := newFront[described](keys / 4) // crowded: keys share places
	f.seed = k.metadata.front.seed
	*k.metadata.front = front[described]{seed: f.seed, places: f.places}
	for i := range keys {
		s.Create(ctx, &edek.NewKey{Name: fmt.Sprint("key", i)})
	}
	var wg sync.WaitGroup
	for seed := range 8 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(seed)))
			for range 4000 {
				name := fmt.Sprint("key", int(float64(keys)*random.Float64()*random.Float64()))
				if m, _, err := k.Metadata(ctx, name); err != nil || m.Name != name {
					t.Error(name, m, err)
					return
				}
				if random.IntN(50) == 0 {
					k.Invalidate(name)
				}
			}
		})
	}
	wg.Wait()
	k.settle()
	var alone int64
	placed, out := 0, 0
	for i := range k.metadata.front.places {
		e := k.metadata.front.places[i].Load()
		if e == nil {
			continue
		}
		placed++
		if e.out.Load() {
			out++
		}
		if e.out.Load() != e.stray.Load() {
			t.Errorf("%s: ristretto has let it go: %v, counted: %v", e.key, e.out.Load(), e.stray.Load())
		}
		if e.stray.Load() {
			alone += e.cost
		}
	}
	if got := k.metadata.front.strays.Load(); got != alone || got > strayBytes {
		t.Errorf("it says that it alone holds %d bytes, and holds %d", got, alone)
	}
	if out == 0 || out == placed {
		t.Errorf("%d of %d entries are the front's alone: that shows nothing", out, placed)
	}
}

// An entry loses its place and gets one again before the loss is noted: it is still
// counted. So it is with an entry that has both places and loses one.
func TestFrontCountsWhatGotAPlaceAgain(t *testing.T) {
	for _, places := range []int{1, 2} {
		f := newFront[int](4)
		e := &entry[int]{key: "k", cost: 7}
		first, second := f.of(e.key)
		for _, place := range []*atomic.Pointer[entry[int]]{first, second}[:places] {
			place.Store(e)
		}
		f.leave(e)
		f.displaced(e)
		if got := f.strays.Load(); got != 7 || !e.stray.Load() {
			t.Errorf("%d places: %d bytes of an entry of 7", places, got)
		}
		for _, place := range []*atomic.Pointer[entry[int]]{first, second} {
			place.Store(nil)
		}
		f.displaced(e)
		if got := f.strays.Load(); got != 0 || e.stray.Load() {
			t.Errorf("%d places: %d bytes of what has none any more", places, got)
		}
	}
}

// Beyond its bound the front lets go what ristretto does not hold.
func TestFrontIsBounded(t *testing.T) {
	f := newFront[int](1000)
	for i := range 1000 {
		e := &entry[int]{key: fmt.Sprint("key", i), cost: strayBytes / 100}
		f.put(e)
		f.leave(e)
		f.leave(e) // told twice, counted once
	}
	held := 0
	for i := range f.places {
		if f.places[i].Load() != nil {
			held++
		}
	}
	if got := f.strays.Load(); held != 100 || got != int64(held)*(strayBytes/100) {
		t.Errorf("%d entries with %d bytes", held, got)
	}
	f = newFront[int](1)
	late := &entry[int]{key: "late", cost: 7}
	f.leave(late) // before it was put
	if got := f.strays.Load(); got != 0 {
		t.Errorf("%d bytes of what has no place", got)
	}
	if f.put(late); f.strays.Load() != 7 {
		t.Errorf("%d bytes of an entry of 7", f.strays.Load())
	}
	f.leave(nil) // as ristretto tells of what was not there
}
