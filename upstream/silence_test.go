package upstream

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// load makes reads at an even rate for some time, waits for them, and returns how
// many failed and how long the slowest took. What happens at a time is told first.
func load(t *testing.T, s *Set, svc *service, reads int, every time.Duration, at int, event func()) (failed int64, slowest time.Duration) {
	var failures, most atomic.Int64
	var all sync.WaitGroup
	for i := range reads {
		if i == at {
			event()
		}
		all.Go(func() {
			began := time.Now()
			if err := s.Read(t.Context(), svc.call); err != nil {
				failures.Add(1)
			}
			for took := int64(time.Since(began)); ; {
				if was := most.Load(); took <= was || most.CompareAndSwap(was, took) {
					break
				}
			}
		})
		time.Sleep(every)
	}
	all.Wait()
	return failures.Load(), time.Duration(most.Load())
}

// With the default settings one of two nodes hangs under load: within a second it
// is out of use, and those who waited for it have their answers from the other.
func TestAHungNodeIsKnownWithinASecond(t *testing.T) {
	for _, every := range []time.Duration{2 * time.Millisecond, 200 * time.Millisecond} {
		run(t, 2, Settings{}, func(t *testing.T, s *Set, svc *service) {
			svc.tell(0, nil, 30*time.Millisecond)
			svc.tell(1, nil, 30*time.Millisecond)
			var before Status
			gone := make(chan time.Duration, 1)
			failed, slowest := load(t, s, svc, 3000, every, 1000, func() {
				before = s.Nodes()[1]
				svc.halt(1)
				began := time.Now()
				go func() {
					for s.Usable(1) {
						time.Sleep(time.Millisecond)
					}
					gone <- time.Since(began)
				}()
			})
			took := <-gone
			now := s.Nodes()[1]
			if took > time.Second && every < 100*time.Millisecond || failed != 0 || slowest > time.Second {
				t.Errorf("out of use after %v, %d failed, the slowest took %v", took, failed, slowest)
			}
			if now.Usable || now.Opened == before.Opened || now.Faults == before.Faults || s.State() != OK {
				t.Errorf("%+v", now)
			}
			svc.resume(1)
			after(time.Second)
			if !s.Usable(1) {
				t.Error("the node answers and stays out of use")
			}
		})
	}
}

// What takes long at a node that is well takes nothing from anybody.
func TestASlowRequestIsNoSilence(t *testing.T) {
	run(t, 2, Settings{Attempt: time.Minute}, func(t *testing.T, s *Set, svc *service) {
		svc.busy(0, 40*time.Second)
		svc.busy(1, 40*time.Second)
		if err := s.Read(t.Context(), svc.call); err != nil {
			t.Error(err)
		}
		_, probes := svc.counts()
		if n := probes[0] + probes[1]; n < 30 || n > 40 {
			t.Errorf("%d probes in 40 seconds", n)
		}
		if err := s.Write(t.Context(), svc.call); err != nil {
			t.Error(err)
		}
		for _, n := range s.Nodes() {
			if !n.Usable || n.Opened != 0 || n.Faults != 0 {
				t.Errorf("%+v", n)
			}
		}
	})
}

// A node that hangs goes though the other has nothing to say but that it lives.
func TestANodeThatHangsBesideABusyOne(t *testing.T) {
	run(t, 2, Settings{}, func(t *testing.T, s *Set, svc *service) {
		svc.busy(0, 4*time.Second)
		svc.halt(1)
		var all sync.WaitGroup
		for i := range 2 {
			all.Go(func() { s.At(t.Context(), i, svc.call) })
		}
		after(time.Second)
		if !s.Usable(0) || s.Usable(1) {
			t.Errorf("%+v", s.Nodes())
		}
		svc.resume(1)
		all.Wait()
	})
}

