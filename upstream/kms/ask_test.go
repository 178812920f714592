package kms

import (
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream"
)

// noSlashes is a web server that answers a path with an encoded slash itself, as
// Apache does with AllowEncodedSlashes Off.
func noSlashes(status int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		path, _, _ := strings.Cut(r.RequestURI, "?")
		return strings.Contains(path, "%2F") && html(status)(w, r)
	}
}

func TestAWebServerThatDoesNotTakeANameIsNoFault(t *testing.T) {
	for _, status := range []int{403, 404, 405} {
		f := startFake(t, "k", "a/b")
		f.set(noSlashes(status))
		c, ctx := newClient(t, func(c *Config) { c.Open = time.Hour }, f), t.Context()
		for range 2 * 20 { // enough for the breaker, in a row and by share
			wantKind(t, generate(c, "a/b", 1), edek.Invalid, "does not take this name", http.StatusText(status))
		}
		_, err := c.Roll(ctx, alice, "a/b", nil)
		wantKind(t, err, edek.Invalid, "does not take this name")
		_, err = c.Version(ctx, alice, "a/b@0")
		wantKind(t, err, edek.Invalid, "does not take this name")
		wantNoFault(t, c)
		if err := generate(c, "k", 1); err != nil {
			t.Error(err)
		}
	}
}

// A node that could not be told of such a name is used again, and the log says
// what it was not told.
func TestANameThatANodeCannotBeToldKeepsItOutForNoTime(t *testing.T) {
	var log logged
	f := startFake(t, "k", "a/b")
	f.set(cut(""))
	c := newClient(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) }, f)
	for _, name := range []string{"a/b", "k"} {
		if err := c.InvalidateEverywhere(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	if c.Nodes()[0].Usable {
		t.Error("the node is used before it is told")
	}
	f.set(noSlashes(404))
	eventually(t, "the node is used again", func() bool { return c.Nodes()[0].Usable })
	if !log.has("a/b", f.addr) {
		t.Errorf("log: %s", log.text.String())
	}
	if got := strings.Join(f.seen(), " "); !strings.Contains(got, "/k/_invalidatecache") {
		t.Errorf("the node was not told of the other name: %s", got)
	}
	wantKind(t, c.InvalidateEverywhere(t.Context(), "a/b"), edek.Invalid, "does not take this name")
	if !c.Nodes()[0].Usable {
		t.Error("the node is out of use for a name that it does not take")
	}
}

// storeGone answers with exceptions but for OPTIONS, and for what only lets through.
func storeGone(only ...string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodOptions || slices.ContainsFunc(only, func(part string) bool { return strings.Contains(r.RequestURI, part) }) {
			return false
		}
		exception(w, 500, "java.io.IOException", "Communications link failure")
		return true
	}
}

// A KMS whose database is away says so to everybody, and takes logins as before.
func TestANodeWhoseStoreIsGoneIsOutOfUse(t *testing.T) {
	var log logged
	f := startFake(t, "k")
	c, ctx := newClient(t, func(c *Config) { c.Open, c.Log = time.Millisecond, slog.New(slog.NewTextHandler(&log, nil)) }, f), t.Context()
	f.set(storeGone())
	for range 40 {
		if err := generate(c, "k", 1); !errors.As(err, new(*edek.Foreign)) {
			t.Fatalf("a user gets %v", err)
		}
	}
	wantNoFault(t, c)
	for i := range exceptionsInRow {
		if c.State() != upstream.OK {
			t.Fatalf("state %v after %d requests of edekd's own", c.State(), i)
		}
		generate(c, "k", 1) // the users' exceptions do not hide anything
		_, err := c.Generate(ctx, edek.Caller{}, "k", 100)
		if last := i == exceptionsInRow-1; errors.As(err, new(*edek.Foreign)) == last {
			t.Errorf("%d: %v", i, err)
		} else if last {
			wantKind(t, err, edek.Unavailable, "cache-only", "nothing but exceptions", "Communications link failure")
		}
	}
	eventually(t, "the log says why", func() bool {
		return log.has("out of use", f.addr, "nothing but exceptions", "Communications link failure")
	})
	asked := func() int { return strings.Count(strings.Join(f.seen(), " "), nobodys) }
	before := asked()
	eventually(t, "the node is probed", func() bool { return asked() > before+3 })
	if c.State() != upstream.CacheOnly {
		t.Errorf("state %v, and the node answers nobody", c.State())
	}
	wantKind(t, generate(c, "k", 1), edek.Unavailable, "cache-only")
	f.set(nil)
	eventually(t, "the node is used again", func() bool { return c.State() == upstream.OK })
	if err := generate(c, "k", 1); err != nil {
		t.Error(err)
	}
}

func TestOfTwoNodesTheOneWhoseStoreIsThereAnswers(t *testing.T) {
	good, bad := startFake(t, "k"), startFake(t, "k")
	bad.set(storeGone())
	c := newClient(t, func(c *Config) { c.Open = time.Hour }, good, bad)
	failed := 0
	eventually(t, "the node is out of use", func() bool {
		if _, err := c.Generate(t.Context(), edek.Caller{}, "k", 1); err != nil {
			failed++
		}
		return !c.Nodes()[1].Usable
	})
	if failed != exceptionsInRow-1 || !c.Nodes()[0].Usable {
		t.Errorf("%d requests failed: the last one goes to the other node", failed)
	}
}

// What is about a key, a right, or a part of the keys takes no node away, however
// often edekd meets it.
func TestExceptionsThatAreNotAboutTheNode(t *testing.T) {
	denial := func(class, text string, status int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodOptions {
				exception(w, status, class, text)
			}
			return r.Method != http.MethodOptions
		}
	}
	for what, misbehave := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"a key that cannot be used":             storeGone("key=" + nobodys),
		"a key that is not the one known":       storeGone("key=known"), // as of an edekd, one of whose stores is gone
		"a node that gives out what it has":     storeGone("_eek", "/key/"),
		"a node that knows of no such version":  storeGone("/keyversion/"),
		"edekd has no rights":                   denial(accessClass, "User:edekd not allowed", 403),
		"denials that look like another's":      denial("java.io.IOException", accessClass+": User:edekd not allowed", 500),
		"what is wrong is said to be the asker": denial("java.lang.IllegalArgumentException", "no", 400),
	} {
		f := startFake(t, "known", "k", "odd")
		c, ctx := newClient(t, func(c *Config) { c.Open = time.Hour }, f), t.Context()
		if _, err := c.KeysMetadata(ctx, edek.Caller{}, []string{"known", "k"}); err != nil {
			t.Fatal(err)
		}
		f.set(misbehave)
		for range 4 * exceptionsInRow {
			c.Generate(ctx, edek.Caller{}, "k", 1)
			c.KeysMetadata(ctx, edek.Caller{}, []string{"odd"})
			c.Version(ctx, alice, "k@7")
		}
		if s := c.Nodes()[0]; !s.Usable || s.Faults != 0 {
			t.Errorf("%s: %+v", what, s)
		}
	}
}
