package ring

import (
	"testing"
	"unsafe"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/internal/race"
)

// alias makes a string of a buffer that will be used again, as the front end does.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func TestSizes(t *testing.T) {
	const header = 8 // the allocator's, before what has pointers
	if n := unsafe.Sizeof(slab{}) + header; n > slabBytes || n+unsafe.Sizeof(edek.EDEK{}) <= slabBytes {
		t.Errorf("a slab has %d bytes", n)
	}
	if n := unsafe.Sizeof(ring{}) + unsafe.Sizeof(chain{}); n > ringBytes-150 {
		t.Errorf("a ring has %d bytes, which leaves little for the table", n)
	}
}

func TestTakeDoesNotAllocate(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	u := &upstream{}
	rs := open(t, u, Config{Size: 20000})
	buf := make([]edek.EDEK, 4)
	name := []byte("some.key")
	rs.Take(alias(name), buf, true)
	eventually(t, "EDEKs", func() bool { return rs.table.find("some.key").depth() > 15000 })
	rs.Close()
	if n := testing.AllocsPerRun(1000, func() {
		if len(rs.Take(alias(name), buf, false)) != len(buf) {
			t.Fatal("the ring is empty")
		}
	}); n != 0 {
		t.Errorf("a take allocates %v times", n)
	}
	rs.Drop("some.key")
	if n := testing.AllocsPerRun(1000, func() { rs.Take(alias(name), buf, false) }); n != 0 {
		t.Errorf("a take that finds nothing allocates %v times", n)
	}
}

// A take of n, and a share of the give that has to make up for it.
func benchmarkTake(b *testing.B, parallelism, n int) {
	u := &upstream{}
	rs := open(b, u, Config{Budget: 1 << 30})
	rs.Close() // no keeper
	batch := make([]edek.EDEK, 50*slabEDEKs)
	for i := range batch {
		batch[i] = u.one()
	}
	name := "some.key"
	rs.Take(name, make([]edek.EDEK, 1), true)
	b.ReportAllocs()
	b.SetParallelism(parallelism)
	b.RunParallel(func(pb *testing.PB) {
		buf := make([]edek.EDEK, n)
		for pb.Next() {
			if len(rs.Take(name, buf, true)) < n {
				give(rs, name, rs.order.Load(), batch)
			}
		}
	})
}

func BenchmarkTake1(b *testing.B)            { benchmarkTake(b, 1, 1) }
func BenchmarkTake1Of64Takers(b *testing.B)  { benchmarkTake(b, 64, 1) }
func BenchmarkTake36(b *testing.B)           { benchmarkTake(b, 1, 36) }
func BenchmarkTake36Of64Takers(b *testing.B) { benchmarkTake(b, 64, 36) }
