package sqlite

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edekd/edekd/keystore"
)

// childEnv makes the test binary a writing process on the store named by it.
const childEnv = "EDEKD_SQLITE_TEST_CHILD"

// limitEnv, with childEnv, makes the child a process that may not write files
// beyond that many bytes and reports how it fares.
const limitEnv = "EDEKD_SQLITE_TEST_LIMIT"

type ack struct {
	Handle   string
	Revision int64
	Deleted  bool
}

func child(path string) {
	s, err := Open(path)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if limit := os.Getenv(limitEnv); limit != "" {
		fullChild(s, limit)
		return
	}
	ctx := context.Background()
	var mu sync.Mutex
	report := func(a ack) {
		line, _ := json.Marshal(a)
		mu.Lock()
		defer mu.Unlock()
		os.Stdout.Write(append(line, '\n'))
	}
	run := rand.Uint64()
	for w := range 8 {
		go func() {
			for n := 0; ; n++ {
				h := fmt.Sprintf("k/%x/%d/%d", run, w, n)
				for rev := range int64(3) {
					if _, err := s.Put(ctx, h, rev, []byte(fmt.Sprint(h, rev+1))); err != nil {
						panic(err)
					}
					report(ack{h, rev + 1, false})
				}
				if n%3 == 0 {
					if err := s.Delete(ctx, h, 3); err != nil {
						panic(err)
					}
					report(ack{h, 3, true})
				}
			}
		}()
	}
	select {}
}

// TestKilledProcessLosesNothingAcknowledged kills a writing process at a
// random moment and looks for every write it had reported as done, round after
// round on the same file.
func TestKilledProcessLosesNothingAcknowledged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	acknowledged := map[string]ack{}
	for round := range 6 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, killAfter := 0, 1+rand.IntN(400)
		deadline := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
		in := bufio.NewReader(out)
		for {
			line, err := in.ReadBytes('\n')
			if err != nil { // the last line may be cut short: never acknowledged to us in full
				break
			}
			var a ack
			if err := json.Unmarshal(line, &a); err != nil {
				t.Fatalf("the child says %q", line)
			}
			if old := acknowledged[a.Handle]; a.Revision > old.Revision || a.Deleted {
				acknowledged[a.Handle] = a
			}
			if lines++; lines == killAfter {
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
		deadline.Stop()
		if lines < killAfter {
			t.Fatalf("round %d: only %d writes in 30 s", round, lines)
		}

		s, err := Open(path)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for h, a := range acknowledged {
			d, err := s.Get(t.Context(), h)
			if err != nil {
				t.Errorf("round %d: %s: %v", round, h, err)
				continue
			}
			if d.Revision < a.Revision || (a.Deleted && !d.Deleted) || string(d.Content) != fmt.Sprint(h, d.Revision) {
				t.Errorf("round %d: acknowledged %+v, found revision %d, deleted %v, content %q", round, a, d.Revision, d.Deleted, d.Content)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// fullChild writes under a limit of the file size until the disk is "full",
// then raises the limit and goes on.
func fullChild(s *Store, limit string) {
	signal.Ignore(unix.SIGXFSZ)
	var soft uint64
	fmt.Sscan(limit, &soft)
	var hard unix.Rlimit
	check := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	check(unix.Getrlimit(unix.RLIMIT_FSIZE, &hard))
	check(unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: soft, Max: hard.Max}))
	ctx := context.Background()
	n := 0
	var err error
	for ; n < 1000 && err == nil; n++ {
		_, err = s.Put(ctx, fmt.Sprintf("k/%d", n), 0, bytes.Repeat([]byte("x"), 8192))
	}
	if err == nil {
		check(errors.New("the limit was never met"))
	}
	failed := n - 1
	if errors.Is(err, keystore.ErrUnknownOutcome) {
		check(fmt.Errorf("not a clean failure: %w", err))
	}
	for i := range failed {
		_, err := s.Get(ctx, fmt.Sprintf("k/%d", i))
		check(err)
	}
	if _, err := s.Get(ctx, fmt.Sprintf("k/%d", failed)); !errors.Is(err, keystore.ErrNotFound) {
		check(fmt.Errorf("the failed write is there: %v", err))
	}
	check(unix.Setrlimit(unix.RLIMIT_FSIZE, &hard))
	_, err = s.Put(ctx, fmt.Sprintf("k/%d", failed), 0, []byte("space is back"))
	check(err)
	fmt.Println("wrote", failed)
	// Ends without Close, as a crash would.
}

func TestFullDiskFailsCleanly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+path, limitEnv+"=300000")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var wrote int
	if _, err := fmt.Sscanf(string(out), "wrote %d", &wrote); err != nil || wrote == 0 {
		t.Fatalf("the child says %q", out)
	}
	s := open(t, path)
	for i := range wrote + 1 {
		if _, err := s.Get(t.Context(), fmt.Sprintf("k/%d", i)); err != nil {
			t.Errorf("k/%d: %v", i, err)
		}
	}
}

