package audit

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edekd/edekd/internal/logfile"
)

// denials are the calls whose lines are never lost silently.
func denials(l *Log) map[string]func() error {
	return map[string]func() error{
		"UNAUTHORIZED":    func() error { return l.Unauthorized(by("u", GetKeys, "")) },
		"UNAUTHENTICATED": func() error { return l.Unauthenticated(Event{Client: home}, "GET", "/", "no") },
	}
}

func TestDenialIsWrittenWhenItReturns(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *Log, s *sink) {
		for kind, deny := range denials(l) {
			if err := deny(); err != nil {
				t.Fatal(err)
			}
			if got := s.next(); !strings.Contains(got, kind) {
				t.Errorf("%s: the file holds %q", kind, got)
			}
		}
	})
}

func TestDenialOutlivesAShortStall(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *Log, s *sink) {
		for kind, deny := range denials(l) {
			release := s.block()
			done := make(chan error)
			go func() { done <- deny() }()
			time.Sleep(3 * time.Second)
			release()
			if err := <-done; err != nil || !strings.Contains(s.next(), kind) {
				t.Errorf("%s: %v", kind, err)
			}
			if err := l.Ready(); err != nil {
				t.Errorf("%s: Ready: %v", kind, err)
			}
		}
	})
}

func TestDenialThatCannotBeWrittenIsToldAndTakesTheNodeOut(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *Log, s *sink) {
		for kind, deny := range denials(l) {
			release := s.block()
			began := time.Now()
			if err := deny(); err == nil || time.Since(began) != defaultWait {
				t.Errorf("%s: after %v: %v", kind, time.Since(began), err)
			}
			release()
			synctest.Wait()
			if got := s.next(); !strings.Contains(got, kind) || l.Lost() != 0 {
				t.Errorf("%s: the line that was late: %q, %d lost", kind, got, l.Lost())
			}
			if err := l.Ready(); !errors.Is(err, errRefused) {
				t.Errorf("%s: Ready = %v although the disk works again", kind, err)
			}
			time.Sleep(refusalHold)
			if err := l.Ready(); err != nil {
				t.Errorf("%s: Ready: %v", kind, err)
			}
		}
	})
}

// While the disk stands still only so many may wait for it; while it works
// there is no such bound.
func TestWaitingDenialsAreBounded(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *Log, s *sink) {
		s.fail(syscall.ENOSPC, 0)
		l.OK(by("u", GetKeys, ""), "")
		synctest.Wait()
		began := time.Now()
		var all sync.WaitGroup
		var mu sync.Mutex
		var atOnce, late int
		for range maxWaiting + 10 {
			all.Go(func() {
				err := l.Unauthorized(by("u", GetKeys, ""))
				mu.Lock()
				defer mu.Unlock()
				if err != nil && time.Since(began) == 0 {
					atOnce++
				}
				if err != nil && time.Since(began) == defaultWait {
					late++
				}
			})
		}
		all.Wait()
		if atOnce != 10 || late != maxWaiting || l.Lost() != 10 {
			t.Errorf("%d refused at once, %d late, %d lost", atOnce, late, l.Lost())
		}
		s.fail(nil, 0)
		time.Sleep(lastRetry)
		for range 3 * maxWaiting {
			all.Go(func() {
				if err := l.Unauthorized(by("u", GetKeys, "")); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	})
}

// A pipe that nobody empties stalls a writer as a dead network disk does.
func TestDenialOnAStalledPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kms-audit.log")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	file, err := logfile.Open(path, logfile.Options{Daily: true})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	l := New(file, Options{Wait: 200 * time.Millisecond})
	filler := strings.Repeat("x", maxText)
	for range 100 { // more than a pipe holds
		l.OK(by("u", GetKeys, ""), filler)
	}
	if err := l.Unauthorized(by("u", DeleteKey, "precious")); err == nil {
		t.Error("a denial that nobody could read was fine")
	}
	if l.Ready() == nil {
		t.Error("the node stays ready")
	}

	// What waited comes, in order and once.
	found := make(chan string)
	go func() {
		lines := bufio.NewReader(reader)
		for {
			line, err := lines.ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return
			}
			if strings.Contains(line, "precious") {
				found <- line
				return
			}
		}
	}()
	select {
	case line := <-found:
		if !strings.HasSuffix(line, "UNAUTHORIZED[op=DELETE_KEY, key=precious, user=u] \n") {
			t.Errorf("%q", line)
		}
	case <-time.After(10 * time.Second):
		t.Error("the denial never came")
	}
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDenialOnAFullDevice(t *testing.T) {
	file, err := logfile.Open("/dev/full", logfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	l := New(file, Options{Wait: 50 * time.Millisecond})
	for kind, deny := range denials(l) {
		if err := deny(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if err := l.Ready(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Ready: %v", err)
	}
	if err := l.Close(cancelled(t)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Close: %v", err)
	}
}
