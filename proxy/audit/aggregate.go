package audit

import (
	"context"
	"hash/maphash"
	"math"
	"math/bits"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe" // for the size of a bucket

	"github.com/edekd/edekd/edek"
)

// dead in an entry's hits means that the entry has been removed. It is so far
// below zero that hits arriving late never bring it back.
const dead = math.MinInt64 / 2

const (
	// maxNames bounds the names of a triple that is counted, together, in bytes:
	// longer ones could fill the memory.
	maxNames = 2 << 10
	// entryBytes is what an entry takes beside its key's name, and senderBytes what
	// a sender does beside its names, the share of the map included.
	entryBytes  = 112
	senderBytes = 512
	// maxEntryBytes is the most that one more entry takes, its sender included.
	maxEntryBytes = entryBytes + senderBytes + 32 + maxNames + maxNames/8
	// averageBytes is what a bucket is made for.
	averageBytes = 256
)

// sender is who is behind an event, and how that is known.
type sender struct {
	caller         edek.Caller
	realFull, auth string
	client         netip.Addr
}

func senderOf(v *Event) sender { return sender{v.Caller, v.RealFull, v.Auth, v.Client} }

func (s *sender) names() int {
	return len(s.caller.User) + len(s.caller.Full) + len(s.caller.Real) + len(s.realFull) + len(s.auth)
}

// clone is a sender with strings of its own.
func (s sender) clone() sender {
	for _, name := range []*string{&s.caller.User, &s.caller.Full, &s.caller.Real, &s.realFull, &s.auth} {
		*name = strings.Clone(*name)
	}
	return s
}

// known is a sender that entries share: one user may have one for each of a
// hundred thousand keys.
type known struct {
	sender
	entries int // guarded by table.mu
}

// entry counts one user's successes in one operation on one key. It is small, since
// there may be many and the hits of each find it out of the processor's caches.
type entry struct {
	hash  uint64
	next  atomic.Pointer[entry] // in the same bucket
	hits  atomic.Int64
	key   string
	first *known // sender of the first hit
	op    Op
	told  bool          // guarded by table.mu: the first hit, still in hits, has a line of its own
	mixed atomic.Bool   // hits came from several clients, real users or proofs
	made  time.Duration // since table.start: the first hit

	// Guarded by table.mu.
	written      time.Duration // since table.start, when the current window began
	older, newer *entry        // neighbours in the order
}

// untold is how many of n hits would be lost with the line of their total. The
// caller holds table.mu.
func (e *entry) untold(n int64) int64 {
	if e.told {
		n--
	}
	return n
}

func (e *entry) bytes() int64 { return entryBytes + namesBytes(len(e.key)) }

func (k *known) bytes() int64 { return senderBytes + namesBytes(k.names()) }

// namesBytes is what strings take: the allocator rounds up.
func namesBytes(n int) int64 { return int64(n + n/8 + 16) }

// table finds entries without a lock: buckets are chains of atomic pointers,
// and a reader standing on an entry that is being removed still finds the rest
// of its chain. What changes the table is rare and takes mu.
type table struct {
	seed    maphash.Seed
	buckets []atomic.Pointer[entry]
	start   time.Time
	limit   int64 // of taken

	mu             sync.Mutex
	oldest, newest *entry // of the order: the oldest's window ends first
	senders        map[sender]*known
	closed         bool
	taken          int64 // bytes, by entries and senders
}

func newTable(limit int) *table {
	return &table{
		seed:    maphash.MakeSeed(),
		buckets: make([]atomic.Pointer[entry], 1<<bits.Len(uint(limit/averageBytes))),
		start:   time.Now(),
		limit:   int64(limit),
		senders: map[sender]*known{},
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
		if e.hash == hash && e.op == v.Op && e.key == v.Key && e.first.caller.Full == v.Caller.Full {
			return e
		}
	}
	return nil
}

// hit counts v, and returns false when e has been removed.
func (e *entry) hit(v *Event) bool {
	if e.first.sender != senderOf(v) && !e.mixed.Load() {
		e.mixed.Store(true)
	}
	return e.hits.Add(1) > 0
}

