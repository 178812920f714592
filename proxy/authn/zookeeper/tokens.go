package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
	"golang.org/x/sync/singleflight"

	"github.com/edekd/edekd/proxy/authn/token"
)

// Names of ZKDelegationTokenSecretManager.
const (
	rootName      = "/ZKDTSMRoot"
	sequencesName = "/ZKDTSMSeqNumRoot"
	keyIDsName    = "/ZKDTSMKeyIdRoot"
	keysName      = "/ZKDTSMMasterKeyRoot"
	tokensName    = "/ZKDTSMTokensRoot"
	keyPrefix     = "DK_"
	tokenPrefix   = "DT_"
)

// probeInterval is how often the store asks whether it has been told of all
// changes.
const probeInterval = 2 * time.Second

// Tokens is a token.Store that Java KMSes share. Its methods fail with ErrAway
// while ZooKeeper cannot be asked.
//
// A token is read when it is first asked for, remembered, and watched. Every two
// seconds the store has ZooKeeper confirm that it has been told of all changes;
// when that is not confirmed for ten seconds, or when the connection was lost
// and comes back, it forgets everything it remembers. So a node that is cut off
// goes on believing in the tokens it knows for ten seconds at most and then in
// none: what it cannot look up is refused with an error that makes clients try
// another server.
type Tokens struct {
	c     *conn
	root  string
	log   *slog.Logger
	memo  *memo
	syncs singleflight.Group

	counters [2]counter
	// due remembers the renew dates the last Sweep saw: a token cannot have
	// expired before that date, since renewals only put it off.
	sweeping sync.Mutex
	due      map[int32]int64

	maxListed int

	stop  context.CancelFunc
	done  sync.WaitGroup
	again chan struct{} // asks for a probe now
}

// counter is the part of a shared counter that was taken for this process.
type counter struct {
	mu    sync.Mutex
	path  string
	batch int32 // numbers to take at once
	last  int32 // number handed out
	left  int32 // numbers left to hand out
}

var _ token.Store = (*Tokens)(nil)

// openTokens makes the store's nodes unless they exist.
func openTokens(ctx context.Context, c *conn, cfg TokensConfig, log *slog.Logger) (*Tokens, error) {
	t := &Tokens{c: c, root: cfg.WorkingPath + rootName, log: log, memo: newMemo(maxMemo, maxWatches), maxListed: maxListed, again: make(chan struct{}, 1)}
	t.counters[token.Sequences] = counter{path: t.root + sequencesName, batch: int32(cfg.Batch)}
	t.counters[token.KeyIDs] = counter{path: t.root + keyIDsName, batch: 1}
	if err := t.makeNodes(ctx); err != nil {
		return nil, fmt.Errorf("delegation tokens in ZooKeeper: %w", err)
	}
	c.warnIfOpen(ctx, t.root+keysName, "delegation tokens")
	c.observe(t)
	t.probe(ctx)
	background, stop := context.WithCancel(context.Background())
	t.stop = stop
	t.done.Go(func() { t.keepProbing(background) })
	return t, nil
}

// makeNodes makes the nodes of the store itself unless they exist.
func (t *Tokens) makeNodes(ctx context.Context) error {
	for _, name := range []string{keysName, tokensName} {
		if err := t.c.makeFolder(ctx, t.root+name); err != nil {
			return err
		}
	}
	for i := range t.counters {
		err := t.c.create(ctx, t.counters[i].path, appendCounter(nil, 0))
		if err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return err
		}
	}
	return nil
}

// mending calls f, and when a node was not there once more after makeNodes:
// somebody may have removed everything to end all tokens.
func (t *Tokens) mending(ctx context.Context, f func() error) error {
	err := f()
	if !errors.Is(err, zk.ErrNoNode) {
		return err
	}
	t.log.Warn("nodes of the token store were removed from ZooKeeper and are made again", "node", t.root)
	if err := t.makeNodes(ctx); err != nil {
		return err
	}
	return f()
}

// close ends every record.
func (t *Tokens) close() {
	t.stop()
	t.done.Wait()
	t.memo.endAll()
}

// keepProbing keeps the memo's promise.
func (t *Tokens) keepProbing(ctx context.Context) {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-t.again:
		}
		t.probe(ctx)
	}
}

