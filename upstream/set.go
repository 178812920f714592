package upstream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/edekd/edekd/edek"
)

// Fault is a failure that a node, and not the request, is to blame for: it could
// not be reached, did not answer in time, or not in its own language.
type Fault struct {
	Err  error
	Sent bool // the node may have got the whole request, and may have done what it says
}

// ErrNotSent is returned by a call that sent its node nothing. It says nothing
// of the node, and is not tried at another.
var ErrNotSent = errors.New("nothing was sent")

func (f *Fault) Error() string { return f.Err.Error() }
func (f *Fault) Unwrap() error { return f.Err }

// Settings of a Set. What is zero gets the default.
type Settings struct {
	// Attempt is how long one attempt of a read may take, 5 s by default.
	Attempt time.Duration
	// Total is how long a request may take with its retry, and how long a
	// change, which is not retried, may take: 2.5 × Attempt by default.
	Total time.Duration
	// Open is how long a node is left alone after its breaker opened, and the
	// time between probes; 1 s by default.
	Open time.Duration
	// InFlight bounds the requests at one node, 256 by default, and with it the
	// retries that can come to it in a burst.
	InFlight int
	// Probe tries a node that is not usable. Its context ends after Attempt.
	Probe func(ctx context.Context, node int) error
	// Alive asks a usable node that has been silent for any answer at all, and
	// nobody else: it tells a slow node from one that hangs. It is Probe if not given.
	Alive func(ctx context.Context, node int) error
	// Changed, when given, is told of a new state. Calls follow each other;
	// states that pass quickly may be left out.
	Changed func(State)
	// NodeChanged, when given, is told in the same way that a node went out of use,
	// and why, if that is known, or is used again.
	NodeChanged func(node int, usable bool, why error)
}

func (s *Settings) fill() {
	if s.Attempt <= 0 {
		s.Attempt = 5 * time.Second
	}
	if s.Total <= 0 {
		s.Total = s.Attempt * 5 / 2
	}
	if s.Open <= 0 {
		s.Open = time.Second
	}
	if s.InFlight <= 0 {
		s.InFlight = 256
	}
	if s.Alive == nil {
		s.Alive = s.Probe
	}
}

// Set is the nodes of one upstream. It is safe for concurrent use.
type Set struct {
	settings    Settings
	nodes       []*node
	suspensions atomic.Uint64
	besides     atomic.Int64 // requests by At under way
	silencing   sync.Mutex   // held while a silent node is judged by whether another is usable

	ctx     context.Context // of the watchers
	stop    context.CancelFunc
	watched sync.WaitGroup
	changed chan struct{} // of capacity one
}

// New makes a set of at least one node. Nodes are known by their index in
// names; names are for people. All are believed healthy to begin with. Close
// must be called.
func New(names []string, settings Settings) *Set {
	settings.fill()
	s := &Set{settings: settings, changed: make(chan struct{}, 1)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	for i, name := range names {
		n := &node{name: name, index: i, began: time.Now(), wake: make(chan struct{}, 1), budget: float64(settings.InFlight), reads: map[context.Context]context.CancelFunc{}}
		n.closed.Store(true)
		n.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
			// The library ignores attempts that began before its window.
			Interval:     max(window, 2*settings.Total),
			BucketPeriod: max(window, 2*settings.Total) / 10,
			// The watcher keeps the real pause; when it comes, the breaker lets it through.
			Timeout:      settings.Open / 2,
			ReadyToTrip:  n.readyToTrip,
			IsSuccessful: func(err error) bool { return err == nil },
			IsExcluded:   func(err error) bool { return err == errGone },
			// Runs under the breaker's lock: marks, and wakes others.
			OnStateChange: func(_ string, _, to gobreaker.State) {
				n.closed.Store(to == gobreaker.StateClosed)
				n.inRow.Store(0)
				if to == gobreaker.StateOpen {
					n.opened.Add(1)
					n.rouse()
				}
				s.rouse()
			},
		})
		s.nodes = append(s.nodes, n)
	}
	for _, n := range s.nodes {
		s.watched.Go(func() { s.watch(n) })
	}
	s.watched.Go(s.report)
	return s
}

var (
	errGone = errors.New("the caller is gone") // stands for attempts that say nothing about the node
	errLeft = errors.New("it went out of use a moment ago")
)

// Close stops the probes and waits for them and for Changed to return. Requests
// under way are not ended by it.
func (s *Set) Close() {
	s.stop()
	s.watched.Wait()
}

