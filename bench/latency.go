package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/edekd/edekd/bench/drive"
	"github.com/edekd/edekd/bench/kms"
	"github.com/edekd/edekd/bench/report"
	"github.com/edekd/edekd/bench/stats"
)

const (
	openConnections = 64 // of an open loop, and one more for events
	openWarm        = 5  // the part 1/openWarm of an open loop's length is run before it, not counted

	window        = time.Second
	eventWarm     = 2 * window
	eventDistance = 8 // windows from one event to the next
	eventOffset   = 100 * time.Millisecond

	goalEvent = 2.0
)

var loads = []float64{0.5, 0.7} // of saturation

var quantiles = []struct {
	name string
	q    float64
}{{"p50", 0.50}, {"p99", 0.99}, {"p99.9", 0.999}}

// saturation is the rate at which the server, never waiting, answers.
func saturation(pool *drive.Pool, requests drive.Requests, length time.Duration) (float64, error) {
	if _, err := pool.Closed(length, openConnections, requests); err != nil { // warm up
		return 0, err
	}
	begin := time.Now()
	answered, err := pool.Closed(3*length, openConnections, requests)
	return float64(answered) / time.Since(begin).Seconds(), err
}

// withOpenPools runs f with an edekd and a bare server, and connections to both.
func (s *suite) withOpenPools(f func(edekd *kms.Server, bare *kms.Bare, p *prepared, pools [2]*drive.Pool) error) error {
	return s.withBoth(kms.Options{Profiles: true}, func(edekd *kms.Server, bare *kms.Bare) (err error) {
		p, err := prepare(edekd)
		if err != nil {
			return err
		}
		var pools [2]*drive.Pool
		for i, target := range []drive.Target{edekd.Target, bare.Target} {
			if pools[i], err = drive.NewPool(target, openConnections+1, p.decrypt()); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, pools[i].Close()) }()
		}
		return f(edekd, bare, p, pools)
	})
}

func mirror(bare *kms.Bare, pool *drive.Pool, request []byte) error {
	answer, err := pool.Exchange(request)
	if err != nil {
		return err
	}
	return bare.Mirror(answer)
}

// latency measures percentiles under arrivals at a constant rate.
func (s *suite) latency() error {
	return s.withOpenPools(func(_ *kms.Server, bare *kms.Bare, p *prepared, pools [2]*drive.Pool) error {
		for _, call := range p.single() {
			if err := mirror(bare, pools[0], call.request); err != nil {
				return err
			}
			requests := drive.Requests{call.request}
			most, err := saturation(pools[0], requests, s.Slice)
			if err != nil {
				return err
			}
			for _, load := range loads {
				if err := s.percentiles(call.name, requests, load, most*load, pools); err != nil {
					return fmt.Errorf("%s at %.0f %%: %w", call.name, 100*load, err)
				}
			}
		}
		return nil
	})
}

// percentiles measures edekd and bare in turn, at the same rate.
func (s *suite) percentiles(name string, requests drive.Requests, load, rate float64, pools [2]*drive.Pool) error {
	values := [2][][]float64{make([][]float64, len(quantiles)), make([][]float64, len(quantiles))} // by server and quantile
	var late []float64
	warm := s.Open / openWarm
	for round := range s.Rounds {
		for turn := range pools {
			i := (round + turn) % len(pools)
			l, err := pools[i].Open(drive.Plan{Rate: rate, Length: warm + s.Open, Requests: requests})
			if err != nil {
				return err
			}
			counted := l.Between(warm, warm+s.Open)
			for j, q := range quantiles {
				values[i][j] = append(values[i][j], stats.Quantile(counted, q.q))
			}
			late = append(late, l.ClientLate(0.999))
		}
	}
	for j, q := range quantiles {
		s.file.Rows = append(s.file.Rows, report.Row{Group: "latency, open loop", Case: fmt.Sprintf("%s, %.0f %% of saturation, %s", name, 100*load, q.name),
			Unit: "µs", Ours: values[0][j], Beside: values[1][j], Figure: stats.Ratio(values[0][j], values[1][j]), FigureUnit: "× bare",
			Note: fmt.Sprintf("%.0f/s; client itself late by %.0f µs at its p99.9", rate, stats.Median(late))})
	}
	return nil
}

// events forces things that happen to a server now and then, in the middle of a
// load of half of saturation.
func (s *suite) events() error {
	return s.withOpenPools(func(edekd *kms.Server, bare *kms.Bare, p *prepared, pools [2]*drive.Pool) (err error) {
		if err := mirror(bare, pools[0], p.decrypt()); err != nil {
			return err
		}
		requests := drive.Requests{p.decrypt()}
		most, err := saturation(pools[0], requests, s.Slice)
		if err != nil {
			return err
		}
		edition := 0
		hup := func() error { return edekd.Signal(syscall.SIGHUP) }
		bound := &report.Goal{AtMost: goalEvent}
		for _, e := range []struct {
			name  string
			goal  *report.Goal
			event drive.Event
			pool  *drive.Pool
		}{
			{"nothing, bare", nil, drive.Event{}, pools[1]},
			{"nothing", nil, drive.Event{}, pools[0]},
			{"kms-acls.xml changed and read again", bound, drive.Event{Do: func() error {
				edition++
				return errors.Join(kms.WriteRules(edekd.Dir, edition), hup())
			}}, pools[0]},
			{"metrics scraped", bound, drive.Event{Request: p.MetricsRequest()}, pools[0]},
			{"audit log rotated", bound, drive.Event{Do: func() error {
				edition++
				return errors.Join(os.Rename(edekd.AuditLog(), fmt.Sprintf("%s.%d", edekd.AuditLog(), edition)), hup())
			}}, pools[0]},
			{"key rolled", bound, drive.Event{Request: p.RollRequest(p.key, p.cookie)}, pools[0]},
		} {
			if err := s.event(e.name, e.goal, e.event, e.pool, requests, most*loads[0]); err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
		}
		// Opened only now: the server closes what idles for a minute.
		collector, err := edekd.Collector()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, collector.Close()) }()
		return s.event("garbage collected", bound, drive.Event{Do: collector.Collect}, pools[0], requests, most*loads[0])
	})
}

// event measures windows with an event beside windows without.
func (s *suite) event(name string, goal *report.Goal, event drive.Event, pool *drive.Pool, requests drive.Requests, rate float64) error {
	plan := drive.Plan{Rate: rate, Length: eventWarm + time.Duration(s.Events*eventDistance)*window, Requests: requests}
	for i := range s.Events {
		at := event
		at.At = eventWindow(i) + eventOffset
		plan.Events = append(plan.Events, at)
	}
	l, err := pool.Open(plan)
	if err != nil {
		return err
	}
	var with, without []float64
	for from := eventWarm; from < plan.Length; from += window {
		tail := stats.Quantile(l.Between(from, from+window), 0.999)
		if (from-eventWindow(0))%(eventDistance*window) == 0 {
			with = append(with, tail)
		} else {
			without = append(without, tail)
		}
	}
	s.file.Rows = append(s.file.Rows, report.Row{Group: "latency, one-second windows with an event", Case: name, Unit: "µs, p99.9", Ours: with, Beside: without,
		Figure: stats.Ratio(with, without), FigureUnit: "× the windows without", Goal: goal,
		Note: fmt.Sprintf("decrypt at %.0f/s; client itself late by %.0f µs at its p99.9", rate, l.ClientLate(0.999))})
	return nil
}

// eventWindow is when the window of event i begins: in the middle between its
// neighbours.
func eventWindow(i int) time.Duration {
	return eventWarm + time.Duration(i*eventDistance+eventDistance/2)*window
}
