package drive

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edekd/edekd/bench/stats"
)

// Plan is an open-loop load: arrival i is due at i/Rate, whatever became of those
// before it.
type Plan struct {
	Rate     float64 // arrivals per second
	Length   time.Duration
	Requests Requests
	// InOrder sends Requests one after the other, and again from the first, where
	// they are otherwise chosen at random.
	InOrder bool
	// Lenient counts answers other than 200, which otherwise end the load.
	Lenient bool
	Events  []Event // in the order of At
}

// Event is something that is made to happen in the middle of a load. It runs
// between two requests of the client, so it must be quick: what takes time is the
// server's part.
type Event struct {
	At      time.Duration
	Do      func() error // nil: nothing
	Request []byte       // nil: none; goes over a connection of its own, the pool's last
}

// Latencies are what became of a plan, one value for each arrival.
type Latencies struct {
	rate   float64
	values []time.Duration // from due to answered, by arrival
	failed []bool          // by arrival; nil unless the plan was lenient
	late   []time.Duration // from due to sent, of those that found a free connection: the client's own fault
}

// sleepBelow is the rate, in arrivals a second, below which the calling thread
// sleeps for up to a millisecond at a time: what is measured then is longer.
const sleepBelow = 1000

// Open follows a plan over the connections of the pool, the last of which is left
// to the events. Arrivals that find no connection free wait for one, and their
// latency says so. The calling thread spins until the end, unless the rate is low.
func (p *Pool) Open(plan Plan) (*Latencies, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	total := int(plan.Rate * plan.Length.Seconds())
	l := &Latencies{rate: plan.Rate, values: make([]time.Duration, total), late: make([]time.Duration, 0, total)}
	if plan.Lenient {
		l.failed = make([]bool, total)
	}
	for _, c := range p.conns {
		c.lenient = plan.Lenient
	}
	side := int32(len(p.conns) - 1)
	sideBusy := false
	if side < 1 {
		return nil, errors.New("an open loop needs two connections at least")
	}
	free := make([]int32, 0, side)
	for i := range side {
		free = append(free, i)
	}
	events := plan.Events
	start := time.Now()
	waited := false // whether the next arrival had to wait for a connection
	for sent, answered := 0, 0; answered < total || sideBusy; {
		now := time.Since(start)
		for sent < total && l.due(sent) <= now {
			if len(free) == 0 {
				waited = true
				break
			}
			c := p.conns[free[len(free)-1]]
			free = free[:len(free)-1]
			c.arrival = sent
			if !waited {
				l.late = append(l.late, now-l.due(sent))
			}
			waited = false
			request := plan.Requests[sent%len(plan.Requests)]
			if !plan.InOrder {
				request = plan.Requests.pick(p.random)
			}
			if err := c.send(request); err != nil {
				return nil, err
			}
			sent++
			now = time.Since(start)
		}
		if len(events) > 0 && events[0].At <= now {
			if events[0].Do != nil {
				if err := events[0].Do(); err != nil {
					return nil, err
				}
			}
			if events[0].Request != nil {
				if sideBusy {
					return nil, fmt.Errorf("the event before the one at %v is not answered yet", events[0].At)
				}
				if err := p.conns[side].send(events[0].Request); err != nil {
					return nil, err
				}
				sideBusy = true
			}
			events = events[1:]
		}
		if now > plan.Length+stuck {
			return nil, fmt.Errorf("%d of %d requests are unanswered %v after the end", total-answered, total, stuck)
		}
		pause := 0
		if l.rate < sleepBelow && len(events) == 0 {
			pause = 1
		}
		n, err := unix.EpollWait(p.epoll, p.events, pause)
		if err != nil && err != unix.EINTR {
			return nil, err
		}
		for _, event := range p.events[:max(n, 0)] {
			c := p.conns[event.Fd]
			done, err := c.receive()
			if err != nil {
				return nil, err
			}
			if !done {
				continue
			}
			if event.Fd == side {
				sideBusy = false
				continue
			}
			l.values[c.arrival] = time.Since(start) - l.due(c.arrival)
			if c.refused {
				l.failed[c.arrival] = true
			}
			answered++
			free = append(free, event.Fd)
		}
	}
	return l, nil
}

// due is when an arrival is due, counted from the start.
func (l *Latencies) due(arrival int) time.Duration {
	return time.Duration(float64(arrival) / l.rate * float64(time.Second))
}

// Between returns the sorted latencies, in microseconds, of what was due from one
// time to another.
func (l *Latencies) Between(from, to time.Duration) []float64 {
	return micros(l.values[l.index(from):l.index(to)])
}

// Failed returns how many of what was due from one time to another was answered
// with something other than 200.
func (l *Latencies) Failed(from, to time.Duration) (failed int) {
	if l.failed == nil {
		return 0
	}
	for _, f := range l.failed[l.index(from):l.index(to)] {
		if f {
			failed++
		}
	}
	return failed
}

// index is the first arrival that is due at a time or later.
func (l *Latencies) index(t time.Duration) int {
	return min(max(int(math.Ceil(t.Seconds()*l.rate)), 0), len(l.values))
}

// ClientLate returns how late the client itself was for a part q of the arrivals
// that found a connection free, in microseconds. Latencies below are its noise.
func (l *Latencies) ClientLate(q float64) float64 { return stats.Quantile(micros(l.late), q) }

func micros(values []time.Duration) []float64 {
	sorted := make([]float64, len(values))
	for i, v := range values {
		sorted[i] = float64(v) / float64(time.Microsecond)
	}
	slices.Sort(sorted)
	return sorted
}
