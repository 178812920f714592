package cpu

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	s, err := parseStat([]byte("42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 1234 99999 3 18446744073709551615 0\n"))
	if err != nil || s.CPU != 3*time.Second || s.Resident != 3*int64(os.Getpagesize()) {
		t.Errorf("%+v %v", s, err)
	}
	for _, text := range []string{"", "42 (x) S 1 2", "42 (x) S 1 42 42 0 -1 4194560 100 0 0 0 x 50 0 0 20 0 9 0 1234 99999 3"} {
		if s, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q reads as %+v", text, s)
		}
	}
}

func TestProcess(t *testing.T) {
	before, err := Process(os.Getpid()).Read(t.Context())
	if err != nil || before.Resident < 1<<20 {
		t.Fatalf("%+v %v", before, err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		for n := 0; n < 1e7; n++ {
			_ = n
		}
		after, err := Process(os.Getpid()).Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if after.CPU > before.CPU {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("counting to ten million again and again takes no CPU time")
		}
	}
	if _, err := Process(1 << 30).Read(t.Context()); err == nil {
		t.Error("a process that does not exist has used something")
	}
}

func TestMetrics(t *testing.T) {
	page, status := "", 200
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, page)
	}))
	defer server.Close()
	m := NewMetrics(server.URL+"/metrics", nil)
	f := func(text string, answer int, want Sample, ok bool) {
		t.Helper()
		page, status = text, answer
		if got, err := m.Read(t.Context()); got != want || (err == nil) != ok {
			t.Errorf("%q: %+v %v", text, got, err)
		}
	}
	f("# HELP x\nprocess_cpu_seconds_total 12.5\nprocess_resident_memory_bytes 4096\nother 1\n", 200, Sample{12500 * time.Millisecond, 4096}, true)
	f("process_cpu_seconds_total 1e1", 200, Sample{10 * time.Second, 0}, true)
	f("process_cpu_seconds_total{x=\"y\"} 1\n", 200, Sample{}, false)
	f("process_cpu_seconds_total NaN\n", 200, Sample{}, false)
	f("process_cpu_seconds_total -1\n", 200, Sample{}, false)
	f("", 200, Sample{}, false)
	f("process_cpu_seconds_total 1\n", 401, Sample{}, false)
	f("process_cpu_seconds_total 1\n", 302, Sample{}, false)
}

func TestMachine(t *testing.T) {
	before, err := parseMachine("cpu  100 0 50 800 50 0 0 0 7 7\ncpu0 1\n")
	if err != nil {
		t.Fatal(err)
	}
	after, err := parseMachine("cpu  110 10 60 850 60 5 5 0 7 7")
	if err != nil || after.BusySince(before) != 0.4 || before.BusySince(before) != 0 || before.BusySince(after) != 0 {
		t.Errorf("%v busy, %v", after.BusySince(before), err)
	}
	for _, text := range []string{"", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3 4 5 6 7", "cpu 1 2 3 4 5 6 7 -8"} {
		if m, err := parseMachine(text); err == nil {
			t.Errorf("%q reads as %+v", text, m)
		}
	}
	if m, err := ReadMachine(); err != nil || m.busy == 0 || m.all <= m.busy {
		t.Errorf("%+v %v", m, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("process_cpu_seconds_total 12.5\nprocess_resident_memory_bytes 4096\n"))
	f.Add([]byte("42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 1234 99999 3 0 0\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := parseMetrics(text); err == nil && (s.CPU < 0 || s.Resident < 0) {
			t.Errorf("%q reads as %+v", text, s)
		}
		if m, err := parseMachine(string(text)); err == nil && m.BusySince(Machine{}) > 1 {
			t.Errorf("%q reads as %+v", text, m)
		}
		if _, err := parseStat(text); err == nil && len(text) < 40 {
			t.Errorf("%q has 24 fields", text)
		}
	})
}
