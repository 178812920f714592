// Package queue shares the places for calls to a service between those who call:
// who finds none free waits, and is served fairly.
//
// Callers take turns, each caller's keys take turns, and the calls of one caller
// for one key are served as they came. So whoever has few calls is served soon,
// however many others have; and a key that is asked for much does not keep the
// same caller's other keys waiting.
//
// One caller has three quarters of the places at most, even if nobody else calls:
// turns decide only on places that come free, and while slow calls of one caller
// have all of them, none does. So whoever comes beside one other need not wait at
// all. A caller who is alone loses little by it: what keeps a service busy is well
// below the most that it is to have at once.
//
// Nobody waits in vain. Sixteen calls may wait for each place; when they are that
// many, the newest of the caller who has most gives way to one who has fewer, or
// the new call is refused. A call that would not be served before its deadline,
// by how long calls hold their places, is refused when it comes; and when there
// are no places any more, all who wait are refused at once.
//
// The queue knows nothing of the service but how many places there are, which may
// change at any time. It has no goroutine of its own.
package queue

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"time"
)

// Why calls are refused.
var (
	ErrNone = errors.New("there are no places")
	ErrFull = errors.New("too many calls wait")
	ErrLate = errors.New("no place comes free in time")
)

const (
	perPlace   = 16   // calls that may wait for each place
	recent     = 16   // calls whose time in a place makes up most of the average
	remembered = 1024 // callers without calls that are kept, for the sake of allocations
)

// Caller is who takes turns with others: an effective user, and the real user
// behind him if there is one. Both are empty for edekd itself.
type Caller struct{ User, Real string }

type turnsOf struct{}

// For returns a context for calls in edekd's own name that are made for a caller:
// they take his turns, so that nobody's calls can make it edekd that waits.
func For(ctx context.Context, who Caller) context.Context {
	return context.WithValue(ctx, turnsOf{}, who)
}

// Whose returns the caller whose turns calls in edekd's own name take: edekd, but
// for a context made by For.
func Whose(ctx context.Context) Caller {
	who, _ := ctx.Value(turnsOf{}).(Caller)
	return who
}

// Queue is the places and who waits for them. It is safe for concurrent use.
type Queue struct {
	places func() int

	mu      sync.Mutex
	callers map[Caller]*party
	sweep   int           // how many callers there may be before the idle ones are forgotten
	all     party         // of callers
	busy    int           // places that are taken
	hold    time.Duration // how long calls had theirs, a moving average
	last    time.Time     // when one was last given
	refused uint64
}

// New makes a queue. places says how many calls may be under way now; with 0
// nobody can be served. It is asked at every call, under a lock, so it must be
// quick and not call the queue.
func New(places func() int) *Queue {
	return &Queue{places: places, callers: map[Caller]*party{}, sweep: remembered}
}

// Place is what a call holds from when it is let in to when it ends.
type Place struct {
	queue  *Queue
	caller *party
	since  time.Time
}

// Take gives a place if nobody needs to wait for one. It allocates nothing for a
// caller who called lately. The texts of who may alias buffers that are used again.
func (q *Queue) Take(who Caller) (Place, bool) {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	places := q.serve(now)
	c := q.caller(who)
	if !q.fits(c, places) {
		return Place{}, false
	}
	return q.admit(c, now), true
}

// Wait waits for a place, until ctx ends at the longest. The error is ErrNone,
// ErrFull or ErrLate, which can come at any time while it waits, or that of a
// context that was cancelled. The texts may alias buffers that are used again.
func (q *Queue) Wait(ctx context.Context, who Caller, key string) (Place, error) {
	now := time.Now()
	q.mu.Lock()
	places := q.serve(now)
	c := q.caller(who)
	if q.fits(c, places) {
		defer q.mu.Unlock()
		return q.admit(c, now), nil
	}
	call, err := q.join(ctx, c, key, places, now)
	q.mu.Unlock()
	if err != nil {
		return Place{}, err
	}
	select {
	case got := <-call.done:
		return got.place, got.err
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if call.waiting == 0 { // its turn came at the same moment
		got := <-call.done
		return got.place, got.err
	}
	q.remove(call)
	if err = ctx.Err(); errors.Is(err, context.DeadlineExceeded) {
		q.refused++
		err = ErrLate
	}
	return Place{}, err
}

// Leave gives the place back. It must be called once.
func (p Place) Leave() {
	q, now := p.queue, time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy--
	p.caller.held--
	if took := now.Sub(p.since); q.hold == 0 {
		q.hold = took
	} else {
		q.hold += (took - q.hold) / recent
	}
	q.serve(now)
}

// Turned tells the queue that the number of places may have changed. What else
// happens makes it look, too; without calls under way it must be told.
func (q *Queue) Turned() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.serve(time.Now())
}

