package token

import (
	"context"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var start = time.UnixMilli(1700000000000)

// clock is a time that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func manager(t testing.TB, cfg Config) (*Manager, *clock) {
	t.Helper()
	c := &clock{now: start}
	if cfg.Store == nil {
		cfg.Store = NewMemory()
	}
	cfg.Now = c.Now
	first := &firstSweep{Store: cfg.Store, done: make(chan struct{})}
	cfg.Store = first
	m, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	<-first.done
	return m, c
}

// firstSweep tells when a Manager has swept the store for the first time, so that
// the sweep does not meet what a test does to the clock.
type firstSweep struct {
	Store
	once sync.Once
	done chan struct{}
}

func (f *firstSweep) Sweep(ctx context.Context, before int64) (int, error) {
	defer f.once.Do(func() { close(f.done) })
	return f.Store.Sweep(ctx, before)
}

func issue(t testing.TB, m *Manager, q Request) (text []byte, id Identifier) {
	t.Helper()
	token, err := m.Issue(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	id, err = ParseIdentifier(token.Identifier)
	if err != nil {
		t.Fatal(err)
	}
	return token.AppendURL(nil), id
}

// altered returns the token's text with other contents.
func altered(t testing.TB, text []byte, alter func(token *Token, id *Identifier)) []byte {
	t.Helper()
	token, err := ParseURL(text)
	if err != nil {
		t.Fatal(err)
	}
	id, err := ParseIdentifier(token.Identifier)
	if err != nil {
		t.Fatal(err)
	}
	before := id
	alter(token, &id)
	if id != before {
		token.Identifier = id.Append(nil)
	}
	return token.AppendURL(nil)
}

func forge(token *Token, _ *Identifier) { token.Password[3] ^= 1 }

func wantRefusal(t testing.TB, err error, class, message string) {
	t.Helper()
	refused := (*Error)(nil)
	if !errors.As(err, &refused) || refused.Class != class || refused.Message != message {
		t.Errorf("error %v, want %s: %s", err, class, message)
	}
}

func TestIssueAndVerify(t *testing.T) {
	m, _ := manager(t, Config{})
	text, id := issue(t, m, Request{Owner: "alice", Renewer: "yarn", Service: "kms://http@h:9600/kms"})
	if want := vector; id != want {
		t.Errorf("the first token is %v, want %v", &id, &want)
	}
	v, err := m.Verify(text, start)
	if err != nil {
		t.Fatal(err)
	}
	if v.Identifier != id || v.Expires != start.Add(24*time.Hour).UnixMilli() {
		t.Errorf("verified as %v until %d", &v.Identifier, v.Expires)
	}
	again, err := m.Verify(text, start)
	if again != v || err != nil {
		t.Errorf("not remembered: %v", err)
	}
	// Clients change kind and service, which mean nothing.
	other := altered(t, text, func(token *Token, _ *Identifier) { token.Kind, token.Service = "", "ip:port" })
	if v, err := m.Verify(other, start); err != nil || v.Identifier != id {
		t.Errorf("with another service: %v", err)
	}
	_, second := issue(t, m, Request{Owner: "bob", RealUser: "hive"})
	if second.Sequence != 2 || second.RealUser != "hive" || second.Renewer != "" {
		t.Errorf("the second token is %v", &second)
	}
	if n, err := m.Count(t.Context()); n != 2 || err != nil {
		t.Errorf("%d tokens, %v", n, err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	m, c := manager(t, Config{})
	text, id := issue(t, m, Request{Owner: "alice", Renewer: "yarn", RealUser: "hive"})
	f := func(text []byte, message string) {
		t.Helper()
		for range 2 {
			v, err := m.Verify(text, c.Now())
			if v != nil {
				t.Errorf("verified as %v", &v.Identifier)
			}
			wantRefusal(t, err, ClassInvalidToken, message)
		}
	}
	const notFound = "Token for real user: hive, can't be found in cache"
	f(altered(t, text, func(_ *Token, id *Identifier) { id.Owner = "root" }), notFound)
	f(altered(t, text, func(_ *Token, id *Identifier) { id.Renewer = "root" }), notFound)
	f(altered(t, text, func(_ *Token, id *Identifier) { id.RealUser = "" }), "Token for real user: , can't be found in cache")
	f(altered(t, text, func(_ *Token, id *Identifier) { id.Issued += 86400000 }), notFound) // issued tomorrow
	f(altered(t, text, func(_ *Token, id *Identifier) { id.MaxDate = math.MaxInt64 }), notFound)
	f(altered(t, text, func(_ *Token, id *Identifier) { id.KeyID++ }), notFound)
	f(altered(t, text, func(_ *Token, id *Identifier) { id.Sequence++ }), notFound)
	f(altered(t, text, func(_ *Token, id *Identifier) { id.Sequence = math.MinInt32 }), notFound)
	wrong := "token (" + id.String() + ") is invalid, password doesn't match"
	f(altered(t, text, forge), wrong)
	f(altered(t, text, func(token *Token, _ *Identifier) { token.Password = nil }), wrong)
	f(altered(t, text, func(token *Token, _ *Identifier) { token.Password = token.Password[:19] }), wrong)
	f(altered(t, text, func(token *Token, _ *Identifier) { token.Password = append(token.Password, 0) }), wrong)
	if _, err := m.Verify(text, c.Now()); err != nil {
		t.Errorf("the token itself: %v", err)
	}

	c.add(24 * time.Hour) // the last moment
	if _, err := m.Verify(text, c.Now()); err != nil {
		t.Errorf("at its renew date: %v", err)
	}
	c.add(time.Millisecond)
	late := "Token hive has expired, current time: " + formatTime(c.Now().UnixMilli()) + " expected renewal time: " + formatTime(c.Now().UnixMilli()-1)
	f(text, late)
	f(altered(t, text, forge), late)
}

func TestFormatTime(t *testing.T) {
	zone := time.Local
	t.Cleanup(func() { time.Local = zone })
	time.Local = time.FixedZone("", -12600)
	if got := formatTime(1700000000007); got != "2023-11-14 18:43:20,007-0330" {
		t.Errorf("%s", got)
	}
}

func TestRenew(t *testing.T) {
	m, c := manager(t, Config{})
	text, id := issue(t, m, Request{Owner: "alice", Renewer: "yarn"})
	before, err := m.Verify(text, c.Now())
	if err != nil {
		t.Fatal(err)
	}
	f := func(after time.Duration, want int64) {
		t.Helper()
		c.add(after)
		got, err := m.Renew(t.Context(), text, "yarn")
		if err != nil || got != want {
			t.Errorf("renewed until %d, %v, want %d", got, err, want)
		}
		if v, err := m.Verify(text, c.Now()); err != nil || v.Expires != want {
			t.Errorf("after renewal: %v", err)
		}
	}
	f(20*time.Hour, start.Add(44*time.Hour).UnixMilli())
	if v, err := m.Verify(text, c.Now()); v == before || err != nil {
		t.Errorf("what was remembered before the renewal was not dropped, %v", err)
	}
	// A day after its renew date it is dead, but no sweep was there yet.
	f(48*time.Hour, start.Add(92*time.Hour).UnixMilli())
	f(90*time.Hour, id.MaxDate)
	c.add(11 * time.Hour) // seven days and more
	_, err = m.Renew(t.Context(), text, "yarn")
	wantRefusal(t, err, ClassInvalidToken, "yarn tried to renew an expired token ("+id.String()+") max expiration date: "+
		formatTime(id.MaxDate)+" currentTime: "+formatTime(c.Now().UnixMilli()))
}

func TestRenewRefuses(t *testing.T) {
	m, _ := manager(t, Config{})
	text, id := issue(t, m, Request{Owner: "alice", Renewer: "yarn"})
	f := func(text []byte, renewer, class, message string) {
		t.Helper()
		got, err := m.Renew(t.Context(), text, renewer)
		if got != 0 {
			t.Errorf("renewed until %d", got)
		}
		wantRefusal(t, err, class, message)
	}
	f(text, "alice", ClassAccessControl, "alice tries to renew a token ("+id.String()+") with non-matching renewer yarn")
	f(text, "", ClassAccessControl, " tries to renew a token ("+id.String()+") with non-matching renewer yarn")
	f(altered(t, text, forge), "yarn", ClassAccessControl, "yarn is trying to renew a token ("+id.String()+") with wrong password")
	stolen := id
	stolen.Renewer = "mallory"
	f(altered(t, text, func(_ *Token, id *Identifier) { id.Renewer = "mallory" }), "mallory",
		ClassAccessControl, "mallory is trying to renew a token ("+stolen.String()+") with wrong password")
	unknown := id
	unknown.KeyID = 77
	f(altered(t, text, func(_ *Token, id *Identifier) { id.KeyID = 77 }), "yarn",
		ClassInvalidToken, "Unable to find master key for keyId=77 from cache. Failed to renew an unexpired token ("+unknown.String()+") with sequenceNumber=1")
	nobody, nobodysID := issue(t, m, Request{Owner: "alice"})
	f(nobody, "", ClassAccessControl, " tried to renew a token ("+nobodysID.String()+") without a renewer")
	f(nobody, "alice", ClassAccessControl, "alice tried to renew a token ("+nobodysID.String()+") without a renewer")
	if err := m.Cancel(t.Context(), text, "alice"); err != nil {
		t.Fatal(err)
	}
	f(text, "yarn", ClassInvalidToken, "Renewal request for unknown token ("+id.String()+")")
	f([]byte("AA"), "yarn", ClassEOF, "")
}

func TestCancel(t *testing.T) {
	m, c := manager(t, Config{})
	f := func(canceller string) {
		t.Helper()
		text, id := issue(t, m, Request{Owner: "alice", Renewer: "yarn"})
		if _, err := m.Verify(text, c.Now()); err != nil {
			t.Fatal(err)
		}
		if err := m.Cancel(t.Context(), text, canceller); err != nil {
			t.Errorf("%q: %v", canceller, err)
		}
		_, err := m.Verify(text, c.Now())
		wantRefusal(t, err, ClassInvalidToken, "Token for real user: , can't be found in cache")
		if canceller != "" {
			wantRefusal(t, m.Cancel(t.Context(), text, canceller), ClassInvalidToken, "Token not found ("+id.String()+")")
		} else {
			wantRefusal(t, m.Cancel(t.Context(), text, ""), ClassInvalidToken, "Token for real user: , can't be found in cache")
		}
	}
	f("alice")
	f("yarn")
	f("")
}

func TestCancelRefuses(t *testing.T) {
	m, c := manager(t, Config{})
	text, id := issue(t, m, Request{Owner: "alice", Renewer: "yarn", RealUser: "hive"})
	wrong := "token (" + id.String() + ") is invalid, password doesn't match"
	f := func(text []byte, canceller, class, message string) {
		t.Helper()
		wantRefusal(t, m.Cancel(t.Context(), text, canceller), class, message)
		if _, err := m.Verify(altered(t, text, func(*Token, *Identifier) {}), c.Now()); err == nil {
			t.Error("the altered token is good")
		}
	}
	for _, stranger := range []string{"bob", "hive", "alice@EXAMPLE.COM"} {
		wantRefusal(t, m.Cancel(t.Context(), text, stranger), ClassAccessControl, stranger+" is not authorized to cancel the token ("+id.String()+")")
	}
	for _, canceller := range []string{"", "alice", "yarn"} {
		f(altered(t, text, forge), canceller, ClassInvalidToken, wrong)
	}
	// Somebody else's token under one's own name.
	mine := id
	mine.Owner = "mallory"
	f(altered(t, text, func(_ *Token, id *Identifier) { id.Owner = "mallory" }), "mallory", ClassInvalidToken, "Token not found ("+mine.String()+")")
	f(altered(t, text, func(_ *Token, id *Identifier) { id.Owner = "mallory" }), "", ClassInvalidToken, "Token for real user: hive, can't be found in cache")
	wantRefusal(t, m.Cancel(t.Context(), []byte("AA"), ""), ClassEOF, "")
	if _, err := m.Verify(text, c.Now()); err != nil {
		t.Errorf("the token itself: %v", err)
	}
	// Who is authenticated may cancel an expired token, the token alone is not enough.
	c.add(25 * time.Hour)
	if err := m.Cancel(t.Context(), text, ""); err == nil {
		t.Error("an expired token cancelled itself")
	}
	if err := m.Cancel(t.Context(), text, "yarn"); err != nil {
		t.Error(err)
	}
	nobody, _ := issue(t, m, Request{Owner: "alice"})
	if err := m.Cancel(t.Context(), nobody, "yarn"); err == nil {
		t.Error("the renewer of another token cancelled one that has none")
	}
}

func TestAlgorithms(t *testing.T) {
	f := func(name string, keyBits, keySize, passwordSize int) {
		t.Helper()
		m, c := manager(t, Config{Algorithm: name, KeyBits: keyBits})
		token, err := m.Issue(t.Context(), Request{Owner: "alice", Renewer: "yarn"})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(m.key.Load().Secret); n != keySize || len(token.Password) != passwordSize {
			t.Errorf("%s: key of %d, password of %d bytes", name, n, len(token.Password))
		}
		if _, err := m.Verify(token.AppendURL(nil), c.Now()); err != nil {
			t.Error(err)
		}
		if _, err := m.Renew(t.Context(), token.AppendURL(nil), "yarn"); err != nil {
			t.Error(err)
		}
	}
	f("", 0, 8, 20)
	f("HmacSHA1", 160, 20, 20)
	f("hmacsha256", 65, 9, 32)
	f("HmacSHA224", 256, 32, 28)
	f("HmacSHA384", 256, 32, 48)
	f("HmacSHA512", 512, 64, 64)
}

func TestTooManyTokens(t *testing.T) {
	m, _ := manager(t, Config{MaxTokens: 2})
	text, _ := issue(t, m, Request{Owner: "alice"})
	issue(t, m, Request{Owner: "alice"})
	token, err := m.Issue(t.Context(), Request{Owner: "bob"})
	if token != nil {
		t.Error("a third token")
	}
	wantRefusal(t, err, ClassAccessControl, "there are 2 delegation tokens, as many as edekd.tokens.max allows: cancel tokens that are not needed, or wait until they expire")
	if err := m.Cancel(t.Context(), text, ""); err != nil {
		t.Fatal(err)
	}
	issue(t, m, Request{Owner: "bob"})
}

func TestNumbersGoRound(t *testing.T) {
	m, c := manager(t, Config{Store: NewMemoryAt(math.MaxInt32 - 1)})
	for _, want := range []int32{math.MaxInt32, math.MinInt32} {
		text, id := issue(t, m, Request{Owner: "alice"})
		if id.Sequence != want {
			t.Errorf("sequence %d, want %d", id.Sequence, want)
		}
		if _, err := m.Verify(text, c.Now()); err != nil {
			t.Errorf("token %d: %v", want, err)
		}
	}
}

// A number that is taken is passed over.
func TestTakenNumber(t *testing.T) {
	store := NewMemory()
	m, _ := manager(t, Config{Store: store})
	old, _ := issue(t, m, Request{Owner: "alice"})
	store.mu.Lock()
	store.counters[Sequences] = 0
	store.mu.Unlock()
	if _, id := issue(t, m, Request{Owner: "bob"}); id.Sequence != 2 {
		t.Errorf("sequence %d", id.Sequence)
	}
	if v, err := m.Verify(old, start); err != nil || v.Identifier.Owner != "alice" {
		t.Errorf("the old token: %v", err)
	}
}

func TestIssueRefuses(t *testing.T) {
	m, _ := manager(t, Config{})
	f := func(q Request, says string) {
		t.Helper()
		_, err := m.Issue(t.Context(), q)
		if refused := (*Error)(nil); !errors.As(err, &refused) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v", err)
		}
	}
	long := strings.Repeat("x", issueNameMax+1)
	f(Request{}, "needs an owner")
	f(Request{Owner: long}, "257 bytes")
	f(Request{Owner: "alice", RealUser: long}, "257 bytes")
	f(Request{Owner: "alice", Renewer: long}, "257 bytes")
	f(Request{Owner: "al\xffice"}, "UTF-8")
	f(Request{Owner: "alice", Service: strings.Repeat("x", labelMax+1)}, "service")
	issue(t, m, Request{Owner: long[1:], RealUser: long[1:], Renewer: long[1:]})
}

// A store that cannot be asked is no reason to call a token bad.
func TestStoreFails(t *testing.T) {
	failing := errors.New("no quorum")
	store := &brokenStore{Store: NewMemory()}
	m, c := manager(t, Config{Store: store})
	text, _ := issue(t, m, Request{Owner: "alice", Renewer: "yarn"})
	known, _ := issue(t, m, Request{Owner: "alice", Renewer: "yarn"})
	if _, err := m.Verify(known, c.Now()); err != nil {
		t.Fatal(err)
	}
	store.set(failing)
	f := func(err error) {
		t.Helper()
		if refused := (*Error)(nil); !errors.Is(err, failing) || errors.As(err, &refused) {
			t.Errorf("%v", err)
		}
	}
	_, err := m.Verify(text, c.Now())
	f(err)
	_, err = m.Issue(t.Context(), Request{Owner: "alice"})
	f(err)
	_, err = m.Renew(t.Context(), text, "yarn")
	f(err)
	f(m.Cancel(t.Context(), text, "alice"))
	f(m.Cancel(t.Context(), text, ""))
	if _, err := m.Verify(known, c.Now()); err != nil {
		t.Errorf("a token that is known: %v", err)
	}
	if _, err := New(t.Context(), Config{Store: store}); !errors.Is(err, failing) {
		t.Errorf("New: %v", err)
	}
	store.set(nil)
	if _, err := m.Verify(text, c.Now()); err != nil {
		t.Error(err)
	}
}

// brokenStore fails when it is told to.
type brokenStore struct {
	Store
	mu  sync.Mutex
	err error
}

func (s *brokenStore) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *brokenStore) broken() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *brokenStore) Next(ctx context.Context, c Counter) (int32, error) {
	if err := s.broken(); err != nil {
		return 0, err
	}
	return s.Store.Next(ctx, c)
}

