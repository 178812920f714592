// Package proxy is the front end that Hadoop clients talk to: the KMS REST
// interface over fasthttp, byte for byte as the Java server speaks it where a
// client could notice.
//
// A request goes through route, authentication, handler and audit. Names are
// taken from the raw request target and decoded once; nothing here looks at a
// cleaned or re-parsed path. The package does not know where keys live: it is
// given a cache.
//
// On the hot path (generate and decrypt with a known cookie) nothing of ours
// allocates. Buffers of ours that held key bytes are cleared before they are
// reused; the response's, and the copies made of it for the socket, are those
// of fasthttp and of the TLS layer.
package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/cache"
	"github.com/edekd/edekd/internal/quietly"
	"github.com/edekd/edekd/proxy/audit"
	"github.com/edekd/edekd/proxy/authn"
	"github.com/edekd/edekd/proxy/authz"
	"github.com/edekd/edekd/proxy/jmx"
	"github.com/edekd/edekd/proxy/peer"
)

// Limits bound what one request may ask for.
type Limits struct {
	NumKeys      int // EDEKs of one generate
	BatchEntries int // EDEKs of one batch
	BatchBody    int // bytes of a batch's body
	Body         int // bytes of any other body
	Header       int // bytes of request line and headers
}

// Config is what a Server needs. All pointers are required but Admins.
type Config struct {
	Peers   *peer.Peers // says where requests come from
	Cache   *cache.Cache
	Authn   *authn.Authenticator
	Authz   *authz.Authorizer
	Audit   *audit.Log
	JMX     *jmx.Registry
	Metrics *metrics.Set
	Log     *slog.Logger

	// AccessLog receives one line for each answer, from many goroutines at
	// once. Nil: none.
	AccessLog io.Writer

	Limits      Limits
	IdleTimeout time.Duration // of kept-alive connections; the JDK's own is 5 s, so keep it well above

	DefaultCipher    string
	DefaultBitLength int
	// KeyAuthorization is hadoop.kms.key.authorization.enable: whether the key
	// layer is asked, which also gives each new key the attribute key.acl.name.
	KeyAuthorization bool

	// Open are paths outside /kms/v1 that need no authentication, besides
	// /healthz and /readyz: what hadoop.kms.authentication.kerberos.endpoint.whitelist
	// names, and /metrics where authentication is simple.
	Open []string
	// Admins are who may see /metrics and /jmx on the port of the KMS
	// (hadoop.kms.http.administrators), which are then not open whatever Open
	// says. Nil, where hadoop.security.instrumentation.requires.admin and
	// hadoop.security.authorization are not both true: all who authenticate.
	Admins *authz.List

	// Remarks are lines that /readyz adds to its answer while the server is ready:
	// what is wrong with something that all servers share, so that taking them
	// all out of a balancer would only make things worse. Nil: none.
	Remarks func() []string

	// UpstreamUser is what edekd itself is called by the KMS behind it, "" where
	// there is none. Who has that name here is refused.
	UpstreamUser string

	// Headers are sent with every answer (hadoop.http.header.*).
	Headers [][2]string
}

// Server serves the KMS interface. Make one with New.
type Server struct {
	c         Config
	http      fasthttp.Server
	local     fasthttp.Server // of connections that tell who sends their requests
	side      fasthttp.Server // of ServeMetrics
	headers   [][2]string
	common    atomic.Pointer[common]
	large     largeBodies
	serving   sync.Mutex     // guards the next two
	listeners []net.Listener // of those that have begun to serve
	stopped   bool
	draining  atomic.Bool
	requests  sync.Pool // of *request
	failures  quietly.Some
	warned    [len(actOps)]atomic.Int64 // when the log was told of a refusal of that kind, s since the epoch
	counts    [rows][]*metrics.Counter
	latency   [rows]*metrics.PrometheusHistogram
	meters    meters
}

// statuses are those counted apart; the last counts all others.
var statuses = []int{200, 201, 400, 401, 403, 404, 500, 503, 0}

