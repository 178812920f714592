package daemon

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Signals are those to stop and to reload.
type Signals chan os.Signal

// Catch catches the signals from now on and never releases them: none shall cut
// the closing short.
func Catch() Signals {
	signals := make(Signals, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	return signals
}

// Opening is for what comes before Run and may have to wait, for another server
// say. Its context ends at a signal to stop; the process then ends within the
// time that Run has for it, whatever hangs. opened has to be called after what was
// opened, with or without success, and tells whether there was such a signal,
// which Run then finds again. SIGHUP has no effect meanwhile, since nothing is in
// force yet.
func (s Signals) Opening(ctx context.Context) (opening context.Context, opened func() (stopped bool)) {
	return s.opening(ctx, os.Exit)
}

func (s Signals) opening(ctx context.Context, exit func(code int)) (context.Context, func() bool) {
	opening, cancel := context.WithCancel(ctx)
	done, result := make(chan struct{}), make(chan bool)
	go func() {
		var stop os.Signal
		for {
			select {
			case <-done:
				if stop != nil {
					s <- stop
				}
				result <- stop != nil
				return
			case sig := <-s:
				if stop == nil && sig != syscall.SIGHUP {
					stop = sig
					time.AfterFunc(closingUntil, func() { exit(ExitFailed) })
					cancel()
				}
			}
		}
	}()
	return opening, func() bool {
		defer cancel()
		close(done)
		return <-result
	}
}
