package groups

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeDirectory is a Mapping that a test breaks, slows down and changes.
type fakeDirectory struct {
	mu      sync.Mutex
	groups  map[string][]string
	err     error
	takes   time.Duration
	asked   int
	running int
	most    int // that ran at the same time
}

func (d *fakeDirectory) Of(user string) ([]string, error) {
	d.mu.Lock()
	d.asked++
	d.running++
	d.most = max(d.most, d.running)
	groups, err, takes := d.groups[user], d.err, d.takes
	d.mu.Unlock()
	time.Sleep(takes)
	d.mu.Lock()
	d.running--
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return groups, nil
}

func (d *fakeDirectory) set(change func(*fakeDirectory)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

func (d *fakeDirectory) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked
}

// Times of the Caches under test; the real ones, so that the promises in
// seconds are what is tested.
const (
	testTTL      = 300 * time.Second
	testNegative = 30 * time.Second
)

// virtually runs a test in virtual time, with a directory in which alice has
// the group a.
func virtually(t *testing.T, test func(t *testing.T, d *fakeDirectory, c *Cache)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDirectory{groups: map[string][]string{"alice": {"a"}}}
		test(t, d, newCache(d, testTTL, testNegative, defaultTimeout))
		time.Sleep(24 * time.Hour) // whatever hangs ends
	})
}

// expect asks for a user's groups and waits until background look-ups are done
// or sleep. want is the groups, or "error".
func expect(t *testing.T, c *Cache, user, want string) {
	t.Helper()
	groups, err := c.Of(user)
	got := strings.Join(groups, ",")
	if err != nil {
		got = "error"
		if groups != nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", user)) {
			t.Errorf("groups %q with an error that should name the user: %v", groups, err)
		}
	}
	if got != want {
		t.Errorf("groups of %s: %q (%v), want %q", user, got, err, want)
	}
	synctest.Wait()
}

var errDown = errors.New("directory down")

func TestCacheRemembers(t *testing.T) {
	virtually(t, func(t *testing.T, d *fakeDirectory, c *Cache) {
		for range 10 {
			expect(t, c, "alice", "a")
			expect(t, c, "nobody", "")
		}
		if n := d.count(); n != 2 {
			t.Errorf("%d look-ups of two users", n)
		}
		time.Sleep(testNegative)
		expect(t, c, "alice", "a")
		expect(t, c, "nobody", "")
		if n := d.count(); n != 3 {
			t.Errorf("%d look-ups, want one more, of the user without groups", n)
		}
	})
}

func TestCacheRenewsInBackground(t *testing.T) {
	virtually(t, func(t *testing.T, d *fakeDirectory, c *Cache) {
		expect(t, c, "alice", "a")
		d.set(func(d *fakeDirectory) { d.takes = 5 * time.Second })
		for range 1000 {
			before := time.Now()
			expect(t, c, "alice", "a")
			if waited := time.Since(before); waited > 0 {
				t.Fatalf("a user in constant use waited %v", waited)
			}
			time.Sleep(time.Second)
		}
		if n := d.count(); n < 4 || n > 5 {
			t.Errorf("%d look-ups in 1000 s, want one every 225 s", n)
		}
	})
}

func TestRevocationWithinTTL(t *testing.T) {
	for _, rest := range []time.Duration{time.Second, 70 * time.Second, 299 * time.Second, testTTL, time.Hour} {
		virtually(t, func(t *testing.T, d *fakeDirectory, c *Cache) {
			expect(t, c, "alice", "a")
			d.set(func(d *fakeDirectory) { d.groups = nil })
			for began := time.Now(); ; time.Sleep(rest) {
				groups, err := c.Of("alice")
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				age := time.Since(began)
				if len(groups) > 0 && age >= testTTL {
					t.Fatalf("asked every %v: the lost group is believed after %v", rest, age)
				}
				if age > 2*testTTL {
					break
				}
			}
		})
	}
}

