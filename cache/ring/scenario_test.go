package ring

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/internal/race"
)

// load asks for single EDEKs of many keys in virtual time.
type load struct {
	rs    *Rings
	buf   [1]edek.EDEK
	taken int
	short []time.Time // when nothing was there
}

func (l *load) take(name string) {
	if len(l.rs.Take(name, l.buf[:], false)) == 1 {
		l.taken++
	} else {
		l.short = append(l.short, time.Now())
	}
}

// steadily calls f at the given rate, evenly in steps of a millisecond or more.
func steadily(d time.Duration, rate float64, f func()) {
	step := max(time.Millisecond, time.Duration(float64(time.Second)/rate))
	due := 0.0
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(step) {
		for due += rate * step.Seconds(); due >= 1; due-- {
			f()
		}
	}
}

// busiest returns the most calls in any window, and the mean in windows of
// that length between two times.
func busiest(calls []time.Time, window time.Duration, from, to time.Time) (most int, mean float64) {
	var in []time.Time
	for _, c := range calls {
		if !c.Before(from) && c.Before(to) {
			in = append(in, c)
		}
	}
	for i := range in {
		n, _ := slices.BinarySearchFunc(in, in[i].Add(window), time.Time.Compare)
		most = max(most, n-i)
	}
	return most, float64(len(in)) * window.Seconds() / to.Sub(from).Seconds()
}

func TestALoadStepIsFollowedWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{latency: 30 * time.Millisecond}
		rs := open(t, u, Config{})
		l, start := &load{rs: rs}, time.Now()
		steadily(10*time.Second, 20000, func() { l.take("key") })
		last := time.Duration(0)
		if len(l.short) > 0 {
			last = l.short[len(l.short)-1].Sub(start)
		}
		t.Logf("%d taken, %d missed, the last after %v; %d calls, %d bytes", l.taken, len(l.short), last, len(u.log()), rs.Bytes())
		if last >= time.Second || l.taken < 180000 {
			t.Errorf("%d missed, the last after %v; %d taken", len(l.short), last, l.taken)
		}
		rs.Close()
		checkBytes(t, rs)
	})
}

func TestAnOutageOfTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{latency: 30 * time.Millisecond}
		fair := true
		rs := open(t, u, Config{Reserve: 0.1, Fair: func() bool { u.mu.Lock(); defer u.mu.Unlock(); return fair }})
		l, rng := &load{rs: rs}, rand.New(rand.NewPCG(1, 2))
		ask := func() { l.take(fmt.Sprintf("key%d", rng.IntN(50))) }
		const rate = 100

		steadily(15*time.Minute, rate, ask) // grow
		from, missedBefore := time.Now(), len(l.short)
		steadily(10*time.Minute, rate, ask)
		to := time.Now()
		u.set(func() { u.fail = errDown; fair = false })
		steadily(10*time.Minute, rate, ask)
		back := time.Now()
		missed := len(l.short) - missedBefore
		u.set(func() { u.fail = nil; fair = true })
		steadily(15*time.Minute, rate, ask)

		usual, mean := busiest(u.log(), 5*time.Second, from, to)
		u.mu.Lock()
		failed := slices.Clone(u.failed)
		u.mu.Unlock()
		outage, _ := busiest(failed, 5*time.Second, to, back)
		most, after := busiest(u.log(), 5*time.Second, back, time.Now())
		t.Logf("%d missed at first, %d since; calls in 5 s: mean %.1f, most %d before; most %d in the outage; mean %.1f, most %d after",
			missedBefore, missed, mean, usual, outage, after, most)
		if missed > 0 {
			t.Errorf("%d takers went without in an outage of 10 minutes", missed)
		}
		if len(l.short) > missedBefore {
			t.Errorf("%d takers went without after it", len(l.short)-missedBefore)
		}
		if float64(most) > 2*mean {
			t.Errorf("%d calls in 5 s after the outage, %.1f before", most, mean)
		}
		depth := int64(0)
		rs.Each(func(s Stat) { depth += s.Depth })
		if depth < rate*600 {
			t.Errorf("%d EDEKs ready a quarter of an hour after the outage", depth)
		}
		if most, _ := busiest(u.log(), 5*time.Second, time.Now().Add(-5*time.Minute), time.Now()); most == 0 {
			t.Error("no calls at the end: the test looks at nothing")
		}
	})
}

// randomly calls f at the given rate, each time as if there had been no other.
func randomly(d time.Duration, rate float64, rng *rand.Rand, f func()) {
	for end := time.Now().Add(d); time.Now().Before(end); f() {
		time.Sleep(time.Duration(rng.ExpFloat64() / rate * float64(time.Second)))
	}
}

