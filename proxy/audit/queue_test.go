package audit

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A queue of 100 bytes holds two of these lines with their times.
const short = "OK[op=GET_KEYS, user=u] "

func TestFullDisk(t *testing.T) {
	bubble(t, Options{QueueBytes: 100}, func(t *testing.T, l *Log, s *sink) {
		l.Count(by("u", DecryptEEK, "k"))
		wantNext(t, s, "before", countLine("DECRYPT_EEK", 1, 0))
		if err := l.Ready(); err != nil {
			t.Errorf("Ready: %v", err)
		}

		s.fail(syscall.ENOSPC, 0)
		l.OK(by("u", GetKeys, ""), "") // the writer takes this one and retries it
		synctest.Wait()
		if err := l.Ready(); !errors.Is(err, syscall.ENOSPC) || !l.Stalled() {
			t.Errorf("Ready = %v, Stalled = %v on a full disk", err, l.Stalled())
		}
		for range 10 {
			l.OK(by("u", GetKeys, ""), "")
		}
		l.Count(by("u", DecryptEEK, "k"))
		if l.Lost() != 8 {
			t.Errorf("%d lost, want 8", l.Lost())
		}

		start := time.Now()
		err := l.Admin(t.Context(), by("u", DeleteKey, "k"), "")
		if !errors.Is(err, syscall.ENOSPC) || !errors.Is(err, errFull) || time.Since(start) != 5*time.Second {
			t.Errorf("Admin after %v: %v", time.Since(start), err)
		}
		start = time.Now()
		l.Error(by("u", 0, ""), 500, "GET", "x")
		if time.Since(start) != 5*time.Second {
			t.Errorf("a denial waited %v", time.Since(start))
		}
		time.Sleep(time.Minute)
		wantNext(t, s, "while the disk is full")

		s.fail(nil, 0)
		time.Sleep(lastRetry)
		wantNext(t, s, "the disk has room again", short, short, short,
			"ERROR Method:'AUDIT' Exception:'lost 8 successes and 2 other events between 2000-01-01 00:00:00,000 and 2000-01-01 00:00:10,000'",
			// What was counted is not lost.
			countLine("DECRYPT_EEK", 2, 70550))
		if err := l.Ready(); err != nil {
			t.Errorf("Ready: %v", err)
		}
		if err := l.Admin(t.Context(), by("u", DeleteKey, "k"), ""); err != nil {
			t.Errorf("Admin: %v", err)
		}
		wantNext(t, s, "all well", "OK[op=DELETE_KEY, key=k, user=u] ")
	})
}

func TestStalledWriter(t *testing.T) {
	bubble(t, Options{QueueBytes: 100, Wait: 3 * time.Second}, func(t *testing.T, l *Log, s *sink) {
		release := s.block()
		done := make(chan error)
		go func() { done <- l.Admin(t.Context(), by("u", RollNewVersion, "k"), "") }()
		synctest.Wait()
		if err := l.Ready(); err != nil {
			t.Errorf("Ready during a write that just began: %v", err)
		}
		time.Sleep(stallAfter)
		if err := l.Ready(); err == nil {
			t.Error("Ready during a write that takes a second")
		}
		if err := <-done; err == nil || !strings.Contains(err.Error(), "under way") {
			t.Errorf("Admin: %v", err)
		}
		// What waited is written late rather than never.
		release()
		wantNext(t, s, "released", "OK[op=ROLL_NEW_VERSION, key=k, user=u] ")
		if err := l.Ready(); err != nil {
			t.Errorf("Ready: %v", err)
		}
	})
}

func TestAdminEndsWithItsContext(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *Log, s *sink) {
		release := s.block()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := l.Admin(ctx, by("u", CreateKey, "k"), ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Admin: %v", err)
		}
		release()
	})
}

