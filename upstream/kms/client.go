// Package kms speaks Hadoop's KMS REST interface as a client: to a Java KMS, a
// Ranger KMS or edekd, to several equal ones at once (upstream.Set).
//
// Whom the upstream sees: edekd's own service, authenticated by name or by
// Kerberos, and where there is a caller, doAs=<caller>. So the upstream has to
// list the service as a proxy user. Cookies belong to the service, one for each
// node; a cookie is taken from a login only, and nothing of a caller's own,
// neither cookie nor token, is ever sent.
//
// What an upstream says is believed only where it can be true: an answer is
// bounded by what was asked for, has the names that were asked for and the
// lengths that were sent, or is a fault of its node and nothing of it is used.
// Redirects are not followed, proxies from the environment not used, https stays
// https. An exception of Java's is passed on as *edek.Foreign.
//
// Reads, which generate, decrypt and re-encrypt are, may be made twice. Changes
// go over a connection of their own, so that nothing below repeats them when a
// pooled connection breaks, and are never made twice: one whose outcome is not
// known is edek.Unsettled.
//
// Key bytes: material in results belongs to the caller, who zeroes it. Bodies
// are zeroed after use; the buffers of HTTP and TLS below are not.
package kms

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream"
	"github.com/edekd/edekd/upstream/queue"
)

// Client is a KMS with all its nodes. It is safe for concurrent use.
type Client struct {
	config Config
	set    *upstream.Set
	queue  *queue.Queue // for room at the nodes
	nodes  []*node
	pooled *http.Transport // for all but changes
	fresh  *http.Transport // a new connection for each request

	ctx    context.Context // of logins
	stop   context.CancelFunc
	logins sync.WaitGroup
	as     atomic.Pointer[string] // the short name that the upstream gave the service
}

type node struct {
	index      int
	addr       string // host:port
	host       string // as in the service's principal
	base       string // https://host:port/kms/v1/
	session    session
	pending    pending
	batches    atomic.Bool            // its last answer announced _decryptbatch
	known      atomic.Pointer[string] // a query of keys/metadata that it last answered to edekd itself
	exceptions atomic.Uint32          // to edekd's own requests since it last answered anybody
	broken     atomic.Bool            // it has to answer edekd before it is used again
}

const idle = 20 * time.Second // well below the 60 s after which Jetty closes a connection

