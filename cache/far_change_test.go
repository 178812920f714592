package cache

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edekd/edekd/cache/ring"
	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/keys"
	"github.com/edekd/edekd/upstream"
)

// elsewhere is a far provider whose only key, k, is changed behind edekd. Its node
// has a queue of EDEKs, which goes on after a deletion until it is told to forget
// the key. EDEKs show in their IV of which creation they are.
type elsewhere struct {
	keys.Far
	mu      sync.Mutex
	key     *edek.Metadata  // nil: there is none
	version int             // of the EDEKs made
	queued  int64           // the creation of those in the queue, 0 for none
	cached  *edek.Metadata  // what it answers until it is told
	told    int             // times that it was to forget the key
	toldOf  int             // versions that there were when it was last told
	rolls   []time.Duration // how long each roll to come takes
	rollErr error           // what rolls are answered, which are made
	asked   int             // questions for metadata
	hold    chan struct{}   // what was made for edekd itself waits for it on its way
	late    time.Duration   // how long the next answer about the key alone is under way
	stale   int             // how often it is to be told before it makes EDEKs of the newest version
	denial  error           // what questions for metadata are answered
}

func (e *elsewhere) String() string             { return "kms://elsewhere" }
func (e *elsewhere) State() upstream.State      { return upstream.OK }
func (e *elsewhere) As(edek.Caller) keys.Remote { return elsewhereAs{e: e} }
func (e *elsewhere) set(f func(e *elsewhere))   { e.mu.Lock(); defer e.mu.Unlock(); f(e) }
func (e *elsewhere) count(n *int) (count int)   { e.mu.Lock(); defer e.mu.Unlock(); return *n }

func (e *elsewhere) InvalidateEverywhere(context.Context, string) error {
	time.Sleep(30 * time.Millisecond)
	e.set(func(e *elsewhere) {
		e.told++
		e.queued, e.cached = 0, nil
		if e.key != nil {
			e.toldOf = e.key.Versions
		}
		if e.stale > 0 {
			if e.stale--; e.stale == 0 {
				e.version = e.key.Versions - 1
			}
		}
	})
	return nil
}

func (e *elsewhere) metadata() (*edek.Metadata, error) {
	time.Sleep(30 * time.Millisecond)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
	if e.cached != nil {
		return e.cached, nil
	}
	return e.key, e.denial
}

func (e *elsewhere) Metadata(_ context.Context, name string) (*edek.Metadata, error) {
	m, err := e.metadata()
	if err == nil && m == nil {
		err = missing(name)
	}
	var late time.Duration
	e.set(func(e *elsewhere) { late, e.late = e.late, 0 })
	time.Sleep(late)
	return m, err
}

func (e *elsewhere) Generate(_ context.Context, c edek.Caller, name string, n int) ([]edek.EDEK, error) {
	time.Sleep(30 * time.Millisecond)
	e.mu.Lock()
	if e.key == nil && e.queued == 0 {
		e.mu.Unlock()
		return nil, missing(name)
	}
	created := e.queued
	if created == 0 {
		created = e.key.Created
	}
	made := make([]edek.EDEK, n)
	for i := range made {
		iv := [edek.IVSize]byte{byte(created)}
		made[i], _ = edek.NewEDEK(e.version, iv[:], make([]byte, 16))
	}
	hold := e.hold
	e.mu.Unlock()
	if hold != nil && c.User == "" {
		<-hold
	}
	return made, nil
}

type elsewhereAs struct {
	keys.Remote
	e *elsewhere
}

func (a elsewhereAs) KeysMetadata(_ context.Context, names []string) ([]*edek.Metadata, error) {
	m, err := a.e.metadata()
	all := make([]*edek.Metadata, len(names))
	for i := range all {
		all[i] = m
	}
	return all, err
}

func (a elsewhereAs) Roll(_ context.Context, name string, _ []byte) (*edek.KeyVersion, error) {
	var takes time.Duration
	a.e.set(func(e *elsewhere) { takes, e.rolls = e.rolls[0], e.rolls[1:] })
	time.Sleep(takes)
	a.e.mu.Lock()
	defer a.e.mu.Unlock()
	rolled := *a.e.key
	rolled.Versions++
	a.e.key = &rolled
	return &edek.KeyVersion{Name: name, VersionName: rolled.CurrentVersion()}, a.e.rollErr
}

