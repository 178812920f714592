package authn

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"
)

// reasonMax is the length at which Jetty cuts a reason phrase. Reasons that
// quote a cookie are cut there everywhere, so that nobody gets more back than
// they sent.
const reasonMax = 1024

// unauthenticated writes the 401 that makes clients authenticate: reason as the
// reason phrase, the challenge without which the Java client does not try again,
// and a cleared cookie.
func (a *Authenticator) unauthenticated(ctx *fasthttp.RequestCtx, reason string) {
	a.page(ctx, fasthttp.StatusUnauthorized, reason)
	ctx.Response.Header.SetCanonical([]byte(fasthttp.HeaderWWWAuthenticate), []byte(a.challenge))
	a.clearCookie(ctx)
}

// forbidden writes the 403 of a credential that is not good, without a
// challenge: the Java client gives up. What proves this server stays.
func (a *Authenticator) forbidden(ctx *fasthttp.RequestCtx, reason string) {
	a.page(ctx, fasthttp.StatusForbidden, reason)
	a.clearCookie(ctx)
}

func (a *Authenticator) clearCookie(ctx *fasthttp.RequestCtx) {
	ctx.Response.Header.AddBytesV(fasthttp.HeaderSetCookie, a.c.Cookie.AppendSet(nil, nil, 0, ctx.IsTLS()))
}

// page writes an answer of the servlet container: reason as the reason phrase,
// which must not be empty, and where Jetty adds an error page, one in Jetty's
// words.
func (a *Authenticator) page(ctx *fasthttp.RequestCtx, status int, reason string) {
	resp := &ctx.Response
	resp.ResetBody()
	resp.SetStatusCode(status)
	resp.Header.SetStatusMessage([]byte(printable(reason)))
	resp.Header.SetNoDefaultContentType(true)
	resp.Header.Del(fasthttp.HeaderContentType)
	// Jetty's error handling drops what the filters before it had set.
	resp.Header.Del(fasthttp.HeaderExpires)
	resp.Header.Del(fasthttp.HeaderCacheControl)
	switch string(ctx.Method()) {
	case fasthttp.MethodGet, fasthttp.MethodPost, fasthttp.MethodHead:
		resp.Header.Set(fasthttp.HeaderCacheControl, "must-revalidate,no-cache,no-store")
		page, contentType := errorPage(ctx.Request.Header.Peek(fasthttp.HeaderAccept), requestPath(ctx.RequestURI()), status, reason)
		if contentType != "" {
			resp.Header.SetContentType(contentType)
			resp.SetBodyString(page)
		}
	}
}

// illegalError is a parameter that cannot be used.
type illegalError struct {
	text       string
	overlooked bool // by Hadoop
}

func (e *illegalError) Error() string { return e.text }

// illegal refuses a parameter. Where Hadoop fails with a status of 500, so
// does this; what Hadoop overlooks is a 400, which does not send clients on to
// the next server.
func (a *Authenticator) illegal(ctx *fasthttp.RequestCtx, err *illegalError) {
	status := fasthttp.StatusInternalServerError
	if err.overlooked {
		status = fasthttp.StatusBadRequest
	}
	a.c.WriteError(ctx, status, "IllegalArgumentException", classIllegalArgument, err.text)
}

const (
	classIllegalArgument = "java.lang.IllegalArgumentException"
	contentTypeNone      = "text/plain;charset=utf-8" // of answers without a body
)

// cut bounds a reason.
func cut(reason string) string { return reason[:min(len(reason), reasonMax)] }

// printable replaces all but printable ASCII: it keeps what senders wrote from
// ending a header line and from depending on a charset.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// requestPath returns the path of a request target as it was sent.
func requestPath(target []byte) string {
	if _, rest, absolute := bytes.Cut(target, []byte("://")); absolute && target[0] != '/' {
		if i := bytes.IndexByte(rest, '/'); i >= 0 {
			target = rest[i:]
		}
	}
	if i := bytes.IndexAny(target, "?#"); i >= 0 {
		target = target[:i]
	}
	return string(target)
}

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&apos;")

// errorPage makes the body of a refusal as Jetty 9.4 makes it under KMS, in the
// representation that the Accept header prefers. The content type is empty
// when there is none that it accepts. The Java server escapes the message
// twice, its plain text once more than needed; clients of all kinds have seen
// it so.
func errorPage(accept []byte, path string, status int, reason string) (body, contentType string) {
	uri, once := escaper.Replace(printable(path)), escaper.Replace(printable(reason))
	message, servlet, code := escaper.Replace(once), servletName(path), strconv.Itoa(status)
	switch representation(accept) {
	case "html":
		return `<html>
<head>
<meta http-equiv="Content-Type" content="text/html;charset=ISO-8859-1"/>
<title>Error ` + code + ` ` + message + `</title>
</head>
<body><h2>HTTP ERROR ` + code + ` ` + message + `</h2>
<table>
<tr><th>URI:</th><td>` + uri + `</td></tr>
<tr><th>STATUS:</th><td>` + code + `</td></tr>
<tr><th>MESSAGE:</th><td>` + message + `</td></tr>
<tr><th>SERVLET:</th><td>` + servlet + `</td></tr>
</table>

</body>
</html>
`, "text/html;charset=iso-8859-1"
	case "plain":
		return "HTTP ERROR " + code + " " + message + "\nURI: " + uri + "\nSTATUS: " + code + "\nMESSAGE: " + once + "\nSERVLET: " + servlet + "\n",
			"text/plain;charset=iso-8859-1"
	case "json":
		return "{\n\"servlet\":\"" + servlet + "\",\n\"message\":\"" + message + "\",\n\"url\":\"" +
			strings.ReplaceAll(uri, `\`, `\\`) + "\",\n\"status\":\"" + code + "\"\n}", "application/json"
	}
	return "", ""
}

// servletName is what Jetty calls the servlet behind a path.
func servletName(path string) string {
	switch path {
	case "/jmx":
		return "jmx"
	case "/kms/jmx":
		return "jmx-servlet"
	}
	return "webservices-driver"
}

// representation picks from an Accept header the media type of the highest
// quality, the first of equals, for which Jetty has an error page.
func representation(accept []byte) (kind string) {
	if len(accept) == 0 {
		return "html"
	}
	best := 0.0
	for item := range strings.SplitSeq(string(accept), ",") {
		mediaType, parameters, _ := strings.Cut(item, ";")
		quality := 1.0
		for p := range strings.SplitSeq(parameters, ";") {
			if q, ok := strings.CutPrefix(strings.TrimSpace(p), "q="); ok {
				quality, _ = strconv.ParseFloat(strings.TrimSpace(q), 64)
			}
		}
		offered := ""
		switch strings.ToLower(strings.TrimSpace(mediaType)) {
		case "text/html", "text/*", "*/*":
			offered = "html"
		case "text/plain":
			offered = "plain"
		case "application/json", "text/json":
			offered = "json"
		}
		if offered != "" && quality > best {
			kind, best = offered, quality
		}
	}
	return kind
}