func TestFullDatabaseIsErrFull(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	limit := func(pages int) {
		t.Helper()
		if _, err := s.conn.ExecContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count=%d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	limit(20)
	if _, err := s.Put(t.Context(), "large", 0, make([]byte, 1<<20)); !errors.Is(err, keystore.ErrFull) || errors.Is(err, keystore.ErrUnknownOutcome) {
		t.Errorf("%v", err)
	}
	put(t, s, "small", 0, "fits")
	if _, err := s.Get(t.Context(), "large"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("the failed write is there: %v", err)
	}
	limit(1 << 20)
	put(t, s, "large", 0, strings.Repeat("x", 1<<20))
}

// TestOthersFilesAreLeftAlone opens what is no sound store of ours and then
// looks whether a byte of it changed.
func TestOthersFilesAreLeftAlone(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good.db")
	s := open(t, good)
	for i := range 200 {
		put(t, s, fmt.Sprintf("k/%d", i), 0, strings.Repeat("x", 500))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sound, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	alter := func(edit func(b []byte) []byte) []byte { return edit(bytes.Clone(sound)) }

	f := func(name string, content []byte, says string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "keys.db")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path)
		if err == nil {
			s.Close()
			t.Errorf("%s: opened", name)
			return
		}
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", name, err)
		}
		after, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(after, content) {
			t.Errorf("%s: the file was changed (%v)", name, err)
		}
	}
	f("empty", nil, "cut short")
	f("torn header", sound[:60], "cut short")
	f("text", bytes.Repeat([]byte("not a database "), 100), "not an SQLite database")
	f("torn in the middle", sound[:len(sound)/2/4096*4096], "restore a backup")
	f("torn within a page", sound[:len(sound)/2+100], "restore a backup")
	f("garbage page", alter(func(b []byte) []byte {
		copy(b[4*4096:5*4096], bytes.Repeat([]byte{0xa5}, 4096))
		return b
	}), "restore a backup")
	f("garbage after the header", alter(func(b []byte) []byte {
		for i := 100; i < len(b); i++ {
			b[i] = byte(i * 7)
		}
		return b
	}), "restore a backup")
	f("another program's", alter(func(b []byte) []byte { clear(b[68:72]); return b }), "another program")

	other := filepath.Join(t.TempDir(), "tables.db")
	db, err := connect(other, "rwc")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), fmt.Sprintf("PRAGMA application_id=%d; CREATE TABLE t (x)", applicationID)); err != nil {
		t.Fatal(err)
	}
	db.Close()
	content, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	f("no tables of ours", content, "no such table")
}

func TestNewerSchemaIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	db, err := connect(path, "rw")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "UPDATE meta SET value='2' WHERE name='schema'"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	_, err = Open(path)
	if err == nil || !strings.Contains(err.Error(), "newer edekd (schema 2, this program knows up to 1)") {
		t.Errorf("%v", err)
	}
	if _, err := OpenReader(path); err == nil {
		t.Error("a Reader opened it")
	}
}

// TestStrayLogIsNotRolledIn protects a new or restored store from the log of
// a database that was moved away.
func TestStrayLogIsNotRolledIn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	if err := os.WriteFile(path+"-wal", []byte("log"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "keys.db-wal") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a store was made: %v", err)
	}
}

