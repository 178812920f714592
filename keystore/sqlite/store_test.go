package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/edekd/edekd/keystore"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	return s
}

func put(t testing.TB, s *Store, handle string, expect int64, content string) {
	t.Helper()
	if rev, err := s.Put(t.Context(), handle, expect, []byte(content)); err != nil || rev != expect+1 {
		t.Fatalf("put %s at %d: %d, %v", handle, expect, rev, err)
	}
}

func TestFilesAreOurs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	put(t, s, "a", 0, "content")
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, e := range entries {
		found[e.Name()] = true
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
	for _, name := range []string{"keys.db", "keys.db-wal", "keys.db-shm", "keys.db.lock"} {
		if !found[name] {
			t.Errorf("no %s among %v", name, entries)
		}
	}
	if s.ID() == "" {
		t.Error("no store id")
	}
	id := s.ID()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if again := open(t, path); again.ID() != id {
		t.Errorf("store id changed from %q to %q", id, again.ID())
	}
}

func TestDurability(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	var synchronous int
	if err := s.conn.QueryRowContext(t.Context(), "PRAGMA synchronous").Scan(&synchronous); err != nil || synchronous != 2 {
		t.Errorf("synchronous is %d, %v: must be 2 (FULL)", synchronous, err)
	}
	var mode string
	if err := s.conn.QueryRowContext(t.Context(), "PRAGMA journal_mode").Scan(&mode); err != nil || mode != "wal" {
		t.Errorf("journal mode is %q, %v", mode, err)
	}
}

func TestTombstone(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	ctx := t.Context()
	put(t, s, "a", 0, "one")
	put(t, s, "a", 1, "two")
	if err := s.Delete(ctx, "a", 1); !errors.Is(err, keystore.ErrConflict) {
		t.Errorf("delete of an old revision: %v", err)
	}
	if err := s.Delete(ctx, "a", 2); err != nil {
		t.Fatal(err)
	}
	d, err := s.Get(ctx, "a")
	if err != nil || !d.Deleted || d.Revision != 2 || string(d.Content) != "two" {
		t.Errorf("tombstone %+v, %v", d, err)
	}
	for expect := range int64(4) {
		if _, err := s.Put(ctx, "a", expect, nil); !errors.Is(err, keystore.ErrConflict) {
			t.Errorf("put upon a tombstone at %d: %v", expect, err)
		}
		if err := s.Delete(ctx, "a", expect); !errors.Is(err, keystore.ErrConflict) {
			t.Errorf("delete of a tombstone at %d: %v", expect, err)
		}
	}
	if err := s.Delete(ctx, "never", 0); !errors.Is(err, keystore.ErrConflict) {
		t.Errorf("delete of nothing: %v", err)
	}
	if _, err := s.Get(ctx, "never"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("get of nothing: %v", err)
	}
}

func TestTimes(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	before := time.Now().Truncate(time.Millisecond)
	put(t, s, "a", 0, "")
	put(t, s, "a", 1, "")
	d, err := s.Get(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if d.Created.Before(before) || d.Modified.Before(d.Created) || d.Modified.After(time.Now()) {
		t.Errorf("created %v, modified %v", d.Created, d.Modified)
	}
	if len(d.Content) != 0 {
		t.Errorf("content %q", d.Content)
	}
}

func TestLimits(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	longest := strings.Repeat("h", keystore.MaxHandle)
	put(t, s, longest, 0, strings.Repeat("c", keystore.MaxContent))
	if d, err := s.Get(t.Context(), longest); err != nil || len(d.Content) != keystore.MaxContent {
		t.Errorf("the largest deposit: %v", err)
	}
	if _, err := s.Put(t.Context(), "a b", 0, nil); !errors.Is(err, keystore.ErrInvalid) {
		t.Errorf("put of a bad handle: %v", err)
	}
}

func TestSecondStoreIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, link} {
		_, err := Open(p)
		if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
			t.Errorf("second Open of %s: %v", p, err)
		}
	}
	put(t, s, "a", 0, "still works")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, link)
}

func TestReaderSeesWritesOfTheHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	put(t, s, "a", 0, "one")
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	put(t, s, "b", 0, "two")
	if d, err := r.Get(t.Context(), "b"); err != nil || string(d.Content) != "two" {
		t.Errorf("%+v, %v", d, err)
	}
	if err := r.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := r.db.ExecContext(t.Context(), "DELETE FROM deposit"); err == nil {
		t.Error("a Reader could write")
	}
}

func TestSnapshotIsAStore(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "keys.db"))
	put(t, s, "a", 0, "one")
	to := filepath.Join(dir, "snapshot.db")
	if err := s.Snapshot(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	if err := s.Snapshot(t.Context(), to); !errors.Is(err, os.ErrExist) {
		t.Errorf("a snapshot over a file: %v", err)
	}
	put(t, s, "b", 0, "later")
	if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	copied := open(t, to)
	if copied.ID() != s.ID() {
		t.Errorf("id %q became %q", s.ID(), copied.ID())
	}
	if d, err := copied.Get(t.Context(), "a"); err != nil || string(d.Content) != "one" {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := copied.Get(t.Context(), "b"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("a write after the snapshot is in it: %v", err)
	}
	put(t, copied, "c", 0, "writable")
}

func TestConflictLeavesTheGroupAlone(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	put(t, s, "taken", 0, "first")
	group := []*write{
		{handle: "new", content: []byte("n")},
		{handle: "taken", content: []byte("second")},
		{handle: "taken", expect: 1, content: []byte("third")},
		{handle: "taken", expect: 1, remove: true},
		{handle: "abandoned", content: []byte("x")},
	}
	for _, w := range group {
		w.done = make(chan struct{})
	}
	group[4].taken.Store(true)
	s.commit(append([]*write(nil), group...)) // the writer goroutine is idle
	for i, want := range []error{nil, keystore.ErrConflict, nil, keystore.ErrConflict} {
		<-group[i].done
		if !errors.Is(group[i].err, want) {
			t.Errorf("write %d: %v, want %v", i, group[i].err, want)
		}
	}
	if d, err := s.Get(t.Context(), "taken"); err != nil || string(d.Content) != "third" || d.Deleted {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := s.Get(t.Context(), "abandoned"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("a write that was given up was done: %v", err)
	}
}

// busy makes the writer begin a write, whose outcome the channel gives, and
// wait with it until release is called.
func busy(t *testing.T, s *Store, ctx context.Context) (begun <-chan error, release func()) {
	t.Helper()
	blocker, err := connect(s.path, "rw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { blocker.Close() })
	blocker.SetMaxOpenConns(1)
	if _, err := blocker.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	first := &write{handle: "begun", content: []byte{}}
	outcome := make(chan error, 1)
	go func() { outcome <- s.do(ctx, first) }()
	for !first.taken.Load() {
		time.Sleep(time.Millisecond)
	}
	return outcome, func() {
		if _, err := blocker.ExecContext(t.Context(), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWaitingWritesShareATransaction(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	_, release := busy(t, s, t.Context())
	const waiting = maxGroup
	var wg sync.WaitGroup
	for i := range waiting {
		wg.Go(func() {
			if _, err := s.Put(context.Background(), fmt.Sprintf("w/%d", i), 0, nil); err != nil {
				t.Error(err)
			}
		})
	}
	for len(s.queue) < waiting {
		time.Sleep(time.Millisecond)
	}
	release()
	wg.Wait()
	transactions := map[time.Time]int{} // all writes of one bear the same time
	if err := s.List(t.Context(), "w/", func(d *keystore.Deposit) bool { transactions[d.Modified]++; return true }); err != nil {
		t.Fatal(err)
	}
	if len(transactions) != 1 {
		t.Errorf("%d waiting writes were done at %d times", waiting, len(transactions))
	}
}

func TestContextEndsWhileQueued(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Put(ctx, "a", 0, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}

	beginCtx, beginCancel := context.WithCancel(t.Context())
	begun, release := busy(t, s, beginCtx)
	beginCancel() // too late: the outcome must be waited for

	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Put(ctx, "queued", 0, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a queued write: %v", err)
	}
	release()
	if err := <-begun; err != nil {
		t.Errorf("a begun write: %v", err)
	}
	put(t, s, "after", 0, "")
	if _, err := s.Get(t.Context(), "queued"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("a write answered as not done was done: %v", err)
	}
}

func TestCloseFinishesWhatWasAccepted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	var acknowledged sync.Map
	var started atomic.Int32
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			for n := 0; ; n++ {
				handle := fmt.Sprintf("w%d/%d", i, n)
				_, err := s.Put(context.Background(), handle, 0, nil)
				started.Add(1)
				if errors.Is(err, ErrClosed) {
					return
				}
				if err != nil {
					t.Errorf("put: %v", err)
					return
				}
				acknowledged.Store(handle, true)
			}
		})
	}
	for started.Load() < 200 {
		time.Sleep(time.Millisecond)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if err := s.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("a second Close: %v", err)
	}
	again := open(t, path)
	acknowledged.Range(func(handle, _ any) bool {
		if _, err := again.Get(t.Context(), handle.(string)); err != nil {
			t.Errorf("%s: %v", handle, err)
		}
		return true
	})
}

// TestOneWinnerPerRevision has many writers raise counters by compare-and-swap
// while readers look on; no increment may be lost or counted twice.
func TestOneWinnerPerRevision(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	const writers, each, counters = 16, 20, 3
	for c := range counters {
		put(t, s, fmt.Sprintf("c/%d", c), 0, "0")
	}
	var wg sync.WaitGroup
	for w := range writers {
		handle := fmt.Sprintf("c/%d", w%counters)
		wg.Go(func() {
			for range each {
				for {
					d, err := s.Get(context.Background(), handle)
					if err != nil {
						t.Error(err)
						return
					}
					_, err = s.Put(context.Background(), handle, d.Revision, fmt.Append(nil, d.Revision))
					if err == nil {
						break
					}
					if !errors.Is(err, keystore.ErrConflict) {
						t.Error(err)
						return
					}
				}
			}
		})
		wg.Go(func() {
			for range each {
				err := s.List(context.Background(), "c/", func(d *keystore.Deposit) bool {
					if string(d.Content) != fmt.Sprint(d.Revision-1) {
						t.Errorf("revision %d holds %q", d.Revision, d.Content)
					}
					return true
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	total := int64(0)
	s.List(t.Context(), "c/", func(d *keystore.Deposit) bool { total += d.Revision - 1; return true })
	if total != writers*each {
		t.Errorf("%d increments were acknowledged, the counters show %d", writers*each, total)
	}
}

// TestWalksKeepNobodyWaiting: while one walk goes on and others wait for it,
// reads are answered, and who gives up waiting is let go.
func TestWalksKeepNobodyWaiting(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	put(t, s, "a", 0, "content")
	begun, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		err := s.Handles(context.Background(), "", func(string) bool { close(begun); <-release; return true })
		if err != nil {
			t.Error(err)
		}
	})
	<-begun
	for range 2 * maxReaders {
		wg.Go(func() {
			if err := s.Handles(context.Background(), "", func(string) bool { return true }); err != nil {
				t.Error(err)
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if d, err := s.Get(ctx, "a"); err != nil || string(d.Content) != "content" {
		t.Errorf("%v, %v", d, err)
	}
	if err := s.List(ctx, "a", func(*keystore.Deposit) bool { return false }); err != nil {
		t.Error(err)
	}
	put(t, s, "b", 0, "")
	short, end := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer end()
	if err := s.Handles(short, "", func(string) bool { return true }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a walk that waits too long: %v", err)
	}
	close(release)
	wg.Wait()
}

func TestLockFileIsNoLink(t *testing.T) {
	dir := t.TempDir()
	path, target := filepath.Join(dir, "keys.db"), filepath.Join(dir, "precious")
	if err := os.WriteFile(target, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path+".lock"); err != nil {
		t.Fatal(err)
	}
	if _, err := Hold(path); err == nil || !strings.Contains(err.Error(), "remove the link") {
		t.Errorf("%v", err)
	}
	if content, err := os.ReadFile(target); err != nil || string(content) != "content" {
		t.Errorf("the target holds %q, %v", content, err)
	}
}
