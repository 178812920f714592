// Package backup is the backup file of an embedded key store: one file that
// brings a KMS back on an empty host.
//
// The file is a plain tar archive, so that it can be looked into and taken
// apart without this program. Its three members, in this order:
//
//	manifest.json   what it is, and size and SHA-256 of the other two
//	identity.asc    the identity file, byte for byte
//	keys.db         a snapshot of the store
//
// The identity is under its passphrase if it has one; if not, the file gives
// all keys to whoever reads it. The checksums find damage, not malice: against
// that, the deposits in the snapshot are sealed.
package backup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/edekd/edekd/internal/durable"
)

const (
	format = 1

	manifestName = "manifest.json"
	identityName = "identity.asc"
	databaseName = "keys.db"

	maxManifest = 64 << 10 // bytes
	maxIdentity = 1 << 20  // bytes
)

// ErrDamaged: the file is not a backup, or not a whole one.
var ErrDamaged = errors.New("not a sound backup")

// Backup is what a backup file holds beside the snapshot.
type Backup struct {
	Created  time.Time
	StoreID  string // the id of the store that was backed up
	Identity []byte // the identity file; may hold a private key, so the owner zeroes it
}

type manifest struct {
	Format   int       `json:"format"`
	Created  time.Time `json:"created"`
	StoreID  string    `json:"store"`
	Identity member    `json:"identity.asc"`
	Database member    `json:"keys.db"`
}

type member struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Write puts b and the snapshot, a file at the path database, into a new file
// at path to, mode 0600, and returns when it is on the disk. It never
// overwrites: the error is fs.ErrExist when something is there. After a
// failure nothing is left at to.
func Write(to string, b *Backup, database string) (err error) {
	db, err := os.Open(database)
	if err != nil {
		return err
	}
	defer db.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, db)
	if err != nil {
		return err
	}
	if _, err := db.Seek(0, io.SeekStart); err != nil {
		return err
	}
	head, err := json.MarshalIndent(manifest{
		Format: format, Created: b.Created.UTC(), StoreID: b.StoreID,
		Identity: describe(b.Identity),
		Database: member{size, hex.EncodeToString(sum.Sum(nil))},
	}, "", "  ")
	if err != nil {
		return err
	}

	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(to)
		}
	}()
	w := tar.NewWriter(out)
	for _, m := range []struct {
		name    string
		size    int64
		content io.Reader
	}{
		{manifestName, int64(len(head)), bytes.NewReader(head)},
		{identityName, int64(len(b.Identity)), bytes.NewReader(b.Identity)},
		{databaseName, size, db},
	} {
		err = w.WriteHeader(&tar.Header{Name: m.name, Mode: 0o600, Size: m.size, ModTime: b.Created, Format: tar.FormatPAX})
		if err == nil {
			_, err = io.Copy(w, m.content)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("write %s: %w", m.name, err), out.Close())
		}
	}
	if err := errors.Join(w.Close(), out.Sync(), out.Close()); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(to))
}

func describe(content []byte) member {
	sum := sha256.Sum256(content)
	return member{int64(len(content)), hex.EncodeToString(sum[:])}
}

// Read takes the backup in r apart: the snapshot goes into a new file at the
// path database, mode 0600 and synced. It fails with ErrDamaged unless all is
// there and matches its checksum, and then leaves no file at database.
func Read(r io.Reader, database string) (_ *Backup, err error) {
	archive := tar.NewReader(r)
	if err := next(archive, manifestName); err != nil {
		return nil, err
	}
	head, err := io.ReadAll(io.LimitReader(archive, maxManifest+1))
	if err != nil || len(head) > maxManifest {
		return nil, damaged("its manifest cannot be read", err)
	}
	var m manifest
	if err := json.Unmarshal(head, &m); err != nil {
		return nil, damaged("its manifest does not parse", err)
	}
	if m.Format != format {
		return nil, fmt.Errorf("the backup has format %d, this program knows %d: use the version that wrote it", m.Format, format)
	}
	b := &Backup{Created: m.Created, StoreID: m.StoreID}

	if err := next(archive, identityName); err != nil {
		return nil, err
	}
	if m.Identity.Size < 0 || m.Identity.Size > maxIdentity {
		return nil, damaged("its identity is too large", nil)
	}
	b.Identity = make([]byte, m.Identity.Size)
	defer func() {
		if err != nil {
			clear(b.Identity)
		}
	}()
	if _, err := io.ReadFull(archive, b.Identity); err != nil {
		return nil, damaged("its identity is cut short", err)
	}
	if describe(b.Identity) != m.Identity {
		return nil, damaged("its identity does not match the checksum", nil)
	}

	if err := next(archive, databaseName); err != nil {
		return nil, err
	}
	if err := extract(archive, database, m.Database); err != nil {
		return nil, err
	}
	if _, err := archive.Next(); err != io.EOF {
		os.Remove(database)
		return nil, damaged("there is more in it than belongs there", err)
	}
	return b, nil
}

func next(archive *tar.Reader, name string) error {
	header, err := archive.Next()
	if err != nil {
		return damaged(name+" is missing", err)
	}
	if header.Name != name || header.Typeflag != tar.TypeReg {
		return damaged(fmt.Sprintf("%s is missing: %q stands in its place", name, header.Name), nil)
	}
	return nil
}

func extract(r io.Reader, to string, want member) (err error) {
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(to)
		}
	}()
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(out, sum), r)
	if closed := errors.Join(out.Sync(), out.Close()); closed != nil && err == nil {
		return closed
	}
	var path *os.PathError
	if errors.As(err, &path) { // our file, not the archive
		return err
	}
	if err != nil {
		return damaged("its database is cut short", err)
	}
	if (member{size, hex.EncodeToString(sum.Sum(nil))}) != want {
		return damaged("its database does not match the checksum", nil)
	}
	return nil
}

func damaged(why string, cause error) error {
	if cause != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, why, cause)
	}
	return fmt.Errorf("%w: %s", ErrDamaged, why)
}
