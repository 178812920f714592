package authn

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/hadoop/proxyusers"
)

// proxiedLife is how long a decision about doAs is remembered at most. It adds to
// the time that groups are believed, as authz.GroupsBelieved does.
const proxiedLife = time.Second

// impersonate returns the identity of the user whom doAs names, if s may act
// for that user from where the request comes. Otherwise it answers the request
// and returns no identity, and an Act if s may not.
func (a *Authenticator) impersonate(ctx *fasthttp.RequestCtx, s sender, p *parameters, now time.Time, r *rules) (*Identity, *Act) {
	addr := a.address(ctx)
	groups := a.groups()
	live := func(e *proxied) bool {
		return e.rules == r && e.groups == groups && now.Sub(e.decided).Abs() <= proxiedLife
	}
	if s.known && !p.disputed {
		e := a.proxied.get(p.doAs.raw, func(e *proxied) bool {
			return e.real == s.id && e.addr == addr && bytes.Equal(e.value, p.doAs.raw)
		})
		if e != nil && live(e) {
			return &e.id, nil
		}
	}
	id, err := a.authorize(s.id, p, addr, r)
	if err != nil {
		return nil, a.refuseProxy(ctx, s.id, p, err)
	}
	if s.known {
		e := &proxied{value: bytes.Clone(p.doAs.raw), real: s.id, addr: addr, rules: r, groups: groups, decided: now, id: id}
		a.proxied.put(e.value, e, func(e *proxied) bool { return !live(e) })
		return &e.id, nil
	}
	return &id, nil
}

// authorize decides about doAs.
func (a *Authenticator) authorize(real *Identity, p *parameters, addr netip.Addr, r *rules) (Identity, error) {
	as := p.doAs.value()
	if as == "" {
		return Identity{}, &illegalError{"Null user: doAs names nobody", p.doAs.bare}
	}
	if strings.IndexFunc(as, unicode.IsControl) >= 0 {
		return Identity{}, &illegalError{"doAs contains a control character", true}
	}
	short, err := r.shortName(as)
	if err != nil {
		return Identity{}, &illegalError{"Illegal principal name " + err.Error(), false}
	}
	if r.proxyUsers == nil {
		return Identity{}, &proxyusers.DeniedError{Text: "User: " + real.Caller.Full + " is not allowed to impersonate " + as}
	}
	if err := r.proxyUsers.Authorize(real.Caller.User, real.Caller.Full, short, addr); err != nil {
		return Identity{}, err
	}
	if p.disputed {
		// Hadoop takes the first. A gateway that adds its own doAs to what its
		// user wrote would let the user choose.
		return Identity{}, &illegalError{"doAs is given more than once, with different users", true}
	}
	return proxiedBy(real, short, as), nil
}

// refuseProxy answers a doAs that is not granted. A denial is an Act of whom real
// would have been.
func (a *Authenticator) refuseProxy(ctx *fasthttp.RequestCtx, real *Identity, p *parameters, err error) *Act {
	if illegal, ok := errors.AsType[*illegalError](err); ok {
		a.illegal(ctx, illegal)
		return nil
	}
	if denied, ok := errors.AsType[*proxyusers.DeniedError](err); ok {
		a.c.WriteError(ctx, fasthttp.StatusForbidden, "AuthorizationException",
			"org.apache.hadoop.security.authorize.AuthorizationException", denied.Text)
		as := p.doAs.value()
		return &Act{Kind: Impersonate, Caller: edek.Caller{User: as, Full: as, Real: real.Caller.User}, Refusal: denied.Text}
	}
	a.warn("doAs could not be decided", "error", err)
	a.c.WriteError(ctx, fasthttp.StatusInternalServerError, "IOException", "java.io.IOException",
		"it could not be found out whether one user may act for the other; this server's log says why")
	return nil
}

func (a *Authenticator) groups() uint64 {
	if a.c.Groups == nil {
		return 0
	}
	return a.c.Groups()
}

// address is where a request comes from; it is not valid for a Unix socket.
func (a *Authenticator) address(ctx *fasthttp.RequestCtx) netip.Addr {
	if a.c.Address != nil {
		return a.c.Address(ctx)
	}
	if _, local := ctx.RemoteAddr().(*Process); local {
		return netip.Addr{}
	}
	addr, _ := netip.AddrFromSlice(ctx.RemoteIP())
	return addr.Unmap()
}
