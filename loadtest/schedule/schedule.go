// Package schedule says when requests are due, and hands them out when they are.
//
// An open-loop load has a plan that no server can slow down: arrival i is due at a
// fixed time, whether or not the ones before it were answered. Latency counted
// from that time includes the wait a stalled server causes to requests that could
// not even be sent. A closed-loop load sends the next request after the last
// answer, so that a stalled server is simply asked less (coordinated omission);
// its rate says what a server can do, its latencies say little.
package schedule

import (
	"fmt"
	"math"
	"time"
)

// Ramp is the step of arrivals between two steps: sent, but not part of any
// step's figures.
const Ramp = -1

// Window is a part of a plan: from Begin to End, counted from the start of the
// load, the rate goes evenly from From to To arrivals per second.
type Window struct {
	Step       int // counted from 0, or Ramp
	Begin, End time.Duration
	From, To   float64

	first float64 // arrivals before the window
}

// count returns how many arrivals are due in the first t of the window.
func (w *Window) count(t time.Duration) float64 {
	s, length := t.Seconds(), (w.End - w.Begin).Seconds()
	return w.From*s + (w.To-w.From)*s*s/(2*length)
}

// Plan is a list of windows, one after the other without gaps.
type Plan struct {
	windows []Window
	total   int64
}

// The bounds of a plan.
const (
	MaxRate   = 10_000_000
	MaxLength = 7 * 24 * time.Hour
	MaxSteps  = 100
)

// NewPlan makes a plan that holds each rate, in arrivals per second, for a time,
// and before each step climbs to its rate evenly for another, which may be 0.
func NewPlan(rates []float64, hold, ramp time.Duration) (*Plan, error) {
	if len(rates) == 0 || len(rates) > MaxSteps {
		return nil, fmt.Errorf("%d rates: between 1 and %d are possible", len(rates), MaxSteps)
	}
	if hold <= 0 || ramp < 0 {
		return nil, fmt.Errorf("a step of %v after a ramp of %v: the step must last, the ramp may be 0", hold, ramp)
	}
	if total := (hold.Seconds() + ramp.Seconds()) * float64(len(rates)); total > MaxLength.Seconds() {
		return nil, fmt.Errorf("a load of %.0f seconds is longer than %v", total, MaxLength)
	}
	p := &Plan{}
	from := 0.0
	for step, rate := range rates {
		if !(rate > 0) || rate > MaxRate {
			return nil, fmt.Errorf("a rate of %v per second: it must be above 0, and at most %d", rate, MaxRate)
		}
		if ramp > 0 {
			p.append(Window{Step: Ramp, From: from, To: rate}, ramp)
		}
		p.append(Window{Step: step, From: rate, To: rate}, hold)
		from = rate
	}
	return p, nil
}

func (p *Plan) append(w Window, length time.Duration) {
	if n := len(p.windows); n > 0 {
		last := &p.windows[n-1]
		w.Begin = last.End
		w.first = last.first + last.count(last.End-last.Begin)
	}
	w.End = w.Begin + length
	p.windows = append(p.windows, w)
	// An arrival due at the very end is not part of the plan; a rounding error
	// must not make one.
	p.total = int64(math.Ceil(w.first + w.count(length) - 1e-6))
}

// Windows returns the plan's windows in their order. They are not to be changed.
func (p *Plan) Windows() []Window { return p.windows }

// Total returns the number of arrivals.
func (p *Plan) Total() int64 { return p.total }

// End returns when the plan is over, counted from the start.
func (p *Plan) End() time.Duration { return p.windows[len(p.windows)-1].End }

// Due returns when arrival i (counted from 0) is due, counted from the start, and
// the step it belongs to.
func (p *Plan) Due(i int64) (due time.Duration, step int) {
	at := 0
	for at+1 < len(p.windows) && p.windows[at+1].first <= float64(i) {
		at++
	}
	w := &p.windows[at]
	k := float64(i) - w.first
	length := (w.End - w.Begin).Seconds()
	// k = From·t + slope/2·t², solved for t in the form that is exact for slope 0.
	slope := (w.To - w.From) / length
	t := 2 * k / (w.From + math.Sqrt(max(0, w.From*w.From+2*slope*k)))
	if k <= 0 {
		t = 0
	}
	return w.Begin + time.Duration(t*float64(time.Second)), w.Step
}

// Before returns how many arrivals are due before a time.
func (p *Plan) Before(t time.Duration) int64 {
	for i := range p.windows {
		if w := &p.windows[i]; t < w.End {
			return int64(math.Ceil(w.first + w.count(max(0, t-w.Begin))))
		}
	}
	return p.total
}

// Rate returns the rate at a time, 0 after the end.
func (p *Plan) Rate(t time.Duration) float64 {
	for i := range p.windows {
		if w := &p.windows[i]; t < w.End {
			return w.From + (w.To-w.From)*float64(t-w.Begin)/float64(w.End-w.Begin)
		}
	}
	return 0
}
