package token

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// remote is a store that remembers nothing and counts what it is asked.
type remote struct {
	*Memory
	tokens, keys, lists atomic.Int64
	slow                time.Duration // of a list
}

func (r *remote) Known(int32) *Record { return nil }

func (r *remote) Token(ctx context.Context, sequence int32) (*Record, error) {
	r.tokens.Add(1)
	return r.Memory.Token(ctx, sequence)
}

func (r *remote) Key(ctx context.Context, id int32) (*MasterKey, error) {
	r.keys.Add(1)
	return r.Memory.Key(ctx, id)
}

func (r *remote) KeyIDs(ctx context.Context) ([]int32, error) {
	r.lists.Add(1)
	time.Sleep(r.slow)
	return r.Memory.KeyIDs(ctx)
}

// Whoever makes up tokens has none of them looked up, and a token that another
// server issued just now is good at once.
func TestInventedTokensAreNotLookedUp(t *testing.T) {
	store := &remote{Memory: NewMemory()}
	peer, _ := manager(t, Config{Store: store.Memory})
	m, c := manager(t, Config{Store: store})
	text, _ := issue(t, peer, Request{Owner: "alice"})
	if _, err := m.Verify(text, c.Now()); err != nil {
		t.Fatal(err)
	}
	tokens, keys := store.tokens.Load(), store.keys.Load()
	for i := range int32(100) {
		for _, invent := range []func(*Token, *Identifier){
			func(_ *Token, id *Identifier) { id.Sequence += i + 1 },
			func(_ *Token, id *Identifier) { id.Sequence, id.KeyID = id.Sequence+i, id.KeyID+1 }, // m's own
			func(token *Token, id *Identifier) { id.Owner, token.Password = "root", token.Password[:i%20] },
			func(_ *Token, id *Identifier) { id.KeyID += 100 + i },
		} {
			_, err := m.Verify(altered(t, text, invent), c.Now())
			wantRefusal(t, err, ClassInvalidToken, "Token for real user: , can't be found in cache")
		}
	}
	if store.tokens.Load() != tokens || store.keys.Load() > keys+1 { // each of the two keys that there are is read once
		t.Errorf("%d tokens and %d keys were read for nothing", store.tokens.Load()-tokens, store.keys.Load()-keys)
	}
	if err := peer.roll(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, _ = issue(t, peer, Request{Owner: "bob"})
	if _, err := m.Verify(text, c.Now()); err != nil {
		t.Errorf("a new token under a new key: %v", err)
	}
}

// Keys that do not exist are asked for together, by those who come in time.
func TestInventedKeysAreListedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &remote{Memory: NewMemory(), slow: time.Second}
		m, c := manager(t, Config{Store: store})
		peer, _ := manager(t, Config{Store: store.Memory})
		text, _ := issue(t, peer, Request{Owner: "alice"})
		var all sync.WaitGroup
		for i := range int32(500) {
			all.Go(func() {
				if _, err := m.Verify(altered(t, text, func(_ *Token, id *Identifier) { id.KeyID += 100 + i }), c.Now()); err == nil {
					t.Error("an invented token is good")
				}
			})
		}
		time.Sleep(time.Millisecond)
		begun := time.Now()
		if _, err := m.Verify(text, c.Now()); err != nil || time.Since(begun) > 2*store.slow {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		all.Wait()
		if n := store.lists.Load(); n > 2 {
			t.Errorf("%d lists", n)
		}
		m.Close()
		peer.Close()
	})
}

// The IDs of keys begin anew where somebody removed everything.
func TestKeyIDsThatBeginAnew(t *testing.T) {
	store := &remote{Memory: NewMemory()}
	m, c := manager(t, Config{Store: store})
	if err := store.PutKey(t.Context(), &MasterKey{ID: 7, Expires: 1 << 60, Secret: []byte("old")}); err != nil {
		t.Fatal(err)
	}
	made := func(secret string) []byte {
		id := Identifier{Owner: "alice", Issued: 1, MaxDate: 1 << 60, Sequence: int32(len(secret)), KeyID: 7}
		token := &Token{Identifier: id.Append(nil), Kind: Kind}
		token.Password = password(hashOf("HmacSHA256"), &MasterKey{Secret: []byte(secret)}, token.Identifier)
		record := &Record{Sequence: id.Sequence, Identifier: token.Identifier, Password: token.Password, RenewDate: 1 << 60}
		if err := store.Put(t.Context(), record); err != nil {
			t.Fatal(err)
		}
		return token.AppendURL(nil)
	}
	if _, err := m.Verify(made("old"), c.Now()); err != nil { // of another algorithm than the present one
		t.Fatal(err)
	}
	if err := store.PutKey(t.Context(), &MasterKey{ID: 7, Expires: 1 << 60, Secret: []byte("newer")}); err != nil {
		t.Fatal(err)
	}
	newer := made("newer")
	if _, err := m.Verify(newer, c.Now()); err == nil {
		t.Error("the key is read for each wrong password")
	}
	c.add(keyBelieved + time.Millisecond)
	if _, err := m.Verify(newer, c.Now()); err != nil {
		t.Error(err)
	}
}

func TestKeysRememberedAreBounded(t *testing.T) {
	m, _ := manager(t, Config{})
	for i := range int32(keysKnown + 10) {
		if err := m.store.PutKey(t.Context(), &MasterKey{ID: 10 + i, Expires: 1 << 60, Secret: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
		if _, err := m.readKey(t.Context(), 10+i); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(m.keys.known); n != keysKnown {
		t.Errorf("%d keys are remembered", n)
	}
	if _, err := m.readKey(t.Context(), -1); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}
