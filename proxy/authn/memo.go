package authn

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe" // for the sizes of what is remembered

	"github.com/edekd/edekd/proxy/authn/secret"
)

const (
	// MemoBytes bounds the memory that verified cookies may take, and the same
	// again that of answers about doAs.
	MemoBytes = 64 << 20
	// memoValueMax is the length of the longest value worth remembering, far
	// above that of any usual cookie or name; what comes with a longer one is
	// looked at each time.
	memoValueMax = 512
	// memoEntryMax is what an entry takes at most: the value, the two names that
	// were made of it, and the entry itself.
	memoEntryMax = 2 << 10
	memoWays     = 4
)

// verified is a cookie whose signature was found good. It is immutable.
type verified struct {
	value     []byte      // the cookie, unquoted
	key       *secret.Key // that it was signed with
	idleUntil int64       // ms since the epoch, 0: no limit
	rules     *rules      // in force when it was verified
	id        Identity
}

// proxied is a caller that somebody may act for. It is immutable.
type proxied struct {
	value   []byte     // of doAs, still encoded
	real    *Identity  // who may
	addr    netip.Addr // and from where
	rules   *rules     // in force when it was decided
	groups  uint64     // generation of the groups by which it was decided
	decided time.Time
	id      Identity
}

func (v *verified) size() int {
	return int(unsafe.Sizeof(*v)) + len(v.value) + v.id.textBytes()
}

func (e *proxied) size() int {
	return int(unsafe.Sizeof(*e)) + len(e.value) + e.id.textBytes()
}

// memo remembers entries by a value. It is a table of slots in sets of
// memoWays, without locks: a look-up is one keyed hash and a few loads, and
// memory is bounded by the number of slots. An entry pushed out by others costs
// its sender another verification at the next request, nothing else.
//
// Whether an entry still counts (secret, expiry) is for its reader to check.
type memo[E any] struct {
	seed  maphash.Seed
	slots []slot[E] // a power of two of them
	size  func(*E) int
	taken atomic.Int64 // bytes, by the entries
}

type slot[E any] struct {
	tag   atomic.Uint64 // the hash of the entry's value; only a hint
	entry atomic.Pointer[E]
}

// newMemo makes a memo that stays below a number of bytes. size says what an entry
// takes, its slot not included.
func newMemo[E any](bytes int, size func(*E) int) *memo[E] {
	n := memoWays
	for n*2*memoEntryMax <= bytes {
		n *= 2
	}
	return &memo[E]{seed: maphash.MakeSeed(), slots: make([]slot[E], n), size: size}
}

// bytes is what the memo takes now.
func (m *memo[E]) bytes() int64 {
	return m.taken.Load() + int64(len(m.slots))*int64(unsafe.Sizeof(slot[E]{}))
}

// set returns the slots the entry for a value may be in. The hash only finds
// the place; it identifies nothing.
func (m *memo[E]) set(value []byte) (slots []slot[E], hash uint64) {
	hash = maphash.Bytes(m.seed, value)
	first := int(hash&uint64(len(m.slots)-1)) &^ (memoWays - 1)
	return m.slots[first : first+memoWays], hash
}

// get returns the entry for value that same says is the one.
func (m *memo[E]) get(value []byte, same func(*E) bool) *E {
	if len(value) > memoValueMax {
		return nil
	}
	slots, hash := m.set(value)
	for i := range slots {
		if slots[i].tag.Load() != hash {
			continue
		}
		if e := slots[i].entry.Load(); e != nil && same(e) {
			return e
		}
	}
	return nil
}

// put remembers e for value, in a slot that is free or held by an entry that
// dead says is of no more use, if there is one.
func (m *memo[E]) put(value []byte, e *E, dead func(*E) bool) {
	if len(value) > memoValueMax {
		return
	}
	slots, hash := m.set(value)
	victim := int(hash >> 62)
	for i := range slots {
		if old := slots[i].entry.Load(); old == nil || dead(old) {
			victim = i
			break
		}
	}
	grown := m.size(e)
	if old := slots[victim].entry.Swap(e); old != nil {
		grown -= m.size(old)
	}
	m.taken.Add(int64(grown))
	slots[victim].tag.Store(hash)
}
