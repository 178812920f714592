package cache

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edekd/edekd/cache/ring"
	"github.com/edekd/edekd/edek"
)

// A client's refill asks for more than is ready. While the other KMS is gone, or does
// not answer yet, it gets nothing, and what is ready stays for who asks for one.
func TestARequestForMoreThanIsReady(t *testing.T) {
	withRemote(t, FarConfig{Poll: 10 * time.Second, Grant: 5 * time.Minute, GrantOutage: 30 * time.Minute,
		Ring: ring.Config{Size: 100, LowWatermark: 0.3, Cover: -1}}, func(t *testing.T, r *remote, k *Cache) {
		hdfs := edek.Caller{User: "hdfs", Full: "hdfs"}
		generate := func(n int) (int, error) {
			_, far, err := k.Metadata(t.Context(), "key0")
			if err == nil && far == nil {
				_, far, err = k.Metadata(t.Context(), "key0")
			}
			if err != nil {
				return 0, err
			}
			all, err := far.Generate(t.Context(), hdfs, n, nil)
			return len(all), err
		}
		for range 10 {
			if _, err := generate(1); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		ready := k.Ready("key0")
		if ready < 2 {
			t.Fatalf("%d are ready", ready)
		}
		r.gone.Store(true)
		for range 10 {
			if _, err := generate(ready + 1); err == nil {
				t.Fatal("what is not there was had from a KMS that is gone")
			}
		}
		for i := range ready {
			if _, err := generate(1); err != nil {
				t.Fatalf("%d of %d: %v", i, ready, err)
			}
		}
		if _, err := generate(1); err == nil {
			t.Error("more was handed out than was ready")
		}
	})
}

// A key that edekd may not see fails the questions for many keys that it is in. Whoever
// asks for another of them waits for no more than the time of a request, and of one more if the key has to be looked
// up by itself.
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
