package keys

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/hadoop/jceks"
)

// contents are the keystore before and after one change: k1, then k1 and k2.
var contents = sync.OnceValue(func() (c struct{ before, after []byte }) {
	pw, err := jceks.NewPassword([]byte("changeit"))
	if err != nil {
		panic(err)
	}
	all, err := os.ReadFile("../hadoop/jceks/testdata/hadoop-3.4.3.jceks")
	if err != nil {
		panic(err)
	}
	entries, err := jceks.Parse(all, pw)
	if err != nil {
		panic(err)
	}
	k1 := slices.DeleteFunc(slices.Clone(entries), func(e *jceks.Entry) bool { return strings.HasPrefix(e.Alias(), "k2") })
	c.before, c.after = jceks.Append(nil, k1, pw), all
	return c
})

// rewrite is a change that spares the time of sealing.
func (p testKeystore) rewrite() error {
	inner := p.Provider.(*jceksProvider)
	return inner.save("rewrite", "all", inner.view.Load().entries)
}

// again prepares this test to run once more in a process of its own, on the
// keystore at path.
func again(t *testing.T, path string) *exec.Cmd {
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), childEnv+"="+path)
	return child
}

// childEnv tells a test that it runs again, and on which keystore.
const childEnv = "EDEKD_TEST_JCEKS_CHILD"

// A crash may leave the file at any step of a change; so may Java's own.
func TestJCEKSRecoversFromACrashAtAnyStep(t *testing.T) {
	before, after := contents().before, contents().after
	half := after[:len(after)/2]
	type files map[string][]byte // by suffix
	f := func(step string, left files, wantNames string, want files) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "ks")
		for suffix, content := range left {
			if err := os.WriteFile(path+suffix, content, 0o640); err != nil {
				t.Fatal(err)
			}
			// As Hadoop's local file system leaves it, for a file that went elsewhere.
			if err := os.WriteFile(checksumPath(path+suffix), []byte("crc\x00 of another time"), 0o640); err != nil {
				t.Fatal(err)
			}
		}
		p := openJCEKS(t, path)
		if got := p.names(t); got != wantNames {
			t.Errorf("%s: names %q, want %q", step, got, wantNames)
		}
		got := make(files)
		for _, name := range siblings(t, path) {
			if !strings.HasSuffix(name, ".crc") {
				content, err := os.ReadFile(filepath.Join(filepath.Dir(path), name))
				if err != nil {
					t.Fatal(err)
				}
				got[regexp.MustCompile(`_\d+$`).ReplaceAllString(strings.TrimPrefix(name, "ks"), "_TS")] = content
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d files after, want %d", step, len(got), len(want))
		}
		for suffix, content := range want {
			if !bytes.Equal(got[suffix], content) {
				t.Errorf("%s: ks%s has %d bytes, want %d", step, suffix, len(got[suffix]), len(content))
			}
		}
		if err := p.rewrite(); err != nil {
			t.Errorf("%s: %v", step, err)
		}
		p.Close()
		if got := openJCEKS(t, path).names(t); got != wantNames {
			t.Errorf("%s: after a change names %q", step, got)
		}
		if _, err := os.Stat(checksumPath(path)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a checksum is left that does not fit the file: %v", step, err)
		}
	}
	f("nothing yet", nil, "", nil)
	f("before", files{"": before}, "k1", files{"": before})
	f("old moved away", files{"_OLD": before}, "k1", files{"": before})
	f("new half written", files{"_OLD": before, "_NEW": half}, "k1", files{"": before})
	f("new empty", files{"_OLD": before, "_NEW": {}}, "k1", files{"": before})
	f("new written", files{"_OLD": before, "_NEW": after}, "k1 k2", files{"": after})
	f("new in place", files{"_OLD": before, "": after}, "k1 k2", files{"": after})
	f("after", files{"": after}, "k1 k2", files{"": after})
	f("first change, new written", files{"_NEW": before}, "k1", files{"": before})
	f("damaged with a good old one", files{"": half, "_OLD": before}, "k1", files{"": before, "_CORRUPTED_TS": half})
}

