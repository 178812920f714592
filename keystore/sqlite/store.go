// Package sqlite is the embedded deposit box: one SQLite file, one process
// that writes it, nothing to install.
//
// A write is acknowledged when its transaction is in the write-ahead log and
// the log is on the disk (journal_mode=WAL, synchronous=FULL), so neither a
// killed process nor a power cut loses it. Waiting writes share a transaction
// and with it the wait for the disk. Reads go their own way and never wait for
// a write. A lock file beside the store keeps a second writing process out,
// while others may still read, which is how a backup is made of a store in use.
//
// The newest writes are in the log only. So that a file that was copied or
// moved without its log is not taken for the whole, there is a mark in the
// file that the log takes back: whoever reads both does not see it, and nor
// does anybody once the log is moved into the file, by whatever program. Who
// finds it in a file without log has lost writes (checkLog).
//
// Files are made with mode 0600. Whatever is found at the path and is not a
// sound store of ours is refused and left as it was.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	driver "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"github.com/edekd/edekd/keystore"
)

// maxGroup bounds how many writes share one transaction, and how many more
// may wait in the queue for the next one.
const maxGroup = 256

// maxLog is how much is written to the log, in bytes, before it is moved into
// the file; writeCost estimates what a write puts there beside its content.
const (
	maxLog    = 4 << 20
	writeCost = 3 * 4096 // pages of the table and its two indexes
)

// Store is an open store. It implements keystore.Depositor.
type Store struct {
	*Reader
	lock *Lock
	db   *sql.DB   // the writing connection's pool, of one
	conn *sql.Conn // used by the writer goroutine only

	insert, update, remove *sql.Stmt // of conn

	mu     sync.RWMutex // guards closed and, against closing, queue
	closed bool
	queue  chan *write
	done   chan struct{} // closed when the writer has ended
}

var _ keystore.Depositor = (*Store)(nil)

// Open opens the store at path, or makes an empty one when nothing is there.
// It fails with ErrInUse when somebody else holds the store and with
// ErrDamaged when what lies there is not a sound one.
func Open(path string) (_ *Store, err error) {
	ctx := context.Background()
	if path, err = resolve(path); err != nil {
		return nil, fmt.Errorf("open the key store: %w", err)
	}
	s := &Store{queue: make(chan *write, maxGroup), done: make(chan struct{})}
	if s.lock, err = Hold(path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := create(ctx, path); err != nil {
			return nil, fmt.Errorf("make a new key store: %w", err)
		}
	}
	if err := checkHeader(path); err != nil {
		return nil, err
	}
	if err := checkLog(ctx, path); err != nil {
		return nil, err
	}
	if s.db, err = connect(path, "rw"); err != nil {
		return nil, err
	}
	s.db.SetMaxOpenConns(1)
	if _, err := checkMeta(ctx, s.db, path); err != nil {
		return nil, err
	}
	if err := quickCheck(ctx, s.db, path); err != nil {
		return nil, err
	}
	if s.conn, err = s.db.Conn(ctx); err != nil {
		return nil, describe(path, err)
	}
	if err := s.prepare(ctx); err != nil {
		return nil, describeTables(path, err)
	}
	s.checkpoint(ctx)
	if s.Reader, err = newReader(path); err != nil {
		return nil, err
	}
	go s.writer()
	return s, nil
}

func (s *Store) prepare(ctx context.Context) (err error) {
	var mode string
	if err := s.conn.QueryRowContext(ctx, "PRAGMA journal_mode=WAL").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("the file system cannot hold a write-ahead log (journal mode stays %q): use a local disk", mode)
	}
	if _, err := s.conn.ExecContext(ctx, "PRAGMA synchronous=FULL"); err != nil {
		return err
	}
	if _, err := s.conn.ExecContext(ctx, "PRAGMA wal_autocheckpoint=0"); err != nil { // it would leave no mark
		return err
	}
	s.insert, err = s.conn.PrepareContext(ctx, "INSERT INTO deposit VALUES (?1, 1, ?2, ?3, ?3, 0) ON CONFLICT (handle) DO NOTHING")
	if err != nil {
		return err
	}
	s.update, err = s.conn.PrepareContext(ctx, "UPDATE deposit SET content=?3, revision=revision+1, modified=?4 WHERE handle=?1 AND revision=?2 AND deleted=0")
	if err != nil {
		return err
	}
	s.remove, err = s.conn.PrepareContext(ctx, "UPDATE deposit SET deleted=1, modified=?3 WHERE handle=?1 AND revision=?2 AND deleted=0")
	return err
}

// checkpoint moves the log into the file, and a mark with it, which the log,
// begun anew, takes back. On a full disk there may be no mark, or no moving;
// nothing is lost by that.
func (s *Store) checkpoint(ctx context.Context) {
	s.conn.ExecContext(ctx, "INSERT OR IGNORE INTO meta VALUES ('open', '1')")
	s.conn.ExecContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)") // waits for no reader
	s.conn.ExecContext(ctx, "DELETE FROM meta WHERE name='open'")
}

// settle makes the file complete without its log. When it cannot, because the
// disk is full or somebody reads the log, the log stays with all that is in it.
func (s *Store) settle(ctx context.Context) {
	s.conn.ExecContext(ctx, "PRAGMA busy_timeout=1000") // a stop does not wait for long
	if _, err := s.conn.ExecContext(ctx, "DELETE FROM meta WHERE name='open'"); err == nil {
		s.conn.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	}
}

