package stats

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestQuantile(t *testing.T) {
	f := func(values []float64, q, want float64) {
		t.Helper()
		if got := Quantile(values, q); math.Abs(got-want) > 1e-9 {
			t.Errorf("quantile %v of %v is %v, want %v", q, values, got, want)
		}
	}
	f([]float64{7}, 0.5, 7)
	f([]float64{1, 2}, 0.5, 1.5)
	f([]float64{1, 2, 3}, 0.5, 2)
	f([]float64{1, 2, 3, 4, 5}, 0.25, 2)
	f([]float64{1, 2, 3, 4, 5}, 1, 5)
	f([]float64{1, 2, 3, 4, 5}, 0, 1)
	if !math.IsNaN(Quantile(nil, 0.5)) {
		t.Error("nothing has a median")
	}
}

func TestSummarizeLeavesItsValues(t *testing.T) {
	values := []float64{5, 1, 100, 3, 2}
	if got := Summarize(values); got != (Summary{3, 2, 5, 5}) {
		t.Errorf("%+v", got)
	}
	if values[0] != 5 {
		t.Error("the values were sorted in place")
	}
}

// TestIntervalsHoldTheTruth draws both series from distributions whose ratio is
// known: about 95 of 100 intervals must hold it, and none may be far wider than
// the noise.
func TestIntervalsHoldTheTruth(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	series := func(middle float64) []float64 {
		values := make([]float64, 20)
		for i := range values {
			values[i] = middle * (1 + 0.05*random.NormFloat64())
		}
		return values
	}
	held, wide := 0, 0
	for range 100 {
		ratio := Ratio(series(11), series(10))
		if ratio.Low <= 1.1 && 1.1 <= ratio.High {
			held++
		}
		if ratio.High-ratio.Low > 0.2 {
			wide++
		}
	}
	if held < 87 || wide > 3 {
		t.Errorf("of 100 intervals %d hold the truth and %d are wider than 20 %%", held, wide)
	}
}

func TestDifferenceIsPerPart(t *testing.T) {
	if got := Difference([]float64{30, 30}, []float64{10, 10}, 100); got != (Interval{0.2, 0.2, 0.2}) {
		t.Errorf("%+v", got)
	}
	if got := Of([]float64{4, 4, 4}); got != (Interval{4, 4, 4}) {
		t.Errorf("%+v", got)
	}
	if got := Ratio(nil, []float64{1}); !math.IsNaN(got.Value) {
		t.Errorf("a ratio of nothing: %+v", got)
	}
}
