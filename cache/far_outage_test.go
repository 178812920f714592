package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edekd/edekd/cache/ring"
	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/keys"
	"github.com/edekd/edekd/upstream"
	"github.com/edekd/edekd/upstream/queue"
)

// remote is a far provider whose calls are counted and that can be gone. It has
// every key, but those it is told otherwise of.
type remote struct {
	keys.Far
	gone atomic.Bool

	mu     sync.Mutex
	calls  []time.Time
	named  []int            // names in each question for metadata
	turns  []queue.Caller   // whose turn each took
	other  map[string]error // what is answered of a key; nil: there is none
	rolled map[string]int   // versions beside the first
	hold   chan struct{}    // while it is open, questions for metadata wait
	slow   time.Duration    // how much longer they take
}

func (r *remote) String() string { return "kms://remote" }

func (r *remote) State() upstream.State {
	if r.gone.Load() {
		return upstream.CacheOnly
	}
	return upstream.OK
}

// call is one that takes a round trip.
func (r *remote) call() error {
	if r.gone.Load() {
		return &edek.Error{Kind: edek.Unavailable, Op: "ask", Text: "gone"}
	}
	r.mu.Lock()
	r.calls = append(r.calls, time.Now())
	r.mu.Unlock()
	time.Sleep(30 * time.Millisecond)
	return nil
}

func (r *remote) Metadata(ctx context.Context, name string) (*edek.Metadata, error) {
	all, err := r.As(edek.Caller{}).KeysMetadata(ctx, []string{name})
	if err == nil && all[0] == nil {
		err = &edek.Error{Kind: edek.NotFound, Op: "metadata", Key: name, Text: "Key not found"}
	}
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

func (r *remote) As(edek.Caller) keys.Remote { return remoteAs{r: r} }

func (r *remote) InvalidateEverywhere(context.Context, string) error { return r.call() }

func (r *remote) Generate(_ context.Context, _ edek.Caller, _ string, n int) ([]edek.EDEK, error) {
	made := make([]edek.EDEK, n)
	for i := range made {
		made[i], _ = edek.NewEDEK(0, make([]byte, 16), make([]byte, 16))
	}
	return made, r.call()
}

func (r *remote) Decrypt(context.Context, edek.Caller, string, string, []byte, []byte) ([]byte, error) {
	return make([]byte, 16), r.call()
}

func (r *remote) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// since returns the calls made since then, and the names in questions.
func (r *remote) since(at time.Time) (calls []time.Time, named []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first, _ := slices.BinarySearchFunc(r.calls, at, time.Time.Compare)
	return slices.Clone(r.calls[first:]), slices.Clone(r.named)
}

type remoteAs struct {
	keys.Remote
	r *remote
}

func (a remoteAs) KeysMetadata(ctx context.Context, names []string) ([]*edek.Metadata, error) {
	r := a.r
	r.mu.Lock()
	hold, slow := r.hold, r.slow
	r.turns = append(r.turns, queue.Whose(ctx))
	r.named = append(r.named, len(names))
	r.mu.Unlock()
	if err := r.call(); err != nil {
		return nil, err
	}
	if hold != nil {
		<-hold
	}
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*edek.Metadata, len(names))
	for i, name := range names {
		err, known := r.other[name]
		switch {
		case err != nil:
			return nil, err
		case !known:
			all[i] = &edek.Metadata{Name: name, Created: 1, Versions: 1 + r.rolled[name], BitLength: 128}
		}
	}
	return all, nil
}

// Roll is sent, and never answered.
func (a remoteAs) Roll(_ context.Context, name string, _ []byte) (*edek.KeyVersion, error) {
	return nil, errors.Join(a.r.call(), &edek.Error{Kind: edek.Unsettled, Op: "roll", Key: name, Text: "the outcome is unknown"})
}

