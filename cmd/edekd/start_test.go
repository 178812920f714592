package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Whoever says that it serves does, also the very first.
func TestFirstAnswer(t *testing.T) {
	t.Parallel()
	p := newSite(t).start(t)
	p.must("POST", "/kms/v1/keys", `{"name":"first"}`, nil)
	p.stop()
}

func TestSecondProcessOnTheStoreIsRefused(t *testing.T) {
	t.Parallel()
	f := func(properties ...string) {
		t.Helper()
		s := newSite(t, properties...)
		s.env = []string{"HADOOP_KEYSTORE_PASSWORD=secret"}
		p := s.start(t)
		said := s.refused(t)
		if !strings.Contains(said, ": cannot open the keys: ") || !strings.Contains(said, "Try: stop the other process") {
			t.Errorf("%s", said)
		}
		p.must("POST", "/kms/v1/keys", `{"name":"k"}`, nil)
		p.stop()
	}
	f()
	f("hadoop.kms.key.provider.uri", "jceks://file@"+filepath.Join(t.TempDir(), "kms.keystore"))
}

func TestBusyPortIsRefused(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	logs := t.TempDir()
	s := newSite(t, "hadoop.kms.http.port", fmt.Sprint(l.Addr().(*net.TCPAddr).Port), "edekd.log.dir", logs)
	said := s.refused(t)
	if !strings.Contains(said, "address already in use") || !strings.Contains(said, ": hadoop.kms.http.port: cannot listen") {
		t.Errorf("%s", said)
	}
	file, err := os.ReadFile(filepath.Join(logs, "kms.log"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(file, []byte(`level=ERROR msg="edekd has ended" error=`)) || !bytes.Contains(file, []byte("cannot listen")) {
		t.Errorf("kms.log does not say why:\n%s", file)
	}
	l.Close()
	s.start(t).stop() // nothing was left behind that keeps a start from working
}

// A store with keys whose identity is gone must not get a second identity.
func TestLostIdentityIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := s.start(t)
	p.must("POST", "/kms/v1/keys", `{"name":"k"}`, nil)
	p.stop()
	identity := filepath.Join(s.state, "identity.pgp")
	if err := os.Rename(identity, identity+".away"); err != nil {
		t.Fatal(err)
	}
	if said := s.refused(t); !strings.Contains(said, identity) {
		t.Errorf("the identity file is not named:\n%s", said)
	}
	if err := os.Rename(identity+".away", identity); err != nil {
		t.Fatal(err)
	}
	p = s.start(t)
	if _, err := p.encrypt(fresh, "k"); err != nil {
		t.Error(err)
	}
	p.stop()
}

// TestKeyBytesStayPrivate starts edekd where core dumps are allowed and files
// open to everybody.
func TestKeyBytesStayPrivate(t *testing.T) {
	t.Parallel()
	s := newSite(t, "edekd.access-log.enabled", "true")
	s.shell = "umask 0; ulimit -c unlimited 2>/dev/null || :"
	p := s.start(t)
	p.must("POST", "/kms/v1/keys", `{"name":"k"}`, nil)
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max core file size"); ok {
			if f := strings.Fields(rest); len(f) < 2 || f[0] != "0" || f[1] != "0" {
				t.Errorf("core dumps are on: %s", line)
			}
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(status), "\nUmask:\t0077\n") {
		t.Errorf("what is made without a mode is open to others:\n%s", status)
	}
	files := 0
	err = filepath.WalkDir(s.state, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		} else {
			files++
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 4 { // store, lock, identity, audit log
		t.Errorf("only %d files in %s", files, s.state)
	}
	p.stop()
}

// TestServesWithoutRights runs edekd as a user that owns nothing but its state
// folder, if we may choose the user.
func TestServesWithoutRights(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if os.Getuid() == 0 {
		s.as = &syscall.Credential{Uid: 65534, Gid: 65534}
		for _, dir := range []string{filepath.Dir(s.dir), s.dir} {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(filepath.Join(s.dir, "kms-site.xml"), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if err := os.Chmod(s.dir, 0o555); err != nil {
		t.Fatal(err)
	}
	said := s.refused(t)
	if !strings.Contains(said, "edekd.state.dir: cannot make or write the folder "+s.state) || !strings.Contains(said, "permission denied") ||
		!strings.Contains(said, "give it to this user") {
		t.Errorf("%s", said)
	}

	if err := os.Chmod(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if s.as != nil {
		if err := os.Mkdir(s.state, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(s.state, int(s.as.Uid), int(s.as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	p := s.start(t)
	p.must("POST", "/kms/v1/keys", `{"name":"k"}`, nil)
	p.must("GET", "/metrics", "", nil)
	p.stop()
	for line := range strings.Lines(p.said()) {
		if !strings.HasPrefix(line, "time=") {
			t.Errorf("a line that is not of our log: %s", line)
		}
	}
}

// TestQuickstart does what `make run` does, in a copy of the tree and on a
// free port: Ctrl-C reaches the whole group, and nothing is lost.
func TestQuickstart(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	quickstart := filepath.Join(root, "deploy", "quickstart")
	if err := os.CopyFS(quickstart, os.DirFS("../../deploy/quickstart")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary, filepath.Join(root, "bin", "edekd")); err != nil {
		t.Fatal(err)
	}
	start := func() (*process, *bytes.Buffer) {
		var out bytes.Buffer
		cmd := exec.Command(filepath.Join(quickstart, "run"))
		cmd.Env = append(os.Environ(), "KMS_HTTP_PORT=0")
		cmd.Stdout = &out
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		return follow(t, cmd), &out
	}
	ctrlC := func(p *process) {
		if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		p.ended()
	}
	p, out := start()
	p.must("POST", "/kms/v1/keys", `{"name":"mykey"}`, nil)
	s, err := p.encrypt(fresh, "mykey")
	if err != nil {
		t.Fatal(err)
	}
	ctrlC(p)
	if n := strings.Count(out.String(), "\n  curl ") + strings.Count(out.String(), "\n  hadoop key "); n != 4 {
		t.Errorf("%d commands to try, want 4:\n%s", n, out)
	}
	p, _ = start()
	if dek, err := p.decrypt(fresh, s); err != nil || dek != s.dek {
		t.Errorf("after a restart: %v", err)
	}
	ctrlC(p)
}
