// Package storetest is the test that every token.Store has to pass.
package storetest

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/edekd/edekd/proxy/authn/secret"
	"github.com/edekd/edekd/proxy/authn/token"
)

// Staleness is how late a store may learn what another server did.
const Staleness = 10 * time.Second

// Run tests stores. open returns two of them that look at the same keys and
// tokens, none at first, as two servers would; a store that is not shared is
// returned twice.
func Run(t *testing.T, open func(t *testing.T) (here, there token.Store)) {
	for name, test := range map[string]func(t *testing.T, here, there token.Store){
		"Counters":           counters,
		"Keys":               keys,
		"PutAndFind":         putAndFind,
		"ConditionalChanges": conditionalChanges,
		"OneOfManyWins":      oneOfManyWins,
		"PeerEndsRecords":    peerEndsRecords,
		"Sweep":              sweep,
		"SweepSparesRenewed": sweepSparesRenewed,
	} {
		t.Run(name, func(t *testing.T) {
			here, there := open(t)
			test(t, here, there)
		})
	}
}

func record(sequence int32, renewDate int64) *token.Record {
	id := token.Identifier{Owner: "alice", Renewer: "yarn", Issued: 1, MaxDate: 1 << 60, Sequence: sequence, KeyID: 2}
	return &token.Record{Sequence: sequence, Identifier: id.Append(nil), Password: []byte("password of 20 bytes"), RenewDate: renewDate}
}

// put stores a token and returns what the store then has for it.
func put(t *testing.T, s token.Store, r *token.Record) *token.Record {
	t.Helper()
	if err := s.Put(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return get(t, s, r.Sequence)
}

func get(t *testing.T, s token.Store, sequence int32) *token.Record {
	t.Helper()
	r, err := s.Token(t.Context(), sequence)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// renewed is the record that takes the place of old.
func renewed(old *token.Record, renewDate int64) *token.Record {
	return &token.Record{Sequence: old.Sequence, Identifier: old.Identifier, Password: old.Password, RenewDate: renewDate, Version: old.Version}
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

// eventually waits for what another server did to be seen.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(Staleness); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, Staleness)
		}
	}
}

