package dek

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/VictoriaMetrics/metrics"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/internal/race"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newEDEK(version, n int) *edek.EDEK {
	var iv [edek.IVSize]byte
	binary.BigEndian.PutUint64(iv[:], uint64(n))
	e, err := edek.NewEDEK(version, iv[:], bytes.Repeat([]byte{byte(n)}, 16+16*(n%2)))
	if err != nil {
		panic(err)
	}
	return &e
}

// dekOf is what a server would open an EDEK to.
func dekOf(name string, e *edek.EDEK, generation int) []byte {
	dek := make([]byte, len(e.Wrapped()))
	for i := range dek {
		dek[i] = name[0] ^ e.IV[7] ^ byte(e.Version()*16+generation*64) | 1
	}
	return dek
}

func open(t testing.TB, bytes int64, age time.Duration) *Cache {
	k := New(Config{Bytes: bytes, MaxAge: age, Metrics: metrics.NewSet()})
	t.Cleanup(k.Close)
	return k
}

// entries returns what the cache holds.
func (k *Cache) all() (all []*entry) {
	for i := range k.shards {
		k.shards[i].Lock()
		for _, e := range k.shards[i].entries {
			all = append(all, e)
		}
		k.shards[i].Unlock()
	}
	return all
}

func isZero(e *entry) bool { return e.dek == [edek.MaxDEKSize]byte{} }

func TestAHit(t *testing.T) {
	k := open(t, 1<<20, time.Hour)
	e := newEDEK(1, 7)
	want := dekOf("key", e, 0)
	name := []byte("key")
	alias := unsafe.String(&name[0], len(name))
	k.Put(alias, e, want, k.Mark("key"))
	copy(name, "XXX")
	got, ok := k.AppendDEK([]byte("before"), "key", e)
	if !ok || !bytes.Equal(got, append([]byte("before"), want...)) {
		t.Errorf("got %x, %v", got, ok)
	}
	miss := func(what, name string, e *edek.EDEK) {
		t.Helper()
		if got, ok := k.AppendDEK([]byte("x"), name, e); ok || string(got) != "x" {
			t.Errorf("%s is a hit", what)
		}
	}
	miss("another key", "kez", e)
	miss("another version", "key", newEDEK(2, 7))
	other := *e
	other.IV[15]++
	miss("another IV", "key", &other)
	other = *e
	other.Wrapped()[3]++
	miss("another wrapped key", "key", &other)
	k.Put("key", newEDEK(1, 8), make([]byte, edek.MaxDEKSize+1), k.Mark("key"))
	miss("a DEK that is too long", "key", newEDEK(1, 8))
}

// Two EDEKs with one hash are still two.
func TestAHitComparesInFull(t *testing.T) {
	k := open(t, 1<<20, time.Hour)
	one, two := newEDEK(1, 1), newEDEK(1, 3)
	k.Put("key", one, dekOf("key", one, 0), k.Mark("key"))
	s := &k.shards[k.hash("key", two)%shards]
	s.Lock()
	for i := range k.shards { // put the entry where the other is looked for
		from := &k.shards[i]
		if from != s {
			from.Lock()
		}
		if e := from.entries[k.hash("key", one)]; e != nil {
			s.entries[k.hash("key", two)] = e
		}
		if from != s {
			from.Unlock()
		}
	}
	s.Unlock()
	if _, ok := k.AppendDEK(nil, "key", two); ok {
		t.Error("an EDEK got the DEK of another")
	}
	s.Lock()
	delete(s.entries, k.hash("key", two))
	s.Unlock()
}

func TestNothingIsOlderThanItsAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const age = time.Minute
		k := open(t, 1<<20, age)
		used, idle := newEDEK(1, 1), newEDEK(1, 2)
		mark := k.Mark("key")
		time.Sleep(age / 2) // the server took its time: the age counts from the request
		k.Put("key", used, dekOf("key", used, 0), mark)
		k.Put("key", idle, dekOf("key", idle, 0), mark)
		held := k.all()
		if len(held) != 2 {
			t.Fatalf("%d entries", len(held))
		}
		for range 29 {
			time.Sleep(time.Second)
			if _, ok := k.AppendDEK(nil, "key", used); !ok {
				t.Fatal("forgotten too early")
			}
		}
		time.Sleep(time.Second)
		if _, ok := k.AppendDEK(nil, "key", used); ok {
			t.Error("use has made a DEK live longer")
		}
		time.Sleep(age / 8)
		if n := len(k.all()); n != 0 {
			t.Errorf("%d entries are left", n)
		}
		for _, e := range held {
			if !isZero(e) {
				t.Error("an old DEK is not zeroed")
			}
		}
	})
}

func TestWhatIsDroppedIsZero(t *testing.T) {
	k := open(t, 1<<20, time.Hour)
	mark := k.Mark("key")
	for n := range 100 {
		for _, name := range []string{"key", "other"} {
			e := newEDEK(1, n)
			k.Put(name, e, dekOf(name, e, 0), k.Mark(name))
		}
	}
	before := k.all()
	k.Drop("key")
	zero := 0
	for _, e := range before {
		if isZero(e) != (e.name == "key") {
			t.Fatalf("an entry of %s is zero: %v", e.name, isZero(e))
		}
		if isZero(e) {
			zero++
		}
	}
	if zero != 100 {
		t.Errorf("%d of 100 zeroed", zero)
	}
	e := newEDEK(1, 1)
	k.Put("key", e, dekOf("key", e, 0), mark)
	if _, ok := k.AppendDEK(nil, "key", e); ok {
		t.Error("an answer from before the drop is remembered")
	}
	k.Close()
	for _, e := range before {
		if !isZero(e) {
			t.Fatal("a DEK is left after Close")
		}
	}
	k.Put("key", e, dekOf("key", e, 0), k.Mark("key"))
	if k.Bytes() != 0 {
		t.Error("a closed cache remembers")
	}
}

// DEKs that come by once do not push out those that come again.
func TestAScanLeavesWhatIsUsed(t *testing.T) {
	k := open(t, shards*40*(entryBytes+3), time.Hour)
	hot := make([]*edek.EDEK, 600)
	for n := range hot {
		hot[n] = newEDEK(1, n)
		k.Put("key", hot[n], dekOf("key", hot[n], 0), k.Mark("key"))
		k.AppendDEK(nil, "key", hot[n])
	}
	for n := range 20000 {
		e := newEDEK(2, n)
		k.Put("key", e, dekOf("key", e, 0), k.Mark("key"))
	}
	hits := 0
	for _, e := range hot {
		if _, ok := k.AppendDEK(nil, "key", e); ok {
			hits++
		}
	}
	if hits < len(hot)*9/10 {
		t.Errorf("after a scan %d of %d are left", hits, len(hot))
	}
}

// Against a model: a hit is the DEK that was put after the last drop.
func TestHitsAreWhatWasPut(t *testing.T) {
	const room = shards * 3 * (entryBytes + 4)
	type step struct{ what, name, edek, generation int }
	steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
		return step{rapid.IntRange(0, 9).Draw(rt, "step"), rapid.IntRange(0, 2).Draw(rt, "name"),
			rapid.IntRange(0, 199).Draw(rt, "edek"), rapid.IntRange(0, 1).Draw(rt, "generation")}
	}), 50, 600)
	hits := 0
	rapid.Check(t, func(rt *rapid.T) {
		k := New(Config{Bytes: room, MaxAge: time.Hour, Metrics: metrics.NewSet()})
		defer k.Close()
		type id struct{ name, edek int }
		put, marks := map[id]int{}, [3]Mark{}
		names := []string{"a", "bb", "cccc"}
		for i := range marks {
			marks[i] = k.Mark(names[i])
		}
		drops := [3]int{}
		marked := [3]int{}
		for _, s := range steps.Draw(rt, "script") {
			name, e := names[s.name], newEDEK(s.edek%3, s.edek)
			switch s.what {
			case 0:
				if s.edek < 20 {
					k.Drop(name)
					drops[s.name]++
					for n := range put {
						if n.name == s.name {
							delete(put, n)
						}
					}
				}
			case 1:
				marks[s.name], marked[s.name] = k.Mark(name), drops[s.name]
			case 2, 3, 4, 5:
				k.Put(name, e, dekOf(name, e, s.generation), marks[s.name])
				if marked[s.name] == drops[s.name] {
					put[id{s.name, s.edek}] |= 1 << s.generation
				}
			default:
				got, ok := k.AppendDEK(nil, name, e)
				if !ok {
					continue
				}
				hits++
				generations, right := put[id{s.name, s.edek}], false
				for g := range 2 {
					right = right || generations>>g&1 == 1 && bytes.Equal(got, dekOf(name, e, g))
				}
				if !right {
					rt.Fatalf("%s, EDEK %d: %x", name, s.edek, got)
				}
			}
			if n := k.Bytes(); n > room {
				rt.Fatalf("%d bytes of %d", n, int64(room))
			}
		}
		var sum int64
		for _, e := range k.all() {
			sum += e.cost()
		}
		if sum != k.Bytes() {
			rt.Fatalf("%d bytes accounted for, %d held", k.Bytes(), sum)
		}
	})
	if hits == 0 {
		t.Error("no hits: the test looks at nothing")
	}
}

