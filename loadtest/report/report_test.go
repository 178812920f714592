package report

import (
	"bytes"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/loadtest/result"
)

var update = flag.Bool("update", false, "write testdata anew")

// example is a load of two steps, in which things went wrong.
func example() *result.Result {
	fast := result.Latency{Mean: 250, P50: 210, P90: 400, P99: 900.4, P999: 2500, Max: 12_000}
	r := &result.Result{
		Version: "1.2", Profile: "clients", Targets: []string{"https://kms1:9600/kms", "https://kms2:9600/kms"}, TLS: true, Identity: "kerberos", Identities: 2,
		Connections: 64, Keys: 12, EDEKs: 1200, Started: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC),
		Steps: []result.Step{
			{Asked: 1000, Achieved: 999.9, Seconds: 3, Operations: []result.Operation{{Name: "decrypt", Answered: 3000, EDEKs: 3000, Latency: fast}},
				Server:    &result.Server{Source: "/proc/7", CPUSeconds: 0.06, Requests: 3010, CPUPerRequest: 19.93, CPUPerEDEK: 20, ResidentBytes: 40 << 20},
				Generator: result.Generator{CPUShare: 0.123, MachineBusy: 0.5, LagP99: 40, LagMax: 900}},
			{Asked: 2000, Achieved: 1500, Seconds: 3, Operations: []result.Operation{{Name: "decrypt", Answered: 4500, Failed: 1500, Latency: fast, EDEKs: 4500,
				Errors: []result.Error{{Class: "HTTP 500 java.io.IOException", Count: 1500, Sample: "<script>alert(1)</script>"}}}},
				Server: &result.Server{Source: "/proc/7", Requests: 3}},
		},
		Findings: []string{"step 2 (2000/s): the server answered 1500 per second of the 2000 asked for"},
		SLOs:     []result.Verdict{{SLO: "decrypt.p99<2ms", Met: true, Reason: "900us"}, {SLO: "errors<=0", Reason: "25%"}},
	}
	for i := 1; i <= 6; i++ {
		p := result.Point{At: float64(i), Asked: 1000, Achieved: 1000, Operations: []result.OpPoint{{Name: "decrypt", Count: 1000, Latency: fast}}}
		if i == 4 {
			p.Operations, p.Failed = nil, 500
		}
		r.Series = append(r.Series, p)
	}
	return r
}

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s has changed (write it anew with -update if that is right):\n%s", path, got)
	}
}

func TestText(t *testing.T) {
	var b bytes.Buffer
	if err := Text(&b, example()); err != nil {
		t.Fatal(err)
	}
	golden(t, "table.txt", b.String())
}

// shape lists the elements of a page with what identifies them, and fails when the
// page is not well-formed.
func shape(t *testing.T, text []byte) string {
	t.Helper()
	var b strings.Builder
	depth := 0
	d := xml.NewDecoder(bytes.NewReader(text))
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			fmt.Fprintf(&b, "%s%s", strings.Repeat(" ", depth), e.Name.Local)
			for _, a := range e.Attr {
				switch a.Name.Local {
				case "class", "aria-label":
					fmt.Fprintf(&b, " %s=%q", a.Name.Local, a.Value)
				case "points":
					fmt.Fprintf(&b, " points=%d", len(strings.Fields(a.Value)))
				}
			}
			b.WriteByte('\n')
			depth++
		case xml.EndElement:
			depth--
		}
	}
	return b.String()
}

