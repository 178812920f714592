package audit

import (
	"container/list"
	"context"
	"hash/maphash"
	"math"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// dead in an entry's hits means that the entry has been removed. It is so far
// below zero that hits arriving late never bring it back.
const dead = math.MinInt64 / 2

const (
	// maxNames bounds the names of a triple that is counted, together, in bytes:
	// longer ones could fill the memory.
	maxNames = 2 << 10
	// entryBytes is what an entry takes beside its names: itself, its place in the
	// order and its share of the buckets.
	entryBytes = 512
)

// entry counts one user's successes in one operation on one key.
type entry struct {
	hash  uint64
	first Event     // the first hit, in strings of its own
	made  time.Time // when it was
	hits  atomic.Int64
	mixed atomic.Bool           // hits came from several clients, real users or proofs
	next  atomic.Pointer[entry] // in the same bucket

	// Guarded by table.mu.
	written time.Time // when the current window began
	place   *list.Element
}

// table finds entries without a lock: buckets are chains of atomic pointers,
// and a reader standing on an entry that is being removed still finds the rest
// of its chain. What changes the table is rare and takes mu.
type table struct {
	seed    maphash.Seed
	buckets []atomic.Pointer[entry]

	mu     sync.Mutex
	order  list.List // entries, the one whose window ends first in front
	closed bool
	names  int64 // bytes, of the entries
}

func newTable(maxEntries int) *table {
	return &table{
		seed:    maphash.MakeSeed(),
		buckets: make([]atomic.Pointer[entry], 1<<bits.Len(uint(maxEntries))),
	}
}

func (t *table) hash(v *Event) uint64 {
	// The odd factor keeps the same name as user and as key from cancelling out.
	return maphash.String(t.seed, v.Caller.Full)*0x9e3779b97f4a7c15 ^ maphash.String(t.seed, v.Key) ^ uint64(v.Op)
}

func (t *table) bucket(hash uint64) *atomic.Pointer[entry] {
	return &t.buckets[hash&uint64(len(t.buckets)-1)]
}

func (t *table) find(hash uint64, v *Event) *entry {
	for e := t.bucket(hash).Load(); e != nil; e = e.next.Load() {
		if e.hash == hash && e.first.Op == v.Op && e.first.Key == v.Key && e.first.Caller.Full == v.Caller.Full {
			return e
		}
	}
	return nil
}

// hit counts v, and returns false when e has been removed.
func (e *entry) hit(v *Event) bool {
	if (v.Client != e.first.Client || v.Caller != e.first.Caller || v.RealFull != e.first.RealFull || v.Auth != e.first.Auth) && !e.mixed.Load() {
		e.mixed.Store(true)
	}
	return e.hits.Add(1) > 0
}

// insert adds an entry that find does not find. The caller holds mu.
func (t *table) insert(e *entry) {
	b := t.bucket(e.hash)
	e.next.Store(b.Load())
	b.Store(e)
	e.place = t.order.PushBack(e)
	t.names += int64(e.first.names())
}

// remove takes out an entry whose hits are dead. The caller holds mu.
func (t *table) remove(e *entry) {
	p := t.bucket(e.hash)
	for p.Load() != e {
		p = &p.Load().next
	}
	p.Store(e.next.Load())
	t.order.Remove(e.place)
	t.names -= int64(e.first.names())
}

// bytes is what the table takes, and the most it can.
func (t *table) bytes(maxEntries int) (now, most int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return int64(t.order.Len())*entryBytes + t.names, int64(maxEntries) * (entryBytes + maxNames)
}

// renew begins e's next window. The caller holds mu.
func (t *table) renew(e *entry, now time.Time) {
	e.written = now
	t.order.MoveToBack(e.place)
}

// Count logs a success of one of the operations that Hadoop aggregates:
// GetKeyVersion, GetCurrentKey, GenerateEEK, DecryptEEK and ReencryptEEK. The
// first success of a user with an operation on a key is logged at once, later
// ones are only counted; see the package comment. It does not wait, and when
// the entry exists already it neither allocates nor locks.
func (l *Log) Count(e Event) {
	if !e.Op.aggregated() || e.Caller.Full == "" || e.Key == "" {
		l.OK(e, "")
		return
	}
	hash := l.table.hash(&e)
	if known := l.table.find(hash, &e); known != nil && known.hit(&e) {
		return
	}
	l.countFirst(hash, e)
}

// countFirst counts a hit for which no living entry was found.
func (l *Log) countFirst(hash uint64, v Event) {
	t := l.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		l.queue.lose(1)
		return
	}
	if e := t.find(hash, &v); e != nil {
		e.hit(&v) // entries in the table are alive as long as mu is held
		return
	}
	now := time.Now()
	first := l.line(record{Event: v, time: now, count: 1})
	if v.names() > maxNames {
		if !l.queue.offer(first) {
			l.queue.lose(1)
		}
		return
	}
	if t.order.Len() >= l.maxEntries {
		l.evict(now)
	}
	// Names are views of what will be reused.
	v.Key, v.Caller.Full = strings.Clone(v.Key), strings.Clone(v.Caller.Full)
	v.Caller.User, v.Caller.Real = strings.Clone(v.Caller.User), strings.Clone(v.Caller.Real)
	v.RealFull, v.Auth = strings.Clone(v.RealFull), strings.Clone(v.Auth)
	e := &entry{hash: hash, first: v, made: now, written: now}
	e.hits.Store(1)
	t.insert(e)
	// Where this line finds no room nothing is lost: the hit is part of the
	// total that is logged when the window ends.
	l.queue.offer(first)
}

