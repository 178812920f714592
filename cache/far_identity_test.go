package cache

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edekd/edekd/cache/ring"
	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/keys"
	"github.com/edekd/edekd/upstream"
)

// household is a far provider of one key, or none, that one user may use. DEKs
// are full of what makes the key another.
type household struct {
	keys.Far
	name string

	mu          sync.Mutex
	key         *edek.Metadata // nil: there is none
	salt        byte
	owner       string
	invalidated int
	hangs       bool // it answers no question
	gone        bool // nor is it believed to
}

func (h *household) String() string             { return h.name }
func (h *household) As(edek.Caller) keys.Remote { return householdAs{h: h} }
func (h *household) Close() error               { return nil }
func (h *household) Generate(context.Context, edek.Caller, string, int) ([]edek.EDEK, error) {
	return nil, &edek.Error{Kind: edek.Unavailable, Op: "generate", Text: "not today"}
}

func (h *household) State() (is upstream.State) {
	h.with(func() {
		if is = upstream.OK; h.gone {
			is = upstream.CacheOnly
		}
	})
	return is
}

func (h *household) with(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

func (h *household) InvalidateEverywhere(context.Context, string) error {
	h.with(func() { h.invalidated++ })
	return nil
}

func (h *household) Metadata(ctx context.Context, name string) (m *edek.Metadata, err error) {
	hangs := false
	h.with(func() { m, hangs = h.key, h.hangs })
	if hangs {
		<-ctx.Done()
		return nil, &edek.Error{Kind: edek.Unavailable, Op: "metadata", Key: name, Text: "no answer", Err: ctx.Err()}
	}
	if m == nil || m.Name != name {
		return nil, &edek.Error{Kind: edek.NotFound, Op: "metadata", Key: name, Text: "no such key"}
	}
	return m, nil
}

func (h *household) Decrypt(_ context.Context, c edek.Caller, _, _ string, _, wrapped []byte) (dek []byte, err error) {
	h.with(func() {
		if dek = bytes.Repeat([]byte{h.salt}, len(wrapped)); c.User != h.owner {
			dek, err = nil, &edek.Foreign{Status: 403, Class: "org.apache.hadoop.security.authorize.AuthorizationException", Text: "no"}
		}
	})
	return dek, err
}

type householdAs struct {
	keys.Remote
	h *household
}

func (a householdAs) KeysMetadata(ctx context.Context, names []string) (all []*edek.Metadata, err error) {
	for _, name := range names {
		m, err := a.h.Metadata(ctx, name)
		if err != nil && edek.KindOf(err) != edek.NotFound {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// incarnation is what a KMS says of a key k that was made at that time.
func incarnation(created int64) *edek.Metadata {
	return &edek.Metadata{Name: "k", Created: created, Versions: 1, BitLength: 128}
}

func newFarCache(t *testing.T, p keys.Provider) *Cache {
	t.Helper()
	return newCache(t, p, Config{Enabled: true, Idle: time.Hour, CurrentAge: time.Minute, Far: FarConfig{
		Poll: 10 * time.Second, Timeout: 10 * time.Second, Grant: 5 * time.Minute, DEKBytes: 1 << 20, DEKAge: 2 * time.Hour,
		Log: slog.New(slog.DiscardHandler), StateChanged: func(upstream.State, upstream.State) {},
		Ring: ring.Config{Size: 100, LowWatermark: 0.3, Cover: -1, Expiry: 30 * time.Minute}}})
}

func farKey(t *testing.T, k *Cache, name string) *FarKey {
	t.Helper()
	_, f, err := k.Metadata(t.Context(), name)
	if err != nil || f == nil {
		t.Fatalf("%v %v", f, err)
	}
	return f
}

// A far key is never taken for a near one, whose material would be asked for in
// edekd's own name and whose metadata shown to whoever may see it here, however
// often it is forgotten meanwhile.
func TestFarKeyIsNeverNear(t *testing.T) {
	k := newFarCache(t, &household{name: "kms://a", key: incarnation(1)})
	var stop atomic.Bool
	var askers sync.WaitGroup
	var answers atomic.Int64
	for range 4 {
		askers.Go(func() {
			for !stop.Load() {
				m, f, err := k.Metadata(context.Background(), "k")
				if err == nil && f == nil {
					t.Errorf("%s is near", m.Name)
					return
				}
				answers.Add(1)
			}
		})
	}
	for answers.Load() < 50_000 && !t.Failed() {
		k.forget("k") // the end of a roll, a delete and an invalidation
	}
	stop.Store(true)
	askers.Wait()
}

// DEKs are of one key at one provider. Who has a right to the next key of the name
// gets none of them, even where the first was forgotten before it was seen to
// change.
func TestDEKsAreOfOneKey(t *testing.T) {
	secret := edeksOf(8)[0]
	open := func(f *FarKey, user string, e edek.EDEK) ([]byte, error) {
		return f.AppendDEK(context.Background(), edek.Caller{User: user}, "k@0", e.IV[:], e.Wrapped(), nil)
	}
	check := func(t *testing.T, k *Cache, change func()) {
		t.Helper()
		f := farKey(t, k, "k")
		if _, err := open(f, "alice", secret); err != nil {
			t.Fatal(err)
		}
		change()
		f = farKey(t, k, "k")
		if _, err := open(f, "eve", edeksOf(10)[0]); err != nil { // which earns her a grant
			t.Fatal(err)
		}
		if dek, err := open(f, "eve", secret); err != nil || dek[0] != 2 {
			t.Errorf("eve got %x, %v", dek, err)
		}
	}
	t.Run("forgotten and made anew", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := &household{name: "kms://a", key: incarnation(1), salt: 1, owner: "alice"}
			check(t, newFarCache(t, h), func() {
				time.Sleep(40 * time.Minute) // nobody uses it
				h.with(func() { h.key, h.salt, h.owner = incarnation(2), 2, "eve" })
			})
		})
	})
	t.Run("of another provider", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			first := &household{name: "kms://a", salt: 2, owner: "eve"}
			second := &household{name: "kms://b", key: incarnation(1), salt: 1, owner: "alice"}
			check(t, newFarCache(t, keys.Chain(first, second)), func() {
				first.with(func() { first.key = incarnation(2) })
				time.Sleep(5 * time.Minute) // it is looked up anew after a minute
			})
		})
	})
}