// withRemote runs f in virtual time with a cache before a remote.
func withRemote(t *testing.T, c FarConfig, f func(t *testing.T, r *remote, k *Cache)) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{other: map[string]error{}, rolled: map[string]int{}}
		c.Timeout, c.Log, c.StateChanged = 10*time.Second, slog.New(slog.DiscardHandler), func(upstream.State, upstream.State) {}
		f(t, r, newCache(t, r, Config{Enabled: true, Idle: time.Hour, CurrentAge: time.Minute, Far: c}))
	})
}

func keyName(i int) string { return fmt.Sprint("key", i) }

// crowd is some callers who ask for EDEKs of some keys, and open one of each.
type crowd struct {
	k             *Cache
	callers, keys int
	rng           *rand.Rand
	asking        sync.WaitGroup
	failed        atomic.Int64
}

func (c *crowd) ask(name, user string, decrypt bool) {
	ctx, caller := context.Background(), edek.Caller{User: user, Full: user}
	_, far, err := c.k.Metadata(ctx, name)
	if err == nil && far == nil { // now it is known
		_, far, err = c.k.Metadata(ctx, name)
	}
	switch {
	case err != nil:
	case decrypt:
		_, err = far.AppendDEK(ctx, caller, name+"@0", make([]byte, 16), make([]byte, 16), nil)
	default:
		_, err = far.Generate(ctx, caller, 1, nil)
	}
	if err != nil {
		c.failed.Add(1)
	}
}

// run asks 120 times a second, and returns how many requests failed.
func (c *crowd) run(d time.Duration) int64 {
	before := c.failed.Load()
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(time.Duration(c.rng.ExpFloat64() / 120 * float64(time.Second)))
		name, user, decrypt := keyName(c.rng.IntN(c.keys)), fmt.Sprint("user", c.rng.IntN(c.callers)), c.rng.IntN(6) == 0
		c.asking.Go(func() { c.ask(name, user, decrypt) })
	}
	c.asking.Wait()
	return c.failed.Load() - before
}

// busiest returns the most calls of any five seconds.
func busiest(calls []time.Time) (most int) {
	for i, at := range calls {
		n, _ := slices.BinarySearchFunc(calls, at.Add(5*time.Second), time.Time.Compare)
		most = max(most, n-i)
	}
	return most
}

// When the KMS behind comes back after an outage in which everything grew old, it
// is asked about as often as before; so when it goes away again before that is
// over. Meanwhile nobody goes without.
func TestReturn(t *testing.T) {
	for _, callers := range []int{1, 20} {
		t.Run(fmt.Sprint(callers), func(t *testing.T) {
			withRemote(t, FarConfig{Poll: 10 * time.Second, Grant: 5 * time.Minute, GrantOutage: 30 * time.Minute, DEKBytes: 1 << 20, DEKAge: 12 * time.Hour,
				Ring: ring.Config{Size: 100, LowWatermark: 0.3}}, func(t *testing.T, r *remote, k *Cache) {
				c := &crowd{k: k, callers: callers, keys: 50, rng: rand.New(rand.NewPCG(1, 2))}
				c.run(10 * time.Minute)
				from := time.Now()
				c.run(10 * time.Minute)
				before, _ := r.since(from)
				usual := float64(len(before)) / 10 / 60 * 5
				for _, o := range []struct{ outage, then time.Duration }{{10 * time.Minute, time.Minute}, {2 * time.Minute, 6 * time.Minute}} {
					r.gone.Store(true)
					if n := c.run(o.outage); n > 0 {
						t.Errorf("%d requests failed in an outage of %v", n, o.outage)
					}
					r.gone.Store(false)
					back := time.Now()
					c.run(o.then)
					after, _ := r.since(back)
					t.Logf("calls in five seconds: %.1f before, %d at most; %d at most after", usual, busiest(before), busiest(after))
					// Where calls are few, chance makes twice as many of them before, too.
					if most := busiest(after); float64(most) > max(2*usual, float64(busiest(before)+4)) {
						t.Errorf("%d calls in five seconds after an outage of %v, %.1f before", most, o.outage, usual)
					}
				}
			})
		})
	}
}

