package authn

import (
	"bufio"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/proxy/authn/cookie"
	"github.com/edekd/edekd/proxy/authn/secret"
)

// clock is a time that tests move.
type clock struct {
	time   time.Time
	shared atomic.Int64 // the same in ms, for goroutines that are not the test's
}

func newClock(ms int64) *clock {
	c := &clock{time: time.UnixMilli(ms)}
	c.shared.Store(ms)
	return c
}

func (c *clock) advance(d time.Duration) {
	c.time = c.time.Add(d)
	c.shared.Store(c.time.UnixMilli())
}

func (c *clock) now() time.Time { return time.UnixMilli(c.shared.Load()) }

// server is an Authenticator under test with its clock and what it last wrote
// through WriteError.
type server struct {
	*Authenticator
	*clock
	t      testing.TB
	ring   *secret.Ring
	errors []string // "status exception class: message"
}

func newServer(t testing.TB, change func(*Config)) *server {
	t.Helper()
	s := &server{t: t, clock: newClock(1700000000000)}
	ring, err := secret.NewRandom(DefaultValidity, s.time)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Secrets: ring,
		WriteError: func(ctx *fasthttp.RequestCtx, status int, exception, class, message string) {
			ctx.SetStatusCode(status)
			s.errors = append(s.errors, strconv.Itoa(status)+" "+exception+" "+class+": "+message)
		},
	}
	if change != nil {
		change(&cfg)
	}
	s.ring = cfg.Secrets
	if s.Authenticator, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return s
}

// authenticate is Authenticate at the server's time.
func (s *server) authenticate(ctx *fasthttp.RequestCtx) (id *Identity, unauthenticated string) {
	id, answered := s.Authenticate(ctx, s.time)
	return id, answered.Unauthenticated
}

// request makes a request as it comes off the wire, from pairs of header name
// and value.
func request(t testing.TB, method, target string, headers ...string) *fasthttp.RequestCtx {
	t.Helper()
	ctx, err := read(method, target, headers...)
	if err != nil {
		t.Fatalf("%s %s %q: %v", method, target, headers, err)
	}
	return ctx
}

func read(method, target string, headers ...string) (*fasthttp.RequestCtx, error) {
	var wire strings.Builder
	wire.WriteString(method + " " + target + " HTTP/1.1\r\nHost: localhost\r\n")
	for i := 0; i < len(headers); i += 2 {
		wire.WriteString(headers[i] + ": " + headers[i+1] + "\r\n")
	}
	wire.WriteString("\r\n")
	var ctx fasthttp.RequestCtx
	ctx.Init2(nil, nil, false)
	err := ctx.Request.Header.Read(bufio.NewReaderSize(strings.NewReader(wire.String()), 1<<16))
	return &ctx, err
}

// cookieOf returns the hadoop.auth cookie that the response sets, quotes
// included, and whether it sets any.
func cookieOf(ctx *fasthttp.RequestCtx) (string, bool) {
	header := string(ctx.Response.Header.Peek(fasthttp.HeaderSetCookie))
	value, found := cookie.Find([]byte(header))
	return `"` + string(value) + `"`, found
}

// sign makes a cookie that the server's current secret has signed.
func (s *server) sign(text string) string {
	current, _ := s.ring.Live(s.time)
	return text + "&s=" + string(current.AppendSignature(nil, []byte(text)))
}

// alice is the token text of a valid cookie.
const alice = "u=alice&p=alice&t=simple-dt&e=1700000100000"

// as sends a request and expects it to be taken for user's.
func (s *server) as(user, method, target string, headers ...string) *fasthttp.RequestCtx {
	s.t.Helper()
	ctx := request(s.t, method, target, headers...)
	id, refusal := s.authenticate(ctx)
	if id == nil || refusal != "" {
		s.t.Fatalf("%s %s %q: refused: %q %v", method, target, headers, refusal, s.errors)
	}
	if want := (edek.Caller{User: user, Full: user}); id.Caller != want || id.Type != TypeSimple {
		s.t.Errorf("%s %s %q: %+v, want %q", method, target, headers, id, user)
	}
	return ctx
}

