package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/edekd/edekd/internal/zkserver"
	"github.com/edekd/edekd/proxy/authn/token"
	"github.com/edekd/edekd/proxy/authn/token/storetest"
)

func TestStore(t *testing.T) {
	server := zkserver.Start(t, zkserver.Options{})
	folders := 0
	storetest.Run(t, func(t *testing.T) (here, there token.Store) {
		folders++
		cfg := tokensConfig(server)
		cfg.Tokens.Chroot = fmt.Sprintf("/store%d", folders)
		one, _ := openNode(t, cfg)
		other, _ := openNode(t, cfg)
		return one.Tokens, other.Tokens
	})
}

// newToken stores a token that is good until the year 2286.
func newToken(t *testing.T, s token.Store, sequence int32) *token.Record {
	t.Helper()
	id := token.Identifier{Owner: "alice", Renewer: "yarn", Issued: 1, MaxDate: 1 << 60, Sequence: sequence, KeyID: 2}
	r := &token.Record{Sequence: sequence, Identifier: id.Append(nil), Password: []byte("12345678901234567890"), RenewDate: 10_000_000_000_000}
	if err := s.Put(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return mustFind(t, s, sequence)
}

func mustFind(t *testing.T, s token.Store, sequence int32) *token.Record {
	t.Helper()
	r, err := s.Token(t.Context(), sequence)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCutOffNodeStopsBelievingWithinTenSeconds(t *testing.T) {
	f := func(name string, breakIt func(*zkserver.Server)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := zkserver.Start(t, zkserver.Options{})
			cfg := tokensConfig(server)
			cfg.Tokens.SessionTimeout = time.Minute
			n, _ := openNode(t, cfg)
			r := newToken(t, n.Tokens, 1)
			if again := mustFind(t, n.Tokens, 1); again != r {
				t.Fatal("a token that is watched was read twice")
			}
			begun := time.Now()
			breakIt(server)
			eventually(t, "the end of the record", r.Ended)
			// To the second it is looked at below, by a clock that does not
			// run on while the machine is busy.
			if took := time.Since(begun); took > belief+waitLimit/3 {
				t.Errorf("it was believed for %v", took)
			}
			eventually(t, "the loss of the connection", func() bool { return !n.Status().Connected })
			ctx, cancel := context.WithTimeout(t.Context(), patience*2)
			defer cancel()
			if _, err := n.Tokens.Token(ctx, 1); !errors.Is(err, ErrAway) {
				t.Errorf("what cannot be asked: %v", err)
			}
			server.Mend()
			eventually(t, "a believable record", func() bool {
				r, err := n.Tokens.Token(t.Context(), 1)
				return err == nil && !r.Ended() && r == mustFind(t, n.Tokens, 1)
			})
		})
	}
	f("cut", (*zkserver.Server).Cut)
	f("hang", (*zkserver.Server).Hang)
}

func TestRecordsOutliveAShortOutageOnlyUntilTheConnectionIsBack(t *testing.T) {
	server := zkserver.Start(t, zkserver.Options{})
	n, _ := openNode(t, tokensConfig(server))
	peer, _ := openNode(t, tokensConfig(server))
	r := newToken(t, n.Tokens, 1)
	server.Cut()
	eventually(t, "the loss of the connection", func() bool { return !n.Status().Connected })
	if again, err := n.Tokens.Token(t.Context(), 1); err != nil || again != r || r.Ended() {
		t.Errorf("a moment without ZooKeeper ended a token: %v", err)
	}
	server.Mend()
	eventually(t, "the end of what was known before", r.Ended)
	r = mustFind(t, n.Tokens, 1)
	if err := peer.Tokens.Delete(t.Context(), mustFind(t, peer.Tokens, 1)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end by the peer", func() bool {
		_, err := n.Tokens.Token(t.Context(), 1)
		return errors.Is(err, token.ErrNotFound)
	})
}

