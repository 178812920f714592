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

// exceptionsInRow is after how many exceptions to edekd's own requests, with no
// other answer to anybody between, a node may be broken: as many as the faults
// that open a breaker.
const exceptionsInRow = 5

// ask makes one attempt at a node, and finds out what is to blame where one
// answer does not tell.
//
// An exception is no fault: it can be about the caller or the key, and no user may
// take a node away by making or asking for an odd one. But a node whose own store
// is gone answers nothing else. That is found by edekd's own requests: when some in
// a row got exceptions, and nobody got an answer meanwhile (a Java KMS goes on with
// what it has cached, another edekd with what it fetched ahead), the node is asked
// what is about no one key. An exception to that, too, takes it out of use until it
// answers that. The breaker is of no use here: for it, the exceptions that users
// get meanwhile are answers.
func (c *Client) ask(ctx context.Context, n *node, t *http.Transport, r *request, take func([]byte) error) error {
	err := c.exchange(ctx, n, t, r, take)
	switch own := r.caller == (edek.Caller{}); {
	case err == nil || edek.KindOf(err) == edek.NotFound:
		if r.bound > 0 {
			n.answered()
		}
		if own && r.path == metadataPath {
			first, _, _ := strings.Cut(r.query, "&")
			n.known.Store(&first)
		}
	case errors.Is(err, errPage) && r.named():
		// A web server before the KMS may refuse paths for the name in them: Apache
		// does that with an encoded slash. Whether it refuses all shows where no
		// name is.
		if !atFault(c.unnamed(ctx, n)) {
			return &edek.Error{Kind: edek.Invalid, Op: r.op, Key: r.key, Text: "a web server before the upstream KMS does not take this name in a URL: " + err.Error()}
		}
	case own && broken(err) && n.exceptions.Add(1) >= exceptionsInRow && broken(c.unnamed(ctx, n)):
		n.broken.Store(true)
		// Not wrapped: it is nobody's answer.
		err = &upstream.Fault{Err: fmt.Errorf("%s: it answers nothing but exceptions: %v", n.addr, err), Sent: true}
		c.set.Blame(n.index, err)
	}
	return err
}

// answered notes that the node answered a question.
func (n *node) answered() {
	if n.exceptions.Load() != 0 { // hardly ever, so that this is not written to all the time
		n.exceptions.Store(0)
	}
}

// broken reports whether an exception to a question of edekd's can mean that the
// node answers no questions: not if it denies something, or blames the question.
func broken(err error) bool {
	f, ok := errors.AsType[*edek.Foreign](err)
	return ok && f.Status >= http.StatusInternalServerError && !f.Denies()
}

// atFault reports whether an answer to unnamed shows that the node is to blame.
func atFault(err error) bool {
	_, isFault := errors.AsType[*upstream.Fault](err)
	return isFault || broken(err)
}

// named reports whether the name of a key or version is in the path.
func (r *request) named() bool {
	return strings.HasPrefix(r.path, "key/") || strings.HasPrefix(r.path, "keyversion/")
}

// nobodys is a name that no key has.
const nobodys = "no-such-key.edekd"

// unnamed asks a node whether it answers edekd at all. No key's name is in the
// path, and no one key's trouble makes the answer an exception: first comes the
// key that the node last told edekd something of, then, since that one may have
// been damaged, nobody's. That alone would not do: some KMS may answer with
// exceptions about what it does not have.
func (c *Client) unnamed(ctx context.Context, n *node) (err error) {
	queries := []string{"key=" + nobodys}
	if known := n.known.Load(); known != nil {
		queries = []string{*known, "key=" + nobodys}
	}
	for _, query := range queries {
		err = c.exchange(ctx, n, c.pooled, &request{op: "find out whether it answers", method: http.MethodGet, path: metadataPath, query: query,
			status: http.StatusOK, bound: maxMetadata, swollen: true}, nil)
		if err == nil {
			n.answered()
		}
		if !broken(err) {
			return err
		}
	}
	return err
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
