// Package authn finds out who sends a request, as the authentication filter of
// Hadoop's KMS does, under `simple` and under `kerberos` authentication.
//
// Each request is looked at in Hadoop's order: the signed cookie of an earlier
// answer; a delegation-token operation (op), which is answered here and goes no
// further; without a valid cookie a delegation token, from the header before the
// query, or else the handler: the parameter user.name, which is believed
// whatever it says, or a Kerberos ticket in a Negotiate header; at last doAs,
// for those who may act for others, and never with a delegation token. A bad
// cookie is not fatal by itself: it counts as none, and what was wrong with it
// is the reason given when nothing else authenticates.
//
// Over a Unix socket, the kernel's word on who opened the connection stands in
// the place of a valid cookie, for those whom Config.Users names.
//
// # How long something is believed
//
// A verified cookie, a verified token and a decision about doAs are remembered,
// so that a request that brings them again costs no cryptography and allocates
// nothing. All of these end
//
//   - at once when the signing secret of the cookie is retired, when the store
//     says that the token changed (for another server's cancel that is the ten
//     seconds of token.Store), when they expire, and at SetNames and
//     SetProxyUsers; a cookie or token is then looked at anew, by the new rules;
//   - what was decided about doAs also when the groups change (Config.Groups),
//     and after a second in any case: so long a host name of a proxy user's
//     list may have had another address.
package authn

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/proxy/authn/cookie"
	"github.com/edekd/edekd/proxy/authn/secret"
	"github.com/edekd/edekd/proxy/authn/token"
)

// DefaultValidity is how long a cookie lives unless configured otherwise
// (hadoop.kms.authentication.token.validity).
const DefaultValidity = 10 * time.Hour

// Negotiator accepts Kerberos tickets; *spnego.Acceptor is one.
type Negotiator interface {
	// Accept takes the decoded token of a Negotiate header, once: a second time
	// it is a replay. It returns the client's principal and the token that
	// proves the server to the client. An *spnego.Error tells how to answer.
	Accept(token []byte) (principal string, reply []byte, err error)
}

// Names turns Kerberos principals into short names; *names.Rules does. An error
// names the principal.
type Names interface {
	ShortName(principal string) (string, error)
}

// ProxyUsers decides who may act for whom; *proxyusers.Policy does.
type ProxyUsers interface {
	// Authorize takes short and full name of the real user and the short name of
	// the other. A denial is a *proxyusers.DeniedError; any other error means that
	// it could not be found out.
	Authorize(realShort, realFull, as string, addr netip.Addr) error
}

// WriteError writes a complete answer in the shape of Hadoop's RemoteException:
// status, simple and full name of the Java exception class, message.
type WriteError func(ctx *fasthttp.RequestCtx, status int, exception, class, message string)

// Config is what an Authenticator needs to know.
type Config struct {
	Secrets     *secret.Ring      // signs and verifies cookies (hadoop.kms.authentication.signer.secret.provider)
	Validity    time.Duration     // how long a new cookie lives (….token.validity); 0: DefaultValidity
	MaxInactive time.Duration     // how long it lives unused, cookies being renewed by each request (….token.max-inactive-interval); 0: no such limit
	Cookie      cookie.Attributes // of Set-Cookie (….cookie.path, .domain, .persistent)

	// Negotiator is there under `kerberos` authentication (….type, ….kerberos.keytab,
	// ….kerberos.principal); nil means `simple`.
	Negotiator Negotiator
	// Names are ….kerberos.name.rules; nil: full names are short names, too.
	Names Names
	// Tokens are the delegation tokens (….delegation-token.*); nil: none are
	// issued, and all that are presented are refused.
	Tokens *token.Manager
	// ProxyUsers are hadoop.kms.proxyuser.*; nil: nobody acts for anybody.
	ProxyUsers ProxyUsers
	// Users are the short names of users by uid, whose processes need no proof on
	// the connections of Listener.
	Users map[uint32]string
	// Groups changes whenever somebody's groups do, groups.Cache.Generation;
	// nil: they never do.
	Groups func() uint64
	// Address says where a request comes from, peer.Peers.Addr; nil: from the
	// other end of its connection.
	Address func(*fasthttp.RequestCtx) netip.Addr

	WriteError WriteError   // required
	Log        *slog.Logger // told of tickets that are refused and of stores that fail; nil: nobody is
}