func TestHTML(t *testing.T) {
	var b bytes.Buffer
	if err := HTML(&b, example()); err != nil {
		t.Fatal(err)
	}
	golden(t, "shape.txt", shape(t, b.Bytes()))
	text := b.String()
	for _, bad := range []string{"<script", "src=", "href=", "@import", "url(", "NaN", "Inf", "ZgotmplZ"} {
		if strings.Contains(text, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	for _, want := range []string{"prefers-color-scheme: dark", "default-src 'none'", "&lt;script&gt;alert(1)"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page has no %q", want)
		}
	}
}

// TestOddResults: pages of next to nothing, and of a very long load.
func TestOddResults(t *testing.T) {
	f := func(r *result.Result) {
		t.Helper()
		var b bytes.Buffer
		if err := HTML(&b, r); err != nil {
			t.Fatal(err)
		}
		got := shape(t, b.Bytes())
		if strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") || !strings.Contains(got, `aria-label="rate per second"`) || b.Len() > 200_000 {
			t.Errorf("%d bytes:\n%s", b.Len(), got)
		}
		if err := Text(io.Discard, r); err != nil {
			t.Fatal(err)
		}
	}
	f(&result.Result{})
	f(&result.Result{Steps: []result.Step{{Seconds: 1}}, Series: []result.Point{{At: 1}}})
	long := &result.Result{Steps: make([]result.Step, 1)}
	for i := range 3600 {
		long.Series = append(long.Series, result.Point{At: float64(i), Achieved: 1e6, Failed: 1e-9,
			Operations: []result.OpPoint{{Name: "refill", Latency: result.Latency{P50: 1, P99: 1e3, P999: 1e6, Max: 3.6e9}}}})
	}
	f(long)
}

func TestThinKeepsTheWorst(t *testing.T) {
	var all []result.Point
	for i := range 10 * mostPoints {
		p := result.Point{At: float64(i), Achieved: 100, Operations: []result.OpPoint{{Name: "decrypt", Latency: result.Latency{P99: 1, Max: 2}}}}
		if i == 777 {
			p.Failed, p.Operations[0].Latency.Max = 50, 1e6
		}
		all = append(all, p)
	}
	thinned := thin(all)
	if len(thinned) != mostPoints {
		t.Fatalf("%d points", len(thinned))
	}
	p := thinned[77]
	if p.Failed != 50 || p.Operations[0].Latency.Max != 1e6 || p.Operations[0].Latency.P99 != 1 || p.At != 779 {
		t.Errorf("%+v", p)
	}
}

// TestNamesStandApart: many heights, so that sums of them are rounded both ways.
func TestNamesStandApart(t *testing.T) {
	for i := range 20_000 {
		y := scale{low: 0, high: 20_000, from: 185, to: 10}
		var taken []float64
		for n := range 6 {
			v := float64((i + n*n*7) % 20_000)
			at, ok := nameAt([]point{{0, v}, {1, math.NaN()}}, y, taken)
			if !ok {
				t.Fatalf("no place for %v", v)
			}
			for _, other := range taken {
				if math.Abs(at-other) < 12.999 {
					t.Fatalf("names at %v and %v", at, other)
				}
			}
			taken = append(taken, at)
		}
	}
}

// TestNamesStayInTheDrawing: lines that end at one height, at either end of the axis.
func TestNamesStayInTheDrawing(t *testing.T) {
	y := scale{low: 0, high: 1, from: chartHeight - marginBottom, to: marginTop}
	for _, v := range []float64{0, 1} {
		var taken []float64
		for range 6 {
			at, _ := nameAt([]point{{0, v}}, y, taken)
			if at < y.to || at > y.from {
				t.Errorf("a name of a line that ends at %v stands at %v", v, at)
			}
			taken = append(taken, at)
		}
	}
}

// TestTicks: values far apart, and so near that a step from one is the same number.
func TestTicks(t *testing.T) {
	f := func(low, high float64, want ...float64) {
		t.Helper()
		if got := ticks(low, high, 8); !slices.Equal(got, want) {
			t.Errorf("from %v to %v: %v", low, high, got)
		}
	}
	f(0, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8)
	f(3, 41, 5, 10, 15, 20, 25, 30, 35, 40)
	f(1000, 5000, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500, 5000)
	for _, low := range []float64{0.3, 1, 1e5, 1e15} {
		high := math.Nextafter(low, math.Inf(1))
		if all := ticks(low, high, 8); len(all) > 100 {
			t.Errorf("%d ticks from %v to the next number", len(all), low)
		}
	}
}

func TestDurations(t *testing.T) {
	f := func(us float64, want string) {
		t.Helper()
		if got := duration(us); got != want {
			t.Errorf("%v us: %s, want %s", us, got, want)
		}
	}
	f(0, "-")
	f(3.14159, "3.14us")
	f(999.4, "999us")
	f(999.6, "1ms")
	f(12_345, "12.3ms")
	f(999_600, "1s")
	f(61e6, "61s")
	f(3600e6, "1h0m0s")
}
