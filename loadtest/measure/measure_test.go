package measure

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edekd/edekd/loadtest/result"
	"github.com/edekd/edekd/loadtest/schedule"
)

func windows(t *testing.T) []schedule.Window {
	t.Helper()
	p, err := schedule.NewPlan([]float64{100, 200}, 2*time.Second, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return p.Windows() // ramp 0-1, step 0 1-3, ramp 3-4, step 1 4-6
}

func near(got, want float64) bool { return math.Abs(got-want) <= want*0.002 }

// TestSteps records a known distribution from many goroutines, with ticks in
// between, and finds it again under its step.
func TestSteps(t *testing.T) {
	r := New(windows(t), 3)
	var workers sync.WaitGroup
	for w := range 10 {
		workers.Go(func() {
			lane := r.Lane(w)
			for i := 1; i <= 100; i++ {
				lane.Answered(1, result.Decrypt, time.Duration(i)*time.Millisecond, 1)
				lane.Answered(schedule.Ramp, result.Decrypt, time.Hour, 1)
				lane.Arrived(schedule.Arrival{Step: 1, Due: 4 * time.Second, Sent: 4*time.Second + time.Duration(i)*time.Millisecond, Lag: time.Duration(i%2) * time.Millisecond})
				lane.Served(4500 * time.Millisecond)
				lane.Requested()
			}
		})
	}
	r.Tick(4500*time.Millisecond, 200)
	workers.Wait()
	r.Tick(5*time.Second, 200)

	if got := r.Operations(0); got != nil {
		t.Errorf("step 0 has %+v", got)
	}
	got := r.Operations(1)
	if len(got) != 1 || got[0].Name != "decrypt" || got[0].Answered != 1000 || got[0].EDEKs != 1000 || got[0].Failed != 0 {
		t.Fatalf("step 1 has %+v", got)
	}
	l := got[0].Latency
	if !near(l.P50, 50e3) || !near(l.P90, 90e3) || !near(l.P99, 99e3) || !near(l.Max, 100e3) || !near(l.Mean, 50.5e3) {
		t.Errorf("latencies %+v", l)
	}
	if p99, most, busy := r.Lags(1); !near(float64(p99), 1e6) || !near(float64(most), 1e6) || busy != 0.99 {
		t.Errorf("lag %v %v, busy %v", p99, most, busy)
	}
	if _, _, busy := r.Lags(0); busy != 0 {
		t.Errorf("step 0 has busy arrivals: %v", busy)
	}
	if r.Served(1) != 1000 || r.Served(0) != 0 {
		t.Errorf("served %d and %d", r.Served(1), r.Served(0))
	}
	if requests, edeks := r.Requests(); requests != 1000 || edeks != 2000 {
		t.Errorf("%d requests, %d keys", requests, edeks)
	}
	var count int64
	for _, p := range r.Series() {
		for _, o := range p.Operations {
			count += o.Count
		}
	}
	if count != 2000 || len(r.Series()) != 2 {
		t.Errorf("%d operations in %d points", count, len(r.Series()))
	}
}

func TestFailures(t *testing.T) {
	r := New(windows(t), 1)
	lane := r.Lane(0)
	lane.Failed(0, result.Refill, time.Microsecond, Failure{Class: "HTTP 500 java.io.IOException", Sample: "first"}, 1)
	lane.Failed(0, result.Refill, time.Microsecond, Failure{Class: "HTTP 500 java.io.IOException", Sample: "second"}, 1)
	lane.Failed(0, result.Refill, 10*time.Second, Failure{Class: "timeout", Waited: true}, 3)
	p := r.Tick(2*time.Second, 100)
	if p.Failed != 2.5 || p.Achieved != 0 || p.Asked != 100 {
		t.Errorf("point %+v", p)
	}
	got := r.Operations(0)[0]
	// What was refused in a microsecond does not improve the latency, what timed out worsens it.
	if got.Failed != 5 || !near(got.Latency.P50, 10e6) || !near(got.Latency.P99, 10e6) {
		t.Errorf("%+v", got)
	}
	if len(got.Errors) != 2 || got.Errors[0] != (result.Error{Class: "timeout", Count: 3}) ||
		got.Errors[1] != (result.Error{Class: "HTTP 500 java.io.IOException", Count: 2, Sample: "first"}) {
		t.Errorf("errors %+v", got.Errors)
	}
}

func TestErrorsAreBounded(t *testing.T) {
	r := New(windows(t), 1)
	for i := range 1000 {
		r.Lane(0).Failed(0, result.Decrypt, 0, Failure{Class: fmt.Sprint("class ", i), Sample: "\x1b[31m" + strings.Repeat("x", 1000)}, 1)
		if i%100 == 0 {
			r.Tick(time.Second, 0)
		}
	}
	r.Tick(2*time.Second, 0)
	o := r.Operations(0)[0]
	var sum int64
	for _, e := range o.Errors {
		sum += e.Count
		if len(e.Sample) > maxSample || strings.Contains(e.Sample, "\x1b") {
			t.Fatalf("a sample of %d bytes: %.20q", len(e.Sample), e.Sample)
		}
	}
	if len(o.Errors) > maxClasses+1 || sum != 1000 || o.Errors[0].Class != "other" {
		t.Errorf("%d classes, %d errors, most of class %q", len(o.Errors), sum, o.Errors[0].Class)
	}
}

func TestRecordingAllocatesNothing(t *testing.T) {
	r := New(windows(t), 1)
	lane := r.Lane(0)
	lane.Answered(0, result.Decrypt, time.Second, 1)
	lane.Arrived(schedule.Arrival{Step: 0})
	if n := testing.AllocsPerRun(100, func() {
		lane.Arrived(schedule.Arrival{Step: 0})
		lane.Requested()
		lane.Answered(0, result.Decrypt, time.Millisecond, 1)
		lane.Served(time.Second)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
