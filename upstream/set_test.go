package upstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/edekd/edekd/edek"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is nodes that do as they are told, in virtual time.
type service struct {
	mu     sync.Mutex
	fails  []error // by node; nil: it answers
	takes  []time.Duration
	works  []time.Duration // how much longer calls take
	halts  []chan struct{} // closed when the node goes on; nil: it has not been halted
	calls  []int
	probes []int
}

func newService(nodes int) *service {
	return &service{fails: make([]error, nodes), takes: make([]time.Duration, nodes), works: make([]time.Duration, nodes), halts: make([]chan struct{}, nodes), calls: make([]int, nodes), probes: make([]int, nodes)}
}

func (s *service) tell(node int, err error, takes time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails[node], s.takes[node] = err, takes
}

// busy makes calls take longer, but not probes.
func (s *service) busy(node int, works time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.works[node] = works
}

// halt stops a node with all it works on, until resume.
func (s *service) halt(node int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.halts[node] = make(chan struct{})
}

func (s *service) resume(node int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.halts[node])
	s.halts[node] = nil
}

func (s *service) answer(ctx context.Context, node int, works time.Duration) error {
	s.mu.Lock()
	err, takes := s.fails[node], s.takes[node]
	s.mu.Unlock()
	select {
	case <-time.After(takes + works):
	case <-ctx.Done():
		return &Fault{Err: ctx.Err(), Sent: true}
	}
	s.mu.Lock()
	halted := s.halts[node]
	s.mu.Unlock()
	if halted != nil {
		select {
		case <-halted:
		case <-ctx.Done():
			return &Fault{Err: ctx.Err(), Sent: true}
		}
	}
	return err
}

func (s *service) call(ctx context.Context, node int) error {
	s.mu.Lock()
	s.calls[node]++
	works := s.works[node]
	s.mu.Unlock()
	return s.answer(ctx, node, works)
}

func (s *service) probe(ctx context.Context, node int) error {
	s.mu.Lock()
	s.probes[node]++
	s.mu.Unlock()
	return s.answer(ctx, node, 0)
}

func (s *service) counts() (calls, probes []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls), slices.Clone(s.probes)
}

var errBroken = &Fault{Err: errors.New("broken")}

// run runs a test in virtual time with a set of nodes.
func run(t *testing.T, nodes int, settings Settings, test func(t *testing.T, s *Set, svc *service)) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(nodes)
		settings.Probe = svc.probe
		var names []string
		for i := range nodes {
			names = append(names, fmt.Sprint("node", i))
		}
		s := New(names, settings)
		defer s.Close()
		test(t, s, svc)
	})
}

// after lets time pass, and everything that is due then.
func after(d time.Duration) { time.Sleep(d); synctest.Wait() }

func TestABreakerOpensAndIsProbed(t *testing.T) {
	var told []State
	run(t, 1, Settings{Open: time.Second, Changed: func(s State) { told = append(told, s) }}, func(t *testing.T, s *Set, svc *service) {
		svc.tell(0, errBroken, 0)
		for i := range faultsInRow {
			if s.State() != OK {
				t.Fatalf("open after %d faults", i)
			}
			// Each read makes two attempts at the only node: these make one.
			if err := s.Write(t.Context(), svc.call); err == nil {
				t.Fatal("no error")
			}
		}
		if s.State() != CacheOnly || s.Nodes()[0].Breaker != "open" {
			t.Fatalf("%v, %+v", s.State(), s.Nodes()[0])
		}
		before, _ := svc.counts()
		err := s.Read(t.Context(), svc.call)
		if edek.KindOf(err) != edek.Unavailable || err.Error() != "ask upstream: cache-only: no node can be reached: their logs and the network between may say why" {
			t.Error(err)
		}
		if now, _ := svc.counts(); now[0] != before[0] {
			t.Error("a user's request went to an open node")
		}
		after(999 * time.Millisecond)
		if _, probes := svc.counts(); probes[0] != 0 {
			t.Error("probed too soon")
		}
		after(time.Millisecond)
		if _, probes := svc.counts(); probes[0] != 1 {
			t.Error("not probed in time")
		}
		after(5 * time.Second)
		if _, probes := svc.counts(); probes[0] != 6 || s.State() != CacheOnly {
			t.Errorf("%d probes, %v", probes[0], s.State())
		}
		svc.tell(0, nil, 0)
		after(time.Second)
		if s.State() != OK || s.Read(t.Context(), svc.call) != nil {
			t.Errorf("%v, %+v", s.State(), s.Nodes())
		}
		after(time.Minute)
		if _, probes := svc.counts(); probes[0] != 7 {
			t.Errorf("%d probes: a healthy node is probed", probes[0])
		}
		if !slices.Equal(told, []State{CacheOnly, OK}) {
			t.Errorf("told %v", told)
		}
	})
}

