package cache

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edekd/edekd/cache/ring"
	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream"
)

// announcing is a distant provider that takes batches. DEKs are made of EDEKs by
// dekOf.
type announcing struct {
	distant
	silent bool          // it has announced nothing
	sent   [][]edek.EDEK // the batches
	under  func()        // called while a batch is under way
	single int           // decrypts by themselves
	left   time.Duration // that the last batch had
}

func dekOf(iv, wrapped []byte) []byte {
	dek := make([]byte, len(wrapped))
	for i := range dek {
		dek[i] = wrapped[i] ^ iv[i%len(iv)] ^ 0xa5
	}
	return dek
}

func (a *announcing) Batches() bool { return !a.silent }

func (a *announcing) Decrypt(_ context.Context, c edek.Caller, _, _ string, iv, wrapped []byte) ([]byte, error) {
	a.single++
	return dekOf(iv, wrapped), a.answer(c)
}

func (a *announcing) DecryptBatch(ctx context.Context, c edek.Caller, _ string, all []edek.EDEK) ([][]byte, error) {
	a.sent = append(a.sent, slices.Clone(all))
	if end, ok := ctx.Deadline(); ok {
		a.left = time.Until(end)
	}
	if a.under != nil {
		a.under()
	}
	if err := a.answer(c); err != nil {
		return nil, err
	}
	var deks [][]byte
	for i := range all {
		deks = append(deks, dekOf(all[i].IV[:], all[i].Wrapped()))
	}
	return deks, nil
}

// edeksOf makes EDEKs with numbers. Odd ones are of version 1 and of 32 bytes.
func edeksOf(numbers ...byte) (all []edek.EDEK) {
	for _, n := range numbers {
		e, err := edek.NewEDEK(int(n%2), bytes.Repeat([]byte{n}, edek.IVSize), bytes.Repeat([]byte{n, 3 * n}, 8+8*int(n%2)))
		if err != nil {
			panic(err)
		}
		all = append(all, e)
	}
	return all
}

// withBatches runs f in virtual time. open asks once for EDEKs of the key k and
// returns the DEKs.
func withBatches(t *testing.T, remembered int64, f func(t *testing.T, a *announcing, k *Cache, open func(user string, numbers ...byte) ([][]byte, error))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := &announcing{distant: distant{asked: map[string]int{}}}
		k := newCache(t, a, Config{Enabled: true, Idle: time.Hour, CurrentAge: time.Minute, Far: FarConfig{
			Poll: 24 * time.Hour, Timeout: 10 * time.Second, Grant: time.Minute, DEKBytes: remembered, DEKAge: time.Hour,
			Ring: ring.Config{Size: 10, LowWatermark: 0.3, Cover: -1}, Log: slog.New(slog.DiscardHandler)}})
		if _, _, err := k.Metadata(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		f(t, a, k, func(user string, numbers ...byte) ([][]byte, error) {
			_, far, err := k.Metadata(t.Context(), "k")
			if err != nil || far == nil {
				t.Fatal(far, err)
			}
			deks := make([][]byte, len(numbers))
			return deks, far.OpenBatch(t.Context(), edek.Caller{User: user, Full: user}, edeksOf(numbers...), deks)
		})
	})
}

// wantDEKs compares DEKs with those of EDEKs with these numbers, 0 for none.
func wantDEKs(t *testing.T, deks [][]byte, numbers ...byte) {
	t.Helper()
	for i, n := range numbers {
		var want []byte
		if n != 0 {
			e := edeksOf(n)[0]
			want = dekOf(e.IV[:], e.Wrapped())
		}
		if !bytes.Equal(deks[i], want) {
			t.Errorf("at %d: %x, want the DEK of %d", i, deks[i], n)
		}
	}
}