func counters(t *testing.T, here, there token.Store) {
	var mu sync.Mutex
	seen := make(map[[2]int32]bool)
	var wg sync.WaitGroup
	for _, s := range []token.Store{here, there, here, there} {
		wg.Go(func() {
			for range 150 {
				for _, c := range []token.Counter{token.Sequences, token.KeyIDs} {
					n, err := s.Next(t.Context(), c)
					mu.Lock()
					if id := [2]int32{int32(c), n}; err != nil || n <= 0 || seen[id] {
						t.Errorf("%v: %d, %v, taken before: %v", c, n, err, seen[id])
					} else {
						seen[id] = true
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
}

func keys(t *testing.T, here, there token.Store) {
	_, err := here.Key(t.Context(), 3)
	wantError(t, err, token.ErrNotFound)
	bytes := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	if err := here.PutKey(t.Context(), &token.MasterKey{ID: 3, Expires: 1700000000000, Secret: bytes}); err != nil {
		t.Fatal(err)
	}
	clear(bytes)
	f := func(s token.Store, expires int64) {
		t.Helper()
		eventually(t, "a key another server put", func() bool {
			k, err := s.Key(t.Context(), 3)
			return err == nil && k.ID == 3 && k.Expires == expires && secret.Equal(k.Secret, []byte{1, 2, 3, 4, 5, 6, 7, 8})
		})
	}
	f(here, 1700000000000)
	f(there, 1700000000000)
	for _, s := range []token.Store{here, there} {
		if ids, err := s.KeyIDs(t.Context()); err != nil || !slices.Equal(ids, []int32{3}) {
			t.Errorf("keys %v, %v", ids, err)
		}
	}
	if err := there.PutKey(t.Context(), token.NewMasterKey(3, 1800000000000, []byte{1, 2, 3, 4, 5, 6, 7, 8})); err != nil {
		t.Fatal(err)
	}
	f(there, 1800000000000)
	f(here, 1800000000000)
}

func putAndFind(t *testing.T, here, there token.Store) {
	for _, sequence := range []int32{1, 101, 1<<31 - 1, -1 << 31, -1} {
		_, err := here.Token(t.Context(), sequence)
		wantError(t, err, token.ErrNotFound)
		want := record(sequence, 1700000000000)
		f := func(s token.Store) {
			t.Helper()
			var r *token.Record
			eventually(t, "a token another server put", func() bool {
				var err error
				r, err = s.Token(t.Context(), sequence)
				return err == nil
			})
			if r.Sequence != sequence || !secret.Equal(r.Identifier, want.Identifier) || !secret.Equal(r.Password, want.Password) ||
				r.RenewDate != want.RenewDate || r.Version == 0 || r.Ended() {
				t.Errorf("token %d came back with renew date %d, version %d, ended %v", r.Sequence, r.RenewDate, r.Version, r.Ended())
			}
		}
		put(t, here, want)
		f(here)
		f(there)
	}
	if n, err := here.Count(t.Context()); n != 5 || err != nil {
		t.Errorf("%d tokens, %v", n, err)
	}
}

func conditionalChanges(t *testing.T, here, _ token.Store) {
	first := put(t, here, record(7, 1000))
	wantError(t, here.Put(t.Context(), record(7, 5000)), token.ErrConflict)
	if first = get(t, here, 7); first.RenewDate != 1000 {
		t.Error("a token was made twice")
	}
	second := put(t, here, renewed(first, 2000))
	if !first.Ended() || second.Ended() || second.RenewDate != 2000 || second.Version == first.Version {
		t.Errorf("after a renewal: old ended %v, new ended %v, renew date %d", first.Ended(), second.Ended(), second.RenewDate)
	}
	wantError(t, here.Put(t.Context(), renewed(first, 3000)), token.ErrConflict)
	wantError(t, here.Delete(t.Context(), first), token.ErrConflict)
	current := get(t, here, 7)
	if current.RenewDate != 2000 {
		t.Errorf("a refused change was made: renew date %d", current.RenewDate)
	}
	if err := here.Delete(t.Context(), current); err != nil || !current.Ended() {
		t.Errorf("delete: %v, ended %v", err, current.Ended())
	}
	_, err := here.Token(t.Context(), 7)
	wantError(t, err, token.ErrNotFound)
	wantError(t, here.Delete(t.Context(), current), token.ErrNotFound)
	wantError(t, here.Put(t.Context(), renewed(current, 4000)), token.ErrNotFound)
	if n, err := here.Count(t.Context()); n != 0 || err != nil {
		t.Errorf("%d tokens, %v", n, err)
	}
}

// Of many who change one state of a token one succeeds.
func oneOfManyWins(t *testing.T, here, there token.Store) {
	put(t, here, record(7, 1000))
	stores := []token.Store{here, there, here, there, here, there}
	var seen []*token.Record
	for _, s := range stores {
		eventually(t, "a token another server put", func() bool {
			r, err := s.Token(t.Context(), 7)
			if err == nil {
				seen = append(seen, r)
			}
			return err == nil
		})
	}
	var mu sync.Mutex
	won := 0
	var wg sync.WaitGroup
	for i, s := range stores {
		old := seen[i]
		wg.Go(func() {
			var err error
			if i < 3 {
				err = s.Put(t.Context(), renewed(old, int64(2000+i)))
			} else {
				err = s.Delete(t.Context(), old)
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, token.ErrConflict) && !errors.Is(err, token.ErrNotFound) {
				t.Error(err)
			}
			if !old.Ended() {
				t.Error("a record survived the change of its token")
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d changed the same state of a token", won)
	}
}

func peerEndsRecords(t *testing.T, here, there token.Store) {
	put(t, here, record(7, 1000))
	var seen *token.Record
	eventually(t, "a token another server put", func() bool {
		var err error
		seen, err = there.Token(t.Context(), 7)
		return err == nil
	})
	current := put(t, here, renewed(get(t, here, 7), 2000))
	eventually(t, "a renewal by another server", seen.Ended)
	eventually(t, "the renewed token", func() bool {
		var err error
		seen, err = there.Token(t.Context(), 7)
		return err == nil && seen.RenewDate == 2000
	})
	if err := here.Delete(t.Context(), current); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a cancellation by another server", seen.Ended)
	eventually(t, "the token's end", func() bool {
		_, err := there.Token(t.Context(), 7)
		return errors.Is(err, token.ErrNotFound)
	})
}

func sweep(t *testing.T, here, there token.Store) {
	old, last, alive := put(t, here, record(1, 999)), put(t, here, record(2, 1000)), put(t, here, record(-3, 1001))
	for id, expires := range map[int32]int64{4: 999, 5: 1000} {
		if err := here.PutKey(t.Context(), token.NewMasterKey(id, expires, []byte{1, 2, 3, 4, 5, 6, 7, 8})); err != nil {
			t.Fatal(err)
		}
	}
	removed := 0
	eventually(t, "the removal of one token", func() bool {
		n, err := there.Sweep(t.Context(), 1000)
		if err != nil {
			t.Fatal(err)
		}
		removed += n
		return removed == 1
	})
	eventually(t, "the end of the removed token's record", old.Ended)
	_, err := there.Token(t.Context(), 1)
	wantError(t, err, token.ErrNotFound)
	_, err = there.Key(t.Context(), 4)
	wantError(t, err, token.ErrNotFound)
	if _, err := there.Key(t.Context(), 5); err != nil {
		t.Errorf("a key was removed too early: %v", err)
	}
	if last.Ended() || alive.Ended() {
		t.Error("records of living tokens ended")
	}
	if n, err := here.Sweep(t.Context(), 1000); n != 0 || err != nil {
		t.Errorf("the second sweep removed %d, %v", n, err)
	}
	if n, err := here.Count(t.Context()); n != 2 || err != nil {
		t.Errorf("%d tokens, %v", n, err)
	}
}

// A server that knows a token as expired asks before removing it.
func sweepSparesRenewed(t *testing.T, here, there token.Store) {
	put(t, here, record(1, 999))
	get(t, there, 1)
	put(t, here, renewed(get(t, here, 1), 2000))
	if n, err := there.Sweep(t.Context(), 1000); n != 0 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	if r := get(t, here, 1); r.RenewDate != 2000 {
		t.Errorf("renew date %d", r.RenewDate)
	}
}
