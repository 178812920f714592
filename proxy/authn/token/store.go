package token

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// Store is where master keys and live tokens are kept: the memory of one
// process, or a place that several servers share. It knows nothing of who may
// do what; a Manager stands before it.
//
// All methods may be called at once from many goroutines and end with their
// context. An error that is neither ErrNotFound nor ErrConflict means that the
// store could not be asked: nobody may conclude from it that a token does not
// exist. A Put or Delete that failed so may have happened all the same.
//
// What several servers believe. Within one process a change is seen by every
// call made after Put or Delete returned. A change made by another server is
// seen, by records being ended, as soon as the store learns of it, and no
// later than ten seconds after it happened: a store that cannot be sure of that
// any more, say because its connection is gone, ends every record it handed
// out. So ten seconds is how long a node may go on believing in a token that
// was cancelled elsewhere.
type Store interface {
	// Next takes the next number from a counter. No two calls get the same
	// number, on whatever server, until the counter has gone all the way round:
	// after the largest int32 comes the smallest. Numbers may be left out, as
	// when a server dies with part of a range it took.
	Next(ctx context.Context, c Counter) (int32, error)

	// Key returns a master key, or ErrNotFound. It finds the keys that other
	// servers put there too.
	Key(ctx context.Context, id int32) (*MasterKey, error)

	// KeyIDs returns the IDs of all master keys, those included that other servers
	// put there before the call.
	KeyIDs(ctx context.Context) ([]int32, error)

	// PutKey stores a master key, in place of the one with the same ID if there
	// is one. The store makes a copy of what it keeps.
	PutKey(ctx context.Context, k *MasterKey) error

	// Token returns the token with that sequence number, or ErrNotFound. What
	// another server put is found from the moment its Put returned, give or take
	// the ten seconds above. The same record may be returned many times.
	Token(ctx context.Context, sequence int32) (*Record, error)

	// Known returns what Token would, if that takes no asking of anybody; nil
	// otherwise.
	Known(sequence int32) *Record

	// Put stores a token. A record of Version 0 is a new one, and ErrConflict
	// says that its sequence number is taken. Any other takes the place of the
	// record that Token returned with this Version, atomically: when that has
	// been replaced meanwhile the error is ErrConflict, when it is gone
	// ErrNotFound, and nothing is changed. After success and after both of these
	// errors the old record has ended.
	Put(ctx context.Context, r *Record) error

	// Delete removes the token that Token returned as r, under the rules of Put:
	// ErrConflict if it was replaced meanwhile, ErrNotFound if it is gone, and
	// in all three cases r has ended.
	Delete(ctx context.Context, r *Record) error

	// Sweep removes what is of no more use: every token whose RenewDate is
	// before the given time (ms since the epoch) and every master key that
	// expired before it. It decides by what the store says at the moment of
	// removal, so that a token renewed meanwhile by another server stays. It
	// returns the number of tokens removed, also with an error.
	Sweep(ctx context.Context, before int64) (removed int, err error)

	// Count returns how many tokens there are, expired ones that no Sweep has
	// found yet included.
	Count(ctx context.Context) (int, error)
}

// Counter names one of a store's two counters.
type Counter int

const (
	Sequences Counter = iota // sequence numbers of tokens; the first is 1
	KeyIDs                   // IDs of master keys
)

func (c Counter) String() string {
	if c == KeyIDs {
		return "master key IDs"
	}
	return "token sequence numbers"
}

var (
	// ErrNotFound says that there is no such token or key.
	ErrNotFound = errors.New("not found")
	// ErrConflict says that somebody else changed a token first.
	ErrConflict = errors.New("changed meanwhile")
)

// MasterKey is what the passwords of tokens are made with. It is immutable once
// it was handed to or by a store.
type MasterKey struct {
	ID      int32
	Expires int64  // when no token made with it can be alive any more, ms since the epoch
	Secret  []byte // key bytes
}

// Format keeps every fmt verb from reaching the bytes.
func (k *MasterKey) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "master key %d (hidden)", k.ID)
}

// Record is what a store keeps of one token. Its fields are not changed once it
// was handed to or by a store, and nobody writes into its slices.
type Record struct {
	Sequence   int32  // the identifier's
	Identifier []byte // as it was issued, byte for byte
	Password   []byte // the MAC the token carries
	RenewDate  int64  // the last moment at which it may be used, ms since the epoch
	Version    int64  // the store's mark of this state of the token, never 0 in what it returns

	ended atomic.Bool
}

// End says that the store may hold something else for this token by now, or
// nothing. Stores call it; it may be called many times.
func (r *Record) End() { r.ended.Store(true) }

// Ended reports whether End was called. A record that has ended says nothing
// about the present: ask the store again.
func (r *Record) Ended() bool { return r.ended.Load() }

// Format keeps every fmt verb from reaching the password.
func (r *Record) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "delegation token %d (hidden)", r.Sequence)
}
