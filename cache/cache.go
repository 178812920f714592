// Package cache stands between the front end and the keys: it remembers
// metadata, current versions and key versions, made ready as *edek.ZoneKey, so
// that generate and decrypt touch neither store nor allocator once warm.
//
// What it promises: after Create, Roll, Delete or Invalidate of a key has
// returned, no call begun later gets an answer from before it, here or in a
// load that was already under way. (The Java server keeps serving a deleted
// key from its queues; this one does not.) Nor does an answer that was under way
// mix what was before with what is after: a new key is not given out under the
// rules of the deleted one whose name it has. Changes made by another writer of
// the same store are seen after the ages of Config at the latest.
//
// Bounds are in bytes. Beyond them the cache forgets and asks the provider
// again; it never fails.
package cache

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"golang.org/x/sync/singleflight"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/keys"
	"github.com/edekd/edekd/upstream/queue"
)

// askTimeout bounds one question to the provider.
const askTimeout = 30 * time.Second

// maxLooks bounds how often a key that changes all the while is looked at.
const maxLooks = 10

// Byte bounds of the tables. A zone key of AES-256 takes about a kilobyte, so
// 100 000 warm versions fit.
const (
	versionBytes  = 128 << 20
	currentBytes  = 64 << 20
	metadataBytes = 64 << 20
	allBytes      = 32 << 20
	zoneKeyBytes  = 700 // *edek.ZoneKey with its key schedules
)

// warmKeys bounds the keys that Warm takes in.
const warmKeys = currentBytes / 4 / (zoneKeyBytes + entryBytes)

// Config are Hadoop's own knobs.
type Config struct {
	Enabled    bool          // hadoop.kms.cache.enable
	Idle       time.Duration // hadoop.kms.cache.timeout.ms: metadata and versions, since the last use
	CurrentAge time.Duration // hadoop.kms.current.key.cache.timeout.ms: current versions, since loaded
	Suite      edek.Suite    // wraps EDEKs
	Metrics    *metrics.Set  // where hits, misses and store latency are counted
	Far        FarConfig     // for far keys, where there are some
}

// Ruled is a key version with the name under which the rules know its key. Of far
// keys, and where there are some beside, the name is not known.
type Ruled struct {
	*edek.ZoneKey
	ACLName string
}

// described is what a provider said of a key, and whether it was a far one then:
// those are found elsewhere, and one that no longer is must not pass for a near one.
type described struct {
	*edek.Metadata
	far bool
}

// Cache answers for one provider. It is safe for concurrent use. Names given
// to it may alias reused buffers; what it keeps it copies.
type Cache struct {
	provider keys.Provider
	suite    edek.Suite
	metadata *table[described]
	current  *table[Ruled]
	versions *table[Ruled]
	all      *table[[]*edek.ZoneKey]
	far      *farSide // nil: all keys are near

	walk  singleflight.Group // of names
	walks atomic.Uint64      // begun so far

	// One epoch for each of many buckets of key names; a change of a key
	// moves its bucket's epoch on. A neighbour's change costs a key one
	// question to the provider.
	seed   maphash.Seed
	epochs [4096]atomic.Uint64

	latency map[string]*metrics.PrometheusHistogram
	failed  map[string]*metrics.Counter
}

