package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/edekd/edekd/internal/config"
	"github.com/edekd/edekd/keys"
)

// folder is one that edekd makes where it is missing.
type folder struct{ path, property string }

// folders are those the configuration needs. Over the keystore file of a Java
// KMS there is nothing for the state folder to hold.
func folders(c *config.Config) []folder {
	logs := folder{c.Logs.Dir, "edekd.log.dir"}
	if embedded(c) || sidecar(c) {
		return []folder{{c.StateDir, "edekd.state.dir"}, logs}
	}
	return []folder{logs}
}

// sidecar tells whether there is a KMS behind, whose keys in use are remembered in
// the state folder.
func sidecar(c *config.Config) bool {
	return slices.ContainsFunc(c.Keys.Providers, func(u string) bool { return strings.HasPrefix(u, "kms:") })
}

func embedded(c *config.Config) bool {
	return slices.ContainsFunc(c.Keys.Providers, func(u string) bool { return strings.HasPrefix(u, "sqlite:") })
}

func (f folder) problem(c *config.Config, err error) config.Problem {
	return c.Problem(f.property, "cannot make or write the folder "+f.path+": "+err.Error(),
		"make it yourself and give it to this user, or name another")
}

// probe looks, without changing anything, at what the start would trip over
// beside the configuration itself: folders that cannot be written, an identity
// that cannot be read. The stores are opened only by the start.
func probe(c *config.Config, log *slog.Logger) (problems config.Problems) {
	for _, f := range folders(c) {
		if err := writable(f.path); err != nil {
			problems = append(problems, f.problem(c, err))
		}
	}
	if c.HTTP.UnixSocket != "" {
		if err := checkSocketFolder(c); err != nil {
			problems = append(problems, problemsOf(err)...)
		}
	}
	for _, err := range probeCallers(c, log) {
		problems = append(problems, problemsOf(err)...)
	}
	if embedded(c) {
		if err := readIdentity(c); err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, c.Problem("edekd.identity.file", err.Error(), "mend what is named, or restore the identity from the backup"))
		}
	}
	return problems
}

// writable tells whether this user could make or write dir: the folder, or the
// nearest one above that exists.
func writable(dir string) error {
	for {
		info, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
			dir = filepath.Dir(dir)
			continue
		}
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: unix.ENOTDIR}
		}
		if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
			return &fs.PathError{Op: "write", Path: dir, Err: err}
		}
		return nil
	}
}

func readIdentity(c *config.Config) error {
	var passphrase []byte
	if c.Keys.PassphraseFile != "" {
		var err error
		if passphrase, err = keys.ReadPassphrase(c.Keys.PassphraseFile); err != nil {
			return err
		}
		defer clear(passphrase)
	}
	_, err := keys.LoadIdentity(c.Keys.IdentityFile, passphrase)
	return err
}
