package kms

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream"
)

// ask makes one attempt at a node, and finds out what is to blame where one
// answer does not tell.
func (c *Client) ask(ctx context.Context, n *node, t *http.Transport, r *request, take func([]byte) error) error {
	err := c.exchange(ctx, n, t, r, take)
	if errors.Is(err, errPage) && r.named() {
		// A web server before the KMS may refuse paths for the name in them: Apache
		// does that with an encoded slash. Whether it refuses all shows where no
		// name is.
		if _, isFault := errors.AsType[*upstream.Fault](c.unnamed(ctx, n)); !isFault {
			return &edek.Error{Kind: edek.Invalid, Op: r.op, Key: r.key, Text: "a web server before the upstream KMS does not take this name in a URL: " + err.Error()}
		}
	}
	return err
}

// named reports whether the name of a key or version is in the path.
func (r *request) named() bool {
	return strings.HasPrefix(r.path, "key/") || strings.HasPrefix(r.path, "keyversion/")
}

// nobodys is a name that no key has.
const nobodys = "no-such-key.edekd"

// unnamed asks a node a question of edekd's own that is about no key.
func (c *Client) unnamed(ctx context.Context, n *node) error {
	return c.exchange(ctx, n, c.pooled, &request{op: "find out whether it answers", method: http.MethodGet, path: "keys/metadata", query: "key=" + nobodys,
		status: http.StatusOK, bound: maxMetadata}, nil)
}

// exchange asks a node once: with a login before it where one is needed,
// and again where the node no longer takes the cookie.
func (c *Client) exchange(ctx context.Context, n *node, t *http.Transport, r *request, take func([]byte) error) error {
	cookie, err := c.credentials(ctx, n)
	if err != nil {
		return &upstream.Fault{Err: fmt.Errorf("%s: %w", n.addr, err)}
	}
	body, err := c.send(ctx, n, t, r, cookie)
	if cookie != "" && errors.Is(err, errUnauthenticated) {
		n.session.forget(cookie)
		if cookie, err = c.credentials(ctx, n); err != nil {
			return &upstream.Fault{Err: fmt.Errorf("%s: %w", n.addr, err)}
		}
		body, err = c.send(ctx, n, t, r, cookie)
	}
	if err != nil || take == nil {
		return err
	}
	err = take(body)
	clear(body)
	if err == nil || edek.KindOf(err) == edek.NotFound {
		return err
	}
	return &upstream.Fault{Err: fmt.Errorf("%s: its answer is not one to the question: %w", n.addr, err), Sent: true}
}

// send is one HTTP exchange. The body is the caller's.
func (c *Client) send(ctx context.Context, n *node, t *http.Transport, r *request, cookie string) ([]byte, error) {
	if r.batch && !n.batches.Load() {
		return nil, upstream.ErrNotSent
	}
	var sent atomic.Bool
	fault := func(err error) error {
		if r.slow && errors.Is(err, context.DeadlineExceeded) {
			return &edek.Error{Kind: edek.Unavailable, Op: r.op, Key: r.key, Text: "the upstream KMS takes too long: allow more time for an attempt", Err: err}
		}
		return &upstream.Fault{Err: fmt.Errorf("%s: %w", n.addr, err), Sent: sent.Load()}
	}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }})
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	q, err := http.NewRequestWithContext(ctx, r.method, n.base+r.path+c.parameters(r), body)
	if err != nil {
		return nil, &edek.Error{Kind: edek.Invalid, Op: r.op, Key: r.key, Text: "the name cannot be put into a URL", Err: err}
	}
	q.Header.Set("User-Agent", agent)
	if body != nil {
		q.Header.Set("Content-Type", "application/json")
	}
	if cookie != "" {
		q.Header.Set("Cookie", cookie)
	}
	resp, err := t.RoundTrip(q)
	// Another server may be there by the time a node answers again. A request that
	// was called off says nothing of that.
	if err == nil || !errors.Is(ctx.Err(), context.Canceled) {
		n.batches.Store(err == nil && resp.Header.Get(batchHeader) == batchDecrypt)
	}
	if err != nil {
		return nil, fault(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != r.status {
		err := refused(n, resp)
		if errors.Is(err, errUnauthenticated) {
			sent.Store(false) // the filter before the interface has stopped it
			return nil, fault(err)
		}
		if errors.Is(err, errForeign) {
			return nil, fault(err)
		}
		return nil, err
	}
	if r.bound == 0 {
		io.CopyN(io.Discard, resp.Body, maxError) // for the connection's sake
		return nil, nil
	}
	if kind := resp.Header.Get("Content-Type"); !isJSON(kind) {
		return nil, fault(fmt.Errorf("it answers with Content-Type %q, not JSON: is this a KMS?", oneLine(kind, 100)))
	}
	answer, err := readAll(resp, r.bound, r.expect)
	if errors.Is(err, errSwollen) && r.swollen {
		return nil, &edek.Error{Kind: edek.Corrupt, Op: r.op, Key: r.key, Text: fmt.Sprintf("%s answers with more than %d bytes", n.addr, r.bound), Err: err}
	}
	if err != nil {
		return nil, fault(err)
	}
	return answer, nil
}
