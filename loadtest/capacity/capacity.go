// Package capacity turns measured figures into a plan: how many processors, nodes
// and how much memory a cluster's key management servers need.
//
// A file that is opened costs one decrypt; a file that is created costs its
// NameNode one encrypted key out of a refill as well. Clients keep a connection.
package capacity

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/edekd/edekd/loadtest/result"
)

// Need is what a cluster asks for.
type Need struct {
	Files     float64 // opened per second, to be read or written
	Creates   float64 // of these, created per second
	Clients   int     // processes connected at the same time
	PerClient float64 // connections that each keeps
	Cores     int     // processors of a node
	Busy      float64 // share of them that the load may take
}

// Figures are what was measured. Times are processor time of the server.
type Figures struct {
	Decrypt    time.Duration // for one file opened
	EDEK       time.Duration // for one encrypted key of a refill; 0: not measured
	Login      time.Duration // for a client's start, its first decrypt included; 0: not measured
	Base       int64         // resident bytes under load, 0: unknown
	Connection int64         // bytes for a connection
	Measured   bool          // Connection was measured
}

// Memory of an idle connection to edekd, where it was not measured.
const (
	plainConnection = 17 << 10
	tlsConnection   = 49 << 10
	enough          = 1000 // connections, to measure what one takes
)

// What a step must be like for its figures to count.
const (
	mostFailed   = 0.001
	leastOfAsked = 0.98
)

// Read takes the figures from results: decrypts from the profile clients (or mixed),
// refills from namenode, starts from login-storm. Of each result the step with the
// highest rate counts that was achieved without failures to speak of; a generator
// that was late then makes no difference to the server's processor time.
func Read(results []*result.Result) (Figures, error) {
	f := Figures{Connection: plainConnection}
	var errs []error
	var mixed time.Duration // stands in for decrypts where these were not measured alone
	for _, r := range results {
		s := sound(r)
		if s == nil {
			errs = append(errs, fmt.Errorf("the result of %s is no base for a plan: it has no step whose rate was achieved, with few failures, and with the server's CPU time known", r.Profile))
			continue
		}
		perRequest := microseconds(s.Server.CPUPerRequest)
		switch r.Profile {
		case "clients":
			f.Decrypt = max(f.Decrypt, perRequest)
		case "mixed":
			mixed = max(mixed, perRequest)
		case "namenode":
			f.EDEK = max(f.EDEK, microseconds(s.Server.CPUPerEDEK))
		case "login-storm":
			if o := s.Operation(result.FirstDecrypt.String()); o != nil && o.Answered > 0 {
				f.Login = max(f.Login, time.Duration(s.Server.CPUSeconds/float64(o.Answered)*float64(time.Second)))
			}
		}
		f.Base = max(f.Base, s.Server.ResidentBytes)
		if r.TLS && !f.Measured {
			f.Connection = tlsConnection
		}
		if grown := s.Server.ResidentBytes - s.Server.IdleBytes; r.Connections >= enough && s.Server.IdleBytes > 0 && grown > 0 {
			f.Connection, f.Measured = max(f.Connection, grown/int64(r.Connections)), true
		}
	}
	if f.Decrypt == 0 {
		f.Decrypt = mixed
	}
	if f.Decrypt == 0 && len(errs) == 0 {
		errs = append(errs, errors.New("no result of the profile clients or mixed is given: the time for a decrypt is unknown"))
	}
	return f, errors.Join(errs...)
}

func microseconds(n float64) time.Duration { return time.Duration(n * float64(time.Microsecond)) }

// sound returns the step that counts, nil when there is none.
func sound(r *result.Result) (best *result.Step) {
	for i := range r.Steps {
		s := &r.Steps[i]
		if s.Server == nil || s.Server.CPUPerRequest <= 0 || s.Failed() > mostFailed || s.Achieved < leastOfAsked*s.Asked {
			continue
		}
		if best == nil || s.Achieved > best.Achieved {
			best = s
		}
	}
	return best
}

