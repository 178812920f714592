package keys

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edekd/edekd/hadoop/jceks"
	"github.com/edekd/edekd/internal/durable"
)

// ErrInUse: another process of ours holds the keystore file.
var ErrInUse = errors.New("store is in use by another process")

// errChanged: the file is not the one that was read or written here last.
var errChanged = errors.New("changed by another program since it was read here")

// jceksFile is a keystore file with the siblings that Hadoop's
// JavaKeyStoreProvider replaces it by. A change moves P to P_OLD, writes
// P_NEW, moves that to P and removes P_OLD; whoever finds P missing takes the
// better of the two. It differs from Hadoop's in never leaving a half-written
// P_NEW beside P (Hadoop then refuses to start) and never taking an unreadable
// store for an empty one.
//
// Hadoop's local file system also keeps a checksum of each file it writes in
// .NAME.crc and refuses a file that does not fit. These are removed before
// anything is renamed or written: a keystore ends in a digest of its own.
type jceksFile struct {
	path string
	lock *os.File // nil: this process may not write in the folder
	// exists and sum say what was last read from or written to path.
	exists bool
	sum    [sha256.Size]byte
}

func (f *jceksFile) newPath() string { return f.path + "_NEW" }
func (f *jceksFile) oldPath() string { return f.path + "_OLD" }

// lockJCEKSFile keeps other processes of ours from opening the file. The lock
// is on a sibling, which stays, because the file itself is replaced at each
// change. In a folder that may not be written there is no lock, and no change.
func lockJCEKSFile(path string) (*jceksFile, error) {
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the folder of %s does not exist: create it, or correct the path", path)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		if _, there := os.Lstat(path + ".lock"); there == nil {
			return nil, fmt.Errorf("%w: it is of an earlier run by another user: if that has ended, remove it", err)
		}
		return &jceksFile{path: path}, nil
	case err != nil:
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w: stop the other one first", path, ErrInUse)
		}
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	return &jceksFile{path: path, lock: lock}, nil
}

func (f *jceksFile) close() error {
	if f.lock == nil {
		return nil
	}
	return f.lock.Close()
}

// warnings tells what of the file and its folder an operator should know.
func (f *jceksFile) warnings() []string {
	var all []string
	dir := filepath.Dir(f.path)
	if f.lock == nil || unix.Access(dir, unix.W_OK) != nil {
		all = append(all, fmt.Sprintf("%s may not be written: the keys in %s are served, but every change fails; make the folder writable for the user that runs this", dir, f.path))
	}
	var st unix.Stat_t
	err := unix.Stat(f.path, &st)
	if errors.Is(err, fs.ErrNotExist) {
		return append(all, fmt.Sprintf("%s does not exist yet and begins empty: is the path right?", f.path))
	}
	if err != nil {
		return append(all, fmt.Sprintf("%s: %v", f.path, err))
	}
	if mode := st.Mode & 0o777; mode&0o077 != 0 {
		all = append(all, fmt.Sprintf("%s can be reached by others (mode %04o), and its mode is what protects the keys most: chmod 600 %s", f.path, mode, f.path))
	}
	if me := uint32(os.Geteuid()); st.Uid != me {
		all = append(all, fmt.Sprintf("%s belongs to user %d, and after the first change to user %d, who runs this: run this as its owner, or chown it back before another program takes over", f.path, st.Uid, me))
	}
	return all
}

// load reads the keystore, first finishing or undoing a change that a crash
// cut short, as Hadoop does. No file at all is an empty keystore.
func (f *jceksFile) load(pw *jceks.Password) ([]*jceks.Entry, error) {
	content, err := readKeystore(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return f.loadSibling(pw)
	}
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(f.newPath()); err == nil {
		return nil, fmt.Errorf("%s and %s should not exist together: one of them was put there by hand or by a second writer; "+
			"keep the one with the right keys under the first name (keytool -list -storetype jceks shows them) and move the other away", f.path, f.newPath())
	}
	entries, err := jceks.Parse(content, pw)
	if err == nil {
		f.know(content)
		if f.lock != nil {
			// Hadoop neither minds when this fails: the next change moves it away.
			_ = removeWithChecksum(f.oldPath())
		}
		return entries, nil
	}
	err = fmt.Errorf("%s: %w", f.path, err)
	if !errors.Is(err, jceks.ErrFormat) {
		return nil, err
	}
	content, oldErr := readKeystore(f.oldPath())
	if errors.Is(oldErr, fs.ErrNotExist) {
		return nil, err
	}
	if oldErr == nil {
		entries, oldErr = jceks.Parse(content, pw)
	}
	if oldErr != nil {
		return nil, fmt.Errorf("%w; nor can %s be used: %w", err, f.oldPath(), oldErr)
	}
	if err := renameWithoutChecksum(f.path, f.path+"_CORRUPTED_"+stamp()); err != nil {
		return nil, err
	}
	return entries, f.promote(f.oldPath(), content)
}