func TestExpiredSession(t *testing.T) {
	server := zkserver.Start(t, zkserver.Options{})
	n, _ := openNode(t, tokensConfig(server))
	r := newToken(t, n.Tokens, 1)
	server.Cut()
	server.AwaitExpiry()
	// Watches died with the session; this change was told to nobody.
	server.Mend()
	if err := admin(t, server).Delete("/edekd"+n.Tokens.tokenPath(1), -1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of what the old session told", r.Ended)
	eventually(t, "an answer from the new session", func() bool {
		_, err := n.Tokens.Token(t.Context(), 1)
		if err == nil {
			t.Fatal("the token lives on")
		}
		return errors.Is(err, token.ErrNotFound)
	})
	// The new session's watches work.
	r = newToken(t, n.Tokens, 2)
	eventually(t, "a believable record", func() bool { r = mustFind(t, n.Tokens, 2); return !r.Ended() })
	if err := admin(t, server).Delete("/edekd"+n.Tokens.tokenPath(2), -1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of a watched token", r.Ended)
}

func TestRestartedServer(t *testing.T) {
	server := zkserver.Start(t, zkserver.Options{})
	n, _ := openNode(t, tokensConfig(server))
	newToken(t, n.Tokens, 1)
	first, err := n.Tokens.Next(t.Context(), token.Sequences)
	if err != nil {
		t.Fatal(err)
	}
	server.Stop()
	if _, err := n.Tokens.Key(t.Context(), 1); !errors.Is(err, ErrAway) {
		t.Errorf("without a server: %v", err)
	}
	server.Start()
	eventually(t, "the connection", func() bool { return n.Status().Connected })
	mustFind(t, n.Tokens, 1)
	for range 25 { // more than a batch
		next, err := n.Tokens.Next(t.Context(), token.Sequences)
		if err != nil || next <= first {
			t.Fatalf("number %d after %d, %v", next, first, err)
		}
		first = next
	}
}

func TestGarbageInNodes(t *testing.T) {
	server := zkserver.Start(t, zkserver.Options{})
	n, _ := openNode(t, tokensConfig(server))
	s := n.Tokens
	a := admin(t, server)
	set := func(path string, data []byte) {
		t.Helper()
		if _, err := a.Set("/edekd"+path, data, -1); err != nil {
			t.Fatal(err)
		}
	}
	newToken(t, s, 1)
	newToken(t, s, 2)
	key := &token.MasterKey{ID: 5, Expires: 1, Secret: []byte("12345678")}
	if err := s.PutKey(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	whole, _, err := a.Get("/edekd" + s.tokenPath(2))
	if err != nil {
		t.Fatal(err)
	}
	bad := func(data []byte) {
		t.Helper()
		set(s.tokenPath(1), data)
		eventually(t, "the end of the token that was there", func() bool {
			_, err := s.Token(t.Context(), 1)
			return err != nil
		})
		if _, err := s.Token(t.Context(), 1); errors.Is(err, token.ErrNotFound) || errors.Is(err, ErrAway) {
			t.Errorf("%x: %v", data, err)
		}
	}
	bad(nil)
	bad([]byte("garbage"))
	bad(whole[:len(whole)-1])
	bad(append(whole[:len(whole):len(whole)], 0))
	bad(whole) // another token's
	if removed, err := s.Sweep(t.Context(), 20_000_000_000_000); err == nil || removed != 1 {
		t.Errorf("the sweep removed %d, %v", removed, err)
	}
	if n, err := s.Count(t.Context()); n != 1 || err != nil {
		t.Errorf("%d tokens, %v: what cannot be read stays", n, err)
	}
	set(s.keyPath(5), []byte{1})
	if _, err := s.Key(t.Context(), 5); err == nil || errors.Is(err, token.ErrNotFound) {
		t.Errorf("key: %v", err)
	}
	set(s.root+sequencesName, []byte("x"))
	set(s.root+keyIDsName, nil)
	for _, c := range []token.Counter{token.Sequences, token.KeyIDs} {
		if _, err := s.Next(t.Context(), c); err == nil {
			t.Errorf("%v: garbage was counted on", c)
		}
	}
}

// Who removes everything ends all tokens, and new ones are made after that.
func TestEverythingRemoved(t *testing.T) {
	server := zkserver.Start(t, zkserver.Options{})
	n, _ := openNode(t, tokensConfig(server))
	s := n.Tokens
	a := admin(t, server)
	remove := func() {
		t.Helper()
		for _, folder := range []string{tokensName, keysName} {
			names, _, err := a.Children("/edekd" + s.root + folder)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				if err := a.Delete("/edekd"+s.root+folder+"/"+name, -1); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, name := range []string{tokensName, keysName, sequencesName, keyIDsName, ""} {
			if err := a.Delete("/edekd"+s.root+name, -1); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := newToken(t, s, 1)
	remove()
	eventually(t, "the token's end", r.Ended)
	if _, err := s.Token(t.Context(), 1); !errors.Is(err, token.ErrNotFound) {
		t.Errorf("token: %v", err)
	}
	newToken(t, s, 2)
	remove()
	if err := s.PutKey(t.Context(), &token.MasterKey{ID: 5, Expires: 1, Secret: []byte("12345678")}); err != nil {
		t.Error(err)
	}
	remove()
	if next, err := s.Next(t.Context(), token.KeyIDs); next != 1 || err != nil {
		t.Errorf("%d, %v", next, err)
	}
	remove()
	if removed, err := s.Sweep(t.Context(), 1000); removed != 0 || err != nil {
		t.Errorf("removed %d, %v", removed, err)
	}
}

func TestCounterGoesAllTheWayRound(t *testing.T) {
	server := zkserver.Start(t, zkserver.Options{})
	n, _ := openNode(t, tokensConfig(server))
	if _, err := admin(t, server).Set("/edekd"+n.Tokens.root+sequencesName, appendCounter(nil, 1<<31-3), -1); err != nil {
		t.Fatal(err)
	}
	var got []int32
	for range 4 {
		number, err := n.Tokens.Next(t.Context(), token.Sequences)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, number)
	}
	if fmt.Sprint(got) != "[2147483646 2147483647 -2147483648 -2147483647]" {
		t.Error(got)
	}
}

// What was learned to be alive for long is not read again by the next sweep.
func TestSweepReadsOnlyWhatMayHaveExpired(t *testing.T) {
	server := zkserver.Start(t, zkserver.Options{})
	n, _ := openNode(t, tokensConfig(server))
	newToken(t, n.Tokens, 1)
	for before, want := range map[int64]int{1: 0, 9_999_999_999_999: 0} {
		if removed, err := n.Tokens.Sweep(t.Context(), before); removed != want || err != nil {
			t.Errorf("%d, %v", removed, err)
		}
	}
	if len(n.Tokens.due) != 1 {
		t.Errorf("%d renew dates are remembered", len(n.Tokens.due))
	}
	if removed, err := n.Tokens.Sweep(t.Context(), 10_000_000_000_001); removed != 1 || err != nil {
		t.Errorf("removed %d, %v", removed, err)
	}
	if _, err := n.Tokens.Sweep(t.Context(), 1); len(n.Tokens.due) != 0 || err != nil {
		t.Errorf("%d renew dates of removed tokens are remembered, %v", len(n.Tokens.due), err)
	}
}

func TestSweepOfMany(t *testing.T) {
	server := zkserver.Start(t, zkserver.Options{})
	n, _ := openNode(t, tokensConfig(server))
	s := n.Tokens
	a := admin(t, server)
	const expired, alive = 4000, 1000
	for first := 1; first <= expired+alive; first += 500 {
		var requests []any
		for sequence := first; sequence < first+500; sequence++ {
			id := token.Identifier{Owner: "alice", MaxDate: 1 << 60, Sequence: int32(sequence), KeyID: 2}
			r := token.Record{Identifier: id.Append(nil), Password: []byte("12345678901234567890"), RenewDate: 999}
			if sequence > expired {
				r.RenewDate = 1000
			}
			requests = append(requests, &zk.CreateRequest{Path: "/edekd" + s.tokenPath(int32(sequence)), Data: appendTokenNode(nil, &r), Acl: zk.WorldACL(zk.PermAll)})
		}
		if _, err := a.Multi(requests...); err != nil {
			t.Fatal(err)
		}
	}
	s.maxListed = expired
	if removed, err := s.Sweep(t.Context(), 1000); removed != 0 || err == nil || !strings.Contains(err.Error(), "more than the 4000") {
		t.Errorf("beyond the bound: removed %d, %v", removed, err)
	}
	s.maxListed = maxListed
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Sweep(ctx, 1000); err == nil {
		t.Error("a sweep that was cancelled went on")
	}
	if removed, err := s.Sweep(t.Context(), 1000); removed != expired || err != nil {
		t.Errorf("removed %d, %v", removed, err)
	}
	if count, err := s.Count(t.Context()); count != alive || err != nil {
		t.Errorf("%d are left, %v", count, err)
	}
}

func TestManagerOverZooKeeper(t *testing.T) {
	server := zkserver.Start(t, zkserver.Options{})
	var managers []*token.Manager
	for range 2 {
		n, _ := openNode(t, tokensConfig(server))
		m, err := token.New(t.Context(), token.Config{Store: n.Tokens})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Close)
		managers = append(managers, m)
	}
	issued, err := managers[0].Issue(t.Context(), token.Request{Owner: "alice", Renewer: "yarn"})
	if err != nil {
		t.Fatal(err)
	}
	text := issued.AppendURL(nil)
	for i, m := range managers {
		if _, err := m.Verify(text, time.Now()); err != nil {
			t.Errorf("server %d: %v", i, err)
		}
	}
	if _, err := managers[1].Renew(t.Context(), text, "yarn"); err != nil {
		t.Error(err)
	}
	if err := managers[0].Cancel(t.Context(), text, "yarn"); err != nil {
		t.Error(err)
	}
	eventually(t, "the cancellation on the other server", func() bool {
		var refused *token.Error
		_, err := managers[1].Verify(text, time.Now())
		return errors.As(err, &refused)
	})
}

// Beyond the bound on watches tokens are believed for a limited time.
func TestMemoBeyondItsBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemo(2, 1)
		defer m.endAll()
		here := func() bool { return true }
		m.confirm(time.Now(), here)
		note := func(sequence int32, watch bool) *token.Record {
			t.Helper()
			reading := m.begin(sequence)
			if reading.watch != watch {
				t.Errorf("token %d is to be watched: %v", sequence, reading.watch)
			}
			return m.finish(reading, &token.Record{Sequence: sequence, Version: 1})
		}
		watched := note(1, true)
		unwatched := note(2, false)
		for range 4 {
			time.Sleep(probeInterval)
			m.confirm(time.Now(), here)
		}
		if watched.Ended() || !unwatched.Ended() || m.get(2) != nil {
			t.Errorf("after %v: watched ended %v, not watched ended %v", 4*probeInterval, watched.Ended(), unwatched.Ended())
		}
		if again := note(1, false); again != watched {
			t.Error("an unchanged token has a new record")
		}
		note(2, false)
		note(3, false)
		if tokens, watches := m.sizes(); tokens != 2 || watches != 1 {
			t.Errorf("%d tokens and %d watches where 2 and 1 are allowed", tokens, watches)
		}
		m.forget(1, true)
		kept := note(4, true)
		time.Sleep(belief)
		synctest.Wait()
		if !watched.Ended() || !kept.Ended() || m.get(4) != nil {
			t.Error("a record was believed for ten seconds without confirmation")
		}
		if r := note(4, false); !r.Ended() {
			t.Error("a record is believed though changes are not told")
		}
	})
}

// A change told while the answer is under way makes the answer one of the past.
func TestMemoChangeDuringARead(t *testing.T) {
	m := newMemo(10, 10)
	defer m.endAll()
	m.confirm(time.Now(), func() bool { return true })
	f := func(watches int, change func()) {
		t.Helper()
		reading := m.begin(1)
		change()
		if r := m.finish(reading, &token.Record{Sequence: 1, Version: 1}); !r.Ended() || m.get(1) != nil {
			t.Error("an answer of before the change is believed")
		}
		if _, armed := m.sizes(); armed != watches {
			t.Errorf("%d watches, want %d", armed, watches)
		}
	}
	f(1, func() { m.forget(1, false) })
	f(0, func() { m.forget(1, true) })
	f(0, func() { m.forget(1, true) })
	f(1, m.endAll)
	m.confirm(time.Now(), func() bool { return true })
	f(0, m.disarm)
}