// Five requests an hour that all fail are enough, and so are five that take long.
func TestFaultsInARowAreNotForgotten(t *testing.T) {
	run(t, 1, Settings{}, func(t *testing.T, s *Set, svc *service) {
		svc.tell(0, errBroken, 0)
		for range faultsInRow {
			s.Write(t.Context(), svc.call)
			time.Sleep(12 * time.Minute)
		}
		if s.State() != CacheOnly {
			t.Errorf("%+v", s.Nodes())
		}
	})
	run(t, 1, Settings{Attempt: time.Hour}, func(t *testing.T, s *Set, svc *service) {
		svc.tell(0, nil, 24*time.Hour)
		for range faultsInRow {
			s.Write(t.Context(), svc.call)
		}
		if s.State() != CacheOnly {
			t.Errorf("%+v", s.Nodes())
		}
	})
}

// Half of the attempts failing opens a breaker too; now and then one does not.
func TestFaultsWithinTheWindow(t *testing.T) {
	often := func(every, n int) (opened uint64) {
		run(t, 1, Settings{Open: time.Hour}, func(t *testing.T, s *Set, svc *service) {
			for i := range n {
				svc.tell(0, nil, 0)
				if i%every == 0 {
					svc.tell(0, errBroken, 0)
				}
				s.Write(t.Context(), svc.call)
				time.Sleep(100 * time.Millisecond)
			}
			opened = s.Nodes()[0].Opened
		})
		return opened
	}
	if often(2, 100) == 0 {
		t.Error("half of all attempts fail, and the node stays in use")
	}
	if often(4, 10_000) != 0 {
		t.Error("old faults are never forgotten")
	}
}

func TestAnswersAndLeavingCallersAreNoFaults(t *testing.T) {
	run(t, 2, Settings{Attempt: time.Second}, func(t *testing.T, s *Set, svc *service) {
		svc.tell(0, &edek.Foreign{Status: 403}, 0)
		svc.tell(1, &edek.Foreign{Status: 500}, 0)
		for range 100 {
			if _, ok := errors.AsType[*edek.Foreign](s.Read(t.Context(), svc.call)); !ok {
				t.Fatal("the exception is lost")
			}
		}
		if calls, _ := svc.counts(); calls[0]+calls[1] != 100 {
			t.Errorf("exceptions are asked for again: %v", calls)
		}
		svc.tell(0, nil, 0)
		svc.tell(1, nil, 0)
		svc.busy(0, time.Hour)
		svc.busy(1, time.Hour)
		for range 100 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(900*time.Millisecond, cancel)
			s.Read(ctx, svc.call)
			ctx, cancel = context.WithTimeout(t.Context(), 400*time.Millisecond)
			s.Read(ctx, svc.call)
			cancel()
		}
		for _, n := range s.Nodes() {
			if n.Faults != 0 || !n.Usable || n.InFlight != 0 {
				t.Errorf("%+v", n)
			}
		}
		// A caller with nearly as much patience as an attempt has does tell.
		svc.tell(0, nil, time.Hour)
		svc.tell(1, nil, time.Hour)
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), 900*time.Millisecond)
			s.Read(ctx, svc.call)
			cancel()
		}
		if s.State() != CacheOnly {
			t.Errorf("%+v", s.Nodes())
		}
	})
}

