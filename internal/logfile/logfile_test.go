package logfile

import (
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func open(t *testing.T, path string, opts Options) *File {
	t.Helper()
	l, err := Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func write(t *testing.T, l *File, s string) {
	t.Helper()
	if n, err := l.Write([]byte(s)); err != nil || n != len(s) {
		t.Fatalf("Write(%q) = %d, %v", s, n, err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	if got := content(t, path); got != want {
		t.Errorf("%s holds %q, want %q", filepath.Base(path), got, want)
	}
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("folder holds %q, want %q", got, want)
	}
}

func TestFileIsForTheOwnerAloneAndAppendedTo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	l := open(t, path, Options{})
	write(t, l, "one\n")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write([]byte("x\n")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("write after Close: %v", err)
	}
	if err := l.Reopen(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Reopen after Close: %v", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	write(t, open(t, path, Options{}), "two\n")
	wantFile(t, path, "one\ntwo\n")
}

func TestOpenSaysWhatIsMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "no", "a.log")
	if _, err := Open(path, Options{}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v", err)
	}
}

func TestReopenFollowsARenamedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	l := open(t, path, Options{})
	write(t, l, "one\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write(t, l, "two\n")
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	write(t, l, "three\n")
	wantFile(t, path+".1", "one\ntwo\n")
	wantFile(t, path, "three\n")
}

func TestFailedReopenKeepsTheOldFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l := open(t, filepath.Join(dir, "a.log"), Options{})
	if err := os.Rename(dir, dir+".moved"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Reopen: %v", err)
	}
	write(t, l, "still here\n")
	wantFile(t, filepath.Join(dir+".moved", "a.log"), "still here\n")
}

// clock is a hand-set clock in a zone that is not UTC, so that a midnight taken
// from the wrong zone shows.
type clock struct{ t time.Time }

var zone = time.FixedZone("", 2*60*60)

func (c *clock) now() time.Time { return c.t }
func (c *clock) set(day, hour, minute int) {
	c.t = time.Date(2026, 3, day, hour, minute, 0, 0, zone)
}

func TestDailyRoll(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.log")
	c := new(clock)
	c.set(1, 23, 59)
	l := open(t, path, Options{Daily: true, Now: c.now})
	write(t, l, "first\n")
	c.set(2, 0, 0)
	wantNames(t, dir, "a.log") // time alone does nothing
	write(t, l, "second\n")
	wantFile(t, path+".2026-03-01", "first\n")

	// A day without a line makes no file; the next roll names the day of the
	// lines, not yesterday.
	c.set(5, 12, 0)
	write(t, l, "fifth\n")
	wantFile(t, path+".2026-03-02", "second\n")
	wantFile(t, path, "fifth\n")

	// A clock that goes back rolls nothing.
	c.set(4, 12, 0)
	write(t, l, "earlier\n")
	wantFile(t, path, "fifth\nearlier\n")
	wantNames(t, dir, "a.log", "a.log.2026-03-01", "a.log.2026-03-02")
}

func TestRollAfterRestartUsesTheDayOfTheLastLine(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.log")
	c := new(clock)
	if err := os.WriteFile(path, []byte("old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	written := time.Date(2026, 3, 1, 0, 30, 0, 0, zone) // February still, in UTC
	if err := os.Chtimes(path, written, written); err != nil {
		t.Fatal(err)
	}
	c.set(3, 9, 0)
	l := open(t, path, Options{Daily: true, Now: c.now})
	write(t, l, "new\n")
	wantFile(t, path+".2026-03-01", "old\n")
	wantFile(t, path, "new\n")
}

func TestRollOverwritesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.log")
	c := new(clock)
	for _, name := range []string{"a.log.2026-03-01", "a.log.2026-03-01.1"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.set(1, 8, 0)
	l := open(t, path, Options{Daily: true, Now: c.now})
	write(t, l, "mine\n")
	c.set(2, 8, 0)
	write(t, l, "today\n")
	wantFile(t, path+".2026-03-01", "a.log.2026-03-01")
	wantFile(t, path+".2026-03-01.1", "a.log.2026-03-01.1")
	wantFile(t, path+".2026-03-01.2", "mine\n")
	wantFile(t, path, "today\n")
}

func TestRollLeavesAFileThatLogrotateMoved(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.log")
	c := new(clock)
	c.set(1, 8, 0)
	l := open(t, path, Options{Daily: true, Now: c.now})
	write(t, l, "one\n")
	if err := os.Rename(path, path+"-rotated"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	c.set(2, 8, 0)
	write(t, l, "two\n")
	wantNames(t, dir, "a.log", "a.log-rotated")
	wantFile(t, path, "two\n")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o640 {
		t.Errorf("the mode that logrotate gave became %v", info.Mode())
	}
}

func TestFailedRollLosesNoLineAndIsTriedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "a.log")
	c := new(clock)
	c.set(1, 8, 0)
	l := open(t, path, Options{Daily: true, Now: c.now})
	write(t, l, "one\n")

	if err := os.Rename(dir, dir+".moved"); err != nil {
		t.Fatal(err)
	}
	c.set(2, 8, 0)
	write(t, l, "two\n")
	if err := l.RollErr(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("RollErr = %v", err)
	}
	if err := os.Rename(dir+".moved", dir); err != nil {
		t.Fatal(err)
	}
	c.t = c.t.Add(rollRetry - time.Second)
	write(t, l, "three\n") // too early to try again
	wantNames(t, dir, "a.log")
	c.t = c.t.Add(time.Second)
	write(t, l, "four\n")
	if err := l.RollErr(); err != nil {
		t.Errorf("RollErr after a roll that worked = %v", err)
	}
	wantFile(t, path+".2026-03-01", "one\ntwo\nthree\n")
	wantFile(t, path, "four\n")
}

func TestLineCutByACrashIsEnded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	if err := os.WriteFile(path, []byte("whole\nhal"), 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, open(t, path, Options{}), "next\n")
	wantFile(t, path, "whole\nhal\nnext\n")
}

func TestFullDeviceIsReported(t *testing.T) {
	l := open(t, "/dev/full", Options{Daily: true})
	if n, err := l.Write([]byte("x\n")); n != 0 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Write = %d, %v", n, err)
	}
}

// A limit on the file size cuts a write where a full disk would.
func TestCutLineIsTakenBack(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	limited := old
	limited.Cur = 10

	path := filepath.Join(t.TempDir(), "a.log")
	l := open(t, path, Options{})
	write(t, l, "one\n")
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limited); err != nil {
		t.Fatal(err)
	}
	n, err := l.Write([]byte("two\nthree\n"))
	if restore := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); restore != nil {
		t.Fatal(restore)
	}
	if n != len("two\n") || !errors.Is(err, syscall.EFBIG) {
		t.Errorf("Write = %d, %v; want the whole line kept", n, err)
	}
	wantFile(t, path, "one\ntwo\n")
	write(t, l, "three\n")
	wantFile(t, path, "one\ntwo\nthree\n")
}

func TestConcurrentWritesStayWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	l := open(t, path, Options{Daily: true})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				if _, err := l.Write([]byte("abcdefgh\n")); err != nil {
					t.Error(err)
				}
				if err := l.Reopen(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantFile(t, path, strings.Repeat("abcdefgh\n", 400))
}