// Reencrypt brings what it is given to the newest version.
func (e *elsewhere) Reencrypt(_ context.Context, _ edek.Caller, _, _ string, iv, wrapped []byte) (edek.EDEK, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return edek.NewEDEK(e.key.Versions-1, iv, wrapped)
}

// withElsewhere runs f in virtual time. use has alice generate an EDEK each second
// for a time, and returns what she got.
func withElsewhere(t *testing.T, key edek.Metadata, f func(t *testing.T, e *elsewhere, k *Cache, use func(time.Duration) []edek.EDEK)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		key.Name, key.BitLength = "k", 128
		e := &elsewhere{key: &key, version: key.Versions - 1}
		k := newCache(t, e, Config{Enabled: true, Idle: time.Hour, CurrentAge: time.Minute, Far: FarConfig{
			Poll: 10 * time.Second, Timeout: 10 * time.Second, Grant: 5 * time.Minute, Log: slog.New(slog.DiscardHandler),
			StateChanged: func(upstream.State, upstream.State) {}, Ring: ring.Config{Size: 100, LowWatermark: 0.3, Cover: -1}}})
		f(t, e, k, func(d time.Duration) (all []edek.EDEK) {
			t.Helper()
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
				_, far, err := k.Metadata(t.Context(), "k")
				if err == nil && far == nil { // it was not known to be far
					_, far, err = k.Metadata(t.Context(), "k")
				}
				if err == nil {
					all, err = far.Generate(t.Context(), edek.Caller{User: "alice", Full: "alice"}, 1, all)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			return all
		})
	})
}

