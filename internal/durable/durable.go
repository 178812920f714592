// Package durable puts files in place so that a crash leaves either the whole
// file or none, and an existing file is never replaced.
package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Create writes content to a new file at path with the given permissions and
// returns when file and directory entry are on the disk. When something exists
// at path already, the error is fs.ErrExist and nothing has changed.
func Create(path string, perm os.FileMode, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Chmod(perm), tmp.Sync(), tmp.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", tmp.Name(), err)
	}
	return Place(tmp.Name(), path)
}

// Place gives the file at tmp, whose content must have been synced, the name
// path in the same file system and syncs path's directory. When something
// exists at path already, the error is fs.ErrExist and tmp stays; otherwise
// tmp is gone.
func Place(tmp, path string) error {
	if err := os.Link(tmp, path); err != nil {
		return err
	}
	if err := os.Remove(tmp); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the directory's entries durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
