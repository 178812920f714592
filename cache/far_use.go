package cache

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/edekd/edekd/cache/grant"
	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/keys"
)

// Name returns the key's name.
func (f *FarKey) Name() string { return f.name }

// VersionName returns the name of a version of the key.
func (f *FarKey) VersionName(version int) string {
	if known := f.facts.Load(); known != nil && version == known.metadata.Versions-1 {
		return known.current
	}
	return edek.VersionName(f.name, version)
}

// As gives access to the key's provider in a caller's name. Nothing is
// remembered of what it says, but a denial ends grants.
func (f *FarKey) As(c edek.Caller) keys.Remote { return judged{f.provider.As(c), f.side, c} }

// Provider returns who has the key.
func (f *FarKey) Provider() keys.Far { return f.provider.Far }

// BatchDeadline is Deadline for a request that may become n to the other KMS: as
// long for each thousand that is begun.
func (f *FarKey) BatchDeadline(ctx context.Context, n int) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, f.side.c.Timeout*time.Duration(1+n/1000))
}

// Deadline returns a context in which one request to the other KMS is answered
// or given up.
func (f *FarKey) Deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, f.side.c.Timeout)
}

// Generate appends n new EDEKs for the caller to dst: those that are ready, if
// the other KMS would let him have them, and what is missing from there. What is
// ready is not taken before the rest has come, which in an outage it does not:
// Hadoop's clients ask for hundreds to refill a queue of theirs, and once that is
// empty for one at a time.
func (f *FarKey) Generate(ctx context.Context, c edek.Caller, n int, dst []edek.EDEK) ([]edek.EDEK, error) {
	known := f.facts.Load()
	granted, renew := false, false
	if known != nil {
		granted, renew = f.granted(&c, known, grant.Generate)
	}
	if renew {
		f.side.renew(c, func(ctx context.Context, c edek.Caller) { _, _ = f.generateAs(ctx, c, known, 1) })
	}
	if !granted {
		dst, err := f.forwardGenerate(ctx, c, known, n, dst)
		if err != nil && known != nil {
			err = f.ungranted(err)
		}
		return dst, err
	}
	dst = slices.Grow(dst, n)
	rings, privileged := f.side.rings, f.side.privileged(&c)
	if n > 1 {
		if ready := rings.Depth(f.name, privileged); 0 < ready && ready < n {
			var err error
			rings.Miss(f.name, n-ready)
			if dst, err = f.forwardGenerate(ctx, c, known, n-ready, dst); err != nil {
				return dst, err
			}
			n = ready
		}
	}
	ready := rings.Take(f.name, dst[len(dst):len(dst)+n], privileged)
	dst = dst[:len(dst)+len(ready)]
	if n -= len(ready); n == 0 {
		return dst, nil
	}
	return f.forwardGenerate(ctx, c, known, n, dst)
}

// ungranted says why a caller gets nothing of what is ready while the other KMS
// cannot be asked whether he may.
func (f *FarKey) ungranted(err error) error {
	refused, ok := errors.AsType[*edek.Error](err)
	if !ok || refused.Kind != edek.Unavailable || !f.provider.gone() {
		return err
	}
	why := *refused
	why.Text += "; what was fetched ahead is for callers whose own request was answered lately: edekd.upstream.grant.outage.seconds says how much longer that counts now"
	return &why
}

// Ready returns how many EDEKs of a key are ready.
func (k *Cache) Ready(name string) (n int) {
	if k.far != nil {
		n = k.far.rings.Depth(name, true)
	}
	return n
}

// privileged reports whether a caller may have what is kept back in an outage.
func (s *farSide) privileged(c *edek.Caller) bool { return s.c.Reserved[c.User] }

// forwardGenerate has EDEKs made in the caller's name.
func (f *FarKey) forwardGenerate(ctx context.Context, c edek.Caller, known *facts, n int, dst []edek.EDEK) ([]edek.EDEK, error) {
	f.side.synchronous.Inc()
	made, err := f.generateAs(ctx, c, known, n)
	return append(dst, made...), err
}

