package cache

import (
	"sync"
	"testing"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream/queue"
)

// A name that is not known is looked up in the turns of whoever sent it. Keys that are
// known are asked for together, whoever comes first: that is edekd's own question.
func TestWhoseTurnsLookupsTake(t *testing.T) {
	const count = 5
	afterAnOutage(t, count, func(t *testing.T, r *remote, k *Cache, _ func() []error) {
		turns := func(what string, who queue.Caller, names ...string) {
			t.Helper()
			r.set(func() { r.turns = nil })
			var all sync.WaitGroup
			for _, name := range names {
				all.Go(func() {
					if _, _, err := k.MetadataFor(t.Context(), &edek.Caller{User: "alice", Real: "hive"}, name); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			r.set(func() {
				for _, got := range r.turns {
					if got != who {
						t.Errorf("%s: the turn of %+v", what, got)
					}
				}
				if len(r.turns) == 0 {
					t.Errorf("%s: nothing was asked", what)
				}
			})
		}
		turns("known keys", queue.Caller{}, keyName(0), keyName(1), keyName(2))
		turns("another", queue.Caller{User: "alice", Real: "hive"}, keyName(count))
	})
}
