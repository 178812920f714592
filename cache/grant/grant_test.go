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

func holds(table *Table, g Grant, now time.Time) bool { return weather(table, false).holds(g, now) }

// server is a table, and outages that come and go as the test wants.
type server struct {
	*Table
	*Outages
	gone bool
}

func weather(table *Table, gone bool) *server {
	s := &server{Table: table, gone: gone}
	s.Outages = table.Outages(func() bool { return s.gone })
	return s
}

func (s *server) holds(g Grant, now time.Time) bool {
	held, _ := s.Holds(g, now, s.Outages)
	return held
}

// leave makes an outage.
func (s *server) leave(d time.Duration) {
	s.gone = true
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
		s.Look(time.Now())
	}
	s.gone = false
}

// set ends an outage or begins one.
func (s *server) set(gone bool) {
	s.Look(time.Now())
	s.gone = gone
	s.Look(time.Now())
}

// Whatever the order of requests, answers, denials, changes, outages and looks,
// and however little room there is, a grant is held only if a request that was
// sent after the last denial, and not too long ago, was allowed: in an outage, and
// for a while after one that came in its time, it may be longer ago.
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
	at := weather(table, false)
	var began, ended time.Time // of the last outage, or of some that followed each other
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
		case 7:
			if now := time.Now(); !at.gone && (ended.IsZero() || now.Sub(ended) >= ttl) {
				began = now
			}
			at.set(!at.gone)
		}
		now := time.Now()
		if at.gone || s.what == 7 {
			at.Look(now)
			ended = now
		}
		for g, sent := range allowed {
			good := sent.After(denied[who{g.User, g.Real, g.Key}])
			most := ttl
			if at.gone || !ended.IsZero() && now.Sub(ended) < ttl && sent.Add(ttl).After(began) {
				most = stale
			}
			if at.holds(g, now) {
				held++
				if !good || now.Sub(sent) >= most {
					return held, fmt.Sprintf("step %d: %+v, sent %v ago, is held; the server is gone: %v, since %v, last %v ago", n, g, now.Sub(sent), at.gone, now.Sub(began), now.Sub(ended))
				}
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
			if got, gotStale := holds(table, g, time.Now()), weather(table, true).holds(g, time.Now()); got != want || gotStale != wantStale {
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

// One caller at a time is told to renew a grant, from a point on that differs from
// holder to holder.
func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := weather(New(Config{TTL: ttl, Stale: stale, Bytes: 1 << 20}), false)
		g := Grant{User: "alice", Key: "k", Created: 5, Kind: Decrypt}
		check := func(what string, wantHeld, wantRenew bool) {
			t.Helper()
			weather(at.Table, true).holds(g, time.Now()) // who cannot renew it is not told
			if held, renew := at.Holds(g, time.Now(), at.Outages); held != wantHeld || renew != wantRenew {
				t.Errorf("%s: held %v, to be renewed %v", what, held, renew)
			}
		}
		check("not earned", false, false)
		at.Earn(g, time.Now())
		sent := time.Now()
		check("young", true, false)
		var due time.Duration
		for renew := false; !renew; _, renew = at.Holds(g, time.Now(), at.Outages) {
			time.Sleep(ttl / 1000)
			due = time.Since(sent)
		}
		if due < ttl*3/8 || due > ttl*3/4+ttl/1000 {
			t.Errorf("to be renewed after %v of %v", due, ttl)
		}
		check("told once", true, false)
		time.Sleep(ttl/8 - 1)
		check("until an eighth has gone", true, false)
		time.Sleep(1)
		check("then again", true, true)
		at.Earn(g, time.Now())
		check("renewed", true, false)
		time.Sleep(ttl * 3 / 4)
		check("the next time", true, true)
		time.Sleep(ttl / 4)
		check("ended", false, false)
	})
}

// many is callers who each ask every other second and renew when they are told to.
type many struct {
	*server
	grants []Grant
}

func newMany(n int, c Config) *many {
	m := &many{server: weather(New(c), false)}
	for i := range n {
		g := Grant{User: fmt.Sprint("user", i/2), Key: "k", Created: 1, Kind: Kind(i % 2)}
		m.grants = append(m.grants, g)
		m.Earn(g, time.Now())
	}
	return m
}

