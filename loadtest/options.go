package loadtest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/edekd/edekd/loadtest/cpu"
	"github.com/edekd/edekd/loadtest/edekfile"
	"github.com/edekd/edekd/loadtest/login"
	"github.com/edekd/edekd/loadtest/result"
	"github.com/edekd/edekd/loadtest/schedule"
	"github.com/edekd/edekd/loadtest/target"
)

// Profile is a kind of load.
type Profile string

// The profiles.
const (
	// NameNode fills the queues of NameNodes: 150 to 500 encrypted keys a call, and
	// now and then a new version of a zone key.
	NameNode Profile = "namenode"
	// Clients decrypts one encrypted key for each file opened.
	Clients Profile = "clients"
	// Mixed is what a server of a busy cluster sees: mostly decrypts, some single
	// generates, some refills, some questions for metadata.
	Mixed Profile = "mixed"
	// Reencrypt moves batches of encrypted keys to the current version.
	Reencrypt Profile = "reencrypt"
	// LoginStorm is clients that all start at once: new connections, handshakes,
	// and a first decrypt.
	LoginStorm Profile = "login-storm"
)

// Operations lists the operations of a profile, the one that matters first.
func (p Profile) Operations() []result.Op {
	switch p {
	case NameNode:
		return []result.Op{result.Refill, result.Roll, result.Invalidate}
	case Mixed:
		return []result.Op{result.Decrypt, result.Generate, result.Refill, result.Metadata}
	case Reencrypt:
		return []result.Op{result.Reencrypt}
	case LoginStorm:
		return []result.Op{result.FirstDecrypt, result.Login}
	default:
		return []result.Op{result.Decrypt}
	}
}

// needsEDEKs tells whether encrypted keys are opened.
func (p Profile) needsEDEKs() bool { return p == Clients || p == Mixed || p == LoginStorm }

// Options says what to do to whom.
type Options struct {
	Version string // of the tool, for the result
	Profile Profile

	Targets []target.Target
	TLS     *tls.Config // for https targets; ServerName is filled in

	Identities []*login.Identity // an arrival is one of them, by chance
	Kind       string            // simple, kerberos or token, for the result

	Rates       []float64     // arrivals per second, one step each; empty in a closed loop
	Hold, Ramp  time.Duration // length of a step, and of the climb before it
	Closed      bool          // send when answered, Connections at a time, for Hold
	Connections int
	Timeout     time.Duration // of one operation

	Keys        []string        // zone keys that exist
	CreateKeys  int             // zone keys to make unless they exist, see KeyName
	DeleteKeys  bool            // delete at the end those that were made
	EDEKs       []edekfile.EDEK // what to decrypt; keys without any get some generated
	EDEKsPerKey int             // generated for each key
	Skew        float64         // exponent of Zipf's law for the choice of keys, 0: all alike
	Batch       int             // encrypted keys in one re-encryption
	RollEvery   time.Duration   // for NameNode: between two rollovers, 0: none

	Meters   []cpu.Meter    // of the servers' processes
	Progress func(Progress) // called now and then, may be nil
}

// Progress is how far a load is.
type Progress struct {
	Phase       string  // what is being done
	Done, Total float64 // in units of the phase
	Point       *result.Point
}

// The bounds of options.
const (
	MaxConnections = 100_000
	MaxKeys        = 1_000_000
	MaxBatch       = 10_000
	maxPrepared    = 200_000 // encrypted keys generated before the load
	refillFewest   = 150     // what Hadoop's client asks for at first,
	refillMost     = 500     // and at most
)

// Check says what is wrong with options.
func (o *Options) Check() error {
	between := func(what string, n, least, most int) error {
		if n < least || n > most {
			return fmt.Errorf("%d %s: between %d and %d are possible", n, what, least, most)
		}
		return nil
	}
	errs := []error{
		between("connections", o.Connections, 1, MaxConnections),
		between("targets", len(o.Targets), 1, 1000),
		between("identities", len(o.Identities), 1, 1_000_000),
		between("keys to make", o.CreateKeys, 0, MaxKeys),
		between("EDEKs for each key", o.EDEKsPerKey, 1, MaxBatch),
		between("EDEKs in a batch", o.Batch, 1, MaxBatch),
	}
	if len(o.Keys)+o.CreateKeys+len(o.EDEKs) == 0 {
		errs = append(errs, errors.New("no zone keys: name some, have some made, or give a file of EDEKs"))
	}
	if o.Skew != 0 && !(o.Skew > 1 && o.Skew <= 10) {
		errs = append(errs, fmt.Errorf("a skew of %v: it is 0 for keys all alike, or above 1 and at most 10", o.Skew))
	}
	if o.Timeout <= 0 || o.Timeout > time.Hour {
		errs = append(errs, fmt.Errorf("a timeout of %v: it must be above 0 and at most an hour", o.Timeout))
	}
	if o.RollEvery < 0 {
		errs = append(errs, fmt.Errorf("a rollover every %v: it must not be below 0", o.RollEvery))
	}
	if o.Closed && (len(o.Rates) > 0 || o.Ramp != 0) {
		errs = append(errs, errors.New("a closed loop has neither rate nor ramp: it sends when it was answered"))
	}
	if o.Closed && (o.Hold <= 0 || o.Hold > schedule.MaxLength) {
		errs = append(errs, fmt.Errorf("a load of %v: it must last, and at most %v", o.Hold, schedule.MaxLength))
	}
	if !o.Closed {
		_, err := schedule.NewPlan(o.Rates, o.Hold, o.Ramp)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// KeyName is the name of the n-th key that the tool makes, counted from 1.
func KeyName(n int) string { return fmt.Sprintf("edekload-%d", n) }