// loadSibling looks for the keystore when it is not under its own name.
func (f *jceksFile) loadSibling(pw *jceks.Password) ([]*jceks.Entry, error) {
	var damage error
	for _, c := range [...]struct{ path, other string }{{f.newPath(), f.oldPath()}, {f.oldPath(), f.newPath()}} {
		content, err := readKeystore(c.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		entries, err := jceks.Parse(content, pw)
		if errors.Is(err, jceks.ErrFormat) { // cut short by the crash
			damage = errors.Join(damage, fmt.Errorf("%s: %w", c.path, err))
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.path, err)
		}
		if err := f.promote(c.path, content); err != nil {
			return nil, err
		}
		return entries, removeWithChecksum(c.other)
	}
	if _, err := os.Lstat(f.oldPath()); damage != nil && errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is missing and %s beside it does not parse: if this was to be the first key of a new keystore, the write was cut short and nothing acknowledged is in it: "+
			"move %s away and start again; if there were keys before, it must not be taken for empty, so restore it from a backup: %w", f.path, f.newPath(), f.newPath(), damage)
	}
	if damage != nil {
		return nil, fmt.Errorf("%s is missing and nothing beside it can be read, so it must not be taken for empty: restore it from a backup: %w", f.path, damage)
	}
	if f.lock == nil {
		return nil, fmt.Errorf("%s does not exist, and this process may not create it: create its folder for the user that runs this, or correct the path", f.path)
	}
	return nil, nil
}

// promote gives a sibling the keystore's name.
func (f *jceksFile) promote(from string, content []byte) error {
	if err := renameWithoutChecksum(from, f.path); err != nil {
		return err
	}
	f.know(content)
	return durable.SyncDir(filepath.Dir(f.path))
}

func (f *jceksFile) know(content []byte) {
	f.exists, f.sum = true, sha256.Sum256(content)
}

// check fails with errChanged unless what is at path is what is known here.
func (f *jceksFile) check(path string) error {
	content, err := readKeystore(path)
	if errors.Is(err, fs.ErrNotExist) {
		if f.exists {
			return errChanged
		}
		return nil
	}
	if err != nil {
		return err
	}
	if !f.exists || sha256.Sum256(content) != f.sum {
		return errChanged
	}
	return nil
}

// replace makes content the keystore, durably. When committed is true the file
// has it, even if an error says that it may not outlive a power cut; when it
// is false the file is as before, or the error says where it is.
func (f *jceksFile) replace(content []byte) (committed bool, err error) {
	if f.lock == nil {
		return false, fmt.Errorf("%s is read-only: this process may not write in its folder", f.path)
	}
	if err := f.check(f.path); err != nil {
		return false, err
	}
	for _, p := range [...]string{f.newPath(), f.oldPath()} {
		err := renameWithoutChecksum(p, p+"_ORPHANED_"+stamp())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	mode := fs.FileMode(0o600)
	if f.exists {
		info, err := os.Stat(f.path)
		if err != nil {
			return false, err
		}
		mode = info.Mode().Perm()
		if err := renameWithoutChecksum(f.path, f.oldPath()); err != nil {
			return false, err
		}
	}
	if err := f.writeNew(content, mode); err != nil {
		return false, errors.Join(err, f.revert())
	}
	if err := renameWithoutChecksum(f.newPath(), f.path); err != nil {
		return false, errors.Join(err, removeIfThere(f.newPath()), f.revert())
	}
	f.know(content)
	if err := durable.SyncDir(filepath.Dir(f.path)); err != nil {
		return true, err
	}
	// Left behind, it would only be moved away by the next change.
	_ = removeWithChecksum(f.oldPath())
	return true, nil
}

// writeNew writes P_NEW, unless P_OLD turns out to be another file than the
// one that check saw a moment ago.
func (f *jceksFile) writeNew(content []byte, mode fs.FileMode) error {
	if f.exists {
		if err := f.check(f.oldPath()); err != nil {
			return err
		}
	}
	if err := durable.SyncDir(filepath.Dir(f.path)); err != nil {
		return err
	}
	if err := removeIfThere(checksumPath(f.newPath())); err != nil {
		return err
	}
	file, err := os.OpenFile(f.newPath(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close())
	if err != nil {
		return errors.Join(err, os.Remove(f.newPath()))
	}
	return nil
}

// revert undoes a change before its commit.
func (f *jceksFile) revert() error {
	if !f.exists {
		return nil
	}
	err := renameWithoutChecksum(f.oldPath(), f.path)
	if err == nil {
		err = durable.SyncDir(filepath.Dir(f.path))
	}
	if err != nil {
		return fmt.Errorf("putting the file back failed as well, so look for it under the name %s too: %w", f.oldPath(), err)
	}
	return nil
}

// readKeystore reads a regular file of bounded size.
func readKeystore(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO must not make us wait
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: it is no regular file", path, jceks.ErrFormat)
	}
	return io.ReadAll(io.LimitReader(file, jceks.MaxFileSize+1))
}

// checksumPath names the checksum file of Hadoop's LocalFileSystem.
func checksumPath(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".crc")
}

func removeIfThere(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func removeWithChecksum(path string) error {
	return errors.Join(removeIfThere(checksumPath(path)), removeIfThere(path))
}

func renameWithoutChecksum(from, to string) error {
	if err := errors.Join(removeIfThere(checksumPath(from)), removeIfThere(checksumPath(to))); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// stamp is what Hadoop appends to the names of files it puts aside.
func stamp() string { return strconv.FormatInt(time.Now().UnixMilli(), 10) }
