package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/edekd/edekd/keystore"
)

// maxReaders bounds the connections that read at the same time; further
// readers wait for one.
const maxReaders = 4

const columns = "SELECT handle, revision, content, created, modified, deleted FROM deposit"

// within selects handles with the prefix ?1. They are ASCII up to '~', so
// '\x7f' closes the range of any prefix.
const within = " WHERE handle >= ?1 AND handle < ?1 || char(127)"

// selectLiving is answered by its index alone, without a look at the table.
const selectLiving = "SELECT handle FROM deposit INDEXED BY living" + within + " AND deleted = 0 ORDER BY handle DESC"

// Reader reads a store, also while another process holds and writes it. All
// methods are safe for concurrent use.
type Reader struct {
	path    string
	id      string
	db      *sql.DB
	get     *sql.Stmt
	list    *sql.Stmt
	walks   *sql.DB   // a pool of one, so that walks do not keep db's connections
	handles *sql.Stmt // of walks
}

// OpenReader opens the existing store at path for reading.
func OpenReader(path string) (*Reader, error) {
	path, err := resolve(path)
	if err != nil {
		return nil, err
	}
	if err := checkHeader(path); err != nil {
		return nil, err
	}
	return newReader(path)
}

func newReader(path string) (_ *Reader, err error) {
	ctx := context.Background()
	r := &Reader{path: path}
	if r.db, err = connect(path, "ro"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	r.db.SetMaxOpenConns(maxReaders)
	r.db.SetMaxIdleConns(maxReaders)
	if r.id, err = checkMeta(ctx, r.db, path); err != nil {
		return nil, err
	}
	if r.get, err = r.db.PrepareContext(ctx, columns+" WHERE handle = ?"); err != nil {
		return nil, describeTables(path, err)
	}
	if r.list, err = r.db.PrepareContext(ctx, columns+within+" ORDER BY handle DESC"); err != nil {
		return nil, describe(path, err)
	}
	if r.walks, err = connect(path, "ro"); err != nil {
		return nil, err
	}
	r.walks.SetMaxOpenConns(1)
	if r.handles, err = r.walks.PrepareContext(ctx, selectLiving); err != nil {
		return nil, describeTables(path, err)
	}
	return r, nil
}

// ID is the random name the store got when it was made.
func (r *Reader) ID() string { return r.id }

// Get returns the deposit under handle, a tombstone included.
func (r *Reader) Get(ctx context.Context, handle string) (*keystore.Deposit, error) {
	d, err := scan(r.get.QueryRowContext(ctx, handle))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, keystore.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("get deposit: %w", describe(r.path, err))
	}
	return d, nil
}

// List implements keystore.Reader.
func (r *Reader) List(ctx context.Context, prefix string, visit func(*keystore.Deposit) bool) error {
	return r.walk(ctx, r.list, prefix, func(rows *sql.Rows) (bool, error) {
		d, err := scan(rows)
		return err == nil && visit(d), err
	})
}

// Handles implements keystore.Reader.
func (r *Reader) Handles(ctx context.Context, prefix string, visit func(handle string) bool) error {
	return r.walk(ctx, r.handles, prefix, func(rows *sql.Rows) (bool, error) {
		var handle string
		err := rows.Scan(&handle)
		return err == nil && visit(handle), err
	})
}

// walk calls visit at each row until it says no or fails.
func (r *Reader) walk(ctx context.Context, query *sql.Stmt, prefix string, visit func(*sql.Rows) (more bool, err error)) error {
	rows, err := query.QueryContext(ctx, prefix)
	if err != nil {
		return fmt.Errorf("list deposits: %w", describe(r.path, err))
	}
	defer rows.Close()
	for rows.Next() {
		more, err := visit(rows)
		if err != nil {
			return fmt.Errorf("list deposits: %w", describe(r.path, err))
		}
		if !more {
			return nil
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("list deposits: %w", describe(r.path, err))
	}
	return nil
}

func scan(row interface{ Scan(...any) error }) (*keystore.Deposit, error) {
	var d keystore.Deposit
	var created, modified int64
	if err := row.Scan(&d.Handle, &d.Revision, &d.Content, &created, &modified, &d.Deleted); err != nil {
		return nil, err
	}
	d.Created, d.Modified = time.UnixMilli(created), time.UnixMilli(modified)
	return &d, nil
}

// Check walks all pages of the file and fails with ErrDamaged if they do not
// fit together.
func (r *Reader) Check(ctx context.Context) error { return quickCheck(ctx, r.db, r.path) }

// Snapshot writes the store as it is at one moment into a new file, mode 0600,
// that is itself a store. Writers are not held up. The file is not synced.
func (r *Reader) Snapshot(ctx context.Context, to string) error {
	f, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if _, err := r.db.ExecContext(ctx, "VACUUM INTO ?", to); err != nil {
		os.Remove(to)
		return fmt.Errorf("snapshot: %w", describe(r.path, err))
	}
	if err := unmark(ctx, to); err != nil {
		os.Remove(to)
		return fmt.Errorf("snapshot: %w", describe(to, err))
	}
	return nil
}

// unmark takes the mark of a log (Store.checkpoint) from a snapshot, in case it
// was made just between the two halves of a checkpoint.
func unmark(ctx context.Context, path string) error {
	path, err := filepath.Abs(path) // a relative one would not make a URI
	if err != nil {
		return err
	}
	db, err := connect(path, "rw", "journal_mode(MEMORY)")
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "DELETE FROM meta WHERE name='open'")
	return errors.Join(err, db.Close())
}

// Close releases the file. Reads under way are waited for.
func (r *Reader) Close() error {
	var errs []error
	for _, statement := range []*sql.Stmt{r.get, r.list, r.handles} { // they would keep the file open
		if statement != nil {
			errs = append(errs, statement.Close())
		}
	}
	if r.walks != nil {
		errs = append(errs, r.walks.Close())
	}
	return errors.Join(append(errs, r.db.Close())...)
}
