package token

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/edekd/edekd/proxy/authn/secret"
)

// Verified is a token found good. It is shared by all requests that bring the
// token and immutable but for Attached.
type Verified struct {
	// Identifier says whom the token acts for. Hadoop's user is Owner, acting
	// for Real() if that is not empty; access rules see the owner's short name.
	Identifier Identifier
	// Expires is the last moment at which the token may be used unless it is
	// renewed, ms since the epoch.
	Expires int64
	// Attached is for the caller of Verify, to remember what it made of the
	// token: it stays empty or gets values of one type. What is attached is
	// dropped, at the latest, when the token is cancelled, renewed or expired.
	Attached atomic.Value

	text   []byte // as presented
	record *Record
}

func (v *Verified) live(now int64) bool { return now <= v.Expires && !v.record.Ended() }

// Verify returns whom the text of a delegation token acts for at the given time:
// it is in the store as it is, its renew date has not passed, and its password
// is the one in the store. The text is not kept.
//
// A token that was verified is remembered until it is cancelled, renewed or
// expired, or until others push it out; then Verify neither asks the store nor
// allocates. What other servers did to a token is known as soon as the store
// tells, see Store for how late that can be.
//
// An *Error says what is wrong with the token. With any other error the store
// could not be asked in time.
func (m *Manager) Verify(text []byte, now time.Time) (*Verified, error) {
	ms := now.UnixMilli()
	if v := m.memo.get(text); v != nil && v.live(ms) {
		return v, nil
	}
	for range attempts {
		// A job starts with many tasks that bring the same token: one asks for
		// all. Who joins late may get what was true before he came.
		found, err, _ := m.flight.Do(string(text), func() (any, error) { return m.verify(text, ms) })
		if err != nil {
			return nil, err
		}
		v := found.(*Verified)
		if v.record.Ended() {
			continue
		}
		if err := expired(&v.Identifier, v.Expires, ms); err != nil {
			return nil, err
		}
		m.memo.put(v, ms)
		return v, nil
	}
	return nil, errors.New("verify a delegation token: its record changes all the time")
}

// verify checks all but the clock.
func (m *Manager) verify(text []byte, now int64) (*Verified, error) {
	t, id, err := parse(text)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(m.ctx, storeTimeout)
	defer cancel()
	if m.store.Known(id.Sequence) == nil {
		genuine, err := m.genuine(ctx, t, &id)
		if err != nil {
			return nil, fmt.Errorf("verify delegation token %d: %w", id.Sequence, err)
		}
		if !genuine {
			return nil, notFound(&id)
		}
	}
	record, err := m.find(ctx, t, &id)
	if errors.Is(err, ErrNotFound) {
		return nil, notFound(&id)
	}
	if err != nil {
		return nil, fmt.Errorf("verify delegation token %d: %w", id.Sequence, err)
	}
	if !secret.Equal(record.Password, t.Password) {
		// Hadoop looks at the clock first.
		if err := expired(&id, record.RenewDate, now); err != nil {
			return nil, err
		}
		return nil, invalid("token (" + id.String() + ") is invalid, password doesn't match")
	}
	return &Verified{Identifier: id, Expires: record.RenewDate, text: bytes.Clone(text), record: record}, nil
}

func notFound(id *Identifier) *Error {
	return invalid("Token for real user: " + id.RealUser + ", can't be found in cache")
}

// expired returns the error of a token whose renew date has passed, nil if it
// has not.
func expired(id *Identifier, renewDate, now int64) error {
	if now <= renewDate {
		return nil
	}
	return invalid("Token " + id.RealUser + " has expired, current time: " + formatTime(now) +
		" expected renewal time: " + formatTime(renewDate))
}

// Claimed returns what the text of a token says about itself, be it true or not.
func Claimed(text []byte) (Identifier, error) {
	_, id, err := parse(text)
	return id, err
}

// parse takes the text of a token apart.
func parse(text []byte) (*Token, Identifier, error) {
	t, err := ParseURL(text)
	if err != nil {
		return nil, Identifier{}, undecodable(err)
	}
	id, err := ParseIdentifier(t.Identifier)
	if err != nil {
		return nil, Identifier{}, undecodable(err)
	}
	if id.Owner == "" {
		return nil, Identifier{}, invalid("Token with no owner (" + id.String() + ")")
	}
	return t, id, nil
}

// find returns what the store has for a token. A token that differs from the
// one with its number, say in its owner, is not found: Hadoop's ZooKeeper store
// looks at the number only.
func (m *Manager) find(ctx context.Context, t *Token, id *Identifier) (*Record, error) {
	record, err := m.store.Token(ctx, id.Sequence)
	if err == nil && !secret.Equal(record.Identifier, t.Identifier) {
		err = ErrNotFound
	}
	return record, err
}
