// Package slo reads service level objectives like "decrypt.p99<2ms" and judges
// results by them.
//
//	[operation.]p50|p90|p99|p99.9|max|mean  < or <=   a duration: 2ms, 1.5s, 800us
//	[operation.]errors                      < or <=   a share: 0.1%, or 0
//	rate                                    > or >=   operations per second: 5000, 5k, 5000/s
//	cpu                                     < or <=   the server's CPU time per request: 12us
//
// Without an operation, a latency is meant of every operation, and errors of all
// together. Each step of a load has to meet it.
package slo

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/edekd/edekd/loadtest/result"
)

// SLO is one objective.
type SLO struct {
	text   string
	op     string // "" for all
	metric string
	orMore string // the comparison
	bound  float64
}

// String returns the SLO as it was written, without blanks.
func (s *SLO) String() string { return s.text }

// Operation returns the operation's name, "" when all are meant.
func (s *SLO) Operation() string { return s.op }

var latencies = map[string]func(result.Latency) float64{
	"mean":  func(l result.Latency) float64 { return l.Mean },
	"p50":   func(l result.Latency) float64 { return l.P50 },
	"p90":   func(l result.Latency) float64 { return l.P90 },
	"p99":   func(l result.Latency) float64 { return l.P99 },
	"p99.9": func(l result.Latency) float64 { return l.P999 },
	"max":   func(l result.Latency) float64 { return l.Max },
}

// Parse reads one SLO.
func Parse(text string) (*SLO, error) {
	s := &SLO{text: strings.Join(strings.Fields(text), "")}
	at := strings.IndexAny(s.text, "<>")
	if at < 0 {
		return nil, fmt.Errorf("SLO %q has neither < nor >", text)
	}
	name, rest := s.text[:at], s.text[at:]
	s.orMore = rest[:1]
	if strings.HasPrefix(rest[1:], "=") {
		s.orMore = rest[:2]
	}
	value := rest[len(s.orMore):]

	s.metric = name
	if op, metric, found := strings.Cut(name, "."); found && latencies[name] == nil {
		if _, known := result.ParseOp(op); !known {
			return nil, fmt.Errorf("SLO %q: there is no operation %q", text, op)
		}
		s.op, s.metric = op, metric
	}
	var err error
	switch {
	case latencies[s.metric] != nil, s.metric == "cpu" && s.op == "":
		s.bound, err = microseconds(value)
	case s.metric == "errors":
		s.bound, err = share(value)
	case s.metric == "rate" && s.op == "":
		s.bound, err = rate(value)
	default:
		return nil, fmt.Errorf("SLO %q: there is no %q; try p50, p90, p99, p99.9, max, mean or errors, each also after an operation and a dot, or rate or cpu", text, name)
	}
	if err != nil {
		return nil, fmt.Errorf("SLO %q: %w", text, err)
	}
	if more := s.orMore[0] == '>'; more != (s.metric == "rate") {
		return nil, fmt.Errorf("SLO %q is met by worse figures, and missed by better ones", text)
	}
	return s, nil
}

func microseconds(value string) (float64, error) {
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no duration like 2ms", value)
	}
	return float64(d) / float64(time.Microsecond), nil
}

func share(value string) (float64, error) {
	number, percent := strings.CutSuffix(value, "%")
	n, err := positive(number)
	if percent {
		n /= 100
	}
	if err != nil || n > 1 {
		return 0, fmt.Errorf("%q is no share like 0.1%%", value)
	}
	return n, nil
}

func rate(value string) (float64, error) {
	number, thousands := strings.CutSuffix(strings.TrimSuffix(value, "/s"), "k")
	n, err := positive(number)
	if err != nil {
		return 0, fmt.Errorf("%q is no rate like 5000 or 5k", value)
	}
	if thousands {
		n *= 1000
	}
	return n, nil
}

func positive(number string) (float64, error) {
	n, err := strconv.ParseFloat(number, 64)
	if err == nil && (n < 0 || math.IsInf(n, 0) || math.IsNaN(n)) {
		err = strconv.ErrRange
	}
	return n, err
}

// Judge says whether a result meets the SLO. What was not measured is not met.
func (s *SLO) Judge(r *result.Result) result.Verdict {
	v := result.Verdict{SLO: s.text, Met: len(r.Steps) > 0}
	var reasons []string
	for i := range r.Steps {
		met, reason := s.step(&r.Steps[i])
		if len(r.Steps) > 1 {
			reason = fmt.Sprintf("step %d: %s", i+1, reason)
		}
		v.Met = v.Met && met
		reasons = append(reasons, reason)
	}
	v.Reason = strings.Join(reasons, "; ")
	return v
}

func (s *SLO) step(step *result.Step) (met bool, reason string) {
	if read := latencies[s.metric]; read != nil {
		met = len(step.Operations) > 0
		worst, name := -1.0, ""
		for _, o := range step.Operations {
			if s.op != "" && o.Name != s.op {
				continue
			}
			// Without an answer there is no latency to be content with.
			if o.Answered == 0 {
				return false, "no " + o.Name + " was answered"
			}
			if l := read(o.Latency); l > worst {
				worst, name = l, o.Name
			}
		}
		if worst < 0 {
			return false, "not measured"
		}
		return s.holds(worst), fmt.Sprintf("%s %s", name, duration(worst))
	}
	switch s.metric {
	case "errors":
		failed := step.Failed()
		if s.op != "" {
			o := step.Operation(s.op)
			if o == nil {
				return false, "not measured"
			}
			failed = float64(o.Failed) / float64(max(1, o.Failed+o.Answered))
		}
		return len(step.Operations) > 0 && s.holds(failed), fmt.Sprintf("%.4g%%", 100*failed)
	case "cpu":
		if step.Server == nil || step.Server.CPUPerRequest == 0 {
			return false, "not measured"
		}
		return s.holds(step.Server.CPUPerRequest), duration(step.Server.CPUPerRequest)
	default:
		return s.holds(step.Achieved), fmt.Sprintf("%.5g/s", step.Achieved)
	}
}

func duration(microseconds float64) string {
	d := time.Duration(microseconds * float64(time.Microsecond))
	if d > 10*time.Millisecond {
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond / 10).String()
}

func (s *SLO) holds(value float64) bool {
	switch s.orMore {
	case "<":
		return value < s.bound
	case "<=":
		return value <= s.bound
	case ">":
		return value > s.bound
	default:
		return value >= s.bound
	}
}
