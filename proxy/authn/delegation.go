package authn

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/proxy/authn/token"
)

const tokenHeader = "X-Hadoop-Delegation-Token"

// presentedToken returns the text of the delegation token a request brings, be
// it an empty one; the header counts before the query.
func presentedToken(h *fasthttp.RequestHeader, p *parameters) (text []byte, presented bool) {
	if values := h.PeekAll(tokenHeader); len(values) > 0 {
		return values[0], true
	}
	if !p.delegation.present() {
		return nil, false
	}
	return p.delegation.bytes(), true
}

// bearer is what was made of a verified token. It is immutable.
type bearer struct {
	rules *rules // in force then
	id    Identity
}

// fromToken verifies a delegation token. A *token.Error or an unknownNameError
// says what is wrong with it; with any other error it could not be found out.
func (a *Authenticator) fromToken(text []byte, now time.Time, r *rules) (*Identity, error) {
	if a.c.Tokens == nil {
		return nil, errNoTokens
	}
	v, err := a.c.Tokens.Verify(text, now)
	if err != nil {
		return nil, err
	}
	if b, ok := v.Attached.Load().(*bearer); ok && b.rules == r {
		return &b.id, nil
	}
	b := &bearer{rules: r}
	if b.id, err = a.bearer(&v.Identifier, v.Expires, r); err != nil {
		return nil, err
	}
	v.Attached.Store(b)
	return &b.id, nil
}

// bearer is the identity that a token gives: its owner, and the real user who
// asked for it.
func (a *Authenticator) bearer(t *token.Identifier, expires int64, r *rules) (Identity, error) {
	short, err := r.shortName(t.Owner)
	if err != nil {
		return Identity{}, &token.Error{Class: classIllegalArgument, Message: "Illegal principal name " + err.Error()}
	}
	id := Identity{
		Caller:     edek.Caller{User: short, Full: t.Owner},
		Type:       TypeToken,
		Expires:    expires,
		Generation: r.generation,
	}
	if t.RealUser == "" || t.RealUser == t.Owner {
		return id, nil
	}
	id.RealFull = t.RealUser
	if id.Caller.Real, err = r.shortName(t.RealUser); err != nil {
		return Identity{}, &token.Error{Class: classIllegalArgument, Message: "Illegal principal name " + err.Error()}
	}
	return id, nil
}

// errNoTokens is the refusal of a server without tokens, as Hadoop words that of
// one it does not know.
var errNoTokens = &token.Error{Class: token.ClassInvalidToken, Message: "this server has no delegation tokens"}

// manage does an operation on a delegation token and answers it. known is the
// sender by a cookie, nil if there is no valid one for the reason. The sender may
// authenticate by the handler, too, but gets no cookie for it.
func (a *Authenticator) manage(ctx *fasthttp.RequestCtx, op token.Operation, p *parameters, known *verified, reason string, now time.Time, r *rules) Answered {
	answered := Answered{TokenOp: string(op)}
	if method := string(ctx.Method()); method != op.Method() {
		a.page(ctx, fasthttp.StatusBadRequest, cut(op.WrongMethod(method)))
		return answered
	}
	var id *Identity
	if known != nil {
		id = &known.id
	} else if op.NeedsCredential() {
		if id = a.handleForToken(ctx, p, reason, now, r, &answered); id == nil {
			return answered
		}
	}
	if id != nil {
		// On these operations Hadoop knows users by their short names only.
		id = &Identity{Caller: edek.Caller{User: id.Caller.User, Full: id.Caller.User}, Type: id.Type, Expires: id.Expires, Generation: id.Generation}
		if p.doAs.given {
			if id, answered.Act = a.impersonate(ctx, sender{id: id}, p, now, r); id == nil {
				return answered
			}
		}
	}
	if a.c.Tokens == nil {
		answered.Act = a.refuseToken(ctx, actOf(actsOfOperations[op], id), errNoTokens)
		return answered
	}
	switch op {
	case token.Get:
		answered.Act = a.issue(ctx, p, id, r)
	case token.Renew:
		answered.Act = a.renew(ctx, p, id)
	default:
		answered.Act = a.cancel(ctx, p, id, r)
	}
	return answered
}

// handleForToken asks the handler who wants an operation. What it answers when
// it does not know has no page and clears no cookie.
func (a *Authenticator) handleForToken(ctx *fasthttp.RequestCtx, p *parameters, reason string, now time.Time, r *rules, answered *Answered) *Identity {
	if a.c.Negotiator == nil && !p.user.present() {
		ctx.SetStatusCode(fasthttp.StatusForbidden)
		a.bareChallenge(ctx)
		return nil
	}
	if _, offered := negotiateToken(&ctx.Request.Header); a.c.Negotiator != nil && !offered {
		answered.Unauthenticated = withoutCookie(reason)
		ctx.SetStatusCode(fasthttp.StatusUnauthorized)
		a.bareChallenge(ctx)
		return nil
	}
	id, handled := a.handle(ctx, p, reason, now, r)
	answered.Unauthenticated = handled.Unauthenticated
	return id
}

func (a *Authenticator) bareChallenge(ctx *fasthttp.RequestCtx) {
	ctx.Response.Header.SetCanonical([]byte(fasthttp.HeaderWWWAuthenticate), []byte(a.challenge))
	ctx.Response.Header.SetContentType(contentTypeNone)
}

