package kms

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/edekd/edekd/edek"
)

const (
	maxError     = 64 << 10 // bytes of an error's body
	maxErrorText = 2000     // bytes of a message
)

var (
	errUnauthenticated = errors.New("it does not accept edekd's login")
	errForeign         = errors.New("it does not answer like a KMS")
	errPage            = fmt.Errorf("%w, but like a web server that does not want this request", errForeign)
	errSwollen         = errors.New("its answer is longer than one to the question can be")
)

func isJSON(contentType string) bool {
	return strings.HasPrefix(strings.ToLower(strings.TrimSpace(contentType)), "application/json")
}

// readAll reads a body of at most bound and of about expect bytes. Where it has
// to grow, nothing is left behind: there may be key bytes in it.
func readAll(resp *http.Response, bound, expect int64) ([]byte, error) {
	if resp.ContentLength > bound {
		return nil, errSwollen
	}
	size := resp.ContentLength
	if size < 0 {
		size = min(bound, max(expect, 4<<10))
	}
	b := make([]byte, 0, size+1)
	for {
		n, err := resp.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case int64(len(b)) > bound:
			clear(b)
			return nil, errSwollen
		case err == io.EOF:
			return b, nil
		case err != nil:
			clear(b)
			return nil, err
		case len(b) == cap(b):
			grown := make([]byte, len(b), min(2*int64(cap(b)), bound+1))
			copy(grown, b)
			clear(b)
			b = grown
		}
	}
}

// refused turns an answer of another status than success has into an error:
// *edek.Foreign for an exception of Java's, errUnauthenticated or errForeign for
// what the node itself is to blame for, its errPage for what may be about the
// path, edek.Invalid for a web server that does not take this one request.
func refused(n *node, resp *http.Response) error {
	status := oneLine(resp.Status, 200)
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized:
		return fmt.Errorf("%w: %s", errUnauthenticated, status)
	case code >= 300 && code < 400:
		return fmt.Errorf("%w: %s: redirects are not followed: name the KMS itself", errForeign, status)
	case code < 400 || code > 599:
		return fmt.Errorf("%w: %s", errForeign, status)
	case code == http.StatusRequestEntityTooLarge || code == http.StatusRequestURITooLong || code == http.StatusRequestHeaderFieldsTooLarge:
		// Too long for a server, whatever it writes into the body.
		return &edek.Error{Kind: edek.Invalid, Op: "ask upstream", Text: n.addr + " does not take the request: " + status}
	}
	why := errForeign
	switch resp.StatusCode {
	case http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
		why = errPage
	}
	if isJSON(resp.Header.Get("Content-Type")) {
		if body, err := readAll(resp, maxError, 0); err == nil {
			if f := remoteException(body); f != nil {
				f.Status, f.Node = resp.StatusCode, n.addr
				return f
			}
		}
		return fmt.Errorf("%w: %s with JSON that is no RemoteException", why, status)
	}
	switch resp.StatusCode {
	case http.StatusForbidden:
		// So ends, in Java's filter, what came with a cookie it cannot verify.
		if strings.Contains(status, "Anonymous requests are disallowed") || strings.Contains(status, "Invalid signature") {
			return fmt.Errorf("%w: %s", errUnauthenticated, status)
		}
	case http.StatusBadRequest:
		// Something is too odd for the web server, before any KMS saw it.
		return &edek.Error{Kind: edek.Invalid, Op: "ask upstream", Text: n.addr + " does not take the request: " + status}
	}
	return fmt.Errorf("%w: %s", why, status)
}

// remoteException reads the body of an error, nil when it is none.
func remoteException(body []byte) *edek.Foreign {
	var e struct {
		RemoteException *struct {
			Message       *string `json:"message"`
			JavaClassName string  `json:"javaClassName"`
		}
	}
	if json.Unmarshal(body, &e) != nil || e.RemoteException == nil || !isClass(e.RemoteException.JavaClassName) {
		return nil
	}
	f := &edek.Foreign{Class: e.RemoteException.JavaClassName}
	if m := e.RemoteException.Message; m != nil {
		f.Text = oneLine(*m, maxErrorText)
	}
	return f
}

// isClass reports whether s can be the name of a Java class.
func isClass(s string) bool {
	if s == "" || len(s) > 200 {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '$' || r == '_')
	})
}

// oneLine cuts a foreign text at the end of its first line and at most bytes,
// and takes control characters out.
func oneLine(s string, most int) string {
	if i := strings.IndexAny(s, "\r\n"); i >= 0 {
		s = s[:i]
	}
	if len(s) > most {
		for most > 0 && !utf8.RuneStart(s[most]) {
			most--
		}
		s = s[:most]
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
}
