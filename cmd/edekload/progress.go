package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/edekd/edekd/loadtest"
)

// lineEvery is how often a line is written where there is no terminal.
const lineEvery = 5 * time.Second

// progress shows how far the load is: a bar on a terminal, plain lines elsewhere.
type progress struct {
	w     io.Writer
	bars  bool
	phase string
	bar   *progressbar.ProgressBar
	last  time.Time // of a line
}

func newProgress(w io.Writer) *progress {
	file, ok := w.(*os.File)
	return &progress{w: w, bars: ok && term.IsTerminal(int(file.Fd()))}
}

// show takes one report of progress.
func (p *progress) show(now loadtest.Progress) {
	text := now.Phase
	if point := now.Point; point != nil {
		text = fmt.Sprintf("%.0f/s", point.Achieved)
		if len(point.Operations) > 0 {
			o := &point.Operations[0]
			text += fmt.Sprintf(", %s p99 %v", o.Name, time.Duration(o.Latency.P99*float64(time.Microsecond)).Round(10*time.Microsecond))
		}
		if point.Failed > 0 {
			text += fmt.Sprintf(", %.3g failures/s", point.Failed)
		}
	}
	if p.bars {
		p.showBar(now, text)
		return
	}
	if now.Phase == p.phase && time.Since(p.last) < lineEvery && now.Done < now.Total {
		return
	}
	p.phase, p.last = now.Phase, time.Now()
	if now.Point != nil {
		fmt.Fprintf(p.w, "%.0f of %.0f s: %s\n", now.Done, now.Total, text)
	} else {
		fmt.Fprintf(p.w, "%s: %.0f of %.0f\n", now.Phase, now.Done, now.Total)
	}
}

func (p *progress) showBar(now loadtest.Progress, text string) {
	if p.bar == nil || now.Phase != p.phase {
		p.finish()
		p.phase = now.Phase
		p.bar = progressbar.NewOptions64(int64(now.Total*10), progressbar.OptionSetWriter(p.w), progressbar.OptionClearOnFinish(),
			progressbar.OptionSetWidth(30), progressbar.OptionSetElapsedTime(false))
	}
	// A bar that cannot be drawn is no reason to stop the load.
	p.bar.Describe(text)
	_ = p.bar.Set64(int64(now.Done * 10))
}

// finish takes the bar away.
func (p *progress) finish() {
	if p.bar != nil {
		_ = p.bar.Finish()
		p.bar = nil
	}
}