// challenged sends a request and expects a 401 for the reason.
func (s *server) challenged(reason, method, target string, headers ...string) *fasthttp.RequestCtx {
	s.t.Helper()
	ctx := request(s.t, method, target, headers...)
	id, refusal := s.authenticate(ctx)
	logged := reason
	if strings.HasPrefix(reason, reasonUnsigned) {
		logged = reasonUnsigned + "***" // it may be a credential
	}
	if id != nil || refusal != logged {
		s.t.Errorf("%s %s %q: %+v %q, want %q", method, target, headers, id, refusal, logged)
	}
	h := &ctx.Response.Header
	if h.StatusCode() != 401 || string(h.StatusMessage()) != printable(reason) {
		s.t.Errorf("%s %s %q: %d %s", method, target, headers, h.StatusCode(), h.StatusMessage())
	}
	if got := string(h.Peek("Set-Cookie")); got != "hadoop.auth=; HttpOnly" {
		s.t.Errorf("%s %s %q: the cookie is not cleared: %s", method, target, headers, got)
	}
	return ctx
}

// refused sends a request and expects WriteError to have been called.
func (s *server) refused(want, method, target string, headers ...string) *fasthttp.RequestCtx {
	s.t.Helper()
	s.errors = nil
	ctx := request(s.t, method, target, headers...)
	id, refusal := s.authenticate(ctx)
	if id != nil || refusal != "" || len(s.errors) != 1 || s.errors[0] != want {
		s.t.Errorf("%s %s %q: %+v %q %q, want %q", method, target, headers, id, refusal, s.errors, want)
	}
	return ctx
}

const path = "/kms/v1/keys/names"

func TestUserNameThenCookie(t *testing.T) {
	s := newServer(t, nil)
	ctx := s.as("alice", "OPTIONS", "/kms/v1/?user.name=alice")
	value, set := cookieOf(ctx)
	if !set {
		t.Fatal("no cookie")
	}
	text, _, _ := strings.Cut(strings.Trim(value, `"`), "&s=")
	if want := "u=alice&p=alice&t=simple-dt&e=1700036000000"; text != want {
		t.Errorf("token %s, want %s", text, want)
	}
	// The cookie comes back quoted from Java, bare from others, and stands
	// above whatever else the request says.
	for _, header := range []string{value, strings.Trim(value, `"`)} {
		ctx = s.as("alice", "GET", path+"?user.name=bob&delegation=junk", "Cookie", "hadoop.auth="+header, "X-Hadoop-Delegation-Token", "junk")
		if again, set := cookieOf(ctx); set {
			t.Errorf("a valid cookie was answered with another one: %s", again)
		}
	}
}

func TestUserName(t *testing.T) {
	s := newServer(t, nil)
	f := func(query, user string) {
		t.Helper()
		s.as(user, "GET", path+"?"+query)
	}
	f("user.name=alice", "alice")
	f("eek_op=generate&user.name=alice&num_keys=1", "alice")
	f("user.name=bob&user.name=eve", "bob")
	f("a=b;user.name=x", "x")
	f("user.name=a;b", "a")
	f("user%2Ename=x", "x")
	f("user.name=a+b", "a b")
	f("user.name=a%20b", "a b")
	f("user.name=a%2Bb", "a+b")
	f("user.name=a%3Db=c", "a=b=c")
	f("user.name=caf%C3%A9", "café")
	f("user.name=caf%e9", "caf\uFFFD")
	f("user.name=%E2%82%AC", "€")
	f("user.name=%zz", "%zz")
	f("user.name=%", "%")
	f("user.name=%4", "%4")
	f("user.name=%%41", "%%41")
	f("user.name=a%22b", `a"b`)
	f("delegation&user.name=bob", "bob")
	f("user.name="+strings.Repeat("n", 10000), strings.Repeat("n", 10000))

	s.challenged(reasonNone, "GET", path)
	s.challenged(reasonNone, "GET", path+"?user.name")
	s.challenged(reasonNone, "GET", path+"?user.name&user.name=x")
	s.challenged(reasonNone, "GET", path+"?USER.NAME=x")
	s.challenged(reasonNone, "GET", path+"?#user.name=x")
	s.challenged(reasonNone, "GET", "/kms/v1/key/user.name=x")
	s.challenged(reasonNone, "GET", path+"?doAs=eve")
}