// copyFile copies a file into a new folder and returns its path there.
func copyFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), filepath.Base(path))
	if err := os.WriteFile(to, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestClosedFileIsCompleteWithoutItsLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	for round := range 3 { // the first one makes the store
		s := open(t, path)
		put(t, s, fmt.Sprintf("a%d", round), 0, "content")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for _, suffix := range []string{"-wal", "-shm"} {
			if _, err := os.Stat(path + suffix); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", suffix, err)
			}
		}
		if holder, err := os.ReadFile(path + ".lock"); err != nil || len(holder) != 0 {
			t.Errorf("the lock still names %q, %v", holder, err)
		}
		alone := open(t, copyFile(t, path))
		for n := range round + 1 {
			if d, err := alone.Get(t.Context(), fmt.Sprintf("a%d", n)); err != nil || string(d.Content) != "content" {
				t.Errorf("deposit %d of round %d: %v, %v", n, round, d, err)
			}
		}
	}
}

// TestFileWithoutItsLogIsRefused copies the file of an open store, before and
// after its first write, and after a restart.
func TestFileWithoutItsLogIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	f := func(path string) {
		t.Helper()
		alone := copyFile(t, path)
		for range 2 { // the attempt itself must not make a log that is then taken for the lost one
			s, err := Open(alone)
			if err == nil {
				s.Close()
			}
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "keys.db-wal is missing or empty") {
				t.Errorf("%v", err)
			}
			// Nor may looking at it.
			r, err := OpenReader(alone)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	for round := range 2 {
		s := open(t, path)
		f(path)
		put(t, s, fmt.Sprintf("a%d", round), 0, "content")
		f(path)
		put(t, s, fmt.Sprintf("b%d", round), 0, strings.Repeat("x", maxLog)) // moves the log into the file
		put(t, s, fmt.Sprintf("c%d", round), 0, "content")
		if info, err := os.Stat(path); err != nil || info.Size() < maxLog {
			t.Errorf("the log was not moved: %v, %v", info, err)
		}
		f(path)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOtherProgramMovesTheLog: after a crash, SQLite's shell for example moves
// the log into the file and removes it when it ends. Nothing is lost.
func TestOtherProgramMovesTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	put(t, s, "a", 0, "content")
	crashed := copyFile(t, path)
	if err := os.Rename(copyFile(t, path+"-wal"), crashed+"-wal"); err != nil {
		t.Fatal(err)
	}
	other, err := connect(crashed, "rw")
	if err != nil {
		t.Fatal(err)
	}
	var n int
	err = other.QueryRowContext(t.Context(), "SELECT count(*) FROM deposit").Scan(&n)
	if err := errors.Join(err, other.Close()); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if _, err := os.Stat(crashed + "-wal"); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the log is still there: %v", err)
	}
	if d, err := open(t, crashed).Get(t.Context(), "a"); err != nil || string(d.Content) != "content" {
		t.Errorf("%v, %v", d, err)
	}
}

// TestStoreClosedUnderAReader: the log stays then, and nothing is missed.
func TestStoreClosedUnderAReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	put(t, s, "a", 0, "content")
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	err = r.List(t.Context(), "", func(*keystore.Deposit) bool {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		return false
	})
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	if d, err := open(t, path).Get(t.Context(), "a"); err != nil || string(d.Content) != "content" {
		t.Errorf("%v, %v", d, err)
	}
}

func TestSnapshotOfAnOpenStoreNeedsNoLog(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	put(t, s, "a", 0, "content")
	to := filepath.Join(t.TempDir(), "snapshot.db")
	if err := s.Snapshot(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	if d, err := open(t, to).Get(t.Context(), "a"); err != nil || string(d.Content) != "content" {
		t.Errorf("%v, %v", d, err)
	}
}

func TestLeftoverOfAnInterruptedStartIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	for _, suffix := range []string{".new", ".new-journal"} {
		if err := os.WriteFile(path+suffix, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(t, open(t, path), "a", 0, "")
	if _, err := os.Stat(path + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("leftover: %v", err)
	}
}

func TestOpenInMissingDirectory(t *testing.T) {
	_, err := Open(filepath.Join(t.TempDir(), "no", "keys.db"))
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "create the directory") {
		t.Errorf("%v", err)
	}
}
