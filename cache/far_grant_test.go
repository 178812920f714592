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

// distant is a far provider with one key, half a second away. Its other methods
// are not called.
type distant struct {
	keys.Far
	mu    sync.Mutex
	asked map[string]int // requests by whose they were
	fail  error          // what callers are answered, not edekd itself
}

func (d *distant) String() string        { return "kms://distant" }
func (d *distant) State() upstream.State { return upstream.OK }

func (d *distant) Metadata(context.Context, string) (*edek.Metadata, error) {
	return &edek.Metadata{Name: "k", Created: 1, Versions: 1, BitLength: 128}, nil
}

func (d *distant) answer(c edek.Caller) error {
	time.Sleep(500 * time.Millisecond)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked[c.User]++
	if c.User != "" {
		return d.fail
	}
	return nil
}

func (d *distant) Generate(_ context.Context, c edek.Caller, _ string, n int) ([]edek.EDEK, error) {
	if err := d.answer(c); err != nil {
		return nil, err
	}
	made := make([]edek.EDEK, n)
	for i := range made {
		made[i], _ = edek.NewEDEK(0, make([]byte, 16), make([]byte, 16))
	}
	return made, nil
}

func (d *distant) Decrypt(_ context.Context, c edek.Caller, _, _ string, _, _ []byte) ([]byte, error) {
	return make([]byte, 16), d.answer(c)
}

func (d *distant) count(user string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[user]
}

// withDistant runs f in virtual time. use asks once as alice, as an interface of
// the cache does that is either of the two that need grants, and says how long it
// took.
func withDistant(t *testing.T, f func(t *testing.T, d *distant, use func() (time.Duration, error))) {
	for name, decrypt := range map[string]bool{"generate": false, "decrypt": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &distant{asked: map[string]int{}}
				k := newCache(t, d, Config{Enabled: true, Idle: time.Hour, CurrentAge: time.Minute, Far: FarConfig{
					Poll: 24 * time.Hour, Timeout: 10 * time.Second, Grant: time.Minute, DEKBytes: 1 << 20, DEKAge: time.Hour,
					Ring: ring.Config{Size: 1000, LowWatermark: 0.3, Cover: -1}, Log: slog.New(slog.DiscardHandler)}})
				if _, _, err := k.Metadata(t.Context(), "k"); err != nil {
					t.Fatal(err)
				}
				_, far, err := k.Metadata(t.Context(), "k")
				if err != nil || far == nil {
					t.Fatal(far, err)
				}
				name := []byte("alice")
				f(t, d, func() (time.Duration, error) {
					begin := time.Now()
					c := edek.Caller{User: string(name), Full: string(name)}
					if decrypt {
						_, err = far.AppendDEK(t.Context(), c, "k@0", make([]byte, 16), make([]byte, 16), nil)
					} else {
						_, err = far.Generate(t.Context(), c, 1, nil)
					}
					return time.Since(begin), err
				})
			})
		})
	}
}

// A caller who keeps asking waits for the other KMS once, however long he asks:
// his grant is renewed before it ends.
func TestGrantsInUseAreRenewed(t *testing.T) {
	withDistant(t, func(t *testing.T, d *distant, use func() (time.Duration, error)) {
		waited := 0
		for range 600 {
			took, err := use()
			if err != nil {
				t.Fatal(err)
			}
			if took > 0 {
				waited++
			}
			time.Sleep(time.Second)
		}
		// Once for the grant; until the ring is filled perhaps once more.
		if waited > 2 {
			t.Errorf("%d of 600 requests waited", waited)
		}
		if n := d.count("alice"); n < 13 || n > 22 {
			t.Errorf("%d requests in alice's name in ten minutes", n)
		}
	})
}

// A renewal that is denied ends the grant at once, and one that fails leaves it
// to its end.
func TestRenewalDenied(t *testing.T) {
	withDistant(t, func(t *testing.T, d *distant, use func() (time.Duration, error)) {
		var sent time.Time // the request that earned the grant
		for range 3 {
			begin := time.Now()
			took, err := use()
			if err != nil {
				t.Fatal(err)
			}
			if took > 0 {
				sent = begin
			}
			time.Sleep(5 * time.Second)
		}
		d.mu.Lock()
		d.fail = &edek.Error{Kind: edek.Unavailable, Op: "ask", Text: "busy"}
		d.mu.Unlock()
		time.Sleep(time.Until(sent.Add(46 * time.Second))) // when every grant is due
		for range 5 {
			if _, err := use(); err != nil {
				t.Fatalf("a renewal that failed: %v", err)
			}
			time.Sleep(time.Second)
		}
		d.mu.Lock()
		d.fail = &edek.Foreign{Status: 403, Class: "org.apache.hadoop.security.authorize.AuthorizationException", Text: "no"}
		d.mu.Unlock()
		time.Sleep(3 * time.Second) // an eighth later the next renewal is due
		if _, err := use(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if _, err := use(); err == nil {
			t.Error("served after a denial")
		}
	})
}
