package kms

import (
	"context"
	"log/slog"
	"net/http"
	"testing"
)

// Before any request, the nodes that let edekd in are told from those that do not:
// one that answers, one that denies, one where nothing listens, one that hangs.
func TestNodesAreGreeted(t *testing.T) {
	var log logged
	good, denies, gone, hangs := startFake(t), startFake(t), startFake(t), startFake(t)
	denies.set(func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(http.StatusForbidden); return true })
	gone.server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	hold := make(chan struct{})
	hangs.set(func(w http.ResponseWriter, r *http.Request) bool { cancel(); <-hold; return false })
	t.Cleanup(func() { hangs.set(nil) })
	c := newClient(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) }, good, denies, gone)
	c.Greet(t.Context())
	if n := c.Nodes(); !n[0].Usable || n[1].Usable || n[2].Usable {
		t.Errorf("%+v", n)
	}
	eventually(t, "the log names who denies", func() bool { return log.has("out of use", "node="+denies.addr, "403") })
	eventually(t, "the log names who is gone", func() bool { return log.has("out of use", "node="+gone.addr, "connection refused") })
	denies.set(nil)
	eventually(t, "who lets edekd in later is used", func() bool { return c.Nodes()[1].Usable })

	slow := newClient(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) }, hangs)
	slow.Greet(ctx)
	if slow.Nodes()[0].Usable {
		t.Error("who hangs is taken for good")
	}
	eventually(t, "the log names who hangs", func() bool { return log.has("out of use", "node="+hangs.addr, "no answer") })
	close(hold)
	eventually(t, "what answers late is used", func() bool { return slow.Nodes()[0].Usable })
}
