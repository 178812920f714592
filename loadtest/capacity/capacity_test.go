package capacity

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/loadtest/result"
)

// step is one that was achieved.
func step(rate, perRequest, perEDEK float64) result.Step {
	return result.Step{Asked: rate, Achieved: rate, Seconds: 10,
		Operations: []result.Operation{{Name: "decrypt", Answered: int64(10 * rate)}},
		Server:     &result.Server{CPUSeconds: 1, CPUPerRequest: perRequest, CPUPerEDEK: perEDEK, ResidentBytes: 60 << 20, IdleBytes: 30 << 20}}
}

func TestRead(t *testing.T) {
	clients := &result.Result{Profile: "clients", Connections: 64, Steps: []result.Step{step(1000, 20, 20), step(4000, 10, 10), step(9000, 4, 4), step(9500, 3, 3)}}
	clients.Steps[1].Generator.Limited = true
	clients.Steps[2].Achieved = 8000
	clients.Steps[3].Operations[0].Failed = 5000
	namenode := &result.Result{Profile: "namenode", TLS: true, Steps: []result.Step{step(10, 100, 0.3)}}
	storm := &result.Result{Profile: "login-storm", Connections: 1000, Steps: []result.Step{step(100, 100, 0)}}
	storm.Steps[0].Operations = []result.Operation{{Name: "first-decrypt", Answered: 1000}}

	f, err := Read([]*result.Result{clients, namenode})
	if want := (Figures{Decrypt: 10 * time.Microsecond, EDEK: 300 * time.Nanosecond, Base: 60 << 20, Connection: tlsConnection}); err != nil || f != want {
		t.Errorf("%+v %v, want %+v", f, err, want)
	}
	f, err = Read([]*result.Result{clients, storm})
	// 1 s for 1000 starts; 30 MiB more than at idle with 1000 connections.
	if want := (Figures{Decrypt: 10 * time.Microsecond, Login: time.Millisecond, Base: 60 << 20, Connection: 30 << 20 / 1000, Measured: true}); err != nil || f != want {
		t.Errorf("%+v %v, want %+v", f, err, want)
	}
	mixed := &result.Result{Profile: "mixed", Steps: []result.Step{step(1000, 15, 0)}}
	if f, err = Read([]*result.Result{mixed}); err != nil || f.Decrypt != 15*time.Microsecond {
		t.Errorf("%+v %v", f, err)
	}
	if f, err = Read([]*result.Result{mixed, clients}); err != nil || f.Decrypt != 10*time.Microsecond {
		t.Errorf("%+v %v", f, err)
	}

	refused := func(why string, all ...*result.Result) {
		t.Helper()
		if f, err := Read(all); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%+v %v, want %q", f, err, why)
		}
	}
	refused("no result of the profile clients", namenode)
	refused("no base for a plan", &result.Result{Profile: "clients", Steps: clients.Steps[2:]})
	refused("no base for a plan", clients, &result.Result{Profile: "namenode", Steps: []result.Step{{Asked: 1, Achieved: 1}}})
}

func TestPlan(t *testing.T) {
	figures := Figures{Decrypt: 20 * time.Microsecond, EDEK: time.Microsecond, Login: time.Millisecond, Base: 100 << 20, Connection: 16 << 10}
	need := Need{Files: 200_000, Creates: 100_000, Clients: 10_000, PerClient: 2, Cores: 2, Busy: 0.5}
	p, err := New(figures, need)
	if err != nil {
		t.Fatal(err)
	}
	// 200000 × 20 µs + 100000 × 1 µs = 4.1 processors, one for each node: 5 nodes and one more.
	if math.Abs(p.Processors-4.1) > 1e-9 || p.Nodes != 6 || p.Connections != 4000 || p.Memory != 100<<20+4000*16<<10 || p.LoginTime != time.Second {
		t.Errorf("%+v", p)
	}
	var b strings.Builder
	if err := p.Text(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"nodes        6 of 2 processors: 5 carry", "4.1 busy", "4000 a node", "at least 5000 open files", "163 MiB a node", "within 1s"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}

	// Whole nodes are whole, and a small cluster has two.
	need.Files, need.Creates = 200_000, 0
	if p, err = New(figures, need); err != nil || p.Nodes != 5 {
		t.Errorf("%+v %v", p, err)
	}
	need.Files = 1
	if p, err = New(figures, need); err != nil || p.Nodes != 2 || p.Connections != 20_000 {
		t.Errorf("%+v %v", p, err)
	}

	refused := func(why string, change func(f *Figures, n *Need)) {
		t.Helper()
		f, n := figures, Need{Files: 100, Creates: 1, Clients: 1, PerClient: 1, Cores: 1, Busy: 0.5}
		change(&f, &n)
		if p, err := New(f, n); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%+v %v, want %q", p, err, why)
		}
	}
	refused("files opened", func(_ *Figures, n *Need) { n.Files = 0 })
	refused("files opened", func(_ *Figures, n *Need) { n.Files = math.NaN() })
	refused("files created", func(_ *Figures, n *Need) { n.Creates = 101 })
	refused("profile namenode", func(f *Figures, _ *Need) { f.EDEK = 0 })
	refused("one client", func(_ *Figures, n *Need) { n.Clients = 0 })
	refused("connections", func(_ *Figures, n *Need) { n.PerClient = 0 })
	refused("processor", func(_ *Figures, n *Need) { n.Cores = 0 })
	refused("share", func(_ *Figures, n *Need) { n.Busy = 1.1 })
	refused("decrypt", func(f *Figures, _ *Need) { f.Decrypt = 0 })
	refused("nobody has so many", func(_ *Figures, n *Need) { n.Files = 1e12 })
}
