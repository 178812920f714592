package queue

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func fixed(places int) *Queue { return New(func() int { return places }) }

// enter takes or waits for a place.
func (q *Queue) enter(ctx context.Context, who Caller, key string) (Place, error) {
	if place, ok := q.Take(who); ok {
		return place, nil
	}
	return q.Wait(ctx, who, key)
}

// use holds a place for as long as a call takes.
func (q *Queue) use(ctx context.Context, who Caller, key string, takes time.Duration) error {
	place, err := q.enter(ctx, who, key)
	if err == nil {
		time.Sleep(takes)
		place.Leave()
	}
	return err
}

// fill takes so many places, each for a caller of its own.
func (q *Queue) fill(t *testing.T, places int) (taken []Place) {
	for i := range places {
		place, ok := q.Take(Caller{User: fmt.Sprint("one of many ", i)})
		if !ok {
			t.Fatalf("no place for number %d of %d", i, places)
		}
		taken = append(taken, place)
	}
	return taken
}

// wantEmpty reports what calls that have ended left behind.
func wantEmpty(t *testing.T, q *Queue) {
	t.Helper()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.busy != 0 || q.all.waiting != 0 || q.all.turns.Len() != 0 {
		t.Errorf("%d places taken, %d calls waiting, turns of %d", q.busy, q.all.waiting, q.all.turns.Len())
	}
	for who, c := range q.callers {
		if c.held != 0 || c.waiting != 0 || c.turns.Len() != 0 || len(c.keys) != 0 {
			t.Errorf("%v: %+v", who, c)
		}
	}
}

const service = 30 * time.Millisecond

var flooder, modest = Caller{User: "flooder"}, Caller{User: "modest"}

// However many calls one caller makes, another one's do not wait at all.
func TestAFloodKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := fixed(256)
		var served, refused atomic.Int64
		var all sync.WaitGroup
		for range 10_000 {
			all.Go(func() {
				began := time.Now()
				switch err := q.use(t.Context(), flooder, "k", service); err {
				case nil:
					served.Add(1)
				case ErrFull:
					refused.Add(1)
					if time.Since(began) > 0 {
						t.Errorf("refused after %v", time.Since(began))
					}
				default:
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if got := q.Status(); got.Waiting != 256*perPlace || got.Refused != uint64(refused.Load()) {
			t.Errorf("%+v", got)
		}
		for range 20 {
			began := time.Now()
			if err := q.use(t.Context(), modest, "k", service); err != nil || time.Since(began) != service {
				t.Fatalf("%v after %v", err, time.Since(began))
			}
		}
		all.Wait()
		if served.Load() != 192+256*perPlace || served.Load()+refused.Load() != 10_000 {
			t.Errorf("%d served, %d refused", served.Load(), refused.Load())
		}
		wantEmpty(t, q)
	})
}

// Where several take all places and the whole queue, one with a few calls waits
// for his turn, and not for theirs.
func TestFloodsOfSeveralCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := fixed(64)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 10_000 {
			all.Go(func() {
				who := Caller{User: "flooder", Real: fmt.Sprint(i % 10)}
				for ctx.Err() == nil {
					if q.use(ctx, who, "k", service/2+rand.N(service)) != nil {
						time.Sleep(time.Second)
					}
				}
			})
		}
		synctest.Wait()
		if q.Status().Waiting != 64*perPlace {
			t.Errorf("%+v", q.Status())
		}
		for range 100 {
			within, done := context.WithTimeout(t.Context(), 2*service)
			if err := q.use(within, modest, "k", service); err != nil || within.Err() != nil {
				t.Errorf("%v, %v", err, within.Err())
			}
			done()
		}
		cancel()
		all.Wait()
		wantEmpty(t, q)
	})
}

// served has calls wait, in the order given, for the only place, and returns the
// order in which they get it.
func served(t *testing.T, calls ...[2]string) (order []string) {
	synctest.Test(t, func(t *testing.T) {
		q := fixed(1)
		first := q.fill(t, 1)[0]
		for i, call := range calls {
			go func() {
				place, err := q.Wait(t.Context(), Caller{User: call[0]}, call[1])
				if err != nil {
					t.Error(err)
				}
				order = append(order, fmt.Sprint(call[0], call[1], i))
				place.Leave()
			}()
			synctest.Wait()
		}
		first.Leave()
		synctest.Wait()
		wantEmpty(t, q)
	})
	return order
}