// What is remembered of a batch comes from memory, for those only whom the other
// KMS lately let decrypt, and what is not goes there in one request.
func TestPartlyRememberedBatches(t *testing.T) {
	withBatches(t, 1<<20, func(t *testing.T, a *announcing, k *Cache, open func(string, ...byte) ([][]byte, error)) {
		for _, step := range []struct {
			user       string
			ask, sent  []byte
			afterwards func()
		}{
			{user: "alice", ask: []byte{2, 5}, sent: []byte{2, 5}},
			{user: "alice", ask: []byte{1, 2, 3, 4, 5, 6, 2}, sent: []byte{1, 3, 4, 6}},
			{user: "alice", ask: []byte{6, 5, 4, 3, 2, 1}},
			{user: "alice", ask: []byte{6, 7}, sent: []byte{7}},
			{user: "alice", ask: []byte{8, 1}, sent: []byte{8}},
			{user: "bob", ask: []byte{1, 9, 2}, sent: []byte{1, 9, 2}},
			{user: "bob", ask: []byte{9, 1}, afterwards: func() { time.Sleep(time.Minute) }},
			{user: "alice", ask: []byte{1, 2}, sent: []byte{1, 2}}, // his grant has ended
		} {
			a.sent = nil
			deks, err := open(step.user, step.ask...)
			if err != nil {
				t.Fatal(err)
			}
			wantDEKs(t, deks, step.ask...)
			var want [][]edek.EDEK
			if step.sent != nil {
				want = [][]edek.EDEK{edeksOf(step.sent...)}
			}
			if !slices.EqualFunc(a.sent, want, slices.Equal) {
				t.Errorf("%s, %v: sent %v, want %v", step.user, step.ask, a.sent, step.sent)
			}
			// They are the caller's: zeroing them harms nobody.
			for _, dek := range deks {
				clear(dek)
			}
			if step.afterwards != nil {
				step.afterwards()
			}
		}
		if a.single != 0 {
			t.Errorf("%d by themselves", a.single)
		}
	})
}

// Without memory for DEKs every batch goes on, and where none were announced
// nothing does.
func TestBatchesWithoutMemory(t *testing.T) {
	withBatches(t, 0, func(t *testing.T, a *announcing, k *Cache, open func(string, ...byte) ([][]byte, error)) {
		for range 2 {
			deks, err := open("alice", 1, 2)
			if err != nil {
				t.Fatal(err)
			}
			wantDEKs(t, deks, 1, 2)
		}
		a.silent = true
		deks, err := open("alice", 1, 2)
		if err != nil {
			t.Fatal(err)
		}
		wantDEKs(t, deks, 0, 0)
		if len(a.sent) != 2 || a.single != 0 {
			t.Errorf("%d batches and %d by themselves", len(a.sent), a.single)
		}
	})
}

// A batch that is refused because of what is in it, or was not sent, is left to
// be opened one by one, but for what is remembered. A KMS that cannot be reached
// fails it: a thousand more requests would find the same.
func TestRefusedBatches(t *testing.T) {
	unavailable := &edek.Error{Kind: edek.Unavailable, Op: "decrypt", Text: "nobody answers"}
	for _, c := range []struct{ refuse, want error }{
		{&edek.Foreign{Status: 400, Class: "java.lang.IllegalArgumentException", Text: "'k@7' not found"}, nil},
		{&edek.Foreign{Status: 500, Class: "java.io.IOException", Text: "an IV of 15 bytes"}, nil},
		{upstream.ErrNotSent, nil},
		{unavailable, unavailable},
	} {
		withBatches(t, 1<<20, func(t *testing.T, a *announcing, k *Cache, open func(string, ...byte) ([][]byte, error)) {
			if _, err := open("alice", 2); err != nil {
				t.Fatal(err)
			}
			a.fail = c.refuse
			deks, err := open("alice", 1, 2, 3)
			if err != c.want {
				t.Errorf("%v: %v", c.refuse, err)
			}
			wantDEKs(t, deks, 0, 2, 0)
			if len(a.sent) != 2 || a.single != 0 {
				t.Errorf("%v: %d batches and %d by themselves", c.refuse, len(a.sent), a.single)
			}
			// It is nothing against the caller.
			if deks, err = open("alice", 2); err != nil || len(a.sent) != 2 {
				t.Errorf("%v: then %d batches, %v", c.refuse, len(a.sent), err)
			}
			wantDEKs(t, deks, 2)
		})
	}
}