// What cannot be opened is left exactly as it is.
func TestJCEKSRefusesToOpen(t *testing.T) {
	before, after := contents().before, contents().after
	half := after[:len(after)/2]
	pw, err := jceks.NewPassword([]byte("another"))
	if err != nil {
		t.Fatal(err)
	}
	other := jceks.Append(nil, nil, pw)
	f := func(files map[string][]byte, wantErr error, wantText string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "ks")
		for suffix, content := range files {
			if err := os.WriteFile(path+suffix, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv(JCEKSPasswordEnv, "changeit")
		_, err := OpenJCEKS(t.Context(), "jceks://file@"+path, JCEKSOptions{})
		if err == nil || !strings.Contains(err.Error(), wantText) || (wantErr != nil && !errors.Is(err, wantErr)) {
			t.Errorf("%v, want %v with %q", err, wantErr, wantText)
		}
		if got := len(siblings(t, path)); got != len(files) {
			t.Errorf("%d files, there were %d", got, len(files))
		}
		for suffix, content := range files {
			if now, err := os.ReadFile(path + suffix); err != nil || !bytes.Equal(now, content) {
				t.Errorf("ks%s was changed (%v)", suffix, err)
			}
		}
	}
	f(map[string][]byte{"": []byte("key=value\n")}, jceks.ErrFormat, "CECECECE")
	f(map[string][]byte{"": {}}, jceks.ErrFormat, "")
	f(map[string][]byte{"": half}, jceks.ErrFormat, "")
	f(map[string][]byte{"": half, "_OLD": half}, jceks.ErrFormat, "_OLD")
	f(map[string][]byte{"": half, "_OLD": other}, jceks.ErrFormat, "_OLD")
	f(map[string][]byte{"": other}, jceks.ErrPassword, JCEKSPasswordEnv)
	f(map[string][]byte{"": other, "_OLD": before}, jceks.ErrPassword, JCEKSPasswordEnv)
	f(map[string][]byte{"_NEW": other, "_OLD": before}, jceks.ErrPassword, JCEKSPasswordEnv)
	f(map[string][]byte{"_OLD": other}, jceks.ErrPassword, JCEKSPasswordEnv)
	f(map[string][]byte{"": before, "_NEW": after}, nil, "should not exist together")
	f(map[string][]byte{"_NEW": half}, jceks.ErrFormat, "nothing acknowledged is in it")
	f(map[string][]byte{"_NEW": half, "_OLD": half}, jceks.ErrFormat, "must not be taken for empty")
}

func TestJCEKSOpenNeedsAFolderAndAFile(t *testing.T) {
	t.Setenv(JCEKSPasswordEnv, "changeit")
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(uri, want string) {
		t.Helper()
		if _, err := OpenJCEKS(t.Context(), uri, JCEKSOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", uri, err, want)
		}
	}
	f("jceks://hdfs@nn/kms.keystore", "only local files")
	f("jceks://file@"+dir+"/missing/ks", "create it, or correct the path")
	f("jceks://file@"+dir+"/fifo", "no regular file")
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	f("jceks://file@"+dir+"/link", "symbolic link")
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 { // fifo, its lock, link
		t.Errorf("%v, %v", entries, err)
	}
}

func TestJCEKSWarnings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ks")
	p := openJCEKS(t, path)
	f := func(want ...string) {
		t.Helper()
		got := p.Provider.(Warner).Warnings()
		if len(got) != len(want) {
			t.Errorf("%q, want %d", got, len(want))
			return
		}
		for i := range want {
			if !strings.Contains(got[i], path) || !strings.Contains(got[i], want[i]) {
				t.Errorf("%q, want %q", got[i], want[i])
			}
		}
	}
	f("begins empty: is the path right?")
	if err := os.WriteFile(path, contents().before, 0o600); err != nil {
		t.Fatal(err)
	}
	f()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	f("(mode 0644)")
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 65534, -1); err != nil {
			t.Fatal(err)
		}
		f("(mode 0644)", "belongs to user 65534")
	}
}

func TestJCEKSOneProcessAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ks")
	p := openJCEKS(t, path)
	_, err := OpenJCEKS(t.Context(), "jceks://file@"+path, JCEKSOptions{})
	if !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	p.Close()
	openJCEKS(t, path)
}

func TestJCEKSRefusesToOverwriteAnotherWritersChange(t *testing.T) {
	before, after := contents().before, contents().after
	f := func(what string, exists bool, meddle func(path string) error) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "ks")
		if exists {
			if err := os.WriteFile(path, before, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p := openJCEKS(t, path)
		names := p.names(t)
		if err := meddle(path); err != nil {
			t.Fatal(err)
		}
		seen := func() (all []string) {
			for _, name := range siblings(t, path) {
				content, err := os.ReadFile(filepath.Join(filepath.Dir(path), name))
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, fmt.Sprintf("%s %x", name, sha256.Sum256(content)))
			}
			return all
		}
		left := seen()
		for range 2 {
			err := p.rewrite()
			if edek.KindOf(err) != edek.Conflict || !strings.Contains(err.Error(), "stop the other program") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if now := seen(); !slices.Equal(now, left) {
			t.Errorf("%s: the folder was\n%s\nand is\n%s", what, strings.Join(left, "\n"), strings.Join(now, "\n"))
		}
		if got := p.names(t); got != names {
			t.Errorf("%s: names %q became %q", what, names, got)
		}
	}
	f("rewritten in place", true, func(path string) error { return os.WriteFile(path, after, 0o600) })
	f("replaced", true, func(path string) error {
		return errors.Join(os.WriteFile(path+".tmp", after, 0o600), os.Rename(path+".tmp", path))
	})
	f("removed", true, os.Remove)
	f("moved away by a writer at work", true, func(path string) error { return os.Rename(path, path+"_OLD") })
	f("created by another", false, func(path string) error { return os.WriteFile(path, before, 0o600) })
}

// A backup restored under the same content is no change.
func TestJCEKSSameContentIsNoConflict(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ks")
	if err := os.WriteFile(path, contents().before, 0o600); err != nil {
		t.Fatal(err)
	}
	p := openJCEKS(t, path)
	if err := errors.Join(os.WriteFile(path+".tmp", contents().before, 0o600), os.Rename(path+".tmp", path)); err != nil {
		t.Fatal(err)
	}
	if err := p.rewrite(); err != nil {
		t.Error(err)
	}
}

