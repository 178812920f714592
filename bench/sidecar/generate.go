package sidecar

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edekd/edekd/bench/drive"
	"github.com/edekd/edekd/bench/kms"
	"github.com/edekd/edekd/bench/process"
	"github.com/edekd/edekd/bench/report"
	"github.com/edekd/edekd/bench/stats"
)

const (
	// loadConnections of an open loop are fewer than the front may have requests
	// under way behind it, so that no caller is refused for that.
	loadConnections = 128
	busyConnections = 16 // of a closed loop

	forwarded = "edekd_upstream_forwarded_generates_total"

	goalStep    = 1.0  // s until no caller waits for the KMS behind
	goalRings   = 1.15 // × the CPU of near keys
	goalTail    = 1.1  // × their p99: two runs of one server differ by as much
	goalFromOwn = 99.0 // % of calls that find all in a ring
)

// step is a load that comes from nothing, on one key whose ring does not exist.
func (o *Options) step() (rows []report.Row, err error) {
	err = o.with(1, 1, nil, func(s *setup) (err error) {
		pool, err := s.pool(loadConnections)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, pool.Close()) }()
		stop := s.watch(50 * time.Millisecond)
		begin := time.Now()
		l, err := pool.Open(drive.Plan{Rate: o.Rate, Length: o.Length, Requests: drive.Requests{s.generate(0)}, Lenient: true})
		samples, watched := stop()
		if err = errors.Join(err, watched); err != nil {
			return err
		}
		last, late, all := settled(samples, begin)
		group := "sidecar: a load step"
		note := fmt.Sprintf("0 → %.0f/s, one key, num_keys=1, round trip %v, no warm-up, %d connections; %.0f fills in all", o.Rate, o.RoundTrip, loadConnections, all)
		rows = append(rows,
			single(group, "time until the last synchronous fill", "s", last.Seconds(), &report.Goal{AtMost: goalStep}, note),
			single(group, "synchronous fills after the first second", "calls", late, none(), ""),
			single(group, "failed generates", "calls", float64(l.Failed(0, o.Length)), none(), ""),
			single(group, "p99 after the first second", "ms", stats.Quantile(l.Between(time.Second, o.Length), 0.99)/1000, nil, ""))
		return nil
	})
	return rows, err
}

// settled returns when samples saw the last synchronous fill, how many they saw
// later than a second after the beginning, and how many in all.
func settled(samples []sample, begin time.Time) (last time.Duration, late, all float64) {
	first, before := samples[0].values[forwarded], samples[0].values[forwarded]
	for _, one := range samples {
		now := one.values[forwarded]
		if now > before {
			last = one.at.Sub(begin)
			if last > time.Second {
				late += now - before
			}
		}
		before = now
	}
	return last, late, before - first
}

