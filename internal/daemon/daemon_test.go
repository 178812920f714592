package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// fake is a service that writes down what is done to it and when, in virtual
// seconds since its start.
type fake struct {
	mu     sync.Mutex
	start  time.Time
	events []string
	end    chan error // makes Serve return

	reload   func() error
	shutdown func(context.Context) error
	log      bytes.Buffer
}

func newFake() *fake {
	f := &fake{start: time.Now(), end: make(chan error, 1), reload: func() error { return nil }}
	f.shutdown = func(context.Context) error {
		f.end <- nil
		return nil
	}
	return f
}

func (f *fake) note(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, fmt.Sprintf("%s@%v", what, time.Since(f.start)))
}

func (f *fake) noted() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.events, " ")
}

func (f *fake) service(drain time.Duration) Service {
	return Service{
		Serve:    func() error { return <-f.end },
		Reload:   func() error { f.note("reload"); return f.reload() },
		Drain:    func() { f.note("drain") },
		Shutdown: func(ctx context.Context) error { f.note("shutdown"); return f.shutdown(ctx) },
		DrainFor: drain,
		Log:      slog.New(slog.NewTextHandler(&f.log, nil)),
	}
}

// run starts the service; the returned function waits for its end.
func (f *fake) run(drain time.Duration) (signals chan<- os.Signal, wait func() error) {
	c, ended := make(chan os.Signal), make(chan error, 1)
	go func() {
		err := f.service(drain).run(c, func(code int) { f.note(fmt.Sprintf("exit(%d)", code)) })
		f.note("end")
		ended <- err
	}()
	return c, func() error { return <-ended }
}

func TestStopDrainsThenShutsDown(t *testing.T) {
	f := func(sig os.Signal) {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			signals, wait := f.run(3 * time.Second)
			time.Sleep(time.Second)
			signals <- sig
			if err := wait(); err != nil {
				t.Errorf("%v: %v", sig, err)
			}
			if got, want := f.noted(), "drain@1s shutdown@4s end@4s"; got != want {
				t.Errorf("%v: %s, want %s", sig, got, want)
			}
		})
	}
	f(syscall.SIGTERM)
	f(syscall.SIGINT)
}

func TestSecondSignalSkipsTheDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		signals, wait := f.run(8 * time.Second)
		signals <- syscall.SIGTERM
		time.Sleep(time.Second)
		signals <- syscall.SIGHUP // asks for nothing any more
		time.Sleep(time.Second)
		signals <- syscall.SIGINT
		if err := wait(); err != nil {
			t.Error(err)
		}
		if got, want := f.noted(), "drain@0s shutdown@2s end@2s"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// Whatever the drain, running requests have until 8.5 s after the signal.
func TestRunningRequestsHaveADeadline(t *testing.T) {
	f := func(drain time.Duration, want string) {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			f.shutdown = func(ctx context.Context) error {
				<-ctx.Done()
				return errors.New("two connections are open")
			}
			signals, wait := f.run(drain)
			signals <- syscall.SIGTERM
			if err := wait(); err != nil {
				t.Errorf("drain %v: %v", drain, err)
			}
			if got := f.noted(); got != want {
				t.Errorf("drain %v: %s, want %s", drain, got, want)
			}
			if log := f.log.String(); !strings.Contains(log, "level=WARN") || !strings.Contains(log, "two connections are open") {
				t.Errorf("drain %v: the log does not tell of the connections:\n%s", drain, log)
			}
			f.end <- nil
		})
	}
	f(0, "drain@0s shutdown@0s end@8.5s")
	f(3*time.Second, "drain@0s shutdown@3s end@8.5s")
	f(8*time.Second, "drain@0s shutdown@8s end@8.5s")
}

// The caller's closing hangs, and perhaps the log with it: the process ends all
// the same.
func TestHangingCloseEndsByForce(t *testing.T) {
	f := func(log slog.Handler) {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			s := f.service(0)
			s.Log = slog.New(log)
			signals := make(chan os.Signal, 1)
			signals <- syscall.SIGTERM
			go s.run(signals, func(code int) { f.note(fmt.Sprintf("exit(%d)", code)) })
			time.Sleep(9 * time.Second)
			if strings.Contains(f.noted(), "exit") {
				t.Errorf("%s, before its time", f.noted())
			}
			time.Sleep(time.Second)
			if !strings.Contains(f.noted(), "exit(1)@9.") {
				t.Errorf("%s, want exit(1) before 10 s", f.noted())
			}
			time.Sleep(time.Hour)
		})
	}
	var b bytes.Buffer
	f(slog.NewTextHandler(&b, nil))
	if !strings.Contains(b.String(), "by force") {
		t.Errorf("the log says %q", b.String())
	}
	f(stalled{slog.DiscardHandler})
}