// insert adds an entry with one hit for v, which find does not find, and whose
// strings are views of what will be reused. told is whether the hit has a line. The
// caller holds mu.
func (t *table) insert(hash uint64, v *Event, now time.Duration, told bool) {
	from := t.senders[senderOf(v)]
	if from == nil {
		from = &known{sender: senderOf(v).clone()}
		t.senders[from.sender] = from
		t.taken += from.bytes()
	}
	from.entries++
	e := &entry{hash: hash, key: strings.Clone(v.Key), first: from, op: v.Op, told: told, made: now, written: now}
	e.hits.Store(1)
	b := t.bucket(hash)
	e.next.Store(b.Load())
	b.Store(e)
	t.append(e)
	t.taken += e.bytes()
}

// remove takes out an entry whose hits are dead. The caller holds mu.
func (t *table) remove(e *entry) {
	p := t.bucket(e.hash)
	for p.Load() != e {
		p = &p.Load().next
	}
	p.Store(e.next.Load())
	t.unlink(e)
	t.taken -= e.bytes()
	if e.first.entries--; e.first.entries == 0 {
		delete(t.senders, e.first.sender)
		t.taken -= e.first.bytes()
	}
}

// append makes e the newest. The caller holds mu.
func (t *table) append(e *entry) {
	e.older, e.newer = t.newest, nil
	if e.older == nil {
		t.oldest = e
	} else {
		e.older.newer = e
	}
	t.newest = e
}

// unlink takes e out of the order. The caller holds mu.
func (t *table) unlink(e *entry) {
	if e.older == nil {
		t.oldest = e.newer
	} else {
		e.older.newer = e.newer
	}
	if e.newer == nil {
		t.newest = e.older
	} else {
		e.newer.older = e.older
	}
}

// bytes is what the table takes, and the most it can.
func (t *table) bytes() (now, most int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	buckets := int64(len(t.buckets)) * int64(unsafe.Sizeof(t.buckets[0]))
	return buckets + t.taken, buckets + t.limit
}

// renew begins e's next window. The caller holds mu.
func (t *table) renew(e *entry, now time.Time) {
	e.told = false
	e.written = now.Sub(t.start)
	t.unlink(e)
	t.append(e)
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
	first := record{Event: v, time: now, count: 1}
	if v.names() > maxNames {
		if !l.queue.offer(first) {
			l.queue.lose(1)
		}
		return
	}
	for room := t.limit - maxEntryBytes; t.taken > room && t.oldest != nil; {
		l.evict(now)
	}
	// Where the first line finds no room nothing is lost: the hit is part of the
	// total that is logged when the window ends.
	told := l.queue.offer(first)
	t.insert(hash, &v, now.Sub(t.start), told)
}

// evict logs the total of the entry whose window ends first and removes it. The
// caller holds table.mu.
func (l *Log) evict(now time.Time) {
	e := l.table.oldest
	n := e.hits.Swap(dead)
	l.table.remove(e)
	if n > 0 && !l.queue.offer(l.total(e, now, n)) {
		l.queue.lose(e.untold(n))
	}
}

// total is the record of what an entry has counted.
func (l *Log) total(e *entry, now time.Time, n int64) record {
	from := &e.first.sender
	v := Event{Op: e.op, Key: e.key, Caller: from.caller, RealFull: from.realFull, Auth: from.auth, Client: from.client}
	return record{Event: v, time: now, count: n, interval: now.Sub(l.table.start) - e.made, total: true, mixed: e.mixed.Load()}
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

// sweptAtOnce is how many entries are reported while first hits wait.
const sweptAtOnce = 128

// sweep reports the entries whose window has ended. Where there is no room for
// their lines it returns what says that there is some again, else nil.
func (l *Log) sweep(now time.Time) (room <-chan struct{}) {
	for {
		switch n, full := l.sweepSome(now); {
		case full:
			return l.queue.roomSoon()
		case n < sweptAtOnce:
			return nil
		}
	}
}

// sweepSome reports up to sweptAtOnce entries, and whether there was no room for
// a line.
func (l *Log) sweepSome(now time.Time) (n int, full bool) {
	t := l.table
	t.mu.Lock()
	defer t.mu.Unlock()
	for n < sweptAtOnce && t.oldest != nil && now.Sub(t.start)-t.oldest.written >= l.window {
		if !l.report(t.oldest, now) {
			return n, true
		}
		n++
	}
	return n, false
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
	for t.oldest != nil {
		e := t.oldest
		n := e.hits.Swap(dead)
		t.remove(e)
		if n > 0 {
			l.queue.putTotal(ctx, l.queue.line(l.total(e, now, n)), e.untold(n))
		}
	}
}
