// Package logfile is the append-only file that a daemon logs to for years.
//
// A File survives what operators do to log files: logrotate renames it away
// and sends SIGHUP (call Reopen), or nobody cares and it rolls itself over at
// midnight, the way log4j's DailyRollingFileAppender names its files, or when it
// has grown to a size. It also survives a full disk: a Write that fails is reported to the caller and leaves
// no half line behind, so that whoever parses the file sees whole lines only,
// and the next Write may simply try again.
//
// Files are created readable and writable by their owner alone. A file that
// exists keeps the mode and owner it has, so logrotate's `create` decides where
// it is used. Nothing is synced to the disk: lines survive the death of the
// process, not of the machine.
package logfile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	perm = 0o600

	// rollRetry is how long a failed roll-over is left alone before it is
	// tried again; lines go to the old file meanwhile.
	rollRetry = time.Minute

	dateLayout = "2006-01-02"
)

// Options say how a File rolls over. The zero value never does.
type Options struct {
	// Daily renames the file to NAME.yyyy-MM-dd at the first write of a new
	// day, the date being that of the day that ended. Where that name is taken
	// already, a number follows that is higher than those of the same date.
	Daily bool
	// MaxBytes renames the file in the same way, by the day that it is of, before
	// a write would make it larger; a single write may be larger than this. Not
	// positive: no bound.
	MaxBytes int64
	// Keep is the number of renamed files that are kept: whenever one comes to be,
	// the oldest by date and number beyond it are deleted. Only what has exactly
	// such a name is. Not positive: all are kept.
	Keep int
	// Now is the clock, whose location decides when midnight is. Nil means
	// time.Now.
	Now func() time.Time
}

// File is an open log file. Its methods are safe for concurrent use; each Write
// reaches the file in one piece.
type File struct {
	path     string
	daily    bool
	maxBytes int64
	keep     int
	now      func() time.Time

	mu      sync.Mutex
	f       *os.File  // nil after Close
	size    int64     // of the file, as far as we have written it
	midLine bool      // the file does not end with a newline
	nextDay time.Time // first moment that the file's contents are yesterday's
	retry   time.Time // no roll before this, because the last one failed
	rollErr error
}

// Open opens path for appending, creating it where it does not exist. The
// folder must exist.
func Open(path string, opts Options) (*File, error) {
	l := &File{path: path, daily: opts.Daily, maxBytes: opts.MaxBytes, keep: opts.Keep, now: opts.Now}
	if l.now == nil {
		l.now = time.Now
	}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

// Path is the name the file was opened under.
func (l *File) Path() string { return l.path }

// Write appends p, which should be one or more whole lines. When not all of p
// can be written, the line that was cut is taken back, n says how much of p
// stays in the file, and err says why; writing p[n:] again later is right.
func (l *File) Write(p []byte) (n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return 0, fmt.Errorf("write %s: %w", l.path, fs.ErrClosed)
	}
	l.rollIfDue(int64(len(p)))
	if l.midLine {
		if _, err := l.f.Write([]byte{'\n'}); err != nil {
			return 0, err
		}
		l.midLine = false
		l.size++
	}
	n, err = l.f.Write(p)
	if err != nil && n > 0 {
		n = l.takeBack(p[:n])
	}
	if n > 0 {
		l.midLine = p[n-1] != '\n'
		l.size += int64(n)
	}
	return n, err
}

// takeBack removes the end of a cut line from the file and returns how much of
// written remains.
func (l *File) takeBack(written []byte) int {
	whole := bytes.LastIndexByte(written, '\n') + 1
	info, err := l.f.Stat()
	if err != nil {
		return len(written)
	}
	if err := l.f.Truncate(info.Size() - int64(len(written)-whole)); err != nil {
		return len(written)
	}
	return whole
}

// Reopen closes the file and opens its name again: what SIGHUP is for after
// logrotate has renamed the file. When the name cannot be opened, the error is
// returned and lines go on into the file that was open.
func (l *File) Reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return fmt.Errorf("reopen %s: %w", l.path, fs.ErrClosed)
	}
	return l.open()
}

// RollErr returns why the roll-over last failed, nil when it has worked
// since. Such a failure loses nothing: lines go on into the old file and the
// roll is tried again every minute.
func (l *File) RollErr() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rollErr
}

// Close closes the file. Later writes fail.
func (l *File) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}

