package token

import (
	"errors"
	"testing"
	"time"
)

func TestTooManyTokensOfOneOwner(t *testing.T) {
	const says = "alice has 2 delegation tokens, as many as edekd.tokens.max-per-owner allows: cancel tokens that are not needed, or wait until they expire"
	m, c := manager(t, Config{MaxPerOwner: 2})
	full := func() {
		t.Helper()
		if token, err := m.Issue(t.Context(), Request{Owner: "alice"}); token != nil {
			t.Error("one token more than allowed")
		} else {
			wantRefusal(t, err, ClassAccessControl, says)
		}
	}
	first, _ := issue(t, m, Request{Owner: "alice", Renewer: "yarn"})
	second, _ := issue(t, m, Request{Owner: "alice"})
	full()
	issue(t, m, Request{Owner: "bob", RealUser: "alice"}) // another's

	if err := m.Cancel(t.Context(), second, "alice"); err != nil {
		t.Fatal(err)
	}
	if err := m.Cancel(t.Context(), second, "alice"); err == nil {
		t.Error("cancelled twice")
	}
	issue(t, m, Request{Owner: "alice"})
	full()

	c.add(24 * time.Hour)
	if _, err := m.Renew(t.Context(), first, "yarn"); err != nil {
		t.Fatal(err)
	}
	full()
	c.add(time.Millisecond) // the other one has expired
	issue(t, m, Request{Owner: "alice"})
	full()
	c.add(24*time.Hour + time.Millisecond)
	m.owners.sweep(c.Now().UnixMilli())
	if n := len(m.owners.known); n != 0 || m.owners.held != 0 {
		t.Errorf("%d owners and %d tokens are remembered for nothing", n, m.owners.held)
	}
}

// A token that cannot be stored takes nobody's room.
func TestFailedIssueTakesNoRoom(t *testing.T) {
	store := &brokenStore{Store: NewMemory()}
	m, _ := manager(t, Config{Store: store, MaxPerOwner: 1})
	broken := errors.New("no connection")
	store.set(broken)
	for range 2 {
		if _, err := m.Issue(t.Context(), Request{Owner: "alice"}); !errors.Is(err, broken) {
			t.Fatal(err)
		}
	}
	if len(m.owners.known) != 0 {
		t.Error("an owner without tokens is remembered")
	}
	store.set(nil)
	issue(t, m, Request{Owner: "alice"})
}

// What another server cancelled is noticed when it matters.
func TestTokensOfAnOwnerThatAPeerCancelled(t *testing.T) {
	store := NewMemory()
	m, c := manager(t, Config{Store: store, MaxPerOwner: 1})
	peer, _ := manager(t, Config{Store: store})
	text, _ := issue(t, m, Request{Owner: "alice"})
	full := func() {
		t.Helper()
		if _, err := m.Issue(t.Context(), Request{Owner: "alice"}); err == nil {
			t.Error("one token more than allowed")
		}
	}
	full()
	if err := peer.Cancel(t.Context(), text, "alice"); err != nil {
		t.Fatal(err)
	}
	full() // it was looked up a moment ago
	c.add(doubtInterval)
	issue(t, m, Request{Owner: "alice"})
}

// The counting has a bound of its own.
func TestOwnersAreBounded(t *testing.T) {
	o := newOwners(3, 2)
	for i, owner := range []string{"a", "b", "c", "d"} {
		if ok, _ := o.reserve(owner, start); !ok {
			t.Fatal(owner)
		}
		o.hold(owner, int32(i), start.UnixMilli())
		o.release(owner)
	}
	if len(o.known) != 2 || o.held != 2 {
		t.Errorf("%d owners, %d tokens", len(o.known), o.held)
	}
}
