package measure

import (
	"testing"
	"time"

	"github.com/edekd/edekd/bench/drive"
	"github.com/edekd/edekd/bench/kms"
	"github.com/edekd/edekd/bench/stats"
)

// TestCostlierRequestsCostMore: a bare server that sends a megabyte must come out
// above one that sends nothing, whoever is first.
func TestCostlierRequestsCostMore(t *testing.T) {
	var variants []Variant
	for _, size := range []int{0, 1 << 20} {
		b, err := kms.StartBare(kms.Options{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Stop() })
		if err := b.Mirror(append([]byte("HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\n"), make([]byte, size)...)); err != nil {
			t.Fatal(err)
		}
		request := []byte("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		pool, err := drive.NewPool(b.Target, 4, request)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pool.Close() })
		variants = append(variants, Variant{b.Process, pool, 4, drive.Requests{request}})
	}
	c, err := Interleave(variants, 7, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	nothing, megabyte := stats.Median(c.Micros[0]), stats.Median(c.Micros[1])
	if nothing <= 0 || megabyte <= nothing { // by how much depends on what else the machine does
		t.Errorf("%v µs for nothing, %v µs for a megabyte", nothing, megabyte)
	}
	if c.Busy[0] <= 0 {
		t.Errorf("the core was used for %v of the time", c.Busy[0])
	}
}
