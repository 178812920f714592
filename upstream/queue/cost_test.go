package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

// Texts of buffers that are used again do no harm; callers who are gone are
// forgotten.
func TestCallersAreForgotten(t *testing.T) {
	q := fixed(4)
	text := make([]byte, 8)
	who := Caller{User: unsafe.String(&text[0], 8), Real: unsafe.String(&text[0], 8)}
	for i := range 100_000 {
		copy(text, fmt.Sprintf("%08d", i))
		place, ok := q.Take(who)
		if !ok {
			t.Fatal("no place")
		}
		copy(text, "scrawled")
		place.Leave()
	}
	if n := len(q.callers); n > remembered {
		t.Errorf("%d callers are remembered", n)
	}
	for who := range q.callers {
		if q.callers[who] == nil || who.User == "scrawled" || who.Real == "scrawled" {
			t.Fatalf("%+v", who)
		}
	}
}

func TestTakeDoesNotAllocate(t *testing.T) {
	q := fixed(4)
	if n := testing.AllocsPerRun(1000, func() {
		place, _ := q.Take(modest)
		place.Leave()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Real goroutines in real time, for the race detector: nobody is lost, and there
// are never more under way than there are places.
func TestCrowd(t *testing.T) {
	var places atomic.Int64
	places.Store(8)
	q := New(func() int { return int(places.Load()) })
	var underWay, most atomic.Int64
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			who, key := Caller{User: fmt.Sprint(i % 5)}, fmt.Sprint(i%7)
			for range 300 {
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(time.Millisecond))
				place, err := q.enter(ctx, who, key)
				if err == nil {
					n := underWay.Add(1)
					for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
					}
					if i%3 == 0 {
						time.Sleep(rand.N(100 * time.Microsecond))
					}
					underWay.Add(-1)
					place.Leave()
				} else if !errors.Is(err, ErrLate) && !errors.Is(err, ErrFull) && !errors.Is(err, ErrNone) {
					t.Error(err)
				}
				cancel()
				if i == 0 {
					places.Store(rand.Int64N(9))
					q.Turned()
				}
			}
		})
	}
	all.Wait()
	if most.Load() > 8 || q.busy != 0 || q.all.waiting != 0 || q.all.turns.Len() != 0 {
		t.Errorf("%d under way, %+v", most.Load(), q)
	}
}

func BenchmarkTake(b *testing.B) {
	q := fixed(256)
	for b.Loop() {
		place, _ := q.Take(modest)
		place.Leave()
	}
}

func BenchmarkTakeOfMany(b *testing.B) {
	q := fixed(1 << 20)
	var n atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		who := Caller{User: fmt.Sprint(n.Add(1) % 20)}
		for pb.Next() {
			place, _ := q.Take(who)
			place.Leave()
		}
	})
}
