package quietly

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Some{Most: 2}
		want := func(due bool, omitted int) {
			t.Helper()
			if is, left := s.Due(); is != due || left != omitted {
				t.Errorf("%v, %d left out; want %v, %d", is, left, due, omitted)
			}
		}
		want(true, 0)
		want(true, 0)
		want(false, 0)
		want(false, 0)
		time.Sleep(time.Second)
		want(true, 2)
		want(true, 0)
		want(false, 0)
	})
}
