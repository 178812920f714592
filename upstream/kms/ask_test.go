package kms

import (
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/edek"
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
	var log strings.Builder
	f := startFake(t, "k", "a/b")
	f.set(cut(""))
	c := newClient(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(io.Writer(&log), nil)) }, f)
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
	if !strings.Contains(log.String(), "a/b") || !strings.Contains(log.String(), f.addr) {
		t.Errorf("log: %s", log.String())
	}
	if got := strings.Join(f.seen(), " "); !strings.Contains(got, "/k/_invalidatecache") {
		t.Errorf("the node was not told of the other name: %s", got)
	}
	wantKind(t, c.InvalidateEverywhere(t.Context(), "a/b"), edek.Invalid, "does not take this name")
	if !c.Nodes()[0].Usable {
		t.Error("the node is out of use for a name that it does not take")
	}
}
