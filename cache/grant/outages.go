package grant

import (
	"sync/atomic"
	"time"
)

// Outages remembers when a server behind could not be asked, so that no grant
// could be renewed. Then all are due at once, and many have ended; if all their
// holders were sent to the server when it comes back, it would have more to do
// than ever. So what the outage kept from being renewed takes turns, over seven
// eighths of Config.TTL: longer than in fair weather, as the first to be renewed
// are due again before the last are.
type Outages struct {
	table *Table
	out   func() bool
	last  atomic.Pointer[outage]
}

// outage is a time, on the table's clock.
type outage struct{ began, ended time.Duration }

// Outages begins a memory of a server's outages. out says whether it cannot be
// asked now; it must not block.
func (t *Table) Outages(out func() bool) *Outages { return &Outages{table: t, out: out} }

// Look finds out whether there is an outage now. One goroutine calls it, often:
// an outage between two looks is none. One that comes before everything has taken
// its turn after the one before goes on with that.
func (o *Outages) Look(now time.Time) {
	if !o.out() {
		return
	}
	at := o.table.clock(now)
	is := outage{at, at}
	if was := o.last.Load(); was != nil && at < was.ended+o.table.ttl {
		is.began = was.began
	}
	o.last.Store(&is)
}
