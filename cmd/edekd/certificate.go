package main

import (
	"errors"
	"log/slog"
	"os"
	"slices"

	"github.com/VictoriaMetrics/metrics"

	"github.com/edekd/edekd/hadoop/conf"
	"github.com/edekd/edekd/hadoop/tlsstore"
	"github.com/edekd/edekd/internal/config"
)

// certificate is what TLS is served with. It can be read again while
// connections are open: those keep the old one, new ones get the new one.
type certificate struct {
	*tlsstore.Reloadable
	c   *config.Config      // what the process was started with
	ssl *conf.Configuration // ssl-server.xml as it was last read
	log *slog.Logger
}

func newCertificate(c *config.Config, log *slog.Logger) (*certificate, error) {
	k := &certificate{c: c, ssl: c.SSL, log: log}
	var err error
	k.Reloadable, err = tlsstore.NewReloadable(func() (*tlsstore.Loaded, error) { return tlsstore.Load(k.c.Site, k.ssl) })
	if err != nil {
		return nil, tlsProblem(err)
	}
	k.warn()
	return k, nil
}

func tlsProblem(err error) error {
	problems, ok := errors.AsType[tlsstore.Problems](err)
	if !ok {
		return err
	}
	var all config.Problems
	for _, p := range problems {
		all = append(all, config.Problem{File: p.Place, Property: p.Property, What: p.What, Remedy: p.Remedy})
	}
	return all
}

func (k *certificate) warn() {
	for _, w := range k.Current().Warnings {
		logProblem(k.log, config.Problem{File: w.Place, Property: w.Property, What: w.What, Remedy: w.Remedy})
	}
}

// configuration is the file that names the stores.
func (k *certificate) configuration() []string { return k.ssl.Files()[:1] }

// register shows when the first of the certificates that are served expires.
func (k *certificate) register(set *metrics.Set) {
	set.NewGauge("edekd_tls_not_after_seconds", func() float64 { return float64(k.Current().NotAfter.Unix()) })
}

// files are the stores, and the configuration that names them.
func (k *certificate) files() []string {
	return append(slices.Clone(k.ssl.Files()), k.Current().Files...)
}

// reload reads ssl-server.xml and the stores again. What cannot be used leaves
// the old certificate in force.
func (k *certificate) reload() error {
	ssl, err := k.c.LoadSSL(os.LookupEnv)
	if err != nil {
		return err
	}
	before := k.ssl
	k.ssl = ssl
	if err := k.Reload(); err != nil {
		k.ssl = before
		return tlsProblem(err)
	}
	k.warn()
	return nil
}
