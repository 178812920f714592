package quietly

import (
	"sync"
	"time"
)

// Some lets the first lines of each second through. It is safe for concurrent use.
type Some struct {
	Most int // lines a second

	mu      sync.Mutex
	began   time.Time
	lines   int
	omitted int
}

// Due reports whether a line may be written, and how many have been left out since
// the last one that was.
func (s *Some) Due() (due bool, omitted int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.began) >= time.Second {
		s.began, s.lines = now, 0
	}
	if s.lines == s.Most {
		s.omitted++
		return false, 0
	}
	s.lines++
	omitted, s.omitted = s.omitted, 0
	return true, omitted
}
