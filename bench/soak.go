package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/edekd/edekd/bench/drive"
	"github.com/edekd/edekd/bench/kms"
)

type soakCommand struct {
	machine
	For    time.Duration `default:"15m" help:"How long."`
	Settle time.Duration `default:"5m" help:"After how long memory must have settled."`
	Round  time.Duration `default:"5s" help:"Time between two disturbances."`
	Growth float64       `default:"0.05" help:"Part by which resident memory may grow after that."`
	// Timers and loaders come and go.
	Leftover int `default:"4" help:"Goroutines that there may be more at the end than at the beginning."`
}

const (
	soakConnections = 64
	soakKeys        = 50
	// endTime is how long the server may take after the last request until the
	// workers of closed connections have ended, too.
	endTime = time.Minute
)

// Run loads an edekd with a mix of calls by all kinds of senders, over
// connections that come and go, while keys are rolled, caches drained, rules and
// settings read again, logs rotated and metrics scraped.
func (k *soakCommand) Run() error {
	if err := k.take(); err != nil {
		return err
	}
	if k.Settle >= k.For {
		return fmt.Errorf("%v to settle in a run of %v: nothing is left to look at", k.Settle, k.For)
	}
	dir, err := os.MkdirTemp("", "edekd-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return withEdekd(kms.Options{Dir: dir}, k.ServerCPU, k.soak)
}

func (k *soakCommand) soak(edekd *kms.Server) error {
	c := kms.NewClient(edekd.Target)
	requests, err := soakRequests(c)
	if err != nil {
		return err
	}
	idle, err := goroutines(c)
	if err != nil {
		return err
	}
	var settled []sample // after settling
	begin := time.Now()
	total, round := 0, 0
	for ; time.Since(begin) < k.For; round++ {
		n, err := soakRound(edekd.Target, requests, k.Round)
		if err != nil {
			return err
		}
		total += n
		if err := disturb(edekd, c, round); err != nil {
			return err
		}
		resident, err := edekd.Resident()
		if err != nil {
			return err
		}
		since := time.Since(begin)
		if since > k.Settle {
			settled = append(settled, sample{since, resident})
		}
		if round%12 == 0 {
			fmt.Printf("%v: %d requests, %d MiB resident\n", since.Round(time.Second), total, resident>>20)
		}
	}
	if len(settled) == 0 {
		return fmt.Errorf("rounds of %v are too long for a run of %v", k.Round, k.For)
	}
	from, to := grown(settled)
	growth := float64(to)/float64(from) - 1
	fmt.Printf("%d requests in %v and %d disturbances, no error; resident memory %d MiB, later %d MiB (%+.1f %%)\n",
		total, k.For, round, from>>20, to>>20, 100*growth)
	if growth > k.Growth {
		return fmt.Errorf("memory grew by %.1f %%", 100*growth)
	}
	return k.allEnded(c, idle)
}

// sample is what was resident, in bytes, at a time since the beginning.
type sample struct {
	at       time.Duration
	resident int64
}

// grown returns the medians of the first and the last sixth of the time that the
// samples, at least one, cover.
func grown(samples []sample) (from, to int64) {
	first, last := samples[0].at, samples[len(samples)-1].at
	sixth := (last - first) / 6
	var early, late []int64
	for _, s := range samples {
		if s.at <= first+sixth {
			early = append(early, s.resident)
		}
		if s.at >= last-sixth {
			late = append(late, s.resident)
		}
	}
	return medianOf(early), medianOf(late)
}

func medianOf(values []int64) int64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// goroutines counts those of the server.
func goroutines(c *kms.Client) (float64, error) {
	values, err := c.Metrics()
	return values["go_goroutines"], err
}

// allEnded waits until there are as many goroutines as before the load.
func (k *soakCommand) allEnded(c *kms.Client, before float64) error {
	c.Disconnect()
	for deadline := time.Now().Add(endTime); ; time.Sleep(100 * time.Millisecond) {
		now, err := goroutines(c)
		if err != nil {
			return err
		}
		if now <= before+float64(k.Leftover) {
			fmt.Printf("goroutines: %.0f before, %.0f after\n", before, now)
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%.0f goroutines are left over %v after the load", now-before, endTime)
		}
	}
}

// soakRequests are a mix of calls by all kinds of senders.
func soakRequests(c *kms.Client) (requests drive.Requests, err error) {
	edeks, err := edeksOfKeys(c, soakKeys)
	if err != nil {
		return nil, err
	}
	cookie, err := c.Cookie(kms.NameNode)
	if err != nil {
		return nil, err
	}
	service, err := c.Cookie(kms.Service)
	if err != nil {
		return nil, err
	}
	token, err := c.Token(kms.NameNode)
	if err != nil {
		return nil, err
	}
	for i, e := range edeks {
		requests = append(requests,
			c.GenerateRequest(e.Key, 1, cookie, ""), c.GenerateRequest(e.Key, 1, token, ""), c.GenerateRequest(e.Key, 1, service, "&doAs="+kms.Reader),
			c.DecryptRequest(e, cookie, ""), c.DecryptRequest(e, token, ""), c.DecryptRequest(e, service, "&doAs="+kms.Reader))
		if i%10 == 0 {
			batch, err := c.Generate(e.Key, batchSize)
			if err != nil {
				return nil, err
			}
			requests = append(requests, c.GenerateRequest(e.Key, 150, cookie, ""), c.ReencryptRequest(batch, cookie))
		}
	}
	return requests, nil
}

// soakRound uses new connections.
func soakRound(t drive.Target, requests drive.Requests, length time.Duration) (answered int, err error) {
	pool, err := drive.NewPool(t, soakConnections, requests[0])
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	return pool.Closed(length, soakConnections, requests)
}

// disturb does one thing after the other, round by round. Keys are rolled rarely:
// each version is kept for good, and is no leak.
func disturb(edekd *kms.Server, c *kms.Client, round int) error {
	switch round % 6 {
	case 0:
		return errors.Join(kms.WriteRules(edekd.Dir, round), edekd.Signal(syscall.SIGHUP))
	case 1:
		return c.Drain(zoneName(round % soakKeys))
	case 2:
		_, err := c.Metrics()
		return err
	case 3:
		return errors.Join(os.Rename(edekd.AuditLog(), edekd.AuditLog()+".old"), edekd.Signal(syscall.SIGHUP))
	case 4:
		_, err := c.Token(kms.Reader)
		return err
	default:
		_, err := c.Roll(zoneName(round % soakKeys))
		return err
	}
}
