// Package report shows results to people: as a table on a terminal, and as one
// HTML page with plots that opens without a network, in light and dark.
package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/edekd/edekd/loadtest/result"
)

// Text writes a result as a table.
func Text(w io.Writer, r *result.Result) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", headline(r))
	for i := range r.Steps {
		s := &r.Steps[i]
		fmt.Fprintf(&b, "\n%s\n", stepLine(r, i))
		t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(t, "operation\tanswered\tfailed\tEDEKs\tp50\tp90\tp99\tp99.9\tmax\t")
		for _, o := range s.Operations {
			fmt.Fprintf(t, "%s\t%d\t%d\t%d\t", o.Name, o.Answered, o.Failed, o.EDEKs)
			for _, v := range percentiles(o.Latency) {
				fmt.Fprintf(t, "%s\t", duration(v))
			}
			fmt.Fprintln(t)
		}
		t.Flush()
		for _, o := range s.Operations {
			for _, e := range o.Errors {
				fmt.Fprintf(&b, "  %d x %s: %s%s\n", e.Count, o.Name, e.Class, sample(e.Sample))
			}
		}
		if s.Server != nil {
			fmt.Fprintf(&b, "  server: %s\n", serverLine(s.Server))
		}
		fmt.Fprintf(&b, "  edekload: %s\n", generatorLine(s))
	}
	b.WriteByte('\n')
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "note: %s\n", f)
	}
	for _, v := range r.SLOs {
		fmt.Fprintf(&b, "SLO %s: %s (%s)\n", verdict(v), v.SLO, v.Reason)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func verdict(v result.Verdict) string {
	if v.Met {
		return "met"
	}
	return "MISSED"
}

func headline(r *result.Result) string {
	loop := "open loop"
	if r.Closed {
		loop = "closed loop"
	}
	return fmt.Sprintf("%s, %s, %d connections to %s, %d %s, %d %s",
		r.Profile, loop, r.Connections, strings.Join(r.Targets, " "), r.Identities, plural(r.Identities, r.Identity+" identity", r.Identity+" identities"), r.Keys, plural(r.Keys, "zone key", "zone keys"))
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func stepLine(r *result.Result, i int) string {
	s := &r.Steps[i]
	text := number(s.Achieved) + "/s achieved, " + fmt.Sprintf("%.4g s", s.Seconds)
	if !r.Closed {
		text = number(s.Asked) + "/s asked, " + text
	}
	if len(r.Steps) > 1 {
		text = fmt.Sprintf("step %d: %s", i+1, text)
	}
	return text
}

func serverLine(s *result.Server) string {
	text := fmt.Sprintf("%.2f s of CPU for %d requests", s.CPUSeconds, s.Requests)
	if s.CPUPerRequest > 0 {
		text += fmt.Sprintf(", %s per request", duration(s.CPUPerRequest))
	} else {
		text += ", too little to tell the time per request"
	}
	if s.CPUPerEDEK > 0 {
		text += fmt.Sprintf(", %s per EDEK", duration(s.CPUPerEDEK))
	}
	if s.ResidentBytes > 0 {
		text += fmt.Sprintf(", %d MiB resident", s.ResidentBytes>>20)
	}
	return text + " (" + s.Source + ")"
}

func generatorLine(s *result.Step) string {
	g := &s.Generator
	text := fmt.Sprintf("%.0f %% of its processors", 100*g.CPUShare)
	if g.MachineBusy > 0 {
		text += fmt.Sprintf(", its machine %.0f %% busy", 100*g.MachineBusy)
	}
	if g.LagMax < 1 {
		return text
	}
	return text + fmt.Sprintf(", sent late by %s (p99) and %s (max)", duration(g.LagP99), duration(g.LagMax))
}

func sample(s string) string {
	if s == "" {
		return ""
	}
	return " (first: " + s + ")"
}

// percentiles lists what tables show.
func percentiles(l result.Latency) []float64 { return []float64{l.P50, l.P90, l.P99, l.P999, l.Max} }

// duration writes microseconds with three digits.
func duration(us float64) string {
	switch {
	case us == 0:
		return "-"
	case us < 999.5:
		return fmt.Sprintf("%.3gus", us)
	case us < 999.5e3:
		return fmt.Sprintf("%.3gms", us/1e3)
	case us < 100e6:
		return fmt.Sprintf("%.3gs", us/1e6)
	default:
		return time.Duration(us * float64(time.Microsecond)).Round(time.Second).String()
	}
}

// number writes a rate.
func number(n float64) string {
	if n >= 99.95 {
		return fmt.Sprintf("%.0f", n)
	}
	return fmt.Sprintf("%.3g", n)
}