// Status is a queue at one moment.
type Status struct {
	Waiting int    // calls
	Refused uint64 // calls that found the queue full, gave way, or were too late
}

// Status returns how the queue is now.
func (q *Queue) Status() Status {
	q.mu.Lock()
	defer q.mu.Unlock()
	return Status{q.all.waiting, q.refused}
}

// caller finds a caller, or takes him in.
func (q *Queue) caller(who Caller) *party {
	c := q.callers[who]
	if c == nil {
		if len(q.callers) >= q.sweep {
			maps.DeleteFunc(q.callers, func(_ Caller, c *party) bool { return c.held == 0 && c.waiting == 0 })
			q.sweep = max(remembered, 2*len(q.callers))
		}
		c = &party{above: &q.all, keys: map[string]*party{}}
		q.callers[Caller{strings.Clone(who.User), strings.Clone(who.Real)}] = c
	}
	return c
}

// fits reports whether a caller may have one of so many places more.
func (q *Queue) fits(c *party, places int) bool {
	return q.busy < places && c.held < max(1, places-(places+3)/4)
}

func (q *Queue) admit(c *party, now time.Time) Place {
	q.busy++
	c.held++
	q.last = now
	return Place{q, c, now}
}

// serve gives places that are free to those whose turn it is, and returns how
// many there are in all.
func (q *Queue) serve(now time.Time) (places int) {
	places = q.places()
	for places > 0 && q.busy < places {
		// Of two callers with all they may have no place would be left.
		turn := q.all.turns.Front()
		for turn != nil && !q.fits(turn.Value.(*party), places) {
			turn = turn.Next()
		}
		if turn == nil {
			return places
		}
		c := turn.Value.(*party)
		call := c.next().next()
		q.remove(call)
		call.above.pass()
		c.pass()
		call.done <- outcome{place: q.admit(c, now)}
	}
	for places == 0 && q.all.waiting > 0 {
		q.refuse(q.all.next().next().next(), ErrNone)
	}
	return places
}

// join lets a call wait, or says why it may not.
func (q *Queue) join(ctx context.Context, c *party, key string, places int, now time.Time) (*party, error) {
	if places == 0 {
		return nil, ErrNone
	}
	line := c.keys[key]
	if line == nil {
		line = &party{above: c}
	}
	if deadline, ok := ctx.Deadline(); ok && q.late(line, deadline.Sub(now), now) {
		q.refused++
		return nil, ErrLate
	}
	if q.all.waiting >= perPlace*places && !q.makeRoom(c, line) {
		q.refused++
		return nil, ErrFull
	}
	if line.waiting == 0 {
		line.key = strings.Clone(key)
		c.keys[line.key] = line
	}
	call := &party{above: line, done: make(chan outcome, 1)}
	call.add()
	return call, nil
}

// late reports whether a call that joins a line now would not end within left. A
// place comes free once in the time for which calls hold one, on average; or if
// none has for longer, once in so long.
func (q *Queue) late(line *party, left time.Duration, now time.Time) bool {
	hold := max(q.hold, now.Sub(q.last))
	enough := func(turns int) bool {
		return hold*time.Duration(turns)/time.Duration(q.busy)+q.hold <= left
	}
	return !enough(q.all.waiting+1) && !enough(line.turnsUntilNew())
}

// makeRoom refuses the newest call of the caller who has most waiting, and of his
// the one for the key that has most, if then he still has as many as the caller
// of a new one. The keys of one caller make room for each other likewise.
func (q *Queue) makeRoom(c, line *party) bool {
	most, few := q.all.most(), c
	if most == c {
		most, few = c.most(), line
	}
	if most.waiting < few.waiting+2 {
		return false
	}
	if most.above == &q.all {
		most = most.most()
	}
	q.refused++
	q.refuse(most.turns.Back().Value.(*party), ErrFull)
	return true
}

func (q *Queue) refuse(call *party, err error) {
	q.remove(call)
	call.done <- outcome{err: err}
}

// remove takes a call out.
func (q *Queue) remove(call *party) {
	call.drop()
	if line := call.above; line.waiting == 0 {
		delete(line.above.keys, line.key)
	}
}
