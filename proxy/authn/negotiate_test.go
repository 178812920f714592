package authn

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/hadoop/names"
	"github.com/edekd/edekd/proxy/authn/spnego"
)

// kdc is a Negotiator for tests: a token is the principal's name, and good once.
type kdc struct {
	asked int
	seen  map[string]bool
	fails map[string]error
}

func (k *kdc) Accept(token []byte) (string, []byte, error) {
	k.asked++
	if err := k.fails[string(token)]; err != nil {
		return "", nil, err
	}
	if k.seen[string(token)] {
		return "", nil, &spnego.Error{Kind: spnego.Replay, Text: "GSSException: Request is a replay (34)", Detail: "secret"}
	}
	k.seen[string(token)] = true
	principal, _, _ := strings.Cut(string(token), "#")
	return principal, []byte("reply>?"), nil
}

func rulesOf(t testing.TB, text string) *names.Rules {
	t.Helper()
	r, err := names.New(text, "hadoop", "EXAMPLE.COM")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newKerberos(t testing.TB, change func(*Config)) (*server, *kdc) {
	t.Helper()
	k := &kdc{seen: map[string]bool{}, fails: map[string]error{}}
	return newServer(t, func(cfg *Config) {
		cfg.Negotiator, cfg.Names = k, rulesOf(t, "DEFAULT")
		if change != nil {
			change(cfg)
		}
	}), k
}

// ticketOf is the Authorization header that brings a token.
func ticketOf(token string) []string {
	return []string{"Authorization", "Negotiate " + base64.StdEncoding.EncodeToString([]byte(token))}
}

const (
	proof  = "Negotiate cmVwbHk+Pw=="
	hdfsNN = "hdfs/nn1.example.com@EXAMPLE.COM"
)

// challengeOf returns the value of the one WWW-Authenticate header of a response.
func challengeOf(ctx *fasthttp.RequestCtx) (value string) {
	for name, v := range ctx.Response.Header.All() {
		if strings.EqualFold(string(name), "WWW-Authenticate") {
			value += string(v)
		}
	}
	return value
}

// answeredWith sends a request that fails and compares status, reason phrase
// and challenge.
func (s *server) answeredWith(status int, reason, challenge, method, target string, headers ...string) *fasthttp.RequestCtx {
	s.t.Helper()
	ctx := request(s.t, method, target, headers...)
	id, unauthenticated := s.authenticate(ctx)
	h := &ctx.Response.Header
	if id != nil || h.StatusCode() != status || string(h.StatusMessage()) != reason || challengeOf(ctx) != challenge {
		s.t.Errorf("%s %s %q: %+v %d %q %q", method, target, headers, id, h.StatusCode(), h.StatusMessage(), challengeOf(ctx))
	}
	if (unauthenticated != "") != (status == 401) || status == 401 && unauthenticated != reason {
		s.t.Errorf("%s %s: UNAUTHENTICATED line %q after %d %s", method, target, unauthenticated, status, reason)
	}
	if got := string(h.Peek("Set-Cookie")); got != "hadoop.auth=; HttpOnly" {
		s.t.Errorf("%s %s: the cookie is not cleared: %q", method, target, got)
	}
	return ctx
}

func TestHandshakeThenCookie(t *testing.T) {
	s, k := newKerberos(t, nil)
	s.answeredWith(401, reasonNone, "Negotiate", "OPTIONS", path)
	ctx := request(t, "OPTIONS", path, ticketOf(hdfsNN)...)
	id, _ := s.authenticate(ctx)
	want := edek.Caller{User: "hdfs", Full: hdfsNN}
	if id == nil || id.Caller != want || id.Type != TypeKerberos {
		t.Fatalf("%+v", id)
	}
	if got := challengeOf(ctx); got != proof {
		t.Errorf("the server is not proven: %q", got)
	}
	value, _ := cookieOf(ctx)
	if text, _, _ := strings.Cut(strings.Trim(value, `"`), "&s="); text != "u=hdfs&p="+hdfsNN+"&t=kerberos-dt&e=1700036000000" {
		t.Errorf("token %s", text)
	}
	ctx = request(t, "GET", path, "Cookie", "hadoop.auth="+value)
	if id, _ := s.authenticate(ctx); id == nil || id.Caller != want {
		t.Errorf("by cookie: %+v", id)
	}
	if k.asked != 1 || len(ctx.Response.Header.Peek("Set-Cookie")) > 0 {
		t.Errorf("%d tickets, cookie %q", k.asked, ctx.Response.Header.Peek("Set-Cookie"))
	}
	// A name is nobody here, and neither is a cookie of another type.
	s.answeredWith(401, reasonNone, "Negotiate", "GET", path+"?user.name=hdfs")
	s.answeredWith(401, reasonType, "Negotiate", "GET", path+"?user.name=hdfs", "Cookie", "hadoop.auth="+s.sign(alice))
}

func TestNegotiateOnTheRequestItself(t *testing.T) {
	s, _ := newKerberos(t, nil)
	f := func(header string) {
		t.Helper()
		ctx := request(t, "POST", path, "Authorization", header)
		id, _ := s.authenticate(ctx)
		if id == nil || id.Caller.User != "alice" || challengeOf(ctx) != proof {
			t.Errorf("%.60q: %+v %d %s", header, id, ctx.Response.StatusCode(), ctx.Response.Header.StatusMessage())
		}
	}
	encode := func(e *base64.Encoding, n string) string { return e.EncodeToString([]byte("alice@EXAMPLE.COM#" + n)) }
	f("Negotiate " + encode(base64.StdEncoding, "??>1"))
	f("Negotiate " + encode(base64.URLEncoding, "??>2"))
	f("Negotiate " + encode(base64.RawURLEncoding, "??>3"))
	f("Negotiate    " + encode(base64.RawStdEncoding, "??>4") + "  ")
	f("negotiate " + encode(base64.StdEncoding, "5"))
	f("NEGOTIATE " + encode(base64.StdEncoding, "6"))
	f("Negotiate" + encode(base64.StdEncoding, "7")) // as Java has it
	huge := encode(base64.StdEncoding, strings.Repeat("x", 40<<10))
	f("Negotiate " + huge)

	g := func(header string) {
		t.Helper()
		s.answeredWith(401, reasonNone, "Negotiate", "POST", path, "Authorization", header)
	}
	g("Basic " + encode(base64.StdEncoding, "8"))
	g("Bearer x")
	g("Negotiat")
	g("")
	g("x, Negotiate " + encode(base64.StdEncoding, "9"))
	// Of two headers the first counts.
	s.answeredWith(401, reasonNone, "Negotiate", "POST", path, append([]string{"Authorization", "Basic x"}, ticketOf("alice@EXAMPLE.COM#10")...)...)
}

func TestTicketsThatAreRefused(t *testing.T) {
	s, k := newKerberos(t, nil)
	refusal := func(kind spnego.Kind, text string) error {
		return &spnego.Error{Kind: kind, Text: text, Detail: "for the log only"}
	}
	k.fails["skew"] = refusal(spnego.Skew, "GSSException: Clock skew too great (37) - 11 minutes")
	k.fails["full"] = refusal(spnego.Full, "GSSException: no room")
	k.fails["lines"] = refusal(spnego.Malformed, "GSSException: a\r\nSet-Cookie: b=c")
	k.fails["long"] = refusal(spnego.Malformed, strings.Repeat("x", 5000))
	k.fails["strange"] = errors.New("strange")
	f := func(status int, reason, challenge, token string) {
		t.Helper()
		for _, method := range []string{"OPTIONS", "GET", "POST", "PUT"} {
			ctx := s.answeredWith(status, reason, challenge, method, path, ticketOf(token)...)
			if strings.Contains(string(ctx.Response.Body()), "log only") {
				t.Errorf("%s: %s", token, ctx.Response.Body())
			}
		}
	}
	f(403, "GSSException: Clock skew too great (37) - 11 minutes", "", "skew")
	f(401, "GSSException: no room", "Negotiate", "full")
	f(403, "GSSException: a??Set-Cookie: b=c", "", "lines")
	f(403, strings.Repeat("x", reasonMax), "", "long")
	f(403, "strange", "", "strange")

	again := ticketOf("alice@EXAMPLE.COM")
	if id, _ := s.authenticate(request(t, "OPTIONS", path, again...)); id == nil {
		t.Fatal("refused")
	}
	f(401, "GSSException: Request is a replay (34)", "Negotiate", "alice@EXAMPLE.COM")

	// Names that no rule takes, or that cannot stand in a cookie. The client is
	// still told that it spoke to the right server.
	g := func(principal, reason string) {
		t.Helper()
		s.answeredWith(403, reason, proof, "OPTIONS", path, ticketOf(principal)...)
	}
	g("alice@ELSEWHERE.COM", "No rules applied to alice@ELSEWHERE.COM")
	g("a&t=x@EXAMPLE.COM", `the principal "a&t=x@EXAMPLE.COM" is empty or contains a '&' or a control character`)
	g("a\nb@EXAMPLE.COM", `the principal "a\nb@EXAMPLE.COM" is empty or contains a '&' or a control character`)
	if _, _, err := k.Accept(nil); err != nil {
		t.Fatal(err)
	}
	// Nothing between Negotiate and the end is no token.
	ctx := request(t, "GET", path, "Authorization", "Negotiate *")
	if id, _ := s.authenticate(ctx); id != nil || ctx.Response.StatusCode() != 403 {
		t.Errorf("%+v %d", id, ctx.Response.StatusCode())
	}

	s.SetNames(rulesOf(t, "RULE:[1:$1@$0](.*@EMPTY)s/.*// DEFAULT"))
	ctx = request(t, "GET", path, ticketOf("alice@EMPTY")...)
	if id, _ := s.authenticate(ctx); id != nil || ctx.Response.StatusCode() != 403 || !strings.Contains(string(ctx.Response.Header.StatusMessage()), "alice@EMPTY") {
		t.Errorf("an empty short name: %+v %d %s", id, ctx.Response.StatusCode(), ctx.Response.Header.StatusMessage())
	}
}

// A cookie is for a principal; who that is here is for the rules of today to
// say.
func TestNewNameRulesCountForOldCookies(t *testing.T) {
	s, _ := newKerberos(t, nil)
	value := "hadoop.auth=" + s.sign("u=hdfs&p="+hdfsNN+"&t=kerberos-dt&e=1700000100000")
	f := func(rules, user string) {
		t.Helper()
		if rules != "" {
			s.SetNames(rulesOf(t, rules))
		}
		id, _ := s.authenticate(request(t, "GET", path, "Cookie", value))
		if id == nil || id.Caller.User != user || id.Caller.Full != hdfsNN {
			t.Errorf("%s: %+v, want %s", rules, id, user)
		}
	}
	f("", "hdfs")
	f("", "hdfs")
	f("RULE:[2:$1](hdfs)s/hdfs/namenode/", "namenode")
	f("DEFAULT", "hdfs")
	s.SetNames(rulesOf(t, "RULE:[1:$1]"))
	s.answeredWith(401, "No rules applied to "+hdfsNN, "Negotiate", "GET", path, "Cookie", value)
}

// Whether a large body may come is decided on the headers. The ticket in them
// is accepted there, and must not be a replay when the body has come.
func TestJudgedTicketIsAcceptedOnce(t *testing.T) {
	s, k := newKerberos(t, nil)
	judge := func(ctx *fasthttp.RequestCtx) bool { return s.Judge(&ctx.Request.Header, s.time) }
	ctx := request(t, "POST", path, ticketOf(hdfsNN)...)
	for range 3 {
		if !judge(ctx) {
			t.Fatal("nobody")
		}
	}
	id, _ := s.authenticate(ctx)
	if id == nil || id.Caller.Full != hdfsNN || k.asked != 1 || challengeOf(ctx) != proof {
		t.Errorf("%+v after %d questions, %q", id, k.asked, challengeOf(ctx))
	}
	// The same bytes on another connection are a replay meanwhile, and on this
	// one as soon as the request is over.
	other := request(t, "POST", path, ticketOf(hdfsNN)...)
	if judge(other) {
		t.Error("a replay is somebody")
	}
	s.answeredWith(401, "GSSException: Request is a replay (34)", "Negotiate", "POST", path, ticketOf(hdfsNN)...)
	s.Forget(&ctx.Request.Header)
	if judge(ctx) {
		t.Error("the judgement outlived its request")
	}
	s.Forget(&ctx.Request.Header)
	s.Forget(&other.Request.Header)
	// A judgement is about one ticket, not about whatever comes in its place.
	fresh := request(t, "POST", path, ticketOf("alice@EXAMPLE.COM")...)
	if !judge(fresh) {
		t.Error("nobody")
	}
	fresh.Request.Header.Set("Authorization", ticketOf("bob@EXAMPLE.COM")[1])
	if id, _ := s.authenticate(fresh); id == nil || id.Caller.User != "bob" {
		t.Errorf("%+v", id)
	}
	s.Forget(&fresh.Request.Header)
	ctx.Request.Header.Set("Authorization", ticketOf("mallory@ELSEWHERE.COM")[1])
	if judge(ctx) {
		t.Error("a name without rules is somebody")
	}
	if id, _ := s.authenticate(ctx); id != nil {
		t.Errorf("%+v", id)
	}
	// What nobody comes back for does not stay for ever.
	s.advance(judgementLife + time.Second)
	last := request(t, "POST", path, ticketOf("last@EXAMPLE.COM")...)
	if !judge(last) || len(s.judged.held) != 1 {
		t.Errorf("%d judgements are kept", len(s.judged.held))
	}
	s.Forget(&last.Request.Header)
	if s.judged.count.Load() != 0 {
		t.Error("something is left")
	}
}

func TestJudgeWithoutTickets(t *testing.T) {
	s := newServer(t, nil)
	f := func(want bool, target string, headers ...string) {
		t.Helper()
		ctx := request(t, "POST", target, headers...)
		if got := s.Judge(&ctx.Request.Header, s.time); got != want {
			t.Errorf("%s %q: %v", target, headers, got)
		}
		if ctx.Response.StatusCode() != 200 || len(ctx.Response.Header.Peek("Set-Cookie")) > 0 || len(s.errors) > 0 {
			t.Errorf("%s: something was written", target)
		}
	}
	f(true, path+"?user.name=x")
	f(true, path, "Cookie", "hadoop.auth="+s.sign(alice))
	f(false, path)
	f(false, path+"?user.name=")
	f(false, path+"?user.name=a%26b")
	f(false, path, "Cookie", "hadoop.auth="+s.sign(alice)+"x")
	f(false, path+"?user.name=x&delegation=junk")
}