// open puts the file now under l.path in the place of l.f. On error l.f stays.
func (l *File) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, perm)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	now := l.now()
	day := now
	l.midLine, l.size = false, 0
	if info.Mode().IsRegular() && info.Size() > 0 {
		// A file left by an earlier process belongs to the day it was last
		// written on, and may end with what a crash left of a line.
		day = info.ModTime().In(now.Location())
		l.midLine, l.size = !endsWithNewline(l.path, info.Size()), info.Size()
	}
	y, m, d := day.Date()
	l.nextDay = time.Date(y, m, d+1, 0, 0, 0, 0, now.Location())
	if l.f != nil {
		// Nothing is buffered on our side, and every Write has reported its
		// own error: what Close says about the old file changes nothing.
		l.f.Close()
	}
	l.f = f
	return nil
}

// endsWithNewline reports whether the last byte of a file is a newline. A file
// that cannot be read (only the right to append) gets the benefit of the doubt.
func endsWithNewline(path string, size int64) bool {
	f, err := os.Open(path)
	if err != nil {
		return true
	}
	defer f.Close()
	var last [1]byte
	if _, err := f.ReadAt(last[:], size-1); err != nil {
		return true
	}
	return last[0] == '\n'
}

// rollIfDue renames the file when its day is over, or more bytes would make it
// too large, and opens a new one.
func (l *File) rollIfDue(more int64) {
	full := l.maxBytes > 0 && l.size > 0 && l.size+more > l.maxBytes
	if !l.daily && !full {
		return
	}
	now := l.now()
	if over := l.daily && !now.Before(l.nextDay); !over && !full || now.Before(l.retry) {
		return
	}
	l.rollErr = l.roll()
	if l.rollErr != nil {
		l.rollErr = fmt.Errorf("rolling %s over: %w", l.path, l.rollErr)
		l.retry = now.Add(rollRetry)
	}
}

func (l *File) roll() error {
	named, err := os.Stat(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return l.open()
	}
	if err != nil {
		return err
	}
	ours, err := l.f.Stat()
	if err != nil {
		return err
	}
	// Somebody else has rotated the file already, or it is a device: there is
	// nothing of ours to rename.
	if !os.SameFile(named, ours) || !ours.Mode().IsRegular() || ours.Size() == 0 {
		return l.open()
	}
	old, err := l.rolled()
	if err != nil {
		return err
	}
	next := rolledFile{date: l.nextDay.AddDate(0, 0, -1).Format(dateLayout)}
	for _, f := range old {
		if f.date == next.date {
			next.number = max(next.number, f.number+1)
		}
	}
	name := l.path + next.suffix()
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return cmp.Or(err, fmt.Errorf("%s: %w", name, fs.ErrExist))
	}
	if err := os.Rename(l.path, name); err != nil {
		return err
	}
	if err := l.open(); err != nil {
		return err
	}
	return l.prune(append(old, next))
}

// rolledFile is a file that was renamed, as its name tells.
type rolledFile struct {
	date   string
	number int  // 0 for the first of its date, which has none in its name
	theirs bool // somebody has changed the name, to that of a compressed file for one
}

// maxNumber bounds the numbers that are taken for ours.
const maxNumber = 1_000_000_000

// compare puts the older file first.
func (f rolledFile) compare(g rolledFile) int {
	return cmp.Or(cmp.Compare(f.date, g.date), cmp.Compare(f.number, g.number))
}

func (f rolledFile) suffix() string {
	if f.number == 0 {
		return "." + f.date
	}
	return "." + f.date + "." + strconv.Itoa(f.number)
}

// rolled returns the files that have been renamed. They are looked up each
// time: a crash may come between any two steps, and others may delete or compress
// them.
func (l *File) rolled() ([]rolledFile, error) {
	entries, err := os.ReadDir(filepath.Dir(l.path))
	if err != nil {
		return nil, err
	}
	var all []rolledFile
	for _, e := range entries {
		suffix, ok := strings.CutPrefix(e.Name(), filepath.Base(l.path)+".")
		if !ok {
			continue
		}
		date, rest, _ := strings.Cut(suffix, ".")
		number, _, _ := strings.Cut(rest, ".")
		f := rolledFile{date: date}
		if n, err := strconv.Atoi(number); err == nil && n < maxNumber {
			f.number = n
		}
		f.theirs = f.suffix() != "."+suffix
		if _, err := time.Parse(dateLayout, date); err == nil {
			all = append(all, f)
		}
	}
	return all, nil
}

// prune deletes the oldest of the renamed files.
func (l *File) prune(files []rolledFile) error {
	files = slices.DeleteFunc(files, func(f rolledFile) bool { return f.theirs })
	if l.keep <= 0 || len(files) <= l.keep {
		return nil
	}
	slices.SortFunc(files, rolledFile.compare)
	var errs []error
	for _, f := range files[:len(files)-l.keep] {
		if err := os.Remove(l.path + f.suffix()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
