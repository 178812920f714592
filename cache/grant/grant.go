// Package grant remembers what the server behind has lately allowed to whom,
// so that something fetched by edekd itself is given only to those who would
// have got it themselves.
//
// A grant is earned by an answer to a request that was made as its holder, and
// counts from the sending of that request. It can be lost at any moment, for
// lack of room above all: then the next request is passed on and earns it again.
// Nothing is ever found that was not earned: forgetting does not bring back what
// was revoked.
//
// Holders who go on asking are told to earn theirs again before it ends, each at
// a point of its life of his own, so that grants that were earned together are
// not renewed together. After an outage, see Outages, the server behind is asked
// about as often as ever.
package grant

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// Kind is what is allowed with a key.
type Kind uint8

const (
	Generate Kind = iota
	Decrypt
	kinds
)

// Grant names what is allowed. Its strings may alias reused buffers: what is
// kept is copied.
type Grant struct {
	User    string // effective user
	Real    string // real user behind a proxied call, empty when not proxied
	Key     string
	Created int64 // the key's creation time, ms since 1970: a key made anew is another
	Kind    Kind
}

// Config says how long grants count and what they may occupy.
type Config struct {
	TTL   time.Duration // how long a grant counts, since the request was sent
	Stale time.Duration // how long, since then, where an outage keeps it from being renewed; TTL if that is more
	Bytes int64         // memory; 0 remembers nothing
}

const shards = 64

// recordBytes is what a record costs beside its text: key and value in the
// map, and the map's spare room.
const recordBytes = 2 * int64(unsafe.Sizeof(holder{})+unsafe.Sizeof(record{})+unsafe.Sizeof(&record{}))

// Table remembers grants. It is safe for concurrent use.
type Table struct {
	ttl, stale time.Duration
	start      time.Time // of the table's clock
	seed       maphash.Seed
	shards     [shards]shard
}

type shard struct {
	sync.RWMutex
	records map[holder]*record
	bytes   int64
	room    int64

	// A revocation that no record remembers was not later than this: new records
	// begin with it.
	revoked time.Duration
}

// holder is who holds grants for a key.
type holder struct{ user, real, key string }

// record is what is known of a holder. Times are on the table's clock, on which
// everything that happens is later than 0.
type record struct {
	created int64
	sent    [kinds]time.Duration // when the request was sent that earned it; 0: not earned
	revoked time.Duration        // what was sent before this, or at it, earns nothing; 0: never revoked
	told    [kinds]atomic.Int64  // when Holds last said that it is to be renewed, on the table's clock
}

// latest is the last time that something was heard of the holder.
func (r *record) latest() time.Duration { return max(r.revoked, r.sent[Generate], r.sent[Decrypt]) }

// New makes an empty table.
func New(c Config) *Table {
	t := &Table{ttl: c.TTL, stale: max(c.TTL, c.Stale), start: time.Now().Add(-1), seed: maphash.MakeSeed()}
	for i := range t.shards {
		t.shards[i].records = map[holder]*record{}
		t.shards[i].room = c.Bytes / shards
	}
	return t
}

// shard returns the place of a holder, and his hash.
func (t *Table) shard(h holder) (*shard, uint64) {
	var hash maphash.Hash
	hash.SetSeed(t.seed)
	hash.WriteString(h.user)
	hash.WriteByte(0)
	hash.WriteString(h.real)
	hash.WriteByte(0)
	hash.WriteString(h.key)
	sum := hash.Sum64()
	return &t.shards[sum%shards], sum
}

func (t *Table) clock(at time.Time) time.Duration { return at.Sub(t.start) }

// Earn notes that a request sent at sentAt was allowed. An answer that comes
// after a Revoke, to a request from before it, earns nothing.
func (t *Table) Earn(g Grant, sentAt time.Time) {
	h, sent := holder{g.User, g.Real, g.Key}, t.clock(sentAt)
	if sent <= 0 || g.Kind >= kinds {
		return
	}
	s, _ := t.shard(h)
	s.Lock()
	defer s.Unlock()
	r := s.records[h]
	if r == nil {
		if sent <= s.revoked {
			return
		}
		if r = s.add(h); r == nil {
			return
		}
	}
	if sent <= r.revoked {
		return
	}
	if r.created != g.Created {
		r.created, r.sent = g.Created, [kinds]time.Duration{}
	}
	r.sent[g.Kind] = max(r.sent[g.Kind], sent)
}