// A denial is the caller's answer, and ends what he was let have from memory.
func TestDeniedBatches(t *testing.T) {
	for _, denial := range []*edek.Foreign{
		{Status: 403, Class: "org.apache.hadoop.security.authorize.AuthorizationException", Text: "no"},
		{Status: 500, Class: "java.io.IOException", Text: "org.apache.hadoop.security.authorize.AuthorizationException: no"},
	} {
		withBatches(t, 1<<20, func(t *testing.T, a *announcing, k *Cache, open func(string, ...byte) ([][]byte, error)) {
			for _, user := range []string{"alice", "bob"} {
				if _, err := open(user, 2, 4); err != nil {
					t.Fatal(err)
				}
			}
			a.fail = denial
			if _, err := open("alice", 2, 3); err != error(denial) {
				t.Errorf("denied: %v", err)
			}
			deks, err := open("alice", 2, 4)
			if err != error(denial) {
				t.Errorf("from memory after a denial: %v", err)
			}
			wantDEKs(t, deks, 0, 0)
			if len(a.sent) != 4 || a.single != 0 {
				t.Errorf("%d batches and %d by themselves", len(a.sent), a.single)
			}
			if deks, err = open("bob", 2, 4); err != nil {
				t.Errorf("bob, who was not denied anything: %v", err)
			}
			wantDEKs(t, deks, 2, 4)
		})
	}
}

// What was opened while the key was changed is handed out, not remembered.
func TestABatchThatIsOvertakenByAChange(t *testing.T) {
	withBatches(t, 1<<20, func(t *testing.T, a *announcing, k *Cache, open func(string, ...byte) ([][]byte, error)) {
		a.under = func() { k.far.forget("k") }
		deks, err := open("alice", 1, 2)
		if err != nil {
			t.Fatal(err)
		}
		wantDEKs(t, deks, 1, 2)
		a.under = nil
		if _, _, err := k.Metadata(t.Context(), "k"); err != nil { // it is learnt again
			t.Fatal(err)
		}
		for range 2 { // and is remembered from then on
			if deks, err = open("alice", 1, 2); err != nil || len(a.sent) != 2 {
				t.Errorf("%d batches, %v", len(a.sent), err)
			}
			wantDEKs(t, deks, 1, 2)
		}
	})
}

// The age of what was opened in a batch counts from its sending.
func TestDEKsOfBatchesGrowOld(t *testing.T) {
	withBatches(t, 1<<20, func(t *testing.T, a *announcing, k *Cache, open func(string, ...byte) ([][]byte, error)) {
		time.Sleep(30 * time.Minute)
		for _, step := range []struct {
			after time.Duration
			asked []byte
			sent  int
		}{
			{0, []byte{1}, 1},
			{59 * time.Minute, []byte{2}, 1}, // earns another grant
			{0, []byte{1, 2}, 0},
			{time.Minute - 500*time.Millisecond, []byte{3}, 1},
			{0, []byte{1, 2, 3}, 1},
		} {
			time.Sleep(step.after)
			a.sent = nil
			if _, err := open("alice", step.asked...); err != nil {
				t.Fatal(err)
			}
			sent := 0
			for _, batch := range a.sent {
				sent += len(batch)
			}
			if sent != step.sent {
				t.Errorf("after another %v, %v: %d were sent, want %d", step.after, step.asked, sent, step.sent)
			}
		}
	})
}

// A batch that goes on as several has the time of all of them.
func TestABatchHasTheTimeOfItsThousands(t *testing.T) {
	withBatches(t, 0, func(t *testing.T, a *announcing, k *Cache, _ func(string, ...byte) ([][]byte, error)) {
		_, far, err := k.Metadata(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		all := slices.Repeat(edeksOf(1), 5000)
		ctx, cancel := far.BatchDeadline(t.Context(), len(all))
		defer cancel()
		if err := far.OpenBatch(ctx, edek.Caller{User: "alice", Full: "alice"}, all, make([][]byte, len(all))); err != nil || a.left != time.Minute {
			t.Errorf("%v, %v", a.left, err)
		}
	})
}
