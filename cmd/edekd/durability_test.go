package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// TestKilledProcessLosesNoAcknowledgedKey kills edekd at random moments while
// clients create and roll keys. Every version that was acknowledged must
// decrypt, after a restart on the same store, what it encrypted before.
func TestKilledProcessLosesNoAcknowledgedKey(t *testing.T) {
	t.Parallel()
	s := newSite(t, "edekd.log.dir", t.TempDir())
	var mu sync.Mutex
	var keys []*wrapped
	acknowledged := map[string]bool{} // version names
	for round := range 5 {
		p := s.start(t)
		moment := make(chan struct{}) // enough has been acknowledged to make it interesting
		enough := len(acknowledged) + 8
		var clients sync.WaitGroup
		for client := range 6 {
			clients.Go(func() {
				for n := 0; ; n++ {
					key := fmt.Sprintf("k-%d-%d-%d", round, client, n)
					for roll := range 3 {
						path, body := "/kms/v1/keys", `{"name":"`+key+`"}`
						if roll > 0 {
							path, body = "/kms/v1/key/"+key, "{}"
						}
						status, err := p.call(kept, "POST", path, body, nil)
						if err != nil {
							return
						}
						if status > 201 {
							t.Errorf("%s of %s: %d", path, key, status)
							return
						}
						mu.Lock()
						acknowledged[fmt.Sprintf("%s@%d", key, roll)] = true
						if len(acknowledged) == enough {
							close(moment)
						}
						mu.Unlock()
						made, err := p.encrypt(kept, key)
						if err != nil {
							return
						}
						mu.Lock()
						keys = append(keys, made)
						mu.Unlock()
					}
				}
			})
		}
		select {
		case <-moment:
		case <-time.After(patience):
			t.Fatal("too few changes to kill it at")
		}
		time.Sleep(rand.N(100 * time.Millisecond))
		p.kill()
		clients.Wait()
	}

	p := s.start(t)
	group, _ := errgroup.WithContext(context.Background())
	group.SetLimit(8)
	for _, made := range keys {
		group.Go(func() error {
			dek, err := p.decrypt(kept, made)
			if err != nil {
				return err
			}
			if dek != made.dek {
				return fmt.Errorf("%s decrypts to something else", made.version)
			}
			return nil
		})
	}
	for version := range acknowledged {
		group.Go(func() error {
			status, err := p.call(kept, "GET", "/kms/v1/keyversion/"+version, "", nil)
			if err == nil && status != 200 {
				err = fmt.Errorf("%s: %d", version, status)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d versions acknowledged, %d encrypted keys decrypted", len(acknowledged), len(keys))
	p.stop()
}

// TestKeystoreFile is one life with the file of a Java KMS, through a clean
// stop and a kill.
func TestKeystoreFile(t *testing.T) {
	t.Parallel()
	s := newSite(t, "hadoop.kms.key.provider.uri", "jceks://file@"+filepath.Join(t.TempDir(), "kms.keystore"))
	s.env = []string{"HADOOP_KEYSTORE_PASSWORD=secret"}
	p := s.start(t)
	p.must("POST", "/kms/v1/keys", `{"name":"k"}`, nil)
	before, err := p.encrypt(fresh, "k")
	if err != nil {
		t.Fatal(err)
	}
	p.stop()

	p = s.start(t)
	p.must("POST", "/kms/v1/key/k", "{}", nil)
	after, err := p.encrypt(fresh, "k")
	if err != nil {
		t.Fatal(err)
	}
	if before.version != "k@0" || after.version != "k@1" {
		t.Errorf("versions %s and %s", before.version, after.version)
	}
	p.kill()

	p = s.start(t)
	for _, made := range []*wrapped{before, after} {
		if dek, err := p.decrypt(fresh, made); err != nil || dek != made.dek {
			t.Errorf("%s after restarts: %v", made.version, err)
		}
	}
	p.stop()

	s.env = []string{"HADOOP_KEYSTORE_PASSWORD=wrong"}
	if said := s.refused(t); !strings.Contains(said, "password") {
		t.Errorf("%s", said)
	}
}

// TestFullDisk: a limit on the size of files stands for the end of a disk.
// Changes are refused with an error, not acknowledged and not fatal; what
// exists is served on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.shell = "ulimit -f 400" // blocks of 512 or 1024 bytes
	p := s.start(t)
	p.must("POST", "/kms/v1/keys", `{"name":"k"}`, nil)
	made, err := p.encrypt(fresh, "k")
	if err != nil {
		t.Fatal(err)
	}
	padding := strings.Repeat("x", 50_000)
	last, status := 0, 0
	for ; last < 1000; last++ {
		if status, err = p.call(fresh, "POST", "/kms/v1/keys", fmt.Sprintf(`{"name":"pad%d","description":%q}`, last, padding), nil); err != nil {
			t.Fatal(err)
		}
		if status != 201 {
			break
		}
	}
	if status != 500 {
		t.Fatalf("status %d after %d keys, want 500", status, last)
	}
	p.eventuallySays("level=WARN msg=\"request failed\"")
	if dek, err := p.decrypt(fresh, made); err != nil || dek != made.dek {
		t.Errorf("keys are not served on a full disk: %v", err)
	}
	p.stop()

	s.shell = "" // the disk has room again
	p = s.start(t)
	for n := range last {
		p.must("GET", fmt.Sprintf("/kms/v1/key/pad%d/_metadata", n), "", nil)
	}
	p.must("POST", "/kms/v1/keys", `{"name":"room"}`, nil)
	p.stop()
}

// Without an audit log no change is made, and balancers are told.
func TestFullAuditLog(t *testing.T) {
	t.Parallel()
	logs := t.TempDir()
	if err := os.Symlink("/dev/full", filepath.Join(logs, "kms-audit.log")); err != nil {
		t.Fatal(err)
	}
	p := newSite(t, "edekd.log.dir", logs).start(t)
	if status, err := p.call(fresh, "GET", "/kms/v1/keys/names", "", nil); err != nil || status != 200 {
		t.Fatalf("%d %v", status, err)
	}
	p.eventually("/readyz fails", func() bool {
		status, err := p.call(fresh, "GET", "/readyz", "", nil)
		return err == nil && status == 503
	})
	if status, err := p.call(fresh, "POST", "/kms/v1/keys", `{"name":"k"}`, nil); err != nil || status != 500 {
		t.Errorf("a change that cannot be audited: %d %v", status, err)
	}
	var names []string
	p.must("GET", "/kms/v1/keys/names", "", &names)
	if len(names) != 0 {
		t.Errorf("keys %q exist", names)
	}
	// Lines are lost, which is no clean end.
	p.signal(syscall.SIGTERM)
	<-p.exited
	if code := p.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(p.said(), "audit lines could not be written") {
		t.Errorf("exit code %d", code)
	}
}

// A crowd of connections takes all file descriptors: the server waits, and
// serves again when they have gone.
func TestOutOfFiles(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.shell = "ulimit -n 64"
	p := s.start(t)
	p.must("POST", "/kms/v1/keys", `{"name":"k"}`, nil)
	var crowd []net.Conn
	for range 100 {
		crowd = append(crowd, p.dial("GET /healthz HTTP/1.1\r\n"))
	}
	p.eventuallySays("new connections have to wait")
	for _, c := range crowd {
		c.Close()
	}
	if _, err := p.encrypt(fresh, "k"); err != nil {
		t.Error(err)
	}
	if n := strings.Count(p.said(), "new connections have to wait"); n != 1 {
		t.Errorf("said %d times", n)
	}
	p.stop()
}
