// Package flight lets calls of one caller for one EDEK, made at the same time,
// share one call to the server behind.
//
// Only success is shared. When the call that others wait for fails, for whatever
// reason, its own deadline above all, each of them makes a call of its own. The
// DEK is held for as long as somebody waits for it, and zeroed by the last.
package flight

import (
	"context"
	"strings"
	"sync"

	"github.com/edekd/edekd/edek"
)

// ID says which calls are the same. Its strings may alias reused buffers.
type ID struct {
	User, Real string // effective and real user
	Name       string // of the key
	Epoch      uint64 // of the key: a call made after a change does not share one from before
	EDEK       edek.EDEK
}

// Group holds the calls under way. Its zero value is ready. It holds as many
// calls as there are callers of Do.
type Group struct {
	mu    sync.Mutex
	calls map[ID]*call
}

// call is a call under way.
type call struct {
	done    chan struct{} // closed when dek is there, or the call failed
	waiting int           // guarded by Group.mu
	dek     []byte        // set when somebody waited and the call succeeded; then guarded by Group.mu
	ok      bool
}

// Do appends the DEK of id to dst, by open or by another's open that is under
// way, and reports whether it was another's. open appends the DEK to what it is
// given. The caller zeroes what was appended; on an error nothing is. When ctx
// ends while another's call is waited for, its error is returned.
func (g *Group) Do(ctx context.Context, dst []byte, id ID, open func(ctx context.Context, dst []byte) ([]byte, error)) (result []byte, shared bool, err error) {
	g.mu.Lock()
	if c := g.calls[id]; c != nil {
		c.waiting++
		g.mu.Unlock()
		if result, ok, err := g.wait(ctx, dst, c); ok || err != nil {
			return result, ok, err
		}
		result, err := open(ctx, dst)
		return result, false, err
	}
	id.User, id.Real, id.Name = strings.Clone(id.User), strings.Clone(id.Real), strings.Clone(id.Name)
	c := &call{done: make(chan struct{})}
	if g.calls == nil {
		g.calls = map[ID]*call{}
	}
	g.calls[id] = c
	g.mu.Unlock()

	n := len(dst)
	defer func() { // also when open panics: nobody may wait for ever
		g.mu.Lock()
		delete(g.calls, id)
		if c.waiting > 0 && c.ok {
			c.dek = append([]byte(nil), result[n:]...)
		}
		g.mu.Unlock()
		close(c.done)
	}()
	result, err = open(ctx, dst)
	c.ok = err == nil
	return result, false, err
}

// wait waits for another's call. ok is false if that failed.
func (g *Group) wait(ctx context.Context, dst []byte, c *call) (result []byte, ok bool, err error) {
	select {
	case <-c.done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil && c.ok {
		dst, ok = append(dst, c.dek...), true
	}
	if c.waiting--; c.waiting == 0 {
		clear(c.dek)
		c.dek = nil
	}
	return dst, ok, err
}
