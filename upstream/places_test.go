package upstream

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// What hangs at a node that is out of use takes no place at another; what goes to
// a node past the bound does.
func TestPlaces(t *testing.T) {
	run(t, 2, Settings{InFlight: 10, Attempt: time.Minute, Open: time.Hour}, func(t *testing.T, s *Set, svc *service) {
		want := func(places int) {
			t.Helper()
			if synctest.Wait(); s.Places() != places {
				t.Errorf("%d places instead of %d", s.Places(), places)
			}
		}
		var all sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		svc.tell(0, nil, time.Hour)
		svc.tell(1, nil, time.Hour)
		want(20)
		for range 20 {
			all.Go(func() { s.Read(ctx, svc.call) })
		}
		want(20)
		all.Go(func() { s.At(ctx, 0, svc.call) })
		want(19)
		s.Suspend(1)
		want(10 - 1 + 10)
		all.Go(func() { s.At(ctx, 1, svc.call) })
		want(10 - 2 + 11)
		s.Suspend(0)
		want(0)
		cancel()
		all.Wait()
	})
	run(t, 1, Settings{InFlight: 1, Attempt: time.Minute}, func(t *testing.T, s *Set, svc *service) {
		svc.tell(0, nil, time.Second)
		go s.At(t.Context(), 0, svc.call)
		if synctest.Wait(); s.Places() != 1 {
			t.Errorf("%d places: everybody would be refused", s.Places())
		}
		after(time.Second)
	})
}
