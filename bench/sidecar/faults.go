package sidecar

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/edekd/edekd/bench/drive"
	"github.com/edekd/edekd/bench/kms"
	"github.com/edekd/edekd/bench/report"
	"github.com/edekd/edekd/bench/stats"
)

const (
	goalVisible = 1.0 // s
	goalHurt    = 2.0 // × one attempt's deadline
	goalReturn  = 2.0 // × the calls a second before

	outageKeys = 50
	// EDEKs and decrypts a second of an outage.
	outageRate, outageDecrypts = 100.0, 20.0
)

// loseNode takes one of two nodes away in the middle of a load.
func (o *Options) loseNode() (rows []report.Row, err error) {
	for _, c := range []struct {
		name string
		lose func(*node) error
	}{
		{"killed", (*node).kill},
		{"stopped", func(n *node) error { return n.Signal(syscall.SIGSTOP) }},
	} {
		more, err := o.loseNodeBy(c.name, c.lose)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", c.name, err)
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

func (o *Options) loseNodeBy(name string, lose func(*node) error) (rows []report.Row, err error) {
	const keys = 10
	site := kms.Properties{"edekd.upstream.attempt.ms", strconv.FormatInt(o.Attempt.Milliseconds(), 10),
		"edekd.upstream.total.ms", strconv.FormatInt((o.Attempt * 5 / 2).Milliseconds(), 10)}
	err = o.with(2, keys, site, func(s *setup) (err error) {
		var requests drive.Requests
		for i := range keys {
			edeks, err := s.Client.Generate(KeyName(i), 1)
			if err != nil {
				return err
			}
			requests = append(requests, s.generate(i), s.Client.DecryptRequest(edeks[0], s.cookie, ""))
		}
		// Each of those that hang at the node holds a connection, for a second at most.
		connections := loadConnections + int(o.NodeRate)
		pool, err := s.pool(connections)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, pool.Close()) }()
		lost := s.nodes[0]
		defer func() {
			if !lost.down {
				err = errors.Join(err, lost.Signal(syscall.SIGCONT))
			}
		}()
		at := o.Length / 2
		var when time.Time
		stop := s.watch(20 * time.Millisecond)
		l, err := pool.Open(drive.Plan{Rate: o.NodeRate, Length: o.Length, Requests: requests, Lenient: true, Events: []drive.Event{{At: at, Do: func() error {
			when = time.Now()
			return lose(lost)
		}}}})
		samples, watched := stop()
		if err = errors.Join(err, watched); err != nil {
			return err
		}
		usable := "edekd_upstream_node_usable{node=" + strconv.Quote(s.Lines[0].Addr()) + "}"
		visible, said := seen(samples, when, usable)
		group := "sidecar: one of two nodes " + name
		rows = append(rows,
			single(group, "failed reads", "calls", float64(l.Failed(0, o.Length)), none(),
				fmt.Sprintf("of %.0f: %.0f/s, half of them decrypts (forward), %d keys, num_keys=1, round trip %v", o.NodeRate*o.Length.Seconds(), o.NodeRate, keys, o.RoundTrip)),
			single(group, "time until the metrics say so", "s", visible.Seconds(), &report.Goal{AtMost: goalVisible}, fmt.Sprintf("%s; attempt.ms %d", said, o.Attempt.Milliseconds())),
			single(group, "p99.9 of the second after", "× one attempt's deadline", stats.Quantile(l.Between(at, at+time.Second), 0.999)/micros(o.Attempt), &report.Goal{AtMost: goalHurt},
				fmt.Sprintf("%.1f ms; %.1f ms in the time before", stats.Quantile(l.Between(at, at+time.Second), 0.999)/1000, stats.Quantile(l.Between(0, at), 0.999)/1000)))
		return nil
	})
	return rows, err
}

// seen returns how long after a time the gauge was first 0, or until when it was
// looked at, and which of the two it is.
func seen(samples []sample, since time.Time, gauge string) (time.Duration, string) {
	for _, one := range samples {
		if value, known := one.values[gauge]; known && value == 0 && one.at.After(since) {
			return one.at.Sub(since), "seen"
		}
	}
	return samples[len(samples)-1].at.Sub(since), "NOT seen until the end"
}

