package proxy

import (
	"time"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/proxy/audit"
	"github.com/edekd/edekd/proxy/authn"
)

// event is what the audit log is told of an authenticated request. It costs
// nothing: key may be a view.
func (s *Server) event(r *request, op audit.Op, key string) audit.Event {
	return audit.Event{Op: op, Key: key, Caller: r.id.Caller, RealFull: r.id.RealFull, Auth: r.id.Auth(), Client: s.c.Peers.Addr(r.ctx), Request: r.ctx.ID()}
}

// unaudited is the answer in place of a denial that could not be written down.
func unaudited(err error) error {
	return &edek.Error{Kind: edek.Unavailable, Op: "audit", Text: unauditedText, Err: err}
}

const unauditedText = "the audit log cannot be written, and nothing is denied unaudited"

// auditAnswered writes down what authentication answered by itself. When that
// fails the answer becomes another.
func (s *Server) auditAnswered(ctx *fasthttp.RequestCtx, answered *authn.Answered) {
	var err error
	switch {
	case answered.Act != nil:
		err = s.auditAct(ctx, answered.Act)
	case answered.Unauthenticated != "" && !ctx.IsOptions():
		e := audit.Event{Client: s.c.Peers.Addr(ctx), Request: ctx.ID()}
		err = s.c.Audit.Unauthenticated(e, string(ctx.Method()), requestURL(ctx), answered.Unauthenticated)
	}
	if err == nil {
		return
	}
	s.c.Log.Warn("request failed", "error", err)
	ctx.Response.Reset()
	s.setHeaders(ctx, ctx.Time())
	WriteError(ctx, fasthttp.StatusInternalServerError, classIO.simpleName(), string(classIO), unauditedText)
}

// actOps are the names of acts in the audit.
var actOps = [...]audit.Op{
	authn.Impersonate: audit.Impersonate,
	authn.UseToken:    audit.UseToken,
	authn.GetToken:    audit.GetToken,
	authn.RenewToken:  audit.RenewToken,
	authn.CancelToken: audit.CancelToken,
}

func (s *Server) auditAct(ctx *fasthttp.RequestCtx, act *authn.Act) error {
	c := audit.Credential{
		Event:    audit.Event{Op: actOps[act.Kind], Caller: act.Caller, Client: s.c.Peers.Addr(ctx), Request: ctx.ID()},
		Sequence: act.Sequence,
	}
	if act.Refusal != "" {
		c.Status, c.Method, c.Reason = ctx.Response.StatusCode(), string(ctx.Method()), act.Refusal
		s.warnOfRefusal(&c, act.Kind)
	}
	return s.c.Audit.Credential(c)
}

// warnOfRefusal tells the log, of each kind once a second at most, so that
// nobody fills it.
func (s *Server) warnOfRefusal(c *audit.Credential, kind authn.ActKind) {
	now, warned := time.Now().Unix(), &s.warned[kind]
	if last := warned.Load(); last == now || !warned.CompareAndSwap(last, now) {
		return
	}
	args := []any{"op", c.Op, "user", loggable(c.Caller.Full), "realUser", c.Caller.Real, "client", c.Client, "status", c.Status, "reason", loggable(c.Reason)}
	if c.Sequence != nil {
		args = append(args, "tokenSequence", *c.Sequence)
	}
	s.c.Log.Warn("refused to act for somebody", args...)
}

// loggable bounds what a sender wrote.
func loggable(s string) string { return s[:min(len(s), 1024)] }
