package result

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestRoundTrip(t *testing.T) {
	want := &Result{
		Version: "1", Profile: "namenode", Targets: []string{"http://h:9600/kms"}, Identity: "simple", Identities: 3, Connections: 4, Keys: 5,
		Started: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC), Interrupted: true,
		Steps: []Step{{Asked: 10, Achieved: 9.5, Seconds: 30, BusyArrived: 0.5, Generator: Generator{Limited: true, LagP99: 12},
			Operations: []Operation{{Name: "refill", Answered: 3, Failed: 1, EDEKs: 900, Latency: Latency{P999: 12.5}, Errors: []Error{{"timeout", 1, "x"}}}},
			Server:     &Server{Source: "/proc/1", CPUSeconds: 1.5}}},
		Series:   []Point{{At: 1, Operations: []OpPoint{{Name: "refill", Count: 3}}}},
		Findings: []string{"a"}, SLOs: []Verdict{{SLO: "rate>1", Met: true, Reason: "9.5/s"}},
	}
	var b bytes.Buffer
	if err := want.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "result.json")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v", got, err)
	}

	for _, text := range []string{"", "[]", "{}", `{"steps":[]}`, `{"other":1}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := Read(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q reads as %+v %v", text, r, err)
		}
	}
	if _, err := Read(path + ".none"); err == nil {
		t.Error("a file that does not exist was read")
	}
}

func TestOps(t *testing.T) {
	for op := range Ops {
		if got, ok := ParseOp(op.String()); !ok || got != op || op.String() == "" {
			t.Errorf("%q is read as %v %v", op, got, ok)
		}
	}
	if _, ok := ParseOp("open"); ok {
		t.Error("open is an operation")
	}
}

func TestFailed(t *testing.T) {
	s := Step{Operations: []Operation{{Name: "decrypt", Answered: 90, Failed: 5}, {Name: "refill", Failed: 5}}}
	if got := s.Failed(); got != 0.1 {
		t.Errorf("%v", got)
	}
	if got := (&Step{}).Failed(); got != 0 {
		t.Errorf("%v of nothing", got)
	}
	if s.Operation("refill") != &s.Operations[1] || s.Operation("roll") != nil {
		t.Error("operations are not found by name")
	}
}

func TestPrintable(t *testing.T) {
	if got := Printable("a\x1b[31m\r\n\xff\u202eé"); got != "a [31m  ? é" {
		t.Errorf("%q", got)
	}
}
