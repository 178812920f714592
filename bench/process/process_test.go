package process

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func start(t *testing.T, name string, args ...string) *Process {
	t.Helper()
	p, err := Start(exec.Command(name, args...), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-p.Exited():
		default:
			p.cmd.Process.Kill()
			<-p.Exited()
		}
	})
	return p
}

// TestCPUIsThatOfTheChild burns CPU in a child: the clock must move for it and not
// for one that sleeps.
func TestCPUIsThatOfTheChild(t *testing.T) {
	busy := start(t, "sh", "-c", "while :; do :; done")
	idle := start(t, "sleep", "60")
	deadline := time.Now().Add(30 * time.Second)
	for {
		used, err := busy.CPU()
		if err != nil {
			t.Fatal(err)
		}
		if used > 200*time.Millisecond {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a busy process used %v", used)
		}
	}
	used, err := idle.CPU()
	if err != nil || used > 100*time.Millisecond {
		t.Errorf("a sleeping process used %v, %v", used, err)
	}
}

func TestStartPinsTheChildOnly(t *testing.T) {
	var before, after, child unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	p := start(t, "sleep", "60")
	if err := unix.SchedGetaffinity(p.ID(), &child); err != nil {
		t.Fatal(err)
	}
	if child.Count() != 1 || !child.IsSet(0) {
		t.Errorf("the child may run on %d cores", child.Count())
	}
	if err := unix.SchedGetaffinity(0, &after); err != nil || after != before {
		t.Errorf("the parent's affinity changed: %v", err)
	}
	if _, err := Start(exec.Command("sleep", "60"), 1000); err == nil {
		t.Error("core 1000 exists")
	}
}

func TestResident(t *testing.T) {
	p := start(t, "sleep", "60")
	deadline := time.Now().Add(30 * time.Second)
	for {
		held, err := p.Resident()
		if err != nil {
			t.Fatal(err)
		}
		if held > 256<<10 && held < 64<<20 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("sleep holds %d bytes", held)
		}
	}
}

func TestStop(t *testing.T) {
	p := start(t, "sleep", "60")
	if err := p.Stop(); err == nil {
		t.Error("sleep ends cleanly by a signal")
	}
	if used, err := p.CPU(); err == nil {
		t.Errorf("an ended process has used %v", used)
	}
}

func TestAwait(t *testing.T) {
	var sink bytes.Buffer
	has := func(line string) bool { return strings.HasPrefix(line, "ready") }
	if err := Await(strings.NewReader("one\ntwo\n"), &sink, time.Minute, has); err == nil || sink.String() != "one\ntwo\n" {
		t.Errorf("%v %q", err, sink.String())
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	w.WriteString("one\nready at 1\n")
	if err := Await(r, &bytes.Buffer{}, time.Minute, has); err != nil {
		t.Error(err)
	}
}