// run returns how many were renewed each time, and how many askers held nothing
// and earned it anew.
func (m *many) run(d time.Duration) (renewed []int, none int) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(2 * time.Second) {
		m.Look(time.Now())
		renewed = append(renewed, 0)
		for _, g := range m.grants {
			held, renew := m.Holds(g, time.Now(), m.Outages)
			if !held {
				none++
			}
			if !held || renew {
				renewed[len(renewed)-1]++
				if !m.gone {
					m.Earn(g, time.Now())
				}
			}
		}
	}
	return renewed, none
}

// busiest is the most renewals of any 20 seconds.
func busiest(renewed []int) (most int) {
	for i := range len(renewed) - 9 {
		most = max(most, sum(renewed[i:i+10]))
	}
	return most
}

func sum(list []int) (all int) {
	for _, n := range list {
		all += n
	}
	return all
}

// Whatever an outage's length, and when grants end that were earned together, the
// renewals that it held up come about as often as renewals ever do, and nobody has
// to wait; also if it comes back before all is renewed.
func TestRenewalsTakeTurns(t *testing.T) {
	const count, ttl = 500, 5 * time.Minute
	usual := float64(count) * 20 / (ttl.Seconds() * 9 / 16)
	for _, outages := range [][]time.Duration{
		{0}, {90 * time.Second}, {10 * time.Minute}, {4 * time.Minute, 4 * time.Minute}, {59 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newMany(count, Config{TTL: ttl, Stale: ttl + time.Hour, Bytes: 1 << 20})
			m.run(20 * time.Minute)
			for i, outage := range outages {
				m.gone = true
				if tried, none := m.run(outage); none > 0 || sum(tried) > 0 {
					t.Errorf("%v: %d held nothing in the outage, %d were told to renew", outages, none, sum(tried))
				}
				m.gone = false
				length := 20 * time.Minute
				if i < len(outages)-1 {
					length = time.Minute
				}
				renewed, none := m.run(length)
				if most := busiest(renewed); float64(most) > 2*usual || none > 0 {
					t.Errorf("%v: %d renewals in 20 seconds, %.1f on average; %d held nothing", outages, most, usual, none)
				}
				if i == len(outages)-1 && sum(renewed) < count {
					t.Errorf("%v: %d renewals: the test looks at nothing", outages, sum(renewed))
				}
			}
		})
	}
}

// After an outage nothing counts for longer than it is to, and what the operator
// does not want to outlive its time does not.
func TestRecoveryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := func(m *many) (n int) {
			for _, g := range m.grants {
				if m.holds(g, time.Now()) {
					n++
				}
			}
			return n
		}
		for _, c := range []struct {
			stale, outage, after time.Duration
			want                 int
		}{
			{time.Hour, 10 * time.Minute, ttl - 1, 100},
			{time.Hour, 10 * time.Minute, ttl, 0},              // only for one more TTL
			{11 * time.Minute, 10 * time.Minute, ttl / 2, 100}, // and never for longer than in the outage:
			{10*time.Minute + 30*time.Second, 10 * time.Minute, ttl/2 + time.Second, 0},
			{0, 10 * time.Minute, time.Second, 0},
		} {
			m := newMany(100, Config{TTL: ttl, Stale: c.stale, Bytes: 1 << 20})
			time.Sleep(time.Second)
			m.leave(c.outage)
			time.Sleep(c.after - time.Second) // it was looked at last a second ago
			if n := held(m); n != c.want {
				t.Errorf("%+v: %d of 100 are held", c, n)
			}
		}
		// What had ended before the outage began is not brought back by its end.
		m := newMany(100, Config{TTL: ttl, Stale: time.Hour, Bytes: 1 << 20})
		time.Sleep(ttl)
		m.gone = true
		if n := held(m); n != 100 {
			t.Errorf("%d are held in the outage", n)
		}
		m.leave(ttl)
		if n := held(m); n != 0 {
			t.Errorf("%d are held that ended before the outage", n)
		}
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
	at := weather(table, false)
	if n := testing.AllocsPerRun(1000, func() {
		if !at.holds(g, now) {
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
					holds(table, g, time.Now())
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
	at := weather(table, false)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			at.holds(g, now)
		}
	})
}