func (s *brokenStore) Key(ctx context.Context, id int32) (*MasterKey, error) {
	if err := s.broken(); err != nil {
		return nil, err
	}
	return s.Store.Key(ctx, id)
}

func (s *brokenStore) Token(ctx context.Context, sequence int32) (*Record, error) {
	if err := s.broken(); err != nil {
		return nil, err
	}
	return s.Store.Token(ctx, sequence)
}

func (s *brokenStore) Known(sequence int32) *Record {
	if s.broken() != nil {
		return nil
	}
	return s.Store.Known(sequence)
}

func (s *brokenStore) Sweep(ctx context.Context, before int64) (int, error) {
	if err := s.broken(); err != nil {
		return 0, err
	}
	return s.Store.Sweep(ctx, before)
}

func (s *brokenStore) Count(ctx context.Context) (int, error) {
	if err := s.broken(); err != nil {
		return 0, err
	}
	return s.Store.Count(ctx)
}

// Two servers over one store honour each other's tokens and changes.
func TestTwoServers(t *testing.T) {
	store := NewMemory()
	here, c := manager(t, Config{Store: store})
	there, _ := manager(t, Config{Store: store})
	text, id := issue(t, here, Request{Owner: "alice", Renewer: "yarn"})
	if id.KeyID != 2 {
		t.Errorf("made with key %d", id.KeyID)
	}
	if _, other := issue(t, there, Request{Owner: "alice"}); other.KeyID != 3 {
		t.Errorf("made with key %d", other.KeyID)
	}
	v, err := there.Verify(text, c.Now())
	if err != nil || v.Identifier != id {
		t.Fatal(err)
	}
	if _, err := there.Renew(t.Context(), text, "yarn"); err != nil {
		t.Error(err)
	}
	if err := here.Cancel(t.Context(), text, "alice"); err != nil {
		t.Error(err)
	}
	_, err = there.Verify(text, c.Now())
	wantRefusal(t, err, ClassInvalidToken, "Token for real user: , can't be found in cache")
}

