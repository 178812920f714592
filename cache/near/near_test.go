package near

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/edekd/edekd/edek"
)

func newCopies(t *testing.T, bytes int64) *Copies {
	t.Helper()
	k := New(Config{Bytes: bytes, MaxAge: time.Hour, Metrics: metrics.NewSet()})
	t.Cleanup(k.Close)
	return k
}

func zone(name string, version int) *edek.ZoneKey {
	return edek.NewZoneKey(&edek.KeyVersion{Name: name, VersionName: edek.VersionName(name, version), Material: bytes.Repeat([]byte{7}, 16)}, edek.AESCTR)
}

// fetch fulfils a wish for a version, if it is one.
func fetch(k *Copies, name string, version int) bool {
	w, wanted := k.Want(name, version)
	return wanted && k.Put(w, zone(name, version))
}

func has(k *Copies, name string, version int) bool {
	z, _ := k.Get(name, version)
	return z != nil
}

// A copy is as old as the request that fetched it, whatever its use, and another
// is wanted after a quarter of its life.
func TestAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCopies(t, 1<<20)
		w, wanted := k.Want("k", 0)
		if !wanted || has(k, "k", 0) {
			t.Fatal("no wish, or a copy of nothing")
		}
		time.Sleep(time.Minute) // as long as the answer takes
		if !k.Put(w, zone("k", 0)) {
			t.Fatal("not kept")
		}
		for range 14 {
			if _, ends := k.Get("k", 0); ends || fetch(k, "k", 0) {
				t.Fatal("another one is wanted in the first quarter")
			}
			time.Sleep(time.Minute)
		}
		if z, ends := k.Get("k", 0); z == nil || !ends {
			t.Errorf("%v %v after the first quarter", z, ends)
		}
		if _, ends := k.Get("k", 0); ends {
			t.Error("two are told at once")
		}
		if _, wanted := k.Want("k", 0); !wanted {
			t.Error("no other is wanted")
		}
		if _, wanted := k.Want("k", 0); wanted {
			t.Error("wanted twice at once")
		}
		time.Sleep(15 * time.Minute)
		if _, ends := k.Get("k", 0); !ends {
			t.Error("nobody is told again")
		}
		time.Sleep(30*time.Minute - time.Nanosecond)
		if !has(k, "k", 0) {
			t.Error("gone too early")
		}
		time.Sleep(time.Nanosecond)
		if has(k, "k", 0) {
			t.Error("too old")
		}
		time.Sleep(time.Hour/16 + time.Second)
		if k.Any() || k.Bytes() != 0 {
			t.Errorf("%d bytes of what is too old", k.Bytes())
		}
	})
}

// Copies that were fetched together take turns, and all have had theirs in the
// middle of their lives; so do those that nobody could renew in an outage.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keys = 50
		k := newCopies(t, 1<<20)
		for i := range keys {
			fetch(k, fmt.Sprint("k", i), 0)
		}
		use := func(renew bool) (told int) {
			for i := range keys {
				if _, ends := k.Get(fmt.Sprint("k", i), 0); ends {
					told++
					if renew {
						fetch(k, fmt.Sprint("k", i), 0)
					}
				}
			}
			return told
		}
		turns := func(what string) {
			t.Helper()
			all := 0
			for range 15 * 60 {
				time.Sleep(time.Second)
				told := use(true)
				if told > 1 {
					t.Fatalf("%s: %d at once", what, told)
				}
				all += told
			}
			if all < keys-1 || all > keys+1 {
				t.Errorf("%s: %d of %d had their turns", what, all, keys)
			}
		}
		time.Sleep(15 * time.Minute)
		turns("fetched together")
		for range 30 * 60 {
			time.Sleep(time.Second)
			use(false)
		}
		turns("after an outage")
	})
}

// A version of which no copy could be had is left alone for a while.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCopies(t, 1<<20)
		k.Want("k", 0)
		time.Sleep(Pause - time.Nanosecond)
		if _, again := k.Want("k", 0); again {
			t.Error("within the pause")
		}
		if _, other := k.Want("k", 1); !other {
			t.Error("another version has nothing to do with it")
		}
		time.Sleep(time.Nanosecond)
		if !fetch(k, "k", 0) {
			t.Error("not after the pause")
		}
	})
}