// rings compares generate(1) of a far key with that of a near one.
func (o *Options) rings() (rows []report.Row, err error) {
	dir, err := os.MkdirTemp(memory(), "edekd-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	near, err := kms.StartEdekd(kms.Options{CPU: o.ServerCPU, Dir: dir})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, near.Stop()) }()
	c := kms.NewClient(near.Target)
	if err := c.Create(KeyName(0)); err != nil {
		return nil, err
	}
	cookie, err := c.Cookie(kms.NameNode)
	if err != nil {
		return nil, err
	}
	err = o.with(1, 1, nil, func(s *setup) (err error) {
		sides := []*side{
			{process: s.Process, requests: drive.Requests{s.generate(0)}},
			{process: near.Process, requests: drive.Requests{c.GenerateRequest(KeyName(0), 1, cookie, "")}}}
		for i, target := range []drive.Target{s.Target, near.Target} {
			if sides[i].pool, err = drive.NewPool(target, loadConnections+1, hello); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, sides[i].pool.Close()) }()
			if _, err := sides[i].pool.Closed(o.Warm/2, busyConnections, sides[i].requests); err != nil {
				return err
			}
		}
		before, err := s.Client.Metrics()
		if err != nil {
			return err
		}
		costs, err := o.costs(sides)
		if err != nil {
			return err
		}
		behind := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: loadConnections}}
		defer behind.CloseIdleConnections()
		crossed := *sides[1]
		crossed.beside = func() error { return fetch(behind, s.Lines[0].Addr()) }
		tails, late, err := o.tails([]*side{sides[0], &crossed, sides[1]})
		if err != nil {
			return err
		}
		after, err := s.Client.Metrics()
		if err != nil {
			return err
		}
		group := "sidecar: generate through rings beside near keys"
		rows = append(rows,
			report.Row{Group: group, Case: "CPU, num_keys=1", Unit: "µs CPU/request", Ours: costs[0], Beside: costs[1], Figure: stats.Ratio(costs[0], costs[1]),
				FigureUnit: "× near", Goal: &report.Goal{AtMost: goalRings}, Note: fmt.Sprintf("closed loop, %d connections, one key, round trip %v, warm-up %v; refills are in it", busyConnections, o.RoundTrip, o.Warm/2)},
			report.Row{Group: group, Case: "p99, num_keys=1, beside near keys while as many fetches cross the load's core", Unit: "µs", Ours: tails[0], Beside: tails[1], Figure: stats.Ratio(tails[0], tails[1]),
				FigureUnit: "× near", Goal: &report.Goal{AtMost: goalTail}, Note: fmt.Sprintf("open loop, %.0f/s; client itself late by %.0f µs at its p99", o.Rate, late)},
			report.Row{Group: group, Case: "p99, num_keys=1, beside near keys alone", Unit: "µs", Ours: tails[0], Beside: tails[2], Figure: stats.Ratio(tails[0], tails[2]),
				FigureUnit: "× near", Note: "what the KMS behind and the way there take from the load's core is in it"},
			single(group, "generates that went to the KMS behind meanwhile", "calls", after[forwarded]-before[forwarded], nil, ""))
		return nil
	})
	return rows, err
}

// side is one of two servers that are measured in turn.
type side struct {
	process  *process.Process
	pool     *drive.Pool
	requests drive.Requests
	// beside is done once for each fetch that rings would need, nil for nothing.
	beside func() error
}

const fetchSize = 500 // EDEKs

