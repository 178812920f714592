package token

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/edekd/edekd/proxy/authn/secret"
)

const (
	// storeTimeout bounds every wait for the store.
	storeTimeout = 10 * time.Second
	// retryInterval is when a failed roll or sweep is tried again.
	retryInterval = 5 * time.Second
	// attempts bounds how often a change is tried again because somebody else
	// was faster.
	attempts = 5
)

// Manager issues, renews, cancels and verifies tokens under Hadoop's rules
// (AbstractDelegationTokenSecretManager). It is safe for concurrent use. Close
// it when done: it rolls its master key and sweeps its store in the background.
type Manager struct {
	store         Store
	newHash       func() hash.Hash
	keyBits       int
	updates       time.Duration
	maxLifetime   time.Duration
	renewInterval time.Duration
	scans         time.Duration
	maxTokens     int
	now           func() time.Time
	log           *slog.Logger

	key    atomic.Pointer[MasterKey] // what new tokens are made with
	memo   *memo
	owners *owners
	keys   *keyring
	flight singleflight.Group

	ctx  context.Context // of the background and of verification
	stop context.CancelFunc
	done sync.WaitGroup
}

// New makes a Manager and puts its first master key into the store. It fails
// when a setting cannot be used or the store cannot be asked.
func New(ctx context.Context, cfg Config) (*Manager, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("delegation tokens: %w", err)
	}
	m := &Manager{
		store:         cfg.Store,
		newHash:       hashOf(cfg.Algorithm),
		keyBits:       cfg.KeyBits,
		updates:       cfg.UpdateInterval,
		maxLifetime:   cfg.MaxLifetime,
		renewInterval: cfg.RenewInterval,
		scans:         cfg.RemovalScanInterval,
		maxTokens:     cfg.MaxTokens,
		now:           cfg.Now,
		log:           cfg.Log,
		memo:          newMemo(MemoBytes),
		owners:        newOwners(cfg.MaxPerOwner, cfg.MaxTokens),
		keys:          newKeyring(),
	}
	if err := m.roll(ctx); err != nil {
		return nil, err
	}
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.done.Go(m.maintain)
	return m, nil
}

// Close ends what goes on in the background and waits for it. The store stays
// open; tokens stay in it.
func (m *Manager) Close() {
	m.stop()
	m.done.Wait()
}

// MemoryBytes is the memory that remembered tokens take, at most MemoBytes.
func (m *Manager) MemoryBytes() int64 { return m.memo.bytes() }

// Request is what a token is asked for.
type Request struct {
	Owner    string // whom the token shall act for
	RealUser string // who asks for it, if that is somebody else; else empty
	Renewer  string // short name of who may renew it; empty: nobody
	Service  string // put into the token as it is; empty as a rule
}

