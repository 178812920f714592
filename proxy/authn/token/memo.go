package token

import (
	"hash/maphash"
	"sync/atomic"
	"unsafe" // for the sizes of what is remembered

	"github.com/edekd/edekd/proxy/authn/secret"
)

const (
	// MemoBytes bounds the memory that remembered tokens may take.
	MemoBytes = 32 << 20
	// memoTextMax is the length of the longest text worth remembering: a token
	// of long names for a service of many hosts. Longer ones are verified each
	// time.
	memoTextMax = 1000
	// memoEntryMax is what an entry takes at most: the text twice, once as it
	// came and once taken apart, and the entry itself.
	memoEntryMax = 2 << 10
	memoWays     = 4
)

// memo remembers verified tokens by the text they were presented as. It is a
// table of slots in sets of memoWays, without locks: a look-up is one keyed hash
// and a few loads, and memory is bounded by the number of slots. Whether an
// entry still counts is for its reader to check.
type memo struct {
	seed  maphash.Seed
	slots []atomic.Pointer[Verified] // a power of two of them
	taken atomic.Int64               // bytes, by the tokens
}

func newMemo(bytes int) *memo {
	n := memoWays
	for n*2*memoEntryMax <= bytes {
		n *= 2
	}
	return &memo{seed: maphash.MakeSeed(), slots: make([]atomic.Pointer[Verified], n)}
}

// bytes is what the memo takes now.
func (m *memo) bytes() int64 {
	return m.taken.Load() + int64(len(m.slots))*int64(unsafe.Sizeof(m.slots[0]))
}

// size is what a remembered token takes: what was made of the text and attached
// is no longer than the text.
func (v *Verified) size() int { return int(unsafe.Sizeof(*v)) + 2*len(v.text) }

// set returns the slots a text may be in, and which to take when all are taken.
// The hash only finds the place; it identifies nothing.
func (m *memo) set(text []byte) (slots []atomic.Pointer[Verified], victim int) {
	h := maphash.Bytes(m.seed, text)
	first := int(h&uint64(len(m.slots)-1)) &^ (memoWays - 1)
	return m.slots[first : first+memoWays], int(h >> 62)
}

func (m *memo) get(text []byte) *Verified {
	if len(text) > memoTextMax {
		return nil
	}
	slots, _ := m.set(text)
	for i := range slots {
		if v := slots[i].Load(); v != nil && secret.Equal(v.text, text) {
			return v
		}
	}
	return nil
}

// put remembers v, in a slot that is free or held by a token that is of no more
// use at the given time (ms), if there is one.
func (m *memo) put(v *Verified, now int64) {
	if len(v.text) > memoTextMax {
		return
	}
	slots, victim := m.set(v.text)
	for i := range slots {
		if old := slots[i].Load(); old == nil || !old.live(now) || secret.Equal(old.text, v.text) {
			victim = i
			break
		}
	}
	grown := v.size()
	if old := slots[victim].Swap(v); old != nil {
		grown -= old.size()
	}
	m.taken.Add(int64(grown))
}
