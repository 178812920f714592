package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	driver "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"github.com/edekd/edekd/internal/durable"
	"github.com/edekd/edekd/keystore"
)

const (
	// magic and applicationID tell our files from others; see the SQLite file
	// format, section 1.3: offsets 0 and 68 of the file.
	magic         = "SQLite format 3\x00"
	applicationID = 0x6564656b // "edek"

	schemaVersion = 1
	schema        = `
CREATE TABLE meta (
	name  TEXT PRIMARY KEY NOT NULL,
	value TEXT NOT NULL
) STRICT;
CREATE TABLE deposit (
	handle   TEXT PRIMARY KEY NOT NULL,
	revision INTEGER NOT NULL CHECK (revision > 0),
	content  BLOB NOT NULL,
	created  INTEGER NOT NULL, -- milliseconds since 1970, as modified
	modified INTEGER NOT NULL,
	deleted  INTEGER NOT NULL CHECK (deleted IN (0, 1))
) STRICT;
CREATE INDEX living ON deposit (handle, deleted) WHERE deleted = 0;`
)

// Errors of this package, to be found with errors.Is.
var (
	// ErrInUse: another process, or another Store of this one, holds the file.
	ErrInUse = errors.New("the key store is in use")
	// ErrDamaged: the file is not a key store, or no longer a sound one.
	ErrDamaged = errors.New("not a sound key store")
	// ErrClosed: the Store was closed before the write began.
	ErrClosed = errors.New("the key store is closed")
)

// Lock keeps other processes from opening the store at a path for writing.
type Lock struct{ file *os.File }

// Hold takes the lock of the store at path, which need not exist yet, or
// fails with ErrInUse. The lock is a file beside the store; it is left there
// when the lock is released, because removing it would let two processes each
// lock a file of that name.
func Hold(path string) (*Lock, error) {
	path, err := resolve(path)
	if err != nil {
		return nil, fmt.Errorf("lock the key store: %w", err)
	}
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("lock the key store: %s.lock is a symbolic link, and what it leads to would be overwritten: remove the link", path)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the key store: %w", permit(err))
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		id, _ := io.ReadAll(io.LimitReader(f, 20))
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			holder := "another process"
			if s := strings.TrimSpace(string(id)); s != "" { // empty while it takes or releases the lock
				holder = "process " + s
			}
			return nil, fmt.Errorf("%w: %s is held by %s: stop that process first", ErrInUse, path, holder)
		}
		return nil, fmt.Errorf("lock the key store: %w", err)
	}
	// The process id is for people who read the error above; the lock itself
	// does not depend on it.
	if f.Truncate(0) == nil {
		f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &Lock{f}, nil
}

// Release lets others have the store.
func (l *Lock) Release() error {
	return errors.Join(l.file.Truncate(0), l.file.Close()) // no process holds it
}

// resolve makes every name of an existing file the same, so that a symbolic
// link does not lead round the lock.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return "", fmt.Errorf("%w: create the directory first", err)
		}
		return filepath.Join(dir, filepath.Base(path)), nil
	}
	return real, err
}

// create makes an empty store at path, whole or not at all. The lock is held.
func create(ctx context.Context, path string) (err error) {
	for _, suffix := range []string{"-wal", "-journal"} {
		if _, err := os.Lstat(path + suffix); err == nil {
			return fmt.Errorf("%s is missing but its log %s is here: put the file back from where it was moved to, or move the log away and restore a backup (edekctl store restore)", path, path+suffix)
		}
	}
	tmp := path + ".new"
	for _, left := range []string{tmp, tmp + "-journal"} { // of a process that died here
		if err := os.Remove(left); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	if err := f.Close(); err != nil {
		return err
	}
	db, err := connect(tmp, "rw", "synchronous(FULL)")
	if err != nil {
		return err
	}
	defer db.Close()
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	for _, statement := range []string{
		fmt.Sprintf("PRAGMA application_id=%d", applicationID),
		"BEGIN", schema,
		fmt.Sprintf("INSERT INTO meta VALUES ('schema', '%d'), ('id', '%s')", schemaVersion, hex.EncodeToString(id)),
		"COMMIT",
	} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return describe(path, err)
		}
	}
	if err := db.Close(); err != nil {
		return describe(path, err)
	}
	return durable.Place(tmp, path)
}