func TestDenialWaitsForRoomAndUsesTheReserve(t *testing.T) {
	bubble(t, Options{QueueBytes: 240}, func(t *testing.T, l *Log, s *sink) {
		release := s.block()
		l.OK(by("u", GetKeys, ""), "")
		synctest.Wait()
		for range 10 {
			l.OK(by("u", GetKeys, ""), "")
		}
		start := time.Now()
		l.Error(by("", 0, ""), 500, "GET", "x") // in the reserve
		if time.Since(start) != 0 {
			t.Errorf("a denial waited %v although the reserve was empty", time.Since(start))
		}
		done := make(chan time.Duration)
		go func() {
			start := time.Now()
			l.Error(by("", 0, ""), 500, "PUT", "y")
			done <- time.Since(start)
		}()
		time.Sleep(time.Second)
		release()
		if waited := <-done; waited != time.Second {
			t.Errorf("the second denial waited %v", waited)
		}
		synctest.Wait()
		for _, want := range []string{"Method:'GET'", "Method:'PUT'"} {
			if got := s.buf.String(); !strings.Contains(got, want) {
				t.Errorf("no %s in %q", want, got)
			}
		}
	})
}

func TestWaitingRequestsAreBounded(t *testing.T) {
	bubble(t, Options{QueueBytes: 1}, func(t *testing.T, l *Log, s *sink) {
		release := s.block()
		done := make(chan time.Duration, maxWaiting+1)
		denial := func() {
			start := time.Now()
			l.Error(by("u", 0, ""), 500, "GET", "x")
			done <- time.Since(start)
		}
		for range maxWaiting {
			go denial()
		}
		synctest.Wait()
		denial()
		if waited := <-done; waited != 0 {
			t.Errorf("the last of %d waited %v", maxWaiting+1, waited)
		}
		for range maxWaiting {
			if waited := <-done; waited != defaultWait {
				t.Errorf("waited %v", waited)
			}
		}
		release()
	})
}

func TestCutWriteRepeatsOnlyTheCutLine(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *Log, s *sink) {
		release := s.block()
		l.OK(by("u", GetKeys, ""), "")
		synctest.Wait()
		l.OK(by("u", GetMetadata, "a"), "")
		l.OK(by("u", GetMetadata, "b"), "")
		release()
		s.fail(syscall.ENOSPC, 150) // the first batch, one line of the second, some of the other
		synctest.Wait()
		s.fail(nil, 0)
		time.Sleep(lastRetry)
		synctest.Wait()
		text := s.next()
		if strings.Count(text, "key=a") != 1 || !strings.HasSuffix(text, "key=b, user=u] \n") {
			t.Errorf("written %q", text)
		}
		if l.Lines() != 3 || l.Pending() != 0 {
			t.Errorf("%d lines, %d bytes pending", l.Lines(), l.Pending())
		}
	})
}

// What is counted and cannot be written at the end is lost once.
func TestCloseCountsLossesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(sink)
		l := New(s, Options{QueueBytes: 100})
		s.fail(syscall.ENOSPC, 0)
		l.OK(by("u", GetKeys, ""), "") // the writer has this one
		synctest.Wait()
		for l.Lost() == 0 {
			l.OK(by("u", GetKeys, ""), "")
		}
		for range 3 { // their first line, too, finds no room
			l.Count(by("u", DecryptEEK, "a key with a name that is too long for the reserve"))
		}
		before := l.Lost()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Close(ctx); err == nil {
			t.Error("closed with all lines written")
		}
		if lost := l.Lost() - before; lost != 3 {
			t.Errorf("of 3 hits %d are lost", lost)
		}
	})
}

func TestCloseGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(sink)
		l := New(s, Options{})
		s.fail(syscall.ENOSPC, 0)
		l.Count(by("u", DecryptEEK, "k"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Close(ctx); !errors.Is(err, syscall.ENOSPC) || time.Now().Second() != 1 {
			t.Errorf("Close after %v s: %v", time.Now().Second(), err)
		}
	})
}
