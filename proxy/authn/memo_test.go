package authn

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/edekd/edekd/proxy/authn/secret"
)

func TestKnownCookieAllocatesNothing(t *testing.T) {
	s := newServer(t, nil)
	ctx := request(t, "GET", "/kms/v1/key/k/_eek?eek_op=generate&num_keys=1",
		"Accept", "*/*", "Cookie", `a=b; hadoop.auth="`+s.sign(alice)+`"`)
	if n := testing.AllocsPerRun(1000, func() {
		if id, _ := s.authenticate(ctx); id == nil {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// remembered returns what the memo has for a cookie.
func (s *server) remembered(value string) *verified {
	return s.cookies.get([]byte(value), func(v *verified) bool { return string(v.value) == value })
}

func TestMemoRemembersOnlyWhatWasVerified(t *testing.T) {
	s := newServer(t, nil)
	value := s.sign(alice)
	if s.remembered(value) != nil {
		t.Fatal("known before it was seen")
	}
	first, _ := s.authenticate(request(t, "GET", path, "Cookie", "hadoop.auth="+value))
	again, _ := s.authenticate(request(t, "GET", path, "Cookie", `hadoop.auth="`+value+`"`))
	if first == nil || first != again {
		t.Errorf("the same cookie was read twice: %p %p", first, again)
	}
	for i := range value {
		forged := value[:i] + string(value[i]^1) + value[i+1:]
		if s.remembered(forged) != nil {
			t.Errorf("%s is taken for %s", forged, value)
		}
	}
	s.challenged(reasonSignature, "GET", path, "Cookie", "hadoop.auth="+value+"x")
	if s.remembered(value+"x") != nil {
		t.Error("a forged cookie is remembered")
	}
	expired := s.sign("u=a&p=a&t=simple-dt&e=1")
	s.challenged(reasonExpired, "GET", path, "Cookie", "hadoop.auth="+expired)
	if s.remembered(expired) != nil {
		t.Error("an expired cookie is remembered")
	}
}

// What is remembered must not lie in the request's own buffers, which the next
// request on the connection overwrites.
func TestIdentityOutlivesItsRequest(t *testing.T) {
	s := newServer(t, nil)
	header := []byte("hadoop.auth=" + s.sign(alice))
	current, _ := s.ring.Live(s.time)
	known, _ := s.verify(header[len("hadoop.auth="):], s.rules.Load(), current)
	clear(header)
	if known == nil || known.id.Caller.User != "alice" || !strings.HasPrefix(string(known.value), alice) {
		t.Errorf("%+v", known)
	}
}

func TestLongCookiesAreVerifiedEachTime(t *testing.T) {
	s := newServer(t, nil)
	user := strings.Repeat("n", memoValueMax)
	value := s.sign("u=" + user + "&p=" + user + "&t=simple-dt&e=1700000100000")
	for range 2 {
		s.as(user, "GET", path, "Cookie", "hadoop.auth="+value)
	}
	for i := range s.cookies.slots {
		if s.cookies.slots[i].entry.Load() != nil {
			t.Fatal("a cookie beyond the limit is remembered")
		}
	}
}

func TestMemoIsBounded(t *testing.T) {
	const bytes = 1 << 20
	m := newMemo(bytes, (*verified).size)
	if n := len(m.slots) * memoEntryMax; n > bytes || n*2 <= bytes {
		t.Errorf("%d slots for %d bytes", len(m.slots), bytes)
	}
	key := &secret.Key{}
	fill := func(n int) {
		for i := range n {
			text := fmt.Sprintf("%0*d", memoValueMax, i)
			v := &verified{value: []byte(text), key: key}
			v.id.Caller.User = strings.Clone(text)
			m.put(v.value, v, func(*verified) bool { return false })
		}
	}
	heap := func() uint64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	before := heap()
	fill(20 * len(m.slots))
	grown := int64(heap() - before)
	if grown > bytes {
		t.Errorf("%d bytes held, %d allowed", grown, bytes)
	}
	if got := m.bytes(); got > bytes || got < grown/2 || got > 2*grown {
		t.Errorf("it says that it holds %d bytes, and holds %d", got, grown)
	}
	if m.get(fmt.Appendf(nil, "%0*d", memoValueMax, 20*len(m.slots)-1), func(*verified) bool { return true }) == nil {
		t.Error("the latest is not there")
	}
}

// The hash finds the place and nothing else: with the tag of another value in
// it, an entry is still compared.
func TestMemoComparesWholeValues(t *testing.T) {
	m := newMemo(0, (*verified).size)
	if len(m.slots) != memoWays {
		t.Fatalf("%d slots", len(m.slots))
	}
	get := func(value string) *verified {
		return m.get([]byte(value), func(v *verified) bool { return secret.Equal(v.value, []byte(value)) })
	}
	m.put([]byte(alice), &verified{value: []byte(alice)}, func(*verified) bool { return false })
	if get(alice) == nil {
		t.Fatal("not remembered")
	}
	for i := range alice {
		for _, other := range []string{alice[:i] + string(alice[i]^1) + alice[i+1:], alice[:i]} {
			_, hash := m.set([]byte(other))
			for slot := range m.slots {
				m.slots[slot].tag.Store(hash)
			}
			if get(other) != nil {
				t.Fatalf("another cookie, differing at %d, is taken for the one remembered", i)
			}
		}
	}
}

func TestMemoPrefersDeadSlots(t *testing.T) {
	dead := func(v *verified) bool { return v.id.Expires == 0 }
	for range 32 { // each memo hashes differently
		m := newMemo(0, (*verified).size)
		for i, expires := range []int64{1, 1, 0, 1} {
			m.slots[i].entry.Store(&verified{value: fmt.Appendf(nil, "cookie %d", i), id: Identity{Expires: expires}})
		}
		m.put([]byte("new"), &verified{value: []byte("new"), id: Identity{Expires: 1}}, dead)
		held := map[string]bool{}
		for i := range m.slots {
			held[string(m.slots[i].entry.Load().value)] = true
		}
		for _, want := range []string{"cookie 0", "cookie 1", "cookie 3", "new"} {
			if !held[want] {
				t.Fatalf("%s was pushed out although another had ended", want)
			}
		}
	}
}

func TestConcurrentRequests(t *testing.T) {
	s := newServer(t, nil)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				user := fmt.Sprintf("user%d", (g+i)%13)
				ctx := request(t, "GET", path, "Cookie", "hadoop.auth="+s.sign("u="+user+"&p="+user+"&t=simple-dt&e=1700000100000"))
				if id, refusal := s.authenticate(ctx); id == nil || id.Caller.User != user {
					t.Errorf("%s: %+v %s", user, id, refusal)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkAuthenticate(b *testing.B) {
	run := func(name, target string, headers ...string) {
		b.Run(name, func(b *testing.B) {
			s := newServer(b, func(cfg *Config) { cfg.ProxyUsers = allow{"alice acts for bob"} })
			withTokens(b, s)
			text, _ := s.issue("user.name=alice")
			signed := slices.Clone(headers)
			for i, h := range signed {
				signed[i] = strings.NewReplacer("SIGNED", s.sign(alice), "TOKEN", text).Replace(h)
			}
			ctx := request(b, "GET", target, signed...)
			b.ReportAllocs()
			for b.Loop() {
				ctx.Response.Header.DelAllCookies()
				if id, refusal := s.authenticate(ctx); id == nil {
					b.Fatal(refusal)
				}
			}
		})
	}
	run("known-cookie", "/kms/v1/key/k/_eek?eek_op=generate&num_keys=1", "Cookie", `hadoop.auth="SIGNED"`)
	run("known-cookie-doAs", "/kms/v1/key/k/_eek?eek_op=generate&num_keys=1&doAs=bob", "Cookie", `hadoop.auth="SIGNED"`)
	run("known-token", "/kms/v1/key/k/_eek?eek_op=generate&num_keys=1", tokenHeader, "TOKEN")
	run("user.name", "/kms/v1/key/k/_eek?eek_op=generate&num_keys=1&user.name=alice")
}
