package schedule

import (
	"math"
	"sync"
	"testing"
	"time"
)

func plan(t *testing.T, rates []float64, hold, ramp time.Duration) *Plan {
	t.Helper()
	p, err := NewPlan(rates, hold, ramp)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDue(t *testing.T) {
	f := func(p *Plan, i int64, due time.Duration, step int) {
		t.Helper()
		got, at := p.Due(i)
		if d := got - due; d < -time.Microsecond || d > time.Microsecond || at != step {
			t.Errorf("arrival %d is due at %v in step %d, want %v in %d", i, got, at, due, step)
		}
	}
	steady := plan(t, []float64{100}, 10*time.Second, 0)
	f(steady, 0, 0, 0)
	f(steady, 1, 10*time.Millisecond, 0)
	f(steady, 999, 9990*time.Millisecond, 0)
	if steady.Total() != 1000 {
		t.Errorf("%d arrivals in 10 s at 100 per second", steady.Total())
	}

	// Two seconds from 0 to 100 are 100 arrivals, the first 25 of them in the first second.
	ramped := plan(t, []float64{100, 300}, 5*time.Second, 2*time.Second)
	f(ramped, 0, 0, Ramp)
	f(ramped, 25, time.Second, Ramp)
	f(ramped, 100, 2*time.Second, 0)
	f(ramped, 101, 2010*time.Millisecond, 0)
	f(ramped, 599, 6990*time.Millisecond, 0)
	f(ramped, 600, 7*time.Second, Ramp)
	// From 100 to 300 in two seconds: 150 in the first.
	f(ramped, 750, 8*time.Second, Ramp)
	f(ramped, 1000, 9*time.Second, 1)
	if ramped.Total() != 2500 || ramped.End() != 14*time.Second {
		t.Errorf("%d arrivals in %v", ramped.Total(), ramped.End())
	}
	if got := ramped.Rate(8 * time.Second); got != 200 {
		t.Errorf("rate %v in the middle of the ramp", got)
	}
	if got := ramped.Rate(14 * time.Second); got != 0 {
		t.Errorf("rate %v after the end", got)
	}
}

func TestDueGrowsAndBeforeCounts(t *testing.T) {
	p := plan(t, []float64{0.7, 333, 12.5}, 3*time.Second, 1500*time.Millisecond)
	last := time.Duration(-1)
	for i := range p.Total() {
		due, _ := p.Due(i)
		if due < last || due >= p.End() {
			t.Fatalf("arrival %d is due at %v after %v, of %v", i, due, last, p.End())
		}
		last = due
		// A nanosecond this way or that is rounding.
		if n := p.Before(due + time.Microsecond); n != i+1 {
			t.Fatalf("%d arrivals before %v, want %d", n, due, i+1)
		}
	}
	if p.Before(time.Hour) != p.Total() {
		t.Error("not all arrivals are before an hour")
	}
}

func TestPlansRefused(t *testing.T) {
	f := func(rates []float64, hold, ramp time.Duration) {
		t.Helper()
		if _, err := NewPlan(rates, hold, ramp); err == nil {
			t.Errorf("%v for %v is a plan", rates, hold)
		}
	}
	f(nil, time.Second, 0)
	f([]float64{0}, time.Second, 0)
	f([]float64{-1}, time.Second, 0)
	f([]float64{math.NaN()}, time.Second, 0)
	f([]float64{math.Inf(1)}, time.Second, 0)
	f([]float64{1}, 0, 0)
	f([]float64{1}, time.Second, -1)
	f([]float64{1}, MaxLength+1e9, 0)
	f(make([]float64, MaxSteps+1), time.Second, 0)
}

// TestOpen has ten workers share a plan: every arrival is handed out once, in
// order, and none before it is due.
func TestOpen(t *testing.T) {
	p := plan(t, []float64{2000}, 200*time.Millisecond, 0)
	source := NewOpen(p, time.Now(), time.Minute)
	var mu sync.Mutex
	seen := map[time.Duration]bool{}
	var workers sync.WaitGroup
	for range 10 {
		workers.Go(func() {
			for a, ok := source.Next(); ok; a, ok = source.Next() {
				if a.Sent < a.Due || a.Lag < 0 {
					t.Errorf("due at %v, handed out at %v with a lag of %v", a.Due, a.Sent, a.Lag)
				}
				mu.Lock()
				seen[a.Due] = true
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	if len(seen) != 400 {
		t.Errorf("%d arrivals, want 400", len(seen))
	}
	source.Unsent(func(due time.Duration, _ int, n int64) { t.Errorf("%d unsent at %v", n, due) })
}

// TestBusyWorkersAreNoLag: an arrival that waited for a worker is late, but not
// by the generator's fault.
func TestBusyWorkersAreNoLag(t *testing.T) {
	p := plan(t, []float64{1000}, 10*time.Millisecond, 0)
	source := NewOpen(p, time.Now().Add(-time.Second), time.Minute)
	a, ok := source.Next()
	if !ok || a.Sent-a.Due < time.Second || a.Lag > 500*time.Millisecond {
		t.Errorf("%+v %v", a, ok)
	}
}

func TestUnsent(t *testing.T) {
	p := plan(t, []float64{1000}, 10*time.Second, 0)
	source := NewOpen(p, time.Now().Add(-time.Hour), 0)
	if a, ok := source.Next(); ok {
		t.Fatalf("%+v is handed out long after the end", a)
	}
	count := func(before time.Duration) (n int64, calls int) {
		source.Unsent(func(due time.Duration, step int, group int64) {
			if due >= before || step != 0 {
				t.Errorf("due at %v in step %d", due, step)
			}
			n += group
			calls++
		})
		return n, calls
	}
	if n, calls := count(p.End()); n != 10_000 || calls > 1001 {
		t.Errorf("%d unsent arrivals in %d groups", n, calls)
	}
	// Stopped before two seconds have passed: what would have been due later is not missing.
	source = NewOpen(p, time.Now().Add(-time.Second), 0)
	source.Stop(0)
	if n, _ := count(2 * time.Second); n < 1000 || n > 2000 {
		t.Errorf("%d unsent arrivals in the first second", n)
	}
}

// TestDueBeforeStop: an arrival that was due is handed out during the grace, one
// that was not is not.
func TestDueBeforeStop(t *testing.T) {
	p := plan(t, []float64{10}, time.Hour, 0)
	source := NewOpen(p, time.Now().Add(-150*time.Millisecond), 0)
	source.Stop(time.Minute)
	for i := range 2 {
		if a, ok := source.Next(); !ok || a.Due != time.Duration(i)*100*time.Millisecond {
			t.Errorf("%+v %v", a, ok)
		}
	}
	if a, ok := source.Next(); ok {
		t.Errorf("%+v is due after the stop", a)
	}
	source.Unsent(func(due time.Duration, _ int, n int64) { t.Errorf("%d unsent at %v", n, due) })
}

func TestStop(t *testing.T) {
	for name, source := range map[string]Source{
		"open":   NewOpen(plan(t, []float64{0.001}, time.Hour, 0), time.Now(), 0),
		"closed": NewClosed(time.Now(), time.Hour),
	} {
		if _, ok := source.Next(); !ok {
			t.Errorf("%s: nothing to do", name)
		}
		ended := make(chan bool)
		if name == "open" {
			go func() { _, ok := source.Next(); ended <- ok }()
			source.Stop(0)
		} else {
			source.Stop(0)
			go func() { _, ok := source.Next(); ended <- ok }()
		}
		select {
		case ok := <-ended:
			if ok {
				t.Errorf("%s: an arrival after Stop", name)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: Stop is not heard", name)
		}
	}
}

func TestClosed(t *testing.T) {
	c := NewClosed(time.Now().Add(-time.Minute), time.Hour)
	if a, ok := c.Next(); !ok || a.Due < time.Minute || a.Due != a.Sent || a.Lag != 0 || a.Step != 0 {
		t.Errorf("%+v %v", a, ok)
	}
	if _, ok := NewClosed(time.Now().Add(-time.Minute), time.Second).Next(); ok {
		t.Error("an arrival after the end")
	}
}