// New makes a server; Serve starts it.
func New(c Config) *Server {
	s := &Server{c: c, meters: newMeters(c.JMX), failures: quietly.Some{Most: failuresLogged}}
	s.requests.New = func() any { return new(request) }
	s.headers = append([][2]string{
		{"Cache-Control", "no-cache"},
		{"Pragma", "no-cache"},
		{"X-Content-Type-Options", "nosniff"},
		{"X-XSS-Protection", "1; mode=block"},
	}, c.Headers...)
	bounds := metrics.ExponentialBuckets(10e-6, 1.6, 32) // 10 µs … 21 s
	for row, label := range rowLabels {
		s.latency[row] = c.Metrics.NewPrometheusHistogramExt(`edekd_request_seconds{op="`+label+`"}`, bounds)
		for _, status := range statuses {
			s.counts[row] = append(s.counts[row],
				c.Metrics.NewCounter(`edekd_requests_total{op="`+label+`",status="`+statusLabel(status)+`"}`))
		}
	}
	c.Metrics.NewGauge(`edekd_connections`, func() float64 {
		return float64(s.http.GetOpenConnectionsCount() + s.local.GetOpenConnectionsCount())
	})
	c.Metrics.NewGauge(`edekd_draining`, func() float64 {
		if s.draining.Load() {
			return 1
		}
		return 0
	})
	s.http, s.local = s.front(s.bodyLimit), s.front(s.localBodyLimit)
	s.side = fasthttp.Server{
		Handler:               s.handleMetrics,
		ErrorHandler:          s.handleUnreadable,
		ReadBufferSize:        c.Limits.Header,
		MaxRequestBodySize:    c.Limits.Body,
		ReadTimeout:           readTimeout,
		WriteTimeout:          writeTimeout,
		IdleTimeout:           c.IdleTimeout,
		NoDefaultServerHeader: true,
		NoDefaultContentType:  true,
		SecureErrorLogMessage: true,
		CloseOnShutdown:       true,
		Logger:                quiet{c.Log},
	}
	return s
}

// front sets up a server of the KMS interface.
func (s *Server) front(bodyLimit func(*fasthttp.RequestHeader) fasthttp.RequestConfig) fasthttp.Server {
	return fasthttp.Server{
		Handler:                      s.handle,
		ErrorHandler:                 s.handleUnreadable,
		HeaderReceived:               bodyLimit,
		ExpectHandler:                s.expect,
		ReadBufferSize:               s.c.Limits.Header,
		MaxRequestBodySize:           s.c.Limits.Body,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  s.c.IdleTimeout,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		SecureErrorLogMessage:        true,
		CloseOnShutdown:              true,
		DisablePreParseMultipartForm: true,
		Logger:                       quiet{s.c.Log},
	}
}

// A request must have arrived whole, and its answer be taken, within these.
const (
	readTimeout  = 10 * time.Second
	writeTimeout = 30 * time.Second
)

// Serve answers connections from l until Shutdown; it then returns nil, at
// once if Shutdown came first.
func (s *Server) Serve(l net.Listener) error { return s.serveUntilStopped(&s.http, l) }

func (s *Server) serveUntilStopped(server *fasthttp.Server, l net.Listener) error {
	s.serving.Lock()
	s.listeners = append(s.listeners, l)
	stopped := s.stopped
	s.serving.Unlock()
	if stopped {
		return l.Close()
	}
	err := server.Serve(l)
	s.serving.Lock()
	defer s.serving.Unlock()
	if s.stopped {
		return nil
	}
	return err
}

// Drain makes /readyz fail and each further answer carry Connection: close,
// while connections are still accepted: balancers and clients go elsewhere
// without losing a request. It can't be undone.
func (s *Server) Drain() { s.draining.Store(true) }

// Shutdown stops accepting, lets running requests finish, and returns when all
// connections are closed or ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Drain()
	s.serving.Lock()
	s.stopped = true
	listeners := s.listeners
	s.serving.Unlock()
	var errs [3]error
	var ended sync.WaitGroup
	for i, server := range []*fasthttp.Server{&s.http, &s.local, &s.side} {
		ended.Go(func() { errs[i] = server.ShutdownWithContext(ctx) })
	}
	ended.Wait()
	err := errors.Join(errs[:]...)
	for _, l := range listeners {
		// fasthttp shuts nothing down that has not begun: the closed listener
		// keeps a Serve that is about to from going on for ever. Mostly it is
		// closed already, which is the only error there can be.
		l.Close()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("connections were still open at the deadline")
	}
	return err
}

// quiet keeps fasthttp's messages, which quote what a client sent, out of the
// log unless somebody debugs.
type quiet struct{ log *slog.Logger }

func (q quiet) Printf(format string, _ ...any) { q.log.Debug("fasthttp", "message", format) }

// bodyLimit runs when a request's headers have been read and before its body
// is.
func (s *Server) bodyLimit(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	return s.limitBody(h, false)
}

// localBodyLimit is bodyLimit for connections that tell who sends the request.
func (s *Server) localBodyLimit(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	return s.limitBody(h, true)
}

// limitBody begins with what may be left of another request: headers are reused,
// and fasthttp does not tell of each connection that ended within a request.
func (s *Server) limitBody(h *fasthttp.RequestHeader, known bool) (rc fasthttp.RequestConfig) {
	s.forget(h)
	n := h.ContentLength()
	if (n > s.c.Limits.Body || n == chunkedBody) && s.judgeBody(h, n, known) == bodyWelcome {
		rc.MaxRequestBodySize = s.c.Limits.BatchBody
	}
	return rc
}

