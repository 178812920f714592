// Package audit writes kms-audit.log: who did what to which key, in the text
// format that Hadoop has frozen, so that the parsers a site has go on working.
// Beside it or in its place it writes the same as JSON, with what the frozen
// format has no room for: client address, real user, request. URLs are written
// without the tokens in them, see Redact.
//
// # Aggregation
//
// NameNodes and clients repeat a few operations thousands of times a second.
// Like Hadoop, the log aggregates those by user, key and operation. The first
// success is logged at once, with accessCount=1. After the window (10 s) the
// total is logged, the first success included; the entry then lives for one
// more window, in which hits are counted but not logged at once, and so on
// until a window brings none. So one lone decrypt makes two lines. The interval
// of a line is the time since the entry was made. A denial of the same user,
// key and operation logs the pending total early.
//
// # When the log cannot be written
//
// Lines pass through a bounded queue to one writer, which retries until the
// disk takes them. Meanwhile, once the queue is full:
//
//   - counted successes stay counted and are logged when there is room again;
//   - other successes are dropped, never waited for, and an
//     `ERROR Method:'AUDIT' Exception:'lost …'` line tells how many and when;
//   - errors wait for room for a bounded time, then count as lost;
//   - a batch that opens keys is refused at once;
//   - denials and administrative operations wait until their line is in the file,
//     and their caller is told when it is not.
//
// A request that is denied without a trace is what an intruder wishes for, so
// when Unauthorized or Unauthenticated fails the request is to be answered as
// the server's failure, and Ready fails for a while.
//
// The line of an administrative operation is written after the change is
// committed, because it reports what happened. A failure of Admin hence does not
// mean that nothing changed, and must not be turned into a dropped connection: a
// client would send the request again. Ask Ready before the change and refuse
// the request when it fails; that leaves only a log that breaks in between.
package audit

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"
)

const (
	defaultWindow = 10 * time.Second
	defaultWait   = 5 * time.Second
	defaultCount  = 32 << 20
	defaultQueue  = 1 << 20
)

// Options tune a Log. The zero value of each means its default.
type Options struct {
	// Window is the aggregation window, hadoop.kms.audit.aggregation.window.ms:
	// 10 s.
	Window time.Duration
	// Wait is how long lines that must not be lost may wait, for room in the
	// queue and for the disk: 5 s.
	Wait time.Duration
	// CountBytes bounds the memory of the (user, key, operation) triples counted at
	// once; beyond it the oldest is logged early and forgotten: 32 MiB, which is
	// enough for a user of 150 000 keys.
	CountBytes int
	// QueueBytes bounds the lines of successes that wait for the writer, in all
	// forms together: 1 MiB.
	QueueBytes int
	// JSON is where the same goes as JSON, one object a line: no JSON where it
	// is nil. What New's out is required to be is required of it, too.
	JSON io.Writer
	// Server names this server in the JSON form, where the logs of several are
	// brought together. Empty: it does not.
	Server string
}

// Log is an audit log. Its methods are safe for concurrent use. Control
// characters in whatever comes from a client are escaped, and overlong values
// cut.
type Log struct {
	window time.Duration
	wait   time.Duration
	json   bool // whether there is a JSON form

	table *table
	queue *queue

	closing chan struct{}
	swept   chan struct{} // closed when the sweeper has returned
}

// New starts a log that writes whole lines to out, each Write holding one or
// more. Out should return io.Writer's n honestly when it fails, as
// logfile.File does. It stays the caller's and is closed after the Log. It may
// be nil where there is Options.JSON.
func New(out io.Writer, opts Options) *Log {
	var outs []io.Writer
	var forms []form
	if out != nil {
		outs, forms = append(outs, out), append(forms, appendText)
	}
	if opts.JSON != nil {
		outs, forms = append(outs, opts.JSON), append(forms, jsonForm(opts.Server))
	}
	l := &Log{
		window:  orDefault(opts.Window, defaultWindow),
		wait:    orDefault(opts.Wait, defaultWait),
		json:    opts.JSON != nil,
		table:   newTable(orDefault(opts.CountBytes, defaultCount)),
		queue:   newQueue(outs, forms, orDefault(opts.QueueBytes, defaultQueue)),
		closing: make(chan struct{}),
		swept:   make(chan struct{}),
	}
	go l.sweepUntilClosed()
	return l
}

