package report

import (
	"cmp"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
)

// point is a place in a chart; a y that is NaN breaks the line.
type point struct{ x, y float64 }

// line is one line of a chart.
type line struct {
	name   string
	points []point
	dashed bool
}

// chart is a plot of lines over a common x axis.
type chart struct {
	Title  string
	xLabel string
	lines  []line
	log    bool // the y axis is logarithmic
	format func(float64) string
}

// The size of a chart and of its margins, in units of the drawing.
const (
	chartWidth, chartHeight = 760.0, 230.0
	marginLeft, marginRight = 64.0, 84.0
	marginTop, marginBottom = 10.0, 34.0
)

// scale maps values to places along an axis.
type scale struct {
	low, high float64 // of the values, logarithms when log
	from, to  float64 // of the places
	log       bool
}

func (s scale) at(v float64) float64 {
	if s.log {
		v = math.Log10(max(v, 1e-9))
	}
	return s.from + (min(max(v, s.low), s.high)-s.low)/(s.high-s.low)*(s.to-s.from)
}

// extent returns the lowest and highest value that f finds in finite points.
func (c *chart) extent(f func(point) float64) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, l := range c.lines {
		for _, p := range l.points {
			if v := f(p); !math.IsNaN(p.y) {
				low, high = min(low, v), max(high, v)
			}
		}
	}
	if low > high {
		return 0, 1
	}
	return low, high
}

// axes returns both scales and the values that get a grid line.
func (c *chart) axes() (x, y scale, xTicks, yTicks []float64) {
	low, high := c.extent(func(p point) float64 { return p.x })
	if high <= low {
		low, high = low-1, low+1
	}
	xTicks = ticks(low, high, 8)
	x = scale{low: low, high: high, from: marginLeft, to: chartWidth - marginRight}
	y = scale{from: chartHeight - marginBottom, to: marginTop, log: c.log}
	low, high = c.extent(func(p point) float64 { return p.y })
	if c.log {
		y.low, y.high = math.Floor(math.Log10(max(low, 1e-9))), math.Ceil(math.Log10(max(high, 1e-9)))
		if y.high <= y.low {
			y.high = y.low + 1
		}
		for e := y.low; e <= y.high; e++ {
			yTicks = append(yTicks, math.Pow(10, e))
		}
		return x, y, xTicks, yTicks
	}
	if high <= 0 {
		high = 1
	}
	yTicks = ticks(0, high*1.05, 5)
	y.low, y.high = 0, max(high*1.05, yTicks[len(yTicks)-1])
	return x, y, xTicks, yTicks
}

// ticks returns round values from low to high, about n of them.
func ticks(low, high float64, n int) (all []float64) {
	step := math.Pow(10, math.Floor(math.Log10((high-low)/float64(n))))
	for _, f := range []float64{1, 2, 5, 10} {
		if (high-low)/(step*f) <= float64(n) {
			step *= f
			break
		}
	}
	// Counted: where step is below the precision of the values, adding leads nowhere.
	first := math.Ceil(low/step - 1e-9)
	for i := range int(math.Floor(high/step+1e-9)-first) + 1 {
		all = append(all, (first+float64(i))*step)
	}
	return all
}

// SVG draws the chart for the page's template. Colours come from classes of the page.
func (c chart) SVG() template.HTML {
	var b strings.Builder
	x, y, xTicks, yTicks := c.axes()
	fmt.Fprintf(&b, `<svg viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">`, chartWidth, chartHeight, template.HTMLEscapeString(c.Title))
	for _, v := range yTicks {
		at := y.at(v)
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, marginLeft, at, chartWidth-marginRight, at)
		fmt.Fprintf(&b, `<text class="tick" x="%.1f" y="%.1f" text-anchor="end">%s</text>`, marginLeft-6, at+3.5, template.HTMLEscapeString(c.format(v)))
	}
	for _, v := range xTicks {
		fmt.Fprintf(&b, `<text class="tick" x="%.1f" y="%.1f" text-anchor="middle">%.6g</text>`, x.at(v), chartHeight-marginBottom+14, v)
	}
	fmt.Fprintf(&b, `<text class="tick" x="%.1f" y="%.1f" text-anchor="end">%s</text>`, chartWidth-marginRight, chartHeight-4, template.HTMLEscapeString(c.xLabel))
	var ends []float64 // where names stand
	for i, l := range c.lines {
		class := fmt.Sprintf("l%d", i%4)
		if l.dashed {
			class += " dashed"
		}
		drawLine(&b, l.points, x, y, class)
		if at, ok := nameAt(l.points, y, ends); ok {
			ends = append(ends, at)
			fmt.Fprintf(&b, `<text class="name t%d" x="%.1f" y="%.1f">%s</text>`, i%4, chartWidth-marginRight+6, at+3.5, template.HTMLEscapeString(l.name))
		}
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

// drawLine draws pieces between gaps; a piece of one point is a dot.
func drawLine(b *strings.Builder, points []point, x, y scale, class string) {
	for i := 0; i < len(points); {
		if math.IsNaN(points[i].y) {
			i++
			continue
		}
		end := i
		for end < len(points) && !math.IsNaN(points[end].y) {
			end++
		}
		if end == i+1 {
			fmt.Fprintf(b, `<circle class="%s" cx="%.1f" cy="%.1f" r="2"/>`, class, x.at(points[i].x), y.at(points[i].y))
		} else {
			fmt.Fprintf(b, `<polyline class="%s" points="`, class)
			for _, p := range points[i:end] {
				fmt.Fprintf(b, "%.1f,%.1f ", x.at(p.x), y.at(p.y))
			}
			b.WriteString(`"/>`)
		}
		i = end
	}
}

// nameAt finds a height for a line's name: beside its last point, or as near to it
// as the names already there and the ends of the axis allow. Where there is no room
// it is beside the point, upon another. ok is false for a line without points.
func nameAt(points []point, y scale, taken []float64) (at float64, ok bool) {
	const apart = 13
	i := len(points) - 1
	for i >= 0 && math.IsNaN(points[i].y) {
		i--
	}
	if i < 0 {
		return 0, false
	}
	at = y.at(points[i].y)
	heights := []float64{at}
	for _, t := range taken {
		heights = append(heights, t-apart, t+apart)
	}
	slices.SortFunc(heights, func(a, b float64) int { return cmp.Compare(math.Abs(a-at), math.Abs(b-at)) })
	for _, h := range heights {
		near := func(t float64) bool { return math.Abs(h-t) < apart-1e-6 }
		if h >= y.to && h <= y.from && !slices.ContainsFunc(taken, near) {
			return h, true
		}
	}
	return at, true
}
