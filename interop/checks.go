package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// checksLimit ends a program that waits for what never comes; the slowest takes
// half a minute on a busy machine of two cores.
const checksLimit = 4 * time.Minute

// RunChecks runs one of the programs under java/ and fails the test unless it
// prints exactly the wanted checks, in order, all of them passed, and exits with
// status 0. When the program waits at a step, the function of that name runs and
// the program goes on; every step must be reached.
func RunChecks(t *testing.T, program *exec.Cmd, steps map[string]func(), want ...string) {
	t.Helper()
	var stderr bytes.Buffer
	program.Stderr = &stderr
	stdin, err := program.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(checksLimit, func() {
		if program.Process.Kill() == nil {
			t.Errorf("the program still ran after %v", checksLimit)
		}
	})
	defer watchdog.Stop()
	var checks, reached []string
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		var said struct {
			Check, Step, Detail string
			OK                  bool
		}
		if err := json.Unmarshal(line, &said); err != nil {
			t.Errorf("the program printed %q: %v", line, err)
			continue
		}
		if said.Step != "" {
			step, known := steps[said.Step]
			if !known {
				t.Errorf("the program waits at the unknown step %q", said.Step)
				break
			}
			step()
			reached = append(reached, said.Step)
			if _, err := io.WriteString(stdin, said.Step+"\n"); err != nil {
				t.Errorf("after step %q: %v", said.Step, err)
				break
			}
			continue
		}
		checks = append(checks, said.Check)
		if !said.OK {
			t.Errorf("%s: %s", said.Check, said.Detail)
		}
	}
	stdin.Close()
	if err := program.Wait(); err != nil {
		t.Errorf("the program ended with %v", err)
	}
	if !slices.Equal(checks, want) {
		t.Errorf("checks made:\n%q\nwanted:\n%q", checks, want)
	}
	if len(reached) != len(steps) {
		t.Errorf("only these of %d steps were reached: %q", len(steps), reached)
	}
	if t.Failed() {
		t.Logf("standard error of the program:\n%s", stderr.Bytes())
	}
}