func TestTurns(t *testing.T) {
	for want, calls := range map[string][][2]string{
		"a0 a1 a2":                {{"a"}, {"a"}, {"a"}},
		"a0 b3 a1 b4 a2":          {{"a"}, {"a"}, {"a"}, {"b"}, {"b"}},
		"a0 b2 c3 a1":             {{"a"}, {"a"}, {"b"}, {"c"}},
		"ak0 al3 ak1 ak2":         {{"a", "k"}, {"a", "k"}, {"a", "k"}, {"a", "l"}},
		"ak0 bk4 al2 am3 ak1":     {{"a", "k"}, {"a", "k"}, {"a", "l"}, {"a", "m"}, {"b", "k"}},
		"ak0 bk3 al2 bl4 ak1 bk5": {{"a", "k"}, {"a", "k"}, {"a", "l"}, {"b", "k"}, {"b", "l"}, {"b", "k"}},
	} {
		if got := strings.Join(served(t, calls...), " "); got != want {
			t.Errorf("%s instead of %s", got, want)
		}
	}
}

// A full queue takes in those who have less waiting, in the place of the newest
// calls of who has most.
func TestAFullQueueMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := fixed(1)
		first := q.fill(t, 1)[0]
		ctx, cancel := context.WithCancel(t.Context())
		var served, gaveWay []string
		wait := func(user, key string, i int) {
			go func() {
				place, err := q.Wait(ctx, Caller{User: user}, key)
				switch err {
				case nil:
					served = append(served, fmt.Sprint(user, key, i))
					place.Leave()
				case ErrFull:
					gaveWay = append(gaveWay, fmt.Sprint(user, key, i))
				}
			}()
			synctest.Wait()
		}
		for i := range perPlace + 1 {
			wait("a", "k", i)
		}
		wait("b", "k", 0)
		wait("a", "l", 0)
		wait("b", "l", 1)
		if want := []string{"ak16", "ak15", "ak14", "ak13"}; !slices.Equal(gaveWay, want) || q.Status() != (Status{perPlace, 4}) {
			t.Errorf("%v, %+v", gaveWay, q.Status())
		}
		gaveWay = nil
		for i := range perPlace {
			wait("b", "m", i)
		}
		// Now both have half of it, and neither gets more.
		wait("a", "k", 0)
		if want := []string{"ak12", "ak11", "ak10", "ak9", "ak8", "ak7"}; len(gaveWay) != perPlace+1 || !slices.Equal(gaveWay[:6], want) {
			t.Errorf("%v", gaveWay)
		}
		first.Leave()
		synctest.Wait()
		if len(served) != perPlace || served[0] != "ak0" || served[1] != "bk0" {
			t.Errorf("%v", served)
		}
		cancel()
		synctest.Wait()
		wantEmpty(t, q)
	})
}

// With many callers that have one call each, the new one is refused.
func TestAFullQueueOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := fixed(2)
		q.fill(t, 2)
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 2 * perPlace {
			go q.Wait(ctx, Caller{User: "of many", Real: fmt.Sprint(i)}, "k")
		}
		synctest.Wait()
		if _, err := q.Wait(ctx, modest, "k"); err != ErrFull {
			t.Error(err)
		}
		cancel()
		synctest.Wait()
	})
}

// Who could not be served in time is told at once; who could waits.
func TestTheLateAreRefusedWhenTheyCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := fixed(4)
		for range 100 {
			q.use(t.Context(), modest, "k", 100*time.Millisecond)
		}
		within := func(who Caller, key string, patience time.Duration) (took time.Duration, err error) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			began := time.Now()
			err = q.use(ctx, who, key, 100*time.Millisecond)
			return time.Since(began), err
		}
		var all sync.WaitGroup
		for i := range 4 + 40 {
			all.Go(func() {
				if err := q.use(t.Context(), Caller{User: fmt.Sprint("one of two ", i%2)}, "k", 100*time.Millisecond); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(50 * time.Millisecond)
		// A place comes free each 25 ms on average. The next of a caller who has twenty
		// waiting gets the 41st, that of a new one the third, or so.
		if took, err := within(Caller{User: "one of two 1"}, "k", time.Second); err != ErrLate || took != 0 {
			t.Errorf("%v after %v", err, took)
		}
		if took, err := within(modest, "k", 150*time.Millisecond); err != ErrLate || took != 0 {
			t.Errorf("%v after %v", err, took)
		}
		if took, err := within(Caller{User: "one of two 1"}, "another", 300*time.Millisecond); err != nil || took != 150*time.Millisecond {
			t.Errorf("%v after %v", err, took)
		}
		time.Sleep(50 * time.Millisecond)
		if took, err := within(modest, "k", 300*time.Millisecond); err != nil || took != 150*time.Millisecond {
			t.Errorf("%v after %v", err, took)
		}
		if q.Status().Refused != 2 {
			t.Errorf("%+v", q.Status())
		}
		all.Wait()
		wantEmpty(t, q)
	})
}

