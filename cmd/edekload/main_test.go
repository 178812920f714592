package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// binaries is the folder of the edekd and edekload that tests start.
var binaries string

func TestMain(m *testing.M) { os.Exit(withBinaries(m.Run)) }

func withBinaries(run func() int) int {
	dir, err := os.MkdirTemp("", "edekload")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if out, err := exec.Command("go", "build", "-o", dir+"/", ".", "../edekd").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	binaries = dir
	return run()
}

var serving = regexp.MustCompile(`msg="edekd is serving" address=(https?://127\.0\.0\.1:\d+)/kms `)

// startServer runs edekd on a free port until stop is called, with additions to its
// environment and with properties name, value, …, and returns its URL.
func startServer(dir string, env []string, properties ...string) (url string, pid int, stop func(), err error) {
	site := "<configuration>\n"
	for all := append([]string{
		"hadoop.kms.http.host", "127.0.0.1",
		"hadoop.kms.http.port", "0",
		"hadoop.kms.key.authorization.enable", "false",
		"edekd.drain.seconds", "0",
		"edekd.state.dir", filepath.Join(dir, "state"),
	}, properties...); len(all) > 0; all = all[2:] {
		site += "<property><name>" + all[0] + "</name><value>" + all[1] + "</value></property>\n"
	}
	site += "</configuration>\n"
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "kms-site.xml"), []byte(site), 0o600)); err != nil {
		return "", 0, nil, err
	}
	cmd := exec.Command(filepath.Join(binaries, "edekd"), "--config", dir)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return "", 0, nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", 0, nil, err
	}
	address, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			if m := serving.FindStringSubmatch(lines.Text()); m != nil {
				address <- m[1] + "/kms"
			}
		}
		cmd.Wait()
	}()
	stop = func() {
		cmd.Process.Kill()
		<-ended
	}
	select {
	case url := <-address:
		return url, cmd.Process.Pid, stop, nil
	case <-ended:
		return "", 0, nil, errors.New("edekd ended at start")
	case <-time.After(20 * time.Second):
		stop()
		return "", 0, nil, errors.New("edekd does not say that it serves")
	}
}

// TestScripts runs the command lines of testdata/script. Beside testscript's own
// commands there are `kms`, which starts a server and sets KMS to its URL and PID to
// its process, and `exits CODE PROGRAM [ARG ...]`.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", binaries+":"+e.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"kms": func(ts *testscript.TestScript, _ bool, _ []string) {
				url, pid, stop, err := startServer(ts.MkAbs("server"), nil)
				ts.Check(err)
				ts.Defer(stop)
				ts.Setenv("KMS", url)
				ts.Setenv("PID", strconv.Itoa(pid))
			},
			"exits": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 {
					ts.Fatalf("usage: exits CODE PROGRAM [ARG ...]")
				}
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				got, failure := 0, (*exec.ExitError)(nil)
				if err := ts.Exec(args[1], args[2:]...); errors.As(err, &failure) {
					got = failure.ExitCode()
				} else {
					ts.Check(err)
				}
				if got != want {
					ts.Fatalf("exit code %d, want %d", got, want)
				}
			},
		},
	})
}

// TestCtrlC interrupts a load of an hour: it prints what was measured, writes its
// files, and ends with 1.
func TestCtrlC(t *testing.T) {
	dir := t.TempDir()
	url, _, stop, err := startServer(filepath.Join(dir, "server"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		file := filepath.Join(dir, sig.String()+".json")
		cmd := exec.Command(filepath.Join(binaries, "edekload"), "clients", "--duration=1h", "--create-keys=1", "--json="+file, url)
		var out strings.Builder
		cmd.Stdout = &out
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		giveUp := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		var said strings.Builder
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			said.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), " of 3600 s: ") {
				cmd.Process.Signal(sig)
			}
		}
		cmd.Wait()
		giveUp.Stop()
		if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(said.String(), "edekload: interrupted") {
			t.Errorf("%v: exit code %d:\n%s", sig, code, said.String())
		}
		if !regexp.MustCompile(`(?m)^ +decrypt +[1-9]\d+ +0 `).MatchString(out.String()) || !strings.Contains(out.String(), "note: interrupted") {
			t.Errorf("%v: no table of what was measured:\n%s", sig, out.String())
		}
		if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), `"interrupted": true`) {
			t.Errorf("%v: %v %.200s", sig, err, text)
		}
	}
}
