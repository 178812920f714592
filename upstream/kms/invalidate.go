package kms

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream"
)

// maxPending bounds the names that are remembered for a node; beyond, all of
// the upstream's keys are invalidated.
const maxPending = 10_000

// pending is the keys that a node has to forget before it is used again.
type pending struct {
	mu    sync.Mutex
	keys  map[string]uint64 // name to the number of its newest entry
	every bool              // more than could be remembered
	last  uint64
}

func (p *pending) add(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keys == nil {
		p.keys = map[string]uint64{}
	}
	if _, known := p.keys[name]; !known && len(p.keys) >= maxPending {
		p.every = true
		return
	}
	p.last++
	p.keys[name] = p.last
}

// next returns a name and its number.
func (p *pending) next() (name string, number uint64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, number := range p.keys {
		return name, number, true
	}
	return "", 0, false
}

// done takes a name out, unless it was added again meanwhile.
func (p *pending) done(name string, number uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keys[name] == number {
		delete(p.keys, name)
	}
}

// overflown tells whether names were lost.
func (p *pending) overflown() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.every
}

// fill puts all names of the upstream in place of those that were lost, however
// many they are.
func (p *pending) fill(names []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.every = false
	for _, name := range names {
		p.last++
		p.keys[name] = p.last
	}
}

func invalidation(name string, caller edek.Caller) *request {
	return &request{op: "invalidate", key: name, method: http.MethodPost, path: "key/" + escape(name) + "/_invalidatecache", caller: caller, status: http.StatusOK}
}

// InvalidateEverywhere makes every node forget what it has cached of a key, as
// the service. When it returns without error, each node either has forgotten it
// or is out of use, and will forget it before it is used again: those that are
// out of use, and those that do not answer now. Only the memory of this process
// knows of the latter. A node that answers with an exception stays in use with
// what it has cached, and the exception is the error: the service then lacks the
// right to roll or delete keys there. So does one behind a web server that does
// not take the name. Each node has the time of an attempt, whenever ctx ends: what a
// caller has no time for must not look as if nodes did not answer.
func (c *Client) InvalidateEverywhere(ctx context.Context, name string) error {
	ctx = context.WithoutCancel(ctx)
	r := invalidation(name, edek.Caller{})
	if err := c.admit(r); err != nil {
		return err
	}
	errs := make([]error, len(c.nodes))
	var all sync.WaitGroup
	for i, n := range c.nodes {
		all.Go(func() {
			if c.set.Usable(i) {
				err := c.set.At(ctx, i, func(ctx context.Context, i int) error { return c.ask(ctx, n, c.fresh, r, nil) })
				_, isFault := errors.AsType[*upstream.Fault](err)
				if late := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled); !isFault && !late {
					errs[i] = err
					return
				}
			}
			n.pending.add(name)
			c.set.Suspend(i)
		})
	}
	all.Wait()
	c.queue.Turned() // the room that this took is free again
	return errors.Join(errs...)
}

// settle makes a node forget what it has to. It may be ended by its context and
// goes on at the next call.
func (c *Client) settle(ctx context.Context, n *node) error {
	for {
		if n.pending.overflown() {
			// A name lost meanwhile is among those that are listed now.
			names, err := c.namesAt(ctx, n)
			if err != nil {
				return err
			}
			n.pending.fill(names)
		}
		name, number, ok := n.pending.next()
		if !ok {
			return nil
		}
		err := c.ask(ctx, n, c.pooled, invalidation(name, edek.Caller{}), nil)
		if _, isFault := errors.AsType[*upstream.Fault](err); isFault {
			return err
		}
		if err != nil {
			c.config.Log.Warn("a KMS that was out of reach does not forget what it has cached of a key: the service needs the right to roll keys there, and web servers before it must take the name",
				"node", n.addr, "key", name, "error", err)
		}
		n.pending.done(name, number)
	}
}
