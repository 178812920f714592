package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/edekd/edekd/bench/drive"
	"github.com/edekd/edekd/bench/kms"
	"github.com/edekd/edekd/bench/report"
	"github.com/edekd/edekd/bench/stats"
	"github.com/edekd/edekd/internal/freeport"
)

const (
	startKeys     = 1000
	startRequests = 1000
	startSteady   = 5000 // further requests until it is called steady
	starts        = 15

	goalFirstAnswer = 300 // ms
	goalFirst       = 3   // × steady
)

// start measures the first requests after a start: of clients that go on with
// their cookies, for keys none of which the new process has looked at.
func (s *suite) start() error {
	dir, err := s.dir(false)
	if err != nil {
		return err
	}
	port, err := freeport.Take()
	if err != nil {
		return err
	}
	o := kms.Options{Dir: dir, Site: kms.Properties{"hadoop.kms.http.port", strconv.Itoa(port)}}
	var requests drive.Requests
	if err := withEdekd(o, s.ServerCPU, func(edekd *kms.Server) (err error) {
		requests, err = decryptsOfKeys(kms.NewClient(edekd.Target), startKeys)
		return err
	}); err != nil {
		return err
	}
	var first, mean, steady, cpu, steadyCPU []float64
	for range starts {
		if err := withEdekd(o, s.ServerCPU, func(edekd *kms.Server) error {
			pool, err := drive.NewPool(edekd.Target, 1, requests[0])
			if err != nil {
				return err
			}
			defer pool.Close()
			first = append(first, float64(time.Since(edekd.Started))/float64(time.Millisecond))
			// measured returns the mean latency and CPU time of n requests, in µs.
			measured := func(n int) (float64, float64, error) {
				before, err := edekd.CPU()
				if err != nil {
					return 0, 0, err
				}
				took, err := pool.Each(n, requests)
				if err != nil {
					return 0, 0, err
				}
				after, err := edekd.CPU()
				var sum time.Duration
				for _, t := range took {
					sum += t
				}
				return micros(sum) / float64(n), micros(after-before) / float64(n), err
			}
			latency, used, err := measured(startRequests)
			if err != nil {
				return err
			}
			mean, cpu = append(mean, latency), append(cpu, used)
			if _, _, err := measured(startSteady); err != nil {
				return err
			}
			if latency, used, err = measured(startRequests); err != nil {
				return err
			}
			steady, steadyCPU = append(steady, latency), append(steadyCPU, used)
			return nil
		}); err != nil {
			return err
		}
	}
	group := fmt.Sprintf("start, %d keys in the embedded store", startKeys)
	s.file.Rows = append(s.file.Rows,
		report.Row{Group: group, Case: "first answer, from exec", Unit: "ms", Ours: first, Figure: stats.Of(first), FigureUnit: "ms", Goal: &report.Goal{AtMost: goalFirstAnswer}},
		report.Row{Group: group, Case: "first 1000 decrypts, a key each, beside later ones", Unit: "µs, mean latency", Ours: mean, Beside: steady,
			Figure: stats.Ratio(mean, steady), FigureUnit: "× steady", Goal: &report.Goal{AtMost: goalFirst}, Guarded: true},
		report.Row{Group: group, Case: "the same, CPU", Unit: unitCPU, Ours: cpu, Beside: steadyCPU,
			Figure: stats.Ratio(cpu, steadyCPU), FigureUnit: "× steady", Guarded: true})
	return nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