func TestCancelledWhileVerified(t *testing.T) {
	m, c := manager(t, Config{})
	for range 200 {
		text, _ := issue(t, m, Request{Owner: "alice"})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { m.Verify(text, c.Now()) })
		}
		if err := m.Cancel(t.Context(), text, "alice"); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Verify(text, c.Now()); err == nil {
			t.Fatal("a cancelled token is good")
		}
		wg.Wait()
		if _, err := m.Verify(text, c.Now()); err == nil {
			t.Fatal("a cancelled token is good again")
		}
	}
}

func TestMasterKeysRollAndTokensGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := NewMemory()
		m, err := New(t.Context(), Config{Store: store})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		const day = 24 * time.Hour
		begin := time.Now()
		text, id := issue(t, m, Request{Owner: "alice", Renewer: "yarn"})
		first := m.key.Load()
		if first.ID != 2 || first.Expires != begin.Add(8*day).UnixMilli() {
			t.Errorf("first key %d expires %v after the start", first.ID, time.UnixMilli(first.Expires).Sub(begin))
		}
		time.Sleep(day - time.Minute)
		if _, err := m.Renew(t.Context(), text, "yarn"); err != nil {
			t.Error(err)
		}
		if m.key.Load() != first {
			t.Error("rolled before its time")
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		second := m.key.Load()
		if second.ID != 3 || hex.EncodeToString(second.Secret) == hex.EncodeToString(first.Secret) {
			t.Errorf("after a day the key is %d", second.ID)
		}
		if k, err := store.Key(t.Context(), 2); err != nil || k.Expires != begin.Add(8*day).UnixMilli() {
			t.Errorf("the retired key: %v", err)
		}
		if _, other := issue(t, m, Request{Owner: "alice"}); other.KeyID != 3 {
			t.Errorf("a new token is made with key %d", other.KeyID)
		}
		// The old key's tokens live on.
		if v, err := m.Verify(text, time.Now()); err != nil || v.Identifier != id {
			t.Error(err)
		}
		if _, err := m.Renew(t.Context(), text, "yarn"); err != nil {
			t.Error(err)
		}
		time.Sleep(day + time.Hour)
		synctest.Wait()
		if n, err := m.Count(t.Context()); n != 0 || err != nil {
			t.Errorf("%d tokens after both expired, %v", n, err)
		}
		time.Sleep(6 * day)
		synctest.Wait()
		if _, err := store.Key(t.Context(), 2); !errors.Is(err, ErrNotFound) {
			t.Errorf("the first key after eight days: %v", err)
		}
		if _, err := store.Key(t.Context(), 3); err != nil {
			t.Errorf("the second key after eight days: %v", err)
		}
	})
}

func TestRollIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &brokenStore{Store: NewMemory()}
		m, err := New(t.Context(), Config{Store: store})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		store.set(errors.New("no quorum"))
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		if id := m.key.Load().ID; id != 2 {
			t.Errorf("key %d without a store", id)
		}
		store.set(nil)
		time.Sleep(2 * retryInterval)
		synctest.Wait()
		if id := m.key.Load().ID; id != 3 {
			t.Errorf("key %d after the store came back", id)
		}
	})
}

func TestKnownTokenCostsNoAllocation(t *testing.T) {
	m, c := manager(t, Config{})
	text, _ := issue(t, m, Request{Owner: "alice", Renewer: "yarn", RealUser: "hive"})
	now := c.Now()
	if _, err := m.Verify(text, now); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1000, func() {
		if v, err := m.Verify(text, now); err != nil || v.Attached.Load() != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestMemoIsBounded(t *testing.T) {
	m := newMemo(1 << 20)
	if n := len(m.slots); n*memoEntryMax > 1<<20 || n*memoEntryMax < 1<<18 {
		t.Errorf("%d slots", n)
	}
	text := []byte(strings.Repeat("A", memoTextMax+1))
	m.put(&Verified{text: text, Expires: math.MaxInt64, record: &Record{}}, 0)
	if m.get(text) != nil {
		t.Error("an oversized token is remembered")
	}
	dead := &Verified{text: []byte("dead"), Expires: 1, record: &Record{}}
	ended := &Verified{text: []byte("ended"), Expires: 9, record: &Record{}}
	ended.record.End()
	if dead.live(2) || ended.live(2) || !dead.live(1) {
		t.Error("what is of use and what is not")
	}
	// One set: the dead make room before the living do.
	one := newMemo(memoWays * memoEntryMax)
	alive := &Verified{text: []byte("alive"), Expires: 9, record: &Record{}}
	one.put(alive, 2)
	for range 100 {
		one.put(dead, 2)
		one.put(ended, 2)
	}
	if one.get(alive.text) != alive {
		t.Error("a living token was pushed out by dead ones")
	}
	held := 0
	for i := range one.slots {
		if v := one.slots[i].Load(); v != nil {
			held += v.size()
		}
	}
	if empty := newMemo(memoWays * memoEntryMax); one.bytes()-empty.bytes() != int64(held) || held < len("alive")+len("dead") {
		t.Errorf("%d bytes when empty, %d with %d of tokens", empty.bytes(), one.bytes(), held)
	}
}

func BenchmarkVerifyKnown(b *testing.B) {
	m, c := manager(b, Config{})
	text, _ := issue(b, m, Request{Owner: "alice", Renewer: "yarn", RealUser: "hive"})
	now := c.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Verify(text, now); err != nil {
			b.Fatal(err)
		}
	}
}
