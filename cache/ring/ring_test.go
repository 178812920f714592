package ring

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.uber.org/goleak"

	"github.com/edekd/edekd/edek"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// upstream makes EDEKs that are told apart by a serial number in the IV. It
// takes its time and fails on command.
type upstream struct {
	latency time.Duration

	mu      sync.Mutex
	serial  uint64
	version int
	fail    error
	calls   []time.Time
	failed  []time.Time   // those calls that will fail
	held    chan struct{} // when set: made, waits here before it is given
	asked   map[string]int
}

func (u *upstream) fetch(ctx context.Context, name string, n int) ([]edek.EDEK, error) {
	u.mu.Lock()
	u.calls = append(u.calls, time.Now())
	fail, held := u.fail, u.held
	if fail != nil {
		u.failed = append(u.failed, time.Now())
	}
	if u.asked == nil {
		u.asked = map[string]int{}
	}
	u.asked[name] += n
	made := make([]edek.EDEK, n)
	for i := range made {
		made[i] = u.one()
	}
	u.mu.Unlock()
	if held != nil {
		<-held
	}
	if u.latency > 0 {
		select {
		case <-time.After(u.latency):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if fail != nil {
		return nil, fail
	}
	return made, nil
}

func (u *upstream) one() edek.EDEK {
	var iv [edek.IVSize]byte
	u.serial++
	binary.BigEndian.PutUint64(iv[:], u.serial)
	e, err := edek.NewEDEK(u.version, iv[:], iv[:])
	if err != nil {
		panic(err)
	}
	return e
}

// log returns when it was called.
func (u *upstream) log() []time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.calls)
}

func (u *upstream) set(f func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f()
}

// now returns the number that the next EDEK will have.
func (u *upstream) now() uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.serial + 1
}

func serial(e edek.EDEK) uint64 { return binary.BigEndian.Uint64(e.IV[:]) }

func open(t testing.TB, u *upstream, c Config) *Rings {
	c.Fetch, c.Metrics = u.fetch, metrics.NewSet()
	rs := New(c)
	t.Cleanup(rs.Close)
	return rs
}

// checkBytes compares the memory that is accounted for with what the rings,
// at rest, hold.
func checkBytes(t *testing.T, rs *Rings) {
	t.Helper()
	var sum int64
	rs.Each(func(s Stat) { sum += s.Bytes })
	if got := rs.Bytes(); got != sum {
		t.Errorf("%d bytes accounted for, %d in rings", got, sum)
	}
}

// eventually polls for what has to come.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

var errDown = errors.New("connection refused")

// 64 takers, a dropper and givers share few keys; the race detector looks on.
func TestEachEDEKIsHandedOutOnce(t *testing.T) {
	u := &upstream{}
	rs := open(t, u, Config{Size: 200, Budget: 4 << 20})
	names := []string{"a", "b", "c"}
	const takers, each = 64, 400
	taken := make([]map[uint64]int, takers)
	var wg sync.WaitGroup
	for i := range takers {
		taken[i] = map[uint64]int{}
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			buf := make([]edek.EDEK, 120)
			for range each {
				name := names[rng.IntN(len(names))]
				switch rng.IntN(40) {
				case 0:
					rs.Drop(name)
				case 1:
					u.mu.Lock()
					mark := rs.order.Load()
					given := []edek.EDEK{u.one(), u.one(), u.one()}
					u.mu.Unlock()
					give(rs, name, mark, given)
				}
				for _, e := range rs.Take(name, buf[:1+rng.IntN(len(buf))], i%2 == 0) {
					taken[i][serial(e)]++
				}
				if rng.IntN(4) == 0 {
					time.Sleep(time.Duration(rng.IntN(300)) * time.Microsecond)
				}
			}
		})
	}
	wg.Wait()
	all := map[uint64]int{}
	for _, m := range taken {
		for s, n := range m {
			all[s] += n
		}
	}
	for s, n := range all {
		if n != 1 || s == 0 {
			t.Fatalf("EDEK %d was handed out %d times", s, n)
		}
	}
	if len(all) < 1000 {
		t.Fatalf("only %d EDEKs were taken: the test looks at nothing", len(all))
	}
	rs.Close()
	checkBytes(t, rs)
}