// Files that Hadoop calls orphans are kept under another name, not lost.
func TestJCEKSPutsOrphansAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ks")
	p := openJCEKS(t, path)
	for _, suffix := range []string{"_NEW", "_OLD"} {
		if err := os.WriteFile(path+suffix, []byte("restored "+suffix), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.rewrite(); err != nil {
		t.Error(err)
	}
	got := strings.Join(siblings(t, path), " ")
	if !regexp.MustCompile(`^ks ks_NEW_ORPHANED_\d+ ks_OLD_ORPHANED_\d+$`).MatchString(got) {
		t.Errorf("%q", got)
	}
}

func TestJCEKSReadOnlyFolder(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ks")
	if err := errors.Join(os.WriteFile(path, contents().before, 0o644), os.Chmod(path, 0o644),
		os.Chmod(dir, 0o555), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Setenv(JCEKSPasswordEnv, "changeit")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if os.Geteuid() == 0 { // whom permissions do not stop
			if err := unix.Setfsuid(65534); err != nil {
				t.Error(err)
				return
			}
		}
		p, err := OpenJCEKS(t.Context(), "jceks://file@"+path, JCEKSOptions{})
		if err != nil {
			t.Error(err)
			return
		}
		defer p.Close()
		if got := (testKeystore{p}).names(t); got != "k1" {
			t.Errorf("names %q", got)
		}
		if w := p.(Warner).Warnings(); len(w) == 0 || !strings.Contains(w[0], "every change fails") {
			t.Errorf("warnings %q", w)
		}
		err = testKeystore{p}.rewrite()
		if edek.KindOf(err) != edek.Unavailable || !strings.Contains(err.Error(), "read-only") {
			t.Errorf("a change: %v", err)
		}
		if _, err := OpenJCEKS(t.Context(), "jceks://file@"+path+"2", JCEKSOptions{}); err == nil || !strings.Contains(err.Error(), "does not exist") {
			t.Errorf("a keystore that cannot come to be: %v", err)
		}
	}()
	<-done
}

// The test runs itself again, because the limit that stands in for a full disk
// holds for a whole process.
func TestJCEKSFullDisk(t *testing.T) {
	path := os.Getenv(childEnv)
	if path == "" {
		path = filepath.Join(t.TempDir(), "ks")
		if err := os.WriteFile(path, contents().before, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := again(t, path).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	p := openJCEKS(t, path)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1000, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	err := p.rewrite()
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	if edek.KindOf(err) != edek.Unavailable || !errors.Is(err, unix.EFBIG) || !strings.Contains(err.Error(), "its disk is full") {
		t.Errorf("a change: %v", err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, contents().before) {
		t.Errorf("the keystore is not as before (%v)", err)
	}
	if got := siblings(t, path); len(got) != 1 {
		t.Errorf("left behind: %q", got)
	}
	if err := p.rewrite(); err != nil { // there is room again
		t.Error(err)
	}
	p.Close()
	if got := openJCEKS(t, path).names(t); got != "k1" {
		t.Errorf("names %q", got)
	}
}

// The test runs itself once more as a process that creates keys and says so,
// until it is killed in the middle of writing one.
func TestJCEKSKilledProcessLosesNoAcknowledgedKey(t *testing.T) {
	if path := os.Getenv(childEnv); path != "" {
		p := openJCEKS(t, path)
		for i := range 1000 {
			name := fmt.Sprintf("k%d", i)
			if _, err := p.Metadata(t.Context(), name); edek.KindOf(err) == edek.NotFound {
				fmt.Printf("acknowledged %s %x\n", name, p.create(t, name))
			}
		}
		t.Fatal("nobody stopped this process")
	}
	path := filepath.Join(t.TempDir(), "ks")
	acknowledged := make(map[string]string)
	for range 3 {
		child := again(t, path)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		wanted := len(acknowledged) + 1
		lines := bufio.NewScanner(out)
		note := func() {
			var name, key string
			if _, err := fmt.Sscanf(lines.Text(), "acknowledged %s %s", &name, &key); err == nil {
				acknowledged[name] = key
			}
		}
		for len(acknowledged) < wanted && lines.Scan() {
			note()
		}
		if len(acknowledged) < wanted {
			t.Fatalf("the process ended early: %v", child.Wait())
		}
		for deadline := time.Now().Add(time.Minute); ; {
			if _, err := os.Lstat(path + "_OLD"); err == nil {
				break // it is at work on the file
			}
			if time.Now().After(deadline) {
				t.Fatal("no change under way within a minute")
			}
		}
		child.Process.Kill()
		for lines.Scan() {
			note()
		}
		child.Wait()
	}
	p := openJCEKS(t, path)
	for name, key := range acknowledged {
		if got := hex.EncodeToString(p.material(t, name+"@0")); got != key {
			t.Errorf("%s has other material after the crashes", name)
		}
		if _, err := p.Metadata(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
}
