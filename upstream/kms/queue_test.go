package kms

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream/queue"
)

var bob = edek.Caller{User: "bob", Full: "bob@EXAMPLE"}

// slow hangs, until it is released, whatever is about the key "slow".
func slow(release <-chan struct{}) func(http.ResponseWriter, *http.Request) bool {
	hangs := hang(release)
	return func(w http.ResponseWriter, r *http.Request) bool {
		return strings.Contains(r.URL.Path, "/slow/") && hangs(w, r)
	}
}

// flood makes n calls as alice that hang, and waits until as many of them wait
// as have to. all is done when they have ended.
func flood(t *testing.T, c *Client, n, wait int, ended func(error)) (all *sync.WaitGroup) {
	all = new(sync.WaitGroup)
	for range n {
		all.Go(func() { ended(generate(c, "slow", 1)) })
	}
	eventually(t, "the others wait", func() bool { return c.Queue().Waiting == wait })
	return all
}

func TestAFloodLeavesRoom(t *testing.T) {
	f := startFake(t, "slow", "k")
	release := make(chan struct{})
	f.set(slow(release))
	c := newClient(t, func(c *Config) { c.InFlight = 4 }, f)
	all := flood(t, c, 50, 47, func(err error) {
		if err != nil {
			t.Error(err)
		}
	})
	for range 20 {
		if _, err := c.Generate(t.Context(), bob, "k", 1); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Names(t.Context(), edek.Caller{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Roll(t.Context(), edek.Caller{User: "alice", Real: "bob"}, "k", nil); err != nil {
			t.Fatal(err)
		}
	}
	if c.Queue() != (queue.Status{Waiting: 47}) {
		t.Errorf("%+v", c.Queue())
	}
	close(release)
	all.Wait()
	if s := c.Nodes()[0]; s.InFlight != 0 || s.Faults != 0 || c.Queue() != (queue.Status{}) {
		t.Errorf("%+v, %+v", s, c.Queue())
	}
}

func TestAFullQueue(t *testing.T) {
	f := startFake(t, "slow", "k")
	release := make(chan struct{})
	f.set(slow(release))
	c := newClient(t, func(c *Config) { c.InFlight = 1 }, f)
	var refused atomic.Int64
	const text = "ok: too many calls wait for the upstream KMS"
	all := flood(t, c, 17, 16, func(err error) {
		if err != nil {
			refused.Add(1)
			wantKind(t, err, edek.Unavailable, text)
		}
	})
	wantKind(t, generate(c, "slow", 1), edek.Unavailable, text, "try again")
	all.Go(func() {
		if _, err := c.Generate(t.Context(), bob, "k", 1); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "a call of who has most gives way", func() bool { return refused.Load() == 1 })
	if c.Queue() != (queue.Status{Waiting: 16, Refused: 2}) {
		t.Errorf("%+v", c.Queue())
	}
	close(release)
	all.Wait()
}

// The only node goes out of use while calls hang there: those that wait are told
// while those still hang.
func TestWaitingEndsWithTheNodes(t *testing.T) {
	f := startFake(t, "slow")
	release := make(chan struct{})
	f.set(hang(release))
	c := newClient(t, func(c *Config) { c.InFlight = 8 }, f)
	var told atomic.Int64
	all := flood(t, c, 100, 94, func(err error) {
		if err != nil {
			told.Add(1)
			wantKind(t, err, edek.Unavailable, "cache-only")
		}
	})
	c.set.Suspend(0)
	eventually(t, "who waits is told", func() bool { return told.Load() == 94 })
	if n := c.Nodes()[0].InFlight; n != 6 {
		t.Errorf("%d in flight", n)
	}
	close(release)
	all.Wait()
	eventually(t, "the node is in use again", func() bool { return c.set.Usable(0) })
	if err := generate(c, "slow", 1); err != nil {
		t.Error(err)
	}
}

// What a call waits counts as its time.
func TestWaitingHasAnEnd(t *testing.T) {
	c := newClient(t, func(c *Config) { c.InFlight = 1; c.Attempt = 20 * time.Millisecond }, startFake(t, "k"))
	place, _ := c.queue.Take(queue.Caller{User: "bob"})
	wantKind(t, generate(c, "k", 1), edek.Unavailable, "ok: the upstream KMS has too much to do to answer in time")
	if c.Queue() != (queue.Status{Refused: 1}) {
		t.Errorf("%+v", c.Queue())
	}
	place.Leave()
}

func TestWhoGivesUpWhileHeWaits(t *testing.T) {
	c := newClient(t, func(c *Config) { c.InFlight = 1 }, startFake(t, "k"))
	place, _ := c.queue.Take(queue.Caller{User: "bob"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Generate(ctx, alice, "k", 1)
	wantKind(t, err, edek.Unavailable, "ok: the call was given up while it waited")
	if c.Queue() != (queue.Status{}) {
		t.Errorf("%+v", c.Queue())
	}
	place.Leave()
}

// An invalidation goes past the queue, and refuses nobody who waits there.
func TestInvalidationsGoPastTheQueue(t *testing.T) {
	f := startFake(t, "slow", "k")
	release, invalidated := make(chan struct{}), make(chan struct{})
	calls, invalidations := slow(release), slow(invalidated)
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/_invalidatecache") {
			return invalidations(w, r)
		}
		return calls(w, r)
	})
	c := newClient(t, func(c *Config) { c.InFlight = 2 }, f)
	good := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	ended := make(chan struct{})
	all := flood(t, c, 1, 0, func(err error) { good(err); close(ended) })
	bobs, _ := c.queue.Take(queue.Caller{User: "bob"}) // stays
	eventually(t, "the node has a request", func() bool { return c.Nodes()[0].InFlight == 1 })
	all.Go(func() { good(generate(c, "k", 1)) })
	all.Go(func() { good(c.InvalidateEverywhere(t.Context(), "slow")) })
	eventually(t, "the node has another", func() bool { return c.Nodes()[0].InFlight == 2 && c.Queue().Waiting == 1 })
	close(release)
	<-ended
	if c.Queue() != (queue.Status{Waiting: 1}) {
		t.Errorf("%+v", c.Queue())
	}
	close(invalidated)
	all.Wait()
	bobs.Leave()
}

func BenchmarkGenerate1(b *testing.B) {
	f := startFake(b, "k")
	f.set(text(`[{"versionName":"k@0","iv":"AAAAAAAAAAAAAAAAAAAAAA","encryptedKeyVersion":{"material":"AAAAAAAAAAAAAAAAAAAAAA","name":"k","versionName":"EEK"}}]`))
	c := newClient(b, nil, f)
	b.ReportAllocs()
	for b.Loop() {
		if err := generate(c, "k", 1); err != nil {
			b.Fatal(err)
		}
	}
}
