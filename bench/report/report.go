// Package report is what a run of the benchmarks leaves behind: rows for the
// terminal, and a file with every slice of every measurement, so that whoever
// doubts a figure can compute it again.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/edekd/edekd/bench/stats"
)

// Goal is what a figure ought to be; one of the two is set.
type Goal struct {
	AtMost  float64 `json:"atMost,omitempty"`
	AtLeast float64 `json:"atLeast,omitempty"`
}

// Met says whether a value is as it ought to be.
func (g Goal) Met(value float64) bool {
	if g.AtLeast != 0 {
		return value >= g.AtLeast
	}
	return value <= g.AtMost
}

func (g Goal) String() string {
	if g.AtLeast != 0 {
		return fmt.Sprintf("≥ %g", g.AtLeast)
	}
	return fmt.Sprintf("≤ %g", g.AtMost)
}

// Row is one measurement.
type Row struct {
	Group string `json:"group"` // the table it stands in
	Case  string `json:"case"`  // unique within the group
	// Unit is that of both series.
	Unit string `json:"unit"`
	// Ours and Beside are the slices: of edekd, and of what it is compared with.
	Ours   []float64 `json:"ours,omitempty"`
	Beside []float64 `json:"beside,omitempty"`
	// Figure is what the row is about and what the goal is for; FigureUnit says
	// how it follows from the series.
	Figure     stats.Interval `json:"figure"`
	FigureUnit string         `json:"figureUnit"`
	Goal       *Goal          `json:"goal,omitempty"`
	// Guarded rows are compared with the file before: a figure that holds still
	// on a noisy machine, larger being worse.
	Guarded bool   `json:"guarded,omitempty"`
	Note    string `json:"note,omitempty"`
}

// File is one run.
type File struct {
	Taken   time.Time         `json:"taken"`
	Commit  string            `json:"commit"`
	Machine Machine           `json:"machine"`
	Options map[string]string `json:"options"`
	Rows    []Row             `json:"rows"`
	// Unmeasured are the cases that failed, and why.
	Unmeasured map[string]string `json:"unmeasured,omitempty"`
}

// Write writes the file into dir, named for time and machine, and returns its
// path.
func (f *File) Write(dir string) (string, error) {
	text, err := json.MarshalIndent(f, "", "\t")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, f.Taken.UTC().Format("2006-01-02T150405")+"-"+f.Machine.Name()+".json")
	return path, os.WriteFile(path, append(text, '\n'), 0o644)
}

// Read reads a file that Write wrote.
func Read(path string) (*File, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := &File{}
	if err := json.Unmarshal(text, f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// Previous returns the last file in dir that was taken before f on the same kind
// of machine; nil if there is none.
func (f *File) Previous(dir string) (*File, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*-"+f.Machine.Name()+".json"))
	if err != nil {
		return nil, err
	}
	slices.Sort(paths)
	for _, path := range slices.Backward(paths) {
		before, err := Read(path)
		if err != nil {
			return nil, err
		}
		if before.Taken.Before(f.Taken) && before.Machine.Same(f.Machine) {
			return before, nil
		}
	}
	return nil, nil
}

// regression is by how much a guarded figure may grow.
const regression = 1.10

// leastAllocations is what a count of allocations per request may grow by from
// zero: the runtime's own now and then.
const leastAllocations = 0.01

// Regressions names the guarded rows whose figure is more than a tenth above that
// of the file before, by more than the intervals of both explain.
func (f *File) Regressions(before *File) (worse []string) {
	old := map[string]Row{}
	for _, r := range before.Rows {
		old[r.Group+"/"+r.Case] = r
	}
	for _, r := range f.Rows {
		b, known := old[r.Group+"/"+r.Case]
		if !r.Guarded || !known || b.FigureUnit != r.FigureUnit {
			continue
		}
		if r.Figure.Value > b.Figure.Value*regression+leastAllocations && r.Figure.Low > b.Figure.High {
			worse = append(worse, fmt.Sprintf("%s, %s: %.3g %s, was %.3g on %s (%s)", r.Group, r.Case, r.Figure.Value, r.FigureUnit,
				b.Figure.Value, before.Taken.Format(time.DateOnly), before.Commit))
		}
	}
	return worse
}

// Print writes the rows as tables.
func (f *File) Print(w io.Writer) error {
	for i, r := range f.Rows {
		if i == 0 || f.Rows[i-1].Group != r.Group {
			if _, err := fmt.Fprintf(w, "\n%s\n", r.Group); err != nil {
				return err
			}
		}
		if i+1 == len(f.Rows) || f.Rows[i+1].Group != r.Group {
			from := i
			for from > 0 && f.Rows[from-1].Group == r.Group {
				from--
			}
			if err := printGroup(w, f.Rows[from:i+1]); err != nil {
				return err
			}
		}
	}
	for name, why := range f.Unmeasured {
		if _, err := fmt.Fprintf(w, "\nnot measured: %s: %s\n", name, why); err != nil {
			return err
		}
	}
	return nil
}

func printGroup(w io.Writer, rows []Row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "case\tedekd (quartiles)\tbeside it\tunit\tfigure [95 %]\t\tgoal\t")
	for _, r := range rows {
		verdict := ""
		if r.Goal != nil {
			verdict = r.Goal.String() + " met"
			if !r.Goal.Met(r.Figure.Value) {
				verdict = r.Goal.String() + " MISSED"
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.3f [%.3f, %.3f]\t%s\t%s\t%s\n", r.Case, series(r.Ours), series(r.Beside), r.Unit,
			r.Figure.Value, r.Figure.Low, r.Figure.High, r.FigureUnit, verdict, r.Note)
	}
	return t.Flush()
}

func series(values []float64) string {
	if len(values) == 0 {
		return "–"
	}
	s := stats.Summarize(values)
	return fmt.Sprintf("%s (%s–%s)", short(s.Median), short(s.Q1), short(s.Q3))
}

// short prints a number with about four digits that say something.
func short(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.4g", v), ".")
}
