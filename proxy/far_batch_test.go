package proxy

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edekd/edekd/cache"
	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/proxy/audit"
	"github.com/edekd/edekd/upstream"
)

func (b *behind) DecryptBatch(ctx context.Context, c edek.Caller, name string, all []edek.EDEK) ([][]byte, error) {
	b.mu.Lock()
	b.batches = append(b.batches, len(all))
	err := b.batchFail
	b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	deks, err := b.Far.DecryptBatch(ctx, c, name, all)
	b.with(func() { b.given = append(b.given, deks...) })
	return deks, err
}

// asked compares what was asked of the KMS behind since the last time: EDEKs of
// each batch, and how many by themselves.
func (b *behind) asked(t *testing.T, what string, single int, batches ...int) {
	t.Helper()
	b.with(func() {
		if b.single != single || !slices.Equal(b.batches, batches) {
			t.Errorf("%s: %d by themselves and batches of %v, want %d and %v", what, b.single, b.batches, single, batches)
		}
		b.single, b.batches = 0, nil
	})
}

func rememberDEKs(c *cache.FarConfig) { c.DEKBytes, c.DEKAge = 1<<20, time.Hour }

// farBatch makes a sidecar with EDEKs of two versions of the key k1.
func farBatch(t *testing.T, adjust ...func(*cache.FarConfig)) (*sidecar, []eek) {
	t.Helper()
	s := newSidecar(t, false, adjust...)
	s.create(t, "k1")
	list := s.generate(t, "k1", 20)
	if a := s.call(t, "POST", "/key/k1", "{}"); a.StatusCode != 200 {
		t.Fatalf("roll: %d %s", a.StatusCode, a.body)
	}
	list = append(list, s.generate(t, "k1", 20)...)
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return s, list
}

// sameBatch sends a batch and compares the answer with that of the KMS behind.
func (s *sidecar) sameBatch(t *testing.T, what string, list []eek) {
	t.Helper()
	body := batchBody(list)
	want := s.back.as(t, "alice", "POST", "/key/k1/_decryptbatch", body)
	if a := s.as(t, "alice", "POST", "/key/k1/_decryptbatch", body); a.StatusCode != 200 || a.body != want.body {
		t.Errorf("%s: %d %s\nbehind: %d %s", what, a.StatusCode, a.body, want.StatusCode, want.body)
	}
}

