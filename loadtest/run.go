package loadtest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edekd/edekd/loadtest/login"
	"github.com/edekd/edekd/loadtest/measure"
	"github.com/edekd/edekd/loadtest/result"
	"github.com/edekd/edekd/loadtest/schedule"
)

// run is a load in progress.
type run struct {
	o        *Options
	zones    *zones
	sessions [][]*login.Session // by target and identity
	windows  []schedule.Window
	plan     *schedule.Plan // nil in a closed loop
	source   schedule.Source
	recorder *measure.Recorder
	usage    *usage
	start    time.Time
	nextRoll atomic.Int64 // time.Duration since start

	progressMu sync.Mutex
}

// How long an interrupted load waits for answers.
const grace = time.Second

// Run does one load. When ctx ends, the result is of what was measured until then,
// marked as interrupted. An error means that there is no result: the options are
// no good, or the servers refuse what the load needs.
func Run(ctx context.Context, o *Options) (*result.Result, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	r := &run{o: o, usage: newUsage(o.Meters)}
	r.usage.idle(ctx)
	if err := r.prepare(ctx); err != nil {
		return nil, errors.Join(err, r.cleanUp())
	}
	interrupted := r.load(ctx)
	res := r.summary(interrupted)
	if err := r.cleanUp(); err != nil {
		res.Findings = append(res.Findings, "not everything was taken away: "+err.Error())
	}
	return res, nil
}

// cleanUp takes away what was made, if that was asked for. It has a time of its
// own, so that it happens after an interruption too.
func (r *run) cleanUp() error {
	if !r.o.DeleteKeys || r.zones == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return r.deleteKeys(ctx)
}

func (r *run) progress(p Progress) {
	if r.o.Progress == nil {
		return
	}
	r.progressMu.Lock()
	defer r.progressMu.Unlock()
	r.o.Progress(p)
}

func (r *run) now() time.Duration { return time.Since(r.start) }

// timeToRoll tells one caller each time a rollover is due.
func (r *run) timeToRoll(now time.Duration) bool {
	next := r.nextRoll.Load()
	return r.o.RollEvery > 0 && int64(now) >= next && r.nextRoll.CompareAndSwap(next, int64(now+r.o.RollEvery))
}

// load sends and measures, and tells whether it was interrupted.
func (r *run) load(ctx context.Context) (interrupted bool) {
	// Workers and the first samples take a moment to be ready.
	r.start = time.Now().Add(50 * time.Millisecond)
	r.nextRoll.Store(int64(r.o.RollEvery))
	if r.o.Closed {
		r.windows = []schedule.Window{{End: r.o.Hold}}
		r.source = schedule.NewClosed(r.start, r.o.Hold)
	} else {
		// Checked before.
		r.plan, _ = schedule.NewPlan(r.o.Rates, r.o.Hold, r.o.Ramp)
		r.windows = r.plan.Windows()
		r.source = schedule.NewOpen(r.plan, r.start, r.o.Timeout)
	}
	lanes := min(r.o.Connections, 2*runtime.GOMAXPROCS(0))
	r.recorder = measure.New(r.windows, lanes)

	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorking()
	workers := make([]*worker, r.o.Connections)
	var all sync.WaitGroup
	for i := range workers {
		workers[i] = newWorker(r, i)
		all.Go(func() { workers[i].work(working) })
	}
	finished := make(chan struct{})
	go func() {
		all.Wait()
		close(finished)
	}()
	sampled := make(chan struct{})
	sampling, stopSampling := context.WithCancel(ctx)
	go func() {
		defer close(sampled)
		r.usage.follow(sampling, r)
	}()

	r.watch(ctx, finished)
	if interrupted = ctx.Err() != nil; interrupted {
		r.source.Stop(grace)
		r.abandon(workers, stopWorking, finished)
	}
	stopSampling()
	<-sampled
	r.recordUnsent()
	r.recorder.Tick(r.now(), 0)
	return interrupted
}

// watch ticks until the workers have finished or the load is interrupted.
func (r *run) watch(ctx context.Context, finished <-chan struct{}) {
	end := r.windows[len(r.windows)-1].End
	ticker := time.NewTicker(max(time.Second, end/measure.MaxPoints))
	defer ticker.Stop()
	for {
		select {
		case <-finished:
			return
		case <-ctx.Done():
			return
		case <-ticker.C:
			now := r.now()
			p := r.recorder.Tick(now, r.rate(now))
			r.progress(Progress{Phase: "load", Done: min(now, end).Seconds(), Total: end.Seconds(), Point: &p})
		}
	}
}

func (r *run) rate(at time.Duration) float64 {
	if r.plan == nil {
		return 0
	}
	return r.plan.Rate(at)
}

// abandon waits a moment for answers, then ends what still waits for one.
func (r *run) abandon(workers []*worker, stopWorking func(), finished <-chan struct{}) {
	timeout := time.After(grace)
	select {
	case <-finished:
		return
	case <-timeout:
	}
	stopWorking()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		// A request may have begun since the last time.
		for _, w := range workers {
			w.abort()
		}
		select {
		case <-finished:
			return
		case <-again.C:
		}
	}
}

// recordUnsent records arrivals that were due and never got a connection, with
// the time they have waited. Leaving them out would make an overloaded server look
// better than it is.
func (r *run) recordUnsent() {
	open, ok := r.source.(*schedule.Open)
	if !ok {
		return
	}
	now := r.now()
	open.Unsent(func(due time.Duration, step int, n int64) {
		r.recorder.Lane(0).Failed(step, r.o.Profile.Operations()[0], now-due, measure.Failure{Class: "never sent", Waited: true,
			Sample: fmt.Sprintf("all %d connections were busy until %v after the time it was due", r.o.Connections, (now - due).Round(time.Millisecond))}, n)
	})
}
