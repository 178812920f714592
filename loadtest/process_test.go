package loadtest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edekd/edekd/loadtest/target"
)

// binary is the edekd that all tests start.
var binary string

func TestMain(m *testing.M) { os.Exit(withBinary(m.Run)) }

func withBinary(run func() int) int {
	dir, err := os.MkdirTemp("", "edekd")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "edekd")
	if out, err := exec.Command("go", "build", "-o", binary, "../cmd/edekd").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return run()
}

// server is a running edekd.
type server struct {
	target target.Target
	pid    int
}

var serving = regexp.MustCompile(`msg="edekd is serving" address=(https?)://[^ ]*:(\d+)/kms `)

// start runs edekd on a free port until the test ends, with properties name,
// value, … and additions to its environment. host is how it is to be called.
func start(t *testing.T, host string, env []string, properties ...string) *server {
	t.Helper()
	dir := t.TempDir()
	site := "<configuration>\n"
	for all := append([]string{
		"hadoop.kms.http.host", "127.0.0.1",
		"hadoop.kms.http.port", "0",
		"hadoop.kms.key.authorization.enable", "false",
		"edekd.state.dir", filepath.Join(dir, "state"),
		"edekd.drain.seconds", "0",
	}, properties...); len(all) > 0; all = all[2:] {
		site += "<property><name>" + all[0] + "</name><value>" + all[1] + "</value></property>\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "kms-site.xml"), []byte(site+"</configuration>\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "--config", dir)
	cmd.Env = append(append(os.Environ(), "HOME="+dir), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address, ended := make(chan []string, 1), make(chan struct{})
	var said strings.Builder
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			said.WriteString(lines.Text() + "\n")
			if m := serving.FindStringSubmatch(lines.Text()); m != nil {
				address <- m
			}
		}
		cmd.Wait()
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("edekd said:\n%s", said.String())
		}
	})
	select {
	case m := <-address:
		all, err := target.Parse(m[1] + "://" + host + ":" + m[2] + "/kms")
		if err != nil {
			t.Fatal(err)
		}
		return &server{all[0], cmd.Process.Pid}
	case <-ended:
		t.Fatalf("edekd ended at start:\n%s", said.String())
	case <-time.After(20 * time.Second):
		t.Fatal("edekd does not say that it serves")
	}
	return nil
}
