package proxy

import (
	"context"
	"sync"
	"testing"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/keys"
	"github.com/edekd/edekd/upstream/queue"
)

// whose remembers whose turns requests in edekd's own name take.
type whose struct {
	keys.Far
	mu      sync.Mutex
	lookups map[string]queue.Caller // by name
}

func (w *whose) Metadata(ctx context.Context, name string) (*edek.Metadata, error) {
	w.mu.Lock()
	w.lookups[name] = queue.Whose(ctx)
	w.mu.Unlock()
	return w.Far.Metadata(ctx, name)
}

// A name that somebody sends is looked up in edekd's name and in his turns, whatever
// he wants of it.
func TestLookupsAreInTheSendersTurns(t *testing.T) {
	s := newSidecar(t, true)
	w := &whose{Far: s.far.Far, lookups: map[string]queue.Caller{}}
	s.far.with(func() { s.far.Far = w })
	for name, row := range map[string][3]string{
		"a": {"GET", "/key/a/_eek?eek_op=generate&num_keys=1", ""},
		"b": {"POST", "/keyversion/b@0/_eek?eek_op=decrypt", `{"name":"b","iv":"AAAAAAAAAAAAAAAAAAAAAA","material":"AAAAAAAAAAAAAAAAAAAAAA"}`},
		"c": {"GET", "/key/c/_metadata", ""},
		"d": {"GET", "/keys/metadata?key=d", ""},
		"e": {"GET", "/keyversion/e@0", ""},
		"f": {"GET", "/key/f/_versions", ""},
		"g": {"POST", "/key/g/_decryptbatch", `[{"versionName":"g@0","iv":"AAAAAAAAAAAAAAAAAAAAAA","encryptedKeyVersion":{"versionName":"EEK","material":"AAAA"}}]`},
		"h": {"DELETE", "/key/h", ""},
		"i": {"POST", "/keys", `{"name":"i"}`},
	} {
		s.as(t, "oozie&doAs=eve", row[0], row[1], row[2])
		w.mu.Lock()
		if who := w.lookups[name]; who != (queue.Caller{User: "eve", Real: "oozie"}) {
			t.Errorf("%s %s: the turn of %+v", row[0], row[1], who)
		}
		w.mu.Unlock()
	}
}
