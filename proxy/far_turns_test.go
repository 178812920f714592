package proxy

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/edekd/edekd/cache"
	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/keys"
	"github.com/edekd/edekd/upstream/queue"
)

// whose remembers whose turns requests in edekd's own name take.
type whose struct {
	keys.Far
	mu      sync.Mutex
	lookups map[string]queue.Caller // by name
	own     int                     // questions about keys in use
	lent    []queue.Caller          // in whose turns those were asked, were it not edekd's
}

func (w *whose) Metadata(ctx context.Context, name string) (*edek.Metadata, error) {
	w.mu.Lock()
	w.lookups[name] = queue.Whose(ctx)
	w.mu.Unlock()
	return w.Far.Metadata(ctx, name)
}

func (w *whose) As(c edek.Caller) keys.Remote { return whoseRemote{w.Far.As(c), w, c} }

type whoseRemote struct {
	keys.Remote
	w *whose
	c edek.Caller
}

func (r whoseRemote) KeysMetadata(ctx context.Context, names []string) ([]*edek.Metadata, error) {
	if who := queue.Whose(ctx); r.c.User == "" {
		r.w.mu.Lock()
		r.w.own++
		if who != (queue.Caller{}) {
			r.w.lent = append(r.w.lent, who)
		}
		r.w.mu.Unlock()
	}
	return r.Remote.KeysMetadata(ctx, names)
}

// A name that somebody sends is looked up in edekd's name and in his turns, whatever
// he wants of it. What is compared of keys in use is edekd's own.
func TestLookupsAreInTheSendersTurns(t *testing.T) {
	s := newSidecar(t, true, func(c *cache.FarConfig) { c.Poll = 20 * time.Millisecond })
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
	s.back.create(t, "k1")
	eventually(t, "questions about a key in use", func() bool {
		s.generateAs(t, "alice")
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.own >= 20
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.lent) > 0 {
		t.Errorf("%d of %d questions in the turns of %+v", len(w.lent), w.own, w.lent[0])
	}
}