// Authenticator authenticates requests. It is safe for concurrent use.
type Authenticator struct {
	c           Config
	authType    string
	challenge   string // of WWW-Authenticate
	validity    int64  // ms
	maxInactive int64  // ms
	log         *slog.Logger

	changing sync.Mutex // held while rules are replaced
	rules    atomic.Pointer[rules]

	cookies *memo[verified]
	proxied *memo[proxied]
	judged  judgements
	users   map[uint32]*verified // by the uid of their processes
	warned  sync.Map             // by message, *atomic.Int64: when the log was last told, s since the epoch
}

// rules are what can be replaced while requests are served. They are immutable;
// what was decided by others does not count any more.
type rules struct {
	generation uint64
	names      Names
	proxyUsers ProxyUsers
}

// New makes an Authenticator, or says which setting it cannot work with.
func New(cfg Config) (*Authenticator, error) {
	if cfg.Secrets == nil || cfg.WriteError == nil {
		return nil, errors.New("authentication: signing secrets and an error writer are required")
	}
	if cfg.Validity == 0 {
		cfg.Validity = DefaultValidity
	}
	if cfg.Validity < time.Millisecond || cfg.MaxInactive < 0 {
		return nil, fmt.Errorf("authentication: token.validity %v and token.max-inactive-interval %v must not be negative", cfg.Validity, cfg.MaxInactive)
	}
	if err := cfg.Cookie.Check(); err != nil {
		return nil, fmt.Errorf("authentication: %w", err)
	}
	a := &Authenticator{
		c:           cfg,
		authType:    TypeSimple,
		challenge:   "PseudoAuth",
		validity:    cfg.Validity.Milliseconds(),
		maxInactive: cfg.MaxInactive.Milliseconds(),
		log:         cfg.Log,
		cookies:     newMemo(MemoBytes, (*verified).size),
		proxied:     newMemo(MemoBytes, (*proxied).size),
		users:       ofUsers(cfg.Users),
	}
	if cfg.Negotiator != nil {
		a.authType, a.challenge = TypeKerberos, negotiate
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	a.rules.Store(&rules{names: cfg.Names, proxyUsers: cfg.ProxyUsers})
	return a, nil
}

// CookieBytes is the memory that verified cookies take, at most MemoBytes.
func (a *Authenticator) CookieBytes() int64 { return a.cookies.bytes() }

// ProxiedBytes is the memory that answers about doAs take, at most MemoBytes.
func (a *Authenticator) ProxiedBytes() int64 { return a.proxied.bytes() }

// Reload reads the file with the signing secret again. On error the old secret
// stays; otherwise cookies signed with it end at once.
func (a *Authenticator) Reload() error { return a.c.Secrets.Reload() }

// SetNames puts other name rules in force, for whatever was authenticated
// before, too.
func (a *Authenticator) SetNames(n Names) {
	a.change(func(r *rules) { r.names = n })
}

// SetProxyUsers puts other proxy users in force.
func (a *Authenticator) SetProxyUsers(p ProxyUsers) {
	a.change(func(r *rules) { r.proxyUsers = p })
}

func (a *Authenticator) change(f func(*rules)) {
	a.changing.Lock()
	defer a.changing.Unlock()
	next := *a.rules.Load()
	next.generation++
	f(&next)
	a.rules.Store(&next)
}

// warn logs, each message once a second at most: a broken keytab, clock or store
// shows, and nobody fills the log or keeps something else out of it. Messages are
// constants.
func (a *Authenticator) warn(message string, args ...any) {
	warned, known := a.warned.Load(message)
	if !known {
		warned, _ = a.warned.LoadOrStore(message, new(atomic.Int64))
	}
	last, now := warned.(*atomic.Int64), time.Now().Unix()
	if second := last.Load(); second != now && last.CompareAndSwap(second, now) {
		a.log.Warn(message, args...)
	}
}

// Answered says what became of a request that was answered here.
type Answered struct {
	// Unauthenticated is the ErrorMsg of the audit's UNAUTHENTICATED line. It is
	// empty where Hadoop writes no such line: for every answer but 401.
	Unauthenticated string
	// TokenOp is the delegation-token operation that was asked for, in capital
	// letters; empty: none.
	TokenOp string
	// Act is what somebody may or may not do for somebody else, and the audit
	// should tell; nil: nothing.
	Act *Act
}

// sender is who a request comes from, before anybody acts for somebody else.
type sender struct {
	id    *Identity
	known bool // by the memo: the same *Identity comes again
}

// Authenticate returns who sent the request. When the sender has no valid
// cookie yet, it adds the Set-Cookie header to the response, and under
// `kerberos` the WWW-Authenticate header that proves this server; the rest of
// the request must leave both there whatever its outcome.
//
// When id is nil the complete answer has been written, be it because the sender
// is not authenticated or because the request was for a delegation token.
func (a *Authenticator) Authenticate(ctx *fasthttp.RequestCtx, now time.Time) (id *Identity, answered Answered) {
	h, r := &ctx.Request.Header, a.rules.Load()
	p := parse(query(h.RequestURI()))
	v, reason := fromProcess(ctx), ""
	local := v != nil
	if !local {
		v, reason = a.fromCookie(h, now, r)
	}
	if p.op.given {
		if op, ok := token.ParseOperation(p.op.bytes()); ok && !ctx.IsOptions() {
			return nil, a.manage(ctx, op, &p, v, reason, now, r)
		}
	}
	var s sender
	if v != nil {
		s = sender{id: &v.id, known: true}
		if a.maxInactive > 0 && !a.c.Cookie.Persistent && !local {
			a.setCookie(ctx, now, s.id, now.UnixMilli()+a.maxInactive)
		}
	} else if text, presented := presentedToken(h, &p); presented {
		id, err := a.fromToken(text, now, r)
		if err != nil {
			answered.Act = a.refuseToken(ctx, refusedToken(text), err)
		}
		return id, answered
	} else if s.id, answered = a.handle(ctx, &p, reason, now, r); s.id == nil {
		return nil, answered
	} else {
		a.setCookie(ctx, now, s.id, 0)
	}
	if p.doAs.given {
		s.id, answered.Act = a.impersonate(ctx, s, &p, now, r)
	}
	return s.id, answered
}

// handle asks the handler who sends a request without cookie and token. It
// answers the request when it does not know.
func (a *Authenticator) handle(ctx *fasthttp.RequestCtx, p *parameters, reason string, now time.Time, r *rules) (*Identity, Answered) {
	if a.c.Negotiator != nil {
		return a.negotiated(ctx, reason, now, r)
	}
	if !p.user.present() {
		a.unauthenticated(ctx, reason)
		return nil, Answered{Unauthenticated: withoutCookie(reason)}
	}
	id, illegal := a.named(p.user.value(), now, r)
	if illegal != nil {
		a.illegal(ctx, illegal)
	}
	return id, Answered{}
}

// named is the identity of who says to have that name, under `simple`
// authentication.
func (a *Authenticator) named(name string, now time.Time, r *rules) (*Identity, *illegalError) {
	if err := cookie.CheckValue(name); err != nil {
		return nil, &illegalError{"user.name " + err.Error(), name != "" && !strings.Contains(name, "&")}
	}
	short, err := r.shortName(name)
	if err != nil {
		return nil, &illegalError{"Illegal principal name " + err.Error(), false}
	}
	return a.identity(short, name, now, r), nil
}

func (a *Authenticator) identity(short, full string, now time.Time, r *rules) *Identity {
	return &Identity{
		Caller:     edek.Caller{User: short, Full: full},
		Type:       a.authType,
		Expires:    now.UnixMilli() + a.validity,
		Generation: r.generation,
	}
}

// shortName applies the name rules. Their result is a name that can stand in a
// token text and in a line of a log.
func (r *rules) shortName(full string) (string, error) {
	if r.names == nil {
		return full, nil
	}
	short, err := r.names.ShortName(full)
	if err != nil {
		return "", err
	}
	if err := cookie.CheckValue(short); err != nil {
		return "", fmt.Errorf("the name rules make %q of %q, which %w", short, full, err)
	}
	return short, nil
}

// Judge reports whether the headers of a request say who sends it, before its
// body is read. It writes nothing. A Kerberos ticket can be accepted only once:
// what was found out about it here is what Authenticate goes by when it is given
// a request with the same header, as long as Forget was not called.
func (a *Authenticator) Judge(h *fasthttp.RequestHeader, now time.Time) bool {
	r := a.rules.Load()
	p := parse(query(h.RequestURI()))
	if v, _ := a.fromCookie(h, now, r); v != nil {
		return true
	}
	if text, presented := presentedToken(h, &p); presented {
		_, err := a.fromToken(text, now, r)
		return err == nil
	}
	if a.c.Negotiator != nil {
		return a.judgeTicket(h, now, r)
	}
	if !p.user.present() {
		return false
	}
	_, illegal := a.named(p.user.value(), now, r)
	return illegal == nil
}
