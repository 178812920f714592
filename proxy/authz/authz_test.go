package authz

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/internal/race"
)

// counting counts what it is asked; the answers can be changed.
type counting struct {
	asked  atomic.Int64
	groups atomic.Pointer[[]string]
}

func (c *counting) Of(string) ([]string, error) {
	c.asked.Add(1)
	if g := c.groups.Load(); g != nil {
		return *g, nil
	}
	return nil, nil
}

// borrow is how the front end passes names that are in a request's buffer.
func borrow(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// at is a moment, some milliseconds after another.
func at(ms int) time.Duration { return time.Duration(1_000_000+ms) * time.Millisecond }

func TestGroupsAreAskedOnlyWhereTheyMatter(t *testing.T) {
	f := func(says string, asked int64, allowed bool, pairs ...string) {
		t.Helper()
		groups := &counting{}
		groups.groups.Store(&[]string{"staff"})
		a := New(policy(t, pairs...), groups)
		c := &edek.Caller{User: "alice"}
		err := a.KMS(DecryptEEK, c)
		if err == nil {
			err = a.Key(KeyDecryptEEK, "k", c)
		}
		if (err == nil) != allowed || groups.asked.Load() != asked {
			t.Errorf("%s: %v after asking for groups %d times, want allowed %v after %d", says, err, groups.asked.Load(), allowed, asked)
		}
	}
	const acl, black, own, all, def, white = "hadoop.kms.acl.DECRYPT_EEK", "hadoop.kms.blacklist.DECRYPT_EEK",
		"key.acl.k.DECRYPT_EEK", "key.acl.k.ALL", "default.key.acl.DECRYPT_EEK", "whitelist.key.acl.DECRYPT_EEK"
	f("nothing but everyone", 0, true, acl, "*", def, "*")
	f("a user", 0, true, acl, "alice ops", def, "alice ops")
	f("neither user nor any group", 0, false, acl, "bob", def, "*")
	f("blacklisted by name", 0, false, acl, " staff", black, "alice ops", def, "*")
	f("not in the blacklist by name, which has groups", 1, false, black, "bob staff", def, "*")
	f("not in the blacklist", 1, true, black, "bob ops", def, "*")
	f("by group", 1, true, acl, " staff", def, "*")
	f("the own rule has groups, the whitelist has the user", 0, true, own, " ops", white, "alice")
	f("the own rule has groups, its ALL has the user", 0, true, own, " ops", all, "alice")
	f("the default has groups, but does not count", 0, false, own, "bob", def, " staff")
	f("no rule at all", 0, false)
	f("the whitelist has groups", 1, true, own, "bob", white, " staff")
	f("its ALL has groups", 1, true, own, "bob", all, " staff")
}

func TestFailedLookUpIsNoAnswer(t *testing.T) {
	f := func(pairs ...string) {
		t.Helper()
		p := policy(t, append(pairs, "default.key.acl.READ", " staff")...)
		a, c := New(p, broken{}), &edek.Caller{User: "alice"}
		_, explained := p.ExplainKMS(Get, c, broken{})
		_, explainedKey := p.ExplainKey(KeyRead, "k", c, broken{})
		for range 2 {
			for _, err := range []error{a.KMS(Get, c), a.Key(KeyRead, "k", c), explained, explainedKey} {
				if err == nil || errors.Is(err, ErrDenied) || !errors.Is(err, errDirectory) || edek.KindOf(err) != edek.Unavailable {
					t.Errorf("%v: got %v", pairs, err)
				}
			}
		}
	}
	f("hadoop.kms.acl.GET", " staff")
	f("hadoop.kms.blacklist.GET", " staff")
	f("hadoop.kms.acl.GET", "alice", "hadoop.kms.blacklist.GET", " staff")
}

func TestGroupAnswersAreBelievedForASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		groups := &counting{}
		groups.groups.Store(&[]string{"staff"})
		p := policy(t, "hadoop.kms.acl.GET", " staff", "default.key.acl.READ", " staff")
		a := New(p, groups)
		c := &edek.Caller{User: "alice"}
		f := func(says string, asked int64, allowed bool) {
			t.Helper()
			for range 3 {
				if kms, key := a.KMS(Get, c), a.Key(KeyRead, "k", c); (kms == nil) != allowed || (key == nil) != allowed {
					t.Errorf("%s: %v and %v, want allowed %v", says, kms, key, allowed)
				}
			}
			if got := groups.asked.Load(); got != asked {
				t.Errorf("%s: groups were asked for %d times, want %d", says, got, asked)
			}
		}
		f("at first", 2, true)
		groups.groups.Store(&[]string{})
		time.Sleep(GroupsBelieved - 1) // of the bubble's clock
		f("just before the second is over", 2, true)
		time.Sleep(1)
		f("when the second is over", 4, false)
		groups.groups.Store(&[]string{"staff"})
		a.Set(p, groups)
		f("the same policy put in force again", 6, true)
		a.Set(p, static{})
		f("other groups", 6, false)
	})
}