// New puts a cache before provider, which stays the caller's to close after
// the cache is closed.
func New(provider keys.Provider, c Config) (*Cache, error) {
	k := &Cache{provider: provider, suite: c.Suite, seed: maphash.MakeSeed(),
		latency: map[string]*metrics.PrometheusHistogram{}, failed: map[string]*metrics.Counter{}}
	bounds := metrics.ExponentialBuckets(1e-6, 2, 25)
	for _, op := range []string{"names", "walk", "metadata", "version", "versions", "create", "roll", "delete"} {
		k.latency[op] = c.Metrics.NewPrometheusHistogramExt(`edekd_store_seconds{op="`+op+`"}`, bounds)
		k.failed[op] = c.Metrics.NewCounter(`edekd_store_errors_total{op="` + op + `"}`)
	}
	enabled := func(bytes int64) int64 {
		if c.Enabled {
			return bytes
		}
		return 0
	}
	zoneKeyCost := func(z *edek.ZoneKey) int64 {
		return zoneKeyBytes + int64(z.DEKSize()+len(z.Name())+len(z.VersionName()))
	}
	ruledCost := func(z Ruled) int64 { return zoneKeyCost(z.ZoneKey) + int64(len(z.ACLName)) }
	var err error
	if k.metadata, err = newTable(tableConfig[described]{name: "metadata", set: c.Metrics, load: k.loadMetadata, epoch: k.epoch,
		cost: metadataCost, maxIdle: c.Idle, bytes: enabled(metadataBytes), typicalBytes: 600}); err != nil {
		return nil, err
	}
	if k.current, err = newTable(tableConfig[Ruled]{name: "current", set: c.Metrics, load: k.loadCurrent, epoch: k.epoch,
		cost: ruledCost, own: func(z Ruled) string { return z.Name() }, maxAge: c.CurrentAge, bytes: enabled(currentBytes), typicalBytes: zoneKeyBytes + entryBytes}); err != nil {
		return nil, err
	}
	if k.versions, err = newTable(tableConfig[Ruled]{name: "version", set: c.Metrics, load: k.loadVersion, epoch: k.versionEpoch,
		cost: ruledCost, own: func(z Ruled) string { return z.VersionName() }, maxIdle: c.Idle, bytes: enabled(versionBytes), typicalBytes: zoneKeyBytes + entryBytes}); err != nil {
		return nil, err
	}
	allCost := func(all []*edek.ZoneKey) (bytes int64) {
		for _, z := range all {
			bytes += zoneKeyCost(z)
		}
		return bytes
	}
	if k.all, err = newTable(tableConfig[[]*edek.ZoneKey]{name: "versions", set: c.Metrics, load: k.loadAll, epoch: k.epoch,
		cost: allCost, maxAge: c.CurrentAge, bytes: enabled(allBytes), typicalBytes: zoneKeyBytes + entryBytes}); err != nil {
		return nil, err
	}
	k.far = newFarSide(k, provider, c)
	return k, nil
}

// Warm fills the cache before it is used with the keys that the provider shows
// until ctx ends, or until a quarter of what the cache may remember is taken,
// and returns how many they are. Without it each key's first request waits for
// the store. It does nothing where the provider has no walk.
func (k *Cache) Warm(ctx context.Context) (n int, err error) {
	w, ok := k.provider.(keys.Walker)
	if !ok || k.metadata.known == nil {
		return 0, nil
	}
	done := k.observe("walk")
	err = w.Walk(ctx, func(m *edek.Metadata, current *edek.KeyVersion) bool {
		zone := newRuled(edek.NewZoneKey(current, k.suite), m)
		epoch := k.epoch(m.Name)
		k.metadata.take(m.Name, described{Metadata: m}, epoch)
		k.current.take(m.Name, zone, epoch)
		k.versions.take(current.VersionName, zone, epoch)
		n++
		return n < warmKeys && ctx.Err() == nil
	})
	if ctx.Err() != nil { // as long as there was time for
		err = nil
	}
	done(err)
	return n, err
}

// Close stops the cache's goroutines. No call may be under way or follow.
func (k *Cache) Close() {
	k.Quiet()
	k.metadata.close()
	k.current.close()
	k.versions.close()
	k.all.close()
}

// Quiet stops what the cache asks providers of its own accord. Calls go on being
// answered.
func (k *Cache) Quiet() {
	if k.far != nil {
		k.far.close()
	}
}

// Provider returns the provider's URI, for messages.
func (k *Cache) Provider() string { return k.provider.String() }

// HasFar reports whether there are providers of far keys.
func (k *Cache) HasFar() bool { return k.far != nil }

// Metadata describes a key, and returns the key too if it is a far one. The
// metadata is shared: read only.
func (k *Cache) Metadata(ctx context.Context, name string) (*edek.Metadata, *FarKey, error) {
	if k.far == nil {
		m, err := k.metadata.get(ctx, name)
		return m.Metadata, nil, err
	}
	for range maxLooks {
		f, known, err := k.far.lookup(ctx, name)
		if err != nil {
			return nil, nil, err
		}
		if f != nil {
			return known.metadata, f, nil
		}
		m, err := k.metadata.get(ctx, name)
		if err != nil || !m.far {
			return m.Metadata, nil, err
		}
		if k.far.find(name) == nil { // it was forgotten since
			k.Invalidate(name)
		}
	}
	return nil, nil, changing(name)
}

// MetadataFor is Metadata for a caller: what another KMS has to be asked for it
// takes his turns there.
func (k *Cache) MetadataFor(ctx context.Context, c *edek.Caller, name string) (*edek.Metadata, *FarKey, error) {
	if k.far != nil {
		if f := k.far.find(name); f != nil { // the usual case, in which nothing is allocated
			if known := f.current(); known != nil {
				return known.metadata, f, nil
			}
		}
		ctx = queue.For(ctx, queue.Caller{User: c.User, Real: c.Real})
	}
	return k.Metadata(ctx, name)
}

