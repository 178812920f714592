package schedule

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Arrival is one thing to do.
type Arrival struct {
	Due  time.Duration // counted from the start; latency counts from here
	Sent time.Duration // when it was handed out, counted from the start
	Step int
	// Lag is how much later than possible the arrival was handed out: later than
	// due, and later than the worker was free. The load generator is to blame for
	// it, not the server.
	Lag time.Duration
}

// Source hands arrivals to workers. All methods may be called by many.
type Source interface {
	// Next waits until an arrival is due and returns it; false when there are no
	// more, or Stop was called.
	Next() (Arrival, bool)
	// Stop ends the handing out: what is due later is not handed out any more, and
	// after a grace nothing is.
	Stop(grace time.Duration)
}

// Open is the open-loop source. One worker at a time waits for the next arrival,
// so that only one of them spins, however many there are.
type Open struct {
	plan  *Plan
	start time.Time

	last  atomic.Int64 // time.Duration: what is due later is not handed out
	until atomic.Int64 // time.Duration: what has not been handed out by then never is
	mu    sync.Mutex
	next  int64
}

// NewOpen makes a source that follows the plan from a start on. When all workers
// are busy, arrivals wait for the next free one, for at most patience after the
// end of the plan.
func NewOpen(p *Plan, start time.Time, patience time.Duration) *Open {
	o := &Open{plan: p, start: start}
	o.last.Store(int64(p.End()))
	o.until.Store(int64(p.End() + patience))
	return o
}

// Next implements Source.
func (o *Open) Next() (Arrival, bool) {
	free := time.Since(o.start)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.next >= o.plan.total {
		return Arrival{}, false
	}
	due, step := o.plan.Due(o.next)
	sent := o.wait(due)
	if sent < due || int64(due) > o.last.Load() || int64(sent) > o.until.Load() {
		return Arrival{}, false
	}
	o.next++
	return Arrival{Due: due, Sent: sent, Step: step, Lag: sent - max(due, free)}, true
}

// Stop implements Source.
func (o *Open) Stop(grace time.Duration) {
	now := time.Since(o.start)
	o.last.Store(min(o.last.Load(), int64(now)))
	o.until.Store(min(o.until.Load(), int64(now+grace)))
}

// Unsent calls f for the arrivals that were due, before Stop if that was called,
// and never handed out, in groups of n with about the same due time. It is for
// after the last Next.
func (o *Open) Unsent(f func(due time.Duration, step int, n int64)) {
	const groups = 1000
	first, end := o.next, o.plan.Before(time.Duration(o.last.Load()))
	for from := first; from < end; {
		to := min(end, from+max(1, (end-first)/groups))
		due, step := o.plan.Due(from)
		f(due, step, to-from)
		from = to
	}
}

// How near to its due time an arrival is waited for by which means.
const (
	slice   = 50 * time.Millisecond  // at most so long nobody looks whether to stop
	coarse  = 3 * time.Millisecond   // beyond: the runtime's timers, late by up to 1 ms
	spinFor = 200 * time.Microsecond // within: spinning; between: nanosleep
)

// wait returns at a time, or soon after Stop, and says when.
func (o *Open) wait(until time.Duration) (now time.Duration) {
	for {
		now = time.Since(o.start)
		rest := until - now
		switch {
		case rest <= 0 || int64(until) > o.last.Load():
			return now
		case rest > coarse:
			time.Sleep(min(rest-coarse, slice))
		case rest > spinFor:
			ts := unix.NsecToTimespec(int64(rest - spinFor))
			_ = unix.Nanosleep(&ts, nil) // woken early, it goes round again
		default:
			runtime.Gosched()
		}
	}
}

// Closed is the closed-loop source: each arrival is due when it is asked for.
type Closed struct {
	start   time.Time
	end     time.Duration
	stopped atomic.Bool
}

// NewClosed makes a source that lasts for a time.
func NewClosed(start time.Time, length time.Duration) *Closed {
	return &Closed{start: start, end: length}
}

// Next implements Source.
func (c *Closed) Next() (Arrival, bool) {
	now := time.Since(c.start)
	return Arrival{Due: now, Sent: now}, now < c.end && !c.stopped.Load()
}

// Stop implements Source.
func (c *Closed) Stop(time.Duration) { c.stopped.Store(true) }