// A batch goes on as one to another edekd, is remembered where DEKs are, and is
// no way round a denial there.
func TestBatchesGoOnAsBatches(t *testing.T) {
	for _, remember := range []int64{0, 1 << 20} {
		s, list := farBatch(t, func(c *cache.FarConfig) { c.DEKBytes, c.DEKAge = remember, time.Hour })
		s.sameBatch(t, "first", list)
		s.far.asked(t, "first", 0, 40)
		s.sameBatch(t, "again", list)
		if remember == 0 {
			s.far.asked(t, "without memory", 0, 40)
		} else {
			s.far.asked(t, "from memory", 0)
		}
		body := batchBody(list)
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

// Part of a batch is remembered: the rest goes on as one, and each DEK comes to
// its place, also where an EDEK stands twice.
func TestPartlyRememberedBatchesKeepTheirOrder(t *testing.T) {
	s, list := farBatch(t, rememberDEKs)
	s.sameBatch(t, "a few", list[10:25])
	s.far.asked(t, "a few", 0, 15)
	s.sameBatch(t, "all, three twice", slices.Concat(list[8:12], list[:8], list[12:], list[11:14]))
	s.far.asked(t, "all, three twice", 0, 25)
}

// With a copy of one version of the key, EDEKs of the other go on as one batch.
func TestBatchesOfWhichOneVersionIsCopied(t *testing.T) {
	s, list := farBatch(t, rememberDEKs, func(c *cache.FarConfig) { c.Copies = true })
	s.copied(t, "alice", list[slices.IndexFunc(list, func(e eek) bool { return e.VersionName == "k1@0" })])
	s.far.with(func() { s.far.single = 0 })
	s.sameBatch(t, "all", list)
	s.far.asked(t, "all", 0, 20)
}

// One entry is wrong, of which the KMS behind refuses the batch: the EDEKs are
// opened one by one, and the answer is the one about that entry.
func TestARefusedBatchNamesTheEntry(t *testing.T) {
	for what, adjust := range map[string]func(*cache.FarConfig){"without memory": func(*cache.FarConfig) {}, "with memory": rememberDEKs} {
		s, list := farBatch(t, adjust)
		s.sameBatch(t, what, list[:10])
		s.far.asked(t, what, 0, 10)
		for _, at := range []int{0, 7, 11} {
			wrong := slices.Clone(list[:12])
			wrong[at].VersionName = "k1@7"
			want := s.back.as(t, "alice", "POST", "/keyversion/k1@7/_eek?eek_op=decrypt", wrong[at].decryptBody("k1"))
			if !strings.Contains(want.body, "k1@7") {
				t.Fatalf("by itself: %d %s", want.StatusCode, want.body)
			}
			if a := s.as(t, "alice", "POST", "/key/k1/_decryptbatch", batchBody(wrong)); a.StatusCode != want.StatusCode || a.body != want.body {
				t.Errorf("%s, wrong at %d: %d %s\nby itself: %d %s", what, at, a.StatusCode, a.body, want.StatusCode, want.body)
			}
		}
		if s.far.single == 0 || len(s.far.batches) != 3 {
			t.Errorf("%s: %d by themselves and batches of %v", what, s.far.single, s.far.batches)
		}
		s.sameBatch(t, what+", afterwards", list[:12])
	}
}

// The KMS behind refuses batches that it would open one by one, for their length
// or because it is a Java KMS by now.
func TestARefusedBatchIsOpenedOneByOne(t *testing.T) {
	s, list := farBatch(t, rememberDEKs)
	s.sameBatch(t, "a few", list[10:25])
	s.far.asked(t, "a few", 0, 15)
	s.far.batchFail = &edek.Foreign{Status: 500, Class: "com.fasterxml.jackson.databind.exc.MismatchedInputException", Text: "no map"}
	s.sameBatch(t, "all", list)
	s.far.asked(t, "all", 25, 25)
	s.sameBatch(t, "all, from memory", list)
	s.far.asked(t, "all, from memory", 0)
}

// A batch with one EDEK that is not remembered is denied: nothing of it is handed
// out, and what is remembered is neither in a batch nor by itself.
func TestADeniedBatchEndsTheGrant(t *testing.T) {
	s, list := farBatch(t, rememberDEKs)
	s.sameBatch(t, "a few", list[:10])
	s.rules.Set(policy(t, append([]string{"key.acl.k1.DECRYPT_EEK", "bob"}, openRules...)...), noGroups{})
	for _, batch := range [][]eek{list[:11], list[:10], list[:1]} {
		if a := s.as(t, "alice", "POST", "/key/k1/_decryptbatch", batchBody(batch)); a.StatusCode != 403 || !strings.Contains(a.body, "alice") {
			t.Errorf("%d EDEKs: %d %s", len(batch), a.StatusCode, a.body)
		}
	}
	s.far.asked(t, "denied", 0, 10, 1, 10, 1)
	if a := s.as(t, "alice", "POST", "/keyversion/"+list[0].VersionName+"/_eek?eek_op=decrypt", list[0].decryptBody("k1")); a.StatusCode != 403 {
		t.Errorf("by itself: %d %s", a.StatusCode, a.body)
	}
}

// What the KMS behind opened is zeroed once it is answered, and once it is not:
// one entry is wrong, or the audit log has no room for the line.
func TestDEKsOfBatchesAreZeroed(t *testing.T) {
	s, list := farBatch(t)
	zeroed := func(what string, least int) {
		t.Helper()
		s.far.with(func() {
			if len(s.far.given) < least {
				t.Errorf("%s: %d DEKs were opened", what, len(s.far.given))
			}
			for _, dek := range s.far.given {
				if !bytes.Equal(dek, make([]byte, len(dek))) {
					t.Fatalf("%s: a DEK is left", what)
				}
			}
			s.far.given = nil
		})
	}
	s.sameBatch(t, "answered", list)
	zeroed("answered", len(list))
	wrong := slices.Clone(list)
	wrong[len(wrong)-1].VersionName = "k1@7"
	if a := s.as(t, "alice", "POST", "/key/k1/_decryptbatch", batchBody(wrong)); a.StatusCode != 400 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	zeroed("one by one", 1)

	disk := &sink{refused: make(chan struct{}, 1)}
	log := audit.New(disk, audit.Options{Wait: 300 * time.Millisecond, QueueBytes: 2 << 10})
	t.Cleanup(func() {
		disk.full.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		log.Close(ctx)
	})
	unaudited := newKMS(t, func(c *Config) { c.Authn, c.Cache, c.Audit = newProxied(t), s.cache, log })
	disk.full.Store(true)
	unaudited.call(t, "GET", "/key/k1/_metadata", "") // a line to stall at
	<-disk.refused
	for range 1000 {
		a := unaudited.as(t, "alice", "POST", "/key/k1/_decryptbatch", batchBody(list[:1]))
		if a.StatusCode != 200 {
			contains(t, remote(t, a, 500, classIO), "no batch is decrypted unaudited")
			zeroed("not audited", 1)
			return
		}
	}
	t.Error("the log never became full")
}

// However many EDEKs a batch has that go on one by one, it takes no longer than one
// request may, and what it has by then is no answer.
func TestABatchOneByOneEndsInTime(t *testing.T) {
	s, list := farBatch(t, func(c *cache.FarConfig) { c.Timeout = 3 * time.Second })
	var quick atomic.Int64
	var ends sync.Map
	s.far.with(func() {
		s.far.batchFail = upstream.ErrNotSent
		s.far.opens = func(ctx context.Context) {
			end, _ := ctx.Deadline()
			ends.Store(end, true)
			if quick.Add(-1) < 0 {
				<-ctx.Done()
			}
		}
	})
	quick.Store(30)
	a := s.as(t, "alice", "POST", "/key/k1/_decryptbatch", batchBody(list))
	contains(t, remote(t, a, 500, classIO), "ok: the KMS behind did not answer to all of the batch in time")
	n := 0
	ends.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("the time ends at %d times", n)
	}
	quick.Store(int64(len(list)))
	s.sameBatch(t, "in time", list)
}
