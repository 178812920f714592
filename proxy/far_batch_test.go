package proxy

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/cache"
	"github.com/edekd/edekd/edek"
)

func (b *behind) DecryptBatch(ctx context.Context, c edek.Caller, name string, all []edek.EDEK) ([][]byte, error) {
	b.with(func() { b.batches++ })
	return b.Far.DecryptBatch(ctx, c, name, all)
}

// A batch goes on as one to another edekd, is remembered where DEKs are, and is
// no way round a denial there.
func TestBatchesGoOnAsBatches(t *testing.T) {
	for _, remember := range []int64{0, 1 << 20} {
		s := newSidecar(t, false, func(c *cache.FarConfig) { c.DEKBytes, c.DEKAge = remember, time.Hour })
		s.create(t, "k1")
		var entries []string
		for _, e := range s.generate(t, "k1", 40) {
			entries = append(entries, batchEntryText(t, e))
		}
		body := "[" + strings.Join(entries, ",") + "]"
		want := s.back.as(t, "alice", "POST", "/key/k1/_decryptbatch", body)
		for range 2 {
			if a := s.as(t, "alice", "POST", "/key/k1/_decryptbatch", body); a.StatusCode != 200 || a.body != want.body {
				t.Fatalf("%d %s", a.StatusCode, a.body)
			}
		}
		batches := 2
		if remember > 0 {
			batches = 1
		}
		if s.far.batches != batches || s.far.single != 0 {
			t.Errorf("with %d bytes for DEKs: %d batches and %d by themselves", remember, s.far.batches, s.far.single)
		}
		s.rules.Set(policy(t, append([]string{"key.acl.k1.DECRYPT_EEK", "bob"}, openRules...)...), noGroups{})
		direct := s.back.as(t, "eve", "POST", "/key/k1/_decryptbatch", body)
		if a := s.as(t, "eve", "POST", "/key/k1/_decryptbatch", body); a.StatusCode != 403 || a.body != direct.body {
			t.Errorf("a stranger: %d %s, without sidecar %s", a.StatusCode, a.body, direct.body)
		}
		if a := s.as(t, "oozie", "POST", "/key/k1/_decryptbatch?doAs=eve", body); a.StatusCode != 403 {
			t.Errorf("for a stranger: %d %s", a.StatusCode, a.body)
		}
	}
}