// No name may end up as more than one value of a token, or of a header.
func TestUserNameThatBreaksOut(t *testing.T) {
	s := newServer(t, nil)
	const illegal = " IllegalArgumentException java.lang.IllegalArgumentException: user.name is empty or contains a '&' or a control character"
	for name, status := range map[string]string{
		"": "500", "a%26b": "500", "a%26t=kerberos-dt%26e=9": "500", "%26": "500", "a%0A%26": "500",
		"a%0Ab": "400", "a%0D%0ASet-Cookie:x": "400", "a%00b": "400", "%7F": "400", "a%09b": "400",
	} {
		ctx := s.refused(status+illegal, "GET", path+"?user.name="+name)
		if cookie := ctx.Response.Header.Peek("Set-Cookie"); len(cookie) > 0 {
			t.Errorf("%s: a cookie was set: %s", name, cookie)
		}
	}
	// What a quoted cookie cannot carry works for one request and gets none.
	for _, name := range []string{"a%22b", "a%3Bb", "a%5Cb", "a%22;Domain=x", `x%22%3B+Path=/`} {
		ctx := request(t, "GET", path+"?user.name="+name)
		if id, _ := s.authenticate(ctx); id == nil {
			t.Errorf("%s: refused", name)
		}
		if cookie := ctx.Response.Header.Peek("Set-Cookie"); len(cookie) > 0 {
			t.Errorf("%s: a cookie was set: %s", name, cookie)
		}
	}
	// Everything else comes back as the user who was given the cookie.
	for name, user := range map[string]string{"a+b": "a b", "a,b": "a,b", "%C3%A9": "é", "u=root": "u=root", "'": "'"} {
		value, _ := cookieOf(s.as(user, "GET", path+"?user.name="+name))
		s.as(user, "GET", path, "Cookie", "hadoop.auth="+value)
	}
}

func TestBadCookies(t *testing.T) {
	s := newServer(t, nil)
	good := s.sign(alice)
	other := newServer(t, nil)
	f := func(reason string, cookies ...string) {
		t.Helper()
		var headers []string
		for _, c := range cookies {
			headers = append(headers, "Cookie", c)
		}
		s.challenged(reason, "GET", path, headers...)
		// It is not fatal when something else authenticates, and replaced.
		if _, set := cookieOf(s.as("bob", "GET", path+"?user.name=bob", headers...)); !set {
			t.Errorf("%q is left with the client", cookies)
		}
	}
	f(reasonEmpty, "hadoop.auth=")
	f(reasonEmpty, `hadoop.auth=""`)
	f(reasonNone, "hadoop.auth")
	f(reasonNone, "other="+good)
	f(reasonNone, "HADOOP.AUTH="+good)
	f(reasonUnsigned+"junk<b>&'x", "hadoop.auth=junk<b>&'x")
	f(reasonUnsigned+alice, "hadoop.auth="+alice)
	f(reasonUnsigned+"x", "hadoop.auth=x; hadoop.auth="+good)
	f(reasonUnsigned+"x", "hadoop.auth=x", "hadoop.auth="+good)
	f(cut(reasonUnsigned+strings.Repeat("j", 5000)), "hadoop.auth="+strings.Repeat("j", 5000))
	for i := 1; i <= len("&s=")+secret.SignatureSize; i++ {
		reason := reasonSignature
		if i > secret.SignatureSize {
			reason = reasonUnsigned + good[:len(good)-i]
		}
		f(reason, "hadoop.auth="+good[:len(good)-i])
	}
	f(reasonSignature, "hadoop.auth="+good+"=")
	f(reasonSignature, "hadoop.auth="+good+"&s=")
	f(reasonSignature, "hadoop.auth="+strings.Replace(good, "u=alice", "u=root", 1))
	f(reasonSignature, "hadoop.auth="+strings.Replace(good, "e=17", "e=18", 1))
	f(reasonSignature, "hadoop.auth="+other.sign(alice))
	f(reasonSignature, "hadoop.auth=&s=")
	f(reasonType, "hadoop.auth="+s.sign("u=alice&p=alice&t=kerberos-dt&e=1700000100000"))
	f(reasonType, "hadoop.auth="+s.sign("u=alice&p=alice&t=kerberos-dt&e=1"))
	f(reasonExpired, "hadoop.auth="+s.sign("u=alice&p=alice&t=simple-dt&e=1699999999999"))
	f(reasonExpired, "hadoop.auth="+s.sign("u=alice&p=alice&t=simple-dt&i=1699999999999&e=1700000100000"))
	f(cookie.ErrToken.Error(), "hadoop.auth="+s.sign("u=alice&p=alice&t=simple-dt"))
	f(reasonExpired, "hadoop.auth="+s.sign("u=alice&p=alice&t=simple-dt&e=0"))
	f(cookie.ErrToken.Error(), "hadoop.auth="+s.sign("u=alice&p=alice&t=simple-dt&e=-2"))
	f(cookie.ErrToken.Error(), "hadoop.auth="+s.sign("u=alice&u=root&p=alice&t=simple-dt&e=1700000100000"))

	s.as("alice", "GET", path, "Cookie", "hadoop.auth="+s.sign("u=alice&p=alice&t=simple-dt&e=-1"))
	s.as("alice", "GET", path, "Cookie", "a=b", "Cookie", "hadoop.auth="+good)
	s.as("alice", "GET", path, "Cookie", `hadoop.auth="`+good+`"; hadoop.auth=x`)
	s.as("alice", "GET", path, "Cookie", `hadoop.auth=a"b; hadoop.auth=`+good)
}

