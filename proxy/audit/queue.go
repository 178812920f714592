package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// stallAfter is how long one write may take before the log counts as
	// stalled.
	stallAfter = time.Second

	// A failed write is tried again after firstRetry, then ever later, up to
	// lastRetry.
	firstRetry = 50 * time.Millisecond
	lastRetry  = time.Second

	// maxWaiting bounds how many requests a log that stands still keeps waiting.
	// It must not tie up every connection of the server.
	maxWaiting = 256

	// refusalHold is how long Ready fails after a denial could not be written,
	// so that a balancer that asks now and then notices.
	refusalHold = 10 * time.Second
)

var (
	errClosed  = errors.New("audit log is closed")
	errFull    = errors.New("audit queue is full")
	errRefused = errors.New("a denial could not be written to the audit log")
)

// queue carries finished lines to one goroutine that writes them, all that wait
// at once in one write. Successes are refused at limit bytes; other lines may
// use a quarter more, so that a flood of successes cannot keep them out.
type queue struct {
	outs  []io.Writer // at most maxForms
	forms []form      // of the same index
	limit int

	mu       sync.Mutex
	buf      line            // what the writer has not taken
	offered  record          // of offer, which so allocates nothing
	written  []chan struct{} // closed when buf has been written
	room     chan struct{}   // closed when the writer takes buf; nil while nobody waits
	waiting  int             // callers waiting for room or for their line to be written
	gap      gap             // lost since the last line that told of losses
	closed   bool
	inFlight int // bytes the writer has taken and not yet written

	wake   chan struct{} // tells the writer that buf is not empty, or closed
	stop   sync.Once
	giveUp chan struct{} // closed when the writer shall stop retrying
	done   chan struct{} // closed when the writer has returned

	began   atomic.Pointer[time.Time] // when the write under way began; nil when none is
	failing atomic.Pointer[error]
	refused atomic.Pointer[time.Time] // when a denial could not be written last; nil: never
	lines   atomic.Uint64
	lost    atomic.Uint64
}

// gap is what was lost and when.
type gap struct {
	successes, others int64
	from, to          time.Time
}

func newQueue(outs []io.Writer, forms []form, limit int) *queue {
	q := &queue{
		outs:   outs,
		forms:  forms,
		limit:  limit,
		wake:   make(chan struct{}, 1),
		giveUp: make(chan struct{}),
		done:   make(chan struct{}),
	}
	go q.run()
	return q
}

// line writes a record in all forms.
func (q *queue) line(r record) (l line) {
	for i, form := range q.forms {
		l[i] = form(nil, &r)
	}
	return l
}

// offer queues the line of a success, without waiting. It returns false when
// there is no room; the caller then either tries again later or reports a loss.
func (q *queue) offer(r record) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.buf.size() >= q.limit {
		return false
	}
	before := q.buf
	q.offered = r
	for i, form := range q.forms {
		q.buf[i] = form(q.buf[i], &q.offered)
	}
	q.offered = record{} // its strings are views
	if q.buf.size() > q.limit {
		for i := range q.buf {
			q.buf[i] = q.buf[i][:len(before[i])]
		}
		return false
	}
	q.notify()
	return true
}

// roomSoon returns a channel that is closed when the writer next takes what is
// queued.
func (q *queue) roomSoon() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.roomNext()
}

// roomNext is roomSoon for callers who hold mu.
func (q *queue) roomNext() <-chan struct{} {
	if q.room == nil {
		q.room = make(chan struct{})
	}
	return q.room
}

// lose records that n successes, or none, will never be told of line by line.
func (q *queue) lose(n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.loseMany(n)
}

// loseMany is lose for callers who hold mu.
func (q *queue) loseMany(n int64) {
	if n > 0 {
		q.gap.successes += n
		q.stretchGap(n)
	}
}

// put queues a line that must not be lost. It waits for room, and if toFile is
// set until the line is in the file, as long as ctx lasts. After an error the
// line is counted as lost unless it was queued: then it may still be written.
func (q *queue) put(ctx context.Context, l line, toFile bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.waitForRoom(ctx, l); err != nil {
		return q.refuse(err)
	}
	if !toFile {
		q.add(l, nil)
		return nil
	}
	if q.failure() != nil && q.crowded() {
		return q.refuse(errFull)
	}
	written := make(chan struct{})
	q.add(l, written)
	q.wait(ctx, written)
	select {
	case <-written:
		return nil
	default:
	}
	err := ctx.Err()
	if err == nil {
		err = errClosed
	}
	if cause := q.failure(); cause != nil {
		err = cause
	}
	return fmt.Errorf("line not written: %w", err)
}

// putTotal queues the line of what was counted, as put does; where there is no
// room n successes, or none, are lost.
func (q *queue) putTotal(ctx context.Context, l line, n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waitForRoom(ctx, l) != nil {
		q.loseMany(n)
		return
	}
	q.add(l, nil)
}