// Rings that have had the time to grow outlive an outage as long as Cover, however
// unlucky the moment it begins and the requests in it.
func TestCoverIsKept(t *testing.T) {
	const keys, rate = 50, 100
	configs, outages := []Config{{Cover: time.Minute}, {Cover: 3 * time.Minute}, {Cover: 3 * time.Minute, Reserve: 0.2}, {Cover: 10 * time.Minute}}, 3
	if race.Enabled {
		configs, outages = configs[:1], 1 // the others race in no other way
	}
	for _, c := range configs {
		t.Run(fmt.Sprintf("%v reserve %v", c.Cover, c.Reserve), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := &upstream{latency: 30 * time.Millisecond}
				fair := true
				c.Fair = func() bool { u.mu.Lock(); defer u.mu.Unlock(); return fair }
				rs := open(t, u, c)
				l, rng := &load{rs: rs}, rand.New(rand.NewPCG(5, uint64(c.Cover)))
				ask := func() { l.take(fmt.Sprintf("key%d", rng.IntN(keys))) }
				randomly(10*time.Minute, rate, rng, ask)
				var missed, most int64
				for range outages {
					// The time to grow anew, and one more in which rings lack whatever they lack.
					randomly(2*c.Cover+10*time.Minute+time.Duration(rng.IntN(300))*time.Second, rate, rng, ask)
					most = max(most, rs.Bytes())
					before := len(l.short)
					u.set(func() { u.fail = errDown; fair = false })
					randomly(c.Cover, rate, rng, ask)
					missed += int64(len(l.short) - before)
					u.set(func() { u.fail = nil; fair = true })
				}
				t.Logf("%d missed; %.1f bytes for each EDEK that is likely to be asked for", missed, float64(most)/(rate*c.Cover.Seconds()))
				if missed > 0 {
					t.Errorf("%d went without", missed)
				}
			})
		})
	}
}

func TestManyKeysInALittleMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keys, budget, rate = 10000, 64 << 20, 2000
		u := &upstream{latency: 30 * time.Millisecond}
		rs := open(t, u, Config{Budget: budget})
		names, sums, sum := make([]string, keys), make([]float64, keys), 0.0
		for i := range keys {
			names[i] = fmt.Sprintf("zone.key.%d", i)
			sum += 1 / float64(i+1)
			sums[i] = sum
		}
		l, rng := &load{rs: rs}, rand.New(rand.NewPCG(3, 4))
		most := int64(0)
		ask := func() {
			i, _ := slices.BinarySearch(sums, rng.Float64()*sum)
			l.take(names[i])
			most = max(most, rs.Bytes())
		}
		steadily(2*time.Minute, rate, ask)
		warm := len(l.short)
		l.taken = 0
		steadily(2*time.Minute, rate, ask)
		missed := len(l.short) - warm
		t.Logf("%d missed in two minutes of warm-up; then %d of %d (%.3f %%); %d rings, %.1f MiB at most, %d EDEKs shed, %d calls",
			warm, missed, l.taken+missed, 100*float64(missed)/float64(l.taken+missed), rs.table.count.Load(), float64(most)/(1<<20), rs.meters.shed.Get(), len(u.log()))
		if most > budget || most < budget/2 {
			t.Errorf("%d bytes of %d", most, int64(budget))
		}
		if float64(missed) > 0.01*float64(l.taken+missed) {
			t.Errorf("%d of %d missed", missed, l.taken+missed)
		}
		rs.Close()
		checkBytes(t, rs)
	})
}

func TestWarmUpIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{latency: 30 * time.Millisecond}
		rs := open(t, u, Config{})
		var names []string
		for i := range 100 {
			names = append(names, fmt.Sprint(i))
		}
		start := time.Now()
		rs.Warm(names)
		time.Sleep(time.Minute)
		most, _ := busiest(u.log(), time.Second, start, time.Now())
		if len(u.log()) != 100 || most > warmPace+1 {
			t.Errorf("%d calls, %d in a second", len(u.log()), most)
		}
		buf := make([]edek.EDEK, 100)
		if n := len(rs.Take("57", buf, false)); n != 100 {
			t.Errorf("%d EDEKs of a warm key", n)
		}
		time.Sleep(3 * time.Second)
		if hot := rs.Hot(5); !slices.Equal(hot, []string{"57"}) {
			t.Errorf("hot are %q", hot)
		}
	})
}