// Plan is what is needed.
type Plan struct {
	Need    Need
	Figures Figures

	Processors  float64       // busy all the time
	Nodes       int           // one more than the load needs
	Connections int           // of a node when one is missing
	Memory      int64         // bytes of a node when one is missing
	LoginTime   time.Duration // until all clients have logged in anew, with all processors; 0: not measured
}

// New makes a plan.
func New(f Figures, n Need) (*Plan, error) {
	switch {
	case !(n.Files > 0) || math.IsInf(n.Files, 0):
		return nil, errors.New("the files opened per second must be above 0")
	case n.Creates < 0 || n.Creates > n.Files:
		return nil, errors.New("the files created per second are a part of the files opened: between 0 and that")
	case n.Creates > 0 && f.EDEK == 0:
		return nil, errors.New("no result of the profile namenode is given: the time for an encrypted key of a refill is unknown")
	case n.Clients < 1 || n.Clients > 100_000_000:
		return nil, errors.New("there must be at least one client, and at most 100 million")
	case !(n.PerClient > 0) || n.PerClient > 1000:
		return nil, errors.New("the connections of a client must be above 0 and at most 1000")
	case n.Cores < 1 || n.Cores > 10_000:
		return nil, errors.New("a node has at least one processor, and at most 10000")
	case !(n.Busy > 0) || n.Busy > 1:
		return nil, errors.New("the share of the processors that the load may take must be above 0 and at most 1")
	case f.Decrypt <= 0:
		return nil, errors.New("the time for a decrypt is unknown")
	}
	p := &Plan{Need: n, Figures: f, Processors: n.Files*f.Decrypt.Seconds() + n.Creates*f.EDEK.Seconds()}
	working := max(1, math.Ceil(p.Processors/(float64(n.Cores)*n.Busy)-1e-9))
	if working > 1e6 {
		return nil, fmt.Errorf("%.3g nodes: nobody has so many", working)
	}
	p.Nodes = int(working) + 1
	p.Connections = int(math.Ceil(float64(n.Clients) * n.PerClient / working))
	p.Memory = f.Base + int64(p.Connections)*f.Connection
	p.LoginTime = time.Duration(float64(n.Clients) * float64(f.Login) / (working * float64(n.Cores)))
	return p, nil
}

// Text writes the plan, and what it rests on.
func (p *Plan) Text(w io.Writer) error {
	var b strings.Builder
	n, f := &p.Need, &p.Figures
	fmt.Fprintf(&b, "nodes        %d of %d processors: %d carry the load, one may be missing\n", p.Nodes, n.Cores, p.Nodes-1)
	fmt.Fprintf(&b, "processors   %.3g busy all the time: %.6g files/s x %v", p.Processors, n.Files, f.Decrypt)
	if n.Creates > 0 {
		fmt.Fprintf(&b, " + %.6g creates/s x %v", n.Creates, f.EDEK)
	}
	fmt.Fprintf(&b, "; at most %.0f %% of a node\n", 100*n.Busy)
	fmt.Fprintf(&b, "connections  %d a node with one missing; allow at least %d open files\n", p.Connections, p.Connections+1000)
	source := "assumed"
	if f.Measured {
		source = "measured"
	}
	fmt.Fprintf(&b, "memory       %d MiB a node with one missing: %d MiB and %d connections of %.1f KiB (%s)\n",
		(p.Memory+1<<20-1)>>20, f.Base>>20, p.Connections, float64(f.Connection)/1024, source)
	if f.Login > 0 {
		fmt.Fprintf(&b, "login storm  all %d clients log in anew within %v, with every processor of %d nodes (%v each)\n",
			n.Clients, p.LoginTime.Round(100*time.Millisecond), p.Nodes-1, f.Login.Round(time.Microsecond))
	}
	if f.Base == 0 {
		b.WriteString("note: the server's own memory was not measured and is not part of the plan\n")
	}
	if f.Login == 0 {
		b.WriteString("note: no result of the profile login-storm is given: how long it takes until all clients have logged in anew is not part of the plan\n")
	}
	b.WriteString("note: a processor is one like that of the server measured; other kinds need a measurement of their own\n")
	_, err := io.WriteString(w, b.String())
	return err
}
