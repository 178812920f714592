package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/edekd/edekd/loadtest"
	"github.com/edekd/edekd/loadtest/cpu"
	"github.com/edekd/edekd/loadtest/edekfile"
	"github.com/edekd/edekd/loadtest/report"
	"github.com/edekd/edekd/loadtest/result"
	"github.com/edekd/edekd/loadtest/slo"
	"github.com/edekd/edekd/loadtest/target"
)

// defaultRate is that of a load for which none was named: any server can bear it.
const defaultRate = 100

// loadFlags are what all loads have in common.
type loadFlags struct {
	Target []string `arg:"" help:"Server: kms://https@h1;h2:9600/kms or https://h:9600/kms."`
	Mine   bool     `name:"yes-this-is-mine" help:"The targets are not on this machine, and I may put load on them."`

	Rate        []float64     `placeholder:"N,..." help:"Arrivals per second; with several, one step for each (100)."`
	Duration    time.Duration `default:"30s" help:"How long a step lasts."`
	Ramp        time.Duration `default:"0s" help:"How long to climb to the rate before each step; not part of the figures."`
	Closed      bool          `help:"Send when answered, over all connections at once, for the duration. Shows the highest rate; its latencies hide stalls."`
	Connections int           `default:"64" help:"Connections to all targets together."`
	Timeout     time.Duration `default:"10s" help:"For one operation, connecting and logging in included."`

	Key         []string `sep:"none" placeholder:"NAME" help:"Zone key that exists. May be repeated."`
	CreateKeys  int      `placeholder:"N" help:"Use the zone keys edekload-1 to edekload-N, and make those that do not exist. They stay."`
	DeleteKeys  bool     `help:"Delete the zone keys that this run made, at its end."`
	EDEKs       string   `name:"edeks" type:"existingfile" placeholder:"FILE" help:"Encrypted keys to decrypt, JSON lines of key, version, iv, material."`
	EDEKsPerKey int      `name:"edeks-per-key" default:"100" help:"Different encrypted keys for each zone key of which the file has none."`
	Skew        float64  `default:"1.1" help:"Exponent of Zipf's law for the choice of zone keys; 0: all alike."`

	CAFile   string `name:"ca-file" type:"existingfile" placeholder:"FILE" help:"PEM file with the authorities to trust, instead of the system's."`
	Insecure bool   `help:"Do not check servers' certificates."`

	identityFlags `embed:""`

	SLO     []string `name:"slo" sep:"none" placeholder:"SLO" help:"What has to be met, as decrypt.p99<2ms, errors<0.1%, rate>5k, cpu<20us. May be repeated."`
	JSON    string   `name:"json" placeholder:"FILE" help:"Write the result there, for edekload plan and for other programs."`
	HTML    string   `name:"html" placeholder:"FILE" help:"Write a page with plots there."`
	PID     []int    `name:"pid" placeholder:"PID" help:"Process of a server on this machine, for its processor time."`
	Metrics []string `sep:"none" placeholder:"URL" help:"Prometheus page of a server, for its processor time (/metrics of the targets, where they show it)."`
}

type nameNodeCmd struct {
	loadFlags `embed:""`
	RollEvery *time.Duration `placeholder:"DURATION" help:"Roll a zone key and tell all servers, so often; 0s: never (10s for zone keys of --create-keys, never for others)."`
}

type clientsCmd struct {
	loadFlags `embed:""`
}

type mixedCmd struct {
	loadFlags `embed:""`
}

type reencryptCmd struct {
	loadFlags `embed:""`
	Batch     int `default:"1000" help:"Encrypted keys in a batch."`
}

type loginStormCmd struct {
	loadFlags `embed:""`
}

func (c *nameNodeCmd) Run(ctx context.Context, s streams) error {
	return c.run(ctx, s, loadtest.NameNode, func(o *loadtest.Options) {
		switch {
		case c.RollEvery != nil:
			o.RollEvery = *c.RollEvery
		case len(c.Key) == 0 && c.EDEKs == "":
			o.RollEvery = 10 * time.Second
		}
	})
}

func (c *clientsCmd) Run(ctx context.Context, s streams) error {
	return c.run(ctx, s, loadtest.Clients, nil)
}

func (c *mixedCmd) Run(ctx context.Context, s streams) error {
	return c.run(ctx, s, loadtest.Mixed, nil)
}

func (c *reencryptCmd) Run(ctx context.Context, s streams) error {
	return c.run(ctx, s, loadtest.Reencrypt, func(o *loadtest.Options) { o.Batch = c.Batch })
}

func (c *loginStormCmd) Run(ctx context.Context, s streams) error {
	return c.run(ctx, s, loadtest.LoginStorm, nil)
}

