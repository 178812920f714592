package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/go-zookeeper/zk"
	"golang.org/x/sync/errgroup"

	"github.com/edekd/edekd/proxy/authn/token"
)

const (
	// maxListed bounds the tokens that are listed, which takes some 60 bytes of
	// memory each.
	maxListed = 2_000_000
	// sweepers is how many nodes a sweep looks at at once.
	sweepers = 8
)

// Sweep implements token.Store. It lists the names of all tokens, reads those
// that no sweep before found to be alive until later, and removes each on
// condition that it has not changed since. Nodes it cannot read stay, and one of
// them is in the error.
func (t *Tokens) Sweep(ctx context.Context, before int64) (removed int, err error) {
	t.sweeping.Lock()
	defer t.sweeping.Unlock()
	count, err := t.Count(ctx)
	if err != nil {
		return 0, err
	}
	if count > t.maxListed {
		return 0, fmt.Errorf("sweep delegation tokens: %s has %d children, more than the %d that can be listed: remove old ones with ZooKeeper's own tools", t.root+tokensName, count, t.maxListed)
	}
	removed, err = t.sweepTokens(ctx, before)
	if err != nil {
		return removed, fmt.Errorf("sweep delegation tokens: %w", err)
	}
	if err := t.sweepKeys(ctx, before); err != nil {
		return removed, fmt.Errorf("sweep master keys: %w", err)
	}
	return removed, nil
}

func (t *Tokens) sweepTokens(ctx context.Context, before int64) (int, error) {
	names, err := t.c.children(ctx, t.root+tokensName)
	if err != nil {
		return 0, err
	}
	alive := make(map[int32]int64, len(names))
	var look []int32
	for _, name := range names {
		if sequence, ok := parseName(name, tokenPrefix); !ok {
			continue
		} else if due, known := t.due[sequence]; known && due >= before {
			alive[sequence] = due
		} else {
			look = append(look, sequence)
		}
	}
	due := make([]int64, len(look)) // stays 0 for what is removed or unreadable
	var removed atomic.Int64
	var unread atomic.Pointer[error]
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(sweepers)
	for i, sequence := range look {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			r, err := t.fetchForSweep(ctx, sequence)
			switch {
			case err != nil && isOutage(err):
				return err
			case err != nil:
				unread.Store(&err)
				return nil
			case r == nil:
				return nil
			case r.RenewDate >= before:
				due[i] = r.RenewDate
				return nil
			}
			switch err := t.Delete(ctx, r); {
			case err == nil:
				removed.Add(1)
			case !errors.Is(err, token.ErrConflict) && !errors.Is(err, token.ErrNotFound):
				return err
			}
			return nil
		})
	}
	err = group.Wait()
	for i, sequence := range look {
		if due[i] > 0 {
			alive[sequence] = due[i]
		}
	}
	t.due = alive
	if p := unread.Load(); err == nil && p != nil {
		err = fmt.Errorf("%w: remove this node with ZooKeeper's own tools", *p)
	}
	return int(removed.Load()), err
}

// fetchForSweep reads a token past the memo. It returns nothing for one that is
// gone.
func (t *Tokens) fetchForSweep(ctx context.Context, sequence int32) (*token.Record, error) {
	n, err := t.c.get(ctx, t.tokenPath(sequence), false)
	if errors.Is(err, zk.ErrNoNode) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := parseTokenNode(n.data)
	if err != nil || r.Sequence != sequence {
		return nil, fmt.Errorf("%s holds no such token: %w", t.tokenPath(sequence), orMismatch(err))
	}
	r.Version = recordVersion(n.version)
	return r, nil
}

// isOutage tells what ends a sweep from what concerns one node.
func isOutage(err error) bool {
	return errors.Is(err, ErrAway) || errors.Is(err, zk.ErrNoAuth) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func (t *Tokens) sweepKeys(ctx context.Context, before int64) error {
	names, err := t.c.children(ctx, t.root+keysName)
	if err != nil {
		return err
	}
	for _, name := range names {
		id, ok := parseName(name, keyPrefix)
		if !ok {
			continue
		}
		n, err := t.c.get(ctx, t.keyPath(id), false)
		if errors.Is(err, zk.ErrNoNode) {
			continue
		}
		if err != nil {
			return err
		}
		k, err := parseKeyNode(n.data)
		clear(n.data)
		if err != nil || k.ID != id {
			return fmt.Errorf("%s holds no such key: %w: remove this node with ZooKeeper's own tools", t.keyPath(id), orMismatch(err))
		}
		if k.Expires >= before {
			continue
		}
		err = t.c.delete(ctx, t.keyPath(id), n.version)
		if err != nil && !errors.Is(err, zk.ErrNoNode) && !errors.Is(err, zk.ErrBadVersion) {
			return err
		}
	}
	return nil
}
