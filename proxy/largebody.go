package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// largeBodyBudget is what the bodies beyond Limits.Body, which only batches may
// have, can take together while they are read and answered. fasthttp sets the
// announced length aside before the first byte has come, so without it a crowd
// that announces batches and sends nothing would take all memory.
const largeBodyBudget = 256 << 20

// largeBodies hands out the budget. A reservation is known by the header of its
// request, which stays in place until the request is answered. fasthttp does not
// tell when a connection ends before the body has come; what nobody came back for
// is given back when the time for a body to arrive is over.
type largeBodies struct {
	inUse atomic.Int64 // bytes; also tells the usual request that there is nothing to give back
	mu    sync.Mutex
	held  map[*fasthttp.RequestHeader]reservation
	swept time.Time // when reservations were last looked through
}

type reservation struct {
	bytes   int64
	made    time.Time
	arrived bool // the body is there, and its handler gives back
}

// bodyOverdue is longer than fasthttp waits for a body, be it one that it had to
// ask for (Expect: 100-continue).
const bodyOverdue = 2*readTimeout + time.Second

// take reserves n bytes for the request of h; false when they are not to be had.
func (l *largeBodies) take(h *fasthttp.RequestHeader, n int64, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(now)
	if l.inUse.Load()-l.held[h].bytes+n > largeBodyBudget {
		return false
	}
	if l.held == nil {
		l.held = map[*fasthttp.RequestHeader]reservation{}
	}
	l.inUse.Add(n - l.held[h].bytes)
	l.held[h] = reservation{bytes: n, made: now}
	return true
}

// claim notes that the body of h has arrived: its reservation lasts until it is
// given back.
func (l *largeBodies) claim(h *fasthttp.RequestHeader) {
	if l.inUse.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r, ok := l.held[h]; ok {
		r.arrived = true
		l.held[h] = r
	}
}

// giveBack ends the reservation of h, if it has one: that of a request that was
// answered, or one left over from a connection that ended in the middle.
func (l *largeBodies) giveBack(h *fasthttp.RequestHeader) {
	if l.inUse.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end(h)
	l.sweep(time.Now())
}

func (l *largeBodies) end(h *fasthttp.RequestHeader) {
	l.inUse.Add(-l.held[h].bytes)
	delete(l.held, h)
}

// sweep ends the reservations whose bodies did not arrive, at most once a second.
func (l *largeBodies) sweep(now time.Time) {
	if now.Sub(l.swept) < time.Second {
		return
	}
	l.swept = now
	for h, r := range l.held {
		if !r.arrived && now.Sub(r.made) > bodyOverdue {
			l.end(h)
		}
	}
}

// largeBody says what to do about a body beyond Limits.Body.
type largeBody uint8

const (
	bodyTooLarge largeBody = iota
	bodyWelcome            // reserved
	bodyOfNobody           // the sender has to authenticate first
	bodyMustWait           // others have taken the budget
)

// judgeBody decides on the headers alone, before the body is read, whether a
// request may have a body of n bytes, n being more than Limits.Body or
// chunkedBody. known says that the connection tells who sends it.
func (s *Server) judgeBody(h *fasthttp.RequestHeader, n int, known bool) (verdict largeBody) {
	defer func() {
		if s.panicked(recover()) {
			verdict = bodyTooLarge
		}
	}()
	if batchRow(h) == rowUnknown || n > s.c.Limits.BatchBody {
		return bodyTooLarge
	}
	if n == chunkedBody {
		n = s.c.Limits.BatchBody
	}
	if !known && !s.c.Authn.Judge(h, time.Now()) {
		return bodyOfNobody
	}
	if !s.large.take(h, int64(n), time.Now()) {
		return bodyMustWait
	}
	return bodyWelcome
}

// batchRow returns the row of a request that may have a large body, rowUnknown
// for all others.
func batchRow(h *fasthttp.RequestHeader) row {
	path, _ := splitTarget(h.RequestURI())
	rest, ok := restPath(path)
	if !ok || string(h.Method()) != fasthttp.MethodPost {
		return rowUnknown
	}
	res, name := parsePath(rest)
	if res == resKeyReencryptBatch {
		return rowReencryptBatch
	}
	if _, ok := asDecryptBatch(h.Method(), res, name); ok {
		return rowDecryptBatch
	}
	return rowUnknown
}