func TestAnswersAreKeptApart(t *testing.T) {
	groups := static{"alice": {"staff"}, "ali": {"staff"}}
	a := New(policy(t,
		"hadoop.kms.acl.GET", " staff", "hadoop.kms.acl.DELETE", " ops",
		"key.acl.k.READ", " staff", "key.acl.k.MANAGEMENT", " ops",
		"key.acl.k2.READ", "~gw ops", "key.acl.cek.READ", " ops"), groups)
	for range 2 {
		f := func(says string, err error, allowed bool) {
			t.Helper()
			if (err == nil) != allowed || err != nil && !errors.Is(err, ErrDenied) {
				t.Errorf("%s: %v", says, err)
			}
		}
		alice, bob := &edek.Caller{User: "alice"}, &edek.Caller{User: "bob"}
		f("type", a.KMS(Get, alice), true)
		f("other type", a.KMS(Delete, alice), false)
		f("other user", a.KMS(Get, bob), false)
		f("right", a.Key(KeyRead, "k", alice), true)
		f("other right", a.Key(KeyManagement, "k", alice), false)
		f("other key", a.Key(KeyRead, "k2", alice), false)
		f("other real user", a.Key(KeyRead, "k2", &edek.Caller{User: "alice", Real: "gw"}), true)
		f("no real user", a.Key(KeyRead, "k2", alice), false)
		f("same bytes, divided elsewhere", a.Key(KeyRead, "cek", &edek.Caller{User: "ali"}), false)
	}
}

// TestBorrowedNames passes names whose bytes change afterwards.
func TestBorrowedNames(t *testing.T) {
	a := New(policy(t, "key.acl.k1.READ", " staff", "key.acl.k2.READ", " ops"), static{"alice": {"staff"}})
	name, user := []byte("k1"), []byte("alice")
	c := &edek.Caller{User: borrow(user)}
	if err := a.Key(KeyRead, borrow(name), c); err != nil {
		t.Fatal(err)
	}
	copy(name, "k2")
	if err := a.Key(KeyRead, borrow(name), c); !errors.Is(err, ErrDenied) {
		t.Errorf("the answer for k1 was given for k2: %v", err)
	}
	copy(name, "k1")
	copy(user, "aliXe")
	if err := a.Key(KeyRead, borrow(name), c); !errors.Is(err, ErrDenied) {
		t.Errorf("the answer for alice was given for aliXe: %v", err)
	}
}

func TestNoAllocations(t *testing.T) {
	groups := &counting{}
	groups.groups.Store(&[]string{"staff"})
	a := New(policy(t, "hadoop.kms.acl.DECRYPT_EEK", "bob staff", "hadoop.kms.acl.GENERATE_EEK", "alice",
		"hadoop.kms.acl.GET", " ops", "key.acl.k.DECRYPT_EEK", " staff", "whitelist.key.acl.DECRYPT_EEK", "~gateway"), groups)
	alice, proxied := &edek.Caller{User: "alice"}, &edek.Caller{User: "alice", Real: "gateway"}
	name := []byte("k")
	f := func(says string, want error, check func() error) {
		t.Helper()
		if err := check(); err != want {
			t.Errorf("%s: %v", says, err)
		}
		if n := testing.AllocsPerRun(100, func() { check() }); n != 0 && !race.Enabled {
			t.Errorf("%s: %v allocations", says, n)
		}
	}
	f("KMS layer, by user", nil, func() error { return a.KMS(GenerateEEK, alice) })
	f("KMS layer, by group", nil, func() error { return a.KMS(DecryptEEK, alice) })
	f("KMS layer, denied", ErrDenied, func() error { return a.KMS(Get, alice) })
	f("key layer, by group", nil, func() error { return a.Key(KeyDecryptEEK, borrow(name), alice) })
	f("key layer, by real user", nil, func() error { return a.Key(KeyDecryptEEK, borrow(name), proxied) })
	f("key layer, no rule", ErrDenied, func() error { return a.Key(KeyRead, borrow(name), alice) })
}

// TestSetDuringChecks changes the policy under the hands of checkers: no check
// that begins after Set may be by the policy before.
func TestSetDuringChecks(t *testing.T) {
	groups := static{}
	for i := range 8 {
		groups[fmt.Sprint("user", i)] = []string{"staff"}
	}
	open := policy(t, "hadoop.kms.acl.GET", " staff", "default.key.acl.READ", " staff")
	closed := policy(t, "hadoop.kms.acl.GET", " ops", "default.key.acl.READ", " ops")
	a := New(open, groups)
	stop := make(chan struct{})
	var checkers sync.WaitGroup
	for i := range 8 {
		checkers.Go(func() {
			c := &edek.Caller{User: fmt.Sprint("user", i%4)}
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, err := range []error{a.KMS(Get, c), a.Key(KeyRead, "k", c)} {
					if err != nil && !errors.Is(err, ErrDenied) {
						t.Error(err)
					}
				}
			}
		})
	}
	for i := range 50 {
		p, allowed := open, true
		if i%2 == 0 {
			p, allowed = closed, false
		}
		a.Set(p, groups)
		for user := range groups {
			for range 4 {
				if err := a.Key(KeyRead, "k", &edek.Caller{User: user}); (err == nil) != allowed {
					t.Fatalf("set %d: %v by the policy before", i, err)
				}
			}
		}
	}
	close(stop)
	checkers.Wait()
}

