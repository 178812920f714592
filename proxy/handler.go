package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"
	"unicode"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/cache"
	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/proxy/audit"
	"github.com/edekd/edekd/proxy/authn"
	"github.com/edekd/edekd/proxy/authz"
)

// request is what handlers share about one request. It is reused: nothing in
// it may be kept.
type request struct {
	ctx  *fasthttp.RequestCtx
	id   *authn.Identity
	row  row
	name []byte        // key or version name, decoded
	far  *cache.FarKey // the key, once mayUse has found that it is a far one

	nameBuf []byte       // where name is decoded into, if it needs to be
	keys    []byte       // scratch for key bytes, cleared after use
	edeks   []byte       // scratch for EDEKs
	batch   []batchEntry // scratch, cleared after use
	eeks    []edek.EDEK  // scratch
}

// The buffers of a request that was larger than these are not kept. keepBody is
// for each connection, which fasthttp lets have the bodies that it once had.
const (
	keepBody  = 256 << 10
	keepKeys  = 1 << 10
	keepBatch = 2048 // the 1000 entries of a NameNode's, in a slice that grew to hold them
	keepEEKs  = 512  // what a NameNode asks for at once
)

func (s *Server) acquire(ctx *fasthttp.RequestCtx) *request {
	r := s.requests.Get().(*request)
	r.ctx = ctx
	return r
}

func (s *Server) release(r *request) {
	clear(r.keys[:cap(r.keys)])
	clear(r.batch)
	r.ctx, r.id, r.name, r.row, r.far, r.batch = nil, nil, nil, rowUnknown, nil, r.batch[:0]
	if cap(r.keys) > keepKeys {
		r.keys = nil
	}
	if cap(r.batch) > keepBatch {
		r.batch = nil
	}
	if cap(r.eeks) > keepEEKs {
		r.eeks = nil
	}
	s.requests.Put(r)
}

// handle answers every request that could be read.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	r := s.acquire(ctx)
	defer s.finish(r)
	s.large.claim(&ctx.Request.Header)
	s.setHeaders(ctx, ctx.Time())
	s.dispatch(r)
}

// finish completes an answer: counters, access log. A handler that
// panicked (fasthttp would let that end the process) becomes a 500. The body,
// which may have brought key bytes whatever became of the request, is cleared.
func (s *Server) finish(r *request) {
	ctx := r.ctx
	if s.panicked(recover()) {
		ctx.Response.ResetBody()
		WriteError(ctx, fasthttp.StatusInternalServerError, classInternal.simpleName(), string(classInternal),
			"the server could not do this; its log says why")
	}
	s.count(r.row, ctx.Response.StatusCode())
	s.latency[r.row].UpdateDuration(ctx.Time())
	if s.c.AccessLog != nil {
		s.logAccess(r)
	}
	body := ctx.Request.Body()
	clear(body)
	if cap(body) > keepBody {
		ctx.Request.SwapBody(nil)
	}
	s.forget(&ctx.Request.Header)
	s.release(r)
}