func TestRevocationThroughMemo(t *testing.T) {
	virtually(t, func(t *testing.T, d *fakeDirectory, c *Cache) {
		memo, err := c.Lookup("alice")
		if err != nil {
			t.Fatal(err)
		}
		generation, began, asked := c.Generation(), time.Now(), 0
		d.set(func(d *fakeDirectory) { d.groups["alice"] = []string{"b"} })
		for time.Since(began) < testTTL {
			if !time.Now().Before(memo.Until) || c.Generation() != generation {
				asked++
				generation = c.Generation()
				if memo, err = c.Lookup("alice"); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second)
		}
		if !slices.Equal(memo.Groups, []string{"b"}) {
			t.Errorf("a memo that keeps to Until and Generation still has %q", memo.Groups)
		}
		if asked > 3 {
			t.Errorf("the memo had to ask %d times within one life", asked)
		}
	})
}

func TestCacheServesStaleWhileFailing(t *testing.T) {
	virtually(t, func(t *testing.T, d *fakeDirectory, c *Cache) {
		began := time.Now()
		expect(t, c, "alice", "a")
		expect(t, c, "nobody", "")
		d.set(func(d *fakeDirectory) { d.err = errDown })
		time.Sleep(testNegative)
		expect(t, c, "nobody", "error")
		expect(t, c, "carol", "error")
		for time.Since(began) < staleFactor*testTTL-time.Second {
			expect(t, c, "alice", "a")
			time.Sleep(100 * time.Millisecond)
		}
		if n := d.count(); n > 3000 {
			t.Errorf("%d look-ups in 3000 s, more than one a second", n)
		}
		time.Sleep(time.Second)
		expect(t, c, "alice", "error")
		d.set(func(d *fakeDirectory) { d.err = nil })
		expect(t, c, "alice", "error")
		time.Sleep(pause)
		expect(t, c, "alice", "a")
		expect(t, c, "nobody", "")
	})
}

func TestCacheServesStaleToIdleUser(t *testing.T) {
	virtually(t, func(t *testing.T, d *fakeDirectory, c *Cache) {
		expect(t, c, "alice", "a")
		d.set(func(d *fakeDirectory) { d.err = errDown })
		time.Sleep(staleFactor*testTTL - time.Minute)
		expect(t, c, "alice", "a")
		m, err := c.Lookup("alice")
		if err != nil || m.Until.After(time.Now().Add(pause)) {
			t.Errorf("stale groups may be remembered until %v at %v, error %v", m.Until, time.Now(), err)
		}
		time.Sleep(time.Minute)
		expect(t, c, "alice", "error")
	})
}

func TestCacheStaysTrueAfterOutage(t *testing.T) {
	virtually(t, func(t *testing.T, d *fakeDirectory, c *Cache) {
		expect(t, c, "alice", "a")
		d.set(func(d *fakeDirectory) { d.takes, d.err = defaultTimeout, errDown })
		time.Sleep(2 * testTTL)
		go func() { _, _ = c.Of("alice") }()
		synctest.Wait()
		d.set(func(d *fakeDirectory) { d.takes, d.err, d.groups = 0, nil, nil })
		time.Sleep(2*defaultTimeout + pause)
		expect(t, c, "alice", "")
	})
}

func TestHangingLookup(t *testing.T) {
	virtually(t, func(t *testing.T, d *fakeDirectory, c *Cache) {
		var failures []error
		c.OnFailure = func(err error) { failures = append(failures, err) }
		expect(t, c, "alice", "a")
		d.set(func(d *fakeDirectory) { d.takes = time.Hour })
		time.Sleep(testTTL)
		began := time.Now()
		expect(t, c, "alice", "a")
		if waited := time.Since(began); waited != defaultTimeout {
			t.Errorf("waited %v, want %v", waited, defaultTimeout)
		}
		began = time.Now()
		for range 100 {
			expect(t, c, "alice", "a")
			time.Sleep(time.Second)
		}
		if waited := time.Since(began) - 100*time.Second; waited != 0 {
			t.Errorf("waited %v more for a look-up that is known to hang", waited)
		}
		expect(t, c, "carol", "error")
		if n := d.count(); n != 3 {
			t.Errorf("%d look-ups: one was started beside one that hangs", n)
		}
		if len(failures) != 2 || !errors.Is(failures[0], errTimeout) {
			t.Errorf("failures told: %q", failures)
		}
		time.Sleep(2 * time.Hour)
		d.set(func(d *fakeDirectory) { d.takes = 0 })
		expect(t, c, "alice", "a")
	})
}

