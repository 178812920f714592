package flight

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var dek = []byte("0123456789abcdef")

var errDown = errors.New("connection refused")

// server opens after a second; its first calls fail.
type server struct {
	calls, failing atomic.Int32
}

func (s *server) open(ctx context.Context, dst []byte) ([]byte, error) {
	n := s.calls.Add(1)
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return dst, ctx.Err()
	}
	if n <= s.failing.Load() {
		return dst, errDown
	}
	return append(dst, dek...), nil
}

// outcome is what one caller got.
type outcome struct {
	got    []byte
	shared bool
	err    error
	took   time.Duration
}

// callers has n call at once, the first a moment before the others.
func callers(n int, do func(i int) ([]byte, bool, error)) []outcome {
	results := make(chan outcome)
	for i := range n {
		go func() {
			start := time.Now()
			got, shared, err := do(i)
			results <- outcome{got, shared, err, time.Since(start)}
		}()
		if i == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	var all []outcome
	for range n {
		all = append(all, <-results)
	}
	return all
}

func TestCallsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		s := &server{}
		shared := 0
		for _, r := range callers(10, func(int) ([]byte, bool, error) {
			return g.Do(t.Context(), []byte("x"), ID{User: "alice", Name: "k"}, s.open)
		}) {
			if r.err != nil || !bytes.Equal(r.got, append([]byte("x"), dek...)) {
				t.Errorf("got %q, %v", r.got, r.err)
			}
			if r.shared {
				shared++
			}
		}
		if n := s.calls.Load(); n != 1 || shared != 9 {
			t.Errorf("%d calls, %d shared", n, shared)
		}
		if len(g.calls) != 0 {
			t.Error("a call is left")
		}
		g.Do(t.Context(), nil, ID{User: "alice", Name: "k"}, s.open)
		if n := s.calls.Load(); n != 2 {
			t.Errorf("%d calls: an answer was remembered", n)
		}
	})
}

func TestOnlyTheSameIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		s := &server{}
		ids := []ID{{User: "alice", Name: "k"}, {User: "bob", Name: "k"}, {User: "alice", Real: "oozie", Name: "k"},
			{User: "alice", Name: "l"}, {User: "alice", Name: "k", Epoch: 1}, {User: "alice", Name: "k"}}
		ids[5].EDEK.IV[3] = 1
		callers(len(ids), func(i int) ([]byte, bool, error) { return g.Do(t.Context(), nil, ids[i], s.open) })
		if n := s.calls.Load(); n != int32(len(ids)) {
			t.Errorf("%d calls of %d", n, len(ids))
		}
	})
}

func TestALeadersFailureIsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		s := &server{}
		s.failing.Store(1)
		failed := 0
		for _, r := range callers(10, func(int) ([]byte, bool, error) {
			return g.Do(t.Context(), nil, ID{User: "alice"}, s.open)
		}) {
			if r.err != nil {
				failed++
			} else if !bytes.Equal(r.got, dek) || r.shared {
				t.Errorf("got %q, shared %v", r.got, r.shared)
			}
		}
		if n := s.calls.Load(); failed != 1 || n != 10 {
			t.Errorf("%d failed, %d calls", failed, n)
		}
	})
}

func TestALeadersDeadlineIsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		s := &server{}
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		for _, r := range callers(5, func(i int) ([]byte, bool, error) {
			if i == 0 {
				got, shared, err := g.Do(short, nil, ID{User: "alice"}, s.open)
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the leader got %v", err)
				}
				return got, shared, err
			}
			return g.Do(t.Context(), nil, ID{User: "alice"}, s.open)
		}) {
			if r.err == nil && (!bytes.Equal(r.got, dek) || r.took > 1200*time.Millisecond) {
				t.Errorf("got %q after %v", r.got, r.took)
			}
		}
		if n := s.calls.Load(); n != 5 {
			t.Errorf("%d calls", n)
		}
	})
}

// A follower's deadline ends its waiting, and nobody else's.
func TestAFollowersDeadlineIsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		s := &server{}
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		late := 0
		for _, r := range callers(5, func(i int) ([]byte, bool, error) {
			if i == 1 {
				return g.Do(short, nil, ID{User: "alice"}, s.open)
			}
			return g.Do(t.Context(), nil, ID{User: "alice"}, s.open)
		}) {
			if r.err != nil {
				late++
				if len(r.got) != 0 || r.took > 100*time.Millisecond {
					t.Errorf("the late one got %q after %v", r.got, r.took)
				}
			} else if !bytes.Equal(r.got, dek) {
				t.Errorf("got %q", r.got)
			}
		}
		if n := s.calls.Load(); late != 1 || n != 1 {
			t.Errorf("%d late, %d calls", late, n)
		}
	})
}

// The copy that followers read is zero once the last has read.
func TestTheSharedCopyIsZeroed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		s := &server{}
		var shared []byte
		go g.Do(t.Context(), nil, ID{}, s.open)
		synctest.Wait()
		g.mu.Lock()
		c := g.calls[ID{}]
		c.waiting++ // one who has not read yet
		g.mu.Unlock()
		got, ok, err := g.Do(t.Context(), nil, ID{}, s.open)
		if !ok || err != nil || !bytes.Equal(got, dek) {
			t.Fatalf("got %q, %v, %v", got, ok, err)
		}
		shared = c.dek
		if !bytes.Equal(shared, dek) {
			t.Fatalf("the copy is %q while one waits for it", shared)
		}
		if _, ok, _ := g.wait(t.Context(), nil, c); !ok {
			t.Fatal("the last got nothing")
		}
		if !bytes.Equal(shared, make([]byte, len(dek))) || c.dek != nil {
			t.Errorf("the copy is %x", shared)
		}
	})
}