// afterAnOutage runs f with some keys in use whose facts are as old as an outage
// of ten minutes that is just over. ask looks all of them up at the same time, and
// says what came of it.
func afterAnOutage(t *testing.T, count int, f func(t *testing.T, r *remote, k *Cache, ask func() []error)) {
	withRemote(t, FarConfig{Poll: 10 * time.Second, Grant: time.Minute, Ring: ring.Config{Size: 10, LowWatermark: 0.3, Cover: -1}}, func(t *testing.T, r *remote, k *Cache) {
		ask := func() []error {
			errs := make([]error, count)
			var asking sync.WaitGroup
			for i := range count {
				asking.Go(func() { _, _, errs[i] = k.Metadata(t.Context(), keyName(i)) })
			}
			asking.Wait()
			return errs
		}
		use := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Second) {
				if err := errors.Join(ask()...); err != nil {
					t.Fatal(err)
				}
			}
		}
		use(time.Minute)
		r.gone.Store(true)
		use(10 * time.Minute)
		r.gone.Store(false)
		r.set(func() { r.named = nil })
		f(t, r, k, ask)
	})
}

func TestOldFactsAreAskedForTogether(t *testing.T) {
	const count = 170
	afterAnOutage(t, count, func(t *testing.T, r *remote, k *Cache, ask func() []error) {
		back := time.Now()
		r.set(func() { r.rolled[keyName(7)] = 1 })
		if err := errors.Join(ask()...); err != nil {
			t.Error(err)
		}
		calls, named := r.since(back)
		if n := slices.Max(named); len(named) > count/farPollBatch+questionsMax || n > farPollBatch {
			t.Errorf("%d questions for %d keys, %d at once", len(named), count, n)
		}
		if got := len(calls) - len(named); got != 1 {
			t.Errorf("%d other calls: the rolled key should have been invalidated", got)
		}
		for i := range count {
			m, _, err := k.Metadata(t.Context(), keyName(i))
			if want := 1 + r.rolled[keyName(i)]; err != nil || m.Versions != want {
				t.Errorf("%s: %+v, %v", keyName(i), m, err)
			}
		}
		if again, _ := r.since(back); len(again) != len(calls) {
			t.Error("what was confirmed is asked for again")
		}
	})
}

// A key that is denied or gone is that for itself, not for those that are asked
// for with it.
func TestOneOfManyIsAnother(t *testing.T) {
	const count = 60
	denial := &edek.Foreign{Status: 403, Class: "org.apache.hadoop.security.authorize.AuthorizationException", Text: "no"}
	for _, failure := range []error{denial, &edek.Foreign{Status: 500, Class: "java.io.IOException", Text: "broken"}, nil} {
		afterAnOutage(t, count, func(t *testing.T, r *remote, k *Cache, ask func() []error) {
			r.set(func() { r.other[keyName(3)] = failure })
			for i, err := range ask() {
				switch {
				case i != 3 && err != nil:
					t.Errorf("%v: %s: %v", failure, keyName(i), err)
				case i == 3 && (err == nil || failure != nil && !errors.Is(err, failure) || failure == nil && edek.KindOf(err) != edek.NotFound):
					t.Errorf("%v: %v", failure, err)
				}
			}
			r.set(func() { delete(r.other, keyName(3)) })
			if err := errors.Join(ask()...); err != nil {
				t.Errorf("%v: afterwards %v", failure, err)
			}
		})
	}
}

