package sidecar

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/edekd/edekd/bench/drive"
	"github.com/edekd/edekd/bench/report"
)

// short are loads that say nothing but whether all of it works.
func short() *Options {
	return &Options{ServerCPU: 0, ClientCPU: 0, RoundTrip: 4 * time.Millisecond, Length: 2 * time.Second, Warm: 100 * time.Millisecond,
		Rate: 200, Slices: 1, Slice: 20 * time.Millisecond, Rounds: 1, Keys: 20, ZipfRate: 200, Budget: 8,
		NodeRate: 100, Attempt: 5 * time.Second, Outage: time.Second, OutageWarm: 3 * time.Second, Return: 2 * time.Second,
		Decrypt: "cache", ForwardRate: 20}
}

// TestPartsMeasure: each part finds its servers, breaks what it is to break, and
// comes back with all its rows. What the figures are is for longer runs to say.
func TestPartsMeasure(t *testing.T) {
	rows := map[string]int{"step": 4, "rings": 4, "zipf": 3, "nodes": 6, "decrypt": 2, "outage": 4}
	for _, part := range Parts {
		t.Run(part.Name, func(t *testing.T) {
			got, err := part.Measure(short())
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != rows[part.Name] {
				t.Errorf("%d rows, want %d", len(got), rows[part.Name])
			}
			for _, r := range got {
				if r.Group == "" || r.Case == "" || r.FigureUnit == "" || len(r.Ours) == 0 {
					t.Errorf("%+v", r)
				}
			}
			file := report.File{Taken: time.Now(), Rows: got}
			if _, err := file.Write(t.TempDir()); err != nil {
				t.Errorf("the results cannot be kept: %v", err)
			}
			var printed bytes.Buffer
			if err := file.Print(&printed); err != nil || printed.Len() == 0 {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestSettled(t *testing.T) {
	begin := time.Now()
	at := func(ms, fills int) sample {
		return sample{begin.Add(time.Duration(ms) * time.Millisecond), map[string]float64{forwarded: float64(fills)}}
	}
	f := func(samples []sample, wantLast time.Duration, wantLate, wantAll float64) {
		t.Helper()
		if last, late, all := settled(samples, begin); last != wantLast || late != wantLate || all != wantAll {
			t.Errorf("%v %v %v, want %v %v %v", last, late, all, wantLast, wantLate, wantAll)
		}
	}
	f([]sample{at(0, 5), at(500, 25), at(900, 25), at(1500, 25)}, 500*time.Millisecond, 0, 20)
	f([]sample{at(0, 0), at(500, 20), at(1500, 23), at(2000, 23), at(2500, 24)}, 2500*time.Millisecond, 4, 24)
	f([]sample{at(0, 7)}, 0, 0, 0)
}

func TestSeen(t *testing.T) {
	begin := time.Now()
	var samples []sample
	for i, usable := range []float64{1, 0, 1, 1, 0, 1} {
		samples = append(samples, sample{begin.Add(time.Duration(i) * time.Second), map[string]float64{"g": usable}})
	}
	for since, want := range map[time.Duration]time.Duration{500 * time.Millisecond: 500 * time.Millisecond, 2 * time.Second: 2 * time.Second} {
		if got, said := seen(samples, begin.Add(since), "g"); got != want || said != "seen" {
			t.Errorf("since %v: %s %v, want %v", since, said, got, want)
		}
	}
	if got, said := seen(samples, begin.Add(4*time.Second), "g"); got != time.Second || said == "seen" {
		t.Errorf("%s %v", said, got)
	}
}

func TestZipf(t *testing.T) {
	var all drive.Requests
	for i := range 1000 {
		all = append(all, fmt.Append(nil, i))
	}
	list := zipf(all)
	count := func(i int) (n int) {
		for _, request := range list {
			if bytes.Equal(request, all[i]) {
				n++
			}
		}
		return n
	}
	first := count(0)
	for _, i := range []int{1, 9, 99, 999} {
		if n, want := count(i), first/(i+1); n < want*98/100 || n > want*102/100+1 {
			t.Errorf("request %d is there %d times, the first %d times", i, n, first)
		}
	}
}

func TestRepeating(t *testing.T) {
	files := make(drive.Requests, recent+51)
	for i := range files {
		files[i] = fmt.Append(nil, i)
	}
	seen := map[string]bool{}
	for _, file := range files[:recent] {
		seen[string(file)] = true
	}
	firsts := 0
	for _, request := range repeating(files, 1000, 20) {
		if !seen[string(request)] {
			firsts++
			seen[string(request)] = true
		}
	}
	if firsts != 50 {
		t.Errorf("%d of 1000 requests are for files not opened before, want 50", firsts)
	}
}

// TestOutcome: calls are counted where they belong, and the busiest window is
// found wherever it lies.
func TestOutcome(t *testing.T) {
	o := &Options{OutageWarm: 20 * time.Second}
	begin := time.Now()
	gone, back := begin.Add(39500*time.Millisecond), begin.Add(59500*time.Millisecond)
	var samples []sample
	made := 1000.0
	for second := range 100 {
		switch {
		case second < 30:
			made += 50 // while it warms up: counts for nothing
		case second < 40:
			made += 2
		case second >= 70 && second < 75:
			made += 6
		case second >= 60:
			made++
		}
		samples = append(samples, sample{begin.Add(time.Duration(second) * time.Second),
			map[string]float64{`edekd_upstream_node_requests_total{node="a"}`: made - 10, `edekd_upstream_node_requests_total{node="b"}`: 10, "edekd_ring_depth": float64(second)}})
	}
	rows, err := o.outcome(samples, gone, back)
	if err != nil {
		t.Fatal(err)
	}
	if got := rows[0].Figure.Value; got != 3 {
		t.Errorf("%.2f times the calls before, want 3", got)
	}
	if got := rows[1].Figure.Value; got != 39 {
		t.Errorf("%v EDEKs were ready, want those of second 39", got)
	}
	if _, err := o.outcome(samples[:30], gone, back); err == nil {
		t.Error("an outage that nobody looked at has a figure")
	}
}
