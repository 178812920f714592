package loadtest

import (
	"context"
	"strconv"
	"time"

	"github.com/edekd/edekd/loadtest/login"
	"github.com/edekd/edekd/loadtest/result"
	"github.com/edekd/edekd/loadtest/schedule"
)

// serve does one arrival in the way of the profile and tells whether all of it
// succeeded.
func (w *worker) serve(ctx context.Context, a schedule.Arrival) bool {
	switch w.run.o.Profile {
	case NameNode:
		if w.run.timeToRoll(a.Sent) {
			return w.roll(ctx, a)
		}
		return w.refill(ctx, a)
	case Mixed:
		return w.mixed(ctx, a)
	case Reencrypt:
		return w.reencrypt(ctx, a)
	case LoginStorm:
		return w.storm(ctx, a)
	default:
		return w.decrypt(ctx, a)
	}
}

// mixed draws an operation: of a thousand, 940 files opened, 50 keys made one at a
// time as Ozone and Kudu do, 5 refills and 5 questions for metadata.
func (w *worker) mixed(ctx context.Context, a schedule.Arrival) bool {
	switch n := w.rng.IntN(1000); {
	case n < 940:
		return w.decrypt(ctx, a)
	case n < 990:
		return w.generate(ctx, a, result.Generate, 1)
	case n < 995:
		return w.refill(ctx, a)
	default:
		w.path = append(append(w.path[:0], w.zone().path...), "/_metadata"...)
		return w.askHome(ctx, a, &question{op: result.Metadata, since: a.Due, method: "GET", path: w.path})
	}
}

func (w *worker) askHome(ctx context.Context, a schedule.Arrival, q *question) bool {
	return w.ask(ctx, a, w.clients[w.home], w.session(w.home), q)
}

func (w *worker) decrypt(ctx context.Context, a schedule.Arrival) bool {
	q := w.decryptQuestion(result.Decrypt, a)
	return w.askHome(ctx, a, &q)
}

// decryptQuestion draws an encrypted key to be opened.
func (w *worker) decryptQuestion(op result.Op, a schedule.Arrival) question {
	z := w.zone()
	s := &z.sealed[w.rng.IntN(len(z.sealed))]
	w.path = append(w.path[:0], s.path...)
	w.body = appendDecrypt(w.body[:0], z, s)
	return question{op: op, since: a.Due, method: "POST", path: w.path, body: w.body, keys: 1}
}

// refill asks for as many encrypted keys as a NameNode's queue may lack.
func (w *worker) refill(ctx context.Context, a schedule.Arrival) bool {
	return w.generate(ctx, a, result.Refill, refillFewest+w.rng.IntN(refillMost-refillFewest+1))
}

func (w *worker) generate(ctx context.Context, a schedule.Arrival, op result.Op, n int) bool {
	w.path = append(append(w.path[:0], w.zone().path...), "/_eek?eek_op=generate&num_keys="...)
	w.path = strconv.AppendInt(w.path, int64(n), 10)
	return w.askHome(ctx, a, &question{op: op, since: a.Due, method: "GET", path: w.path, keys: n})
}

// roll makes a new version of a zone key and, as Hadoop's client does, then tells
// the same server, and after that all of them, to drop what they have cached.
func (w *worker) roll(ctx context.Context, a schedule.Arrival) bool {
	z := w.zone()
	if !w.askHome(ctx, a, &question{op: result.Roll, since: a.Due, method: "POST", path: []byte(z.path), body: []byte("{ }")}) {
		return false
	}
	path, ok := []byte(z.path+"/_invalidatecache"), true
	invalidate := func(target int) {
		q := question{op: result.Invalidate, since: w.run.now(), method: "POST", path: path}
		ok = w.ask(ctx, a, w.clients[target], w.session(target), &q) && ok
	}
	invalidate(w.home)
	for target := range w.clients {
		invalidate(target)
	}
	return ok
}

func (w *worker) reencrypt(ctx context.Context, a schedule.Arrival) bool {
	z := w.zone()
	w.path = append(append(w.path[:0], z.path...), "/_reencryptbatch"...)
	return w.askHome(ctx, a, &question{op: result.Reencrypt, since: a.Due, method: "POST", path: w.path, body: z.batch, keys: w.run.o.Batch})
}

// storm is a process that starts: it connects, shakes hands, and, since Hadoop's
// client gives the connection of the handshake up, connects again to open its
// first file. With a delegation token there is no handshake.
func (w *worker) storm(ctx context.Context, a schedule.Arrival) bool {
	c := w.clients[w.home]
	defer c.close()
	t := w.run.o.Targets[w.home]
	s := login.NewSession(w.session(w.home).Identity(), t.Host, t.Addr)
	q := w.decryptQuestion(result.FirstDecrypt, a)
	if s.Identity().NeedsLogin() {
		c.target = s.AppendTarget(append(append(c.target[:0], c.base...), q.path...))
		deadline := time.Now().Add(w.run.o.Timeout)
		err := c.connect(ctx, deadline)
		if err == nil {
			err = c.login(s, deadline)
		}
		latency := w.run.now() - a.Due
		if err != nil {
			w.failed(ctx, a, result.Login, latency, err)
			return false
		}
		w.lane.Answered(a.Step, result.Login, latency, 0)
		c.close()
	}
	return w.ask(ctx, a, c, s, &q)
}
