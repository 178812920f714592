package sidecar

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/edekd/edekd/bench/drive"
	"github.com/edekd/edekd/bench/kms"
	"github.com/edekd/edekd/bench/report"
	"github.com/edekd/edekd/bench/stats"
)

// recent is how many files, the last ones, are opened again. So many are opened
// before a measurement.
const recent = 100

// decrypt compares what reaches the KMS behind of decrypts that repeat themselves,
// with the cache and without.
func (o *Options) decrypt() (rows []report.Row, err error) {
	for _, c := range []struct {
		every int // a call for a new file
		goal  float64
	}{{20, 18}, {100, 45}} {
		forward, err := o.decrypts("forward", o.ForwardRate, c.every)
		if err != nil {
			return rows, err
		}
		cached, err := o.decrypts("cache", o.ForwardRate*float64(c.every), c.every)
		if err != nil {
			return rows, err
		}
		rows = append(rows, report.Row{Group: "sidecar: decrypts that repeat themselves", Case: fmt.Sprintf("%.0f %% repeats, cache beside forward", 100-100/float64(c.every)),
			Unit: "decrypts/call behind", Ours: []float64{cached.rate / cached.calls}, Beside: []float64{forward.rate / forward.calls},
			Figure: stats.Ratio([]float64{cached.rate / cached.calls}, []float64{forward.rate / forward.calls}), FigureUnit: "× the rate at equal calls/s behind",
			Goal: &report.Goal{AtLeast: c.goal},
			Note: fmt.Sprintf("cache: %.0f/s with %.1f calls/s behind, p99 %.2f ms; forward: %.0f/s with %.1f, p99 %.2f ms; repeats among the last %d of one key, round trip %v, warm-up: these %d",
				cached.rate, cached.calls, cached.tail, forward.rate, forward.calls, forward.tail, recent, o.RoundTrip, recent)})
	}
	return rows, nil
}

// decryptLoad is what a load of decrypts did.
type decryptLoad struct {
	rate, calls float64 // a second: answered, and made to the KMS behind
	tail        float64 // p99 in ms
}

func (o *Options) decrypts(mode string, rate float64, every int) (d decryptLoad, err error) {
	err = o.with(1, 1, kms.Properties{"edekd.upstream.decrypt", mode}, func(s *setup) (err error) {
		total := int(rate * o.Length.Seconds())
		edeks, err := s.edeks(recent + total/every + 1)
		if err != nil {
			return err
		}
		pool, err := s.pool(loadConnections)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, pool.Close()) }()
		if _, err := pool.Open(drive.Plan{Rate: recent, Length: time.Second, Requests: edeks[:recent], InOrder: true}); err != nil {
			return err
		}
		before, err := s.Client.Metrics()
		if err != nil {
			return err
		}
		begin := time.Now()
		l, err := pool.Open(drive.Plan{Rate: rate, Length: o.Length, Requests: repeating(edeks, total, every), InOrder: true})
		if err != nil {
			return err
		}
		took := time.Since(begin).Seconds()
		after, err := s.Client.Metrics()
		if err != nil {
			return err
		}
		d = decryptLoad{rate: float64(total) / took, calls: (calls(after) - calls(before)) / took, tail: stats.Quantile(l.Between(0, o.Length), 0.99) / 1000}
		if d.calls == 0 {
			return fmt.Errorf("no decrypt has reached the KMS behind in the mode %s", mode)
		}
		return nil
	})
	return d, err
}

// edeks returns requests that decrypt n EDEKs, all different.
func (s *setup) edeks(n int) (requests drive.Requests, err error) {
	for len(requests) < n {
		some, err := s.Client.Generate(KeyName(0), min(500, n-len(requests)))
		if err != nil {
			return nil, err
		}
		for _, e := range some {
			requests = append(requests, s.Client.DecryptRequest(e, s.cookie, ""))
		}
	}
	return requests, nil
}

// repeating returns total requests: one in every is for a file that was not
// opened before, the others are for one of those opened last, the first of files
// at the beginning.
func repeating(files drive.Requests, total, every int) (list drive.Requests) {
	random := rand.New(rand.NewPCG(9, 10))
	opened := recent
	for i := range total {
		if i%every == 0 {
			opened++
			list = append(list, files[opened-1])
			continue
		}
		list = append(list, files[opened-1-random.IntN(recent)])
	}
	return list
}
