// Package measure records latencies and failures of many workers, cheaply and in
// bounded memory.
//
// Workers record into lanes, a few workers to a lane. Once a second Tick takes
// what the lanes hold and adds it to the totals of the steps and, as one more
// point, to the series. Latencies are kept to three significant digits.
package measure

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"github.com/edekd/edekd/loadtest/result"
	"github.com/edekd/edekd/loadtest/schedule"
)

const (
	finest     = int64(time.Microsecond)
	longest    = int64(time.Hour)
	maxClasses = 64  // of errors of one operation in one step; more are "other"
	maxSample  = 300 // bytes of an error's text that are kept
	maxClass   = 100 // bytes of a class's name

	// MaxPoints bounds the series: longer loads have wider points.
	MaxPoints = 3600
)

// Recorder holds the figures of a run.
type Recorder struct {
	windows []schedule.Window
	steps   int
	lanes   []*Lane

	free sync.Pool // *cell, empty

	// Only Tick and what is called after the last Tick use the rest.
	cells  []*cell // by slot
	lags   []*hdr.Histogram
	busy   []int64
	served []int64
	series []result.Point
	ticked time.Duration
}

// Lane is where a few workers record.
type Lane struct {
	recorder *Recorder
	requests atomic.Int64
	edeks    atomic.Int64

	mu     sync.Mutex
	cells  []*cell // by slot; nil: nothing happened since the last Tick
	lags   []*cell // by step; nil: no arrival since the last Tick
	busy   []int64 // by step
	served []int64 // by step and, last, anywhere
}

// cell is one kind of operation in one step.
type cell struct {
	latency  *hdr.Histogram
	answered int64
	failed   int64
	edeks    int64
	errors   map[string]result.Error
}

func newHistogram() *hdr.Histogram { return hdr.New(finest, longest, 3) }

// New makes a recorder for the steps that the windows name.
func New(windows []schedule.Window, lanes int) *Recorder {
	r := &Recorder{windows: windows}
	for i := range windows {
		r.steps = max(r.steps, windows[i].Step+1)
	}
	r.free.New = func() any { return &cell{latency: newHistogram(), errors: map[string]result.Error{}} }
	slots := (r.steps + 1) * int(result.Ops)
	r.cells = make([]*cell, slots)
	r.lags, r.busy, r.served = make([]*hdr.Histogram, r.steps), make([]int64, r.steps), make([]int64, r.steps+1)
	for range lanes {
		r.lanes = append(r.lanes, &Lane{recorder: r, cells: make([]*cell, slots),
			lags: make([]*cell, r.steps), busy: make([]int64, r.steps), served: make([]int64, r.steps+1)})
	}
	return r
}

// Lane returns the lane of the i-th worker.
func (r *Recorder) Lane(i int) *Lane { return r.lanes[i%len(r.lanes)] }

func slot(step int, op result.Op) int { return (step+1)*int(result.Ops) + int(op) }

// cell returns the cell for an operation. l.mu is held.
func (l *Lane) cell(step int, op result.Op) *cell {
	i := slot(step, op)
	if l.cells[i] == nil {
		l.cells[i] = l.recorder.free.Get().(*cell)
	}
	return l.cells[i]
}

func record(h *hdr.Histogram, d time.Duration, n int64) {
	// Within the bounds of the histogram, recording cannot fail.
	_ = h.RecordValues(min(max(int64(d), 0), longest), n)
}

// Answered records one successful operation that dealt with some encrypted keys.
func (l *Lane) Answered(step int, op result.Op, latency time.Duration, edeks int) {
	l.edeks.Add(int64(edeks))
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.cell(step, op)
	c.answered++
	c.edeks += int64(edeks)
	record(c.latency, latency, 1)
}

// Failure is why operations failed.
type Failure struct {
	Class  string
	Sample string // the words of one of them
	// Waited tells that the caller had to wait for it, as for a timeout: the time
	// is a latency that no answer would have been better than.
	Waited bool
}

// Failed records n failed operations.
func (l *Lane) Failed(step int, op result.Op, latency time.Duration, why Failure, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.cell(step, op)
	c.failed += n
	if why.Waited {
		record(c.latency, latency, n)
	}
	addError(c.errors, result.Error{Class: result.Printable(why.Class[:min(len(why.Class), maxClass)]), Count: n, Sample: result.Printable(why.Sample[:min(len(why.Sample), maxSample)])})
}

func addError(errors map[string]result.Error, e result.Error) {
	old, known := errors[e.Class]
	if !known && len(errors) >= maxClasses {
		e.Class = "other"
		old, known = errors[e.Class]
	}
	if known {
		e.Count += old.Count
		e.Sample = old.Sample
	}
	errors[e.Class] = e
}

