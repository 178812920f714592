package ring

import (
	"math"
	"sync/atomic"

	"github.com/edekd/edekd/edek"
)

// slabEDEKs is how many EDEKs a slab holds: as many as make it fit the
// allocator's class of slabBytes. Smaller slabs would cost more each, larger
// ones would leave more memory half used in rings that hardly anybody asks.
const (
	slabEDEKs = 36
	slabBytes = 2048
)

// slab is a link of a chain. EDEKs are written before it is linked and never
// after. The pointer stands first: the garbage collector looks no further.
type slab struct {
	link  atomic.Pointer[slab]
	next  atomic.Int64 // index of the first EDEK that nobody has claimed; may run past n
	n     int64
	edeks [slabEDEKs]edek.EDEK
}

// slabsFor returns how many slabs n EDEKs take.
func slabsFor(n int) int { return (n + slabEDEKs - 1) / slabEDEKs }

// slabs are some that are linked to each other and not yet to a chain.
type slabs struct {
	first, last  *slab
	count, edeks int64
}

// newSlabs copies those EDEKs that are of the given version or newer.
func newSlabs(edeks []edek.EDEK, version int) (l slabs) {
	for i := range edeks {
		if edeks[i].Version() < version {
			continue
		}
		if l.last == nil || l.last.n == slabEDEKs {
			s := &slab{}
			if l.last == nil {
				l.first = s
			} else {
				l.last.link.Store(s)
			}
			l.last = s
			l.count++
		}
		l.last.edeks[l.last.n] = edeks[i]
		l.last.n++
		l.edeks++
	}
	return l
}

// chain is a queue of EDEKs. Takers need no lock: they first claim a number of
// EDEKs from depth and then fetch as many from the slabs, each by advancing a
// slab's index. EDEKs are linked before they are counted, so what was claimed
// is there. One at a time may append, which takers do not notice.
//
// A chain ends when it is closed; nothing can be claimed from then on.
type chain struct {
	depth atomic.Int64 // linked and not claimed; far below zero once closed
	slabs atomic.Int64 // linked and not used up; far below zero once closed
	head  atomic.Pointer[slab]
	tail  *slab // the appender's
}

// claim takes up to n EDEKs from the count, leaving keep of them there.
func (c *chain) claim(n, keep int64) int64 {
	for {
		depth := c.depth.Load()
		k := min(n, depth-keep)
		if k <= 0 {
			return 0
		}
		if c.depth.CompareAndSwap(depth, depth-k) {
			return k
		}
	}
}

// fetch copies k claimed EDEKs to dst, or to nowhere when dst is nil, and
// returns how many slabs were used up that count against the budget.
func (c *chain) fetch(dst []edek.EDEK, k int64) (usedUp int64) {
	s := c.head.Load()
	for {
		i := s.next.Add(k) - k
		if i < s.n {
			n := min(k, s.n-i)
			if dst != nil {
				copy(dst, s.edeks[i:i+n])
				dst = dst[n:]
			}
			k -= n
		}
		if k == 0 {
			return usedUp
		}
		next := s.link.Load()
		if c.head.CompareAndSwap(s, next) && c.slabs.Add(-1) >= 0 {
			usedUp++
		}
		s = next
	}
}

// append links slabs, of which there is at least one.
func (c *chain) append(l slabs) {
	c.slabs.Add(l.count)
	if c.tail == nil {
		c.head.Store(l.first)
	} else {
		c.tail.link.Store(l.first)
	}
	c.tail = l.last
	c.depth.Add(l.edeks)
}

// close ends the chain and returns how many EDEKs nobody will get any more and
// how many slabs that frees.
func (c *chain) close() (edeks, slabs int64) {
	return max(0, c.depth.Swap(math.MinInt64/2)), max(0, c.slabs.Swap(math.MinInt64/2))
}

// closed reports whether the chain has ended.
func (c *chain) closed() bool { return c.depth.Load() < 0 }