// Where answers take long, the one by which a node shows that it lives may, too.
func TestSlowNodesAreNotSilent(t *testing.T) {
	run(t, 2, Settings{}, func(t *testing.T, s *Set, svc *service) {
		slow := func(takes time.Duration) {
			svc.tell(0, nil, takes)
			svc.tell(1, nil, takes)
			if failed, _ := load(t, s, svc, 100, 300*time.Millisecond, 0, func() {}); failed != 0 {
				t.Errorf("%d failed", failed)
			}
		}
		slow(100 * time.Millisecond)
		slow(200 * time.Millisecond)
		slow(600 * time.Millisecond)
		for _, n := range s.Nodes() {
			if n.Opened != 0 {
				t.Errorf("%+v", n)
			}
		}
	})
	// A node that hangs is known within a second all the same.
	run(t, 2, Settings{}, func(t *testing.T, s *Set, svc *service) {
		svc.tell(0, nil, 600*time.Millisecond)
		svc.tell(1, nil, 600*time.Millisecond)
		load(t, s, svc, 1500, 20*time.Millisecond, 1000, func() {
			svc.halt(1)
			time.AfterFunc(time.Second, func() {
				if s.Usable(1) {
					t.Errorf("%+v", s.Nodes()[1])
				}
			})
		})
		svc.resume(1)
	})
}

// The last node may be slow rather than hung: its answers are waited for.
func TestTheLastNodeIsNotTakenOut(t *testing.T) {
	run(t, 1, Settings{}, func(t *testing.T, s *Set, svc *service) {
		svc.tell(0, nil, 4*time.Second)
		for range 20 {
			if err := s.Read(t.Context(), svc.call); err != nil {
				t.Fatal(err)
			}
		}
		if n := s.Nodes()[0]; n.Opened != 0 || n.Faults != 0 {
			t.Errorf("%+v", n)
		}
		if _, probes := svc.counts(); probes[0] != 0 {
			t.Errorf("%d probes of the only node", probes[0])
		}
	})
	run(t, 2, Settings{}, func(t *testing.T, s *Set, svc *service) {
		svc.tell(0, errBroken, time.Hour)
		svc.tell(1, nil, 4*time.Second)
		s.Suspend(0)
		for range 20 {
			if err := s.Read(t.Context(), svc.call); err != nil {
				t.Fatal(err)
			}
		}
		if n := s.Nodes()[1]; n.Opened != 0 || n.Faults != 0 {
			t.Errorf("%+v", n)
		}
	})
}

// Nodes that all hang are left to their breakers; as soon as one answers again,
// the others are out of use.
func TestAllNodesHang(t *testing.T) {
	run(t, 2, Settings{Open: time.Hour}, func(t *testing.T, s *Set, svc *service) {
		svc.tell(0, nil, time.Hour)
		svc.tell(1, nil, time.Hour)
		failed, slowest := load(t, s, svc, 100, 10*time.Millisecond, 0, func() {})
		if failed != 100 || slowest > 11*time.Second || s.State() != CacheOnly {
			t.Errorf("%d of 100 failed, the slowest took %v; %+v", failed, slowest, s.Nodes())
		}
	})
	run(t, 2, Settings{}, func(t *testing.T, s *Set, svc *service) {
		svc.halt(0)
		svc.halt(1)
		failed, slowest := load(t, s, svc, 400, 10*time.Millisecond, 200, func() {
			if !s.Usable(0) || !s.Usable(1) {
				t.Errorf("%+v", s.Nodes())
			}
			svc.resume(0)
			time.AfterFunc(time.Second, func() {
				if !s.Usable(0) || s.Usable(1) {
					t.Errorf("%+v", s.Nodes())
				}
			})
		})
		if failed != 0 || slowest > 3*time.Second {
			t.Errorf("%d failed, the slowest took %v; %+v", failed, slowest, s.Nodes())
		}
		svc.resume(1)
		if synctest.Wait(); !s.Usable(1) {
			t.Errorf("%+v", s.Nodes())
		}
	})
}

// A node that stops for two seconds, as for garbage, is used again once it goes on.
func TestAPause(t *testing.T) {
	run(t, 2, Settings{}, func(t *testing.T, s *Set, svc *service) {
		svc.tell(0, nil, 5*time.Millisecond)
		svc.tell(1, nil, 5*time.Millisecond)
		failed, slowest := load(t, s, svc, 500, 10*time.Millisecond, 100, func() {
			svc.halt(1)
			time.AfterFunc(time.Second, func() {
				if s.Usable(1) {
					t.Error("in use after a second of silence")
				}
			})
			time.AfterFunc(2*time.Second, func() {
				svc.resume(1)
				if synctest.Wait(); !s.Usable(1) {
					t.Error("out of use though it goes on")
				}
			})
		})
		if n := s.Nodes()[1]; failed != 0 || slowest > time.Second || n.Opened != 1 {
			t.Errorf("%d failed, the slowest took %v; %+v", failed, slowest, n)
		}
	})
}

