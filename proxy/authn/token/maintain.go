package token

import (
	"bytes"
	"context"
	"fmt"
	"time"
)

// maintain rolls the master key and sweeps the store, each when it is due.
func (m *Manager) maintain() {
	now := m.now()
	rollAt, sweepAt := now.Add(m.updates), now
	for {
		if now = m.now(); !now.Before(rollAt) {
			rollAt = m.attempt(m.updates, "the master key of delegation tokens was not rolled, the old one goes on", m.roll)
		}
		if now = m.now(); !now.Before(sweepAt) {
			sweepAt = m.attempt(m.scans, "expired delegation tokens were not removed, they are refused all the same", m.sweep)
		}
		next := rollAt
		if sweepAt.Before(next) {
			next = sweepAt
		}
		timer := time.NewTimer(next.Sub(m.now()))
		select {
		case <-timer.C:
		case <-m.ctx.Done():
			timer.Stop()
			return
		}
	}
}

// attempt does something that is due and returns when it is due next: an
// interval later, or soon after a failure, which it logs.
func (m *Manager) attempt(interval time.Duration, failure string, do func(context.Context) error) time.Time {
	err := do(m.ctx)
	if err != nil && m.ctx.Err() == nil {
		m.log.Error(failure, "err", err, "next", min(retryInterval, interval))
		interval = min(retryInterval, interval)
	}
	return m.now().Add(interval)
}

// roll makes a new master key the current one. The old one stays in the store
// for as long as a token made with it can be renewed.
func (m *Manager) roll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	now := m.now()
	if old := m.key.Load(); old != nil {
		retired := NewMasterKey(old.ID, now.Add(m.maxLifetime).UnixMilli(), bytes.Clone(old.Secret))
		if err := m.store.PutKey(ctx, retired); err != nil {
			return fmt.Errorf("retire master key %d: %w", old.ID, err)
		}
	}
	id, err := m.store.Next(ctx, KeyIDs)
	if err != nil {
		return fmt.Errorf("make a master key: %w", err)
	}
	key := NewMasterKey(id, now.Add(m.updates+m.maxLifetime).UnixMilli(), randomSecret(m.keyBits))
	if err := m.store.PutKey(ctx, key); err != nil {
		return fmt.Errorf("make master key %d: %w", id, err)
	}
	m.key.Store(key)
	return nil
}

// sweep removes expired tokens and master keys from the store.
func (m *Manager) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, max(storeTimeout, m.scans))
	defer cancel()
	now := m.now().UnixMilli()
	m.owners.sweep(now)
	removed, err := m.store.Sweep(ctx, now)
	if removed > 0 {
		m.log.Info("removed expired delegation tokens", "tokens", removed)
	}
	return err
}