// Whoever asks after a drop gets nothing from before it, whatever was in the
// ring or under way.
func TestNothingFromBeforeADrop(t *testing.T) {
	u := &upstream{}
	rs := open(t, u, Config{Size: 150})
	var wg sync.WaitGroup
	names := []string{"a", "b"}
	for i := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 2))
			buf := make([]edek.EDEK, 60)
			for range 300 {
				name := names[rng.IntN(2)]
				if rng.IntN(3) > 0 {
					rs.Take(name, buf[:1+rng.IntN(len(buf))], true)
					continue
				}
				first := u.now()
				rs.Drop(name)
				for _, e := range rs.Take(name, buf, true) {
					if serial(e) < first {
						t.Errorf("EDEK %d taken after a drop at %d", serial(e), first)
					}
				}
				if rng.IntN(8) == 0 {
					time.Sleep(200 * time.Microsecond)
				}
			}
		})
	}
	wg.Wait()
	rs.Close()
	checkBytes(t, rs)
}

func TestAFetchUnderWayIsDropped(t *testing.T) {
	u := &upstream{held: make(chan struct{})}
	rs := open(t, u, Config{})
	buf := make([]edek.EDEK, 1)
	rs.Take("k", buf, true)
	eventually(t, "a fetch", func() bool { return u.now() > 1 })
	mark := rs.order.Load()
	first := u.now()
	rs.Drop("k")
	if n := give(rs, "k", mark, buf); n != 0 {
		t.Errorf("%d EDEKs from before a drop were accepted", n)
	}
	u.set(func() { close(u.held); u.held = nil })
	eventually(t, "a fetch after the drop", func() bool { return len(rs.Take("k", buf, true)) == 1 })
	if serial(buf[0]) < first {
		t.Errorf("EDEK %d of a fetch from before the drop at %d", serial(buf[0]), first)
	}
}

// A ring that was forgotten and made again does not take what was fetched for
// the one before, though nobody remembers when that was dropped.
func TestARingMadeAgainTakesNothingOfBefore(t *testing.T) {
	u := &upstream{fail: errDown}
	rs := open(t, u, Config{})
	buf := make([]edek.EDEK, 1)
	rs.Take("k", buf, true)
	mark := rs.order.Load()
	rs.forget(rs.table.find("k"))
	rs.Drop("k")
	rs.Take("k", buf, true)
	if n := give(rs, "k", mark, []edek.EDEK{u.one()}); n != 0 {
		t.Errorf("%d EDEKs accepted", n)
	}
	if n := give(rs, "k", rs.order.Load(), []edek.EDEK{u.one()}); n != 1 {
		t.Errorf("%d EDEKs accepted, want 1", n)
	}
}

func TestOlderVersionsAreRefused(t *testing.T) {
	u := &upstream{version: 3}
	rs := open(t, u, Config{})
	buf := make([]edek.EDEK, 1)
	eventually(t, "an EDEK", func() bool { return len(rs.Take("k", buf, true)) == 1 })
	four := func() edek.EDEK {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.version = 4
		defer func() { u.version = 3 }()
		return u.one()
	}
	if n := give(rs, "k", rs.order.Load(), []edek.EDEK{four(), four()}); n != 2 {
		t.Fatalf("%d given", n)
	}
	rs.DropBelow("k", 4)
	for range 2 { // what is newer has stayed
		if got := rs.Take("k", buf, true); len(got) != 1 || got[0].Version() != 4 {
			t.Fatalf("got %d EDEKs, version %d", len(got), buf[0].Version())
		}
	}
	if got := rs.Take("k", buf, true); len(got) != 0 {
		t.Fatalf("got an EDEK of version %d", got[0].Version())
	}
	rs.DropBelow("k", 2) // means nothing
	before := len(u.log())
	eventually(t, "a refill of version 3", func() bool { rs.Take("k", buf, true); return len(u.log()) > before })
	if got := rs.Take("k", buf, true); len(got) != 0 {
		t.Fatalf("got an EDEK of version %d", got[0].Version())
	}
	u.set(func() { u.version = 4 })
	eventually(t, "version 4", func() bool { return len(rs.Take("k", buf, true)) == 1 })
	if buf[0].Version() != 4 {
		t.Fatalf("version %d", buf[0].Version())
	}
	u.set(func() { u.version = 0 }) // deleted and made anew
	rs.Drop("k")
	eventually(t, "version 0", func() bool { return len(rs.Take("k", buf, true)) == 1 && buf[0].Version() == 0 })
}