// outage takes all nodes away for long, and brings them back.
func (o *Options) outage() (rows []report.Row, err error) {
	whole := o.OutageWarm + o.Outage + o.Return
	cover := max(o.Outage, 10*time.Minute) // the default is ten minutes
	site := kms.Properties{
		"edekd.upstream.ring.cover.seconds", seconds(cover),
		"edekd.upstream.grant.outage.seconds", seconds(o.Outage + time.Minute),
		"edekd.upstream.decrypt", o.Decrypt,
		"edekd.upstream.decrypt.max-age.seconds", seconds(whole + time.Minute),
	}
	err = o.with(2, outageKeys, site, func(s *setup) (err error) {
		var generates, decrypts drive.Requests
		for i := range outageKeys {
			edeks, err := s.Client.Generate(KeyName(i), 1)
			if err != nil {
				return err
			}
			generates = append(generates, s.generate(i))
			decrypts = append(decrypts, s.Client.DecryptRequest(edeks[0], s.cookie, ""))
		}
		var pools [2]*drive.Pool
		for i := range pools {
			if pools[i], err = s.pool(loadConnections / 2); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, pools[i].Close()) }()
		}
		var loads [2]*drive.Latencies
		var failed [2]error
		var running sync.WaitGroup
		stop := s.watch(250 * time.Millisecond)
		begin := time.Now()
		for i, plan := range []drive.Plan{{Rate: outageRate, Requests: generates}, {Rate: outageDecrypts, Requests: decrypts, InOrder: true}} {
			plan.Length, plan.Lenient = whole, true
			running.Go(func() { loads[i], failed[i] = pools[i].Open(plan) })
		}
		gone, back, err := o.disrupt(s, begin)
		running.Wait()
		samples, watched := stop()
		if err := errors.Join(err, failed[0], failed[1], watched); err != nil {
			return err
		}
		more, err := o.outcome(samples, gone, back)
		if err != nil {
			return err
		}
		group := fmt.Sprintf("sidecar: both nodes gone for %v", o.Outage)
		rows = append(rows,
			single(group, "failed generates", "calls", float64(loads[0].Failed(0, whole)), none(),
				fmt.Sprintf("%d before, %d while they were gone, %d after; %.0f/s over %d keys, num_keys=1, round trip %v, warm-up %v, cover %v, budget 64 MiB",
					loads[0].Failed(0, gone.Sub(begin)), loads[0].Failed(gone.Sub(begin), back.Sub(begin)), loads[0].Failed(back.Sub(begin), whole), outageRate, outageKeys, o.RoundTrip, o.OutageWarm, cover)),
			single(group, "failed decrypts of what was decrypted before", "calls", float64(loads[1].Failed(0, whole)), none(),
				fmt.Sprintf("%.0f/s, one EDEK of each key, decrypt %s", outageDecrypts, o.Decrypt)))
		for _, r := range more {
			r.Group = group
			rows = append(rows, r)
		}
		return nil
	})
	return rows, err
}

// disrupt kills the nodes when it is time, and starts them again.
func (o *Options) disrupt(s *setup, begin time.Time) (gone, back time.Time, err error) {
	time.Sleep(time.Until(begin.Add(o.OutageWarm)))
	gone = time.Now()
	for _, n := range s.nodes {
		err = errors.Join(err, n.kill())
	}
	time.Sleep(time.Until(gone.Add(o.Outage)))
	for i := range s.nodes {
		err = errors.Join(err, s.restart(i))
	}
	return gone, time.Now(), err
}

// window is over what the calls to the KMS behind are counted.
const window = 5 * time.Second

// outcome looks at the calls to the KMS behind before an outage and after it.
func (o *Options) outcome(samples []sample, gone, back time.Time) ([]report.Row, error) {
	var before, after, outage []sample
	for _, one := range samples {
		switch {
		case one.at.Before(gone) && !one.at.Before(gone.Add(-o.OutageWarm/2)):
			before = append(before, one)
		case one.at.After(back):
			after = append(after, one)
		case !one.at.Before(gone):
			outage = append(outage, one)
		}
	}
	if len(before) < 2 || len(after) < 2 || len(outage) == 0 {
		return nil, fmt.Errorf("%d, %d and %d looks at the metrics before, in and after the outage are too few", len(before), len(outage), len(after))
	}
	first, last := before[0], before[len(before)-1]
	// None at all counts as one, so that there is something to compare with.
	usual := max(1, calls(last.values)-calls(first.values)) / last.at.Sub(first.at).Seconds()
	burst := busiest(after)
	return []report.Row{
		single("", "calls/s to the KMS behind on return, over any 5 s", "× those before", burst/usual, &report.Goal{AtMost: goalReturn},
			fmt.Sprintf("%.2f/s; before: %.2f/s, %.2f/s over any 5 s", burst, usual, busiest(before))),
		single("", "EDEKs ready when the nodes went", "EDEKs", last.values["edekd_ring_depth"], nil,
			fmt.Sprintf("%.0f when they came back", outage[len(outage)-1].values["edekd_ring_depth"])),
	}, nil
}

// busiest returns the calls a second of the window, or all of the time if that is
// less, with the most of them.
func busiest(samples []sample) (most float64) {
	for i, from := range samples {
		for j := i + 1; j < len(samples); j++ {
			to := samples[j]
			if length := to.at.Sub(from.at); length >= window-window/20 || j == len(samples)-1 && i == 0 {
				most = max(most, (calls(to.values)-calls(from.values))/length.Seconds())
				break
			}
		}
	}
	return most
}