func orDefault[T int | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// sweepUntilClosed looks for ended windows ten times a window, as Hadoop does, and
// more often while more have ended than lines have room.
func (l *Log) sweepUntilClosed() {
	defer close(l.swept)
	tick := time.NewTicker(max(l.window/10, time.Millisecond))
	defer tick.Stop()
	var room <-chan struct{}
	for {
		select {
		case now := <-tick.C:
			room = l.sweep(now)
		case <-room:
			room = l.sweep(time.Now())
		case <-l.closing:
			return
		}
	}
}

// OK logs a success that is neither aggregated nor administrative. Extra may be
// empty. It never waits; without room the success counts as lost.
func (l *Log) OK(e Event, extra string) {
	if !l.queue.offer(record{Event: e, time: time.Now(), extra: extra}) {
		l.queue.lose(1)
	}
}

// Batch logs the success of one request that opened keys, n of them, and returns
// nil once there is room for its line. After an error no key must be handed out:
// what opens them one by one is counted, whatever becomes of the log, and a batch
// shall not be the way round that. Extra is for the text form.
func (l *Log) Batch(e Event, n int, extra string) error {
	if !l.queue.offer(record{Event: e, time: time.Now(), extra: extra, batch: n}) {
		return fmt.Errorf("audit %s of key %q: %w", e.Op, e.Key, errFull)
	}
	return nil
}

// State logs that the service is now as the word says, and how it was before:
// what was refused or served from memory meanwhile is read in that light.
func (l *Log) State(is, was string) {
	l.OK(Event{Op: ServiceState}, is+", before "+was)
}

// Admin logs the success of an operation that changed something: create,
// delete, roll-over, invalidation. It returns nil once the line has been
// written. An error means that it was not within Options.Wait or before ctx
// ended; the line may still be written later, and the change it reports has
// happened either way. Ctx should not be one that ends when the server begins to
// shut down, as fasthttp's RequestCtx does.
func (l *Log) Admin(ctx context.Context, e Event, extra string) error {
	ctx, cancel := context.WithTimeout(ctx, l.wait)
	defer cancel()
	if err := l.queue.put(ctx, l.queue.line(record{Event: e, time: time.Now(), extra: extra}), true); err != nil {
		return fmt.Errorf("audit %s of key %q: %w", e.Op, e.Key, err)
	}
	return nil
}

// Unauthorized logs a denial, by the KMS layer (an operation) or the key layer
// (a right, KeyAll and following). It returns nil once the line has been
// written. After an error, the request must be answered as a failure of the
// server (500) in place of the denial.
func (l *Log) Unauthorized(e Event) error {
	l.flush(&e)
	if err := l.denial(record{Event: e, verdict: denied, status: cmp.Or(e.Status, 403)}); err != nil {
		return fmt.Errorf("audit the denial of %s of key %q: %w", e.Op, e.Key, err)
	}
	return nil
}

// Unauthenticated logs a request that could not prove who sent it; e is without
// Caller. Url is the full URL with its query, in which Redact is done here. As
// with Unauthorized, the request must be answered with 500 after an error.
func (l *Log) Unauthenticated(e Event, method, url, msg string) error {
	if err := l.denial(record{Event: e, verdict: unauthenticated, status: 401, method: method, url: Redact(url), text: msg}); err != nil {
		return fmt.Errorf("audit an unauthenticated request: %w", err)
	}
	return nil
}

// denial logs what must be in the file before the request is answered.
func (l *Log) denial(r record) error {
	r.time = time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), l.wait)
	defer cancel()
	err := l.queue.put(ctx, l.queue.line(r), true)
	if err != nil {
		l.queue.refuseDenial()
	}
	return err
}

// Error logs a request that failed for another reason than a denial: with which
// HTTP status, method, and message to the client. E.Caller is zero when nobody is
// known; e.Op and e.Key show in the JSON form only. It waits only while the queue
// is full; what does not get in then is told of by the line about losses.
func (l *Log) Error(e Event, status int, method, msg string) {
	ctx, cancel := context.WithTimeout(context.Background(), l.wait)
	defer cancel()
	_ = l.queue.put(ctx, l.queue.line(record{Event: e, verdict: failed, time: time.Now(), status: status, method: method, text: msg}), false)
}

// Ready returns nil when lines reach the file, else why they do not: the last
// write failed, one has been under way for a second, or a denial could not be
// written in the last ten seconds. Callers ask before an administrative change.
func (l *Log) Ready() error {
	select {
	case <-l.closing:
		return errClosed
	default:
	}
	if err := l.queue.failure(); err != nil {
		return fmt.Errorf("audit log cannot be written: %w", err)
	}
	if at := l.queue.refused.Load(); at != nil && time.Since(*at) < refusalHold {
		return errRefused
	}
	return nil
}

// Lines is the number of lines written since the start.
func (l *Log) Lines() uint64 { return l.queue.lines.Load() }

// Lost is the number of events dropped since the start, because there was no
// room for their lines.
func (l *Log) Lost() uint64 { return l.queue.lost.Load() }

// Pending is the number of bytes that wait to be written.
func (l *Log) Pending() int { return l.queue.depth() }

// CountedBytes is the memory that triples of user, key and operation take while
// they are counted, and the most it can be.
func (l *Log) CountedBytes() (now, most int64) { return l.table.bytes() }

// Stalled reports whether lines currently fail to reach the file.
func (l *Log) Stalled() bool { return l.queue.failure() != nil }

// Close logs all pending counts, refuses what comes later, and returns when
// everything is written or ctx ends. It is called once, after the last request.
func (l *Log) Close(ctx context.Context) error {
	close(l.closing)
	<-l.swept
	l.drain(ctx)
	return l.queue.close(ctx)
}
