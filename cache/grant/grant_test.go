package grant

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"pgregory.net/rapid"

	"github.com/edekd/edekd/internal/race"
)

const ttl, stale = time.Minute, time.Hour

// step is one thing that happens, after a wait.
type step struct {
	wait time.Duration
	what int
	Grant
	which int // of the requests under way
}

var steps = rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
	return step{
		wait:  time.Duration(rapid.SampledFrom([]int{1, 1000, 20000, 3000000}).Draw(rt, "ms")) * time.Millisecond,
		what:  rapid.IntRange(0, 9).Draw(rt, "step"),
		which: rapid.IntRange(0, 99).Draw(rt, "which"),
		Grant: Grant{
			User:    rapid.SampledFrom([]string{"alice", "alice", "bob"}).Draw(rt, "user"),
			Real:    rapid.SampledFrom([]string{"", "", "", "alice"}).Draw(rt, "real"),
			Key:     rapid.SampledFrom([]string{"alice", "alice", "longer.key.name"}).Draw(rt, "key"),
			Created: rapid.SampledFrom([]int64{1, 1, 1, 2}).Draw(rt, "created"),
			Kind:    Kind(rapid.IntRange(0, 1).Draw(rt, "kind")),
		}}
}), 20, 300)

func holds(table *Table, g Grant, now time.Time) bool {
	held, _ := table.Holds(g, now)
	return held
}

// Whatever the order of requests, answers, denials, changes and looks, and
// however little room there is, a grant is held only if a request that was sent
// after the last denial, and not too long ago, was allowed.
func TestNothingIsHeldThatWasNotEarned(t *testing.T) {
	for _, bytes := range []int64{0, shards * (recordBytes + 40), 1 << 20} {
		held := 0
		t.Run(fmt.Sprint(bytes), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				script, wrong := steps.Draw(rt, "script"), ""
				synctest.Test(t, func(*testing.T) {
					var n int
					n, wrong = play(script, New(Config{TTL: ttl, Stale: stale, Bytes: bytes}), bytes)
					held += n
				})
				if wrong != "" {
					rt.Fatal(wrong)
				}
			})
		})
		if (held > 0) != (bytes > 0) {
			t.Errorf("with %d bytes grants were held %d times", bytes, held)
		}
	}
}

// play checks a table against what a server would know, and returns how often
// a grant was held, or what was wrong.
func play(script []step, table *Table, bytes int64) (held int, wrong string) {
	type request struct {
		Grant
		sent time.Time
	}
	type who struct{ user, real, key string }
	var underWay []request
	allowed := map[Grant]time.Time{} // when the newest request was sent whose answer came
	denied := map[who]time.Time{}    // and the last denial
	for n, s := range script {
		time.Sleep(s.wait)
		g := s.Grant
		switch s.what {
		case 0, 1, 2:
			underWay = append(underWay, request{g, time.Now()})
		case 3, 4, 5:
			if len(underWay) > 0 {
				i := s.which % len(underWay)
				r := underWay[i]
				underWay = append(underWay[:i:i], underWay[i+1:]...)
				table.Earn(r.Grant, r.sent)
				g = r.Grant
				if r.sent.After(allowed[g]) {
					allowed[g] = r.sent
				}
			}
		case 6:
			table.Revoke(g.User, g.Real, g.Key)
			denied[who{g.User, g.Real, g.Key}] = time.Now()
		}
		now := time.Now()
		for g, sent := range allowed {
			good := sent.After(denied[who{g.User, g.Real, g.Key}])
			holds, holdsStale := holds(table, g, now), table.HoldsStale(g, now)
			if holds {
				held++
			}
			if holds && (!good || now.Sub(sent) >= ttl || !holdsStale) || holdsStale && (!good || now.Sub(sent) >= stale) {
				return held, fmt.Sprintf("step %d: %+v, sent %v ago, is held: %v, stale: %v", n, g, now.Sub(sent), holds, holdsStale)
			}
		}
		if n := table.Bytes(); n > bytes {
			return held, fmt.Sprintf("%d bytes of %d", n, bytes)
		}
	}
	return held, ""
}

func TestAGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := New(Config{TTL: ttl, Stale: stale, Bytes: 1 << 20})
		g := Grant{User: "alice", Key: "k", Created: 5, Kind: Generate}
		sent := time.Now()
		time.Sleep(ttl / 2)
		table.Earn(g, sent)
		check := func(what string, g Grant, want, wantStale bool) {
			t.Helper()
			if got, gotStale := holds(table, g, time.Now()), table.HoldsStale(g, time.Now()); got != want || gotStale != wantStale {
				t.Errorf("%s: holds %v, stale %v", what, got, gotStale)
			}
		}
		check("earned", g, true, true)
		other := g
		other.Kind = Decrypt
		check("another kind", other, false, false)
		other = g
		other.Created = 6
		check("made anew", other, false, false)
		other = g
		other.Real = "oozie"
		check("through another", other, false, false)
		time.Sleep(ttl/2 - 1)
		check("just before its end", g, true, true)
		time.Sleep(1)
		check("ended, counted from the sending", g, false, true)
		time.Sleep(stale)
		check("too stale", g, false, false)

		sent = time.Now()
		time.Sleep(time.Millisecond)
		table.Revoke("alice", "", "k")
		table.Earn(g, sent)
		check("answered late, after a denial", g, false, false)
		time.Sleep(time.Millisecond)
		table.Earn(g, time.Now())
		check("earned again", g, true, true)
	})
}

// A flood of denials does not bring back what was revoked, and does not keep
// others from earning.
func TestAFloodOfDenials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bytes = 256 << 10
		table := New(Config{TTL: ttl, Bytes: bytes})
		evil := Grant{User: "evil", Key: "k", Created: 1}
		sent := time.Now()
		time.Sleep(time.Millisecond)
		table.Revoke("evil", "", "k")
		good, earned, late := Grant{User: "good", Key: "k", Created: 1}, 0, 0
		for i := range 20000 {
			table.Revoke("evil", "", fmt.Sprint("key", i))
			if i%100 == 0 {
				at := time.Now()
				time.Sleep(30 * time.Millisecond)
				table.Earn(good, at)
				earned++
				if !holds(table, good, time.Now()) {
					late++
				}
			}
		}
		table.Earn(evil, sent)
		if holds(table, evil, time.Now()) {
			t.Error("what was revoked is held again")
		}
		if late > earned/10 {
			t.Errorf("%d of %d grants were not held after they were earned", late, earned)
		}
		if n := table.Bytes(); n > bytes {
			t.Errorf("%d bytes of %d", n, bytes)
		}
	})
}

// One caller at a time is told that a grant ends, in its last quarter.
func TestEndsSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := New(Config{TTL: ttl, Stale: stale, Bytes: 1 << 20})
		g := Grant{User: "alice", Key: "k", Created: 5, Kind: Decrypt}
		check := func(what string, wantHeld, wantEnds bool) {
			t.Helper()
			table.HoldsStale(g, time.Now()) // who asks so is not told
			if held, ends := table.Holds(g, time.Now()); held != wantHeld || ends != wantEnds {
				t.Errorf("%s: held %v, ends %v", what, held, ends)
			}
		}
		check("not earned", false, false)
		table.Earn(g, time.Now())
		time.Sleep(ttl*3/4 - 1)
		check("before the last quarter", true, false)
		time.Sleep(1)
		check("at its beginning", true, true)
		check("told once", true, false)
		time.Sleep(ttl/8 - 1)
		check("until an eighth has gone", true, false)
		time.Sleep(1)
		check("then again", true, true)
		table.Earn(g, time.Now())
		check("renewed", true, false)
		time.Sleep(ttl * 3 / 4)
		check("the next time", true, true)
		time.Sleep(ttl / 4)
		check("ended", false, false)
	})
}

func TestHoldsDoesNotAllocate(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	table := New(Config{TTL: time.Hour, Bytes: 1 << 20})
	buf := []byte("alicekey1")
	text := unsafe.String(&buf[0], len(buf))
	g := Grant{User: text[:5], Key: text[5:], Created: 1}
	table.Earn(g, time.Now())
	now := time.Now()
	if n := testing.AllocsPerRun(1000, func() {
		if !holds(table, g, now) {
			t.Fatal("not held")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	copy(buf, "XXXXXXXXX")
	if !holds(table, Grant{User: "alice", Key: "key1", Created: 1}, now) {
		t.Error("what was kept aliased the buffer")
	}
}

func TestManyAtOnce(t *testing.T) {
	table := New(Config{TTL: time.Hour, Stale: time.Hour, Bytes: 20 << 10})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for n := range 2000 {
				g := Grant{User: fmt.Sprint("user", n%7), Key: fmt.Sprint("key", n%50), Created: 1, Kind: Kind(n % 2)}
				switch (i + n) % 16 {
				case 0:
					table.Revoke(g.User, g.Real, g.Key)
				case 1, 2, 3, 4:
					table.Earn(g, time.Now())
				default:
					table.Holds(g, time.Now())
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkHolds(b *testing.B) {
	table := New(Config{TTL: time.Hour, Bytes: 1 << 20})
	g := Grant{User: "alice", Key: "some.key", Created: 1}
	now := time.Now()
	table.Earn(g, now)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			table.Holds(g, now)
		}
	})
}