// Arrived records how an arrival was handed out.
func (l *Lane) Arrived(a schedule.Arrival) {
	if a.Step == schedule.Ramp {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lags[a.Step] == nil {
		l.lags[a.Step] = l.recorder.free.Get().(*cell)
	}
	record(l.lags[a.Step].latency, a.Lag, 1)
	if a.Sent-a.Due-a.Lag > time.Millisecond {
		l.busy[a.Step]++
	}
}

// Served records that an arrival was done with success, at a time counted from the
// start of the load. The achieved rate counts where that falls.
func (l *Lane) Served(at time.Duration) {
	step := schedule.Ramp
	for i := range l.recorder.windows {
		if w := &l.recorder.windows[i]; at >= w.Begin && at < w.End {
			step = w.Step
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if step >= 0 {
		l.served[step]++
	}
	l.served[len(l.served)-1]++
}

// Requested records that an HTTP request was answered.
func (l *Lane) Requested() { l.requests.Add(1) }

// Requests returns the number of HTTP requests answered so far, and of encrypted
// keys in them. It may be called at any time.
func (r *Recorder) Requests() (requests, edeks int64) {
	for _, l := range r.lanes {
		requests += l.requests.Load()
		edeks += l.edeks.Load()
	}
	return requests, edeks
}

// take empties a lane into the recorder and adds its cells to ops, by operation.
func (r *Recorder) take(l *Lane, ops *[result.Ops]*cell) (served, failed int64) {
	fresh := make([]*cell, len(l.cells))
	l.mu.Lock()
	cells := l.cells
	l.cells = fresh
	for step := range r.steps {
		r.busy[step] += l.busy[step]
		if c := l.lags[step]; c != nil {
			if r.lags[step] == nil {
				r.lags[step] = newHistogram()
			}
			r.lags[step].Merge(c.latency)
			r.release(c)
			l.lags[step] = nil
		}
	}
	clear(l.busy)
	for i, n := range l.served {
		r.served[i] += n
	}
	served = l.served[r.steps]
	clear(l.served)
	l.mu.Unlock()

	for i, c := range cells {
		if c == nil {
			continue
		}
		failed += c.failed
		op := i % int(result.Ops)
		if ops[op] == nil {
			ops[op] = r.free.Get().(*cell)
		}
		ops[op].latency.Merge(c.latency)
		ops[op].answered += c.answered
		if r.cells[i] == nil {
			r.cells[i] = r.free.Get().(*cell)
		}
		total := r.cells[i]
		total.latency.Merge(c.latency)
		total.answered += c.answered
		total.failed += c.failed
		total.edeks += c.edeks
		for _, e := range c.errors {
			addError(total.errors, e)
		}
		r.release(c)
	}
	return served, failed
}

func (r *Recorder) release(c *cell) {
	c.latency.Reset()
	c.answered, c.failed, c.edeks = 0, 0, 0
	clear(c.errors)
	r.free.Put(c)
}

// Tick moves what was recorded since the last Tick into totals and series. asked
// is the rate in force; now counts from the start of the load. It returns the
// point it appended. One goroutine calls it.
func (r *Recorder) Tick(now time.Duration, asked float64) result.Point {
	var ops [result.Ops]*cell
	var served, failed int64
	for _, l := range r.lanes {
		s, f := r.take(l, &ops)
		served += s
		failed += f
	}
	seconds := max(now-r.ticked, time.Microsecond).Seconds()
	r.ticked = now
	p := result.Point{At: now.Seconds(), Asked: asked, Achieved: float64(served) / seconds, Failed: float64(failed) / seconds}
	for op, c := range ops {
		if c != nil {
			p.Operations = append(p.Operations, result.OpPoint{Name: result.Op(op).String(), Count: c.answered, Latency: Summary(c.latency)})
			r.release(c)
		}
	}
	r.series = append(r.series, p)
	return p
}

// Series returns the points so far.
func (r *Recorder) Series() []result.Point { return r.series }

// Lags returns the 99th percentile and the maximum of how late the generator was
// in a step, and the share of arrivals that found all workers busy.
func (r *Recorder) Lags(step int) (p99, most time.Duration, busy float64) {
	h := r.lags[step]
	if h == nil || h.TotalCount() == 0 {
		return 0, 0, 0
	}
	return time.Duration(h.ValueAtPercentile(99)), time.Duration(h.Max()), float64(r.busy[step]) / float64(h.TotalCount())
}

// Served returns how many arrivals were done with success while a step lasted.
func (r *Recorder) Served(step int) int64 { return r.served[step] }

// Operations returns the totals of a step.
func (r *Recorder) Operations(step int) (all []result.Operation) {
	for op := range result.Ops {
		c := r.cells[slot(step, op)]
		if c == nil {
			continue
		}
		o := result.Operation{Name: op.String(), Answered: c.answered, Failed: c.failed, EDEKs: c.edeks, Latency: Summary(c.latency)}
		o.Errors = slices.SortedFunc(maps.Values(c.errors), func(a, b result.Error) int { return int(b.Count - a.Count) })
		all = append(all, o)
	}
	return all
}

// Summary reads the usual figures from a histogram of nanoseconds.
func Summary(h *hdr.Histogram) result.Latency {
	if h.TotalCount() == 0 {
		return result.Latency{}
	}
	at := func(percentile float64) float64 {
		return float64(h.ValueAtPercentile(percentile)) / float64(time.Microsecond)
	}
	return result.Latency{Mean: h.Mean() / float64(time.Microsecond), P50: at(50), P90: at(90), P99: at(99), P999: at(99.9),
		Max: float64(h.Max()) / float64(time.Microsecond)}
}