func TestMemoIsBounded(t *testing.T) {
	groups := static{}
	a := New(policy(t, "default.key.acl.READ", " staff"), groups)
	m := a.state.Load().memo
	if got := len(m.slots) * memoEntryMax; got > MemoBytes || got*2 <= MemoBytes {
		t.Errorf("%d slots for %d bytes", len(m.slots), MemoBytes)
	}
	for i := range 4 * len(m.slots) {
		user := fmt.Sprint("user", i)
		groups[user] = []string{"staff"}
		if err := a.Key(KeyRead, "k", &edek.Caller{User: user}); err != nil {
			t.Fatal(err)
		}
	}
	taken, bytes := 0, newMemo(MemoBytes).bytes()
	for i := range m.slots {
		if e := m.slots[i].Load(); e != nil {
			taken++
			bytes += int64(e.size())
		}
	}
	if got := a.MemoryBytes(); got != bytes || got > MemoBytes {
		t.Errorf("%d bytes, of %d answers with %d", got, taken, bytes)
	}
	if taken < len(m.slots)/2 {
		t.Errorf("only %d of %d slots are used: the hash does not spread", taken, len(m.slots))
	}
	long := newMemo(MemoBytes)
	q := question{layer: layerKey, user: "alice", name: strings.Repeat("k", memoNamesMax)}
	if long.put(long.hash(&q), &q, nil, at(0)); long.get(long.hash(&q), &q) != nil {
		t.Error("names longer than the bound are kept")
	}
	q.name = q.name[:memoNamesMax-len(q.user)]
	if long.put(long.hash(&q), &q, nil, at(0)); long.get(long.hash(&q), &q) == nil {
		t.Error("names as long as the bound are not kept")
	}
}

// Keys without rules of their own share one answer, those with some have theirs.
func TestOneAnswerForKeysWithoutRules(t *testing.T) {
	a := New(policy(t, "default.key.acl.READ", " staff", "key.acl.own.READ", " others"), static{"alice": {"staff"}})
	c := &edek.Caller{User: "alice"}
	for i := range 1000 {
		if err := a.Key(KeyRead, fmt.Sprint("key", i), c); err != nil {
			t.Fatal(err)
		}
		if err := a.Key(KeyRead, "own", c); !errors.Is(err, ErrDenied) {
			t.Fatal(err)
		}
	}
	taken := 0
	for i, m := 0, a.state.Load().memo; i < len(m.slots); i++ {
		if m.slots[i].Load() != nil {
			taken++
		}
	}
	if taken != 2 {
		t.Errorf("%d answers are remembered", taken)
	}
}

// Names are views of a request's bytes, which the next request overwrites.
func TestMemoCopiesNames(t *testing.T) {
	for _, q := range []question{{user: "alice"}, {real: "proxy"}, {name: "k"}, {user: "alice", real: "proxy"}, {user: "alice", real: "proxy", name: "k"}} {
		m, borrowed := newMemo(MemoBytes), q
		for _, name := range []*string{&borrowed.user, &borrowed.real, &borrowed.name} {
			*name = borrow([]byte(*name))
		}
		hash := m.hash(&q)
		m.put(hash, &borrowed, nil, at(0))
		for _, name := range []string{borrowed.user, borrowed.real, borrowed.name} {
			clear(unsafe.Slice(unsafe.StringData(name), len(name)))
		}
		if m.get(hash, &q) == nil {
			t.Errorf("the answer to %+v went with the request", q)
		}
	}
}

func TestMemoPrefersWhatIsOld(t *testing.T) {
	m := newMemo(memoWays * memoEntryMax) // one set
	ask := func(i int) *question { return &question{user: fmt.Sprint("user", i)} }
	for i := range memoWays {
		m.put(m.hash(ask(i)), ask(i), nil, at(i))
	}
	old := at(0) + GroupsBelieved
	m.put(m.hash(ask(9)), ask(9), nil, old)
	m.put(m.hash(ask(9)), ask(9), ErrDenied, old)
	if m.get(m.hash(ask(0)), ask(0)) != nil {
		t.Error("the answer that was too old is still there")
	}
	for i := 1; i < memoWays; i++ {
		if m.get(m.hash(ask(i)), ask(i)) == nil {
			t.Errorf("answer %d had to go, though another was too old", i)
		}
	}
	if e := m.get(m.hash(ask(9)), ask(9)); e == nil || e.err != ErrDenied {
		t.Errorf("the newest answer is %v", e)
	}
}

func TestDenials(t *testing.T) {
	for _, err := range []error{OperationDenied("u", "DECRYPT_EEK", []byte("k")), KeyDenied("u", KeyRead, "k"), CreateDenied("u")} {
		if denied, ok := errors.AsType[*Denied](err); !ok || !errors.Is(err, ErrDenied) || denied.Error() == "" {
			t.Errorf("%v is not recognised as a denial", err)
		}
	}
}