// Holds reports whether a grant was earned and still counts, and whether this
// caller had better earn it again: from some point between three eighths and three
// quarters of its time, one caller is told so, and after an eighth of the time
// another. While the server cannot be asked a grant counts for Config.Stale, and
// nobody is told. Afterwards one that was alive when the outage began, and could
// not be renewed in it, counts for so long too, but for one more Config.TTL at
// most; in that time its turn comes to be renewed.
func (t *Table) Holds(g Grant, now time.Time, o *Outages) (held, renew bool) {
	if g.Kind >= kinds {
		return false, false
	}
	h := holder{g.User, g.Real, g.Key}
	s, hash := t.shard(h)
	s.RLock()
	defer s.RUnlock()
	r := s.records[h]
	if r == nil || r.created != g.Created || r.sent[g.Kind] == 0 {
		return false, false
	}
	at, sent := t.clock(now), r.sent[g.Kind]
	// Another in each life, or holders would meet again and again.
	turn := uint16((hash + uint64(g.Kind) ^ uint64(sent)) * 0x9e3779b97f4a7c15 >> 48)
	ends, due := sent+t.ttl, sent+t.ttl*3/8+part(t.ttl*3/8, turn)
	if at < due {
		return true, false
	}
	if o.out() {
		return at-sent < t.stale, false
	}
	if last := o.last.Load(); last != nil && due < last.ended && at < last.ended+t.ttl {
		if ends > last.began {
			ends = sent + t.stale
		}
		due = last.ended + part(min(t.ttl, ends-last.ended)*7/8, turn)
	}
	if at < due || at >= ends {
		return at < ends, false
	}
	told := r.told[g.Kind].Load()
	return true, (told == 0 || at-time.Duration(told) >= t.ttl/8) && r.told[g.Kind].CompareAndSwap(told, int64(at))
}

// part is the part of d until a turn, of which there are 65536.
func part(d time.Duration, turn uint16) time.Duration { return d * time.Duration(turn) >> 16 }

// Revoke ends all grants of a holder for a key, of every kind, also those that
// answers to requests sent until now would earn.
func (t *Table) Revoke(user, real, key string) {
	h := holder{user, real, key}
	s, _ := t.shard(h)
	s.Lock()
	defer s.Unlock()
	now := t.clock(time.Now())
	r := s.records[h]
	if r == nil {
		if r = s.add(h); r == nil {
			s.revoked = now
			return
		}
	}
	*r = record{revoked: now}
}

// add makes a record, for which others may have to go. It returns nil if even
// then there is no room.
func (s *shard) add(h holder) *record {
	cost := h.cost()
	if cost > s.room {
		return nil
	}
	for s.bytes+cost > s.room {
		s.evict()
	}
	h = holder{strings.Clone(h.user), strings.Clone(h.real), strings.Clone(h.key)}
	r := &record{revoked: s.revoked}
	s.records[h] = r
	s.bytes += cost
	return r
}

// evict forgets one record: of a few that the map offers, the one of which
// nothing was heard for the longest time. Its revocation stays known.
func (s *shard) evict() {
	const few = 16
	var oldest holder
	var out *record
	looked := 0
	for h, r := range s.records {
		if out == nil || r.latest() < out.latest() {
			oldest, out = h, r
		}
		if looked++; looked == few {
			break
		}
	}
	s.revoked = max(s.revoked, out.revoked)
	delete(s.records, oldest)
	s.bytes -= oldest.cost()
}

func (h holder) cost() int64 { return recordBytes + int64(len(h.user)+len(h.real)+len(h.key)) }

// Bytes returns the memory in use; it is never more than Config.Bytes.
func (t *Table) Bytes() (sum int64) {
	for i := range t.shards {
		s := &t.shards[i]
		s.RLock()
		sum += s.bytes
		s.RUnlock()
	}
	return sum
}