func TestLateAnswerCounts(t *testing.T) {
	virtually(t, func(t *testing.T, d *fakeDirectory, c *Cache) {
		d.set(func(d *fakeDirectory) { d.takes = 2 * defaultTimeout })
		expect(t, c, "alice", "error")
		time.Sleep(defaultTimeout + time.Millisecond)
		expect(t, c, "alice", "a")
		if n := d.count(); n != 1 {
			t.Errorf("%d look-ups", n)
		}
	})
}

// TestAgeCountsFromTheBeginning: what a slow look-up tells may have been read
// when it began.
func TestAgeCountsFromTheBeginning(t *testing.T) {
	virtually(t, func(t *testing.T, d *fakeDirectory, c *Cache) {
		d.set(func(d *fakeDirectory) { d.takes = 5 * time.Second })
		expect(t, c, "alice", "a")
		d.set(func(d *fakeDirectory) { d.groups["alice"] = []string{"b"} })
		time.Sleep(testTTL - 5*time.Second)
		expect(t, c, "alice", "b")
	})
}

func TestOneLookupPerUser(t *testing.T) {
	virtually(t, func(t *testing.T, d *fakeDirectory, c *Cache) {
		d.set(func(d *fakeDirectory) { d.takes = time.Second })
		var callers sync.WaitGroup
		for range 100 {
			callers.Go(func() { expectNow(t, c, "alice", "a") })
		}
		callers.Wait()
		if n := d.count(); n != 1 {
			t.Errorf("%d look-ups for callers at the same time", n)
		}
	})
}

// expectNow is expect for goroutines, of which only one may wait for the rest.
func expectNow(t *testing.T, c *Cache, user, want string) {
	if groups, err := c.Of(user); err != nil || strings.Join(groups, ",") != want {
		t.Errorf("groups of %s: %q, error %v, want %q", user, groups, err, want)
	}
}

func TestLookupsAreBounded(t *testing.T) {
	virtually(t, func(t *testing.T, d *fakeDirectory, c *Cache) {
		d.set(func(d *fakeDirectory) { d.takes = time.Hour })
		var mu sync.Mutex
		busy, slow := 0, 0
		var callers sync.WaitGroup
		for n := range maxFlights + 50 {
			callers.Go(func() {
				_, err := c.Of(fmt.Sprint("user", n))
				mu.Lock()
				defer mu.Unlock()
				if errors.Is(err, errBusy) {
					busy++
				}
				if errors.Is(err, errTimeout) {
					slow++
				}
			})
		}
		callers.Wait()
		if busy != 50 || slow != maxFlights {
			t.Errorf("%d refused and %d timed out, want 50 and %d", busy, slow, maxFlights)
		}
		synctest.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		if d.most != maxRunning || len(c.flights) != maxRunning {
			t.Errorf("%d ran at once, %d are left, want %d", d.most, len(c.flights), maxRunning)
		}
	})
}

func TestEntriesAreBounded(t *testing.T) {
	virtually(t, func(t *testing.T, d *fakeDirectory, c *Cache) {
		expect(t, c, "alice", "a")
		expect(t, c, "first", "")
		for n := range maxEntries {
			if n%1000 == 0 {
				expect(t, c, "alice", "a")
			}
			if _, err := c.Of(fmt.Sprint("user", n)); err != nil {
				t.Fatal(err)
			}
		}
		if len(c.entries) != maxEntries || c.order.Len() != maxEntries {
			t.Errorf("%d entries in a list of %d", len(c.entries), c.order.Len())
		}
		asked := d.count()
		expect(t, c, "alice", "a")
		if d.count() != asked {
			t.Error("a user in use gave way to others")
		}
		expect(t, c, "first", "")
		if d.count() != asked+1 {
			t.Error("the user asked for longest ago did not give way")
		}
		expect(t, c, strings.Repeat("x", maxName+1), "")
		if d.count() != asked+1 {
			t.Error("a name without bound was looked up")
		}
	})
}

func TestRefresh(t *testing.T) {
	virtually(t, func(t *testing.T, d *fakeDirectory, c *Cache) {
		expect(t, c, "alice", "a")
		before := c.Generation()
		d.set(func(d *fakeDirectory) { d.groups["alice"] = []string{"b"} })
		expect(t, c, "alice", "a")
		c.Refresh()
		if c.Generation() == before {
			t.Error("the generation outlives Refresh")
		}
		expect(t, c, "alice", "b")

		d.set(func(d *fakeDirectory) { d.err = errDown })
		c.Refresh()
		expect(t, c, "alice", "b")
		d.set(func(d *fakeDirectory) { d.err = nil; d.groups = nil })
		c.Refresh()
		expect(t, c, "alice", "")
	})
}