// Read makes one attempt at a node that is believed healthy and, if that ends in
// a fault, a second one at another: at the same only where there is no other and
// it broke rather than hung. An attempt that was given up since its node went
// silent is made up for by one more. call gets a context that ends with its
// attempt; it is called in the caller's goroutine. The error is that of the last
// attempt; no usable node at all, or none with room, is edek.Unavailable, at once.
func (s *Set) Read(ctx context.Context, call func(ctx context.Context, node int) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.settings.Total)
	defer cancel()
	n := s.enter(nil, false)
	if n == nil {
		return s.Refusal()
	}
	n.earn(float64(s.settings.InFlight))
	for retried := false; ; {
		err := s.attempt(ctx, n, s.settings.Attempt, true, call)
		if _, isFault := errors.AsType[*Fault](err); !isFault || ctx.Err() != nil || retried {
			return err
		}
		retried = !errors.Is(err, errSilent)
		not := n
		if len(s.nodes) == 1 && !errors.Is(err, context.DeadlineExceeded) {
			not = nil
		}
		if n = s.enter(not, true); n == nil {
			return err
		}
	}
}

// Write makes one attempt at one node after another, until one may have got the
// request: from then on nobody but the caller can know whether to repeat it. The
// error of a fault with Sent is the caller's to explain.
func (s *Set) Write(ctx context.Context, call func(ctx context.Context, node int) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.settings.Total)
	defer cancel()
	n := s.enter(nil, false)
	if n == nil {
		return s.Refusal()
	}
	for tried := 1; ; tried++ {
		err := s.attempt(ctx, n, s.settings.Total, false, call)
		fault, isFault := errors.AsType[*Fault](err)
		if !isFault || fault.Sent || ctx.Err() != nil || tried == len(s.nodes) {
			return err
		}
		if n = s.enter(n, false); n == nil {
			return err
		}
	}
}

// At makes one attempt at a certain node, which need not be usable and may be
// full: for what has to reach every node. The outcome counts if it is usable.
func (s *Set) At(ctx context.Context, node int, call func(ctx context.Context, node int) error) error {
	n := s.nodes[node]
	s.besides.Add(1)
	defer s.besides.Add(-1)
	n.enter(math.MaxInt)
	if n.usable() {
		return s.attempt(ctx, n, s.settings.Attempt, true, call)
	}
	defer n.leave()
	ctx, cancel := context.WithTimeout(ctx, s.settings.Attempt)
	defer cancel()
	return call(ctx, node)
}

// Attempt is how long one attempt may take.
func (s *Set) Attempt() time.Duration { return s.settings.Attempt }

// Total is how long a request may take.
func (s *Set) Total() time.Duration { return s.settings.Total }

// InFlight is how many requests one node may have.
func (s *Set) InFlight() int { return s.settings.InFlight }

// Usable reports whether users' requests may go to a node.
func (s *Set) Usable(node int) bool { return s.nodes[node].usable() }

// enter chooses a usable node other than not that has room, and takes a retry
// where this is one, at random by weight, and counts a request in.
func (s *Set) enter(not *node, retry bool) *node {
	var few [8]*node
	candidates := few[:0]
	for _, n := range s.nodes {
		if n != not && n.usable() {
			candidates = append(candidates, n)
		}
	}
	for len(candidates) > 0 {
		i := 0
		if len(candidates) > 1 {
			i = draw(candidates)
		}
		if n := candidates[i]; n.enter(s.settings.InFlight) {
			if !retry || n.spend() {
				return n
			}
			n.leave()
		}
		candidates = append(candidates[:i], candidates[i+1:]...)
	}
	return nil
}

func draw(nodes []*node) int {
	var few [8]float64
	weights, sum, now := few[:0], 0.0, time.Now()
	for _, n := range nodes {
		w := n.weight(now)
		weights, sum = append(weights, w), sum+w
	}
	at := rand.Float64() * sum
	for i, w := range weights {
		if at -= w; at < 0 {
			return i
		}
	}
	return len(nodes) - 1
}