// fetch takes from the KMS behind what a ring would, and throws it away.
func fetch(c *http.Client, addr string) error {
	answer, err := c.Get("http://" + addr + "/kms/v1/key/" + KeyName(0) + "/_eek?eek_op=generate&user.name=" + kms.NameNode + "&num_keys=" + strconv.Itoa(fetchSize))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("a fetch was answered with %s", answer.Status)
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

// open runs a plan, and beside it what is to be done.
func (s *side) open(plan drive.Plan) (l *drive.Latencies, err error) {
	if s.beside == nil {
		return s.pool.Open(plan)
	}
	end := make(chan struct{})
	var group errgroup.Group
	group.Go(func() error {
		tick := time.NewTicker(time.Duration(fetchSize / plan.Rate * float64(time.Second)))
		defer tick.Stop()
		for {
			select {
			case <-end:
				return nil
			case <-tick.C:
				group.Go(s.beside)
			}
		}
	})
	l, err = s.pool.Open(plan)
	close(end)
	return l, errors.Join(err, group.Wait())
}

// costs returns the CPU time of a request in µs, by side and round. A round's is
// all that a server used from its turn to its next, so that what it does between,
// as filling a ring, is counted too.
func (o *Options) costs(sides []*side) ([][]float64, error) {
	costs := make([][]float64, len(sides))
	used, answered := make([]time.Duration, len(sides)), make([]int, len(sides))
	for round := range o.Slices + 1 {
		for i, s := range sides {
			now, err := s.process.CPU()
			if err != nil {
				return nil, err
			}
			if round > 0 {
				costs[i] = append(costs[i], micros(now-used[i])/float64(answered[i]))
			}
			used[i] = now
			if answered[i], err = s.pool.Closed(o.Slice, busyConnections, s.requests); err != nil {
				return nil, err
			}
		}
	}
	return costs, nil
}

// tails returns the p99 in µs, by side and round, and how late the client itself
// was at its own.
func (o *Options) tails(sides []*side) (tails [][]float64, late float64, err error) {
	tails = make([][]float64, len(sides))
	var lates []float64
	for round := range o.Rounds {
		for turn := range sides {
			i := (round + turn) % len(sides)
			warm := o.Length / 5
			l, err := sides[i].open(drive.Plan{Rate: o.Rate, Length: warm + o.Length/2, Requests: sides[i].requests})
			if err != nil {
				return nil, 0, err
			}
			tails[i] = append(tails[i], stats.Quantile(l.Between(warm, warm+o.Length/2), 0.99))
			lates = append(lates, l.ClientLate(0.99))
		}
	}
	return tails, stats.Median(lates), nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// zipf asks for EDEKs of many keys, some far more often than others, within
// little memory.
func (o *Options) zipf() (rows []report.Row, err error) {
	budget := float64(o.Budget) * (1 << 20)
	site := kms.Properties{"edekd.upstream.ring.budget-bytes", strconv.Itoa(o.Budget << 20)}
	err = o.with(1, o.Keys, site, func(s *setup) (err error) {
		all := make(drive.Requests, o.Keys)
		for i := range all {
			all[i] = s.generate(i)
		}
		pool, err := s.pool(loadConnections)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, pool.Close()) }()
		// Each key once: the first call of a caller for a key always goes behind.
		if _, err := pool.Open(drive.Plan{Rate: 1000, Length: time.Duration(o.Keys) * time.Millisecond, Requests: all, InOrder: true}); err != nil {
			return err
		}
		plan := drive.Plan{Rate: o.ZipfRate, Requests: zipf(all), Lenient: true}
		plan.Length = o.Warm
		if _, err := pool.Open(plan); err != nil {
			return err
		}
		stop := s.watch(500 * time.Millisecond)
		plan.Length = o.Length
		l, err := pool.Open(plan)
		samples, watched := stop()
		if err = errors.Join(err, watched); err != nil {
			return err
		}
		most := 0.0
		for _, one := range samples {
			most = max(most, one.values["edekd_ring_bytes"])
		}
		first, last := samples[0].values, samples[len(samples)-1].values
		missed := last[forwarded] - first[forwarded]
		resident, err := s.Resident()
		if err != nil {
			return err
		}
		total := o.ZipfRate * o.Length.Seconds()
		group := fmt.Sprintf("sidecar: %d keys, Zipf 1.0", o.Keys)
		rows = append(rows,
			single(group, "memory of the rings, at most", "MiB", most/(1<<20), &report.Goal{AtMost: budget / (1 << 20)},
				fmt.Sprintf("budget %d MiB; whole process %d MiB resident; %.0f EDEKs ready", o.Budget, resident>>20, last["edekd_ring_depth"])),
			single(group, "calls served from rings", "%", 100*(1-missed/total), &report.Goal{AtLeast: goalFromOwn},
				fmt.Sprintf("%.0f/s, num_keys=1, round trip %v, warm-up: each key once, then %v", o.ZipfRate, o.RoundTrip, o.Warm)),
			single(group, "failed generates", "calls", float64(l.Failed(0, o.Length)), none(), ""))
		return nil
	})
	return rows, err
}

// zipf returns a list in which the i-th request is there about 1/i times as often
// as the first, and each at least once.
func zipf(all drive.Requests) (list drive.Requests) {
	const length = 1 << 20
	sum := 0.0
	for i := range all {
		sum += 1 / float64(i+1)
	}
	for i, request := range all {
		times := math.Round(length / (sum * float64(i+1)))
		for range max(1, int(times)) {
			list = append(list, request)
		}
	}
	return list
}