// Current returns the newest version of a key.
func (k *Cache) Current(ctx context.Context, name string) (*edek.ZoneKey, error) {
	z, err := k.current.get(ctx, name)
	return z.ZoneKey, err
}

// CurrentRuled is Current with the key's ACL name. It is for where there are no
// far keys.
func (k *Cache) CurrentRuled(ctx context.Context, name string) (Ruled, error) {
	return k.current.get(ctx, name)
}

// VersionRuled returns the key version named name@n, with the key's ACL name where
// there are no far keys.
func (k *Cache) VersionRuled(ctx context.Context, versionName string) (Ruled, error) {
	if strings.IndexByte(versionName, '@') < 0 {
		return Ruled{}, &edek.Error{Kind: edek.NotFound, Op: "version", Key: versionName, Text: "no version in key version name"}
	}
	return k.versions.get(ctx, versionName)
}

// Names lists all keys. The provider walks through them once for all who wait;
// a walk that had begun before this caller came may have missed a change this
// caller knows of, so its list is not accepted and the next walk is taken. The
// list is the caller's own. Of far keys it has those that he may see, who then
// shares with nobody.
func (k *Cache) Names(ctx context.Context, c edek.Caller) ([]string, error) {
	if k.far != nil {
		ctx, cancel := context.WithTimeout(ctx, k.far.c.Timeout)
		defer cancel()
		done := k.observe("names")
		names, err := keys.As(k.provider, c).Names(ctx)
		done(err)
		return names, err
	}
	type list struct {
		walk  uint64
		names []string
		err   error
	}
	before := k.walks.Load()
	for {
		shared, _, _ := k.walk.Do("", func() (any, error) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
			defer cancel()
			l := list{walk: k.walks.Add(1)}
			done := k.observe("names")
			l.names, l.err = k.provider.Names(ctx)
			done(l.err)
			return l, nil
		})
		if l := shared.(list); l.walk > before {
			return slices.Clone(l.names), l.err
		}
	}
}

// Versions returns all versions of a key, oldest first. The result is shared:
// read only.
func (k *Cache) Versions(ctx context.Context, name string) ([]*edek.ZoneKey, error) {
	return k.all.get(ctx, name)
}

// Create makes a key, in the caller's name if it is to be a far one. The caller
// zeroes the result.
func (k *Cache) Create(ctx context.Context, c edek.Caller, key *edek.NewKey) (*edek.KeyVersion, error) {
	if err := k.mayChange("create", key.Name); err != nil {
		return nil, err
	}
	done := k.observe("create")
	v, err := keys.As(k.provider, c).Create(ctx, key)
	done(err)
	k.forgetAfter(key.Name, err)
	return v, k.judgeChange(&c, key.Name, err)
}

// Roll makes a new current version. The caller zeroes the result.
func (k *Cache) Roll(ctx context.Context, c edek.Caller, name string, material []byte) (*edek.KeyVersion, error) {
	if err := k.mayChange("roll", name); err != nil {
		return nil, err
	}
	done := k.observe("roll")
	v, err := keys.As(k.provider, c).Roll(ctx, name, material)
	done(err)
	k.tellNodes(ctx, name, err)
	k.forgetAfter(name, err)
	return v, k.judgeChange(&c, name, err)
}

// Delete removes a key with all versions.
func (k *Cache) Delete(ctx context.Context, c edek.Caller, name string) error {
	if err := k.mayChange("delete", name); err != nil {
		return err
	}
	done := k.observe("delete")
	err := keys.As(k.provider, c).Delete(ctx, name)
	done(err)
	k.tellNodes(ctx, name, err)
	k.forgetAfter(name, err)
	return k.judgeChange(&c, name, err)
}

// forgetAfter is Invalidate for whatever the key is, after a change that ended with
// err. Who may not change a far key must not be able to empty its ring: one that was
// denied, or sent to nobody, has not happened. One that was not answered, or failed in
// the middle, may have: the key is looked at anew before it is used, if anybody
// answers.
func (k *Cache) forgetAfter(name string, err error) {
	var f *FarKey
	if k.far != nil {
		f = k.far.find(name)
	}
	switch kind := edek.KindOf(err); {
	case f == nil || err == nil || kind == edek.NotFound:
		k.forget(name)
	case mayHaveChanged(err):
		f.doubt()
		k.Invalidate(name)
	}
}

