package main

import (
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edekd/edekd/bench/kms"
	"github.com/edekd/edekd/bench/report"
	"github.com/edekd/edekd/bench/sidecar"
)

// TestPartsMeasure runs measurements with slices too short to say anything, all
// but those of proxy's own tests and those that fill stores for minutes.
func TestPartsMeasure(t *testing.T) {
	for _, part := range parts {
		s := &suite{runCommand: runCommand{Slices: 1, Slice: 5 * time.Millisecond, Keys: 20, Idle: 20, Open: 50 * time.Millisecond, Rounds: 1}}
		switch part.name {
		case "tcp", "tls", "unix", "keys", "connections", "latency":
		default:
			continue
		}
		t.Run(part.name, func(t *testing.T) {
			err := part.measure(s)
			s.removeDirs()
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range s.file.Rows {
				if len(r.Ours) != 1 || len(r.Beside) != 1 || !(r.Ours[0] > 0) || !(r.Beside[0] > 0) || r.FigureUnit == "" {
					t.Errorf("%+v", r)
				}
			}
			if len(s.file.Rows) == 0 {
				t.Error("nothing was measured")
			}
		})
	}
}

func TestEventWindowsAreWholeWindows(t *testing.T) {
	const events = 8
	last := eventWarm + events*eventDistance*window
	for i := range events {
		at := eventWindow(i)
		if at < eventWarm || at+window > last || (at-eventWarm)%window != 0 {
			t.Errorf("the window of event %d begins at %v", i, at)
		}
	}
}

// TestRunLeavesAFile measures one part by the command itself.
func TestRunLeavesAFile(t *testing.T) {
	s := &suite{runCommand: runCommand{Slices: 2, Slice: 5 * time.Millisecond}}
	s.file = report.File{Taken: time.Now(), Machine: report.ThisMachine(0)}
	if err := s.withBoth(kms.Options{}, func(edekd *kms.Server, bare *kms.Bare) error {
		p, err := prepare(edekd)
		if err != nil {
			return err
		}
		return s.pairs("g", edekd, bare, []pair{{"generate", p.generate(1), 0, 1000}})
	}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := s.finish(dir); err != nil {
		t.Error(err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%q, %v", found, err)
	}
	f, err := report.Read(found[0])
	if err != nil || len(f.Rows) != 1 || len(f.Rows[0].Ours) != 2 || !f.Rows[0].Goal.Met(f.Rows[0].Figure.Value) {
		t.Errorf("%+v, %v", f, err)
	}
	s.removeDirs()
}

func TestUnique(t *testing.T) {
	u := uniqueCommand{EDEKs: 30_000, Connections: 16, Zones: 3, Every: time.Millisecond}
	server, err := kms.StartEdekd(kms.Options{Dir: t.TempDir(), Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	found, err := u.take(server)
	if err != nil || found.edeks < u.EDEKs || found.drains == 0 {
		t.Errorf("%+v, %v", found, err)
	}
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
}

func TestDoublesAreFound(t *testing.T) {
	a, b, c := iv{1}, iv{2}, iv{1, 15: 1}
	if got, found := repeated([]iv{a, b, c}); found {
		t.Errorf("%x", got)
	}
	if got, found := repeated([]iv{a, b, c, a}); !found || got != a {
		t.Errorf("%x %v", got, found)
	}
}

func TestLateVersionsAreFound(t *testing.T) {
	const answer = `[ {
  "encryptedKeyVersion" : {
    "material" : "QKocHLfOcHfUJJJAVCu6gCml9W5Rf48p4RguYdO4hs4",
    "name" : "k",
    "versionName" : "EEK"
  },
  "versionName" : "k@3",
  "iv" : "AQmNe7ZQ-HY2TIkwGcmIWg"
} ]`
	f := func(text string, n int, oldest int64, want string) {
		t.Helper()
		var left atomic.Int64
		w := taker{left: &left}
		err := w.keep([]byte(text), n, oldest)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%d EDEKs of version %d or later in %s: %v", n, oldest, text, err)
		}
	}
	f(answer, 1, 3, "")
	f(answer, 1, 4, "of version 3")
	f(answer, 2, 0, "for 2 asked for")
	f("[ ]", 1, 0, "0 EDEKs")
	f(strings.Replace(answer, "k@3", "k", 1), 1, 0, "no version")
	f(strings.Replace(answer, "AQmNe7ZQ", "AQ", 1), 1, 0, "an IV")
}

func TestMemory(t *testing.T) {
	m := memoryCommand{Keys: 50, Users: 40, Mixes: 500, Rounds: 2, Round: 50 * time.Millisecond, Growth: 2, Slower: 1000}
	if err := withEdekd(kms.Options{Dir: t.TempDir(), Readers: m.Users}, 0, m.use); err != nil {
		t.Error(err)
	}
	m.Slower = 0.001
	if err := withEdekd(kms.Options{Dir: t.TempDir(), Readers: m.Users}, 0, m.use); err == nil {
		t.Error("a limit that nothing meets is met")
	}
}

func TestGrowthIsFromTheFirstToTheLastSixth(t *testing.T) {
	var samples []sample
	for i := range 61 {
		samples = append(samples, sample{time.Minute + time.Duration(i)*time.Second, int64(i)})
	}
	if from, to := grown(samples); from != 5 || to != 55 {
		t.Errorf("from %d to %d", from, to)
	}
	if from, to := grown(samples[:1]); from != 0 || to != 0 {
		t.Errorf("from %d to %d", from, to)
	}
}

func TestSoak(t *testing.T) {
	k := soakCommand{For: 2 * time.Second, Settle: 200 * time.Millisecond, Round: 50 * time.Millisecond, Growth: 5, Leftover: 100}
	if err := withEdekd(kms.Options{Dir: t.TempDir()}, 0, k.soak); err != nil {
		t.Error(err)
	}
	k.Growth = -1
	k.For = time.Second
	if err := withEdekd(kms.Options{Dir: t.TempDir()}, 0, k.soak); err == nil {
		t.Error("memory that does not shrink passes for shrinking")
	}
}

// TestSidecarMeasuresAllPartsByDefault, and refuses those that there are not
// before it starts anything.
func TestSidecarMeasuresAllPartsByDefault(t *testing.T) {
	var names []string
	for _, part := range sidecar.Parts {
		names = append(names, part.Name)
	}
	field, _ := reflect.TypeFor[sidecarCommand]().FieldByName("Parts")
	if got, want := field.Tag.Get("default"), strings.Join(names, ","); got != want {
		t.Errorf("%q by default, there are %q", got, want)
	}
	if err := (&sidecarCommand{Parts: []string{"step", "rungs"}}).Run(); err == nil || !strings.Contains(err.Error(), "rungs") {
		t.Errorf("%v", err)
	}
}
