package upstream

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

const (
	// A breaker opens after so many faults in a row, however long they take, or
	// when at least half of at least enough attempts within the window, or twice
	// the time a request may take, were faults.
	faultsInRow = 5
	enough      = 20
	window      = 10 * time.Second

	// latencyHalfLife is how fast the memory of a node's latency fades, so that
	// a node that was slow is tried again.
	latencyHalfLife = 10 * time.Second
	latencyWeight   = 0.2                   // of the newest attempt in the average
	latencyFloor    = 50 * time.Microsecond // below, nodes are equal

	// retryShare is how much of a retry each request pays in to its node's budget.
	retryShare = 0.1
)

type node struct {
	name    string
	index   int
	began   time.Time
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	closed  atomic.Bool   // the breaker is
	inRow   atomic.Uint32 // faults since the last answer; the library's own count fades with its window
	wake    chan struct{} // tells the watcher that the node is not usable, or to listen; of capacity one
	opened  atomic.Uint64 // how often the breaker opened or the node went silent

	suspended atomic.Uint64         // number of the newest suspension, 0 when there is none
	why       atomic.Pointer[error] // the newest failure since the node was last put to use

	inFlight atomic.Int64
	requests atomic.Uint64
	faults   atomic.Uint64

	heard    atomic.Int64 // by now's clock: the last answer, or the first request after a time without any
	lived    atomic.Int64 // when it last said that it lives, and nothing else
	listened atomic.Bool  // the watcher listens, or has been told to

	mu      sync.Mutex
	latency time.Duration                          // moving average; 0 before the first attempt
	at      time.Time                              // when latency was last brought up to date
	usual   time.Duration                          // moving average of what was answered; does not fade
	budget  float64                                // retries that others may send here
	reads   map[context.Context]context.CancelFunc // attempts under way that may be given up
}

func (n *node) readyToTrip(c gobreaker.Counts) bool {
	return n.inRow.Load() >= faultsInRow ||
		c.TotalSuccesses+c.TotalFailures >= enough && c.TotalFailures >= c.TotalSuccesses
}

// usable reports whether users' requests may go to the node.
func (n *node) usable() bool { return n.closed.Load() && n.suspended.Load() == 0 }

// reason is the newest failure since the node was last put to use, nil if there
// was none.
func (n *node) reason() error {
	if why := n.why.Load(); why != nil {
		return *why
	}
	return nil
}

func (n *node) rouse() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// enter counts a request in, unless the node has as many as it may have.
func (n *node) enter(limit int) bool {
	if n.inFlight.Load() == 0 {
		n.heard.Store(int64(n.now())) // a node is not silent for as long as nothing is asked
	}
	if n.inFlight.Add(1) > int64(limit) {
		n.inFlight.Add(-1)
		return false
	}
	return true
}

func (n *node) leave() { n.inFlight.Add(-1) }

// observe takes an attempt's duration into the average. One that failed may
// raise the average only: to be refused fast is not to be served fast.
func (n *node) observe(d time.Duration, failed bool) {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if !failed {
		n.usual += time.Duration(latencyWeight * float64(d-n.usual))
	}
	faded := n.faded(now)
	if failed && d < faded {
		return
	}
	if faded == 0 {
		n.latency = d
	} else {
		n.latency = time.Duration((1-latencyWeight)*float64(n.latency) + latencyWeight*float64(d))
		if d > n.latency && failed {
			n.latency = d // a time-out tells at once
		}
	}
	n.at = now
}

// faded is the average as far as it is still remembered. mu is held.
func (n *node) faded(now time.Time) time.Duration {
	return time.Duration(float64(n.latency) * math.Exp2(-float64(now.Sub(n.at))/float64(latencyHalfLife)))
}

// weight is how much the node is to be preferred: it falls with the square of
// its latency and of what it has in flight.
func (n *node) weight(now time.Time) float64 {
	n.mu.Lock()
	cost := max(n.faded(now), latencyFloor).Seconds()
	n.mu.Unlock()
	cost *= float64(1 + n.inFlight.Load())
	return 1 / (cost * cost)
}

// earn adds a first attempt's share to the node's budget of retries.
func (n *node) earn(limit float64) {
	n.mu.Lock()
	n.budget = min(n.budget+retryShare, limit)
	n.mu.Unlock()
}

// spend takes one retry from the budget.
func (n *node) spend() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.budget < 1 {
		return false
	}
	n.budget--
	return true
}

// Status is a node at one moment.
type Status struct {
	Name      string
	Usable    bool          // users' requests may go there
	Suspended bool          // out of use by Suspend, whatever its breaker says
	Breaker   string        // "closed", "half-open", "open"
	Opened    uint64        // how often the breaker opened or the node went silent
	InFlight  int           // requests
	Latency   time.Duration // moving average
	Requests  uint64        // attempts
	Faults    uint64        // attempts that the node is to blame for
}

func (n *node) status() Status {
	n.mu.Lock()
	latency := n.faded(time.Now())
	n.mu.Unlock()
	return Status{Name: n.name, Usable: n.usable(), Suspended: n.suspended.Load() != 0, Breaker: n.breaker.State().String(),
		Opened: n.opened.Load(), InFlight: int(n.inFlight.Load()), Latency: latency, Requests: n.requests.Load(), Faults: n.faults.Load()}
}