// stalled is a log on a disk that hangs, and comes back after a while.
type stalled struct{ slog.Handler }

func (stalled) Enabled(context.Context, slog.Level) bool { return true }

func (stalled) Handle(context.Context, slog.Record) error {
	time.Sleep(time.Minute)
	return nil
}

func TestReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.reload = func() error { return errors.New("cert.pem: no certificate in it") }
		signals, wait := f.run(0)
		signals <- syscall.SIGHUP
		synctest.Wait()
		if log := f.log.String(); !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "cert.pem: no certificate in it") {
			t.Errorf("the log says %q", log)
		}
		time.Sleep(time.Second)
		signals <- syscall.SIGHUP // a failed reload does not end reloading
		synctest.Wait()
		signals <- syscall.SIGTERM
		if err := wait(); err != nil {
			t.Error(err)
		}
		if got, want := f.noted(), "reload@0s reload@1s drain@1s shutdown@1s end@1s"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// Many SIGHUPs during one reload make one more, which sees what all of them
// were sent for.
func TestReloadsDoNotPileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.reload = func() error { time.Sleep(time.Minute); return nil }
		signals, wait := f.run(0)
		for range 10 {
			signals <- syscall.SIGHUP
			synctest.Wait()
		}
		time.Sleep(time.Hour)
		if got, want := f.noted(), "reload@0s reload@1m0s"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		signals <- syscall.SIGTERM
		if err := wait(); err != nil {
			t.Error(err)
		}
	})
}

func TestHangingReloadDoesNotKeepAStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.reload = func() error { time.Sleep(time.Hour); return nil }
		signals, wait := f.run(time.Second)
		signals <- syscall.SIGHUP
		synctest.Wait()
		signals <- syscall.SIGTERM
		if err := wait(); err != nil {
			t.Error(err)
		}
		if got, want := f.noted(), "reload@0s drain@0s shutdown@1s end@1s"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		time.Sleep(2 * time.Hour)
	})
}

func TestServerThatEndsByItself(t *testing.T) {
	f := func(end error, want string) {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			_, wait := f.run(0)
			f.end <- end
			err := wait()
			if err == nil || err.Error() != want {
				t.Errorf("%v, want %q", err, want)
			}
			if code := Exit(io.Discard, "test", err); code != ExitFailed {
				t.Errorf("exit code %d, want %d", code, ExitFailed)
			}
		})
	}
	f(errors.New("accept: broken"), "accept: broken")
	f(nil, "the server ended by itself")
}

func TestServerThatBreaksWhileDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		signals, wait := f.run(5 * time.Second)
		signals <- syscall.SIGTERM
		time.Sleep(time.Second)
		f.end <- errors.New("accept: broken")
		if err := wait(); err == nil || err.Error() != "accept: broken" {
			t.Errorf("%v, want the break", err)
		}
		if got, want := f.noted(), "drain@0s end@1s"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

func TestExit(t *testing.T) {
	f := func(err error, wantCode int, wantWords string) {
		t.Helper()
		var b bytes.Buffer
		if code := Exit(&b, "edekd", err); code != wantCode || b.String() != wantWords {
			t.Errorf("%v: %d %q, want %d %q", err, code, b.String(), wantCode, wantWords)
		}
	}
	f(nil, ExitOK, "")
	f(errors.New("the disk broke"), ExitFailed, "edekd: the disk broke\n")
	f(&Refusal{What: "cannot listen"}, ExitConfig, "edekd: cannot listen\n")
	refusal := &Refusal{What: "cannot listen", Err: syscall.EADDRINUSE, Remedy: "another port"}
	words := "edekd: cannot listen: address already in use\nTry: another port\n"
	f(refusal, ExitConfig, words)
	f(errors.Join(refusal, nil), ExitConfig, words)
	f(fmt.Errorf("start: %w", refusal), ExitConfig, "edekd: start: cannot listen: address already in use\nTry: another port\n")
	if !errors.Is(refusal, syscall.EADDRINUSE) {
		t.Error("a refusal hides its cause")
	}
}
