package cache

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edekd/edekd/cache/ring"
	"github.com/edekd/edekd/edek"
)

// generated has hdfs generate n EDEKs of key0.
func generated(t *testing.T, k *Cache, n int) error {
	t.Helper()
	_, far, err := k.Metadata(t.Context(), "key0")
	if err == nil && far == nil {
		_, far, err = k.Metadata(t.Context(), "key0")
	}
	if err == nil {
		_, err = far.Generate(t.Context(), edek.Caller{User: "hdfs", Full: "hdfs"}, n, nil)
	}
	return err
}

// stocked has EDEKs of key0 fetched ahead, and returns how many.
func stocked(t *testing.T, k *Cache) int {
	t.Helper()
	for range 10 {
		if err := generated(t, k, 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
	}
	ready := k.Ready("key0")
	if ready < 2 {
		t.Fatalf("%d are ready", ready)
	}
	return ready
}

// wantReady has all EDEKs of key0 that are ready handed out one by one.
func wantReady(t *testing.T, k *Cache, ready int) {
	t.Helper()
	for i := range ready {
		if err := generated(t, k, 1); err != nil {
			t.Fatalf("%d of %d: %v", i, ready, err)
		}
	}
	if generated(t, k, 1) == nil {
		t.Error("more was handed out than was ready")
	}
}

// A client's refill asks for more than is ready. While the other KMS is gone it
// gets nothing, and what is ready stays for who asks for one.
func TestARequestForMoreThanIsReady(t *testing.T) {
	withRemote(t, FarConfig{Poll: 10 * time.Second, Grant: 5 * time.Minute, GrantOutage: 30 * time.Minute,
		Ring: ring.Config{Size: 100, LowWatermark: 0.3, Cover: -1}}, func(t *testing.T, r *remote, k *Cache) {
		ready := stocked(t, k)
		r.gone.Store(true)
		for range 10 {
			if generated(t, k, ready+1) == nil {
				t.Fatal("what is not there was had from a KMS that is gone")
			}
		}
		wantReady(t, k, ready)
	})
}

// A key that edekd may not see fails the questions for many keys that it is in. Whoever
// asks for another of them waits for no more than the time of a request, and of one
// more if the key has to be looked up by itself.
func TestAQuestionThatIsHalvedHoldsNobodyUp(t *testing.T) {
	denied := &edek.Foreign{Status: 403, Class: "org.apache.hadoop.security.authorize.AuthorizationException", Text: "no"}
	afterAnOutage(t, 50, func(t *testing.T, r *remote, k *Cache, _ func() []error) {
		r.set(func() { r.other[keyName(20)], r.slow = denied, 3*time.Second })
		var all sync.WaitGroup
		for i := range 10 {
			all.Go(func() {
				begin := time.Now()
				_, _, _ = k.Metadata(t.Context(), keyName(i))
				if took := time.Since(begin); took > 20*time.Second {
					t.Errorf("%s: %v", keyName(i), took)
				}
			})
			synctest.Wait()
		}
		all.Wait()
	})
}

// A roll whose outcome nobody knows, which may be by who may not roll, uses up nothing
// while the other KMS is gone. Once it answers, the key is looked at before it is used.
func TestAnUnsettledRoll(t *testing.T) {
	c := FarConfig{Poll: 10 * time.Second, Grant: 5 * time.Minute, GrantOutage: 30 * time.Minute, Ring: ring.Config{Size: 100, LowWatermark: 0.3, Cover: -1}}
	mallory := edek.Caller{User: "mallory", Full: "mallory"}
	withRemote(t, c, func(t *testing.T, r *remote, k *Cache) {
		ready := stocked(t, k)
		if _, err := k.Roll(t.Context(), mallory, "key0", nil); edek.KindOf(err) != edek.Unsettled {
			t.Fatal(err)
		}
		r.gone.Store(true)
		before := len(r.calls)
		if _, err := k.Roll(t.Context(), mallory, "key0", nil); edek.KindOf(err) != edek.Unavailable || len(r.calls) != before {
			t.Errorf("a roll that cannot be made: %v", err)
		}
		wantReady(t, k, ready)
	})
	withRemote(t, c, func(t *testing.T, r *remote, k *Cache) {
		stocked(t, k)
		if _, err := k.Roll(t.Context(), mallory, "key0", nil); err == nil {
			t.Fatal("the roll was answered")
		}
		r.set(func() { r.rolled["key0"] = 1 })
		if m, _, err := k.Metadata(t.Context(), "key0"); err != nil || m.Versions != 2 || k.Ready("key0") != 0 {
			t.Errorf("%+v, %v, %d ready from before the roll", m, err, k.Ready("key0"))
		}
	})
}
