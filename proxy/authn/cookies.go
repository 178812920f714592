package authn

import (
	"bytes"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/proxy/authn/cookie"
	"github.com/edekd/edekd/proxy/authn/secret"
)

// What Hadoop says is wrong with a cookie.
const (
	reasonNone      = "Authentication required"
	reasonEmpty     = "Unauthorized access"
	reasonUnsigned  = "org.apache.hadoop.security.authentication.util.SignerException: Invalid signed text: "
	reasonSignature = "org.apache.hadoop.security.authentication.util.SignerException: Invalid signature"
	reasonType      = "Invalid AuthenticationToken type"
	reasonExpired   = "AuthenticationToken expired"
)

// withoutCookie returns a reason as logs get it. What has no signature where one
// belongs may be a good cookie that a client wrote badly, signature and all; only
// who sent it gets it back.
func withoutCookie(reason string) string {
	if strings.HasPrefix(reason, reasonUnsigned) {
		return reasonUnsigned + "***"
	}
	return reason
}

// fromCookie verifies the request's cookie. Without a valid one v is nil and
// reason says why.
func (a *Authenticator) fromCookie(h *fasthttp.RequestHeader, now time.Time, r *rules) (v *verified, reason string) {
	header := h.Peek(fasthttp.HeaderCookie)
	if header == nil {
		return nil, reasonNone
	}
	current, previous := a.c.Secrets.Live(now)
	ms := now.UnixMilli()
	live := func(v *verified) bool { return v.rules == r && (v.key == current || v.key == previous) }
	if value, found := cookie.First(header); found {
		v = a.cookies.get(value, func(v *verified) bool { return secret.Equal(v.value, value) })
	}
	if v == nil || !live(v) {
		value, found := requestCookie(h.PeekAll(fasthttp.HeaderCookie))
		switch {
		case !found:
			return nil, reasonNone
		case len(value) == 0:
			return nil, reasonEmpty
		}
		if v, reason = a.verify(value, r, current, previous); v == nil {
			return nil, reason
		}
		if !v.ended(ms) {
			a.cookies.put(v.value, v, func(v *verified) bool { return !live(v) || v.ended(ms) })
		}
	}
	if v.ended(ms) {
		return nil, reasonExpired
	}
	return v, ""
}

// ended reports whether the time of a credential is over.
func (v *verified) ended(ms int64) bool {
	return ms > v.id.Expires && v.id.Expires != cookie.Never || v.idleUntil != 0 && ms > v.idleUntil
}

// requestCookie returns the value of the first hadoop.auth cookie in a request's
// Cookie headers.
func requestCookie(headers [][]byte) (value []byte, found bool) {
	for _, header := range headers {
		if value, found = cookie.Find(header); found {
			return value, true
		}
	}
	return nil, false
}

// verify checks a cookie's signature and reads it. It does not look at the
// clock. The result shares no memory with value.
func (a *Authenticator) verify(value []byte, r *rules, keys ...*secret.Key) (v *verified, reason string) {
	text, signature, ok := cookie.Split(value)
	if !ok {
		return nil, cut(reasonUnsigned + string(value))
	}
	for _, key := range keys {
		if key == nil || !key.Verifies(text, signature) {
			continue
		}
		t, err := cookie.Parse(string(text))
		if err != nil {
			return nil, err.Error()
		}
		if t.Type != a.authType {
			return nil, reasonType
		}
		// Hadoop acts for the principal. The short name in the cookie was made
		// by the rules of whoever signed it, perhaps before they were changed.
		short, err := r.shortName(t.Principal)
		if err != nil {
			return nil, cut(err.Error())
		}
		return &verified{
			value:     bytes.Clone(value),
			key:       key,
			idleUntil: t.IdleUntil,
			rules:     r,
			id: Identity{
				Caller:     edek.Caller{User: short, Full: t.Principal},
				Type:       t.Type,
				Expires:    t.Expires,
				Generation: r.generation,
			},
		}, ""
	}
	return nil, reasonSignature
}

// setCookie adds a freshly signed cookie to the response. A name that a cookie
// cannot carry gets none: such a user has to authenticate each time, as with
// the Java server, whose cookie for such a name never verifies.
func (a *Authenticator) setCookie(ctx *fasthttp.RequestCtx, now time.Time, id *Identity, idleUntil int64) {
	if !cookie.Carries(id.Caller.User) || !cookie.Carries(id.Caller.Full) {
		return
	}
	t := cookie.Token{
		User:      id.Caller.User,
		Principal: id.Caller.Full,
		Type:      id.Type,
		IdleUntil: idleUntil,
		Expires:   id.Expires,
	}
	current, _ := a.c.Secrets.Live(now)
	value := cookie.AppendSigned(nil, &t, current.AppendSignature)
	ctx.Response.Header.AddBytesV(fasthttp.HeaderSetCookie,
		a.c.Cookie.AppendSet(nil, value, id.Expires, ctx.IsTLS()))
}