// generateAs asks the other KMS in the caller's name, and notes what the answer
// says of his rights and of the key.
func (f *FarKey) generateAs(ctx context.Context, c edek.Caller, known *facts, n int) ([]edek.EDEK, error) {
	ctx, cancel := f.Deadline(ctx)
	defer cancel()
	sent, epoch := time.Now(), f.epochNow()
	made, err := f.make(ctx, c, n, epoch)
	if err != nil {
		return nil, f.judge(&c, err)
	}
	f.provider.heard()
	f.earn(&c, known, grant.Generate, sent)
	f.saw(made, epoch)
	return made, nil
}

// saw looks for versions that are newer than is known among EDEKs that were asked
// for at the given epoch: the key was then rolled behind us. What is ready of older
// ones is forgotten, and the key looked at anew. If it has changed since they were
// asked for, they may be of another key, and say nothing.
func (f *FarKey) saw(made []edek.EDEK, epoch uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.facts.Load()
	if known == nil || f.epoch != epoch {
		return
	}
	newest := known.oldest
	for i := range made {
		newest = max(newest, made[i].Version())
	}
	if newest > known.oldest {
		f.epoch = f.side.epochs.Add(1) // an answer that is under way may be older than what was seen
		f.side.rings.DropBelow(f.name, newest)
		doubted := *known
		doubted.oldest, doubted.told = newest, false
		doubted.checked -= int64(4 * f.side.c.Poll)
		f.facts.Store(&doubted)
	}
}

// make has EDEKs made at the given epoch. Those of a version from before a roll are not
// taken at once: a queue of that KMS had been filled again just before the roll that it
// was emptied for (Hadoop fills it in the background).
func (f *FarKey) make(ctx context.Context, c edek.Caller, n int, epoch uint64) ([]edek.EDEK, error) {
	made, err := f.provider.Generate(ctx, c, f.name, n)
	if err != nil || !f.outdated(made, epoch) {
		return made, err
	}
	f.tell(ctx, "the KMS behind made encrypted keys of a version from before a roll, and not all servers could be told to forget the key")
	return f.provider.Generate(ctx, c, f.name, n)
}

// outdated reports, once for an epoch, that there are EDEKs of older versions than is
// known among those that were asked for at that epoch.
func (f *FarKey) outdated(made []edek.EDEK, epoch uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.facts.Load()
	if known == nil || f.epoch != epoch || f.purged == epoch ||
		!slices.ContainsFunc(made, func(e edek.EDEK) bool { return e.Version() < known.oldest }) {
		return false
	}
	f.purged = epoch
	return true
}

// tell has all nodes forget the key. That one cannot be told is for the log.
func (f *FarKey) tell(ctx context.Context, otherwise string) {
	if err := f.provider.InvalidateEverywhere(ctx, f.name); err != nil {
		f.side.c.Log.Warn(otherwise, "key", f.name, "error", err)
	}
}

// tellOutrun has all nodes forget a key of which an EDEK showed a newer version than
// is now said in answer to a question of the given epoch, so that the next answer
// counts: either this one came of a node's cache that a roll had not reached, or the
// version was never made.
func (f *FarKey) tellOutrun(ctx context.Context, doubted *facts, epoch uint64) {
	if f.epochNow() != epoch {
		return // asked before the EDEK was seen
	}
	f.tell(ctx, "an encrypted key is of a newer version than the KMS behind knows, and not all servers could be told to forget the key")
	f.mu.Lock()
	defer f.mu.Unlock()
	told := *doubted
	told.told = true
	if f.facts.CompareAndSwap(doubted, &told) {
		f.epoch = f.side.epochs.Add(1)
	}
}

