package authn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/proxy/authn/token"
)

// brokenStore is a store that cannot be asked while it is broken.
type brokenStore struct {
	token.Store
	broken bool
}

func (b *brokenStore) Token(ctx context.Context, sequence int32) (*token.Record, error) {
	if b.broken {
		return nil, errors.New("no connection")
	}
	return b.Store.Token(ctx, sequence)
}

func (b *brokenStore) Known(sequence int32) *token.Record {
	if b.broken {
		return nil
	}
	return b.Store.Known(sequence)
}

// withTokens gives a server tokens in memory and its own clock.
func withTokens(t testing.TB, s *server) *brokenStore {
	t.Helper()
	store := &brokenStore{Store: token.NewMemory()}
	m, err := token.New(t.Context(), token.Config{Store: store, Now: s.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	s.c.Tokens = m
	return store
}

// operate sends a request that must be answered as a token operation.
func (s *server) operate(method, query string, headers ...string) *fasthttp.RequestCtx {
	s.t.Helper()
	ctx := request(s.t, method, "/kms/v1/?"+query, headers...)
	id, answered := s.Authenticate(ctx, s.time)
	if id != nil || answered.TokenOp == "" || answered.TokenOp != strings.ToUpper(answered.TokenOp) {
		s.t.Fatalf("%s %s: %+v %+v", method, query, id, answered)
	}
	if _, set := cookieOf(ctx); set && len(ctx.Response.Header.Peek("Set-Cookie")) > len("hadoop.auth=; HttpOnly") {
		s.t.Errorf("%s %s: a cookie was set", method, query)
	}
	return ctx
}

// issue gets a token for whoever query and headers say.
func (s *server) issue(query string, headers ...string) (text string, id token.Identifier) {
	s.t.Helper()
	ctx := s.operate("GET", "op=GETDELEGATIONTOKEN&"+query, headers...)
	var answer struct{ Token struct{ URLString string } }
	body := string(ctx.Response.Body())
	if err := json.Unmarshal([]byte(body), &answer); err != nil || ctx.Response.StatusCode() != 200 {
		s.t.Fatalf("%s: %d %s", query, ctx.Response.StatusCode(), body)
	}
	text = answer.Token.URLString
	if want := `{"Token":{"urlString":"` + text + `"}}`; body != want || string(ctx.Response.Header.ContentType()) != "application/json" {
		s.t.Errorf("%s: %q as %s", query, body, ctx.Response.Header.ContentType())
	}
	parsed, err := token.ParseURL([]byte(text))
	if err != nil {
		s.t.Fatal(err)
	}
	if id, err = token.ParseIdentifier(parsed.Identifier); err != nil {
		s.t.Fatal(err)
	}
	return text, id
}

// cookieFor is a Cookie header with a valid cookie of user's.
func (s *server) cookieFor(user string) string {
	return "hadoop.auth=" + s.sign("u="+user+"&p="+user+"&t=simple-dt&e=1700100000000")
}

func TestTokenFromIssueToCancel(t *testing.T) {
	s := newServer(t, nil)
	withTokens(t, s)
	text, id := s.issue("renewer=yarn&user.name=alice")
	if id.Owner != "alice" || id.Renewer != "yarn" || id.RealUser != "" {
		t.Errorf("%+v", id)
	}
	want := edek.Caller{User: "alice", Full: "alice"}
	use := func(target string, headers ...string) *fasthttp.RequestCtx {
		t.Helper()
		ctx := request(t, "GET", target, headers...)
		id, _ := s.authenticate(ctx)
		if id == nil || id.Caller != want || id.Type != TypeToken || id.Expires != s.time.Add(24*time.Hour).UnixMilli() {
			t.Errorf("%s: %+v %q", target, id, s.errors)
		}
		if len(ctx.Response.Header.Peek("Set-Cookie")) > 0 {
			t.Errorf("%s: a token got a cookie", target)
		}
		return ctx
	}
	use(path, tokenHeader, text)
	use(path + "?delegation=" + text)
	use(path + fmt.Sprintf("?x;deleg%%61tion=%%%02x%s", text[0], text[1:]))
	use(path+"?user.name=bob", tokenHeader, text)
	use(path+"?delegation=junk", tokenHeader, text)
	use(path, tokenHeader, text, "Cookie", "hadoop.auth=bad")
	// doAs does not count for those who bring a token.
	use(path+"?doAs=root&delegation="+text, "Cookie", "x=y")
	// A cookie stands above a token.
	s.as("carol", "GET", path, tokenHeader, text, "Cookie", s.cookieFor("carol"))
	// One token more cannot be had for a token, nor can it be renewed with it.
	for _, op := range []string{"GET GETDELEGATIONTOKEN", "PUT RENEWDELEGATIONTOKEN"} {
		method, op, _ := strings.Cut(op, " ")
		if ctx := s.operate(method, "op="+op+"&token="+text, tokenHeader, text); ctx.Response.StatusCode() != 403 || challengeOf(ctx) != "PseudoAuth" {
			t.Errorf("%s by token: %d %s", op, ctx.Response.StatusCode(), ctx.Response.Body())
		}
	}

	s.advance(time.Hour)
	ctx := s.operate("PUT", "op=RENEWDELEGATIONTOKEN&user.name=alice&token="+text)
	if reason := string(ctx.Response.Header.StatusMessage()); ctx.Response.StatusCode() != 403 ||
		!strings.HasPrefix(reason, "org.apache.hadoop.security.AccessControlException: alice tries to renew a token (kms-dt owner=alice, renewer=yarn,") ||
		!strings.Contains(reason, "with non-matching renewer yarn") {
		t.Errorf("%d %s", ctx.Response.StatusCode(), reason)
	}
	ctx = s.operate("PUT", "op=renewDelegationToken&user.name=yarn&token="+text)
	if body := string(ctx.Response.Body()); body != `{"long":1700090000000}` || string(ctx.Response.Header.ContentType()) != "application/json" {
		t.Errorf("%s", body)
	}
	use(path, tokenHeader, text)

	ctx = s.operate("PUT", "op=CANCELDELEGATIONTOKEN&token="+text, "Cookie", s.cookieFor("mallory"))
	if h := &ctx.Response.Header; h.StatusCode() != 404 || string(h.StatusMessage()) != token.CannotCancel || len(h.Peek("Set-Cookie")) > 0 {
		t.Errorf("%d %s %s", h.StatusCode(), h.StatusMessage(), h.Peek("Set-Cookie"))
	}
	use(path, tokenHeader, text)
	ctx = s.operate("PUT", "op=CANCELDELEGATIONTOKEN&token="+text)
	if h := &ctx.Response.Header; h.StatusCode() != 200 || len(ctx.Response.Body()) != 0 || string(h.ContentType()) != contentTypeNone {
		t.Errorf("%d %s", h.StatusCode(), h.ContentType())
	}
	s.refused("403 AuthenticationException org.apache.hadoop.security.authentication.client.AuthenticationException: "+
		"org.apache.hadoop.security.token.SecretManager$InvalidToken: Token for real user: , can't be found in cache", "GET", path, tokenHeader, text)
}

func TestTokenOperationsThatAreRefused(t *testing.T) {
	s := newServer(t, nil)
	withTokens(t, s)
	text, _ := s.issue("user.name=alice&renewer=alice")
	forged := text[:len(text)-12] + "A" + text[len(text)-11:]
	if forged == text {
		forged = text[:len(text)-12] + "B" + text[len(text)-11:]
	}
	f := func(method, query string, status int, reason string, cleared bool, headers ...string) {
		t.Helper()
		ctx := s.operate(method, query, headers...)
		h := &ctx.Response.Header
		if h.StatusCode() != status || string(h.StatusMessage()) != reason || (len(h.Peek("Set-Cookie")) > 0) != cleared {
			t.Errorf("%s %s: %d %s %q", method, query, h.StatusCode(), h.StatusMessage(), h.Peek("Set-Cookie"))
		}
	}
	const get, renew, cancel = "op=GETDELEGATIONTOKEN", "op=RENEWDELEGATIONTOKEN", "op=CANCELDELEGATIONTOKEN"
	f("PUT", get+"&user.name=alice", 400, "Wrong HTTP method [PUT] for operation [GETDELEGATIONTOKEN], it should be [GET]", false)
	f("HEAD", get+"&user.name=alice", 400, "Wrong HTTP method [HEAD] for operation [GETDELEGATIONTOKEN], it should be [GET]", false)
	f("POST", renew, 400, "Wrong HTTP method [POST] for operation [RENEWDELEGATIONTOKEN], it should be [PUT]", false)
	f("GET", cancel, 400, "Wrong HTTP method [GET] for operation [CANCELDELEGATIONTOKEN], it should be [PUT]", false)
	f("PUT", renew+"&user.name=alice", 400, "Operation [RENEWDELEGATIONTOKEN] requires the parameter [token]", false)
	f("PUT", renew+"&user.name=alice&token", 400, "Operation [RENEWDELEGATIONTOKEN] requires the parameter [token]", false)
	f("PUT", cancel, 400, "Operation [CANCELDELEGATIONTOKEN] requires the parameter [token]", false)
	f("PUT", renew+"&user.name=alice&token=junk", 403, "java.io.EOFException", true)
	f("PUT", renew+"&user.name=alice&token=", 403, "java.io.EOFException", true)
	f("PUT", cancel+"&token=junk", 404, token.CannotCancel, false)
	f("PUT", cancel+"&token="+forged, 404, token.CannotCancel, false)
	f("PUT", cancel+"&token="+forged, 404, token.CannotCancel, false, "Cookie", s.cookieFor("alice"))
	f("PUT", cancel+"&token="+text, 404, token.CannotCancel, false, "Cookie", s.cookieFor("bob"))
	// Nobody is asked who cancels: a name is not looked at, the token is enough.
	f("PUT", cancel+"&user.name=bob&token="+text, 200, "", false)
	f("PUT", cancel+"&token="+text, 404, token.CannotCancel, false, "Cookie", s.cookieFor("alice"))
	// The first counts, and OPTIONS is no operation.
	s.as("alice", "GET", "/?op=x&op=GETDELEGATIONTOKEN&user.name=alice")
	s.as("alice", "GET", "/?op&op=GETDELEGATIONTOKEN&user.name=alice")
	s.as("alice", "GET", "/?OP=GETDELEGATIONTOKEN&user.name=alice")
	s.as("alice", "OPTIONS", "/?op=GETDELEGATIONTOKEN&user.name=alice")
	// Both of these are read as Java reads them.
	f("PUT", "x;%6Fp=GET%44ELEGATIONTOKEN", 400, "Wrong HTTP method [PUT] for operation [GETDELEGATIONTOKEN], it should be [GET]", false)

	// Who is nobody learns of no page, and keeps the cookie.
	for _, query := range []string{get, renew + "&token=x"} {
		method := "GET"
		if strings.HasPrefix(query, renew) {
			method = "PUT"
		}
		ctx := s.operate(method, query)
		h := &ctx.Response.Header
		if h.StatusCode() != 403 || challengeOf(ctx) != "PseudoAuth" || len(ctx.Response.Body()) > 0 || len(h.Peek("Set-Cookie")) > 0 || len(h.StatusMessage()) > 0 {
			t.Errorf("%s: %d %s", query, h.StatusCode(), ctx.Response.Body())
		}
	}
	s.errors = nil
	s.operate("GET", get+"&user.name=a%26b")
	s.operate("GET", get+"&user.name=alice&renewer=a%0Ab")
	if len(s.errors) != 2 || !strings.HasPrefix(s.errors[0], "500 IllegalArgument") || !strings.HasPrefix(s.errors[1], "400 IllegalArgument") {
		t.Errorf("%q", s.errors)
	}
}

func TestTokensUnderKerberos(t *testing.T) {
	s, _ := newKerberos(t, nil)
	withTokens(t, s)
	ctx := request(t, "GET", "/kms/v1/?op=GETDELEGATIONTOKEN&user.name=alice", "Cookie", "hadoop.auth=x")
	id, answered := s.Authenticate(ctx, s.time)
	want := Answered{TokenOp: "GETDELEGATIONTOKEN", Unauthenticated: reasonUnsigned + "***"}
	if id != nil || answered != want || ctx.Response.StatusCode() != 401 || challengeOf(ctx) != "Negotiate" || len(ctx.Response.Body()) > 0 {
		t.Errorf("%+v %+v %d", id, answered, ctx.Response.StatusCode())
	}
	// Owner and renewer are short names.
	text, identifier := s.issue("renewer=rm/rm1.example.com@EXAMPLE.COM", ticketOf(hdfsNN)...)
	if identifier.Owner != "hdfs" || identifier.Renewer != "rm" || identifier.RealUser != "" {
		t.Errorf("%+v", identifier)
	}
	if _, identifier := s.issue("", ticketOf(hdfsNN+"#2")...); identifier.Renewer != "hdfs" {
		t.Errorf("renewer by default: %+v", identifier)
	}
	if _, identifier := s.issue("renewer=", ticketOf(hdfsNN+"#3")...); identifier.Renewer != "" {
		t.Errorf("no renewer: %+v", identifier)
	}
	// The ticket is used up; the token is not.
	bearer, _ := s.authenticate(request(t, "GET", path, tokenHeader, text))
	if bearer == nil || bearer.Caller != (edek.Caller{User: "hdfs", Full: "hdfs"}) || bearer.Type != TypeToken {
		t.Errorf("%+v", bearer)
	}
	ctx = s.operate("PUT", "op=RENEWDELEGATIONTOKEN&token="+text, ticketOf("rm/rm2.example.com@EXAMPLE.COM")...)
	if ctx.Response.StatusCode() != 200 || challengeOf(ctx) != proof {
		t.Errorf("%d %s %q", ctx.Response.StatusCode(), ctx.Response.Header.StatusMessage(), challengeOf(ctx))
	}
	ctx = s.operate("PUT", "op=CANCELDELEGATIONTOKEN&token="+text, "Cookie", "hadoop.auth="+s.sign("u=rm&p=rm/x@EXAMPLE.COM&t=kerberos-dt&e=1700000100000"))
	if ctx.Response.StatusCode() != 200 {
		t.Errorf("%d %s", ctx.Response.StatusCode(), ctx.Response.Header.StatusMessage())
	}
	s.errors = nil
	s.operate("GET", "op=GETDELEGATIONTOKEN&renewer=a/b@NOWHERE", ticketOf(hdfsNN+"#4")...)
	if len(s.errors) != 1 || s.errors[0] != "400 IllegalArgumentException java.lang.IllegalArgumentException: renewer: No rules applied to a/b@NOWHERE" {
		t.Errorf("%q", s.errors)
	}
}

// Altering a token makes it another one, which nobody issued.
func TestAlteredTokens(t *testing.T) {
	s := newServer(t, nil)
	withTokens(t, s)
	text, id := s.issue("user.name=alice&renewer=yarn")
	parsed, err := token.ParseURL([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	f := func(change func(*token.Identifier)) {
		t.Helper()
		altered := id
		change(&altered)
		forged := token.Token{Identifier: altered.Append(nil), Password: parsed.Password, Kind: parsed.Kind}
		ctx := request(t, "GET", path, tokenHeader, string(forged.AppendURL(nil)))
		if id, _ := s.authenticate(ctx); id != nil || ctx.Response.StatusCode() != 403 {
			t.Errorf("%+v: %+v", altered, id)
		}
	}
	f(func(id *token.Identifier) { id.Owner = "hdfs" })
	f(func(id *token.Identifier) { id.RealUser = "hue" })
	f(func(id *token.Identifier) { id.MaxDate += 1 << 40 })
	f(func(id *token.Identifier) { id.Issued = s.time.Add(1000 * time.Hour).UnixMilli() })
	f(func(id *token.Identifier) { id.Sequence++ })
	f(func(id *token.Identifier) { id.KeyID++ })
	f(func(id *token.Identifier) { id.Owner = "" })
	f(func(id *token.Identifier) { id.Owner = "a\nb" })
	for _, junk := range []string{"", "junk", text[:len(text)-1], text + "AAAA", strings.Repeat("A", 60000), "%%%", text[:9] + " " + text[9:]} {
		ctx := request(t, "GET", path, tokenHeader, junk)
		if id, _ := s.authenticate(ctx); id != nil || ctx.Response.StatusCode() != 403 || len(ctx.Response.Header.Peek("Set-Cookie")) > 0 {
			t.Errorf("%.40q: %+v %d", junk, id, ctx.Response.StatusCode())
		}
	}
	for range 2 { // known and not
		if id, _ := s.authenticate(request(t, "GET", path, tokenHeader, text)); id == nil {
			t.Error("refused")
		}
	}
	s.advance(24*time.Hour + time.Millisecond)
	ctx := request(t, "GET", path, tokenHeader, text)
	if id, _ := s.authenticate(ctx); id != nil || ctx.Response.StatusCode() != 403 {
		t.Errorf("expired: %+v", id)
	}
}

// A store that does not answer says nothing about a token: clients try again.
func TestStoreThatFails(t *testing.T) {
	s := newServer(t, nil)
	store := withTokens(t, s)
	text, _ := s.issue("user.name=alice")
	other, _ := s.issue("user.name=alice")
	if id, _ := s.authenticate(request(t, "GET", path, tokenHeader, other)); id == nil {
		t.Fatal("refused")
	}
	store.broken = true
	const want = "500 IOException java.io.IOException: the store of delegation tokens could not be asked; this server's log says why"
	s.refused(want, "GET", path, tokenHeader, text)
	for _, op := range []string{"RENEW", "CANCEL"} {
		s.errors = nil
		s.operate("PUT", "op="+op+"DELEGATIONTOKEN&user.name=alice&token="+text)
		if len(s.errors) != 1 || s.errors[0] != want {
			t.Errorf("%s: %q", op, s.errors)
		}
	}
	if id, _ := s.authenticate(request(t, "GET", path, tokenHeader, other)); id == nil {
		t.Error("a token that is known needs no store")
	}
	if s.Judge(&request(t, "POST", path, tokenHeader, text).Request.Header, s.time) {
		t.Error("a token that cannot be looked up is somebody")
	}
}

func TestServerWithoutTokens(t *testing.T) {
	s := newServer(t, nil)
	const want = "403 AuthenticationException org.apache.hadoop.security.authentication.client.AuthenticationException: " +
		"org.apache.hadoop.security.token.SecretManager$InvalidToken: this server has no delegation tokens"
	s.refused(want, "GET", path+"?user.name=x", tokenHeader, "junk")
	s.refused(want, "OPTIONS", path+"?delegation=")
	s.as("bob", "GET", path+"?delegation&user.name=bob")
	s.operate("GET", "op=GETDELEGATIONTOKEN&user.name=alice")
	if s.errors[len(s.errors)-1] != want {
		t.Errorf("%q", s.errors)
	}
}

// Who asked for a token in somebody's name stays with it, and name rules that
// change count for tokens, too.
func TestTokenOfAProxiedUser(t *testing.T) {
	s, _ := newKerberos(t, func(cfg *Config) { cfg.ProxyUsers = allow{"hue acts for alice"} })
	withTokens(t, s)
	text, id := s.issue("doAs=alice", ticketOf("hue/h@EXAMPLE.COM")...)
	if id.Owner != "alice" || id.RealUser != "hue" || id.Renewer != "alice" {
		t.Errorf("%+v", id)
	}
	f := func(caller edek.Caller) {
		t.Helper()
		id, _ := s.authenticate(request(t, "GET", path, tokenHeader, text))
		if id == nil || id.Caller != caller || id.RealFull != "hue" || id.Generation != s.rules.Load().generation {
			t.Errorf("%+v, want %+v", id, caller)
		}
	}
	f(edek.Caller{User: "alice", Full: "alice", Real: "hue"})
	s.SetNames(rulesOf(t, "DEFAULT"))
	f(edek.Caller{User: "alice", Full: "alice", Real: "hue"})
	s.refusedOp("403 AuthorizationException org.apache.hadoop.security.authorize.AuthorizationException: User: hue is not allowed to impersonate bob",
		"GET", "op=GETDELEGATIONTOKEN&doAs=bob", ticketOf("hue/h@EXAMPLE.COM#2")...)
	s.refusedOp("500 IllegalArgumentException java.lang.IllegalArgumentException: Null user: doAs names nobody",
		"GET", "op=GETDELEGATIONTOKEN&doAs=", ticketOf("hue/h@EXAMPLE.COM#3")...)
	// Nobody in particular may cancel a token that is good, whatever doAs says.
	if ctx := s.operate("PUT", "op=CANCELDELEGATIONTOKEN&doAs=mallory&token="+text); ctx.Response.StatusCode() != 200 {
		t.Errorf("%d", ctx.Response.StatusCode())
	}
}

func (s *server) refusedOp(want, method, query string, headers ...string) {
	s.t.Helper()
	s.errors = nil
	s.operate(method, query, headers...)
	if len(s.errors) != 1 || s.errors[0] != want {
		s.t.Errorf("%s %s: %q", method, query, s.errors)
	}
}
