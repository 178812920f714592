package zookeeper

import (
	"sync"
	"time"

	"github.com/edekd/edekd/proxy/authn/token"
)

const (
	// belief is the Store's promise: how long after a change elsewhere a record
	// may still be believed.
	belief = 10 * time.Second
	// margin is kept free of it for the time between deciding and doing.
	margin = 500 * time.Millisecond

	maxMemo    = 20_000 // records remembered
	maxWatches = 40_000 // nodes watched at once, also for what was since forgotten
)

// memo remembers the tokens that were read, and ends them in time. What it
// returns was so less than belief ago: see confirm.
type memo struct {
	records, watches int // bounds

	mu      sync.RWMutex
	entries map[int32]entry
	reads   map[*read]struct{}
	armed   map[int32]struct{} // watched; outlives the entry, until the node changes or the connection is lost
	arming  int                // reads that will watch
	asOf    time.Time          // all changes before this have been told of; zero: unknown
	last    *time.Timer        // ends everything belief after asOf
}

// entry is immutable.
type entry struct {
	record  *token.Record
	expires time.Time // zero: the node is watched
}

// read is a reading under way. What happens to the token meanwhile is noted, as
// the answer may be older.
type read struct {
	sequence int32
	watch    bool // set a watch with it
	stale    bool // the answer may be of the past
	fired    bool // the watch has been used up
}

func newMemo(records, watches int) *memo {
	m := &memo{records: records, watches: watches, entries: map[int32]entry{}, reads: map[*read]struct{}{}, armed: map[int32]struct{}{}}
	m.last = time.AfterFunc(time.Hour, m.endAll)
	m.last.Stop()
	return m
}

// get returns a record that is to be believed.
func (m *memo) get(sequence int32) *token.Record {
	m.mu.RLock()
	e, ok := m.entries[sequence]
	m.mu.RUnlock()
	if !ok || !e.expires.IsZero() && !time.Now().Before(e.expires) {
		return nil
	}
	return e.record
}

// begin notes a reading. Its watch field says whether to set a watch.
func (m *memo) begin(sequence int32) *read {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, armed := m.armed[sequence]
	r := &read{sequence: sequence, watch: !armed && len(m.armed)+m.arming < m.watches}
	if r.watch {
		m.arming++
	}
	m.reads[r] = struct{}{}
	return r
}

// finish ends a reading with its answer, nil if there was none, and returns the
// record to hand out. That is the one handed out before if nothing changed. It
// has ended already if it may be of the past.
func (m *memo) finish(r *read, answer *token.Record) *token.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.reads, r)
	if r.watch {
		m.arming--
		if answer != nil && !r.fired {
			m.armed[r.sequence] = struct{}{}
		}
	}
	if answer == nil {
		return nil
	}
	if r.stale || m.asOf.IsZero() {
		answer.End()
		return answer
	}
	e := entry{record: answer}
	if _, watched := m.armed[r.sequence]; !watched {
		e.expires = m.asOf.Add(belief - margin)
	}
	if old, ok := m.entries[r.sequence]; ok {
		if old.record.Version == answer.Version {
			e.record = old.record
		} else {
			old.record.End()
		}
	} else if len(m.entries) >= m.records {
		m.evict()
	}
	m.entries[r.sequence] = e
	return e.record
}

// evict ends some record to make room.
func (m *memo) evict() {
	for sequence, e := range m.entries {
		e.record.End()
		delete(m.entries, sequence)
		return
	}
}

// forget ends what is known of a token. changed is true when its node told so,
// which uses up the watch.
func (m *memo) forget(sequence int32, changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.entries[sequence]; ok {
		e.record.End()
		delete(m.entries, sequence)
	}
	if changed {
		delete(m.armed, sequence)
	}
	for r := range m.reads {
		if r.sequence == sequence {
			r.stale = true
			r.fired = r.fired || changed
		}
	}
}

// endAll ends every record. None is believed again before the next confirm.
func (m *memo) endAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.end()
}

// disarm does the same, and nothing is watched any more.
func (m *memo) disarm() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.end()
	clear(m.armed)
	for r := range m.reads {
		r.fired = true
	}
}

func (m *memo) end() {
	for sequence, e := range m.entries {
		e.record.End()
		delete(m.entries, sequence)
	}
	for r := range m.reads {
		r.stale = true
	}
	m.asOf = time.Time{}
	m.last.Stop()
}

// confirm says that all changes before asOf have been told of: every record with
// a watch is as of then or later. Unless it is called again in time, everything
// ends. Records without a watch end when they are due. Nothing is confirmed
// unless the connection is still the one that was asked.
func (m *memo) confirm(asOf time.Time, same func() bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !same() {
		return
	}
	m.asOf = asOf
	m.last.Reset(time.Until(asOf.Add(belief - margin)))
	soon := time.Now().Add(probeInterval)
	for sequence, e := range m.entries {
		if !e.expires.IsZero() && e.expires.Before(soon) {
			e.record.End()
			delete(m.entries, sequence)
		}
	}
}

// sizes returns how many tokens are remembered and how many nodes watched.
func (m *memo) sizes() (remembered, watched int) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.entries), len(m.armed)
}