// The same when the cookie has been seen, and remembered, before.
func TestRememberedCookieExpires(t *testing.T) {
	s := newServer(t, nil)
	plain, idle := "hadoop.auth="+s.sign(alice), "hadoop.auth="+s.sign("u=bob&p=bob&t=simple-dt&i=1700000050000&e=1700000100000")
	s.as("alice", "GET", path, "Cookie", plain)
	s.as("bob", "GET", path, "Cookie", idle)
	s.advance(50 * time.Second)
	s.as("bob", "GET", path, "Cookie", idle)
	s.advance(time.Millisecond)
	s.challenged(reasonExpired, "GET", path, "Cookie", idle)
	s.advance(50*time.Second - time.Millisecond)
	s.as("alice", "GET", path, "Cookie", plain)
	s.advance(time.Millisecond)
	s.challenged(reasonExpired, "GET", path, "Cookie", plain)
}

func TestRetiredSecret(t *testing.T) {
	s := newServer(t, nil)
	value := "hadoop.auth=" + s.sign("u=alice&p=alice&t=simple-dt&e=1800000000000")
	s.as("alice", "GET", path, "Cookie", value)
	s.advance(DefaultValidity)
	s.as("alice", "GET", path, "Cookie", value) // by the previous secret
	s.advance(DefaultValidity)
	s.challenged(reasonSignature, "GET", path, "Cookie", value)
}

func TestReloadEndsOldCookies(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	s := newServer(t, func(cfg *Config) {
		ring, err := secret.OpenFile(file)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Secrets = ring
	})
	value := "hadoop.auth=" + s.sign(alice)
	s.as("alice", "GET", path, "Cookie", value)
	write("")
	if err := s.Reload(); err == nil {
		t.Error("an empty file was accepted")
	}
	s.as("alice", "GET", path, "Cookie", value)
	write("two")
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	s.challenged(reasonSignature, "GET", path, "Cookie", value)
	s.as("alice", "GET", path, "Cookie", "hadoop.auth="+s.sign(alice))
}

