package logfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func sized(t *testing.T, c *clock, path string, opts Options) *File {
	t.Helper()
	opts.Now = c.now
	return open(t, path, opts)
}

func TestRollBySize(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.log")
	c := new(clock)
	c.set(1, 8, 0)
	l := sized(t, c, path, Options{Daily: true, MaxBytes: 10})
	write(t, l, "1234\n")
	write(t, l, "5678\n") // ten bytes are not too many
	wantNames(t, dir, "a.log")
	write(t, l, "9\n")
	wantFile(t, path+".2026-03-01", "1234\n5678\n")
	write(t, l, "a line that is too long by itself\n")
	wantFile(t, path+".2026-03-01.1", "9\n")
	write(t, l, "x\n")
	wantFile(t, path+".2026-03-01.2", "a line that is too long by itself\n")
	c.set(2, 0, 0)
	write(t, l, "y\n")
	wantFile(t, path+".2026-03-01.3", "x\n")
	write(t, l, "123456789\n")
	wantFile(t, path+".2026-03-02", "y\n")
	wantFile(t, path, "123456789\n")
}

func TestSizeCountsWhatWasThereBefore(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.log")
	c := new(clock)
	c.set(1, 8, 0)
	write(t, sized(t, c, path, Options{}), "12345678\n")
	l := sized(t, c, path, Options{MaxBytes: 10})
	write(t, l, "x\n")
	wantFile(t, path, "x\n")
	if names, err := filepath.Glob(path + ".*"); err != nil || len(names) != 1 {
		t.Errorf("%q, %v", names, err)
	}

	// Whom logrotate has given a new file has an empty one.
	write(t, l, "2345678\n")
	if err := os.Rename(path, path+"-rotated"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	write(t, l, "12345678\n")
	wantFile(t, path, "12345678\n")
	if names, err := filepath.Glob(path + ".*"); err != nil || len(names) != 1 {
		t.Errorf("%q, %v", names, err)
	}
}

func TestKeep(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.log")
	c := new(clock)
	c.set(9, 8, 0)
	others := []string{"a.log.2026-01-01.gz", "a.log.2026-01-01.old", "a.log.2026-1-1", "a.log.bak", "a.log2.2026-01-01", "b.log.2026-01-01"}
	for _, name := range append(others, "a.log.2026-01-01", "a.log.2026-03-08", "a.log.2026-03-08.9", "a.log.2026-03-08.10") {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := sized(t, c, path, Options{Daily: true, MaxBytes: 2, Keep: 3})
	write(t, l, "1\n")
	write(t, l, "2\n")
	wantNames(t, dir, "a.log", "a.log.2026-01-01.gz", "a.log.2026-01-01.old", "a.log.2026-03-08.10", "a.log.2026-03-08.9", "a.log.2026-03-09",
		"a.log.2026-1-1", "a.log.bak", "a.log2.2026-01-01", "b.log.2026-01-01")
	for _, line := range []string{"3\n", "4\n", "5\n"} {
		write(t, l, line)
	}
	wantNames(t, dir, "a.log", "a.log.2026-01-01.gz", "a.log.2026-01-01.old", "a.log.2026-03-09.1", "a.log.2026-03-09.2", "a.log.2026-03-09.3",
		"a.log.2026-1-1", "a.log.bak", "a.log2.2026-01-01", "b.log.2026-01-01")
	wantFile(t, path+".2026-03-09.3", "4\n")
	if err := l.RollErr(); err != nil {
		t.Error(err)
	}
}

// A number is never given twice on one day, also when its file was compressed.
func TestCompressedFilesKeepTheirNumbers(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.log")
	c := new(clock)
	c.set(1, 8, 0)
	l := sized(t, c, path, Options{MaxBytes: 2})
	for _, line := range []string{"1\n", "2\n", "3\n"} {
		write(t, l, line)
	}
	for _, name := range []string{".2026-03-01", ".2026-03-01.1"} {
		if err := os.Rename(path+name, path+name+".gz"); err != nil {
			t.Fatal(err)
		}
	}
	write(t, l, "4\n")
	wantNames(t, dir, "a.log", "a.log.2026-03-01.1.gz", "a.log.2026-03-01.2", "a.log.2026-03-01.gz")
}

func TestAbsurdNumberStopsNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.log")
	c := new(clock)
	c.set(1, 8, 0)
	for _, number := range []string{"9223372036854775807", "99999999999999999999", "-7", "+1"} {
		if err := os.WriteFile(path+".2026-03-01."+number, []byte("theirs"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := sized(t, c, path, Options{MaxBytes: 2, Keep: 1})
	write(t, l, "1\n")
	write(t, l, "2\n")
	write(t, l, "3\n")
	wantFile(t, path, "3\n")
	wantFile(t, path+".2026-03-01.9223372036854775807", "theirs")
	if err := l.RollErr(); err != nil {
		t.Error(err)
	}
}

// The process died after the renaming: the next one goes on in a new file.
func TestCrashBetweenRenameAndOpen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.log")
	c := new(clock)
	c.set(1, 8, 0)
	if err := os.WriteFile(path+".2026-03-01", []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := sized(t, c, path, Options{MaxBytes: 2})
	write(t, l, "2\n")
	write(t, l, "3\n")
	wantFile(t, path+".2026-03-01", "1\n")
	wantFile(t, path+".2026-03-01.1", "2\n")
	wantFile(t, path, "3\n")
}

func TestFailedSizeRollGoesOnInTheOldFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := new(clock)
	c.set(1, 8, 0)
	l := sized(t, c, filepath.Join(dir, "a.log"), Options{MaxBytes: 2})
	write(t, l, "1\n")
	if err := os.Rename(dir, dir+".moved"); err != nil {
		t.Fatal(err)
	}
	write(t, l, "2\n")
	if err := l.RollErr(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("RollErr = %v", err)
	}
	if err := os.Rename(dir+".moved", dir); err != nil {
		t.Fatal(err)
	}
	c.t = c.t.Add(rollRetry)
	write(t, l, "3\n")
	wantFile(t, filepath.Join(dir, "a.log.2026-03-01"), "1\n2\n")
	wantFile(t, filepath.Join(dir, "a.log"), "3\n")
}

// However writes, rolls and reopenings mix, each line is there once and in order.
func TestNoLineIsLostInRolls(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.log")
	l := open(t, path, Options{Daily: true, MaxBytes: 100}) // Reopen compares with the times of files, so this takes the real clock
	stop := make(chan struct{})
	var reopening sync.WaitGroup
	reopening.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := l.Reopen(); err != nil {
					t.Error(err)
				}
			}
		}
	})
	const lines = 1000
	for n := range lines {
		write(t, l, fmt.Sprintf("%d\n", n))
	}
	close(stop)
	reopening.Wait()
	files, err := l.rolled()
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	slices.SortFunc(files, rolledFile.compare)
	var all strings.Builder
	for _, f := range files {
		all.WriteString(content(t, path+f.suffix()))
	}
	all.WriteString(content(t, path))
	for n, line := range strings.Split(strings.TrimSuffix(all.String(), "\n"), "\n") {
		if line != fmt.Sprint(n) {
			t.Fatalf("line %d is %q", n, line)
		}
	}
	if n := strings.Count(all.String(), "\n"); n != lines {
		t.Errorf("%d lines", n)
	}
}
