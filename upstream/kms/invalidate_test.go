package kms

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream"
)

const invalidated = "POST /kms/v1/key/k/_invalidatecache?user.name=edekd"

func TestEveryNodeForgets(t *testing.T) {
	a, b := startFake(t, "k"), startFake(t, "k")
	c := newClient(t, nil, a, b)
	if err := c.InvalidateEverywhere(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*fake{a, b} {
		if got := f.seen(); !slices.Equal(got, []string{invalidated}) {
			t.Errorf("%q", got)
		}
	}
}

// A caller whose time has run out takes no node out of use, and each is told all the
// same.
func TestAnInvalidationOutlivesItsCaller(t *testing.T) {
	a, b := startFake(t, "k"), startFake(t, "k")
	c := newClient(t, nil, a, b)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.InvalidateEverywhere(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	for i, f := range []*fake{a, b} {
		if got := f.seen(); !slices.Equal(got, []string{invalidated}) || !c.Nodes()[i].Usable {
			t.Errorf("%q, %+v", got, c.Nodes()[i])
		}
	}
}

// A node that missed the invalidation is asked for nothing before it has it.
func TestANodeThatWasAwayForgetsBeforeItIsUsed(t *testing.T) {
	a, b := startFake(t, "k"), startFake(t, "k", "l")
	c := newClient(t, nil, a, b)
	b.set(cut(""))
	for _, name := range []string{"k", "l", "k"} {
		if err := c.InvalidateEverywhere(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if c.Nodes()[1].Usable || c.State() != upstream.OK {
		t.Fatalf("%+v", c.Nodes()[1])
	}
	for range 20 {
		if err := generate(c, "k", 1); err != nil {
			t.Fatal(err)
		}
	}
	b.mu.Lock()
	b.requests, b.misbehave = nil, nil
	b.mu.Unlock()
	eventually(t, "the node is used again", func() bool { return c.Nodes()[1].Usable })
	eventually(t, "the node is asked again", func() bool {
		generate(c, "k", 1)
		return len(b.seen()) > 2
	})
	got := b.seen()
	first := got[:2]
	slices.Sort(first)
	if !slices.Equal(first, []string{invalidated, strings.Replace(invalidated, "/k/", "/l/", 1)}) || strings.Contains(strings.Join(got[2:], " "), "_invalidatecache") {
		t.Errorf("%q", got)
	}
}

// While all nodes are away, nothing is answered; each then forgets first.
func TestAllNodesWereAway(t *testing.T) {
	f := startFake(t, "k")
	f.set(cut(""))
	c := newClient(t, nil, f)
	if err := c.InvalidateEverywhere(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, generate(c, "k", 1), edek.Unavailable, "cache-only")
	f.mu.Lock()
	f.requests, f.misbehave = nil, nil
	f.mu.Unlock()
	eventually(t, "the node is used again", func() bool { return c.State() == upstream.OK })
	if got := f.seen(); !slices.Equal(got, []string{invalidated}) {
		t.Errorf("%q", got)
	}
}

// What a node may not be told is the caller's to know. It stays in use.
func TestANodeThatRefusesToForget(t *testing.T) {
	deny := func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "_invalidatecache") {
			return false
		}
		exception(w, 403, "org.apache.hadoop.security.authorize.AuthorizationException", "User:edekd not allowed to do 'INVALIDATE_CACHE' on 'k'")
		return true
	}
	a, b := startFake(t, "k"), startFake(t, "k")
	b.set(deny)
	var log logged
	c := newClient(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) }, a, b)
	var foreign *edek.Foreign
	if err := c.InvalidateEverywhere(t.Context(), "k"); !errors.As(err, &foreign) || foreign.Node != b.addr {
		t.Errorf("%v", err)
	}
	if !c.Nodes()[1].Usable {
		t.Error("the node is out of use for good")
	}
	// One that was away and then refuses comes back too, and the log says so.
	b.set(cut(""))
	if err := c.InvalidateEverywhere(t.Context(), "k"); err != nil {
		t.Error(err)
	}
	b.set(deny)
	eventually(t, "the node is used again", func() bool { return c.Nodes()[1].Usable })
	if !log.has("INVALIDATE_CACHE") {
		t.Errorf("log: %s", log.text.String())
	}
}

// A key that changes while a node is being told is told again.
func TestANameAddedMeanwhileStays(t *testing.T) {
	var p pending
	p.add("k")
	name, number, _ := p.next()
	p.add("k")
	p.done(name, number)
	name, number, ok := p.next()
	if !ok || name != "k" {
		t.Fatal("the second change is forgotten")
	}
	p.done(name, number)
	if _, _, ok := p.next(); ok {
		t.Error("the name stays for ever")
	}
}

func TestMoreThanCanBeRemembered(t *testing.T) {
	f := startFake(t, "x", "y")
	f.set(cut(""))
	c := newClient(t, func(c *Config) { c.Open = time.Millisecond }, f)
	c.set.Suspend(0)
	p := &c.nodes[0].pending
	for i := range maxPending {
		p.add(fmt.Sprint("n", i))
	}
	p.add("lost")
	p.mu.Lock()
	if len(p.keys) != maxPending || !p.every {
		t.Errorf("%d names, %v", len(p.keys), p.every)
	}
	// The rest of this test would only take time.
	clear(p.keys)
	p.mu.Unlock()
	f.mu.Lock()
	f.requests, f.misbehave = nil, nil
	f.mu.Unlock()
	eventually(t, "the node is used again", func() bool { return c.State() == upstream.OK })
	got := f.seen()
	slices.Sort(got)
	if !slices.Equal(got, []string{"GET /kms/v1/keys/names?user.name=edekd", strings.Replace(invalidated, "/k/", "/x/", 1), strings.Replace(invalidated, "/k/", "/y/", 1)}) {
		t.Errorf("%q", got)
	}
}
