package audit

import (
	"fmt"
	"time"
)

// Credential is what became of a request to act for somebody: by doAs, or with,
// or by means of, a delegation token. The frozen text has no kind of line for
// that, so that only the JSON form tells it.
type Credential struct {
	Event           // Op is Impersonate or one of a token
	Sequence *int32 // the token's number, which proves nothing where it was refused; nil: none
	Status   int    // of a refusal, 0 when it was granted
	Method   string // of a refusal
	Reason   string // likewise, the message to the client
}

// Credential logs c. A refusal is a denial as that of Unauthorized: nil means
// that its line has been written, and after an error the request must be
// answered as a failure of the server. What was granted is logged as OK does it,
// and the error is nil. Without the JSON form nothing is logged.
func (l *Log) Credential(c Credential) error {
	if !l.json {
		return nil
	}
	r := record{Event: c.Event, sequence: c.Sequence}
	if c.Status == 0 {
		r.time = time.Now()
		if !l.queue.offer(r) {
			l.queue.lose(1)
		}
		return nil
	}
	r.verdict, r.status, r.method, r.text = denied, c.Status, c.Method, c.Reason
	if err := l.denial(r); err != nil {
		return fmt.Errorf("audit the denial of %s: %w", c.Op, err)
	}
	return nil
}