// One of two nodes hangs: nobody fails, and nobody waits longer than two attempts.
func TestAHangingNodeCostsAtMostOneAttempt(t *testing.T) {
	run(t, 2, Settings{Attempt: time.Second}, func(t *testing.T, s *Set, svc *service) {
		svc.tell(0, nil, 30*time.Millisecond)
		svc.tell(1, nil, time.Hour)
		var failed, late atomic.Int64
		var all sync.WaitGroup
		for range 500 {
			all.Go(func() {
				began := time.Now()
				if s.Read(t.Context(), svc.call) != nil {
					failed.Add(1)
				}
				if time.Since(began) > 2*time.Second {
					late.Add(1)
				}
			})
			time.Sleep(2 * time.Millisecond)
		}
		all.Wait()
		if failed.Load() != 0 || late.Load() != 0 || s.Nodes()[1].Usable {
			t.Errorf("%d failed, %d late, %+v", failed.Load(), late.Load(), s.Nodes())
		}
	})
}

func TestRetriesAreBudgeted(t *testing.T) {
	run(t, 1, Settings{InFlight: 10}, func(t *testing.T, s *Set, svc *service) {
		const reads = 1000
		attempts, failed := 0, 0
		for i := range reads {
			first := true
			err := s.Read(t.Context(), func(context.Context, int) error {
				attempts++
				if first && i%5 < 2 { // too few, and too few in a row, for the breaker
					first = false
					return errBroken
				}
				return nil
			})
			if err != nil {
				failed++
			}
		}
		retries := attempts - reads
		if retries < reads/10 || retries > reads/10+10 || failed != 2*reads/5-retries || s.State() != OK {
			t.Errorf("%d retries and %d failures of %d reads, %v", retries, failed, reads, s.State())
		}
	})
}

func TestInFlightIsBounded(t *testing.T) {
	run(t, 2, Settings{InFlight: 3, Attempt: time.Minute}, func(t *testing.T, s *Set, svc *service) {
		svc.busy(0, time.Second)
		svc.busy(1, time.Second)
		var served atomic.Int64
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				began := time.Now()
				err := s.Read(t.Context(), svc.call)
				if err == nil {
					served.Add(1)
				} else if edek.KindOf(err) != edek.Unavailable || time.Since(began) != 0 {
					t.Errorf("%v after %v", err, time.Since(began))
				}
			})
		}
		all.Wait()
		if served.Load() != 6 || s.State() != OK {
			t.Errorf("%d served, %v", served.Load(), s.State())
		}
	})
}

func TestTheFasterNodeIsPreferred(t *testing.T) {
	run(t, 2, Settings{}, func(t *testing.T, s *Set, svc *service) {
		svc.tell(0, nil, 5*time.Millisecond)
		svc.tell(1, nil, 50*time.Millisecond)
		for range 1000 {
			s.Read(t.Context(), svc.call)
		}
		calls, _ := svc.counts()
		if calls[1] > 150 || calls[1] == 0 {
			t.Errorf("%v", calls)
		}
		// What was slow is tried again, and used once it is fast.
		svc.tell(1, nil, 5*time.Millisecond)
		for range 20_000 {
			s.Read(t.Context(), svc.call)
		}
		if now, _ := svc.counts(); now[1]-calls[1] < 5000 {
			t.Errorf("%v", now)
		}
	})
}

func TestChangesAreMadeOnce(t *testing.T) {
	run(t, 3, Settings{}, func(t *testing.T, s *Set, svc *service) {
		sent := &Fault{Err: errors.New("closed"), Sent: true}
		for i := range 3 {
			svc.tell(i, sent, 0)
		}
		for range 3 {
			if err := s.Write(t.Context(), svc.call); err != sent {
				t.Errorf("%v", err)
			}
		}
		if calls, _ := svc.counts(); calls[0]+calls[1]+calls[2] != 3 {
			t.Errorf("%v", calls)
		}
		for i := range 3 {
			svc.tell(i, errBroken, 0)
		}
		svc.tell(1, nil, 0)
		for range 4 {
			if err := s.Write(t.Context(), svc.call); err != nil && err != errBroken {
				t.Errorf("%v", err)
			}
		}
	})
}

