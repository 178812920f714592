package daemon

import (
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A signal to stop ends what is waited for while opening; none is lost to Run.
func TestOpening(t *testing.T) {
	f := func(want bool, signals ...os.Signal) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			sent := make(Signals, 4)
			var code int
			opening, opened := sent.opening(t.Context(), func(c int) { code = c })
			for _, sig := range signals {
				sent <- sig
			}
			synctest.Wait()
			if got := opening.Err() != nil; got != want {
				t.Errorf("after %v: waiting is over: %v", signals, got)
			}
			time.Sleep(closingUntil)
			synctest.Wait()
			if forced := code == ExitFailed; forced != want {
				t.Errorf("after %v and ten seconds: exit code %d", signals, code)
			}
			if stopped := opened(); stopped != want {
				t.Errorf("after %v: stopped %v", signals, stopped)
			}
			if again := len(sent) == 1; again != want {
				t.Errorf("after %v: Run is told: %v", signals, again)
			}
			sent <- syscall.SIGTERM
			synctest.Wait()
			if len(sent) == 0 {
				t.Error("a signal after the opening is lost to Run")
			}
		})
	}
	f(false)
	f(false, syscall.SIGHUP)
	f(true, syscall.SIGTERM)
	f(true, syscall.SIGHUP, syscall.SIGINT)
}
