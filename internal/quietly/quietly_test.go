package quietly

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestMinutely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Minutely
		if !m.Due() || m.Due() {
			t.Error("the first of two is told, and no other")
		}
		time.Sleep(time.Minute - 1)
		if m.Due() {
			t.Error("told twice in a minute")
		}
		time.Sleep(1)
		if !m.Due() {
			t.Error("silent for more than a minute")
		}
	})
	var m Minutely
	m.Due()
	if last := m.last.Load(); *last == last.Round(0) {
		t.Error("setting the clock back silences the log")
	}
}