// Put implements keystore.Depositor.
func (s *Store) Put(ctx context.Context, handle string, expect int64, content []byte) (int64, error) {
	if err := keystore.CheckPut(handle, content); err != nil {
		return 0, fmt.Errorf("put deposit: %w", err)
	}
	if content == nil {
		content = []byte{} // nil would be SQL's NULL
	}
	if err := s.do(ctx, &write{handle: handle, expect: expect, content: content}); err != nil {
		return 0, fmt.Errorf("put deposit: %w", err)
	}
	return expect + 1, nil
}

// Delete implements keystore.Depositor.
func (s *Store) Delete(ctx context.Context, handle string, expect int64) error {
	if err := s.do(ctx, &write{handle: handle, expect: expect, remove: true}); err != nil {
		return fmt.Errorf("delete deposit: %w", err)
	}
	return nil
}

// Close ends the store once all writes that were begun are done. The file is
// then complete without its log, unless somebody else still reads it or the
// disk is full. Later calls fail.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.closed = true
	close(s.queue)
	s.mu.Unlock()
	<-s.done
	err := s.Reader.Close()
	s.settle(context.Background())
	return errors.Join(err, s.release())
}

// release closes what only a writer has open. SQLite keeps the files open
// until the last statement is closed.
func (s *Store) release() error {
	var errs []error
	for _, statement := range []*sql.Stmt{s.insert, s.update, s.remove} {
		if statement != nil {
			errs = append(errs, statement.Close())
		}
	}
	if s.conn != nil {
		errs = append(errs, s.conn.Close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	return errors.Join(append(errs, s.lock.Release())...)
}

// write is one change on its way to the writer.
type write struct {
	handle  string
	expect  int64
	content []byte
	remove  bool

	taken atomic.Bool   // by whoever sets it first: the writer, or a caller who gives up
	done  chan struct{} // closed when err is final
	err   error
}

func (s *Store) do(ctx context.Context, w *write) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w.done = make(chan struct{})
	if err := s.enqueue(ctx, w); err != nil {
		return err
	}
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
	}
	if w.taken.CompareAndSwap(false, true) {
		return ctx.Err()
	}
	<-w.done
	return w.err
}

func (s *Store) enqueue(ctx context.Context, w *write) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	select {
	case s.queue <- w:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// writer takes one write, then whatever else waits, and commits them together.
func (s *Store) writer() {
	defer close(s.done)
	var group []*write
	logged := 0 // bytes, about, since the last checkpoint
	for w := range s.queue {
		group = append(group[:0], w)
		for len(group) < maxGroup && len(s.queue) > 0 {
			group = append(group, <-s.queue)
		}
		for _, w := range group {
			logged += writeCost + len(w.content)
		}
		s.commit(group)
		clear(group)
		if logged >= maxLog {
			s.checkpoint(context.Background())
			logged = 0
		}
	}
}

// commit does the writes of a group in one transaction and answers each. A
// write that finds another revision than it expects changes nothing and leaves
// the others alone; a failing disk fails them all.
func (s *Store) commit(group []*write) {
	live := group[:0]
	for _, w := range group {
		if w.taken.CompareAndSwap(false, true) {
			live = append(live, w)
		}
	}
	if len(live) == 0 {
		return
	}
	err := s.transaction(live)
	for _, w := range live {
		if err != nil {
			w.err = err
		}
		w.content = nil
		close(w.done)
	}
}

func (s *Store) transaction(group []*write) error {
	// Begun writes run to their end: no context may interrupt a commit.
	ctx := context.Background()
	if _, err := s.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return describe(s.path, err)
	}
	now := time.Now().UnixMilli()
	for _, w := range group {
		changed, err := s.apply(ctx, w, now)
		if err != nil {
			s.conn.ExecContext(ctx, "ROLLBACK") // SQLite may have rolled back by itself
			return describe(s.path, err)
		}
		if !changed {
			w.err = keystore.ErrConflict
		}
	}
	_, err := s.conn.ExecContext(ctx, "COMMIT")
	if err == nil {
		return nil
	}
	s.conn.ExecContext(ctx, "ROLLBACK")
	// The frame that commits is the last one written to the log. When writing
	// failed it is not there; when anything after that failed it may be, and a
	// restart may find it.
	var e *driver.Error
	if errors.As(err, &e) && (e.Code()&0xff == codes.SQLITE_FULL || e.Code() == codes.SQLITE_IOERR_WRITE || e.Code()&0xff == codes.SQLITE_BUSY) {
		return describe(s.path, err)
	}
	return fmt.Errorf("%w: %w", keystore.ErrUnknownOutcome, describe(s.path, err))
}

// apply does one write and reports whether it found the revision it expects.
func (s *Store) apply(ctx context.Context, w *write, now int64) (bool, error) {
	var res sql.Result
	var err error
	switch {
	case w.remove:
		res, err = s.remove.ExecContext(ctx, w.handle, w.expect, now)
	case w.expect == 0:
		res, err = s.insert.ExecContext(ctx, w.handle, w.content, now)
	default:
		res, err = s.update.ExecContext(ctx, w.handle, w.expect, w.content, now)
	}
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}
