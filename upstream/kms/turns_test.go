package kms

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream/queue"
)

// Names that one caller has looked up take his turns: what edekd asks of its own
// accord, and for others, is neither refused nor kept waiting by them.
func TestLookupsTakeTheTurnsOfWhomTheyAreFor(t *testing.T) {
	f := startFake(t, "k")
	release := make(chan struct{})
	hangs := hang(release)
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		return strings.HasPrefix(r.URL.Query().Get("key"), "none") && hangs(w, r)
	})
	c := newClient(t, func(c *Config) { c.InFlight = 4 }, f)
	lookup := func(who queue.Caller, name string) error {
		_, err := c.KeysMetadata(queue.For(t.Context(), who), edek.Caller{}, []string{name})
		return err
	}
	eve := queue.Caller{User: "eve"}
	var all sync.WaitGroup
	for range 67 {
		all.Go(func() { lookup(eve, "none") })
	}
	eventually(t, "the queue is full of one caller's", func() bool { return c.Queue().Waiting == 64 })
	wantKind(t, lookup(eve, "none"), edek.Unavailable, "too many calls wait")
	for range 10 {
		if _, err := c.KeysMetadata(t.Context(), edek.Caller{}, []string{"k"}); err != nil {
			t.Errorf("of its own accord: %v", err)
		}
		if err := lookup(queue.Caller{User: "hdfs"}, "k"); err != nil {
			t.Errorf("for another: %v", err)
		}
		if err := lookup(queue.Caller{User: "eve", Real: "hive"}, "k"); err != nil {
			t.Errorf("for another real user: %v", err)
		}
	}
	if _, err := c.Generate(queue.For(t.Context(), eve), bob, "k", 1); err != nil {
		t.Errorf("in a caller's name it is his turn: %v", err)
	}
	close(release)
	all.Wait()
}
