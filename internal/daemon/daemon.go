// Package daemon is the contract every server of this project keeps with
// whoever starts it: it stays in the foreground; SIGTERM or SIGINT drains it
// and ends it with exit code 0 within ten seconds, a second one at once; SIGHUP
// re-reads what can be re-read; a configuration that cannot be served ends it
// with exit code 2.
//
// Ten seconds after the signal the process is gone, whatever hangs: a disk, a
// client, a reload. When closing hangs, the exit code is 1; what has been
// acknowledged must by then be safe without a close.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Exit codes.
const (
	ExitOK     = 0
	ExitFailed = 1 // broke down while serving
	ExitConfig = 2 // cannot be served as configured
)

// What may last until when, counted from the signal to stop.
const (
	requestsUntil = 8500 * time.Millisecond // running requests
	closingUntil  = 9800 * time.Millisecond // everything
	lastWords     = 100 * time.Millisecond  // the log line that says it was too much
)

// Refusal is an error in what the operator asked for: exit code 2. Remedy says
// what to try.
type Refusal struct {
	What   string
	Remedy string
	Err    error // cause, may be nil
}

func (r *Refusal) Error() string {
	text := r.What
	if r.Err != nil {
		text += ": " + r.Err.Error()
	}
	return text
}

func (r *Refusal) Unwrap() error { return r.Err }

// Service is what Run keeps running.
type Service struct {
	Serve    func() error                // returns when Shutdown has been called, or with what broke it
	Reload   func() error                // re-reads what can be; on error the old stays in force
	Drain    func()                      // announces the end, still serving
	Shutdown func(context.Context) error // ends Serve once running requests are answered
	DrainFor time.Duration               // between Drain and Shutdown
	Log      *slog.Logger
}

// Run serves until a signal or a breakdown. It returns nil after a stop that
// was asked for, also when requests were still running at its deadline. The
// caller then closes what it opened and ends the process, for which a second is
// left.
func Run(signals Signals, s Service) error { return s.run(signals, os.Exit) }

func (s Service) run(signals <-chan os.Signal, exit func(code int)) error {
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	// A reload that hangs must not keep SIGTERM from being heard. One more may
	// wait its turn; it will read whatever is there by then.
	reloads := make(chan struct{}, 1)
	defer close(reloads)
	go func() {
		for range reloads {
			s.reload()
		}
	}()
	for {
		select {
		case err := <-served:
			if err == nil {
				err = errors.New("the server ended by itself")
			}
			return err
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				return s.stop(sig, signals, served, exit)
			}
			select {
			case reloads <- struct{}{}:
			default:
			}
		}
	}
}

func (s Service) reload() {
	if err := s.Reload(); err != nil {
		s.Log.Error("reload failed, what was in force stays", "error", err)
	}
}

func (s Service) stop(sig os.Signal, signals <-chan os.Signal, served <-chan error, exit func(code int)) error {
	ctx, cancel := context.WithTimeout(context.Background(), requestsUntil)
	defer cancel()
	time.AfterFunc(closingUntil, func() { s.giveUp(exit) })
	s.Drain()
	s.Log.Info("stopping", "signal", sig.String(), "drain", s.DrainFor)
	drained := time.After(s.DrainFor)
	for waiting := true; waiting; {
		select {
		case <-drained:
			waiting = false
		case err := <-served:
			return err
		case sig := <-signals:
			waiting = sig == syscall.SIGHUP
		}
	}
	if err := s.Shutdown(ctx); err != nil {
		s.Log.Warn("requests were still running when the time to stop was over", "error", err)
		return nil
	}
	return <-served
}

// giveUp ends the process. What hangs may be the log.
func (s Service) giveUp(exit func(code int)) {
	said := make(chan struct{})
	go func() {
		s.Log.Error("the process ends by force: closing took too long; look for a disk or file system that hangs")
		close(said)
	}()
	select {
	case <-said:
	case <-time.After(lastWords):
	}
	exit(ExitFailed)
}

// Exit turns an error into exit code and words for the operator.
func Exit(w io.Writer, program string, err error) int {
	if err == nil {
		return ExitOK
	}
	fmt.Fprintf(w, "%s: %v\n", program, err)
	var refusal *Refusal
	if errors.As(err, &refusal) {
		if refusal.Remedy != "" {
			fmt.Fprintf(w, "Try: %s\n", refusal.Remedy)
		}
		return ExitConfig
	}
	return ExitFailed
}

// Harden keeps key bytes out of core dumps and new files to their owner. It also
// takes the deadly effect from two signals: SIGHUP that comes before Catch, as
// from a supervisor in a hurry; and SIGPIPE, which a write to standard error
// brings when its reader has gone, and which is then that write's error. Call it
// before anything is opened.
func Harden() error {
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	unix.Umask(0o077)
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("switch core dumps off: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("switch core dumps off: %w", err)
	}
	return nil
}
