package audit

import (
	"testing"
	"time"
)

// held is an output whose writes take until release is closed.
type held struct{ begun, release chan struct{} }

func (h held) Write(p []byte) (int, error) {
	close(h.begun)
	<-h.release
	return len(p), nil
}

// Setting the clock back must not keep a node out, nor hide that a write hangs:
// the times by which that is told do not follow the clock.
func TestTimesDoNotFollowTheClock(t *testing.T) {
	out := held{make(chan struct{}), make(chan struct{})}
	l := New(out, Options{})
	l.OK(by("u", GetKeys, ""), "")
	<-out.begun
	l.queue.refuseDenial()
	f := func(what string, at *time.Time) {
		t.Helper()
		if *at == at.Round(0) {
			t.Errorf("%s: %v has no monotonic part", what, at)
		}
	}
	f("write", l.queue.began.Load())
	f("refusal", l.queue.refused.Load())
	close(out.release)
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
