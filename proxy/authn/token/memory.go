package token

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// Memory is a Store in the memory of this process, as Hadoop has it by default:
// tokens die with the server and are worthless to other servers. Its Manager
// bounds how many there are.
type Memory struct {
	mu       sync.RWMutex
	counters [2]int32
	version  int64
	keys     map[int32]*MasterKey
	tokens   map[int32]*Record
}

// firstKeyID is the ID of the first master key. Java makes one key when it
// starts and another a moment later, so the first one to make a token is 2.
const firstKeyID = 2

// NewMemory makes an empty store.
func NewMemory() *Memory {
	m := &Memory{keys: make(map[int32]*MasterKey), tokens: make(map[int32]*Record)}
	m.counters[KeyIDs] = firstKeyID - 1
	return m
}

var _ Store = (*Memory)(nil)

// Next implements Store.
func (m *Memory) Next(_ context.Context, c Counter) (int32, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counters[c]++
	return m.counters[c], nil
}

// Key implements Store.
func (m *Memory) Key(_ context.Context, id int32) (*MasterKey, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if k := m.keys[id]; k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("master key %d: %w", id, ErrNotFound)
}

// KeyIDs implements Store.
func (m *Memory) KeyIDs(context.Context) ([]int32, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Collect(maps.Keys(m.keys)), nil
}

// PutKey implements Store.
func (m *Memory) PutKey(_ context.Context, k *MasterKey) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys[k.ID] = NewMasterKey(k.ID, k.Expires, bytes.Clone(k.Secret))
	return nil
}

// Token implements Store.
func (m *Memory) Token(_ context.Context, sequence int32) (*Record, error) {
	if r := m.Known(sequence); r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("delegation token %d: %w", sequence, ErrNotFound)
}

// Known implements Store; it knows all.
func (m *Memory) Known(sequence int32) *Record {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.tokens[sequence]
}

// Put implements Store.
func (m *Memory) Put(_ context.Context, r *Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.take(r); err != nil {
		return err
	}
	m.version++
	m.tokens[r.Sequence] = &Record{
		Sequence:   r.Sequence,
		Identifier: r.Identifier,
		Password:   r.Password,
		RenewDate:  r.RenewDate,
		Version:    m.version,
	}
	return nil
}

// Delete implements Store.
func (m *Memory) Delete(_ context.Context, r *Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.take(r)
}

// take removes the token of which r is the present state, or finds that there
// is none if r is a new one.
func (m *Memory) take(r *Record) error {
	old := m.tokens[r.Sequence]
	switch {
	case old == nil && r.Version == 0:
		return nil
	case old == nil:
		return fmt.Errorf("delegation token %d: %w", r.Sequence, ErrNotFound)
	case old.Version != r.Version:
		return fmt.Errorf("delegation token %d: %w", r.Sequence, ErrConflict)
	}
	delete(m.tokens, r.Sequence)
	old.End()
	return nil
}

// Sweep implements Store.
func (m *Memory) Sweep(_ context.Context, before int64) (removed int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for sequence, r := range m.tokens {
		if r.RenewDate < before {
			delete(m.tokens, sequence)
			r.End()
			removed++
		}
	}
	for id, k := range m.keys {
		if k.Expires < before {
			delete(m.keys, id)
		}
	}
	return removed, nil
}

// Count implements Store.
func (m *Memory) Count(context.Context) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.tokens), nil
}
