package audit

import (
	"net/netip"
	"time"

	"github.com/edekd/edekd/edek"
)

// Event is what a request did, and who sent it. It is passed by value, costs
// no allocation, and is not kept: its strings may be views of buffers that are
// reused after the call. What is not known stays zero.
type Event struct {
	Op Op
	// Key is the key's name, empty where an operation has none.
	Key string
	// Caller is whom the request was done for. The text form knows only its
	// Full name, the JSON form all three.
	Caller edek.Caller
	// RealFull is the full name of Caller.Real. Like the next it shows in the JSON
	// form only.
	RealFull string
	// Auth is how the sender's identity was proven, such as kerberos.
	Auth string
	// Client is the address the request came from: the client's own where a
	// trusted proxy stands between.
	Client netip.Addr
	// Request tells the request from all others of this process.
	Request uint64
	// Status is the HTTP status of a denial where that is not 403.
	Status int
}

// names is the length of all names, in bytes.
func (v *Event) names() int {
	return len(v.Key) + len(v.Caller.User) + len(v.Caller.Full) + len(v.Caller.Real) + len(v.RealFull) + len(v.Auth)
}

// verdict is what became of a request.
type verdict uint8

const (
	allowed verdict = iota
	denied
	failed
	unauthenticated
	lost // not a request: what is missing from the log
)

// record is one line to be, in whatever form.
type record struct {
	Event
	verdict verdict
	time    time.Time
	extra   string // what an operation tells beside its name

	batch int // keys of a request that had several

	// Of counted successes. Interval is the time since the first of them.
	count    int64
	interval time.Duration
	total    bool // stands for several requests, so Request means nothing
	mixed    bool // and they had different clients, real users or proofs

	// Of requests that failed.
	status            int
	method, url, text string

	sequence *int32 // of a delegation token

	gap gap // of verdict lost

	server string // who writes the log, in the JSON form
}

// maxForms is the number of forms a log may be written in at once.
const maxForms = 2

// line is a record in the forms of a log, in the order of its outputs. As the
// queue's buffer it holds any number of lines.
type line [maxForms][]byte

func (l *line) size() (n int) {
	for _, b := range l {
		n += len(b)
	}
	return n
}

// form appends a record as one line.
type form func(b []byte, r *record) []byte
