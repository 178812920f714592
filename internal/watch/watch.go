// Package watch tells that files have changed on disk, by looking at them.
//
// Looking finds what notifications of the kernel miss: files on network file
// systems, links that are pointed elsewhere (as mounted secrets are), a file
// renamed over another. It costs one system call for each file.
package watch

import (
	"io/fs"
	"os"
	"syscall"
	"time"
)

// Set knows how files looked the last time. It is not safe for concurrent use.
type Set struct{ seen map[string]look }

// look is what tells one state of a file from another.
type look struct {
	device, inode uint64
	size          int64
	mode          fs.FileMode
	modified      time.Time
	changed       syscall.Timespec // of the inode: also when the time of modification was put back
	err           string           // why there is nothing to see
}

// Changed looks at the files, which need not exist, and reports whether one of
// them is not what it was the last time. Files asked for the first time are
// taken as they are. Ask before reading the files, so that a change while they
// are read is found by the next call.
func (s *Set) Changed(paths []string) (changed bool) {
	if s.seen == nil {
		s.seen = map[string]look{}
	}
	for _, path := range paths {
		now := lookAt(path)
		before, known := s.seen[path]
		s.seen[path] = now
		changed = changed || known && now != before
	}
	return changed
}

// clockStep is how far the time a file system gives a change may lie behind the
// clock.
const clockStep = 10 * time.Millisecond

// Add takes files not asked for so far as they are now, and reports whether one
// of them changed after it was read, when reading began at the given time.
func (s *Set) Add(paths []string, began time.Time) (changed bool) {
	for _, path := range paths {
		if _, known := s.seen[path]; known {
			continue
		}
		s.Changed([]string{path})
		since := syscall.NsecToTimespec(began.Add(-clockStep).UnixNano())
		now := s.seen[path].changed
		changed = changed || now.Sec > since.Sec || now.Sec == since.Sec && now.Nsec >= since.Nsec
	}
	return changed
}

func lookAt(path string) look {
	info, err := os.Stat(path)
	if err != nil {
		return look{err: err.Error()}
	}
	l := look{size: info.Size(), mode: info.Mode(), modified: info.ModTime().Round(0)}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		l.device, l.inode, l.changed = uint64(sys.Dev), sys.Ino, sys.Ctim //nolint:unconvert // 32 bits elsewhere
	}
	return l
}
