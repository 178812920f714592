package main

import (
	"bufio"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A start that waits for ZooKeeper says so at once, and a signal ends it as it
// would end a server.
func TestStopWhileWaitingForZooKeeper(t *testing.T) {
	t.Parallel()
	const tokens = "hadoop.kms.authentication.zk-dt-secret-manager."
	s := newSite(t, tokens+"enable", "true", tokens+"zkConnectionString", "127.0.0.1:1", tokens+"zkAuthType", "none",
		tokens+"zkConnectionTimeout", "600000")
	cmd := s.command()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(patience, func() { cmd.Process.Kill() }).Stop()
	said := bufio.NewReader(stderr)
	for {
		line, err := said.ReadString('\n')
		if err != nil {
			t.Fatalf("it does not say that it waits: %v", err)
		}
		if strings.Contains(line, `msg="connecting to ZooKeeper" servers=127.0.0.1:1 wait=10m0s`) {
			break
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(said)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v, want exit code 0", err)
	}
	if !strings.Contains(string(rest), "edekd was stopped before it served") {
		t.Errorf("it says\n%s", rest)
	}
}
