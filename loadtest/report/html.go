package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"time"

	"github.com/edekd/edekd/loadtest/result"
)

// mostPoints bounds the points of a line; more are put together.
const mostPoints = 400

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"duration": duration, "percentiles": percentiles, "verdict": verdict,
	"server": serverLine, "generator": func(s result.Step) string { return generatorLine(&s) },
}).Parse(pageText))

// HTML writes a result as a page: valid XML too, without scripts and without
// anything that would have to be fetched.
func HTML(w io.Writer, r *result.Result) error {
	data := struct {
		*result.Result
		Headline string
		When     string
		Lines    []string
		Charts   []chart
	}{Result: r, Headline: headline(r), When: r.Started.Format(time.RFC3339)}
	for i := range r.Steps {
		data.Lines = append(data.Lines, stepLine(r, i))
	}
	data.Charts = charts(r)
	return page.Execute(w, &data)
}

func charts(r *result.Result) (all []chart) {
	points := thin(r.Series)
	if len(r.Steps) > 1 {
		for _, o := range r.Steps[0].Operations {
			all = append(all, byRate(r, o.Name))
		}
	}
	for op := range result.Ops {
		name := op.String()
		if c, ok := overTime(points, name); ok {
			all = append(all, c)
		}
	}
	rate := chart{Title: "rate per second", xLabel: "seconds", format: number}
	failures := chart{Title: "failures per second", xLabel: "seconds", format: number}
	achieved, asked, failed := line{name: "achieved"}, line{name: "asked", dashed: true}, line{name: "failed"}
	for _, p := range points {
		achieved.points = append(achieved.points, point{p.At, p.Achieved})
		asked.points = append(asked.points, point{p.At, p.Asked})
		failed.points = append(failed.points, point{p.At, p.Failed})
	}
	rate.lines = []line{achieved}
	if !r.Closed {
		rate.lines = append(rate.lines, asked)
	}
	failures.lines = []line{failed}
	return append(all, rate, failures)
}

// latencyLines are the lines of every latency chart.
var latencyLines = []struct {
	name string
	of   func(result.Latency) float64
}{
	{"p50", func(l result.Latency) float64 { return l.P50 }},
	{"p99", func(l result.Latency) float64 { return l.P99 }},
	{"p99.9", func(l result.Latency) float64 { return l.P999 }},
	{"max", func(l result.Latency) float64 { return l.Max }},
}

// overTime plots the latencies of an operation against time.
func overTime(series []result.Point, name string) (c chart, ok bool) {
	c = chart{Title: "latency of " + name, xLabel: "seconds", log: true, format: duration}
	for _, latency := range latencyLines {
		l := line{name: latency.name}
		for _, p := range series {
			y := math.NaN()
			for _, o := range p.Operations {
				if o.Name == name && latency.of(o.Latency) > 0 {
					y, ok = latency.of(o.Latency), true
				}
			}
			l.points = append(l.points, point{p.At, y})
		}
		c.lines = append(c.lines, l)
	}
	return c, ok
}

// byRate plots the latencies of an operation against the rates of the steps.
func byRate(r *result.Result, name string) chart {
	c := chart{Title: fmt.Sprintf("latency of %s by rate", name), xLabel: "per second asked", log: true, format: duration}
	for _, latency := range latencyLines {
		l := line{name: latency.name}
		for i := range r.Steps {
			y := math.NaN()
			if o := r.Steps[i].Operation(name); o != nil && latency.of(o.Latency) > 0 {
				y = latency.of(o.Latency)
			}
			l.points = append(l.points, point{r.Steps[i].Asked, y})
		}
		c.lines = append(c.lines, l)
	}
	return c
}

// thin puts neighbouring points together until there are few enough: rates are
// averaged, of latencies and failures the worst stays.
func thin(series []result.Point) []result.Point {
	group := (len(series) + mostPoints - 1) / mostPoints
	if group <= 1 {
		return series
	}
	var out []result.Point
	for i := 0; i < len(series); i += group {
		all := series[i:min(i+group, len(series))]
		sum := result.Point{At: all[len(all)-1].At, Asked: all[len(all)-1].Asked}
		worst := map[string]int{}
		for _, p := range all {
			sum.Achieved += p.Achieved / float64(len(all))
			sum.Failed = max(sum.Failed, p.Failed)
			for _, o := range p.Operations {
				at, known := worst[o.Name]
				if !known {
					worst[o.Name] = len(sum.Operations)
					sum.Operations = append(sum.Operations, o)
					continue
				}
				l, other := &sum.Operations[at].Latency, o.Latency
				*l = result.Latency{Mean: max(l.Mean, other.Mean), P50: max(l.P50, other.P50), P90: max(l.P90, other.P90),
					P99: max(l.P99, other.P99), P999: max(l.P999, other.P999), Max: max(l.Max, other.Max)}
			}
		}
		out = append(out, sum)
	}
	return out
}