// Issue makes a token. An *Error says that there are too many or that the
// request cannot be put into a token.
func (m *Manager) Issue(ctx context.Context, q Request) (*Token, error) {
	if err := q.check(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	count, err := m.store.Count(ctx)
	if err != nil {
		return nil, fmt.Errorf("issue a delegation token: %w", err)
	}
	if count >= m.maxTokens {
		return nil, denied(fmt.Sprintf("there are %d delegation tokens, as many as %s allows: cancel tokens that are not needed, or wait until they expire", count, MaxTokensProperty))
	}
	if err := m.reserve(ctx, q.Owner); err != nil {
		return nil, err
	}
	defer m.owners.release(q.Owner)
	for range attempts {
		var t *Token
		if t, err = m.issue(ctx, q); !errors.Is(err, ErrConflict) {
			return t, err
		}
		// After four billion tokens the numbers begin again, and one of the
		// first may still be alive.
	}
	return nil, err
}

func (m *Manager) issue(ctx context.Context, q Request) (*Token, error) {
	sequence, err := m.store.Next(ctx, Sequences)
	if err != nil {
		return nil, fmt.Errorf("issue a delegation token: %w", err)
	}
	now := m.now()
	key := m.key.Load()
	id := Identifier{
		Owner:    q.Owner,
		Renewer:  q.Renewer,
		RealUser: q.RealUser,
		Issued:   now.UnixMilli(),
		MaxDate:  now.Add(m.maxLifetime).UnixMilli(),
		Sequence: sequence,
		KeyID:    key.ID,
	}
	t := &Token{Identifier: id.Append(nil), Kind: Kind, Service: q.Service}
	t.Password = password(m.newHash, key, t.Identifier)
	renewDate := min(id.MaxDate, now.Add(m.renewInterval).UnixMilli())
	err = m.store.Put(ctx, &Record{
		Sequence:   sequence,
		Identifier: t.Identifier,
		Password:   t.Password,
		RenewDate:  renewDate,
	})
	if err != nil {
		return nil, fmt.Errorf("issue delegation token %d: %w", sequence, err)
	}
	m.owners.hold(q.Owner, sequence, renewDate)
	return t, nil
}

// Renew gives a token more time and returns its new renew date in ms since the
// epoch. The renewer is the caller's short name. An *Error says why the token
// cannot be renewed or not by the caller.
//
// As in Hadoop a token whose renew date has passed, but which no sweep has found
// yet, is renewed all the same.
func (m *Manager) Renew(ctx context.Context, text []byte, renewer string) (int64, error) {
	t, id, err := parse(text)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	now := m.now()
	if err := m.mayRenew(ctx, t, &id, renewer, now.UnixMilli()); err != nil {
		return 0, err
	}
	renewDate := min(id.MaxDate, now.Add(m.renewInterval).UnixMilli())
	err = m.change(ctx, t, &id, func(old *Record) error {
		return m.store.Put(ctx, &Record{
			Sequence:   old.Sequence,
			Identifier: old.Identifier,
			Password:   old.Password,
			RenewDate:  renewDate,
			Version:    old.Version,
		})
	})
	if errors.Is(err, ErrNotFound) {
		return 0, invalid("Renewal request for unknown token (" + id.String() + ")")
	}
	if err != nil {
		return 0, fmt.Errorf("renew delegation token %d: %w", id.Sequence, err)
	}
	m.owners.hold(id.Owner, id.Sequence, renewDate)
	return renewDate, nil
}

// mayRenew checks Hadoop's conditions for a renewal but the last, in Hadoop's
// order.
func (m *Manager) mayRenew(ctx context.Context, t *Token, id *Identifier, renewer string, now int64) error {
	text := "(" + id.String() + ")"
	switch {
	case id.MaxDate < now:
		return invalid(renewer + " tried to renew an expired token " + text + " max expiration date: " +
			formatTime(id.MaxDate) + " currentTime: " + formatTime(now))
	case id.Renewer == "":
		return denied(renewer + " tried to renew a token " + text + " without a renewer")
	case id.Renewer != renewer:
		return denied(renewer + " tries to renew a token " + text + " with non-matching renewer " + id.Renewer)
	}
	key, err := m.store.Key(ctx, id.KeyID)
	if errors.Is(err, ErrNotFound) {
		return invalid(fmt.Sprintf("Unable to find master key for keyId=%d from cache. Failed to renew an unexpired token %s with sequenceNumber=%d",
			id.KeyID, text, id.Sequence))
	}
	if err != nil {
		return fmt.Errorf("renew delegation token %d: %w", id.Sequence, err)
	}
	if !secret.Equal(password(m.newHash, key, t.Identifier), t.Password) {
		return denied(renewer + " is trying to renew a token " + text + " with wrong password")
	}
	return nil
}

// Cancel ends a token, on this server before Cancel returns. The canceller is
// the caller's short name and must be the token's owner or renewer; it is empty
// when the caller is not authenticated, who then acts as the token's owner if
// the token is still good. An *Error says why it may not be.
//
// The token's password is checked in any case, where Hadoop asks an
// authenticated canceller for the identifier only.
func (m *Manager) Cancel(ctx context.Context, text []byte, canceller string) error {
	t, id, err := parse(text)
	if err != nil {
		return err
	}
	if canceller == "" {
		if _, err := m.Verify(text, m.now()); err != nil {
			return err
		}
	} else if canceller != id.Owner && (id.Renewer == "" || canceller != id.Renewer) {
		return denied(canceller + " is not authorized to cancel the token (" + id.String() + ")")
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err = m.change(ctx, t, &id, func(old *Record) error {
		if !secret.Equal(old.Password, t.Password) {
			return invalid("token (" + id.String() + ") is invalid, password doesn't match")
		}
		return m.store.Delete(ctx, old)
	})
	if err == nil {
		m.owners.forget(id.Owner, id.Sequence)
	}
	if errors.Is(err, ErrNotFound) {
		return invalid("Token not found (" + id.String() + ")")
	}
	if refused := (*Error)(nil); err != nil && !errors.As(err, &refused) {
		return fmt.Errorf("cancel delegation token %d: %w", id.Sequence, err)
	}
	return err
}

// change applies f to what the store has for a token, again if that changed
// meanwhile.
func (m *Manager) change(ctx context.Context, t *Token, id *Identifier, f func(*Record) error) error {
	var err error
	for range attempts {
		var record *Record
		if record, err = m.find(ctx, t, id); err != nil {
			return err
		}
		if err = f(record); !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return err
}

// Count returns how many tokens the store holds.
func (m *Manager) Count(ctx context.Context) (int, error) { return m.store.Count(ctx) }