// Calls that hang are noticed before any of them has ended.
func TestSilenceIsSlowness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := fixed(4)
		for range 100 {
			q.use(t.Context(), modest, "k", time.Millisecond)
		}
		time.Sleep(time.Hour) // nobody calls: that is no silence
		hang := q.fill(t, 4)
		enter := func(patience time.Duration) (took time.Duration, err error) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			began := time.Now()
			_, err = q.enter(ctx, modest, "k")
			return time.Since(began), err
		}
		if took, err := enter(time.Second); err != ErrLate || took != time.Second {
			t.Errorf("%v after %v", err, took)
		}
		time.Sleep(9 * time.Second)
		if took, err := enter(time.Second); err != ErrLate || took != 0 {
			t.Errorf("%v after %v", err, took)
		}
		for _, place := range hang {
			place.Leave()
		}
		if place, err := q.enter(t.Context(), modest, "k"); err != nil {
			t.Error(err)
		} else {
			place.Leave()
		}
		wantEmpty(t, q)
	})
}

// Whoever gives up while he waits takes no turn and no place.
func TestWhoGivesUpLeavesNoTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := fixed(3)
		taken := q.fill(t, 3)
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 40 {
			go func() {
				if _, err := q.Wait(ctx, Caller{User: fmt.Sprint(i % 3)}, fmt.Sprint(i%5)); err != context.Canceled {
					t.Error(err)
				}
			}()
		}
		synctest.Wait()
		if q.Status().Waiting != 40 {
			t.Errorf("%+v", q.Status())
		}
		cancel()
		synctest.Wait()
		if q.Status() != (Status{}) {
			t.Errorf("%+v", q.Status())
		}
		for _, place := range taken {
			place.Leave()
		}
		wantEmpty(t, q)
		q.fill(t, 3)
	})
}

// Without places, those who wait are told, and those who come.
func TestNoPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		places := 5
		q := New(func() int { return places })
		taken := q.fill(t, 5)
		var told atomic.Int64
		for i := range 50 {
			go func() {
				if _, err := q.Wait(t.Context(), Caller{User: fmt.Sprint(i % 7)}, fmt.Sprint(i%3)); err == ErrNone {
					told.Add(1)
				}
			}()
		}
		synctest.Wait()
		places = 0
		q.Turned()
		synctest.Wait()
		if told.Load() != 50 {
			t.Errorf("%d were told", told.Load())
		}
		if _, ok := q.Take(modest); ok {
			t.Error("a place where there are none")
		}
		if _, err := q.Wait(t.Context(), modest, "k"); err != ErrNone {
			t.Error(err)
		}
		if q.Status().Refused != 0 {
			t.Errorf("%+v", q.Status())
		}
		for _, place := range taken {
			place.Leave()
		}
		wantEmpty(t, q)
	})
}

// More places than there were are given as soon as the queue is told.
func TestMorePlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		places := 1
		q := New(func() int { return places })
		q.fill(t, 1)
		var let atomic.Int64
		for i := range 10 {
			go func() {
				if _, err := q.Wait(t.Context(), Caller{User: fmt.Sprint(i)}, "k"); err == nil {
					let.Add(1)
				}
			}()
		}
		synctest.Wait()
		places = 7
		q.Turned()
		synctest.Wait()
		if let.Load() != 6 {
			t.Errorf("%d were let in", let.Load())
		}
		places = 20
		if _, ok := q.Take(modest); !ok { // the others first
			t.Error("no place")
		}
		synctest.Wait()
		if let.Load() != 10 {
			t.Errorf("%d were let in", let.Load())
		}
	})
}

func TestACallersPart(t *testing.T) {
	for places, want := range map[int]int{1: 1, 2: 1, 3: 2, 4: 3, 5: 3, 8: 6, 256: 192} {
		q, got := fixed(places), 0
		for ok := true; ok; got++ {
			_, ok = q.Take(flooder)
		}
		if got--; got != want {
			t.Errorf("%d of %d places", got, places)
		}
		q.fill(t, places-got)
	}
}