// A suspended node comes back by a probe that began after the last suspension.
func TestSuspension(t *testing.T) {
	run(t, 2, Settings{Attempt: 10 * time.Second, Open: time.Second}, func(t *testing.T, s *Set, svc *service) {
		svc.tell(1, nil, 4*time.Second)
		s.Suspend(1)
		if s.Usable(1) || s.State() != OK {
			t.Fatal("a suspended node is in use")
		}
		after(3 * time.Second)
		s.Suspend(1)
		after(1500 * time.Millisecond)
		if _, probes := svc.counts(); s.Usable(1) || probes[1] != 1 {
			t.Fatal("a probe from before a suspension ended it")
		}
		for range 50 {
			if err := s.Read(t.Context(), svc.call); err != nil {
				t.Fatal(err)
			}
		}
		if calls, _ := svc.counts(); calls[1] != 0 {
			t.Errorf("%d requests to a suspended node", calls[1])
		}
		after(6 * time.Second)
		if !s.Usable(1) {
			t.Error("the node stays suspended")
		}
		s.Suspend(0)
		s.Suspend(1)
		if s.State() != CacheOnly {
			t.Errorf("%v with all nodes suspended", s.State())
		}
	})
}

// Whatever happens to the nodes: a read reaches only nodes that are in use, at
// most twice, not counting where it was given up; a node is out of use after so many faults in a row; and once all
// behave for a while, all are in use and the word is ok.
func TestBreakersAsAWhole(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		nodes := rapid.IntRange(1, 4).Draw(r, "nodes")
		steps := rapid.SliceOfN(rapid.Custom(func(r *rapid.T) [3]int {
			return [3]int{rapid.IntRange(0, 4).Draw(r, "what"), rapid.IntRange(0, nodes-1).Draw(r, "node"), rapid.IntRange(1, 3000).Draw(r, "milliseconds")}
		}), 1, 60).Draw(r, "steps")
		run(t, nodes, Settings{Attempt: time.Second, Open: time.Second}, func(t *testing.T, s *Set, svc *service) {
			inRow := make([]int, nodes)
			for _, step := range steps {
				switch what, node := step[0], step[1]; what {
				case 0:
					svc.tell(node, nil, 5*time.Millisecond)
				case 1:
					svc.tell(node, errBroken, 0)
				case 2:
					svc.tell(node, nil, time.Hour)
				case 3:
					s.Suspend(node)
				case 4:
					after(time.Duration(step[2]) * time.Millisecond)
				}
				attempts := 0
				s.Read(t.Context(), func(ctx context.Context, node int) error {
					if !s.Usable(node) {
						t.Errorf("a read at %+v", s.Nodes()[node])
					}
					err := svc.call(ctx, node)
					if errors.Is(err, context.Canceled) {
						return err
					}
					attempts++
					if inRow[node]++; err == nil {
						inRow[node] = 0
					}
					return err
				})
				if attempts > 2 {
					t.Errorf("%d attempts", attempts)
				}
				for i, n := range inRow {
					if n < faultsInRow {
						continue
					}
					if inRow[i] = 0; s.Usable(i) {
						t.Errorf("in use after %d faults: %+v", n, s.Nodes()[i])
					}
				}
			}
			for i := range nodes {
				svc.tell(i, nil, 0)
			}
			after(5 * time.Second)
			for _, n := range s.Nodes() {
				if !n.Usable || s.State() != OK {
					t.Errorf("%v, %+v", s.State(), n)
				}
			}
		})
	})
}

func TestWords(t *testing.T) {
	if got := fmt.Sprint(OK, ReadOnly, CacheOnly, Down); got != "ok read-only cache-only down" {
		t.Error(got)
	}
}

func TestNodesAreTold(t *testing.T) {
	var told []string
	tell := func(node int, usable bool, why error) { told = append(told, fmt.Sprint(node, usable, why)) }
	run(t, 2, Settings{NodeChanged: tell}, func(t *testing.T, s *Set, svc *service) {
		svc.tell(0, errBroken, 0)
		for range 100 {
			s.Read(t.Context(), svc.call)
		}
		synctest.Wait()
		svc.tell(0, nil, 0)
		after(2 * time.Second)
		svc.tell(0, nil, time.Second)
		svc.tell(1, nil, 2*time.Second)
		s.Suspend(0) // not for what was wrong before
		synctest.Wait()
		s.Blame(1, errors.New("no answer"))
		after(3 * time.Second)
		want := []string{"0 false broken", "0 true <nil>", "0 false <nil>", "1 false no answer", "0 true <nil>", "1 true <nil>"}
		if !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}
