// Package quietly keeps what happens often from filling a log.
package quietly

import (
	"sync/atomic"
	"time"
)

// Minutely is for one kind of line. The zero value is ready, and it is safe for
// concurrent use.
type Minutely struct{ last atomic.Pointer[time.Time] }

// Due reports, once a minute at most, that the line may be written.
func (m *Minutely) Due() bool {
	now, last := time.Now(), m.last.Load()
	return (last == nil || now.Sub(*last) >= time.Minute) && m.last.CompareAndSwap(last, &now)
}