// A node that stops over and over fails no read, and is in use at the end.
func TestANodeThatHangsNowAndThen(t *testing.T) {
	run(t, 2, Settings{}, func(t *testing.T, s *Set, svc *service) {
		svc.tell(0, nil, 30*time.Millisecond)
		svc.tell(1, nil, 30*time.Millisecond)
		var flaps sync.WaitGroup
		flaps.Go(func() {
			for range 10 {
				time.Sleep(1500 * time.Millisecond)
				svc.halt(1)
				time.Sleep(1500 * time.Millisecond)
				svc.resume(1)
			}
		})
		failed, slowest := load(t, s, svc, 7000, 5*time.Millisecond, 0, func() {})
		flaps.Wait()
		if n := s.Nodes()[1]; failed != 0 || slowest > 2*time.Second || n.Opened < 3 || !n.Usable {
			t.Errorf("%d failed, the slowest took %v; %+v", failed, slowest, n)
		}
	})
}

// A change that may have arrived is waited for, and made nowhere else.
func TestAChangeAtAHungNodeIsWaitedFor(t *testing.T) {
	run(t, 2, Settings{}, func(t *testing.T, s *Set, svc *service) {
		made, at := 0, 0
		began := time.Now()
		err := s.Write(t.Context(), func(ctx context.Context, node int) error {
			made, at = made+1, node
			svc.tell(node, nil, 3*time.Second)
			return svc.call(ctx, node)
		})
		if err != nil || made != 1 || time.Since(began) != 3*time.Second || s.Nodes()[at].Opened != 1 {
			t.Errorf("%v after %v, made %d times; %+v", err, time.Since(began), made, s.Nodes()[at])
		}
	})
}