// run does the load and reports it.
func (f *loadFlags) run(ctx context.Context, s streams, profile loadtest.Profile, change func(*loadtest.Options)) error {
	o := &loadtest.Options{
		Version: version, Profile: profile, Rates: f.Rate, Hold: f.Duration, Ramp: f.Ramp, Closed: f.Closed,
		Connections: f.Connections, Timeout: f.Timeout, Keys: f.Key, CreateKeys: f.CreateKeys, DeleteKeys: f.DeleteKeys,
		EDEKsPerKey: f.EDEKsPerKey, Skew: f.Skew, Batch: 1,
	}
	if len(o.Rates) == 0 && !o.Closed {
		o.Rates = []float64{defaultRate}
	}
	if change != nil {
		change(o)
	}
	slos, err := f.slos(profile)
	if err != nil {
		return err
	}
	if err := f.aim(ctx, o); err != nil {
		return err
	}
	if f.EDEKs != "" {
		if o.EDEKs, err = edekfile.Read(f.EDEKs); err != nil {
			return usage(err, "lines like {\"key\":\"zone1\",\"version\":\"zone1@0\",\"iv\":\"...\",\"material\":\"...\"}")
		}
	}
	for _, path := range []string{f.JSON, f.HTML} {
		if err := writable(path); err != nil {
			return usage(err, "a file that can be written")
		}
	}
	done, err := f.identify(ctx, o)
	if err != nil {
		return err
	}
	if err := o.Check(); err != nil {
		return errors.Join(usage(err, fmt.Sprintf("edekload %s --help", profile)), done())
	}
	progress := newProgress(s.err)
	o.Progress = progress.show
	res, err := loadtest.Run(ctx, o)
	progress.finish()
	if err == nil {
		err = f.report(s.out, res, slos)
	}
	return errors.Join(err, done())
}

// slos reads the objectives, which must be of operations that the profile has.
func (f *loadFlags) slos(profile loadtest.Profile) (all []*slo.SLO, err error) {
	for _, text := range f.SLO {
		s, err := slo.Parse(text)
		if err != nil {
			return nil, usage(err, "--slo 'decrypt.p99<2ms'")
		}
		ops := profile.Operations()
		if op, known := result.ParseOp(s.Operation()); known && !slices.Contains(ops, op) {
			return nil, usagef(fmt.Sprint("one of ", ops), "SLO %s: the profile %s has no operation %s", s, profile, op)
		}
		all = append(all, s)
	}
	return all, nil
}

// aim reads targets and what belongs to them, and refuses those on other machines
// unless they are said to be one's own.
func (f *loadFlags) aim(ctx context.Context, o *loadtest.Options) error {
	hosts := []string{}
	for _, text := range f.Target {
		all, err := target.Parse(text)
		if err != nil {
			return usage(err, "kms://http@localhost:9600/kms")
		}
		for _, t := range all {
			hosts = append(hosts, t.Host)
		}
		o.Targets = append(o.Targets, all...)
	}
	secured := slices.ContainsFunc(o.Targets, func(t target.Target) bool { return t.TLS })
	if (f.Insecure || f.CAFile != "") && !secured {
		return usagef("https in the target, or neither --ca-file nor --insecure", "no target uses TLS")
	}
	var err error
	if o.TLS, err = f.tls(); err != nil {
		return err
	}
	for _, text := range f.Metrics {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
			return usagef("--metrics http://localhost:9601/metrics", "%q is no URL of a metrics page", text)
		}
		hosts = append(hosts, u.Hostname())
		o.Meters = append(o.Meters, cpu.NewMetrics(text, o.TLS))
	}
	for _, pid := range f.PID {
		o.Meters = append(o.Meters, cpu.Process(pid))
	}
	if !f.Mine {
		for _, host := range hosts {
			near, err := target.Loopback(ctx, host)
			if err != nil {
				return fmt.Errorf("look up %s: %w", host, err)
			}
			if !near {
				return usagef("--yes-this-is-mine, if you may put load on it", "%s is not on this machine", host)
			}
		}
	}
	if len(o.Meters) == 0 {
		o.Meters = ownPages(ctx, o)
	}
	return nil
}

// ownPages returns meters of the targets' own metrics pages, if all of them show
// theirs.
func ownPages(ctx context.Context, o *loadtest.Options) (all []cpu.Meter) {
	for _, t := range o.Targets {
		page := t
		page.Path = "/metrics"
		m := cpu.NewMetrics(page.String(), o.TLS)
		if _, err := m.Read(ctx); err != nil {
			return nil
		}
		all = append(all, m)
	}
	return all
}

func (f *loadFlags) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, InsecureSkipVerify: f.Insecure}
	if f.CAFile == "" {
		return config, nil
	}
	text, err := os.ReadFile(f.CAFile)
	if err != nil {
		return nil, usage(err, "--ca-file FILE")
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(text) {
		return nil, usagef("a PEM file", "%s holds no certificate", f.CAFile)
	}
	return config, nil
}

// writable says before the load whether its result can be written.
func writable(path string) error {
	if path == "" {
		return nil
	}
	_, err := os.Stat(path)
	absent := errors.Is(err, fs.ErrNotExist)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if absent {
		err = os.Remove(path)
	}
	return errors.Join(err, file.Close())
}

var (
	errMissed      = errors.New("an SLO was missed")
	errInterrupted = errors.New("interrupted")
	errNothing     = errors.New("nothing was answered as it should have been")
)

// report judges the result and writes it to all places.
func (f *loadFlags) report(out io.Writer, res *result.Result, slos []*slo.SLO) error {
	var failures []error
	answered := false
	for _, s := range res.Steps {
		for _, o := range s.Operations {
			answered = answered || o.Answered > 0
		}
	}
	if !answered {
		failures = append(failures, errNothing)
	}
	met := true
	for _, s := range slos {
		v := s.Judge(res)
		res.SLOs = append(res.SLOs, v)
		met = met && v.Met
	}
	if !met {
		failures = append(failures, errMissed)
	}
	if res.Interrupted {
		failures = append(failures, errInterrupted)
	}
	if err := report.Text(out, res); err != nil {
		return err
	}
	failures = append(failures, save(f.JSON, res.WriteJSON),
		save(f.HTML, func(w io.Writer) error { return report.HTML(w, res) }))
	return errors.Join(failures...)
}

func save(path string, write func(io.Writer) error) error {
	if path == "" {
		return nil
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}