// forget ends what was kept of the request of h between its headers and its
// answer.
func (s *Server) forget(h *fasthttp.RequestHeader) {
	s.large.giveBack(h)
	s.c.Authn.Forget(h)
}

// expect refuses a body that is announced as too large before it is sent.
func (s *Server) expect(ctx *fasthttp.RequestCtx) int {
	n := ctx.Request.Header.ContentLength()
	if n <= s.c.Limits.Body || s.judgeBody(&ctx.Request.Header, n, known(ctx.RemoteAddr())) == bodyWelcome {
		return fasthttp.StatusContinue
	}
	s.handleUnreadable(ctx, fasthttp.ErrBodyTooLarge)
	return ctx.Response.StatusCode()
}

// handleUnreadable answers a request that could not be read whole. The
// connection is closed after it: nobody knows where the next request begins.
func (s *Server) handleUnreadable(ctx *fasthttp.RequestCtx, err error) {
	defer s.forget(&ctx.Request.Header)
	a, text := answer{fasthttp.StatusBadRequest, classIllegalArgument}, "the request is not HTTP/1.1 as this server reads it"
	var small *fasthttp.ErrSmallBuffer
	var network net.Error
	switch {
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		switch s.judgeBody(&ctx.Request.Header, ctx.Request.Header.ContentLength(), known(ctx.RemoteAddr())) {
		case bodyOfNobody:
			s.refuseUnread(ctx)
			return
		case bodyMustWait:
			a = answer{fasthttp.StatusInternalServerError, classIO} // the client may try another host
			text = "too many large batches are being read at once; try again"
		default: // welcome, but for its length: a chunked one shows that late
			text = "the body is larger than this server takes (edekd.limits.body-bytes, for batches edekd.limits.batch-body-bytes)"
		}
	case errors.As(err, &small):
		a.status = fasthttp.StatusRequestHeaderFieldsTooLarge
		text = "the headers are larger than this server takes (hadoop.http.max.request.header.size)"
	case errors.As(err, &network) && network.Timeout():
		a = answer{fasthttp.StatusRequestTimeout, classIO} // the network's doing: the client may try another host
		text = "the request did not arrive whole in time"
	}
	ctx.Response.Reset()
	s.setHeaders(ctx, time.Now()) // ctx has no time until a request was read
	WriteError(ctx, a.status, a.class.simpleName(), string(a.class), text)
	linger(ctx.Conn())
	s.count(rowUnknown, a.status)
	s.c.Log.Debug("unreadable request", "remote", ctx.RemoteAddr(), "status", a.status, "error", err)
}

// refuseUnread answers a request whose body was not read because its sender
// has yet to authenticate: the answer is that of any unauthenticated request.
func (s *Server) refuseUnread(ctx *fasthttp.RequestCtx) {
	ctx.Response.Reset()
	s.setHeaders(ctx, time.Now())
	defer func() {
		if s.panicked(recover()) {
			WriteError(ctx, fasthttp.StatusInternalServerError, classInternal.simpleName(), string(classInternal),
				"the server could not do this; its log says why")
		}
	}()
	id, answered := s.c.Authn.Authenticate(ctx, time.Now())
	if id != nil { // has become somebody since, say because a store answers again
		WriteError(ctx, fasthttp.StatusInternalServerError, classIO.simpleName(), string(classIO),
			"it was not known in time who sends this; try again")
	} else {
		s.auditAnswered(ctx, &answered)
	}
	linger(ctx.Conn())
	s.count(batchRow(&ctx.Request.Header), ctx.Response.StatusCode())
}

// common is what every answer's headers begin with, during one second.
type common struct {
	second int64
	header fasthttp.ResponseHeader // read only
}

// setHeaders gives a fresh response what every answer carries. As the Java
// server does it, all answers expire the moment they are sent. Copying a header
// costs half of setting its fields.
func (s *Server) setHeaders(ctx *fasthttp.RequestCtx, now time.Time) {
	c := s.common.Load()
	if c == nil || c.second != now.Unix() {
		c = s.newCommon(now)
		s.common.Store(c)
	}
	h := &ctx.Response.Header
	c.header.CopyTo(h)
	if s.draining.Load() {
		h.SetConnectionClose()
	}
}

func (s *Server) newCommon(now time.Time) *common {
	c := &common{second: now.Unix()}
	c.header.SetNoDefaultContentType(true)
	c.header.SetCanonical([]byte("Expires"), fasthttp.AppendHTTPDate(nil, now))
	for _, h := range s.headers {
		c.header.SetCanonical([]byte(h[0]), []byte(h[1]))
	}
	return c
}