func (a *Authenticator) issue(ctx *fasthttp.RequestCtx, p *parameters, id *Identity, r *rules) *Act {
	q := token.Request{Owner: id.Caller.Full, RealUser: id.RealFull, Renewer: id.Caller.User}
	if renewer := p.first(token.ParamRenewer); renewer.present() {
		q.Renewer = renewer.value()
		if strings.IndexFunc(q.Renewer, unicode.IsControl) >= 0 {
			a.illegal(ctx, &illegalError{"renewer contains a control character", true})
			return nil
		}
		if q.Renewer != "" { // such a token cannot be renewed
			short, err := r.shortName(q.Renewer)
			if err != nil {
				a.illegal(ctx, &illegalError{"renewer: " + err.Error(), true})
				return nil
			}
			q.Renewer = short
		}
	}
	if service := p.first(token.ParamService); service.present() {
		q.Service = service.value()
	}
	c, cancel := storeContext()
	defer cancel()
	act := actOf(GetToken, id)
	t, err := a.c.Tokens.Issue(c, q)
	if err != nil {
		return a.operationFailed(ctx, act, err)
	}
	a.replyJSON(ctx, t.AppendJSON(nil))
	return act.numbered(token.ParseIdentifier(t.Identifier))
}

func (a *Authenticator) renew(ctx *fasthttp.RequestCtx, p *parameters, id *Identity) *Act {
	text := p.first(token.ParamToken)
	if !text.present() {
		a.page(ctx, fasthttp.StatusBadRequest, token.Renew.MissingToken())
		return nil
	}
	c, cancel := storeContext()
	defer cancel()
	act := actOf(RenewToken, id).numbered(token.Claimed(text.bytes()))
	renewDate, err := a.c.Tokens.Renew(c, text.bytes(), id.Caller.User)
	if err != nil {
		return a.operationFailed(ctx, act, err)
	}
	a.replyJSON(ctx, token.AppendRenewedJSON(nil, renewDate))
	return act
}

// cancel ends a token; id may be nil, and the act is then the owner's.
func (a *Authenticator) cancel(ctx *fasthttp.RequestCtx, p *parameters, id *Identity, r *rules) *Act {
	text := p.first(token.ParamToken)
	if !text.present() {
		a.page(ctx, fasthttp.StatusBadRequest, token.Cancel.MissingToken())
		return nil
	}
	canceller := ""
	if id != nil {
		canceller = id.Caller.User
	}
	c, cancel := storeContext()
	defer cancel()
	claimed, unreadable := token.Claimed(text.bytes())
	act := actOf(CancelToken, id).numbered(claimed, unreadable)
	err := a.c.Tokens.Cancel(c, text.bytes(), canceller)
	switch refused, ok := errors.AsType[*token.Error](err); {
	case err == nil:
		ctx.SetStatusCode(fasthttp.StatusOK)
		ctx.Response.Header.SetContentType(contentTypeNone)
		if id == nil {
			act.Caller = a.ownerOf(&claimed, r)
		}
	case ok:
		a.page(ctx, fasthttp.StatusNotFound, token.CannotCancel)
		act.refused(refused)
	default:
		a.storeFailed(ctx, err)
		return nil
	}
	return act
}

// ownerOf is whom a good token stands for, by full name alone where the name
// rules have no short one.
func (a *Authenticator) ownerOf(t *token.Identifier, r *rules) edek.Caller {
	id, err := a.bearer(t, 0, r)
	if err != nil {
		return edek.Caller{Full: t.Owner}
	}
	return id.Caller
}

// operationFailed answers an operation that needs a credential. What is wrong
// with it stands in the reason phrase, where clients look for it. It returns act
// as one that was refused, nil where nobody refused it.
func (a *Authenticator) operationFailed(ctx *fasthttp.RequestCtx, act *Act, err error) *Act {
	if refused, ok := errors.AsType[*token.Error](err); ok {
		a.forbidden(ctx, cut(refused.Error()))
		return act.refused(refused)
	}
	a.storeFailed(ctx, err)
	return nil
}

// refuseToken answers a request that brought a delegation token which is not
// good. It leaves the cookie alone. What it returns is as of operationFailed.
func (a *Authenticator) refuseToken(ctx *fasthttp.RequestCtx, act *Act, err error) *Act {
	refused, ok := errors.AsType[*token.Error](err)
	if !ok {
		a.storeFailed(ctx, err)
		return nil
	}
	a.c.WriteError(ctx, fasthttp.StatusForbidden, "AuthenticationException",
		"org.apache.hadoop.security.authentication.client.AuthenticationException", refused.Error())
	return act.refused(refused)
}

// storeFailed answers what could not be found out, or not be done, for a reason
// of ours. Clients then try the next server.
func (a *Authenticator) storeFailed(ctx *fasthttp.RequestCtx, err error) {
	a.warn("the store of delegation tokens", "error", err)
	a.c.WriteError(ctx, fasthttp.StatusInternalServerError, "IOException", "java.io.IOException",
		"the store of delegation tokens could not be asked; this server's log says why")
}

func (a *Authenticator) replyJSON(ctx *fasthttp.RequestCtx, body []byte) {
	ctx.SetStatusCode(fasthttp.StatusOK)
	ctx.Response.Header.SetContentType("application/json")
	ctx.SetBody(body)
	clear(body)
}

// storeTimeout bounds how long a request waits for the store of tokens. Hadoop's
// clients wait for 60 s and then try another server.
const storeTimeout = 10 * time.Second

func storeContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), storeTimeout)
}