// checkHeader refuses what is not a file of ours before SQLite touches it:
// SQLite would take an empty file for a new database and roll a stray log
// into a foreign one.
func checkHeader(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return permit(err)
	}
	defer f.Close()
	header := make([]byte, 100)
	if _, err := io.ReadFull(f, header); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return damaged(path, "it is cut short")
		}
		return err
	}
	if string(header[:len(magic)]) != magic {
		return damaged(path, "it is not an SQLite database")
	}
	if id := binary.BigEndian.Uint32(header[68:]); id != applicationID {
		return fmt.Errorf("%w: %s is an SQLite database of another program: correct the path, or move that file away and restore a backup (edekctl store restore)", ErrDamaged, path)
	}
	return nil
}

// permit adds what to do where the process may not.
func permit(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: run this as the user to whom the key store and its folder belong, or chown them", err)
	}
	return err
}

func damaged(path, why string) error {
	return fmt.Errorf("%w: %s: %s: nothing was changed; move the file away and restore a backup (edekctl store restore)", ErrDamaged, path, why)
}

// checkLog refuses a file with the mark of a log (Store.checkpoint) that is
// not there. SQLite would take what is left for the whole.
func checkLog(ctx context.Context, path string) error {
	info, err := os.Stat(path + "-wal")
	if err == nil && info.Size() > 0 {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Another connection than an immutable one would make a log.
	db, err := connect(path, "immutable")
	if err != nil {
		return err
	}
	defer db.Close()
	var marked bool
	if err := db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM meta WHERE name='open')").Scan(&marked); err != nil {
		return describeTables(path, err)
	}
	if marked {
		return fmt.Errorf("%w: %s was in use when it was copied or moved, and its log %s-wal is missing or empty, so the newest keys are not here: "+
			"bring both files from where the store was, or restore a backup (edekctl store restore); "+
			"if the log is lost for good, edekctl store backup and restore keep what is left", ErrDamaged, path, path)
	}
	return nil
}

// connect prepares connections to the existing file at path. mode is SQLite's
// URI parameter: "rw", "ro", or "immutable" to read a file nobody writes
// without looking at its log.
func connect(path, mode string, pragmas ...string) (*sql.DB, error) {
	// With POSIX locks, anything in this process that opens and closes the
	// file would drop SQLite's locks on it. Where the kernel lacks the better
	// kind, the driver goes on with POSIX locks and so do we.
	if _, err := driver.OFDLocking(true); err != nil && !errors.Is(err, driver.ErrOFDLockingUnavailable) {
		return nil, err
	}
	q := url.Values{"mode": {mode}, "_busy_timeout": {"5000"}, "_pragma": pragmas}
	if mode == "immutable" {
		q.Set("mode", "ro")
		q.Set("immutable", "1")
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}
	return sql.Open("sqlite", u.String())
}

// checkMeta refuses a schema this program does not know and returns the
// store's id.
func checkMeta(ctx context.Context, db *sql.DB, path string) (id string, err error) {
	var version string
	err = db.QueryRowContext(ctx, "SELECT (SELECT value FROM meta WHERE name='schema'), (SELECT value FROM meta WHERE name='id')").Scan(&version, &id)
	if err != nil {
		return "", describeTables(path, err)
	}
	n, err := strconv.Atoi(version)
	if err != nil || n < 1 {
		return "", damaged(path, fmt.Sprintf("its schema version is %q", version))
	}
	if n > schemaVersion {
		return "", fmt.Errorf("%s was written by a newer edekd (schema %d, this program knows up to %d): use that version or a later one", path, n, schemaVersion)
	}
	return id, nil
}

// quickCheck walks all pages of the database.
func quickCheck(ctx context.Context, db *sql.DB, path string) error {
	var finding string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&finding); err != nil {
		return describe(path, err)
	}
	if finding != "ok" {
		return damaged(path, finding)
	}
	return nil
}

// describeTables is describe for statements that fail only when a table is not
// as we made it.
func describeTables(path string, err error) error {
	var e *driver.Error
	if errors.As(err, &e) && e.Code() == codes.SQLITE_ERROR {
		return damaged(path, err.Error())
	}
	return describe(path, err)
}

// describe puts what SQLite reports into our words.
func describe(path string, err error) error {
	var e *driver.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case codes.SQLITE_FULL:
		return fmt.Errorf("%w: free space where %s lies: %w", keystore.ErrFull, path, err)
	case codes.SQLITE_CORRUPT, codes.SQLITE_NOTADB:
		return damaged(path, err.Error())
	case codes.SQLITE_BUSY:
		return fmt.Errorf("another program keeps %s locked: end it: %w", path, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}
