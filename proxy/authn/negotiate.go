package authn

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/proxy/authn/cookie"
	"github.com/edekd/edekd/proxy/authn/secret"
	"github.com/edekd/edekd/proxy/authn/spnego"
)

const negotiate = "Negotiate"

// ticket is what became of the token in a Negotiate header.
type ticket struct {
	principal string
	reply     []byte
	err       error
}

// negotiated authenticates a request by its Kerberos ticket, or answers it.
func (a *Authenticator) negotiated(ctx *fasthttp.RequestCtx, reason string, now time.Time, r *rules) (*Identity, Answered) {
	h := &ctx.Request.Header
	header, offered := negotiateToken(h)
	if !offered {
		a.unauthenticated(ctx, reason)
		return nil, Answered{Unauthenticated: withoutCookie(reason)}
	}
	t := a.judged.of(h, header)
	if t == nil {
		t = a.accept(header)
	}
	if len(t.reply) > 0 {
		ctx.Response.Header.SetCanonical([]byte(fasthttp.HeaderWWWAuthenticate),
			base64.StdEncoding.AppendEncode([]byte(negotiate+" "), t.reply))
	}
	id, err := a.holder(t, now, r)
	if err == nil {
		return id, Answered{}
	}
	a.warn("a Kerberos ticket was refused", "client", a.address(ctx), "why", err)
	reason = cut(err.Error())
	if refused, ok := errors.AsType[*spnego.Error](err); ok {
		reason = cut(refused.Text) // the rest is for the log
		if refused.Retry() {
			// The JDK sends a request again, ticket and all, when the connection
			// breaks before the answer. With a challenge it makes a new ticket.
			a.unauthenticated(ctx, reason)
			return nil, Answered{Unauthenticated: withoutCookie(reason)}
		}
	}
	a.forbidden(ctx, reason)
	return nil, Answered{}
}

// holder returns the identity of a ticket's holder.
func (a *Authenticator) holder(t *ticket, now time.Time, r *rules) (*Identity, error) {
	if t.err != nil {
		return nil, t.err
	}
	if err := cookie.CheckValue(t.principal); err != nil {
		return nil, fmt.Errorf("the principal %q %w", t.principal, err)
	}
	short, err := r.shortName(t.principal)
	if err != nil {
		return nil, err
	}
	return a.identity(short, t.principal, now, r), nil
}

// negotiateToken returns what stands behind Negotiate in the Authorization
// header, still in base64. Java compares the scheme exactly and wants no blank
// behind it; in HTTP (RFC 9110 section 11.1) letter case does not count and a
// blank is needed. Whatever either allows is a ticket here.
func negotiateToken(h *fasthttp.RequestHeader) (token []byte, offered bool) {
	header := h.Peek(fasthttp.HeaderAuthorization)
	if len(header) < len(negotiate) || !bytes.EqualFold(header[:len(negotiate)], []byte(negotiate)) {
		return nil, false
	}
	return bytes.TrimSpace(header[len(negotiate):]), true
}

// accept has the token of a Negotiate header accepted.
func (a *Authenticator) accept(text []byte) *ticket {
	raw, err := spnego.Decode(text)
	if err != nil {
		return &ticket{err: err}
	}
	var t ticket
	t.principal, t.reply, t.err = a.c.Negotiator.Accept(raw)
	return &t
}

// judgements are the tickets that were accepted before the body of their request
// was read; one that was refused can be refused again. They are known by the
// header of the request, which stays in place until the request is answered.
type judgements struct {
	count atomic.Int64 // of held; tells the usual request that there is nothing to look for
	mu    sync.Mutex
	held  map[*fasthttp.RequestHeader]judgement
}

type judgement struct {
	ticket *ticket
	token  []byte // that the judgement is about
	made   time.Time
}

const (
	// judgementLife is longer than any request takes to arrive. It only matters
	// for judgements that nobody came back for.
	judgementLife = time.Minute
	// maxJudgements bounds them. A request whose judgement had to go is answered
	// as a replay, with a challenge.
	maxJudgements = 1024
)

// of returns what was found out about the token in the request of h.
func (j *judgements) of(h *fasthttp.RequestHeader, token []byte) *ticket {
	if j.count.Load() == 0 {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if found, ok := j.held[h]; ok && secret.Equal(found.token, token) {
		return found.ticket
	}
	return nil
}

func (j *judgements) hold(h *fasthttp.RequestHeader, token []byte, t *ticket, now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.held == nil {
		j.held = map[*fasthttp.RequestHeader]judgement{}
	}
	for other, old := range j.held {
		if now.Sub(old.made) > judgementLife || len(j.held) >= maxJudgements {
			delete(j.held, other)
		}
	}
	j.held[h] = judgement{t, bytes.Clone(token), now}
	j.count.Store(int64(len(j.held)))
}

// judgeTicket reports whether the ticket in h is somebody's.
func (a *Authenticator) judgeTicket(h *fasthttp.RequestHeader, now time.Time, r *rules) bool {
	token, offered := negotiateToken(h)
	if !offered {
		return false
	}
	t := a.judged.of(h, token)
	if t == nil {
		if t = a.accept(token); t.err == nil {
			a.judged.hold(h, token, t, now)
		}
	}
	_, err := a.holder(t, now, r)
	return err == nil
}

// Forget ends what Judge remembered about a request. It is called when the
// request was answered or given up, whether Judge was asked or not.
func (a *Authenticator) Forget(h *fasthttp.RequestHeader) {
	j := &a.judged
	if j.count.Load() == 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.held, h)
	j.count.Store(int64(len(j.held)))
}