// evict logs the total of the entry whose window ends first and removes it. The
// caller holds table.mu.
func (l *Log) evict(now time.Time) {
	e := l.table.order.Front().Value.(*entry)
	n := e.hits.Swap(dead)
	l.table.remove(e)
	if n > 0 && !l.queue.offer(l.total(e, now, n)) {
		l.queue.lose(n)
	}
}

func (l *Log) total(e *entry, now time.Time, n int64) line {
	return l.line(record{Event: e.first, time: now, count: n, interval: now.Sub(e.made), total: true, mixed: e.mixed.Load()})
}

// report logs what e has counted in its window and begins the next one, or
// removes e when it has counted nothing. It returns false when there is no room
// for the line; e then keeps its count. The caller holds table.mu.
func (l *Log) report(e *entry, now time.Time) bool {
	if e.hits.CompareAndSwap(0, dead) {
		l.table.remove(e)
		return true
	}
	n := e.hits.Load()
	if !l.queue.offer(l.total(e, now, n)) {
		return false
	}
	e.hits.Add(-n)
	l.table.renew(e, now)
	return true
}

// sweep reports the entries whose window has ended.
func (l *Log) sweep(now time.Time) {
	t := l.table
	t.mu.Lock()
	defer t.mu.Unlock()
	for front := t.order.Front(); front != nil; front = t.order.Front() {
		e := front.Value.(*entry)
		if now.Sub(e.written) < l.window || !l.report(e, now) {
			return
		}
	}
}

// flush reports a triple before its window ends, because a denial of the same
// triple is about to be logged.
func (l *Log) flush(v *Event) {
	if !v.Op.aggregated() {
		return
	}
	t := l.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.find(t.hash(v), v); e != nil {
		l.report(e, time.Now())
	}
}

// drain logs all that has been counted and closes the table.
func (l *Log) drain(ctx context.Context) {
	t := l.table
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	now := time.Now()
	for front := t.order.Front(); front != nil; front = t.order.Front() {
		e := front.Value.(*entry)
		n := e.hits.Swap(dead)
		t.remove(e)
		if n > 0 && l.queue.put(ctx, l.total(e, now, n), false) != nil {
			l.queue.lose(n)
		}
	}
}