// A deletion behind edekd that is seen before a key of the same name is made: no
// node goes on giving EDEKs of the deleted one.
func TestADeletionSeenIsToldToAllNodes(t *testing.T) {
	denied := &edek.Foreign{Status: 403, Class: "org.apache.hadoop.security.authorize.AuthorizationException", Text: "no"}
	for name, c := range map[string]struct {
		unused time.Duration // before the deletion: a key that nobody uses is not polled
		denial error
		see    func(t *testing.T, k *Cache)
	}{
		"by the poll":     {see: func(*testing.T, *Cache) { time.Sleep(30 * time.Second) }},
		"denied to edekd": {denial: denied, see: func(*testing.T, *Cache) { time.Sleep(30 * time.Second) }},
		"by whoever looks": {unused: 2 * time.Minute, see: func(t *testing.T, k *Cache) {
			if _, _, err := k.Metadata(t.Context(), "k"); edek.KindOf(err) != edek.NotFound {
				t.Error(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			withElsewhere(t, edek.Metadata{Created: 1, Versions: 1}, func(t *testing.T, e *elsewhere, k *Cache, use func(time.Duration) []edek.EDEK) {
				use(15 * time.Second)
				time.Sleep(c.unused)
				e.set(func(e *elsewhere) { e.key, e.queued, e.denial = nil, 1, c.denial })
				c.see(t, k)
				if k.far.find("k") != nil {
					t.Fatal("the deletion was not seen")
				}
				e.set(func(e *elsewhere) {
					e.key, e.denial = &edek.Metadata{Name: "k", Created: 2, Versions: 1, BitLength: 128}, nil
				})
				for i, made := range use(5 * time.Minute) {
					if made.IV[0] != 2 {
						t.Fatalf("EDEK %d is of the deleted key", i)
					}
				}
				if n := e.count(&e.told); n != 1 {
					t.Errorf("told %d times", n)
				}
			})
		})
	}
}

// EDEKs of the newest version of a deleted key that come in when the next of its
// name is known do not keep the new one's ring empty.
func TestLateEDEKsOfADeletedKey(t *testing.T) {
	withElsewhere(t, edek.Metadata{Created: 1, Versions: 4}, func(t *testing.T, e *elsewhere, k *Cache, use func(time.Duration) []edek.EDEK) {
		use(15 * time.Second)
		hold := make(chan struct{})
		e.set(func(e *elsewhere) { e.hold = hold })
		use(time.Duration(k.Ready("k")-20) * time.Second) // so few are ready that more are fetched
		e.set(func(e *elsewhere) {
			e.key, e.version, e.hold = &edek.Metadata{Name: "k", Created: 2, Versions: 1, BitLength: 128}, 0, nil
		})
		use(15 * time.Second)
		close(hold)
		use(time.Minute)
		if k.Ready("k") == 0 {
			t.Error("nothing is ready")
		}
	})
}

// A version that no key has ends with the next answers about the key.
func TestAnEDEKOfAnImpossibleVersion(t *testing.T) {
	withElsewhere(t, edek.Metadata{Created: 1, Versions: 1}, func(t *testing.T, e *elsewhere, k *Cache, use func(time.Duration) []edek.EDEK) {
		e.set(func(e *elsewhere) { e.version = 1<<31 - 2 })
		use(time.Second)
		e.set(func(e *elsewhere) { e.version = 0 })
		use(time.Minute)
		if k.Ready("k") == 0 {
			t.Error("nothing is ready")
		}
		if n := e.count(&e.told); n == 0 || n > 2 {
			t.Errorf("nodes were told %d times", n)
		}
	})
}

// An EDEK of a newer version outweighs what a node's cache says, which a roll
// through another node has not reached.
func TestANewVersionThatANodeDoesNotKnow(t *testing.T) {
	withElsewhere(t, edek.Metadata{Created: 1, Versions: 1}, func(t *testing.T, e *elsewhere, k *Cache, use func(time.Duration) []edek.EDEK) {
		use(15 * time.Second)
		e.set(func(e *elsewhere) {
			e.cached = e.key
			e.key, e.version = &edek.Metadata{Name: "k", Created: 1, Versions: 2, BitLength: 128}, 1
		})
		if _, err := k.far.find("k").Generate(t.Context(), edek.Caller{User: "bob", Full: "bob"}, 1, nil); err != nil {
			t.Fatal(err)
		}
		for i, made := range use(time.Minute) {
			if made.Version() != 1 {
				t.Errorf("EDEK %d is of version %d", i, made.Version())
			}
		}
		if m, _, err := k.Metadata(t.Context(), "k"); err != nil || m.Versions != 2 || k.Ready("k") == 0 {
			t.Errorf("%+v, %v; %d ready", m, err, k.Ready("k"))
		}
	})
}

// A key has no ring until somebody generates, and one that is made then takes none
// of the versions that were known to be old.
func TestRingsOfKeysThatWereLookedUp(t *testing.T) {
	withElsewhere(t, edek.Metadata{Created: 1, Versions: 2}, func(t *testing.T, e *elsewhere, k *Cache, use func(time.Duration) []edek.EDEK) {
		e.set(func(e *elsewhere) { e.version = 0 }) // a node that has not noticed the roll
		for range 30 {
			if _, _, err := k.Metadata(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		k.far.rings.Each(func(s ring.Stat) { t.Errorf("a ring of %s", s.Name) })
		use(3 * time.Second) // before the next poll
		if n := k.Ready("k"); n != 0 {
			t.Errorf("%d EDEKs of the old version are ready", n)
		}
		e.set(func(e *elsewhere) { e.version = 1 })
		use(time.Minute)
		if k.Ready("k") == 0 {
			t.Error("nothing is ready")
		}
	})
}

// Of a deleted key, which nobody uses, nothing is asked.
func TestADeletedKeyIsNotAskedFor(t *testing.T) {
	withElsewhere(t, edek.Metadata{Created: 1, Versions: 1}, func(t *testing.T, e *elsewhere, k *Cache, use func(time.Duration) []edek.EDEK) {
		use(15 * time.Second)
		e.set(func(e *elsewhere) { e.key = nil })
		time.Sleep(time.Minute)
		e.set(func(e *elsewhere) { e.asked = 0 })
		time.Sleep(time.Hour)
		if n := e.count(&e.asked); n != 0 {
			t.Errorf("%d questions in an hour", n)
		}
	})
}

// Nodes are told of every roll after it was made, also when another roll has just
// ended what was known of the key, and when the answer does not say whether it was made.
func TestNodesAreToldOfEachRoll(t *testing.T) {
	broken := &edek.Foreign{Status: 500, Class: "java.net.SocketTimeoutException", Text: "Read timed out", Node: "n"}
	for _, c := range []struct {
		rolls []time.Duration
		err   error
	}{{[]time.Duration{time.Millisecond}, broken}, {[]time.Duration{20 * time.Millisecond, 60 * time.Millisecond}, nil}} {
		withElsewhere(t, edek.Metadata{Created: 1, Versions: 1}, func(t *testing.T, e *elsewhere, k *Cache, use func(time.Duration) []edek.EDEK) {
			use(2 * time.Second)
			e.set(func(e *elsewhere) { e.rolls, e.rollErr = c.rolls, c.err })
			var all sync.WaitGroup
			for range c.rolls {
				all.Go(func() {
					if _, err := k.Roll(t.Context(), edek.Caller{User: "admin", Full: "admin"}, "k", nil); (err != nil) != (c.err != nil) {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if made := 1 + len(c.rolls); e.count(&e.toldOf) != made {
				t.Errorf("%v: told last when there were %d versions, of %d", c.rolls, e.count(&e.toldOf), made)
			}
		})
	}
}

// A queue of the other KMS that was filled again just before a roll hands out nothing
// after it.
func TestAQueueThatWasFilledBeforeARoll(t *testing.T) {
	withElsewhere(t, edek.Metadata{Created: 1, Versions: 1}, func(t *testing.T, e *elsewhere, k *Cache, use func(time.Duration) []edek.EDEK) {
		use(2 * time.Second)
		e.set(func(e *elsewhere) { e.stale, e.rolls = 2, []time.Duration{time.Millisecond} })
		if _, err := k.Roll(t.Context(), edek.Caller{User: "admin", Full: "admin"}, "k", nil); err != nil {
			t.Fatal(err)
		}
		for _, made := range use(10 * time.Second) {
			if made.Version() != 1 {
				t.Errorf("an EDEK of version %d", made.Version())
			}
		}
		if n := e.count(&e.told); n != 2 {
			t.Errorf("told %d times", n)
		}
	})
}

// An answer about a key that was not known when it was asked for, and that comes after
// a roll was acknowledged, brings nothing back from before.
func TestAnAnswerFromBeforeARoll(t *testing.T) {
	withElsewhere(t, edek.Metadata{Created: 1, Versions: 1}, func(t *testing.T, e *elsewhere, k *Cache, use func(time.Duration) []edek.EDEK) {
		e.set(func(e *elsewhere) { e.late, e.rolls = time.Second, []time.Duration{time.Millisecond} })
		var warming sync.WaitGroup
		warming.Go(func() { _, _ = k.far.fetch(t.Context(), "k", 1) }) // as after a start
		time.Sleep(100 * time.Millisecond)
		if _, _, err := k.Metadata(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Roll(t.Context(), edek.Caller{User: "admin", Full: "admin"}, "k", nil); err != nil {
			t.Fatal(err)
		}
		warming.Wait()
		for range 100 {
			if m, _, err := k.Metadata(t.Context(), "k"); err != nil || m.Versions != 2 {
				t.Fatalf("%+v, %v after the roll", m, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
}

// A re-encryption shows a roll that was made behind edekd, as a new EDEK does.
func TestAReencryptionShowsARoll(t *testing.T) {
	withElsewhere(t, edek.Metadata{Created: 1, Versions: 1}, func(t *testing.T, e *elsewhere, k *Cache, use func(time.Duration) []edek.EDEK) {
		use(5 * time.Second)
		e.set(func(e *elsewhere) {
			rolled := *e.key
			rolled.Versions++
			e.key, e.version = &rolled, 1
		})
		_, f, err := k.Metadata(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Reencrypt(t.Context(), edek.Caller{User: "alice", Full: "alice"}, "k@0", make([]byte, 16), make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
		for _, made := range use(2 * time.Second) {
			if made.Version() != 1 {
				t.Errorf("an EDEK of version %d after one of version 1", made.Version())
			}
		}
	})
}
