package authn

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/hadoop/proxyusers"
	"github.com/edekd/edekd/proxy/authn/spnego"
)

// allow is a ProxyUsers for tests: it lists who "acts for" whom.
type allow []string

func (a allow) Authorize(realShort, realFull, as string, _ netip.Addr) error {
	for _, grant := range a {
		if grant == realShort+" acts for "+as {
			return nil
		}
	}
	return &proxyusers.DeniedError{Text: "User: " + realFull + " is not allowed to impersonate " + as}
}

// counting counts the questions to a ProxyUsers, which may also fail.
type counting struct {
	ProxyUsers
	n   int
	err error
}

func (c *counting) Authorize(realShort, realFull, as string, addr netip.Addr) error {
	c.n++
	if c.err != nil {
		return c.err
	}
	return c.ProxyUsers.Authorize(realShort, realFull, as, addr)
}

func TestDoAs(t *testing.T) {
	policy := &counting{ProxyUsers: allow{"hue acts for alice", "hue acts for a&b", "hue acts for x y", `hue acts for "q"`}}
	var generation uint64
	addr := netip.MustParseAddr("10.0.0.1")
	s, _ := newKerberos(t, func(cfg *Config) {
		cfg.ProxyUsers = policy
		cfg.Groups = func() uint64 { return generation }
		cfg.Address = func(*fasthttp.RequestCtx) netip.Addr { return addr }
	})
	hue := "hadoop.auth=" + s.sign("u=hue&p=hue/h@EXAMPLE.COM&t=kerberos-dt&e=1700100000000")
	as := func(query, user string, questions int) *Identity {
		t.Helper()
		policy.n = 0
		ctx := request(t, "GET", path+"?"+query, "Cookie", hue)
		id, _ := s.authenticate(ctx)
		if id == nil || id.Caller != (edek.Caller{User: user, Full: user, Real: "hue"}) || id.RealFull != "hue/h@EXAMPLE.COM" {
			t.Errorf("%s: %+v %q", query, id, s.errors)
		}
		if policy.n != questions {
			t.Errorf("%s: %d questions, want %d", query, policy.n, questions)
		}
		return id
	}
	first := as("doAs=alice", "alice", 1)
	if again := as("doAs=alice", "alice", 0); again != first {
		t.Error("decided twice")
	}
	as("a=b;DOAS=alice", "alice", 0)
	as("doAs=%61lice", "alice", 1) // in another spelling it is decided again
	as("doas=alice&doAs=alice", "alice", 0)
	as("doAs=alice;doAs=%61lice", "alice", 0)
	as("doAs=x+y", "x y", 1)
	as("doAs=%22q%22", `"q"`, 1)

	// It ends when anything does that it rests on.
	addr = netip.MustParseAddr("10.0.0.2")
	as("doAs=alice", "alice", 1)
	addr = netip.MustParseAddr("10.0.0.1")
	generation++
	as("doAs=alice", "alice", 1)
	as("doAs=alice", "alice", 0)
	s.SetNames(rulesOf(t, "DEFAULT"))
	as("doAs=alice", "alice", 1)
	s.advance(proxiedLife)
	as("doAs=alice", "alice", 0)
	s.advance(time.Millisecond)
	as("doAs=alice", "alice", 1)
	s.advance(-time.Hour) // the clock is put right
	as("doAs=alice", "alice", 1)
	as("doAs=alice", "alice", 0)
	s.advance(time.Hour)
	s.SetProxyUsers(policy)
	as("doAs=alice", "alice", 1)
	s.SetProxyUsers(allow{})
	const denied = "403 AuthorizationException org.apache.hadoop.security.authorize.AuthorizationException: User: hue/h@EXAMPLE.COM is not allowed to impersonate "
	s.refused(denied+"alice", "GET", path+"?doAs=alice", "Cookie", hue)
	s.SetProxyUsers(policy)

	// Another cookie of the same user is another identity; the cookie's end is
	// its end.
	as("doAs=alice", "alice", 1)
	hue = "hadoop.auth=" + s.sign("u=hue&p=hue/h@EXAMPLE.COM&t=kerberos-dt&e=1700000020000")
	as("doAs=alice", "alice", 1)
	s.advance(20 * time.Second)
	if id, unauthenticated := s.authenticate(request(t, "GET", path+"?doAs=alice", "Cookie", hue)); id != nil || unauthenticated != reasonExpired {
		t.Errorf("%+v %q", id, unauthenticated)
	}
}

// Whatever a sender writes, doAs is somebody the policy was asked about, or
// nobody at all.
func TestDoAsSmuggling(t *testing.T) {
	s := newServer(t, func(cfg *Config) { cfg.ProxyUsers = allow{"alice acts for bob"} })
	valid := "hadoop.auth=" + s.sign(alice)
	const (
		denied  = "403 AuthorizationException org.apache.hadoop.security.authorize.AuthorizationException: User: alice is not allowed to impersonate "
		illegal = "400 IllegalArgumentException java.lang.IllegalArgumentException: "
		twice   = illegal + "doAs is given more than once, with different users"
	)
	f := func(query, want string) {
		t.Helper()
		for _, method := range []string{"GET", "POST", "OPTIONS"} {
			s.refused(want, method, path+"?"+query, "Cookie", valid)
		}
	}
	f("doAs=bob&doAs=root", twice)
	f("doAs=bob&DOAS=root", twice)
	f("doAs=bob;doas=root", twice)
	f("doAs=bob&do%41s=root", twice)
	f("doAs=bob&doA%C5%BF=root", twice)
	f("doAs=bob&doAs", twice)
	f("doAs=bob&doAs=bob&doAs=root", twice)
	f("doAs=root&doAs=bob", denied+"root") // the first is who is asked about
	f("do%41s=root&doAs=bob", denied+"root")
	f("x;doAs=root&doAs=bob", denied+"root")
	f("doAs=bob%00", illegal+"doAs contains a control character")
	f("doAs=bob%0A", illegal+"doAs contains a control character")
	f("doAs=bob%C2%85", illegal+"doAs contains a control character")
	f("doAs=Bob", denied+"Bob")
	f("doAs=bob%20", denied+"bob ")
	f("doAs=bob%26doAs=root", denied+"bob&doAs=root")
	f("doAs=%62ob%FF", denied+"bob\uFFFD")
	// Known before, disputed now.
	if id, _ := s.authenticate(request(t, "GET", path+"?doAs=bob", "Cookie", valid)); id == nil {
		t.Fatal("refused")
	}
	f("doAs=bob&doAs=root", twice)
	for _, query := range []string{"xdoAs=root", "doAs2=root", "a=doAs=root", "a=%26doAs=root", "do+As=root", "%2564oAs=root", "doAs%00=root"} {
		s.as("alice", "GET", path+"?"+query, "Cookie", valid)
	}
}

