package loadtest

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edekd/edekd/loadtest/cpu"
	"github.com/edekd/edekd/loadtest/schedule"
)

// usage collects what servers and generator use in each step.
type usage struct {
	meters []cpu.Meter
	before cpu.Sample
	ok     bool // the meters could be read

	mu    sync.Mutex
	steps map[int]*stepUsage
}

// stepUsage is a step's first and last reading.
type stepUsage struct{ first, last reading }

type reading struct {
	at       time.Duration
	servers  cpu.Sample // of all servers together
	ok       bool
	own      time.Duration
	machine  cpu.Machine
	requests int64
	edeks    int64
}

func newUsage(meters []cpu.Meter) *usage {
	return &usage{meters: meters, steps: map[int]*stepUsage{}}
}

// source names where the figures are from.
func (u *usage) source() string {
	var all []string
	for _, m := range u.meters {
		all = append(all, m.String())
	}
	return strings.Join(all, ", ")
}

// read adds up the servers' figures.
func (u *usage) read(ctx context.Context) (sum cpu.Sample, ok bool) {
	for _, m := range u.meters {
		s, err := m.Read(ctx)
		if err != nil {
			return cpu.Sample{}, false
		}
		sum.CPU += s.CPU
		sum.Resident += s.Resident
	}
	return sum, len(u.meters) > 0
}

// idle reads the servers before the load's connections exist.
func (u *usage) idle(ctx context.Context) { u.before, u.ok = u.read(ctx) }

// follow reads servers and generator at the beginning and at the end of each step,
// or when ctx ends.
func (u *usage) follow(ctx context.Context, r *run) {
	for _, w := range r.windows {
		if w.Step == schedule.Ramp {
			continue
		}
		if !until(ctx, r, w.Begin) {
			return
		}
		first := u.reading(ctx, r)
		until(ctx, r, w.End)
		last := u.reading(context.WithoutCancel(ctx), r)
		u.mu.Lock()
		u.steps[w.Step] = &stepUsage{first, last}
		u.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
	}
}

// until waits for a time and tells whether it came before ctx ended.
func until(ctx context.Context, r *run, at time.Duration) bool {
	timer := time.NewTimer(at - r.now())
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (u *usage) reading(ctx context.Context, r *run) (now reading) {
	now.at = r.now()
	now.own = ownCPU()
	// Unreadable, it stays empty, and nothing is said of the machine.
	now.machine, _ = cpu.ReadMachine()
	now.requests, now.edeks = r.recorder.Requests()
	if u.ok {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		now.servers, now.ok = u.read(ctx)
	}
	return now
}

// ownCPU is the processor time this process has used.
func ownCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// share is the part of the available processors that the generator used between
// two readings.
func (s *stepUsage) share() float64 {
	elapsed := s.last.at - s.first.at
	if elapsed <= 0 {
		return 0
	}
	return float64(s.last.own-s.first.own) / float64(elapsed) / float64(runtime.GOMAXPROCS(0))
}