// A new password must not end what is known when it turns out to be wrong, and
// must not prolong it either.
func TestAdopt(t *testing.T) {
	virtually(t, func(t *testing.T, d *fakeDirectory, old *Cache) {
		expect(t, old, "alice", "a")
		expect(t, old, "nobody", "")
		d.set(func(d *fakeDirectory) { d.err = errDown })
		expect(t, old, "bob", "error")
		time.Sleep(testTTL / 2)
		c := newCache(d, testTTL, testNegative, defaultTimeout)
		c.Adopt(old)
		if c.Generation() == old.Generation() {
			t.Error("what was concluded from the old one still counts")
		}
		expect(t, c, "alice", "a")
		expect(t, c, "bob", "error")
		expect(t, c, "nobody", "error")
		d.set(func(d *fakeDirectory) { d.err, d.groups["alice"] = nil, []string{"b"} })
		time.Sleep(pause)
		expect(t, c, "alice", "a") // while she is looked up
		expect(t, c, "alice", "b")

		d.set(func(d *fakeDirectory) { d.err = errDown })
		last := newCache(d, testTTL, testNegative, defaultTimeout)
		last.Adopt(c)
		time.Sleep(staleFactor * testTTL)
		expect(t, last, "alice", "error")
	})
}

// The look-up that Adopt asks for is waited for: who has lost a group does not
// have it once more.
func TestAdoptedGroupsAreLookedUpAtOnce(t *testing.T) {
	virtually(t, func(t *testing.T, d *fakeDirectory, old *Cache) {
		expect(t, old, "alice", "a")
		d.set(func(d *fakeDirectory) { d.groups["alice"] = []string{"b"} })
		c := newCache(d, testTTL, testNegative, defaultTimeout)
		c.Adopt(old)
		expect(t, c, "alice", "b")
	})
}

func TestRefreshDuringLookup(t *testing.T) {
	virtually(t, func(t *testing.T, d *fakeDirectory, c *Cache) {
		d.set(func(d *fakeDirectory) { d.takes = time.Second })
		var early sync.WaitGroup
		early.Go(func() { expectNow(t, c, "alice", "a") })
		synctest.Wait()
		d.set(func(d *fakeDirectory) { d.groups = nil; d.takes = 0 })
		c.Refresh()
		expect(t, c, "alice", "")
		early.Wait()
		synctest.Wait()
		expect(t, c, "alice", "")
	})
}

func TestGeneration(t *testing.T) {
	virtually(t, func(t *testing.T, d *fakeDirectory, c *Cache) {
		if other := newCache(d, testTTL, testNegative, defaultTimeout); other.Generation() == c.Generation() {
			t.Error("two Caches share a generation")
		}
		f := func(changes bool, groups ...string) {
			t.Helper()
			before := c.Generation()
			d.set(func(d *fakeDirectory) { d.groups["alice"] = groups })
			time.Sleep(testTTL)
			expect(t, c, "alice", strings.Join(groups, ","))
			if changed := c.Generation() != before; changed != changes {
				t.Errorf("groups %q: generation changed: %v", groups, changed)
			}
		}
		f(false, "a")
		f(false, "a")
		f(true, "a", "b")
		f(false, "a", "b")
		f(true)
		f(false)
		f(true, "a")
	})
}

func TestNegativeCacheOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDirectory{}
		c := newCache(d, testTTL, -1, defaultTimeout)
		for range 3 {
			m, err := c.Lookup("nobody")
			if err != nil || m.Until.After(time.Now()) {
				t.Errorf("to be remembered until %v at %v, error %v", m.Until, time.Now(), err)
			}
		}
		if n := d.count(); n != 3 {
			t.Errorf("%d look-ups, want 3", n)
		}
	})
}

func TestKnownUserAllocatesNothing(t *testing.T) {
	c := newCache(fixed{groups: []string{"a"}}, time.Hour, time.Hour, time.Hour)
	if _, err := c.Lookup("alice"); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = c.Lookup("alice") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