// mayHaveChanged reports whether a change of a far key that ended with err may have
// been made, or found it changed.
func mayHaveChanged(err error) bool {
	if _, answered := errors.AsType[*edek.Foreign](err); answered {
		return !denied(err)
	}
	kind := edek.KindOf(err)
	return err == nil || kind == edek.Unsettled || kind == edek.NotFound
}

// forget is Invalidate for whatever the key is.
func (k *Cache) forget(name string) {
	if k.far != nil {
		k.far.forget(name)
	}
	k.Invalidate(name)
}

// Invalidate forgets all that is remembered of a key, known or unknown.
func (k *Cache) Invalidate(name string) { k.epoch(name).Add(1) }

// Whole calls look, which asks several questions about a key, until the key does not
// change meanwhile: so the answers are of one key, and not rules of a deleted one
// with material of the next of that name. An error of look is returned at once.
func (k *Cache) Whole(name string, look func() error) error {
	epoch := k.epoch(name)
	for range maxLooks {
		before := epoch.Load()
		if err := look(); err != nil || epoch.Load() == before {
			return err
		}
	}
	return changing(name)
}

// changing is the error for a key, or a version, that changed each time it was
// looked at.
func changing(name string) error {
	return &edek.Error{Kind: edek.Conflict, Op: "look up", Key: name, Text: "Key " + name + " is being changed; try again"}
}

func (k *Cache) epoch(name string) *atomic.Uint64 {
	return &k.epochs[maphash.String(k.seed, name)%uint64(len(k.epochs))]
}

func (k *Cache) versionEpoch(versionName string) *atomic.Uint64 {
	name, _ := edek.BaseName(versionName)
	return k.epoch(name)
}

func (k *Cache) loadMetadata(ctx context.Context, name string) (described, error) {
	if k.far != nil {
		known, err := k.far.ask(ctx, name)
		return known, k.far.worded(err)
	}
	done := k.observe("metadata")
	m, err := k.provider.Metadata(ctx, name)
	done(err)
	return described{Metadata: m}, err
}

func (k *Cache) loadVersion(ctx context.Context, versionName string) (Ruled, error) {
	if k.far != nil {
		return k.askVersion(ctx, versionName, nil)
	}
	name, _ := edek.BaseName(versionName)
	m, err := k.metadata.get(ctx, name)
	if err != nil {
		return Ruled{}, recalled{err}
	}
	return k.askVersion(ctx, versionName, m.Metadata)
}

func (k *Cache) loadCurrent(ctx context.Context, name string) (Ruled, error) {
	m, err := k.loadMetadata(ctx, name)
	if err != nil {
		return Ruled{}, err
	}
	return k.askVersion(ctx, m.CurrentVersion(), m.Metadata)
}

// askVersion asks the provider. m is nil for a key whose rules are found otherwise.
func (k *Cache) askVersion(ctx context.Context, versionName string, m *edek.Metadata) (Ruled, error) {
	done := k.observe("version")
	v, err := k.provider.Version(ctx, versionName)
	done(err)
	if err != nil {
		return Ruled{}, err
	}
	return newRuled(edek.NewZoneKey(v, k.suite), m), nil
}

func newRuled(z *edek.ZoneKey, m *edek.Metadata) Ruled {
	if m == nil {
		return Ruled{ZoneKey: z}
	}
	name := m.ACLName()
	if name == z.Name() {
		name = z.Name() // the same memory
	}
	return Ruled{z, name}
}

func (k *Cache) loadAll(ctx context.Context, name string) ([]*edek.ZoneKey, error) {
	done := k.observe("versions")
	versions, err := k.provider.Versions(ctx, name)
	done(err)
	if err != nil {
		return nil, err
	}
	zones := make([]*edek.ZoneKey, len(versions))
	for n, v := range versions {
		zones[n] = edek.NewZoneKey(v, k.suite)
	}
	return zones, nil
}

// observe starts a stopwatch on a question to the provider. That a key does
// not exist, or exists already, is an answer and no failure.
func (k *Cache) observe(op string) func(error) {
	start := time.Now()
	return func(err error) {
		k.latency[op].UpdateDuration(start)
		switch edek.KindOf(err) {
		case edek.Unavailable, edek.Conflict, edek.Corrupt:
			k.failed[op].Inc()
		case 0:
			if err != nil {
				k.failed[op].Inc()
			}
		}
	}
}

func metadataCost(m described) int64 {
	n := 150 + len(m.Name) + len(m.Cipher)
	if m.Description != nil {
		n += len(*m.Description)
	}
	for k, v := range m.Attributes {
		n += 64 + len(k) + len(v)
	}
	return int64(n)
}
