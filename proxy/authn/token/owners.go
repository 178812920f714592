package token

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// doubted is how many tokens of an owner who has too many are looked up in the
	// store, because another server may have cancelled them.
	doubted = 64
	// doubtInterval is how often that is done for one owner.
	doubtInterval = time.Second
)

// owners counts living tokens by owner, as far as this server knows: those it
// issued or renewed, until they are cancelled here or their renew date passes.
// What other servers that share the store do is not seen at once.
type owners struct {
	limit int // of one owner; 0: nothing is counted
	total int // of all, beyond which nothing more is counted

	mu    sync.Mutex
	held  int
	known map[string]*holding
}

// holding is what one owner has.
type holding struct {
	dates   map[int32]int64 // renew date by sequence number
	pending int             // being issued
	expires int64           // no date is before this
	doubted time.Time       // when some were looked up last
}

func newOwners(limit, total int) *owners {
	return &owners{limit: limit, total: total, known: make(map[string]*holding)}
}

// reserve makes room for one token more of owner's. Whoever gets it calls settle
// or release. Where there is none, it returns some tokens to look up: forget
// those that are gone and try again.
func (o *owners) reserve(owner string, now time.Time) (ok bool, doubtful []int32) {
	if o.limit == 0 {
		return true, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	h := o.holding(owner)
	if len(h.dates)+h.pending >= o.limit {
		o.expire(h, now.UnixMilli())
	}
	if len(h.dates)+h.pending < o.limit {
		h.pending++
		return true, nil
	}
	if now.Sub(h.doubted).Abs() < doubtInterval {
		return false, nil
	}
	h.doubted = now
	for sequence := range h.dates { // each time others
		if doubtful = append(doubtful, sequence); len(doubtful) == doubted {
			break
		}
	}
	return false, doubtful
}

func (o *owners) holding(owner string) *holding {
	h := o.known[owner]
	if h == nil {
		h = &holding{dates: make(map[int32]int64)}
		o.known[owner] = h
	}
	return h
}

// release gives back what reserve gave.
func (o *owners) release(owner string) {
	if o.limit == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	h := o.known[owner]
	h.pending--
	o.dropEmpty(owner, h)
}

// hold counts a token until its renew date, one that is counted already anew.
func (o *owners) hold(owner string, sequence int32, renewDate int64) {
	if o.limit == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	h := o.holding(owner)
	if _, counted := h.dates[sequence]; !counted {
		if o.held >= o.total {
			o.dropEmpty(owner, h)
			return
		}
		o.held++
	}
	if len(h.dates) == 0 || renewDate < h.expires {
		h.expires = renewDate
	}
	h.dates[sequence] = renewDate
}

// forget ends the counting of a token.
func (o *owners) forget(owner string, sequence int32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	h := o.known[owner]
	if h == nil {
		return
	}
	if _, counted := h.dates[sequence]; counted {
		delete(h.dates, sequence)
		o.held--
	}
	o.dropEmpty(owner, h)
}

// sweep ends the counting of all tokens that have expired.
func (o *owners) sweep(now int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for owner, h := range o.known {
		o.expire(h, now)
		o.dropEmpty(owner, h)
	}
}

func (o *owners) expire(h *holding, now int64) {
	if now <= h.expires {
		return
	}
	first := int64(0)
	for sequence, date := range h.dates {
		if date < now {
			delete(h.dates, sequence)
			o.held--
		} else if first == 0 || date < first {
			first = date
		}
	}
	h.expires = first
}

func (o *owners) dropEmpty(owner string, h *holding) {
	if len(h.dates)+h.pending == 0 {
		delete(o.known, owner)
	}
}

// reserve makes room for one token more of owner's, or says that there is none.
func (m *Manager) reserve(ctx context.Context, owner string) error {
	ok, doubtful := m.owners.reserve(owner, m.now())
	for _, sequence := range doubtful {
		if _, err := m.store.Token(ctx, sequence); errors.Is(err, ErrNotFound) {
			m.owners.forget(owner, sequence)
		} else if err != nil {
			return fmt.Errorf("issue a delegation token: %w", err)
		}
	}
	if len(doubtful) > 0 {
		ok, _ = m.owners.reserve(owner, m.now())
	}
	if !ok {
		return denied(fmt.Sprintf("%s has %d delegation tokens, as many as %s allows: cancel tokens that are not needed, or wait until they expire", owner, m.owners.limit, MaxPerOwnerProperty))
	}
	return nil
}
