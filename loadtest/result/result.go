// Package result is what a load came to, as it is written to JSON and read back.
//
// Durations are in microseconds, rates in units per second, times of CPU in
// seconds; every field says which. Fields are added, never given another meaning.
package result

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
)

// Op is a kind of operation that a load consists of.
type Op int

// The operations. A profile uses some of them.
const (
	Decrypt      Op = iota // one encrypted key opened: a client opens a file
	Generate               // one encrypted key made
	Refill                 // many made in one call: a NameNode fills its queue
	Reencrypt              // a batch moved to the current key version
	Roll                   // a new version of a zone key
	Invalidate             // what a client sends to every host after a roll
	Metadata               // the metadata of a zone key
	Login                  // a new connection and the handshake on it
	FirstDecrypt           // from a client's start to its first key, login included
	Ops                    // how many there are
)

var names = [Ops]string{"decrypt", "generate", "refill", "reencrypt", "roll", "invalidate", "metadata", "login", "first-decrypt"}

// String returns the name used in tables, JSON and SLOs.
func (o Op) String() string { return names[o] }

// ParseOp finds an operation by its name.
func ParseOp(name string) (Op, bool) {
	for op, n := range names {
		if n == name {
			return Op(op), true
		}
	}
	return 0, false
}

// Result is one run.
type Result struct {
	Version     string    `json:"version"` // of edekload
	Profile     string    `json:"profile"`
	Targets     []string  `json:"targets"`
	TLS         bool      `json:"tls"`
	Identity    string    `json:"identity"` // simple, kerberos, token
	Identities  int       `json:"identities"`
	Closed      bool      `json:"closed_loop"`
	Connections int       `json:"connections"`
	Keys        int       `json:"keys"`
	EDEKs       int       `json:"edeks"` // different ones sent to be decrypted
	Started     time.Time `json:"started"`
	Interrupted bool      `json:"interrupted"`
	Steps       []Step    `json:"steps"`
	Series      []Point   `json:"series"`
	// Findings are sentences about what spoils the figures, or explains them.
	Findings []string  `json:"findings,omitempty"`
	SLOs     []Verdict `json:"slos,omitempty"`
}

// Step is a time at one rate.
type Step struct {
	Asked       float64     `json:"asked_per_second"` // 0 in a closed loop
	Achieved    float64     `json:"achieved_per_second"`
	Seconds     float64     `json:"seconds"` // less than planned when interrupted
	Operations  []Operation `json:"operations"`
	Server      *Server     `json:"server,omitempty"`
	Generator   Generator   `json:"generator"`
	BusyArrived float64     `json:"busy_share"` // share of arrivals that found all connections busy
}

// Operation is what happened to one kind of operation in a step. Latencies count
// from when the operation was due; they include those that timed out or were never
// sent, and leave out those refused.
type Operation struct {
	Name     string  `json:"name"`
	Answered int64   `json:"answered"`
	Failed   int64   `json:"failed"`
	EDEKs    int64   `json:"edeks"` // encrypted keys made, opened or moved
	Latency  Latency `json:"latency_us"`
	Errors   []Error `json:"errors,omitempty"`
}

// Latency is in microseconds.
type Latency struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99.9"`
	Max  float64 `json:"max"`
}

// Error is a class of failures, with the words of the first of them.
type Error struct {
	Class  string `json:"class"`
	Count  int64  `json:"count"`
	Sample string `json:"sample,omitempty"`
}

// Server is what the server's processes used during a step.
type Server struct {
	Source        string  `json:"source"` // where the figures are from
	CPUSeconds    float64 `json:"cpu_seconds"`
	Requests      int64   `json:"requests"`               // HTTP requests answered meanwhile
	CPUPerRequest float64 `json:"cpu_us_per_request"`     // microseconds; 0: too little to tell
	CPUPerEDEK    float64 `json:"cpu_us_per_edek"`        // microseconds; 0: too little to tell
	ResidentBytes int64   `json:"resident_bytes"`         // at the end of the step; 0: unknown
	IdleBytes     int64   `json:"resident_bytes_at_idle"` // before the load's connections; 0: unknown
}

// Generator is how the load generator itself did during a step.
type Generator struct {
	CPUShare    float64 `json:"cpu_share"`    // of the processors it may use
	MachineBusy float64 `json:"machine_busy"` // share of its machine's processors, used by whomever
	LagP99      float64 `json:"lag_us_p99"`   // microseconds by which it sent later than it should have
	LagMax      float64 `json:"lag_us_max"`
	// Limited tells that the figures are not the server's alone: the generator, or
	// its machine, had no more to give.
	Limited bool `json:"limited"`
}

// Point is a time of the run, ramps included: the seconds before At.
type Point struct {
	At         float64   `json:"at_seconds"`
	Asked      float64   `json:"asked_per_second"`
	Achieved   float64   `json:"achieved_per_second"`
	Failed     float64   `json:"failed_per_second"`
	Operations []OpPoint `json:"operations,omitempty"`
}

// OpPoint is one kind of operation at a point: what was answered then.
type OpPoint struct {
	Name    string  `json:"name"`
	Count   int64   `json:"count"`
	Latency Latency `json:"latency_us"`
}

// Verdict is the outcome of one SLO.
type Verdict struct {
	SLO    string `json:"slo"` // as it was written
	Met    bool   `json:"met"`
	Reason string `json:"reason"` // the figures it was judged by
}

// Failed returns the share of a step's operations that failed, 0 when there were
// none.
func (s *Step) Failed() float64 {
	var failed, all int64
	for _, o := range s.Operations {
		failed += o.Failed
		all += o.Failed + o.Answered
	}
	if all == 0 {
		return 0
	}
	return float64(failed) / float64(all)
}

// Operation finds an operation by its name, nil when there was none.
func (s *Step) Operation(name string) *Operation {
	for i := range s.Operations {
		if s.Operations[i].Name == name {
			return &s.Operations[i]
		}
	}
	return nil
}

// Printable replaces what could upset a terminal or a page: servers' words go into
// results.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// WriteJSON writes the result for Read.
func (r *Result) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Read reads a file that WriteJSON wrote.
func Read(path string) (*Result, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	r := &Result{}
	d := json.NewDecoder(file)
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("%s is no result of edekload: %w", path, err)
	}
	if len(r.Steps) == 0 {
		return nil, fmt.Errorf("%s is no result of edekload: it has no steps", path)
	}
	return r, nil
}