// attempt runs call at a node that has been entered, and leaves it. What may be
// repeated is given up when the node goes silent.
func (s *Set) attempt(ctx context.Context, n *node, patience time.Duration, repeatable bool, call func(context.Context, int) error) error {
	defer n.leave()
	done, err := n.breaker.Allow()
	if err != nil { // it opened a moment ago
		return &Fault{Err: fmt.Errorf("%s: %w", n.name, err)}
	}
	attempt, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if repeatable {
		n.hold(attempt, cancel)
		defer n.release(attempt)
	}
	if !n.usable() { // from here on, who takes the node out of use finds the attempt held
		done(errGone)
		return &Fault{Err: fmt.Errorf("%s: %w", n.name, errLeft)}
	}
	s.hearken(n)
	n.requests.Add(1)
	started := time.Now()
	err = call(attempt, n.index)
	took := time.Since(started)
	fault, isFault := errors.AsType[*Fault](err)
	switch {
	case isFault && ctx.Err() == nil && errors.Is(attempt.Err(), context.Canceled):
		err = &Fault{Err: fmt.Errorf("%s: %w", n.name, errSilent), Sent: fault.Sent}
		n.faults.Add(1)
		n.observe(took, true)
		done(errGone) // it is out of use; an open breaker would keep it so after it is back
	case errors.Is(err, ErrNotSent):
		done(errGone)
	case !isFault && errors.Is(err, context.DeadlineExceeded):
		done(errGone) // the user of the set holds the time against nobody
	case !isFault:
		n.heard.Store(int64(n.now()))
		n.observe(took, false)
		n.inRow.Store(0)
		done(nil)
	case ctx.Err() != nil && (!errors.Is(ctx.Err(), context.DeadlineExceeded) || took < s.settings.Attempt/2):
		done(errGone) // a caller in a hurry is no proof against a node
	default:
		n.why.Store(&err)
		n.faults.Add(1)
		n.inRow.Add(1)
		n.observe(took, true)
		done(fault)
	}
	return err
}

// Refusal is the answer when no node can take a request.
func (s *Set) Refusal() error {
	state, text := s.State(), "every node has as many requests as it may have: try again, or raise the bound of requests in flight"
	if state != OK {
		text = "no node can be reached: their logs and the network between may say why"
	}
	return &edek.Error{Kind: edek.Unavailable, Op: "ask upstream", Text: state.String() + ": " + text}
}

// Suspend takes a node out of use until a probe that began later has succeeded.
func (s *Set) Suspend(node int) {
	n := s.nodes[node]
	n.suspended.Store(s.suspensions.Add(1))
	n.rouse()
	s.rouse()
}

// Blame is Suspend with a reason, for NodeChanged.
func (s *Set) Blame(node int, why error) {
	s.nodes[node].why.Store(&why)
	s.Suspend(node)
}

// State is OK while any node is usable, CacheOnly otherwise.
func (s *Set) State() State {
	for _, n := range s.nodes {
		if n.usable() {
			return OK
		}
	}
	return CacheOnly
}

// Nodes returns the status of all nodes, by index.
func (s *Set) Nodes() []Status {
	all := make([]Status, len(s.nodes))
	for i, n := range s.nodes {
		all[i] = n.status()
	}
	return all
}

func (s *Set) rouse() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// report tells NodeChanged and Changed what is new.
func (s *Set) report() {
	out := make([]bool, len(s.nodes))
	for known := OK; ; {
		select {
		case <-s.ctx.Done():
			return
		case <-s.changed:
		}
		for i, n := range s.nodes {
			if usable := n.usable(); usable == out[i] {
				out[i] = !usable
				if usable {
					n.why.Store(nil)
				}
				if s.settings.NodeChanged != nil {
					s.settings.NodeChanged(i, usable, n.reason())
				}
			}
		}
		if state := s.State(); state != known {
			known = state
			if s.settings.Changed != nil {
				s.settings.Changed(state)
			}
		}
	}
}

// watch restores a node that is not usable, and listens to one that is.
func (s *Set) watch(n *node) {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-n.wake:
		}
		s.restore(n)
		s.listen(n)
	}
}

// restore probes a node for as long as it is not usable.
func (s *Set) restore(n *node) {
	for wait := s.pause(n); !n.usable(); wait = s.settings.Open {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(wait):
		}
		s.probe(n)
	}
}

// pause is how long to wait before the first probe: a node whose breaker is
// closed is only suspended, and can be tried at once.
func (s *Set) pause(n *node) time.Duration {
	if n.closed.Load() {
		return 0
	}
	return s.settings.Open
}

func (s *Set) probe(n *node) {
	suspension := n.suspended.Load()
	done, err := n.breaker.Allow()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.settings.Attempt)
	defer cancel()
	err = s.settings.Probe(ctx, n.index)
	if err == nil {
		n.heard.Store(int64(n.now()))
	}
	done(err)
	if err == nil && suspension != 0 && n.suspended.CompareAndSwap(suspension, 0) {
		s.rouse()
	}
}