// New makes a client. It sends nothing yet. Close must be called.
func New(config Config) (*Client, error) {
	if err := config.check(); err != nil {
		return nil, fmt.Errorf("upstream KMS: %w", err)
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	c := &Client{config: config}
	for i, addr := range config.Nodes {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("upstream KMS: node %q: %w", addr, err)
		}
		c.nodes = append(c.nodes, &node{index: i, addr: addr, host: strings.ToLower(host), base: config.Scheme + "://" + addr + config.Path + "/v1/"})
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.queue = queue.New(func() int { return c.set.Places() })
	c.set = upstream.New(config.Nodes, upstream.Settings{Attempt: config.Attempt, Total: config.Total, Open: config.Open,
		InFlight: config.InFlight, Probe: c.probe, Alive: c.alive, Changed: c.changed, NodeChanged: c.nodeChanged})
	c.pooled = c.transport()
	c.fresh = c.transport()
	c.fresh.DisableKeepAlives = true
	return c, nil
}

func (c *Client) transport() *http.Transport {
	patience := c.set.Attempt()
	t := &http.Transport{
		DialContext:            (&net.Dialer{Timeout: patience}).DialContext,
		TLSHandshakeTimeout:    patience,
		DisableCompression:     true, // a few bytes could unpack to many
		MaxIdleConnsPerHost:    c.set.InFlight(),
		IdleConnTimeout:        idle,
		ReadBufferSize:         16 << 10, // 500 EDEKs are some 100 KB
		MaxResponseHeaderBytes: 64 << 10,
	}
	if c.config.TLS != nil {
		t.TLSClientConfig = c.config.TLS.Clone()
	}
	return t
}

// Close ends probes and logins, waits for them, and closes connections. A login
// that waits for a KDC can take some seconds. No call may be under way.
func (c *Client) Close() {
	c.stop()
	c.set.Close()
	c.logins.Wait()
	c.pooled.CloseIdleConnections()
	c.fresh.CloseIdleConnections()
}

// State is how well the upstream can be used.
func (c *Client) State() upstream.State { return c.set.State() }

// Nodes is the status of each node.
func (c *Client) Nodes() []upstream.Status { return c.set.Nodes() }

// Queue is who waits for room at the nodes.
func (c *Client) Queue() queue.Status { return c.queue.Status() }

func (c *Client) changed(s upstream.State) {
	c.queue.Turned()
	if c.config.Changed != nil {
		c.config.Changed(s)
	}
}

// request is one call of the interface, to whatever node.
type request struct {
	op     string // for people
	key    string // key or version name
	method string
	path   string // below …/v1/, escaped
	query  string // without user and doAs, "" for none
	body   []byte
	caller edek.Caller
	status int   // of success
	bound  int64 // of the answer's body in bytes; 0: it has none
	expect int64 // about how large the body is
	// How large an answer is, and how long it takes, can be up to whoever made
	// the keys, and is then no fault of the node.
	swollen, slow bool
	// A batch of decrypts is only for a node that has announced them.
	batch bool
}

// escape writes a name into a path as Java's client does, but for blanks, which
// Java turns into a plus sign that the server takes for one.
func escape(name string) string { return strings.ReplaceAll(url.QueryEscape(name), "+", "%20") }

// read asks usable nodes. take gets the body, which is zeroed after it; what it
// objects to is a fault of the node, unless it says edek.NotFound.
func (c *Client) read(ctx context.Context, r *request, take func(body []byte) error) error {
	ctx, turn, err := c.enter(ctx, r)
	if err != nil {
		return err
	}
	defer turn.end()
	err = c.set.Read(ctx, func(ctx context.Context, i int) error { return c.ask(ctx, c.nodes[i], c.pooled, r, take) })
	return c.explain(r, err, edek.Unavailable)
}

// write asks one node, over a connection of its own.
func (c *Client) write(ctx context.Context, r *request, take func(body []byte) error) error {
	ctx, turn, err := c.enter(ctx, r)
	if err != nil {
		return err
	}
	defer turn.end()
	err = c.set.Write(ctx, func(ctx context.Context, i int) error { return c.ask(ctx, c.nodes[i], c.fresh, r, take) })
	kind := edek.Unavailable
	if fault, ok := errors.AsType[*upstream.Fault](err); ok && fault.Sent {
		kind = edek.Unsettled
	}
	return c.explain(r, err, kind)
}

// turn is what a request holds while it is made.
type turn struct {
	place  queue.Place
	cancel context.CancelFunc // nil if it did not wait
}

func (t turn) end() {
	t.place.Leave()
	if t.cancel != nil {
		t.cancel()
	}
}

// enter returns when a request may be sent, or why it may not. What it waits is
// part of the time that it may take: the context is the one to go on with.
func (c *Client) enter(ctx context.Context, r *request) (context.Context, turn, error) {
	if err := c.admit(r); err != nil {
		return ctx, turn{}, err
	}
	who := queue.Caller{User: r.caller.User, Real: r.caller.Real}
	if who.User == "" {
		who = queue.Whose(ctx)
	}
	if place, ok := c.queue.Take(who); ok {
		return ctx, turn{place, nil}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.set.Total())
	place, err := c.queue.Wait(ctx, who, r.key)
	if err != nil {
		cancel()
		return ctx, turn{}, c.refusal(r, err)
	}
	return ctx, turn{place, cancel}, nil
}

// refusal puts the queue's reason not to let a call in into the family's words.
func (c *Client) refusal(r *request, why error) error {
	e := &edek.Error{Kind: edek.Unavailable, Op: r.op, Key: r.key}
	switch why {
	case queue.ErrNone:
		return c.set.Refusal()
	case queue.ErrFull:
		e.Text = "too many calls wait for the upstream KMS: try again, or raise the bound of requests in flight if it can take more"
	case queue.ErrLate:
		e.Text = "the upstream KMS has too much to do to answer in time: try again, or raise the bound of requests in flight if it can take more"
	default:
		e.Text, e.Err = "the call was given up while it waited for the upstream KMS", why
	}
	e.Text = c.set.State().String() + ": " + e.Text
	return e
}

const accessClass = "org.apache.hadoop.security.authorize.AuthorizationException"

// admit refuses what must not be sent.
func (c *Client) admit(r *request) error {
	if r.caller.User == "" && r.caller != (edek.Caller{}) {
		return &edek.Error{Kind: edek.Invalid, Op: r.op, Key: r.key, Text: "the caller has no short name, and is not passed on as the service itself"}
	}
	for _, name := range []string{r.caller.User, r.caller.Real} {
		if strings.ContainsAny(name, "/@") {
			return &edek.Foreign{Status: http.StatusForbidden, Class: accessClass, Node: "edekd",
				Text: "User [" + oneLine(name, 200) + "] is not passed on to the upstream KMS, whose rules may make another name of one that has a slash or an @:" +
					" hadoop.kms.authentication.kerberos.name.rules must make a short name of it"}
		}
	}
	if !utf8.ValidString(r.caller.User) || !utf8.ValidString(r.caller.Real) {
		return noUTF8(r.op, r.key, "the caller's name")
	}
	as := c.as.Load()
	if u := r.caller.User; u != "" && (u == c.config.Service || as != nil && u == *as) {
		return &edek.Foreign{Status: http.StatusForbidden, Class: accessClass, Node: "edekd",
			Text: "User [" + u + "] has the name of the service itself and is not passed on to the upstream KMS"}
	}
	switch {
	case !utf8.ValidString(r.key):
		return noUTF8(r.op, r.key, "the name")
	case strings.IndexByte(r.key, 0) >= 0:
		return &edek.Error{Kind: edek.Invalid, Op: r.op, Key: r.key, Text: "the name has a NUL byte, which no URL can hold"}
	case r.key == "" && strings.HasPrefix(r.path, "key/"):
		return &edek.Error{Kind: edek.Invalid, Op: r.op, Text: "Parameter 'name' cannot be empty"}
	case dotted(r.key):
		return &edek.Error{Kind: edek.Invalid, Op: r.op, Key: r.key, Text: "the name has a dot or two between slashes, which may lead elsewhere in a URL"}
	}
	return nil
}

// noUTF8 refuses a name of which JSON, and a KMS that reads its URL, would make
// another one.
func noUTF8(op, key, what string) error {
	return &edek.Error{Kind: edek.Invalid, Op: op, Key: key, Text: what + " is not in UTF-8"}
}

// dotted reports whether a name has a segment that servers and balancers may
// take for a step in the path.
func dotted(name string) bool {
	for segment := range strings.SplitSeq(name, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// explain puts a fault into the family's words.
func (c *Client) explain(r *request, err error, kind edek.Kind) error {
	fault, ok := errors.AsType[*upstream.Fault](err)
	if !ok {
		return err
	}
	text := c.set.State().String() + ": the upstream KMS did not answer"
	if kind == edek.Unsettled {
		text = "the outcome is unknown: the upstream KMS was sent the change, and its answer did not arrive whole." +
			" Look with \"hadoop key list -metadata\" whether it happened, and repeat it only if it did not"
	}
	return &edek.Error{Kind: kind, Op: r.op, Key: r.key, Text: text, Err: fault}
}

const agent = "edekd"

// parameters is the query of a request: its own, then who asks.
func (c *Client) parameters(r *request) string {
	var b strings.Builder
	add := func(name, value string) {
		mark := byte('&')
		if b.Len() == 0 {
			mark = '?'
		}
		b.WriteByte(mark)
		b.WriteString(name)
		b.WriteString(url.QueryEscape(value))
	}
	if r.query != "" {
		b.WriteString("?" + r.query)
	}
	if c.config.Kerberos == nil {
		add("user.name=", c.config.Service)
	}
	if r.caller.User != "" {
		add("doAs=", r.caller.User)
	}
	return b.String()
}