// fetch makes EDEKs for a ring, in edekd's own name.
func (s *farSide) fetch(ctx context.Context, name string, n int) ([]edek.EDEK, error) {
	f := s.find(name)
	if f == nil {
		if _, err := s.ask(ctx, name); err != nil {
			return nil, err
		}
		if f = s.find(name); f == nil {
			return nil, &edek.Error{Kind: edek.NotFound, Op: "generate", Key: name, Text: "no KMS behind edekd has the key that is used"}
		}
	}
	ctx, cancel := f.Deadline(ctx)
	defer cancel()
	epoch := f.epochNow()
	made, err := f.make(ctx, edek.Caller{}, n, epoch)
	if err != nil {
		if denied(err) && s.mayNotFetch.Due() {
			s.c.Log.Warn("edekd may not have encrypted keys made ahead: the KMS behind it must let it generate them", "key", name, "error", err)
		}
		return nil, err
	}
	f.provider.heard()
	f.saw(made, epoch)
	f.bound()
	return made, nil
}

// bound has the key's ring, which may be new, refuse EDEKs of versions that are too
// old. The ring is there by now: whoever knows better later finds it.
func (f *FarKey) bound() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.facts.Load(); known != nil {
		f.side.rings.DropBelow(f.name, known.oldest)
	}
}

// Reencrypt brings an EDEK to the current version.
func (f *FarKey) Reencrypt(ctx context.Context, c edek.Caller, versionName string, iv, wrapped []byte) (edek.EDEK, error) {
	ctx, cancel := f.Deadline(ctx)
	defer cancel()
	epoch := f.epochNow()
	e, err := f.provider.Reencrypt(ctx, c, f.name, versionName, iv, wrapped)
	if err != nil {
		return e, f.judge(&c, err)
	}
	f.provider.heard()
	f.saw([]edek.EDEK{e}, epoch)
	return e, nil
}

// ReencryptBatch brings many EDEKs to the current version, in their order.
func (f *FarKey) ReencryptBatch(ctx context.Context, c edek.Caller, all []edek.EDEK) ([]edek.EDEK, error) {
	ctx, cancel := f.Deadline(ctx)
	defer cancel()
	epoch := f.epochNow()
	done, err := f.provider.ReencryptBatch(ctx, c, f.name, all)
	if err != nil {
		return done, f.judge(&c, err)
	}
	f.provider.heard()
	f.saw(done, epoch)
	return done, nil
}

// mayChange refuses a change at once while who would have to make it does not answer.
func (k *Cache) mayChange(op, name string) error {
	if k.far == nil || k.far.written == nil || !k.far.written.gone() {
		return nil
	}
	return &edek.Error{Kind: edek.Unavailable, Op: op, Key: name, Text: k.far.state().String() + ": the KMS behind does not answer, and is sent no change until it does"}
}

// tellNodes makes all nodes that have a far key forget what they remember of
// it, after a change that has happened or, as err says, may have. A node that
// cannot be told is told before it is used again; that one refuses to be told is
// for the log, since the change must not look as if it had failed. Another change may
// just have ended what was known of the key: then it is of the provider that is
// written to.
func (k *Cache) tellNodes(ctx context.Context, name string, err error) {
	if k.far == nil || !mayHaveChanged(err) {
		return
	}
	provider := k.far.written
	if f := k.far.find(name); f != nil {
		provider = f.provider
	}
	if provider == nil {
		return
	}
	if err := provider.InvalidateEverywhere(ctx, name); err != nil {
		k.far.c.Log.Warn("a key was changed, and not all servers could be told to forget what they had made of it", "key", name, "error", err)
	}
}

// InvalidateFor is Invalidate in a caller's name, for a far key at all nodes of
// its KMS, too.
func (k *Cache) InvalidateFor(ctx context.Context, c edek.Caller, f *FarKey) error {
	ctx, cancel := f.Deadline(ctx)
	defer cancel()
	if err := f.provider.As(c).Invalidate(ctx, f.name); err != nil {
		return f.judge(&c, err)
	}
	defer k.forget(f.name)
	if err := f.provider.InvalidateEverywhere(ctx, f.name); err != nil {
		return &edek.Error{Kind: edek.Unavailable, Op: "invalidate", Key: f.name,
			Text: "one server of the KMS has forgotten the key, edekd itself may not tell the others: that KMS must let it roll keys", Err: errors.New(err.Error())}
	}
	return nil
}
