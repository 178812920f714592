package ring

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edekd/edekd/edek"
)

// ringBytes is what a ring costs beside its slabs and the text of its name: the
// ring, its chain, its places in the table and in the keeper's lists.
const ringBytes = 640

// ring is what is ready of one key.
type ring struct {
	name string
	made uint64 // in Rings.order

	chain   atomic.Pointer[chain]
	asked   atomic.Int64  // EDEKs asked for so far
	missed  atomic.Int64  // takes not filled
	mark    atomic.Int64  // the depth below which takers flag the ring
	keep    atomic.Int64  // the reserve, EDEKs
	rate    atomic.Uint64 // drain, a float64, for others than the keeper
	epoch   atomic.Uint64 // of the last drop, in Rings.order; written under mu
	flagged atomic.Bool

	nextFlagged *ring // in Rings.flagged; of whoever set flagged, then the keeper's

	mu        sync.Mutex // of who changes what is in the ring; takers never want it
	version   int        // EDEKs of older ones are refused
	forgotten bool

	kept // by the keeper alone
}

// kept is what the keeper knows of a ring.
type kept struct {
	wanted    bool // asked for once, or warmed
	used      time.Time
	surveyed  int64     // asked at the last survey
	slow      float64   // EDEKs asked for a second, over minutes
	age       float64   // seconds that slow is an average of
	windowed  int64     // asked at the start of the window
	window    time.Time // start of a window of fastWindow
	before    float64   // EDEKs asked for in the window before
	seen      int64     // missed at the last look
	starving  bool      // missed since then, and not helped yet
	epochSeen uint64
	coming    int64 // EDEKs of fetches under way, of this epoch
	fetches   int   // under way
	failures  int   // of fetches, one after another
	until     time.Time
	urgent    bool  // in keeper.urgent
	growing   bool  // in keeper.growing
	gone      bool  // forgotten
	allowance int64 // EDEKs that the budget allows, when it is short
}

func (r *ring) cost() int64 { return ringBytes + 2*int64(len(r.name)) }

// drain is the rate at which EDEKs are asked for, a second.
func (r *ring) drain() float64 { return math.Float64frombits(r.rate.Load()) }

// splice puts EDEKs into the ring whose fetch began when Rings.order was mark, if
// nothing was dropped since, and returns how many, in how many slabs.
func (r *ring) splice(mark uint64, edeks []edek.EDEK) (n, slabs int64) {
	r.mu.Lock()
	version := r.version
	r.mu.Unlock()
	l := newSlabs(edeks, version)
	if l.count == 0 {
		return 0, 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.forgotten || mark < r.made || mark < r.epoch.Load() || version < r.version {
		return 0, 0
	}
	r.chain.Load().append(l)
	return l.edeks, l.count
}
