package loadtest

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/edekd/edekd/loadtest/login"
	"github.com/edekd/edekd/loadtest/measure"
	"github.com/edekd/edekd/loadtest/result"
	"github.com/edekd/edekd/loadtest/schedule"
)

// worker does one arrival after the other, over one connection to its own target.
type worker struct {
	run     *run
	home    int       // index of the target
	clients []*client // by target; those of other targets are for what goes to all
	lane    *measure.Lane
	rng     *rand.Rand
	zipf    *rand.Zipf // nil: all keys alike
	path    []byte
	body    []byte
}

func newWorker(r *run, i int) *worker {
	w := &worker{run: r, home: i % len(r.o.Targets), lane: r.recorder.Lane(i), rng: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
	for _, t := range r.o.Targets {
		w.clients = append(w.clients, newClient(t, r.o.TLS, r.o.Timeout, w.lane.Requested))
	}
	if n := len(r.zones.all); r.o.Skew > 1 && n > 1 {
		w.zipf = rand.NewZipf(w.rng, r.o.Skew, 1, uint64(n-1))
	}
	return w
}

// work does arrivals until there are no more.
func (w *worker) work(ctx context.Context) {
	defer func() {
		for _, c := range w.clients {
			c.close()
		}
	}()
	for {
		a, ok := w.run.source.Next()
		if !ok {
			return
		}
		w.lane.Arrived(a)
		if w.serve(ctx, a) {
			w.lane.Served(w.run.now())
		}
	}
}

func (w *worker) abort() {
	for _, c := range w.clients {
		c.abort()
	}
}

// zone chooses a zone key.
func (w *worker) zone() *zone {
	if w.zipf != nil {
		return w.run.zones.all[w.zipf.Uint64()]
	}
	return w.run.zones.all[w.rng.IntN(len(w.run.zones.all))]
}

// session chooses an identity.
func (w *worker) session(target int) *login.Session {
	of := w.run.sessions[target]
	return of[w.rng.IntN(len(of))]
}

// question is a request of a worker.
type question struct {
	op     result.Op
	since  time.Duration // latency counts from here
	method string
	path   []byte // after /kms/v1/
	body   []byte
	keys   int // encrypted keys dealt with
}

// ask sends a question and records what came of it. It tells whether the answer
// was what was asked for.
func (w *worker) ask(ctx context.Context, a schedule.Arrival, c *client, s *login.Session, q *question) bool {
	answer, err := c.do(ctx, s, q.method, q.path, q.body)
	latency := w.run.now() - q.since
	if err != nil {
		w.failed(ctx, a, q.op, latency, err)
		return false
	}
	if why := judge(q.op, answer, q.keys); why != nil {
		w.lane.Failed(a.Step, q.op, latency, *why, 1)
		return false
	}
	w.lane.Answered(a.Step, q.op, latency, q.keys)
	return true
}

// failed records an error that is no answer.
func (w *worker) failed(ctx context.Context, a schedule.Arrival, op result.Op, latency time.Duration, err error) {
	why := classify(err)
	if ctx.Err() != nil {
		why = measure.Failure{Class: "unanswered when interrupted", Waited: true}
	}
	w.lane.Failed(a.Step, op, latency, why, 1)
}