// What was asked before a change through edekd does not answer who asks after it;
// and who has gone away keeps no answer from the others.
func TestAChangeDuringAQuestion(t *testing.T) {
	afterAnOutage(t, 10, func(t *testing.T, r *remote, k *Cache, ask func() []error) {
		hold := make(chan struct{})
		r.set(func() { r.hold = hold })
		impatient, leave := context.WithCancel(t.Context())
		var left, stayed error
		var asking sync.WaitGroup
		asking.Go(func() { _, _, left = k.Metadata(impatient, keyName(0)) })
		synctest.Wait()
		asking.Go(func() { _, _, stayed = k.Metadata(t.Context(), keyName(1)) })
		synctest.Wait()
		time.Sleep(time.Second)
		leave()
		k.forget(keyName(1))
		k.forget(keyName(2))
		r.set(func() { r.hold = nil; r.rolled[keyName(1)] = 1; r.rolled[keyName(2)] = 1 })
		m, _, err := k.Metadata(t.Context(), keyName(2))
		if err != nil || m.Versions != 2 {
			t.Errorf("after a change: %+v, %v", m, err)
		}
		close(hold)
		asking.Wait()
		if m, _, err := k.Metadata(t.Context(), keyName(1)); stayed != nil || err != nil || m.Versions != 2 {
			t.Errorf("%v; %+v, %v", stayed, m, err)
		}
		if left != nil && edek.KindOf(left) != edek.Unavailable {
			t.Error(left)
		}
		if err := errors.Join(ask()...); err != nil {
			t.Error(err)
		}
	})
}

// A question that fails as a whole, which one key's answer can make it do, fails
// nobody but who asks for that one.
func TestAnAnswerThatSpoilsOthers(t *testing.T) {
	afterAnOutage(t, 120, func(t *testing.T, r *remote, k *Cache, ask func() []error) {
		broken := &edek.Error{Kind: edek.Corrupt, Op: "ask", Text: "broken"}
		r.set(func() { r.other[keyName(3)] = broken })
		for i, err := range ask() {
			if (i == 3) != errors.Is(err, broken) || i != 3 && err != nil {
				t.Errorf("%s: %v", keyName(i), err)
			}
		}
		r.set(func() { delete(r.other, keyName(3)) })
		if err := errors.Join(ask()...); err != nil {
			t.Error(err)
		}
	})
}

// A KMS that answers everything with an exception is asked a few questions by each
// poll, and about single keys only where somebody waits.
func TestExceptionsToEverything(t *testing.T) {
	afterAnOutage(t, 50, func(t *testing.T, r *remote, k *Cache, ask func() []error) {
		broken := &edek.Foreign{Status: 500, Class: "java.io.IOException", Text: "broken"}
		r.set(func() {
			for i := range 50 {
				r.other[keyName(i)] = broken
			}
		})
		for i, err := range ask() {
			if !errors.Is(err, broken) {
				t.Errorf("%s: %v", keyName(i), err)
			}
		}
		r.set(func() { r.named = nil })
		time.Sleep(10 * time.Second)
		if _, named := r.since(time.Now()); len(named) == 0 || len(named) > exceptionsMax {
			t.Errorf("%d questions by a poll", len(named))
		}
	})
}

// Nobody waits for longer than a request to the KMS behind may take, and what was
// known of a key is good while nobody can confirm it.
func TestAQuestionThatHangs(t *testing.T) {
	afterAnOutage(t, 120, func(t *testing.T, r *remote, k *Cache, ask func() []error) {
		hold := make(chan struct{})
		r.set(func() { r.hold = hold })
		begin := time.Now()
		go func() {
			time.Sleep(25 * time.Second)
			close(hold)
		}()
		var failed atomic.Int64
		var asking sync.WaitGroup
		for range questionsMax {
			asking.Go(func() { ask() }) // who asks is bound by the KMS's own deadline, which this one breaks
			synctest.Wait()
		}
		for i := range 10 {
			asking.Go(func() {
				if _, _, err := k.Metadata(t.Context(), keyName(110+i)); err != nil {
					failed.Add(1)
				}
				if waited := time.Since(begin); waited > 10*time.Second {
					t.Errorf("%s: %v", keyName(110+i), waited)
				}
			})
			synctest.Wait()
		}
		asking.Wait()
		if n := failed.Load(); n != 0 {
			t.Errorf("%d of 10 failed", n)
		}
	})
}