// probe asks whether all changes until now have been told of.
func (t *Tokens) probe(ctx context.Context) {
	begun, connection := time.Now(), t.c.connection()
	if connection == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, silence+margin)
	defer cancel()
	if err := t.c.sync(ctx, t.root); err != nil {
		return
	}
	t.memo.confirm(begun, func() bool { return t.c.connection() == connection })
}

// reconnected implements observer. What happened meanwhile was told to nobody,
// so nothing of before is believed.
func (t *Tokens) reconnected() {
	t.memo.disarm()
	select {
	case t.again <- struct{}{}:
	default:
	}
}

// node implements observer.
func (t *Tokens) node(path string) {
	if name, ok := strings.CutPrefix(path, t.root+tokensName+"/"); ok {
		if sequence, ok := parseName(name, tokenPrefix); ok {
			t.memo.forget(sequence, true)
		}
	}
}

// parseName reads the number in the name of a node, which Java wrote in its one
// decimal spelling.
func parseName(name, prefix string) (int32, bool) {
	digits, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	return int32(n), err == nil && strconv.FormatInt(n, 10) == digits
}

func (t *Tokens) keyPath(id int32) string {
	return t.root + keysName + "/" + keyPrefix + strconv.Itoa(int(id))
}

func (t *Tokens) tokenPath(sequence int32) string {
	return t.root + tokensName + "/" + tokenPrefix + strconv.Itoa(int(sequence))
}

// Next implements token.Store. Sequence numbers are taken in batches, as Java
// does.
func (t *Tokens) Next(ctx context.Context, which token.Counter) (int32, error) {
	c := &t.counters[which]
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == 0 {
		first, err := t.take(ctx, c)
		if err != nil {
			return 0, fmt.Errorf("next of %v: %w", which, err)
		}
		c.last, c.left = first, c.batch
	}
	c.last++ // past the largest number comes the smallest
	c.left--
	return c.last, nil
}

