package sidecar

import (
	"fmt"
	"time"

	"github.com/edekd/edekd/bench/report"
	"github.com/edekd/edekd/bench/stats"
)

// Options are what the figures depend on; each result names those that concern it.
type Options struct {
	ServerCPU int `kong:"-"` // core of the front
	ClientCPU int `kong:"-"` // core of everything else

	RoundTrip time.Duration `default:"30ms" help:"Round trip between edekd and the KMS behind it."`
	Length    time.Duration `default:"20s" help:"Length of a load."`
	Warm      time.Duration `default:"2m" help:"Load before a measurement; half of it in the part rings."`
	Rate      float64       `default:"20000" help:"EDEKs a second of the load step, and of latencies."`
	Slices    int           `default:"12" help:"Slices of CPU time, for each server."`
	Slice     time.Duration `default:"1s" help:"Length of a slice."`
	Rounds    int           `default:"5" help:"How often each latency is measured."`

	Keys     int     `default:"10000" help:"Keys of the part zipf."`
	ZipfRate float64 `default:"5000" help:"EDEKs a second of the part zipf."`
	Budget   int     `default:"64" help:"MiB for EDEKs that are ready, in the part zipf."`

	NodeRate float64       `default:"400" help:"Reads a second of the part nodes, half of them decrypts."`
	Attempt  time.Duration `default:"5s" help:"edekd.upstream.attempt.ms of the part nodes."`

	Outage     time.Duration `default:"10m" help:"How long both nodes are gone."`
	OutageWarm time.Duration `default:"8m" help:"Load before that."`
	Return     time.Duration `default:"2m" help:"Load after that."`
	Decrypt    string        `default:"cache" help:"edekd.upstream.decrypt of the part outage."`

	ForwardRate float64 `default:"100" help:"Decrypts a second that the part decrypt forwards; the cache gets as many times more as it should bear."`
}

// Part is a row of the table of goals, by its name.
type Part struct {
	Name    string
	Measure func(*Options) ([]report.Row, error)
}

// Parts are all, in the order they are measured.
var Parts = []Part{
	{"step", (*Options).step},
	{"rings", (*Options).rings},
	{"zipf", (*Options).zipf},
	{"nodes", (*Options).loseNode},
	{"decrypt", (*Options).decrypt},
	{"outage", (*Options).outage},
}

// single is a row of one value.
func single(group, what, unit string, value float64, goal *report.Goal, note string) report.Row {
	values := []float64{value}
	return report.Row{Group: group, Case: what, Unit: unit, Ours: values, Figure: stats.Of(values), FigureUnit: unit, Goal: goal, Note: note}
}

// none is the goal of what must not happen.
func none() *report.Goal { return &report.Goal{AtMost: 0} }

func seconds(d time.Duration) string { return fmt.Sprint(int(d.Seconds())) }