// Rings are made and forgotten, and an upstream that lags behind gives EDEKs of
// versions that are too old: nobody who asks after a roll was acknowledged gets one.
func TestNothingOlderThanARoll(t *testing.T) {
	names := []string{"a", "b", "c"}
	var floors [3]struct {
		sync.Mutex
		version int
		acked   atomic.Int64
	}
	var rs *Rings
	var behind, taken atomic.Int64
	fetch := func(_ context.Context, name string, n int) ([]edek.EDEK, error) {
		floor := &floors[slices.Index(names, name)]
		floor.Lock()
		was := floor.version
		floor.Unlock()
		made := make([]edek.EDEK, n)
		for i := range made {
			version := was
			if version > 0 && behind.Add(1)%3 == 0 {
				version--
			}
			made[i], _ = edek.NewEDEK(version, make([]byte, edek.IVSize), make([]byte, 16))
		}
		floor.Lock()
		defer floor.Unlock()
		rs.DropBelow(name, floor.version)
		return made, nil
	}
	rs = New(Config{Fetch: fetch, Size: 80, Cover: -1, Metrics: metrics.NewSet()})
	defer rs.Close()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 3))
			buf := make([]edek.EDEK, 40)
			for range 400 {
				key := rng.IntN(3)
				floor := &floors[key]
				switch rng.IntN(30) {
				case 0:
					floor.Lock()
					floor.version++
					rs.DropBelow(names[key], floor.version)
					floor.acked.Store(int64(floor.version))
					floor.Unlock()
				case 1:
					if r := rs.table.find(names[key]); r != nil {
						rs.forget(r)
					}
				}
				least := floor.acked.Load()
				for _, e := range rs.Take(names[key], buf[:1+rng.IntN(len(buf))], true) {
					taken.Add(1)
					if int64(e.Version()) < least {
						t.Errorf("an EDEK of version %d after a roll to %d", e.Version(), least)
					}
				}
				time.Sleep(time.Duration(rng.IntN(500)) * time.Microsecond)
			}
		})
	}
	wg.Wait()
	if taken.Load() < 1000 {
		t.Errorf("only %d EDEKs were taken: the test looks at nothing", taken.Load())
	}
}

// That something is known of a key takes no other's place.
func TestOnlyTakesMakeRings(t *testing.T) {
	rs := open(t, &upstream{}, Config{Budget: 100 * (ringBytes + slabBytes)})
	for i := range 200 {
		rs.DropBelow(fmt.Sprint("known", i), 1)
	}
	if n := rs.table.count.Load(); n != 0 {
		t.Errorf("%d rings", n)
	}
	buf := make([]edek.EDEK, 1)
	eventually(t, "an EDEK", func() bool { return len(rs.Take("used", buf, true)) == 1 })
}

// What a take of more than there is leaves open, its caller fetches, and gives
// back what is too much.
func TestATakeOfMoreThanThereIs(t *testing.T) {
	u := &upstream{}
	rs := open(t, u, Config{Size: 50})
	buf := make([]edek.EDEK, 400)
	eventually(t, "EDEKs", func() bool { return len(rs.Take("k", buf[:1], true)) == 1 })
	got := rs.Take("k", buf, true)
	if len(got) == 0 || len(got) == len(buf) {
		t.Fatalf("%d EDEKs of a ring of 50", len(got))
	}
	// It counts as drain: next time all 400 are there.
	eventually(t, "400 EDEKs", func() bool { return len(rs.Take("k", buf, true)) == 400 })
}

func TestNamesMayAliasBuffers(t *testing.T) {
	u := &upstream{}
	rs := open(t, u, Config{})
	rs.Take(alias([]byte("key1")), make([]edek.EDEK, 1), true)
	b := []byte("key2")
	rs.Take(alias(b), make([]edek.EDEK, 1), true)
	copy(b, "XXXX")
	var names []string
	rs.Each(func(s Stat) { names = append(names, s.Name) })
	slices.Sort(names)
	if !slices.Equal(names, []string{"key1", "key2"}) {
		t.Errorf("rings of %q", names)
	}
	eventually(t, "fetches", func() bool {
		u.mu.Lock()
		defer u.mu.Unlock()
		return slices.Equal(slices.Sorted(maps.Keys(u.asked)), []string{"key1", "key2"})
	})
}

// give puts EDEKs into a ring as a fetch does that began when the order was mark,
// and returns how many were kept.
func give(rs *Rings, name string, mark uint64, edeks []edek.EDEK) int64 {
	r := rs.table.find(name)
	if r == nil {
		return 0
	}
	bytes := int64(slabsFor(len(edeks))) * slabBytes
	if !rs.reserve(bytes) {
		return 0
	}
	kept, slabs := r.splice(mark, edeks)
	rs.bytes.Add(slabs*slabBytes - bytes)
	return kept
}