func TestIdleLimitIsRenewed(t *testing.T) {
	s := newServer(t, func(cfg *Config) { cfg.MaxInactive = time.Minute })
	value, _ := cookieOf(s.as("alice", "GET", path+"?user.name=alice"))
	if strings.Contains(value, "&i=") {
		t.Errorf("a fresh cookie has an idle limit: %s", value)
	}
	for range 3 {
		s.advance(time.Minute)
		ctx := s.as("alice", "GET", path, "Cookie", "hadoop.auth="+value)
		next, set := cookieOf(ctx)
		want := "&i=" + strconv.FormatInt(s.time.UnixMilli()+60000, 10) + "&e=1700036000000&s="
		if !set || !strings.Contains(next, want) {
			t.Fatalf("renewed as %s, want %s in it", next, want)
		}
		value = next
	}
	s.advance(time.Minute + time.Millisecond)
	s.challenged(reasonExpired, "GET", path, "Cookie", "hadoop.auth="+value)

	persistent := newServer(t, func(cfg *Config) { cfg.MaxInactive, cfg.Cookie.Persistent = time.Minute, true })
	if again, set := cookieOf(persistent.as("alice", "GET", path, "Cookie", "hadoop.auth="+persistent.sign(alice))); set {
		t.Errorf("a persistent cookie was renewed: %s", again)
	}
}

func TestCookieIsSecureUnderTLS(t *testing.T) {
	s := newServer(t, nil)
	client, peer := net.Pipe()
	defer client.Close()
	defer peer.Close()
	ctx := &fasthttp.RequestCtx{}
	ctx.Init2(tls.Server(peer, &tls.Config{}), nil, false)
	ctx.Request.SetRequestURI(path + "?user.name=alice")
	s.authenticate(ctx)
	if set := string(ctx.Response.Header.Peek("Set-Cookie")); !strings.HasSuffix(set, `"; Secure; HttpOnly`) {
		t.Errorf("%s", set)
	}
}

func TestNewRefuses(t *testing.T) {
	ring, err := secret.NewRandom(time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	write := func(*fasthttp.RequestCtx, int, string, string, string) {}
	f := func(cfg Config) {
		t.Helper()
		if a, err := New(cfg); err == nil || a != nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
	f(Config{})
	f(Config{Secrets: ring})
	f(Config{WriteError: write})
	f(Config{Secrets: ring, WriteError: write, Validity: -1})
	f(Config{Secrets: ring, WriteError: write, MaxInactive: -1})
	f(Config{Secrets: ring, WriteError: write, Cookie: cookie.Attributes{Path: "/;"}})
	a, err := New(Config{Secrets: ring, WriteError: write})
	if err != nil {
		t.Fatal(err)
	}
	if id, _ := a.Authenticate(request(t, "GET", "/?user.name=x"), time.Now()); id == nil || time.UnixMilli(id.Expires).Before(time.Now().Add(DefaultValidity-time.Minute)) {
		t.Errorf("%+v", id)
	}
}

func FuzzAuthenticate(f *testing.F) {
	f.Add("/kms/v1/?user.name=a%26b", "hadoop.auth=\"x\"")
	f.Add("/?doAs=x&delegation=", "a=b")
	f.Add("/?user.name=a%0d%0ab", "")
	s := newServer(f, nil)
	f.Fuzz(func(t *testing.T, target, header string) {
		ctx, err := read("GET", target, "Cookie", header)
		if err != nil {
			return
		}
		id, refusal := s.authenticate(ctx)
		if id != nil && (cookie.CheckValue(id.Caller.User) != nil || refusal != "") {
			t.Fatalf("%q %q: %+v %q", target, header, id, refusal)
		}
		if set := string(ctx.Response.Header.Peek("Set-Cookie")); strings.ContainsAny(set, "\r\n\x00") {
			t.Fatalf("%q set %q", target, set)
		}
		// A cookie that is set stands for the user it was made for.
		if value, set := cookieOf(ctx); set && id != nil {
			again, refusal := s.authenticate(request(t, "GET", "/", "Cookie", "hadoop.auth="+value))
			if again == nil || again.Caller != id.Caller {
				t.Fatalf("%q: %s came back as %+v %q", target, value, again, refusal)
			}
		}
	})
}