func TestThereIsOneProberOfAKeyWhileFetchesFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{latency: 30 * time.Millisecond, fail: errDown}
		rs := open(t, u, Config{})
		l := &load{rs: rs}
		steadily(10*time.Minute, 1000, func() { l.take("key") })
		late, _ := busiest(u.log(), 10*time.Second, time.Now().Add(-5*time.Minute), time.Now())
		if len(u.log()) > 80 || len(u.log()) < 20 || late > 1 {
			t.Errorf("%d calls in ten minutes, %d in ten seconds at the end", len(u.log()), late)
		}
		u.set(func() { u.fail = nil })
		missed := len(l.short)
		back := time.Now()
		steadily(2*time.Minute, 1000, func() { l.take("key") })
		if missed == len(l.short) {
			t.Fatal("nothing missed")
		}
		if last := l.short[len(l.short)-1].Sub(back); last > 50*time.Second {
			t.Errorf("still missing after %v", last)
		}
	})
}

func TestTheReserveIsForThePrivileged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{latency: 30 * time.Millisecond}
		fair := true
		rs := open(t, u, Config{Reserve: 0.2, Fair: func() bool { u.mu.Lock(); defer u.mu.Unlock(); return fair }})
		buf := make([]edek.EDEK, 1000)
		rs.Take("key", buf[:1], false)
		time.Sleep(time.Minute)
		depth := rs.table.find("key").depth()
		u.set(func() { u.fail = errDown; fair = false })
		time.Sleep(2 * time.Second)
		others := len(rs.Take("key", buf, false))
		privileged := len(rs.Take("key", buf, true))
		if want := int64(float64(depth) * 0.8); math.Abs(float64(int64(others)-want)) > 1 || others+privileged != int(depth) {
			t.Errorf("of %d, others got %d, the privileged %d", depth, others, privileged)
		}
	})
}

func TestUnusedRingsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{latency: 30 * time.Millisecond}
		rs := open(t, u, Config{Expiry: time.Hour})
		l := &load{rs: rs}
		l.take("idle")
		steadily(2*time.Hour, 0.01, func() { l.take("busy") })
		if rs.table.find("idle") != nil || rs.table.find("busy") == nil {
			t.Error("the wrong ring is forgotten")
		}
		checkBytes(t, rs)
		l.take("idle")
		time.Sleep(time.Second)
		if l.take("idle"); l.taken == 0 {
			t.Error("a forgotten ring does not come back")
		}
	})
}

// When another key becomes the hot one, the memory follows, and is never more
// than allowed.
func TestMemoryFollowsTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const budget = 2 << 20
		u := &upstream{latency: 30 * time.Millisecond}
		rs := open(t, u, Config{Budget: budget})
		l, most := &load{rs: rs}, int64(0)
		depth := func(name string) int64 { return rs.table.find(name).depth() }
		run := func(hot, cold string) {
			n := 0
			steadily(10*time.Minute, 500, func() {
				if n++; n%500 == 0 {
					l.take(cold)
				} else {
					l.take(hot)
				}
				most = max(most, rs.Bytes())
			})
		}
		run("a", "b")
		if a, b := depth("a"), depth("b"); a < 5*b || a < 20000 || b == 0 {
			t.Errorf("%d EDEKs of the hot key, %d of the cold", a, b)
		}
		missed := len(l.short)
		run("b", "a")
		if a, b := depth("a"), depth("b"); b < 5*a || b < 20000 || a == 0 {
			t.Errorf("%d EDEKs of the hot key, %d of the cold", b, a)
		}
		if most > budget {
			t.Errorf("%d bytes of %d", most, int64(budget))
		}
		if rs.meters.shed.Get() == 0 {
			t.Error("nothing was shed: the test looks at nothing")
		}
		if n := len(l.short) - missed; n > 100 {
			t.Errorf("%d missed while the memory was divided anew", n)
		}
		rs.Close()
		checkBytes(t, rs)
	})
}

// A key that does not exist is asked for once for each time that somebody takes.
func TestAKeyThatDoesNotExist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{latency: 30 * time.Millisecond}
		rs := open(t, u, Config{})
		buf := make([]edek.EDEK, 1)
		rs.Take("k", buf, false)
		time.Sleep(surveyEvery + 100*time.Millisecond) // not with a survey, whose fetch could be under way
		u.set(func() { u.fail, u.calls = &edek.Error{Kind: edek.NotFound, Text: "deleted"}, nil })
		rs.Drop("k")
		for range 3 {
			time.Sleep(time.Hour)
			if len(rs.Take("k", buf, false)) != 0 {
				t.Error("EDEKs of a deleted key")
			}
		}
		time.Sleep(time.Hour)
		if n := len(u.log()); n != 4 {
			t.Errorf("%d fetches in 4 hours, want one after the drop and one after each of 3 takes", n)
		}
		if rs.Bytes() != 0 {
			t.Errorf("%d bytes are taken", rs.Bytes())
		}
		u.set(func() { u.fail = nil })
		rs.Take("k", buf, false)
		time.Sleep(time.Second)
		if len(rs.Take("k", buf, false)) != 1 {
			t.Error("nothing is ready, though there is such a key now")
		}
	})
}