func TestUndecidedDoAs(t *testing.T) {
	policy := &counting{err: errors.New("the groups of bob: no answer")}
	s := newServer(t, func(cfg *Config) { cfg.ProxyUsers = policy })
	for range 2 {
		s.refused("500 IOException java.io.IOException: it could not be found out whether one user may act for the other; this server's log says why",
			"GET", path+"?doAs=bob", "Cookie", "hadoop.auth="+s.sign(alice))
	}
	if policy.n != 2 {
		t.Error("a failure is remembered")
	}
}

func TestAddressOfTheOtherEnd(t *testing.T) {
	for text, want := range map[string]string{"10.1.2.3": "10.1.2.3", "::ffff:10.1.2.3": "10.1.2.3", "2001:db8::1": "2001:db8::1"} {
		var got netip.Addr
		s := newServer(t, nil)
		s.SetProxyUsers(authorizeFunc(func(addr netip.Addr) error { got = addr; return nil }))
		var ctx fasthttp.RequestCtx
		ctx.Init(&fasthttp.Request{}, &net.TCPAddr{IP: net.ParseIP(text), Port: 1}, nil)
		ctx.Request.SetRequestURI(path + "?user.name=alice&doAs=bob")
		if id, _ := s.authenticate(&ctx); id == nil || got != netip.MustParseAddr(want) {
			t.Errorf("%s: %v %+v", text, got, id)
		}
	}
}

type authorizeFunc func(netip.Addr) error

func (f authorizeFunc) Authorize(_, _, _ string, addr netip.Addr) error { return f(addr) }

// A request that is known allocates nothing, whatever makes it known.
func TestKnownSendersAllocateNothing(t *testing.T) {
	s, _ := newKerberos(t, func(cfg *Config) { cfg.ProxyUsers = allow{"hue acts for alice"} })
	withTokens(t, s)
	text, _ := s.issue("", ticketOf(hdfsNN)...)
	hue := "hadoop.auth=" + s.sign("u=hue&p=hue/h@EXAMPLE.COM&t=kerberos-dt&e=1700100000000")
	f := func(query string, headers ...string) {
		t.Helper()
		var ctx fasthttp.RequestCtx
		ctx.Init(&fasthttp.Request{}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, nil)
		request(t, "GET", "/kms/v1/key/k/_eek?eek_op=generate&num_keys=1"+query, headers...).Request.CopyTo(&ctx.Request)
		if n := testing.AllocsPerRun(1000, func() {
			if id, _ := s.authenticate(&ctx); id == nil {
				t.Fatalf("%q", s.errors)
			}
		}); n != 0 {
			t.Errorf("%s %.40q: %v allocations", query, headers, n)
		}
	}
	f("", "Cookie", hue)
	f("&doAs=alice", "Cookie", hue)
	f("", tokenHeader, text)
	f("&delegation=" + text)
	f("&doAs=root", tokenHeader, text)
	if strings.Contains(text, "%") {
		t.Error("a token that is encoded is something else")
	}
}

// The log is told why, with what the client is not told, and not for every
// request that fails alike.
func TestFailuresAreLogged(t *testing.T) {
	var log strings.Builder
	s, k := newKerberos(t, func(cfg *Config) { cfg.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	k.fails["bad"] = &spnego.Error{Kind: spnego.NoKey, Text: "GSSException: no key", Detail: "the keytab has version 2 only"}
	for range 100 {
		s.authenticate(request(t, "GET", path, ticketOf("bad")...))
	}
	lines := strings.Count(log.String(), "\n")
	if !strings.Contains(log.String(), "the keytab has version 2 only") || lines > 10 {
		t.Errorf("%d lines:\n%.500s", lines, log.String())
	}

	// Who sends bad tickets hides nothing else.
	s.SetProxyUsers(&counting{err: errors.New("the groups of bob: no answer")})
	store := withTokens(t, s)
	text, _ := s.issue("", ticketOf(hdfsNN)...)
	store.broken = true
	hue := "hadoop.auth=" + s.sign("u=hue&p=hue/h@EXAMPLE.COM&t=kerberos-dt&e=1700100000000")
	s.authenticate(request(t, "GET", path, ticketOf("bad")...))
	s.authenticate(request(t, "GET", path+"?doAs=bob", "Cookie", hue))
	s.authenticate(request(t, "GET", path, tokenHeader, text))
	for _, want := range []string{"the groups of bob: no answer", "no connection"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log is not told %q:\n%.500s", want, log.String())
		}
	}
}
