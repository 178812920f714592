package slo

import (
	"strings"
	"testing"

	"github.com/edekd/edekd/loadtest/result"
)

// measured is a load of two steps, the second one worse.
var measured = &result.Result{Steps: []result.Step{
	{Achieved: 1000, Operations: []result.Operation{
		{Name: "decrypt", Answered: 999, Failed: 1, Latency: result.Latency{Mean: 400, P50: 300, P90: 800, P99: 1500, P999: 4000, Max: 9000}},
		{Name: "refill", Answered: 1000, Latency: result.Latency{Mean: 2000, P50: 2000, P90: 2000, P99: 2000, P999: 2000, Max: 2000}},
	}, Server: &result.Server{CPUPerRequest: 12}},
	{Achieved: 1800, Operations: []result.Operation{
		{Name: "decrypt", Answered: 990, Failed: 10, Latency: result.Latency{Mean: 400, P50: 300, P90: 800, P99: 2500, P999: 4000, Max: 9000}},
		{Name: "refill", Failed: 5},
	}, Server: &result.Server{CPUPerRequest: 15}},
}}

func TestJudge(t *testing.T) {
	f := func(text string, first, both bool) {
		t.Helper()
		s, err := Parse(text)
		if err != nil {
			t.Error(err)
			return
		}
		one := &result.Result{Steps: measured.Steps[:1]}
		if v := s.Judge(one); v.Met != first || v.Reason == "" || v.SLO != s.String() {
			t.Errorf("%s on the first step: %+v", text, v)
		}
		if v := s.Judge(measured); v.Met != both || !strings.Contains(v.Reason, "step 2: ") {
			t.Errorf("%s on both steps: %+v", text, v)
		}
	}
	f("decrypt.p99<2ms", true, false)
	f("decrypt.p99 <= 2.5ms", true, true)
	f("decrypt.p99<1500us", false, false)
	f("decrypt.p99<=1500us", true, false)
	f("decrypt.p99.9<5ms", true, true)
	f("decrypt.max<9.1ms", true, true)
	f("decrypt.p50<300us", false, false)
	f("decrypt.p90<=800us", true, true)
	f("mean<2.1ms", true, false)   // no refill was answered in the second step
	f("mean<=1.9ms", false, false) // of each operation, not of all together
	f("refill.p99<3ms", true, false)
	f("roll.p99<3s", false, false) // never happened
	f("errors<0.1%", true, false)
	f("errors<=0.0005", true, false)
	f("errors<0.05%", false, false)
	f("errors<2%", true, true)
	f("decrypt.errors<=0.1%", true, false)
	f("refill.errors<=0", true, false)
	f("login.errors<=0", false, false)
	f("rate>999", true, true)
	f("rate>=1k", true, true)
	f("rate>1.5k/s", false, false)
	f("cpu<13us", true, false)

	s, err := Parse("cpu<1s")
	if err != nil {
		t.Fatal(err)
	}
	if v := s.Judge(&result.Result{Steps: make([]result.Step, 1)}); v.Met || v.Reason != "not measured" {
		t.Errorf("without figures: %+v", v)
	}
	for _, text := range []string{"p99<1h", "errors<1", "rate>0"} {
		s, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if v := s.Judge(&result.Result{}); v.Met {
			t.Errorf("%s is met by nothing: %+v", text, v)
		}
	}
}

func TestRefused(t *testing.T) {
	f := func(text, why string) {
		t.Helper()
		if s, err := Parse(text); err == nil {
			t.Errorf("%q is taken for %+v", text, s)
		} else if !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, want %q", text, err, why)
		}
	}
	f("", "neither")
	f("decrypt.p99=2ms", "neither")
	f("open.p99<2ms", `no operation "open"`)
	f("decrypt.p98<2ms", `no "decrypt.p98"`)
	f("decrypt.rate>3", `no "decrypt.rate"`)
	f("decrypt.cpu<3us", `no "decrypt.cpu"`)
	f("p99<2", "no duration")
	f("p99<-2ms", "no duration")
	f("p99>2ms", "met by worse")
	f("rate<5", "met by worse")
	f("errors<101%", "no share")
	f("errors<NaN", "no share")
	f("rate>Inf", "no rate")
	f("rate>fast", "no rate")
}

// FuzzParse: what is read can be judged, and reads the same again.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"decrypt.p99<2ms", "errors<0.1%", "rate>=5k/s", "p99.9 <= 1m", "cpu<3us"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(s.String())
		if err != nil || *again != *s {
			t.Fatalf("%q reads as %+v, then as %+v (%v)", text, s, again, err)
		}
		if v := s.Judge(measured); v.Reason == "" {
			t.Errorf("%q is judged without a reason", text)
		}
	})
}
