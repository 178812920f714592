package kms

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// logged collects a log that is written while it is read.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) has(parts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			return true
		}
	}
	return false
}

// The loss of one of two nodes is in the log, and its return.
func TestNodesComeAndGoInTheLog(t *testing.T) {
	var log logged
	a, b := startFake(t, "k"), startFake(t, "k")
	c := newClient(t, func(c *Config) { c.Log, c.Open = slog.New(slog.NewTextHandler(&log, nil)), 10*time.Millisecond }, a, b)
	b.set(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusBadGateway)
		io.WriteString(w, "<html>")
		return true
	})
	eventually(t, "the log says that it is out of use", func() bool {
		c.Metadata(t.Context(), alice, "k")
		return log.has("level=WARN", "out of use", "node="+b.addr, "error=", "502", "remedy=")
	})
	b.set(nil)
	eventually(t, "the log says that it is used again", func() bool { return log.has("level=INFO", "used again", "node="+b.addr) })
	if log.has("node=" + a.addr) {
		t.Errorf("something is said of the other node:\n%s", log.text.String())
	}
}
