package report

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/bench/stats"
)

func row(name string, value float64, guarded bool) Row {
	return Row{Group: "CPU", Case: name, Unit: "µs", Ours: []float64{value, value}, Beside: []float64{1, 1},
		Figure: stats.Interval{Value: value, Low: value * 0.98, High: value * 1.02}, FigureUnit: "× bare", Goal: &Goal{AtMost: 1.15}, Guarded: guarded}
}

func run(day int, rows ...Row) *File {
	return &File{Taken: time.Date(2030, 1, day, 0, 0, 0, 0, time.UTC), Commit: "abc", Machine: Machine{CPU: "A CPU @ 2 GHz", Cores: 2, Go: "go1.26"}, Rows: rows}
}

func TestRegressions(t *testing.T) {
	f := func(before, after Row, want bool) {
		t.Helper()
		if got := run(2, after).Regressions(run(1, before)); len(got) > 0 != want {
			t.Errorf("from %v to %v: %q", before.Figure, after.Figure, got)
		}
	}
	f(row("a", 1.1, true), row("a", 1.3, true), true)
	f(row("a", 1.1, true), row("a", 1.15, true), false)
	f(row("a", 1.3, true), row("a", 1.1, true), false)
	f(row("a", 1.1, true), row("a", 1.3, false), false) // nobody guards it
	f(row("a", 1.1, true), row("b", 1.3, true), false)  // another case
	f(row("a", 0, true), row("a", 1, true), true)       // allocations
	f(row("a", 0, true), row("a", 0.005, true), false)
	noisy := row("a", 1.3, true)
	noisy.Figure.Low = 1.0
	f(row("a", 1.1, true), noisy, false) // the noise explains it
}

func TestFilesAreFoundAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "results")
	first, second, third := run(1, row("a", 1, true)), run(2, row("a", 2, true)), run(3, row("a", 3, true))
	if got, err := first.Previous(dir); err != nil || got != nil {
		t.Errorf("before the first: %v, %v", got, err)
	}
	other := run(2, row("a", 9, true))
	other.Machine.CPU = "another"
	for _, f := range []*File{first, second, third, other} {
		path, err := f.Write(dir)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Read(path); err != nil || !reflect.DeepEqual(again, f) {
			t.Errorf("%+v came back as %+v, %v", f, again, err)
		}
	}
	if got, err := third.Previous(dir); err != nil || !reflect.DeepEqual(got, second) {
		t.Errorf("before the third: %+v, %v", got, err)
	}
	newer := run(4)
	newer.Machine.Go = "go1.27"
	if got, err := newer.Previous(dir); err != nil || got != nil {
		t.Errorf("with another Go: %v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "2030-01-03T120000-"+third.Machine.Name()+".json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newer.Previous(dir); err == nil {
		t.Error("a broken file is no error")
	}
}

func TestPrint(t *testing.T) {
	f := run(1, row("good", 1.1, true), row("bad", 1.2, true))
	f.Rows = append(f.Rows, Row{Group: "Java", Case: "generate", Figure: stats.Interval{Value: 9}, Goal: &Goal{AtLeast: 8}})
	f.Unmeasured = map[string]string{"unix": "no such property"}
	var b strings.Builder
	if err := f.Print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nCPU\n", "\nJava\n", "≤ 1.15 met", "≤ 1.15 MISSED", "≥ 8 met", "not measured: unix: no such property"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestThisMachine(t *testing.T) {
	m := ThisMachine(0)
	if m.CPU == "" || m.Cores < 1 || m.Kernel == "" || m.Memory < 64<<20 || strings.ContainsAny(m.Name(), " /") {
		t.Errorf("%+v %q", m, m.Name())
	}
	if stolen, all := Stolen(); all <= 0 || stolen < 0 || stolen > all {
		t.Errorf("%v of %v stolen", stolen, all)
	}
}
