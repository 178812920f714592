// Package stats turns the slices of a measurement into a figure and its spread.
//
// Slices on a shared machine have outliers in one direction: something else ran.
// So figures are medians, spreads are quartiles, and the interval of a comparison
// comes from resampling the slices that were measured (a percentile bootstrap),
// which assumes nothing of how they are distributed.
package stats

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Summary describes one series of measurements.
type Summary struct {
	Median float64 `json:"median"`
	Q1     float64 `json:"q1"` // a quarter of the slices is below
	Q3     float64 `json:"q3"` // a quarter is above
	N      int     `json:"n"`
}

// Interval is a figure and the bounds within which 95 of 100 resamplings put it.
type Interval struct {
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// Quantile returns the value below which a part q (0 to 1) of the values lies,
// between neighbours by linear interpolation; NaN of none. values must be sorted.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	at := q * float64(len(values)-1)
	below := int(at)
	if below+1 >= len(values) {
		return values[len(values)-1]
	}
	return values[below] + (at-float64(below))*(values[below+1]-values[below])
}

// Summarize describes values, which it does not change.
func Summarize(values []float64) Summary {
	sorted := slices.Sorted(slices.Values(values))
	return Summary{Quantile(sorted, 0.5), Quantile(sorted, 0.25), Quantile(sorted, 0.75), len(values)}
}

// Median returns the median of values, which it does not change.
func Median(values []float64) float64 { return Summarize(values).Median }

// Ratio compares the medians of two series: a's over b's.
func Ratio(a, b []float64) Interval {
	return compare(a, b, func(a, b float64) float64 { return a / b })
}

// Difference compares the medians of two series: a's less b's, divided by parts.
func Difference(a, b []float64, parts float64) Interval {
	return compare(a, b, func(a, b float64) float64 { return (a - b) / parts })
}

// Of is the median of one series with its interval.
func Of(a []float64) Interval {
	return compare(a, a, func(a, _ float64) float64 { return a })
}

const resamplings = 2000

// compare resamples both series independently. The random source is seeded with a
// constant, so that a file of results can be recomputed to the digit.
func compare(a, b []float64, f func(a, b float64) float64) Interval {
	random := rand.New(rand.NewPCG(1, 2))
	figures := make([]float64, resamplings)
	scratch := make([]float64, max(len(a), len(b)))
	resampled := func(values []float64) float64 {
		drawn := scratch[:len(values)]
		for i := range drawn {
			drawn[i] = values[random.IntN(len(values))]
		}
		slices.Sort(drawn)
		return Quantile(drawn, 0.5)
	}
	if len(a) == 0 || len(b) == 0 {
		return Interval{math.NaN(), math.NaN(), math.NaN()}
	}
	for i := range figures {
		figures[i] = f(resampled(a), resampled(b))
	}
	slices.Sort(figures)
	return Interval{f(Median(a), Median(b)), Quantile(figures, 0.025), Quantile(figures, 0.975)}
}