// waitForRoom waits as long as ctx lasts until l may be queued. The caller holds mu.
func (q *queue) waitForRoom(ctx context.Context, l line) error {
	for q.buf.size()+l.size() > q.limit+q.limit/4 && !q.closed {
		if q.crowded() || ctx.Err() != nil {
			return errFull
		}
		q.wait(ctx, q.roomNext())
	}
	if q.closed {
		return errClosed
	}
	return nil
}

// crowded reports whether so many wait that nobody else may. The caller holds mu.
func (q *queue) crowded() bool { return q.waiting >= maxWaiting }

// wait lets go of mu until event is closed, ctx ends, or the writer has
// returned.
func (q *queue) wait(ctx context.Context, event <-chan struct{}) {
	q.waiting++
	q.mu.Unlock()
	select {
	case <-event:
	case <-ctx.Done():
	case <-q.done:
	}
	q.mu.Lock()
	q.waiting--
}

func (q *queue) add(l line, written chan struct{}) {
	for i := range l {
		q.buf[i] = append(q.buf[i], l[i]...)
	}
	if written != nil {
		q.written = append(q.written, written)
	}
	q.notify()
}

func (q *queue) refuse(why error) error {
	q.gap.others++
	q.stretchGap(1)
	if cause := q.failure(); cause != nil {
		return fmt.Errorf("%w: %w", why, cause)
	}
	return why
}

func (q *queue) stretchGap(n int64) {
	now := time.Now()
	if q.gap.from.IsZero() {
		q.gap.from = now
	}
	q.gap.to = now
	q.lost.Add(uint64(n))
	q.notify()
}

// run writes until the queue is closed and empty.
func (q *queue) run() {
	defer close(q.done)
	var batch line
	for {
		<-q.wake
		for {
			var written []chan struct{}
			var closed bool
			batch, written, closed = q.take(batch)
			if batch.size() == 0 {
				if closed {
					return
				}
				break
			}
			for i, out := range q.outs {
				if !q.write(out, batch[i], i == 0) {
					return
				}
			}
			for _, w := range written {
				close(w)
			}
		}
	}
}

// take hands the queued lines to the writer, which lends its own buffers in
// exchange. What was lost while the writer was busy is told after the lines
// that had filled the queue.
func (q *queue) take(used line) (batch line, written []chan struct{}, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch, q.buf = q.buf, used
	for i := range q.buf {
		q.buf[i] = q.buf[i][:0]
	}
	written, q.written = q.written, nil
	if g := q.gap; g.successes+g.others > 0 {
		for i, b := range q.line(record{verdict: lost, time: time.Now(), gap: g}) {
			batch[i] = append(batch[i], b...)
		}
		q.gap = gap{}
	}
	q.inFlight = batch.size()
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
	return batch, written, q.closed
}

// write writes p however often it takes. It returns false when told to give up.
// Of several forms only one is counted.
func (q *queue) write(out io.Writer, p []byte, counted bool) bool {
	for pause := firstRetry; len(p) > 0; pause = min(2*pause, lastRetry) {
		began := time.Now()
		q.began.Store(&began)
		n, err := out.Write(p)
		q.began.Store(nil)
		if err == nil {
			n = len(p)
		}
		whole := bytes.LastIndexByte(p[:n], '\n') + 1
		if counted {
			q.lines.Add(uint64(bytes.Count(p[:whole], []byte{'\n'})))
		}
		p = p[whole:]
		q.mu.Lock()
		q.inFlight -= whole
		q.mu.Unlock()
		if len(p) == 0 {
			break
		}
		q.failing.Store(&err)
		select {
		case <-time.After(pause):
		case <-q.giveUp:
			return false
		}
	}
	q.failing.Store(nil)
	return true
}

// refuseDenial remembers that a denial could not be written.
func (q *queue) refuseDenial() {
	now := time.Now()
	q.refused.Store(&now)
}

// failure says why lines are not reaching the file now, nil when they are.
func (q *queue) failure() error {
	if err := q.failing.Load(); err != nil {
		return *err
	}
	if began := q.began.Load(); began != nil {
		if d := time.Since(*began); d >= stallAfter {
			return fmt.Errorf("a write has been under way for %v", d.Round(time.Millisecond))
		}
	}
	return nil
}

// depth is the number of bytes not yet in the file.
func (q *queue) depth() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.buf.size() + q.inFlight
}

// close refuses new lines, and waits until the queued ones are written or ctx
// ends.
func (q *queue) close(ctx context.Context) error {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.notify()
	select {
	case <-q.done:
	case <-ctx.Done():
		q.stop.Do(func() { close(q.giveUp) })
	}
	left := q.depth()
	if left == 0 {
		return nil
	}
	err := fmt.Errorf("%d bytes of audit lines could not be written", left)
	if cause := q.failure(); cause != nil {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return err
}

func (q *queue) notify() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