// Readers, writers, drops and evictions at once: no reader sees a DEK being
// zeroed, half a DEK, or another's.
func TestReadersNeverSeeZeros(t *testing.T) {
	k := open(t, shards*4*(entryBytes+4), time.Hour)
	names := []string{"a", "bb"}
	var hits, wiped atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 5))
			var buf [edek.MaxDEKSize]byte
			for range 5000 {
				name, e := names[rng.IntN(2)], newEDEK(1, rng.IntN(400))
				switch rng.IntN(200) {
				case 0:
					before := k.all()
					k.Drop(name)
					for _, e := range before {
						s := &k.shards[e.hash%shards]
						s.Lock()
						if isZero(e) {
							wiped.Add(1)
						}
						s.Unlock()
					}
				default:
					got, ok := k.AppendDEK(buf[:0], name, e)
					if !ok {
						k.Put(name, e, dekOf(name, e, 0), k.Mark(name))
						continue
					}
					hits.Add(1)
					if !bytes.Equal(got, dekOf(name, e, 0)) {
						t.Errorf("%s, EDEK %d: %x", name, e.IV[7], got)
					}
				}
			}
		})
	}
	wg.Wait()
	if hits.Load() == 0 || wiped.Load() == 0 {
		t.Errorf("%d hits, %d zeroed: the test looks at nothing", hits.Load(), wiped.Load())
	}
}

func TestAHitDoesNotAllocate(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	k := open(t, 1<<20, time.Hour)
	e := newEDEK(1, 1)
	k.Put("key", e, dekOf("key", e, 0), k.Mark("key"))
	buf := make([]byte, 0, edek.MaxDEKSize)
	if n := testing.AllocsPerRun(1000, func() {
		if _, ok := k.AppendDEK(buf, "key", e); !ok {
			t.Fatal("missed")
		}
	}); n != 0 {
		t.Errorf("a hit allocates %v times", n)
	}
	other := newEDEK(1, 2)
	if n := testing.AllocsPerRun(1000, func() { k.AppendDEK(buf, "key", other) }); n != 0 {
		t.Errorf("a miss allocates %v times", n)
	}
}

func BenchmarkHit(b *testing.B) {
	k := open(b, 64<<20, time.Hour)
	edeks := make([]*edek.EDEK, 1024)
	for n := range edeks {
		edeks[n] = newEDEK(1, n)
		k.Put("some.key", edeks[n], dekOf("some.key", edeks[n], 0), k.Mark("some.key"))
	}
	for _, n := range []int{1, 1024} {
		b.Run(fmt.Sprintf("of=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				buf := make([]byte, 0, edek.MaxDEKSize)
				for i := 0; pb.Next(); i++ {
					if _, ok := k.AppendDEK(buf, "some.key", edeks[i%n]); !ok {
						b.Fatal("missed")
					}
				}
			})
		})
	}
}