// What was wished for before a drop is not kept after it, and no other key is
// dropped.
func TestDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCopies(t, 1<<20)
		fetch(k, "k", 0)
		fetch(k, "k", 1)
		fetch(k, "other", 0)
		w, _ := k.Want("k", 2)
		k.Drop("k")
		if has(k, "k", 0) || has(k, "k", 1) || !has(k, "other", 0) {
			t.Error("the wrong ones are gone")
		}
		if k.Put(w, zone("k", 2)) || has(k, "k", 2) {
			t.Error("kept after the drop")
		}
		if !fetch(k, "k", 2) {
			t.Error("a new wish is not granted")
		}
		k.Close()
		if w, wanted := k.Want("other", 0); wanted && k.Put(w, zone("other", 0)) || k.Bytes() != 0 {
			t.Error("kept after the end")
		}
	})
}

// Memory is bounded, whatever the names, and what is used stays.
func TestBound(t *testing.T) {
	const most = 64 * 16 * (copyBytes + 8)
	k := newCopies(t, most)
	for i := range 20_000 {
		has(k, "used", 0)
		if i%100 == 0 {
			fetch(k, "used", 0)
		}
		fetch(k, fmt.Sprintf("key%05d", i), i)
		if b := k.Bytes(); b > most {
			t.Fatalf("%d bytes, may be %d", b, most)
		}
	}
	if !has(k, "used", 0) {
		t.Error("what is used most had to go")
	}
	if w, wanted := k.Want(string(make([]byte, most)), 0); wanted {
		t.Errorf("a name as long as all room: %v", w)
	}
}

// Long names, of which a copy has two, and long material count with all that they
// take, and what is held stays within the bound.
func TestNamesAndMaterialCount(t *testing.T) {
	const most = 16 << 20
	k := newCopies(t, most)
	kept := 0
	for i := range 5000 {
		name := fmt.Sprintf("%s%d", strings.Repeat("n", 3000), i)
		w, _ := k.Want(name, 0)
		if k.Put(w, edek.NewZoneKey(&edek.KeyVersion{Name: name, VersionName: name + "@0", Material: make([]byte, 2000)}, edek.AESCTR)) {
			kept++
		}
	}
	held := 0
	for i := range k.shards {
		for id, h := range k.shards[i].copies {
			held += len(id.name)
			if h.zone != nil {
				held += len(h.zone.VersionName()) + h.zone.DEKSize()
			}
		}
	}
	if b := k.Bytes(); kept != 5000 || held < most/2 || int64(held) > b || b > most {
		t.Errorf("%d were kept, %d bytes of names and material are held, %d counted, of %d", kept, held, b, most)
	}
	if w, wanted := k.Want("k", 0); !wanted || k.Put(w, edek.NewZoneKey(&edek.KeyVersion{Name: "k", VersionName: "k@0", Material: make([]byte, most)}, edek.AESCTR)) || k.Bytes() > most {
		t.Errorf("%d bytes with material as long as all room", k.Bytes())
	}
	for id := range k.shard("k").copies {
		k.Drop(id.name)
	}
	if b := k.shard("k").bytes; b != 0 {
		t.Errorf("%d bytes of nothing", b)
	}
}

// Everything at once: what is got is what was put, and nothing after the last drop.
func TestAtOnce(t *testing.T) {
	k := New(Config{Bytes: 64 * 8 * copyBytes, MaxAge: time.Hour, Metrics: metrics.NewSet()})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 3000 {
				name := fmt.Sprint("k", i%20)
				fetch(k, name, i%3)
				if z, _ := k.Get(name, i%3); z != nil && z.VersionName() != edek.VersionName(name, i%3) {
					t.Errorf("%s for %s@%d", z.VersionName(), name, i%3)
				}
				if i%7 == 0 {
					k.Drop(name)
				}
				k.Any()
			}
		})
	}
	all.Wait()
	for i := range 20 {
		k.Drop(fmt.Sprint("k", i))
	}
	if k.Any() || k.Bytes() != 0 {
		t.Errorf("%d bytes after all drops", k.Bytes())
	}
	k.Close()
}
