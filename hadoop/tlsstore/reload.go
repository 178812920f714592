package tlsstore

import (
	"crypto/tls"
	"sync/atomic"
)

// Reloadable is a TLS configuration that can be exchanged while connections
// are open: those keep what they began with, later ones get the new one. It is
// safe for concurrent use and has no goroutine.
type Reloadable struct {
	load    func() (*Loaded, error)
	current atomic.Pointer[Loaded]
}

// NewReloadable loads for the first time. load makes a Loaded of the files as
// they are then, by Load with a configuration that may have been read again.
// The error is that of load.
func NewReloadable(load func() (*Loaded, error)) (*Reloadable, error) {
	r := &Reloadable{load: load}
	if err := r.Reload(); err != nil {
		return nil, err
	}
	return r, nil
}

// Reload loads again. On error, which is that of load, the old stays in force.
func (r *Reloadable) Reload() error {
	loaded, err := r.load()
	if err != nil {
		return err
	}
	r.current.Store(loaded)
	return nil
}

// Current returns what is in force.
func (r *Reloadable) Current() *Loaded { return r.current.Load() }

// Config returns the configuration for a listener, which follows Reload.
// Sessions that a client resumes are held to the client certificates that are
// trusted now.
func (r *Reloadable) Config() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.Current().Config, nil },
	}
}
