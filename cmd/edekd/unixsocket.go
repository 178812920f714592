package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/edekd/edekd/internal/config"
	"github.com/edekd/edekd/proxy"
	"github.com/edekd/edekd/proxy/authn"
)

const socketProperty = "edekd.http.unix-socket"

// listenUnix opens the Unix socket, where there is to be one.
func listenUnix(c *config.Config, auth *authn.Authenticator, log *slog.Logger) (net.Listener, error) {
	path := c.HTTP.UnixSocket
	if path == "" {
		return nil, nil
	}
	if err := checkSocketFolder(c); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, c.Problem(socketProperty, "cannot listen: "+err.Error(), "stop the process that listens there, take away what is no socket, or another path")
	}
	l, err := newUnixSocket(path, c.HTTP.UnixSocketMode)
	if err != nil {
		return nil, c.Problem(socketProperty, "cannot listen: "+err.Error(), "let this user write the folder, or another path")
	}
	return proxy.Listener(auth.Listener(&patientListener{Listener: l, log: log})), nil
}

// checkSocketFolder looks at who else could put a socket in the place of ours.
func checkSocketFolder(c *config.Config) error {
	dir := filepath.Dir(c.HTTP.UnixSocket)
	refuse := func(what, remedy string) error { return c.Problem(socketProperty, what, remedy) }
	info, err := os.Stat(dir)
	if err != nil {
		return refuse("the folder of the socket: "+err.Error(), "make it and give it to this user (systemd: RuntimeDirectory=)")
	}
	if !info.IsDir() {
		return refuse(dir+" is not a folder", "another path")
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 && owner != uint32(os.Geteuid()) {
		return refuse(fmt.Sprintf("%s belongs to the user %d, who could put another socket in the place of this one", dir, owner), "a folder of this user's or root's")
	}
	if mode := info.Mode(); mode.Perm()&0o022 != 0 && mode&fs.ModeSticky == 0 {
		return refuse(fmt.Sprintf("other users can write %s (mode %#o), and so put another socket in the place of this one", dir, mode.Perm()), "chmod go-w "+dir)
	}
	return nil
}

// removeStale takes away the socket of a process that did not end well. What
// answers, and what is no socket, stays and is an error.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there and is no socket (%s)", path, info.Mode())
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("a process listens on %s", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("whether a process listens on it cannot be told: %w", err)
	}
	return os.Remove(path)
}

// unixSocket takes its file away when it is closed, unless another has taken the
// place.
type unixSocket struct {
	*net.UnixListener
	path string
	made fs.FileInfo
	once sync.Once
	err  error
}

// newUnixSocket listens on path. Until the mode is set the process's umask keeps
// others out.
func newUnixSocket(path string, mode fs.FileMode) (*unixSocket, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	s := &unixSocket{UnixListener: l, path: path}
	if s.made, err = os.Lstat(path); err == nil {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close ends listening. The file goes first: who comes later finds nothing there
// rather than a socket that nobody answers on.
func (s *unixSocket) Close() error {
	s.once.Do(func() {
		if now, err := os.Lstat(s.path); err == nil && s.made != nil && os.SameFile(now, s.made) {
			s.err = os.Remove(s.path)
		}
		s.err = errors.Join(s.err, s.UnixListener.Close())
	})
	return s.err
}