// panicked logs what recover returned, and whether there was something: a
// panic that reaches fasthttp ends the process.
func (s *Server) panicked(p any) bool {
	if p == nil {
		return false
	}
	s.c.Log.Error("a request made this server panic; please report this", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	return true
}

func (s *Server) dispatch(r *request) {
	ctx := r.ctx
	if why := damage(&ctx.Request.Header); why != "" {
		WriteError(ctx, fasthttp.StatusBadRequest, classIllegalArgument.simpleName(), string(classIllegalArgument), why)
		ctx.Response.SetConnectionClose()
		return
	}
	path, _ := splitTarget(ctx.Request.Header.RequestURI())
	rest, inside := restPath(path)
	if inside && bytes.IndexByte(rest, ';') >= 0 {
		rest = cutParameters(bytes.Clone(rest))
	}
	if !inside {
		r.row = rowOther
		if s.serveOpen(r, path) {
			return
		}
	}
	id, answered := s.c.Authn.Authenticate(ctx, ctx.Time())
	if id == nil {
		if answered.TokenOp != "" {
			r.row = rowToken
		}
		s.auditAnswered(ctx, &answered)
		return
	}
	r.id = id
	ctx.Response.Header.SetCanonical(batchHeader, batchDecrypt)
	if err := s.serve(r, rest, path, inside); err != nil {
		s.fail(r, err)
	}
}

// damage says what makes a request that fasthttp could read ambiguous or of
// another protocol, "" for nothing. A message with two lengths may be read as
// two different requests by us and a proxy before us (RFC 9112 section 6.3).
func damage(h *fasthttp.RequestHeader) string {
	if !h.IsHTTP11() && string(h.Protocol()) != "HTTP/1.0" {
		return "this server speaks HTTP/1.1"
	}
	// fasthttp keeps the chunked length, or none where the body was empty.
	if h.ContentLength() <= 0 && !h.IsGet() {
		raw := h.RawHeaders()
		if hasHeader(raw, fasthttp.HeaderTransferEncoding) && hasHeader(raw, fasthttp.HeaderContentLength) {
			return "a request has Content-Length or Transfer-Encoding, not both"
		}
	}
	return ""
}

// chunkedBody is the ContentLength that fasthttp gives a chunked body.
const chunkedBody = -1

// hasHeader reports whether there is a header of that name among raw lines.
func hasHeader(lines []byte, name string) bool {
	for line := range bytes.Lines(lines) {
		key, _, _ := bytes.Cut(line, []byte(":"))
		if strings.EqualFold(view(bytes.TrimSpace(key)), name) {
			return true
		}
	}
	return false
}

// serve does an authenticated request.
func (s *Server) serve(r *request, rest, path []byte, inside bool) error {
	ctx := r.ctx
	if !inside {
		return s.serveClosed(r, path)
	}
	res, name := parsePath(rest)
	if key, ok := asDecryptBatch(ctx.Method(), res, name); ok && beginsArray(ctx.Request.Body()) {
		res, name = resKeyDecryptBatch, key
	}
	if ctx.IsOptions() {
		r.row = rowOptions
		return s.options(r, res)
	}
	if res == resUnknown {
		return noSuchPath(ctx)
	}
	if r.row = rowOf(ctx.Method(), res); r.row == rowUnknown {
		return &fault{answer{fasthttp.StatusInternalServerError, classNotAcceptedMethod},
			fmt.Sprintf("method %q is not served here", ctx.Method())}
	}
	r.name = name
	if bytes.IndexByte(name, '%') >= 0 || bytes.IndexByte(name, 0) >= 0 {
		var err error
		if r.nameBuf, err = appendUnescaped(r.nameBuf[:0], name); err != nil {
			return illegalArgument(err.Error())
		}
		r.name = r.nameBuf
	}
	if err := s.ownName(r); err != nil {
		return err
	}
	return s.do(r)
}

// do runs the row's handler. Each leaves the answer in the response or returns
// the error that explains why there is none.
func (s *Server) do(r *request) error {
	switch r.row {
	case rowGenerate:
		return s.generate(r)
	case rowDecrypt:
		return s.decryptOrReencrypt(r)
	case rowReencryptBatch:
		return s.reencryptBatch(r)
	case rowDecryptBatch:
		return s.decryptBatch(r)
	case rowCreate:
		return s.create(r)
	case rowDelete:
		return s.delete(r)
	case rowRoll:
		return s.roll(r)
	case rowInvalidate:
		return s.invalidate(r)
	case rowKeysMetadata:
		return s.keysMetadata(r)
	case rowNames:
		return s.names(r)
	case rowMetadata:
		return s.metadata(r)
	case rowCurrentVersion:
		return s.currentVersion(r)
	case rowKeyVersion:
		return s.keyVersion(r)
	default:
		return s.versions(r)
	}
}

// fail answers with an error and writes it down: in the audit log as Hadoop
// does, and in our own log with its cause.
func (s *Server) fail(r *request, err error) {
	if unwritten := s.upstreamDenied(r, err); unwritten != nil {
		err = unwritten
	}
	a, text := describe(err)
	method := string(r.ctx.Method())
	r.ctx.Response.ResetBody()
	WriteError(r.ctx, a.status, a.class.simpleName(), string(a.class), text)
	if a.class != classAuthorization { // a denial has its line already
		line, _, _ := strings.Cut(text, "\n")
		s.c.Audit.Error(s.event(r, rowOps[r.row], view(r.name)), a.status, method, line)
	}
	args := []any{"user", r.id.Caller.Full, "method", method, "op", rowLabels[r.row], "status", a.status}
	if !ours(err) {
		s.c.Log.Debug("request failed", append(args, "error", err)...)
		return
	}
	due, omitted := s.failures.Due()
	if !due {
		return
	}
	if omitted > 0 {
		args = append(args, "omitted", omitted)
	}
	s.c.Log.Warn("request failed", append(args, "error", loggable(err.Error()))...)
}

// failuresLogged is how many failed requests the log has in a second at most: while a
// store is away all fail. The audit log has each.
const failuresLogged = 20

// ours reports whether the cause of an error is on this side of the network,
// so that an operator should see it.
func ours(err error) bool {
	switch edek.KindOf(err) {
	case edek.Unavailable, edek.Conflict, edek.Corrupt:
		return true
	case edek.Unsettled:
		return true
	case 0:
		_, told := errors.AsType[*fault](err)
		_, foreign := errors.AsType[*edek.Foreign](err)
		return !told && !foreign && !errors.Is(err, authz.ErrDenied)
	}
	return false
}

// body takes the response's buffer, empty, to append the answer's body to and
// give it to reply. To take it twice is to lose it.
func (r *request) body() []byte { return r.ctx.Response.SwapBody(nil)[:0] }

// reply sends body, which becomes the response's own, with 200.
func (r *request) reply(body []byte) error {
	r.ctx.Response.Header.SetContentTypeBytes(jsonType)
	if cap(body) > keepBody {
		r.ctx.Response.SetBodyRaw(body)
	} else {
		r.ctx.Response.SwapBody(body)
	}
	return nil
}

// roomFor refuses an answer that grows beyond all measure: names and
// descriptions may be long, and one request may ask for thousands.
func (s *Server) roomFor(answer []byte) error {
	if limit := 2 * s.c.Limits.BatchBody; len(answer) > limit {
		return illegalArgument(fmt.Sprintf("the answer would have more than %d bytes: ask for fewer", limit))
	}
	return nil
}

// replyEmpty answers 200 without a body, as delete and invalidate do.
func (r *request) replyEmpty() error {
	r.ctx.Response.Header.SetContentType("text/plain;charset=utf-8")
	return nil
}

var (
	jsonType    = []byte(contentTypeJSON)
	emptyObject = []byte("{ }")
	emptyArray  = []byte("[ ]")
)

func (r *request) replyEmptyObject() error { return r.reply(append(r.body(), emptyObject...)) }

// options answers the handshake that Hadoop clients begin with, on the very
// URL they are about to use.
func (s *Server) options(r *request, res resource) error {
	if res == resUnknown {
		return noSuchPath(r.ctx)
	}
	allow := "OPTIONS"
	for _, method := range []string{"GET", "POST", "DELETE"} {
		if rowOf([]byte(method), res) != rowUnknown {
			if method == "GET" {
				allow += ",HEAD"
			}
			allow += "," + method
		}
	}
	r.ctx.Response.Header.Set("Allow", allow)
	return r.replyEmpty()
}

func noSuchPath(ctx *fasthttp.RequestCtx) error {
	path, _ := splitTarget(ctx.Request.Header.RequestURI())
	return &fault{answer{fasthttp.StatusInternalServerError, classNoSuchPath}, fmt.Sprintf("there is no %q in the KMS interface", path)}
}

// requestURL is the URL as the client wrote it.
func requestURL(ctx *fasthttp.RequestCtx) string {
	path, query := splitTarget(ctx.Request.Header.RequestURI())
	url := scheme(ctx) + "://" + string(ctx.Request.Header.Host()) + string(path)
	if query != nil {
		url += "?" + string(query)
	}
	return url
}

func scheme(ctx *fasthttp.RequestCtx) string {
	if ctx.IsTLS() {
		return "https"
	}
	return "http"
}

// jsonBody returns the body of a row that consumes JSON.
func (r *request) jsonBody() ([]byte, error) {
	mediaType, _, _ := bytes.Cut(r.ctx.Request.Header.ContentType(), []byte(";"))
	if !bytes.EqualFold(bytes.TrimSpace(mediaType), jsonType) {
		return nil, &fault{answer{fasthttp.StatusInternalServerError, classNotAcceptedMethod},
			fmt.Sprintf("Content-Type %q: the body must be application/json", mediaType)}
	}
	return r.ctx.Request.Body(), nil
}

func cannotBeNull(parameter string) error {
	return illegalArgument("Parameter '" + parameter + "' cannot be null")
}

func cannotBeEmpty(parameter string) error {
	return illegalArgument("Parameter '" + parameter + "' cannot be empty")
}

// logAccess writes one line in the extended NCSA format of Jetty's request log.
func (s *Server) logAccess(r *request) {
	ctx, user := r.ctx, "-"
	if r.id != nil {
		user = r.id.Caller.User
	}
	from := s.c.Peers.Addr(ctx).String()
	if process, ok := ctx.RemoteAddr().(*authn.Process); ok {
		from = process.String()
	}
	fmt.Fprintf(s.c.AccessLog, "%s - %s [%s] %q %d %d %q %q %d\n", from, logToken(user),
		ctx.Time().Format("02/Jan/2006:15:04:05 -0700"),
		fmt.Sprintf("%s %s %s", ctx.Method(), audit.Redact(string(ctx.Request.Header.RequestURI())), ctx.Request.Header.Protocol()),
		ctx.Response.StatusCode(), len(ctx.Response.Body()), audit.Redact(string(ctx.Referer())), ctx.UserAgent(),
		time.Since(ctx.Time()).Microseconds())
}

// logToken keeps a name from breaking a line or its fields, whatever the reader
// takes for the end of either.
func logToken(s string) string {
	return strings.Map(func(c rune) rune {
		if c == ' ' || !unicode.IsPrint(c) {
			return '_'
		}
		return c
	}, s)
}