// take moves the shared counter on by one batch and returns where it stood. When
// the connection breaks, the batch that may have been taken is left out.
func (t *Tokens) take(ctx context.Context, c *counter) (int32, error) {
	for {
		var n node
		err := t.mending(ctx, func() (err error) {
			n, err = t.c.get(ctx, c.path, false)
			return err
		})
		if err != nil {
			return 0, err
		}
		value, err := parseCounter(n.data)
		if err != nil {
			return 0, fmt.Errorf("%s holds no counter: %w: set it to a number of 4 bytes above all that were handed out", c.path, err)
		}
		_, err = t.c.set(ctx, c.path, appendCounter(nil, value+c.batch), n.version)
		if err == nil {
			return value, nil
		}
		if !errors.Is(err, zk.ErrBadVersion) {
			return 0, err
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
}

// read reads a node that another server may have made a moment ago: when it is
// not there, once more after a sync that all who need one share.
func (t *Tokens) read(ctx context.Context, path string, watch bool) (node, error) {
	n, err := t.c.get(ctx, path, watch)
	if !errors.Is(err, zk.ErrNoNode) {
		return n, err
	}
	shared := t.syncs.DoChan("", func() (any, error) {
		return nil, t.c.sync(context.WithoutCancel(ctx), t.root)
	})
	select {
	case result := <-shared:
		if result.Err != nil {
			return node{}, result.Err
		}
	case <-ctx.Done():
		return node{}, fmt.Errorf("%w: %w", ErrAway, ctx.Err())
	}
	return t.c.get(ctx, path, watch)
}

// Key implements token.Store.
func (t *Tokens) Key(ctx context.Context, id int32) (*token.MasterKey, error) {
	n, err := t.read(ctx, t.keyPath(id), false)
	if errors.Is(err, zk.ErrNoNode) {
		return nil, fmt.Errorf("master key %d: %w", id, token.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("master key %d: %w", id, err)
	}
	defer clear(n.data)
	k, err := parseKeyNode(n.data)
	if err != nil || k.ID != id {
		return nil, fmt.Errorf("master key %d: %s does not hold it: %w", id, t.keyPath(id), orMismatch(err))
	}
	return k, nil
}

// KeyIDs implements token.Store.
func (t *Tokens) KeyIDs(ctx context.Context) (ids []int32, err error) {
	err = t.mending(ctx, func() error {
		if err := t.c.sync(ctx, t.root); err != nil {
			return err
		}
		names, err := t.c.children(ctx, t.root+keysName)
		for _, name := range names {
			if id, ok := parseName(name, keyPrefix); ok {
				ids = append(ids, id)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the master keys: %w", err)
	}
	return ids, nil
}

var errMismatch = errors.New("it is of another number")

func orMismatch(err error) error {
	if err != nil {
		return err
	}
	return errMismatch
}

// PutKey implements token.Store.
func (t *Tokens) PutKey(ctx context.Context, k *token.MasterKey) error {
	data := appendKeyNode(make([]byte, 0, 32+len(k.Secret)), k)
	path := t.keyPath(k.ID)
	_, err := t.c.set(ctx, path, data, -1)
	if errors.Is(err, zk.ErrNoNode) {
		err = t.mending(ctx, func() error { return t.c.create(ctx, path, data) })
		if errors.Is(err, zk.ErrNodeExists) {
			_, err = t.c.set(ctx, path, data, -1)
		}
	}
	if err != nil {
		// The request may still wait to be sent, so the bytes are not zeroed.
		return fmt.Errorf("store master key %d: %w", k.ID, err)
	}
	clear(data)
	return nil
}

// Known implements token.Store.
func (t *Tokens) Known(sequence int32) *token.Record { return t.memo.get(sequence) }

// Token implements token.Store.
func (t *Tokens) Token(ctx context.Context, sequence int32) (*token.Record, error) {
	if r := t.memo.get(sequence); r != nil {
		return r, nil
	}
	reading := t.memo.begin(sequence)
	record, err := t.fetch(ctx, sequence, reading.watch)
	if record = t.memo.finish(reading, record); err != nil {
		return nil, fmt.Errorf("delegation token %d: %w", sequence, err)
	}
	return record, nil
}

func (t *Tokens) fetch(ctx context.Context, sequence int32, watch bool) (*token.Record, error) {
	n, err := t.read(ctx, t.tokenPath(sequence), watch)
	if errors.Is(err, zk.ErrNoNode) {
		return nil, token.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	r, err := parseTokenNode(n.data)
	if err != nil || r.Sequence != sequence {
		return nil, fmt.Errorf("%s does not hold it: %w", t.tokenPath(sequence), orMismatch(err))
	}
	r.Version = recordVersion(n.version)
	return r, nil
}

// recordVersion maps versions of nodes, from 0 on, to those of records, which
// are never 0.
func recordVersion(node int32) int64 { return int64(node) + 1 }

func nodeVersion(record int64) (int32, bool) {
	return int32(record - 1), record > 0 && record <= math.MaxInt32
}

// Put implements token.Store.
func (t *Tokens) Put(ctx context.Context, r *token.Record) error {
	defer t.memo.forget(r.Sequence, false)
	data := appendTokenNode(nil, r)
	var err error
	if r.Version == 0 {
		err = t.mending(ctx, func() error { return t.c.create(ctx, t.tokenPath(r.Sequence), data) })
	} else if version, ok := nodeVersion(r.Version); ok {
		_, err = t.c.set(ctx, t.tokenPath(r.Sequence), data, version)
	} else {
		err = zk.ErrBadVersion
	}
	return changeError("store", r.Sequence, err)
}

// Delete implements token.Store.
func (t *Tokens) Delete(ctx context.Context, r *token.Record) error {
	defer r.End()
	defer t.memo.forget(r.Sequence, false)
	version, ok := nodeVersion(r.Version)
	if !ok {
		return changeError("remove", r.Sequence, zk.ErrBadVersion)
	}
	return changeError("remove", r.Sequence, t.c.delete(ctx, t.tokenPath(r.Sequence), version))
}

func changeError(what string, sequence int32, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, zk.ErrBadVersion), errors.Is(err, zk.ErrNodeExists):
		err = token.ErrConflict
	case errors.Is(err, zk.ErrNoNode):
		err = token.ErrNotFound
	}
	return fmt.Errorf("%s delegation token %d: %w", what, sequence, err)
}

// Count implements token.Store.
func (t *Tokens) Count(ctx context.Context) (int, error) {
	n := 0
	err := t.mending(ctx, func() (err error) {
		n, err = t.c.count(ctx, t.root+tokensName)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("count delegation tokens: %w", err)
	}
	return n, nil
}

// Remembered returns how many tokens are remembered and how many nodes watched
// for them, for metrics.
func (t *Tokens) Remembered() (tokens, watches int) { return t.memo.sizes() }
