package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// socketSite is a site with a Unix socket in a folder of its own, which
// everybody may look into.
func socketSite(t *testing.T, properties ...string) (s *site, path string) {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path = filepath.Join(dir, "kms.sock")
	return newSite(t, append([]string{socketProperty, path}, properties...)...), path
}

// overSocket sends requests to the socket.
func overSocket(path string) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) },
		DisableKeepAlives: true,
	}}
}

// curl asks as the user uid, -1 being this one, and returns status and body.
func curl(t *testing.T, path string, uid int, target string) string {
	t.Helper()
	cmd := exec.Command("curl", "-sS", "--unix-socket", path, "-w", "%{http_code}", "http://kms"+target)
	if uid >= 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid), NoSetGroups: true}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, out)
	}
	return string(out)
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	s, path := socketSite(t, socketProperty+".mode", "0666", socketProperty+".users", fmt.Sprintf("%d=alice", os.Getuid()),
		"edekd.access-log.enabled", "true")
	p := s.start(t)
	p.must("POST", "/kms/v1/keys", `{"name":"k1"}`, nil)
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if stat := info.Sys().(*syscall.Stat_t); info.Mode() != fs.ModeSocket|0o666 || int(stat.Uid) != os.Getuid() || int(stat.Gid) != os.Getgid() {
		t.Errorf("%s of %d:%d", info.Mode(), stat.Uid, stat.Gid)
	}
	f := func(uid int, target, part, status string) {
		t.Helper()
		if got := curl(t, path, uid, target); !strings.Contains(got, part) || !strings.HasSuffix(got, status) {
			t.Errorf("%s as %d: %s", target, uid, got)
		}
	}
	f(-1, "/healthz", "ok", "200")
	f(-1, "/kms/v1/key/k1/_metadata", `"name" : "k1"`, "200")
	f(-1, "/kms/v1/key/k1/_currentversion?user.name=bob", `"name" : "k1"`, "200")
	f(-1, "/kms/v1/key/k1/_metadata?doAs=bob", "User: alice is not allowed to impersonate bob", "403")
	if os.Getuid() == 0 { // who may choose another user
		f(65534, "/kms/v1/key/k1/_metadata", "Authentication required", "401")
		f(65534, "/kms/v1/key/k1/_versions?user.name=carol", `"name" : "k1"`, "200")
		if err := os.Chmod(path, 0o660); err != nil {
			t.Fatal(err)
		}
		f(65534, "/healthz", "exit status 7", "")
	}
	p.stop()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("after the end: %v", err)
	}
	log, err := os.ReadFile(filepath.Join(s.state, "logs", "kms-audit.log"))
	if err != nil || !strings.Contains(string(log), "op=GET_CURRENT_KEY, key=k1, user=alice") || strings.Contains(string(log), "user=bob") {
		t.Errorf("%v\n%s", err, log)
	}
}

func TestUnixSocketDrains(t *testing.T) {
	t.Parallel()
	s, path := socketSite(t, "edekd.drain.seconds", "2")
	p := s.start(t)
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v %v", info, err)
	}
	client := overSocket(path)
	p.signal(syscall.SIGTERM)
	p.eventuallySays("msg=stopping")
	resp, err := client.Get("http://kms/readyz")
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 503 || !strings.Contains(string(body), "draining") {
		t.Errorf("%d %s %v", resp.StatusCode, body, err)
	}
	resp.Body.Close()
	p.ended()
	if _, err := client.Get("http://kms/healthz"); err == nil {
		t.Error("an answer after the end")
	}
}

// What a killed process left is taken away; what answers, and what is no
// socket, is not.
func TestUnixSocketInTheWay(t *testing.T) {
	t.Parallel()
	s, path := socketSite(t)
	p := s.start(t)
	p.kill()
	if info, err := os.Lstat(path); err != nil || info.Mode().Type() != fs.ModeSocket {
		t.Fatalf("a killed process left %v, %v", info, err)
	}
	p = s.start(t)

	second := newSite(t, socketProperty, path)
	f := func(words ...string) {
		t.Helper()
		said := second.refused(t)
		for _, word := range append(words, socketProperty) {
			if !strings.Contains(said, word) {
				t.Errorf("%q is missing in\n%s", word, said)
			}
		}
	}
	f("a process listens on " + path)
	if resp, err := overSocket(path).Get("http://kms/healthz"); err != nil || resp.StatusCode != 200 {
		t.Errorf("the first one: %v", err)
	}

	// Another socket in the place of ours is not ours to remove.
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	p.stop()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("another's socket: %v", err)
	}
	other.Close()

	if err := os.Symlink(path+".away", path); err != nil {
		t.Fatal(err)
	}
	f(path+" is there and is no socket", "another path")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, path, "precious")
	f("is no socket")
	if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestFoldersOfUnixSockets(t *testing.T) {
	t.Parallel()
	f := func(prepare func(dir string) error, words string) {
		t.Helper()
		s, path := socketSite(t)
		if err := prepare(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
		if said := s.refused(t); !strings.Contains(said, words) {
			t.Errorf("want %q in\n%s", words, said)
		}
		out, err := exec.Command(binary, "check-config", s.dir).CombinedOutput()
		if err == nil || !strings.Contains(string(out), words) {
			t.Errorf("check-config: want %q in\n%s", words, out)
		}
	}
	f(os.Remove, "no such file or directory")
	f(func(dir string) error { return os.Chmod(dir, 0o777) }, "other users can write")
	f(func(dir string) error { return os.Chmod(dir, 0o770) }, "chmod go-w")
	f(func(dir string) error {
		if err := os.Remove(dir); err != nil {
			return err
		}
		return os.WriteFile(dir, nil, 0o600)
	}, "is not a folder")
	if os.Getuid() == 0 {
		f(func(dir string) error { return os.Chown(dir, 65534, 65534) }, "belongs to the user 65534")
	}
	s, path := socketSite(t)
	if err := os.Chmod(filepath.Dir(path), 0o777|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	s.start(t).stop()
}