// Of two answers to first questions about a key, which say that it is another, the
// second changes it.
func TestTwoFirstAnswers(t *testing.T) {
	h := &household{name: "kms://a"}
	k := newFarCache(t, h)
	f := k.far.learn("k", k.far.ones[0])
	epoch := f.epochNow()
	if _, taken := f.replace(nil, incarnation(1), 1, epoch); !taken {
		t.Fatal("the first answer is not taken in")
	}
	// The second had looked at the facts before that, when there were none.
	if _, taken := f.replace(nil, incarnation(2), 2, epoch); taken {
		t.Error("taken in as if there was nothing before")
	}
	f.take(t.Context(), incarnation(2), 2, epoch)
	if f.epochNow() == epoch || h.invalidated != 1 || f.facts.Load().metadata.Created != 2 {
		t.Errorf("epoch %d, then %d; %d invalidations", epoch, f.epochNow(), h.invalidated)
	}
}

// While a KMS hangs and is not yet believed to be gone, as where little is asked of
// it, nobody who can be served from memory waits for it, but for a key that nobody
// has used for long: its first caller waits once.
func TestHungAndNotYetGone(t *testing.T) {
	for name, c := range map[string]struct {
		idle time.Duration
		most int // waits
	}{"key in use": {0, 0}, "idle key": {10 * time.Minute, 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &household{name: "kms://a", key: incarnation(1), salt: 1, owner: "alice"}
				k := newFarCache(t, h)
				farKey(t, k, "k")
				time.Sleep(c.idle)
				h.with(func() { h.hangs = true })
				waits := 0
				for range 120 {
					begin := time.Now()
					farKey(t, k, "k")
					if waited := time.Since(begin); waited > 10*time.Second {
						t.Fatalf("%v", waited)
					} else if waited > 0 {
						waits++
					}
					time.Sleep(time.Second)
				}
				if waits > c.most {
					t.Errorf("%d waits", waits)
				}
				if is := k.State(); is != "down" { // nothing is ready
					t.Errorf("while it hangs: %s", is)
				}
				time.Sleep(10 * time.Minute) // nobody uses the key any more
				h.with(func() { h.hangs, h.key = false, incarnation(2) })
				time.Sleep(31 * time.Second)
				if is := k.State(); is != "ok" {
					t.Errorf("it answers again: %s", is)
				}
				if m, _, err := k.Metadata(t.Context(), "k"); err != nil || m.Created != 2 {
					t.Errorf("after it answers again: %v, %v", m, err)
				}
			})
		})
	}
}

// What a single KMS says of itself is not what can be served.
func TestRefusalsHaveTheStatesWord(t *testing.T) {
	h := &household{name: "kms://a", key: incarnation(1)}
	k := newFarCache(t, h)
	farKey(t, k, "k")
	refusal := &edek.Error{Kind: edek.Unavailable, Op: "ask", Text: "cache-only: no node can be reached"}
	if err := k.far.worded(refusal); err != refusal {
		t.Errorf("while all is ok: %v", err)
	}
	h.with(func() { h.gone = true })
	if err := k.far.worded(refusal); !strings.Contains(err.Error(), "down: no node can be reached") || strings.Contains(refusal.Text, "down") {
		t.Errorf("with nothing ready: %v", err)
	}
}
