package authz

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
	"time"
	"unsafe" // for the sizes of what is remembered
)

const (
	// MemoBytes bounds the memory that remembered answers may take. While the
	// policy changes there may be twice as much.
	MemoBytes = 4 << 20
	// memoNamesMax is the length of the longest user, real user and ACL name,
	// together, worth remembering; longer ones are decided each time.
	memoNamesMax = 384
	// memoEntryMax is what an entry takes at most, its slot included.
	memoEntryMax = 512
	memoWays     = 4
)

// layer is one of the two layers of rules.
type layer uint8

const (
	layerKMS layer = iota
	layerKey
)

// question is all that an answer depends on besides policy and groups.
type question struct {
	layer      layer
	what       uint8 // Type or Right
	user, real string
	name       string // ACL name, at the key layer
}

// answered is a question with its answer. It is immutable.
type answered struct {
	question
	err   error         // nil or ErrDenied
	until time.Duration // on the memo's clock
}

// memo remembers answers. It is a table of slots in sets of memoWays, without
// locks: a look-up is a few keyed hashes and loads, and memory is bounded by
// the number of slots. An answer pushed out by others is found again from the
// rules.
type memo struct {
	seed  maphash.Seed
	start time.Time                  // of its clock, which is cheaper to read than the time of day
	slots []atomic.Pointer[answered] // a power of two of them
	taken atomic.Int64               // bytes, by the answers
}

func newMemo(bytes int) *memo {
	n := memoWays
	for n*2*memoEntryMax <= bytes {
		n *= 2
	}
	return &memo{seed: maphash.MakeSeed(), start: time.Now(), slots: make([]atomic.Pointer[answered], n)}
}

// now reads the memo's clock.
func (m *memo) now() time.Duration { return time.Since(m.start) }

// bytes is what the memo takes now.
func (m *memo) bytes() int64 {
	return m.taken.Load() + int64(len(m.slots))*int64(unsafe.Sizeof(m.slots[0]))
}

func (e *answered) size() int {
	return int(unsafe.Sizeof(*e)) + len(e.user) + len(e.real) + len(e.name)
}

// hash finds a question's place; it identifies nothing.
func (m *memo) hash(q *question) uint64 {
	const odd = 0x9e3779b97f4a7c15
	h := maphash.String(m.seed, q.user)
	h = h*odd ^ maphash.String(m.seed, q.name)
	h = h*odd ^ uint64(q.layer)<<8 ^ uint64(q.what)
	if q.real != "" {
		h = h*odd ^ maphash.String(m.seed, q.real)
	}
	return h * odd
}

func (m *memo) set(hash uint64) []atomic.Pointer[answered] {
	first := int(hash>>32) & (len(m.slots) - 1) &^ (memoWays - 1)
	return m.slots[first : first+memoWays]
}

// get returns the answer to q, which may be too old, or nil.
func (m *memo) get(hash uint64, q *question) *answered {
	slots := m.set(hash)
	for i := range slots {
		if e := slots[i].Load(); e != nil && e.question == *q {
			return e
		}
	}
	return nil
}

// put remembers an answer whose groups were asked no earlier than now, in
// place of an older answer to the same question or one that is too old, if
// there is any. The strings of q are copied.
func (m *memo) put(hash uint64, q *question, err error, now time.Duration) {
	nUser, nReal := len(q.user), len(q.real)
	if nUser+nReal+len(q.name) > memoNamesMax {
		return
	}
	names := strings.Clone(q.user + q.real + q.name) // a sum with only one part is that part itself
	e := &answered{question: *q, err: err, until: now + GroupsBelieved}
	e.user, e.real, e.name = names[:nUser], names[nUser:nUser+nReal], names[nUser+nReal:]

	slots, place := m.set(hash), int(hash>>30&(memoWays-1))
	for i := range slots {
		old := slots[i].Load()
		if old == nil || old.question == *q {
			place = i
			break
		}
		if now >= old.until {
			place = i
		}
	}
	grown := e.size()
	if old := slots[place].Swap(e); old != nil {
		grown -= old.size()
	}
	m.taken.Add(int64(grown))
}
