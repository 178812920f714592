// Package measure finds what a request costs the server that answers it.
package measure

import (
	"time"

	"github.com/edekd/edekd/bench/drive"
	"github.com/edekd/edekd/bench/process"
	"github.com/edekd/edekd/bench/stats"
)

// Variant is one of those that are measured in turn.
type Variant struct {
	Process  *process.Process
	Pool     *drive.Pool
	Active   int // connections of the pool that are kept busy
	Requests drive.Requests
}

// Costs are what slices found, in the order of the variants.
type Costs struct {
	Micros [][]float64 // µs of CPU time of the server per request, by slice
	Busy   []float64   // part of the time in which the server used its core, median
}

// Interleave measures the variants slice by slice, one after the other, and
// begins each round with the next of them: what the machine does meanwhile hits
// all alike. The first round only warms them up.
func Interleave(variants []Variant, slices int, length time.Duration) (Costs, error) {
	c := Costs{Micros: make([][]float64, len(variants)), Busy: make([]float64, len(variants))}
	busy := make([][]float64, len(variants))
	for round := range slices + 1 {
		for turn := range variants {
			i := (round + turn) % len(variants)
			v := &variants[i]
			begin := time.Now()
			before, err := v.Process.CPU()
			if err != nil {
				return c, err
			}
			answered, err := v.Pool.Closed(length, v.Active, v.Requests)
			if err != nil {
				return c, err
			}
			after, err := v.Process.CPU()
			if err != nil {
				return c, err
			}
			if round > 0 {
				used := after - before
				c.Micros[i] = append(c.Micros[i], float64(used)/float64(time.Microsecond)/float64(answered))
				busy[i] = append(busy[i], float64(used)/float64(time.Since(begin)))
			}
		}
	}
	for i := range busy {
		c.Busy[i] = stats.Median(busy[i])
	}
	return c, nil
}