// What has to reach every node does not wait for one that hangs.
func TestAnAttemptAtACertainNodeIsGivenUp(t *testing.T) {
	run(t, 2, Settings{}, func(t *testing.T, s *Set, svc *service) {
		svc.tell(1, nil, time.Hour)
		began := time.Now()
		err := s.At(t.Context(), 1, svc.call)
		fault, isFault := errors.AsType[*Fault](err)
		if !isFault || !fault.Sent || err.Error() != "node1: it has gone silent" || time.Since(began) > time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// An answer that comes while the node leaves the other question unanswered ends
// the silence.
func TestAnAnswerEndsSilence(t *testing.T) {
	run(t, 2, Settings{}, func(t *testing.T, s *Set, svc *service) {
		asked := 0
		s.settings.Alive = func(ctx context.Context, _ int) error { asked++; <-ctx.Done(); return ctx.Err() }
		svc.tell(1, nil, 300*time.Millisecond)
		if err := s.At(t.Context(), 1, svc.call); err != nil {
			t.Error(err)
		}
		after(time.Second)
		if n := s.Nodes()[1]; !n.Usable || n.Opened != 0 || asked != 1 {
			t.Errorf("asked %d times, %+v", asked, n)
		}
	})
}

// Two of three nodes hang, and nobody who waited for both has to wait for long.
func TestTwoOfThreeNodesHang(t *testing.T) {
	run(t, 3, Settings{}, func(t *testing.T, s *Set, svc *service) {
		svc.halt(0)
		svc.halt(1)
		failed, slowest := load(t, s, svc, 500, 2*time.Millisecond, 0, func() {})
		if failed != 0 || slowest > 2*time.Second || s.Usable(0) || s.Usable(1) {
			t.Errorf("%d failed, the slowest took %v; %+v", failed, slowest, s.Nodes())
		}
		svc.resume(0)
		svc.resume(1)
	})
	run(t, 3, Settings{}, func(t *testing.T, s *Set, svc *service) {
		svc.tell(2, nil, time.Millisecond)
		var at []int
		err := s.Read(t.Context(), func(ctx context.Context, node int) error {
			if at = append(at, node); len(at) == 3 {
				return svc.call(ctx, node)
			}
			svc.tell(node, nil, time.Hour)
			return svc.call(ctx, node)
		})
		if err != nil || len(at) != 3 || at[0] == at[1] || at[1] == at[2] || at[0] == at[2] {
			t.Errorf("%v, nodes %v", err, at)
		}
	})
}

// Who has chosen a node that goes out of use before he asks it goes elsewhere.
func TestANodeThatGoesBeforeItIsAsked(t *testing.T) {
	run(t, 2, Settings{}, func(t *testing.T, s *Set, svc *service) {
		n := s.nodes[1]
		n.enter(1)
		svc.tell(1, errBroken, 0)
		s.Suspend(1)
		err := s.attempt(t.Context(), n, time.Second, true, svc.call)
		fault, isFault := errors.AsType[*Fault](err)
		if calls, _ := svc.counts(); !isFault || fault.Sent || calls[1] != 0 || n.faults.Load() != 0 || n.inFlight.Load() != 0 {
			t.Errorf("%v, %v calls, %+v", err, calls, s.Nodes()[1])
		}
	})
}

// No more is given up than can be retried: the rest waits for the node to go on.
func TestNoMoreIsGivenUpThanCanBeRetried(t *testing.T) {
	run(t, 2, Settings{InFlight: 10}, func(t *testing.T, s *Set, svc *service) {
		retried := 0
		for range 5 {
			svc.halt(1)
			var all sync.WaitGroup
			for range 5 {
				all.Go(func() {
					s.nodes[1].enter(10)
					err := s.attempt(t.Context(), s.nodes[1], 5*time.Second, true, svc.call)
					if err != nil && !(errors.Is(err, errSilent) && s.nodes[0].spend()) {
						t.Error(err)
					}
				})
			}
			after(2 * time.Second)
			retried += 5 - s.Nodes()[1].InFlight
			svc.resume(1)
			all.Wait()
			after(time.Second)
		}
		if retried != 10 {
			t.Errorf("%d retries with a budget of 10", retried)
		}
	})
	// Nor is it given up when the others are full.
	run(t, 2, Settings{InFlight: 10}, func(t *testing.T, s *Set, svc *service) {
		svc.busy(0, 3*time.Second)
		svc.halt(1)
		failed, _ := load(t, s, svc, 20, 0, 0, func() { time.AfterFunc(2*time.Second, func() { svc.resume(1) }) })
		if failed != 0 || s.Nodes()[1].Opened != 1 {
			t.Errorf("%d failed, %+v", failed, s.Nodes())
		}
	})
}

// What is given up goes where there are retries left: a node that spent its own a
// moment ago fails none of it.
func TestWhatIsGivenUpGoesWhereRetriesAreLeft(t *testing.T) {
	run(t, 3, Settings{InFlight: 20}, func(t *testing.T, s *Set, svc *service) {
		for i := range 3 {
			svc.tell(i, nil, 30*time.Millisecond)
		}
		s.nodes[1].budget = 0
		svc.halt(0)
		failed, _ := load(t, s, svc, 30, 0, 0, func() { time.AfterFunc(1500*time.Millisecond, func() { svc.resume(0) }) })
		if failed > 0 || s.Nodes()[0].Opened != 1 {
			t.Errorf("%d of 30 reads failed, %+v", failed, s.Nodes())
		}
	})
}

// Nobody listens where nothing is asked.
func TestAnIdleNodeIsLeftAlone(t *testing.T) {
	run(t, 2, Settings{}, func(t *testing.T, s *Set, svc *service) {
		for range 10 {
			if err := s.Read(t.Context(), svc.call); err != nil {
				t.Fatal(err)
			}
			after(time.Second)
			for _, n := range s.nodes {
				if n.listened.Load() {
					t.Error("a watcher listens to an idle node")
				}
			}
		}
		if _, probes := svc.counts(); probes[0]+probes[1] != 0 {
			t.Errorf("%v probes of nodes that are well", probes)
		}
	})
}

// Attempts that begin while a node goes silent are given up or never made.
func TestNoAttemptIsLeftBehind(t *testing.T) {
	run(t, 2, Settings{Attempt: time.Hour, Open: time.Hour}, func(t *testing.T, s *Set, svc *service) {
		svc.tell(1, nil, 24*time.Hour)
		var all sync.WaitGroup
		for range 2000 {
			all.Go(func() {
				if err := s.Read(t.Context(), svc.call); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(time.Millisecond)
		}
		began := time.Now()
		all.Wait()
		if time.Since(began) > time.Second || len(s.nodes[1].reads) != 0 || s.nodes[1].inFlight.Load() != 0 {
			t.Errorf("%v, %+v", time.Since(began), s.Nodes()[1])
		}
	})
}
