package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/VictoriaMetrics/metrics"
	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/proxy/authz"
	"github.com/edekd/edekd/proxy/jmx"
	"github.com/edekd/edekd/upstream"
)

const contentTypeText = "text/plain; charset=utf-8"

// serveOpen answers the paths that everybody may see and that tell no secrets:
// neither names of keys nor of users. It reports whether path was one of them.
func (s *Server) serveOpen(r *request, path []byte) bool {
	ctx := r.ctx
	if !ctx.IsGet() && !ctx.IsHead() {
		return false
	}
	switch string(path) {
	case "/healthz":
		ctx.Response.Header.SetContentType(contentTypeText)
		ctx.SetBodyString("ok\n")
		return true
	case "/readyz":
		ctx.Response.Header.SetContentType(contentTypeText)
		if reasons := s.unready(); len(reasons) > 0 {
			ctx.SetStatusCode(fasthttp.StatusServiceUnavailable)
			ctx.SetBodyString(strings.Join(reasons, "\n") + "\n")
		} else {
			ctx.SetBodyString(strings.Join(append([]string{"ready"}, s.remarks()...), "\n") + "\n")
		}
		return true
	}
	return s.c.Admins == nil && slices.Contains(s.c.Open, view(path)) && s.serveInstruments(r, path)
}

// unready returns why balancers should send requests elsewhere, nothing when
// they need not.
func (s *Server) unready() (reasons []string) {
	if s.draining.Load() {
		reasons = append(reasons, "draining")
	}
	if s.c.Audit.Ready() != nil {
		reasons = append(reasons, "audit log cannot be written")
	}
	if s.c.Cache.State() == upstream.Down.String() {
		reasons = append(reasons, upstreamState+upstream.Down.String())
	}
	return reasons
}

// upstreamState begins the line of /readyz that has the state of far keys.
const upstreamState = "upstream: "

// remarks say what is wrong although requests had better still come here.
func (s *Server) remarks() (lines []string) {
	if state := s.c.Cache.State(); state != "" {
		lines = append(lines, upstreamState+state)
	}
	if s.c.Remarks != nil {
		lines = append(lines, s.c.Remarks()...)
	}
	return lines
}

// serveInstruments answers the paths that show how the process fares. It
// reports whether path was one of them.
func (s *Server) serveInstruments(r *request, path []byte) bool {
	ctx := r.ctx
	switch string(path) {
	case "/metrics":
		var b bytes.Buffer
		s.c.Metrics.WritePrometheus(&b)
		metrics.WriteProcessMetrics(&b)
		ctx.Response.Header.SetContentType("text/plain; version=0.0.4; charset=utf-8")
		ctx.SetBody(b.Bytes())
	case "/jmx", "/kms/jmx":
		// A query that is wrong or finds nothing gets the page's words with
		// 200, as from the Java server: it sets its status too late.
		_, body := s.c.JMX.Handle(func(name string) (string, bool) {
			return string(ctx.QueryArgs().Peek(name)), ctx.QueryArgs().Has(name)
		})
		ctx.Response.Header.SetContentType(jmx.ContentType)
		ctx.Response.Header.Set("Access-Control-Allow-Methods", "GET")
		ctx.Response.Header.Set("Access-Control-Allow-Origin", "*")
		ctx.SetBody(body)
	default:
		return false
	}
	return true
}

// serveClosed answers paths outside /kms/v1 to somebody authenticated.
func (s *Server) serveClosed(r *request, path []byte) error {
	ctx := r.ctx
	switch string(path) {
	case "/metrics", "/jmx", "/kms/jmx":
		if ctx.IsOptions() {
			return r.replyEmpty()
		}
		if !ctx.IsGet() && !ctx.IsHead() {
			return &fault{answer{fasthttp.StatusMethodNotAllowed, classIO},
				fmt.Sprintf("HTTP method %s is not supported by this URL", ctx.Method())}
		}
		if err := s.maySeeInstruments(r, path); err != nil {
			return err
		}
		s.serveInstruments(r, path)
		return nil
	}
	if after, ok := bytes.CutPrefix(path, []byte("/kms")); ok && (len(after) == 0 || after[0] == '/' || after[0] == ';') {
		return noSuchPath(ctx)
	}
	return &fault{answer{fasthttp.StatusNotFound, classIO}, "there is nothing here: the KMS interface is under " + restBase}
}

// maySeeInstruments asks whether the sender is an administrator, where that is
// needed (HttpServer2.isInstrumentationAccessAllowed).
func (s *Server) maySeeInstruments(r *request, path []byte) error {
	if s.c.Admins == nil {
		return nil
	}
	err := s.c.Authz.Member(s.c.Admins, &r.id.Caller)
	if errors.Is(err, authz.ErrDenied) {
		s.c.Log.Warn("no administrator", "user", r.id.Caller.Full, "page", string(path), "remedy", "hadoop.kms.http.administrators names them")
		return &fault{answer{fasthttp.StatusForbidden, classAuthorization},
			"User " + r.id.Caller.User + " is unauthorized to access the page " + string(path) + "."}
	}
	return err
}

// ServeMetrics answers /metrics and /jmx, /healthz and /readyz, and nothing
// else, to everybody who reaches l, until Shutdown; it then returns nil.
func (s *Server) ServeMetrics(l net.Listener) error {
	return s.serveUntilStopped(&s.side, l)
}

// handleMetrics answers a request of ServeMetrics.
func (s *Server) handleMetrics(ctx *fasthttp.RequestCtx) {
	r := s.acquire(ctx)
	defer s.finish(r)
	r.row = rowOther
	s.setHeaders(ctx, ctx.Time())
	if !ctx.IsGet() && !ctx.IsHead() {
		WriteError(ctx, fasthttp.StatusMethodNotAllowed, classIO.simpleName(), string(classIO), "this port is for looking only")
		return
	}
	path, _ := splitTarget(ctx.Request.Header.RequestURI())
	if !s.serveOpen(r, path) && !s.serveInstruments(r, path) {
		WriteError(ctx, fasthttp.StatusNotFound, classIO.simpleName(), string(classIO), "there is nothing here but /metrics, /jmx, /healthz and /readyz")
	}
}
