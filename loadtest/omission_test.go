package loadtest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edekd/edekd/loadtest/edekfile"
	"github.com/edekd/edekd/loadtest/login"
	"github.com/edekd/edekd/loadtest/measure"
	"github.com/edekd/edekd/loadtest/result"
	"github.com/edekd/edekd/loadtest/schedule"
	"github.com/edekd/edekd/loadtest/target"
)

// staller answers every decrypt at once, but for the time it is told to stall: no
// real server does that on command.
type staller struct {
	gate sync.RWMutex
	once sync.Once
	at   time.Duration // after the first decrypt
	stop time.Duration // how long nobody is answered
}

func (s *staller) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.Method == "OPTIONS" {
		http.SetCookie(w, &http.Cookie{Name: "hadoop.auth", Value: "u=x"})
		return
	}
	s.once.Do(func() {
		time.AfterFunc(s.at, func() {
			s.gate.Lock()
			defer s.gate.Unlock()
			time.Sleep(s.stop)
		})
	})
	s.gate.RLock()
	defer s.gate.RUnlock()
	io.WriteString(w, `{ "material" : "AAAA", "name" : "k", "versionName" : "EK" }`)
}

// stalled is a load of decrypts on a server that stalls.
func stalled(t *testing.T, s *staller) *Options {
	t.Helper()
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	targets, err := target.Parse(h.URL + "/kms")
	if err != nil {
		t.Fatal(err)
	}
	return &Options{
		Profile: Clients, Targets: targets, Identities: []*login.Identity{login.Simple("x")}, Kind: "simple",
		Rates: []float64{100}, Hold: 3 * time.Second, Connections: 4, Timeout: 20 * time.Second, EDEKsPerKey: 1, Batch: 1,
		EDEKs: []edekfile.EDEK{{Key: "k", Version: "k@0", IV: make([]byte, 16), Material: []byte{1}}},
	}
}

// TestAStallIsFeltByAllWhoWereDue: of three seconds at 100 per second, one second of
// silence delays a third of the requests, by 0 to 1 s, though four connections
// could send only four of them meanwhile. A closed loop sees just these four.
func TestAStallIsFeltByAllWhoWereDue(t *testing.T) {
	o := stalled(t, &staller{at: time.Second, stop: time.Second})
	res := mustRun(t, o)
	step := &res.Steps[0]
	if n := clean(t, step)["decrypt"]; n != 300 {
		t.Errorf("%d requests, want 300", n)
	}
	l := step.Operations[0].Latency
	// With a third of all delayed evenly, the 90th percentile is at 0.7 s; a busy
	// machine adds to it.
	if l.P90 < 650e3 || l.P99 < 900e3 {
		t.Errorf("open loop: %+v", l)
	}
	if step.BusyArrived < 0.25 || !strings.Contains(strings.Join(res.Findings, "\n"), "found all 4 connections waiting") {
		t.Errorf("%.2f of arrivals found all connections busy; findings %q", step.BusyArrived, res.Findings)
	}
	// Waiting for the server is no lag of the generator's; a busy machine's is.
	if g := &step.Generator; g.LagP99 > 500e3 {
		t.Errorf("the generator takes the blame: %+v", g)
	}

	o = stalled(t, &staller{at: time.Second, stop: time.Second})
	o.Closed, o.Rates = true, nil
	res = mustRun(t, o)
	l = res.Steps[0].Operations[0].Latency
	if l.P90 > 300e3 || l.Max < 900e3 {
		t.Errorf("closed loop: %+v", l)
	}
}

// TestNothingIsLost: what timed out and what was never sent is part of the figures.
func TestNothingIsLost(t *testing.T) {
	o := stalled(t, &staller{at: 500 * time.Millisecond, stop: 3 * time.Second})
	o.Connections, o.Timeout, o.Hold = 1, 400*time.Millisecond, time.Second
	res := mustRun(t, o)
	got := res.Steps[0].Operation("decrypt")
	classes := map[string]int64{}
	for _, e := range got.Errors {
		classes[e.Class] = e.Count
	}
	if got.Answered+got.Failed != 100 || classes["timeout"] < 1 || classes["timeout"] > 4 || classes["never sent"]+classes["timeout"] != got.Failed {
		t.Errorf("%+v", got)
	}
	if got.Latency.P99 < 400e3 {
		t.Errorf("99 of 100 are faster than the timeout: %+v", got.Latency)
	}
}

// TestTheGeneratorTakesTheBlame: a load sent late by the generator's own fault says
// nothing of the server, and is not said to.
func TestTheGeneratorTakesTheBlame(t *testing.T) {
	f := func(lag, latency, own time.Duration, limited bool) {
		t.Helper()
		w := []schedule.Window{{End: time.Second, From: 1000, To: 1000}}
		r := &run{o: &Options{Connections: 1}, windows: w, recorder: measure.New(w, 1), usage: newUsage(nil)}
		for range 100 {
			r.recorder.Lane(0).Arrived(schedule.Arrival{Sent: lag, Lag: lag})
			r.recorder.Lane(0).Answered(0, result.Decrypt, latency, 1)
		}
		r.recorder.Tick(time.Second, 1000)
		r.usage.steps[0] = &stepUsage{last: reading{at: time.Second, own: own}}
		step := r.step(&w[0], time.Second)
		all := strings.Join(r.findings(&step, 0), "\n")
		if step.Generator.Limited != limited || strings.Contains(all, "edekload itself ") != limited ||
			strings.Contains(all, "the server answered") == limited {
			t.Errorf("lag %v of %v, %v of CPU: %+v, findings %q", lag, latency, own, step.Generator, all)
		}
	}
	f(0, 10*time.Millisecond, 0, false)
	f(5*time.Millisecond, 10*time.Millisecond, 0, true)
	f(500*time.Microsecond, time.Millisecond, 0, false) // too little to speak of
	f(5*time.Millisecond, time.Second, 0, false)        // no matter beside what the server took
	f(0, 10*time.Millisecond, 1000*time.Second, true)
}
