package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/edekd/edekd/cache"
	"github.com/edekd/edekd/internal/config"
	"github.com/edekd/edekd/internal/daemon"
	"github.com/edekd/edekd/internal/logfile"
	"github.com/edekd/edekd/keys"
	"github.com/edekd/edekd/keystore/sqlite"
	"github.com/edekd/edekd/proxy"
	"github.com/edekd/edekd/proxy/audit"
	"github.com/edekd/edekd/proxy/authn"
	"github.com/edekd/edekd/proxy/authn/token"
	"github.com/edekd/edekd/proxy/authz"
	"github.com/edekd/edekd/proxy/jmx"
)

// auditClose bounds how long the last audit lines may take to reach the disk.
const auditClose = time.Second

// collectAt is how much garbage there may be, in percent of what is in use, before
// it is collected: half of Go's default. Requests leave hardly any, so collecting
// costs nothing, and what was once used goes back to the system within minutes.
const collectAt = 50

// errStopped ends a start that a signal broke off.
var errStopped = errors.New("stopped while starting")

// serve makes ready what a server stands on, serves, and says in the log how it
// ended.
func serve(ctx context.Context, c *config.Config, errOut io.Writer) (err error) {
	if err := daemon.Harden(); err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectAt)
	}
	for _, f := range folders(c) {
		if err := os.MkdirAll(f.path, 0o700); err != nil {
			return f.problem(c, err)
		}
	}
	logs, err := openLogs(c, errOut)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, logs.close()) }()
	slog.SetDefault(logs.main) // what libraries have to say goes there, too
	for _, w := range c.Warnings {
		logProblem(logs.main, w)
	}
	err = serveKeys(ctx, c, logs)
	if errors.Is(err, errStopped) {
		logs.main.Info("edekd was stopped before it served")
		return nil
	}
	if err != nil {
		logs.file.Error("edekd has ended", "error", err)
		return err
	}
	logs.main.Info("edekd has stopped")
	return nil
}

// serveKeys builds the server from the floor up and runs it. What it opened is
// closed in an order that also suits a request that outlived the time to stop:
// the store first, which completes the changes begun, then the audit log, which
// tells of them. The cache stays as it is: it has nothing to lose, and the
// request may still use it.
func serveKeys(ctx context.Context, c *config.Config, logs *logs) (err error) {
	access, err := newRules(c, logs.main)
	if err != nil {
		return err
	}
	signals := daemon.Catch()
	opening, opened := signals.Opening(ctx)
	auth, err := newCallers(opening, c, access, logs.main)
	if opened() && err != nil {
		return errStopped
	}
	if err != nil {
		return err
	}
	defer auth.close()
	auditLog := logs.newAudit(c)
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), auditClose)
		defer cancel()
		err = errors.Join(err, auditLog.Close(ctx))
	}()
	opening, opened = signals.Opening(ctx)
	provider, err := openProvider(opening, c, logs.main)
	if opened() && err != nil {
		return errStopped
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, provider.Close()) }()
	greet(ctx, provider)
	set := metrics.NewSet()
	cached, err := cache.New(provider, cache.Config{Enabled: c.Cache.Enabled, Idle: c.Cache.Timeout,
		CurrentAge: c.Cache.CurrentTimeout, Suite: c.Keys.Suite, Metrics: set, Far: farConfig(c, logs.main, auditLog)})
	if err != nil {
		return err
	}
	defer cached.Quiet()
	names, counted, err := countKeys(ctx, provider)
	if err != nil {
		return err
	}
	warm(ctx, cached, logs.main)
	registerAudit(set, auditLog)
	registerLogs(set, logs)
	registerNodes(set, provider)
	auth.register(set)
	registerMemory(set, auth, access, auditLog)
	beans := jmx.New(c.MetricsProcess)
	pc := proxyConfig(c, cached, auth, access, auditLog, beans, set, logs)
	pc.Remarks = func() []string { return append(auth.remarks(), nodeRemarks(provider)...) }
	server := proxy.New(pc)

	listener, address, certificate, err := listen(c, auth.peers, logs.main)
	if err != nil {
		return err
	}
	again := &reloader{log: logs.main}
	again.add(&part{name: "log files", load: logs.reopen})
	live := newSettings(c, logs.main, access, auth)
	again.add(&part{name: "core-site.xml and kms-site.xml", files: live.files, lasting: live.lasting, load: live.reload})
	again.add(&part{name: "groups of users", load: access.refreshGroups})
	again.add(&part{name: "kms-acls.xml", files: access.files, lasting: access.lasting, load: access.reload})
	if c.Auth.SecretFile != "" {
		again.add(&part{name: "signing secret", files: func() []string { return []string{c.Auth.SecretFile} }, load: auth.Reload})
	}
	if certificate != nil {
		certificate.register(set)
		again.add(&part{name: "TLS stores", files: certificate.files, lasting: certificate.configuration, load: certificate.reload})
	}
	if auth.acceptor != nil {
		again.add(&part{name: "keytab and krb5.conf", files: auth.keytabFiles, load: live.reloadKeytab})
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	again.watch(ctx)
	beans.AddHTTPServer(strconv.Itoa(listener.Addr().(*net.TCPAddr).Port), server.HTTPStats)
	side, err := listenMetrics(c, logs.main)
	if err != nil {
		return err
	}
	socket, err := listenUnix(c, auth.Authenticator, logs.main)
	if err != nil {
		return err
	}
	if socket != nil {
		defer socket.Close() // what breaks down leaves no file, either
	}
	profiles, err := listenProfile(c, logs.main)
	if err != nil {
		return err
	}
	if profiles != nil {
		defer profiles.Close() // not before: how requests end may be what somebody looks into
	}
	return daemon.Run(signals, daemon.Service{
		Serve: func() error {
			if socket != nil {
				logs.main.Info("a socket is served", "path", c.HTTP.UnixSocket, "users", len(c.HTTP.UnixSocketUsers))
				go func() {
					if err := server.ServeUnix(socket); err != nil {
						logs.main.Error("the socket is not served any more", "error", err)
					}
				}()
			}
			if side != nil {
				logs.main.Info("metrics are served", "address", "http://"+side.Addr().String()+"/metrics")
				go func() {
					if err := server.ServeMetrics(side); err != nil {
						logs.main.Error("metrics are not served any more", "error", err)
					}
				}()
			}
			if profiles != nil {
				logs.main.Info("profiles are served", "address", profiles.address())
				go func() {
					if err := profiles.serve(); err != nil {
						logs.main.Error("profiles are not served any more", "error", err)
					}
				}()
			}
			logs.main.Info("edekd is serving", "address", address, "keys", provider.String(), "count", counted,
				"version", version, "config", c.Dir, "audit", logs.auditPath())
			if w, ok := provider.(keys.Warner); ok {
				for _, warning := range w.Warnings() {
					logs.main.Warn(warning)
				}
			}
			if names == 0 {
				logs.main.Warn("there are no keys yet: right for a new store, otherwise stop and look at the path", "keys", provider.String())
			}
			return server.Serve(listener)
		},
		Reload:   again.all,
		Drain:    server.Drain,
		Shutdown: server.Shutdown,
		DrainFor: c.Drain,
		Log:      logs.main,
	})
}

const providerProperty = "hadoop.kms.key.provider.uri"

func openProvider(ctx context.Context, c *config.Config, log *slog.Logger) (keys.Provider, error) {
	behind, err := upstreamConfig(c, log)
	if err != nil {
		return nil, err
	}
	p, err := keys.Open(ctx, c.Keys.Providers, keys.Options{
		JCEKS:        keys.JCEKSOptions{PasswordFile: c.Keys.KeystorePasswordFile, ConfigDir: c.Dir},
		IdentityFile: c.Keys.IdentityFile, PassphraseFile: c.Keys.PassphraseFile,
		KMS: behind, Copies: c.Upstream.LocalDecrypts,
	})
	if err == nil {
		return p, nil
	}
	remedy := "mend what is named; an empty store in the place of this one would look like the loss of all keys"
	if errors.Is(err, sqlite.ErrInUse) || errors.Is(err, keys.ErrInUse) {
		remedy = "stop the other process that serves these keys"
	}
	return nil, c.Problem(providerProperty, "cannot open the keys: "+err.Error(), remedy)
}

func proxyConfig(c *config.Config, cached *cache.Cache, auth *callers, access *rules, auditLog *audit.Log,
	beans *jmx.Registry, set *metrics.Set, logs *logs) proxy.Config {
	pc := proxy.Config{
		Peers: auth.peers, Cache: cached, Authn: auth.Authenticator, Authz: access.Authorizer, Audit: auditLog, JMX: beans, Metrics: set, Log: logs.main,
		Limits: proxy.Limits{NumKeys: c.Limits.NumKeys, BatchEntries: c.Limits.BatchEntries,
			BatchBody: c.Limits.BatchBodyBytes, Body: c.Limits.BodyBytes, Header: c.HTTP.MaxHeaderBytes},
		IdleTimeout:      c.HTTP.IdleTimeout,
		DefaultCipher:    c.Keys.DefaultCipher,
		DefaultBitLength: c.Keys.DefaultBitLength,
		KeyAuthorization: c.Keys.Authorization,
		Open:             c.Auth.Whitelist,
		UpstreamUser:     c.Upstream.User,
	}
	if logs.access != nil {
		pc.AccessLog = logs.access
	}
	if !c.Auth.Kerberos {
		pc.Open = append(slices.Clone(pc.Open), "/metrics")
	}
	if c.HTTP.AdminsOnly {
		pc.Admins = authz.NewList(c.HTTP.Admins)
	}
	for _, h := range c.HTTP.Headers {
		pc.Headers = append(pc.Headers, [2]string{h.Name, h.Value})
	}
	return pc
}

// registerMemory shows what is remembered beside keys, in bytes, and its bounds.
func registerMemory(set *metrics.Set, auth *callers, access *rules, l *audit.Log) {
	f := func(name string, bytes func() (now, most int64)) {
		set.NewGauge(`edekd_cache_bytes{cache="`+name+`"}`, func() float64 { now, _ := bytes(); return float64(now) })
		set.NewGauge(`edekd_cache_limit_bytes{cache="`+name+`"}`, func() float64 { _, most := bytes(); return float64(most) })
	}
	f("cookies", func() (now, most int64) { return auth.CookieBytes(), authn.MemoBytes })
	f("proxied", func() (now, most int64) { return auth.ProxiedBytes(), authn.MemoBytes })
	f("answers", func() (now, most int64) { return access.MemoryBytes(), authz.MemoBytes })
	f("audit", l.CountedBytes)
	if auth.tokens != nil {
		f("tokens", func() (now, most int64) { return auth.tokens.MemoryBytes(), token.MemoBytes })
	}
}

func registerLogs(set *metrics.Set, l *logs) {
	set.NewGauge("edekd_log_roll_failing", func() float64 {
		for _, f := range l.files {
			if f.RollErr() != nil {
				return 1
			}
		}
		return 0
	})
}

func registerAudit(set *metrics.Set, l *audit.Log) {
	set.NewGauge("edekd_audit_lines_total", func() float64 { return float64(l.Lines()) })
	set.NewGauge("edekd_audit_lost_total", func() float64 { return float64(l.Lost()) })
	set.NewGauge("edekd_audit_pending_bytes", func() float64 { return float64(l.Pending()) })
	set.NewGauge("edekd_audit_stalled", func() float64 {
		if l.Stalled() {
			return 1
		}
		return 0
	})
}

// logs are the open log files.
type logs struct {
	main   *slog.Logger  // to standard error, and to kms.log if there is one
	file   *slog.Logger  // to kms.log only, for what standard error is told in other words
	audit  *logfile.File // nil: none
	json   *logfile.File // the audit log as JSON; nil: none
	access *logfile.File // nil: none
	files  []*logfile.File
}

func openLogs(c *config.Config, errOut io.Writer) (*logs, error) {
	l := &logs{}
	open := func(name string) (*logfile.File, error) {
		f, err := logfile.Open(filepath.Join(c.Logs.Dir, name), logfile.Options{Daily: true, MaxBytes: c.Logs.MaxBytes, Keep: c.Logs.Keep})
		if err != nil {
			return nil, c.Problem("edekd.log.dir", "cannot open a log file: "+errors.Join(err, l.close()).Error(),
				"give this user the log folder, or name another")
		}
		l.files = append(l.files, f)
		return f, nil
	}
	var err error
	if c.Audit.Text {
		if l.audit, err = open("kms-audit.log"); err != nil {
			return nil, err
		}
	}
	if c.Audit.JSON {
		if l.json, err = open("kms-audit.json"); err != nil {
			return nil, err
		}
	}
	out, file := errOut, io.Discard
	if c.Logs.ToFile {
		f, err := open("kms.log")
		if err != nil {
			return nil, err
		}
		out, file = tee{errOut, f}, f
	}
	if c.Logs.Access {
		if l.access, err = open("kms-access.log"); err != nil {
			return nil, err
		}
	}
	l.main, l.file = slog.New(slog.NewTextHandler(out, nil)), slog.New(slog.NewTextHandler(file, nil))
	return l, nil
}

// newAudit makes the audit log over its files.
func (l *logs) newAudit(c *config.Config) *audit.Log {
	options := audit.Options{Window: c.Audit.Window}
	if l.json != nil {
		options.JSON = l.json
		options.Server, _ = os.Hostname() // without a name the log is as good
	}
	if l.audit == nil {
		return audit.New(nil, options)
	}
	return audit.New(l.audit, options)
}

// auditPath names the file of the audit log, the text where there are two.
func (l *logs) auditPath() string {
	if l.audit == nil {
		return l.json.Path()
	}
	return l.audit.Path()
}

// tee writes to both, whatever becomes of the other: a full disk must not
// silence standard error.
type tee struct{ a, b io.Writer }

func (t tee) Write(p []byte) (int, error) {
	_, errA := t.a.Write(p)
	_, errB := t.b.Write(p)
	return len(p), errors.Join(errA, errB)
}

func (l *logs) reopen() error {
	var errs []error
	for _, f := range l.files {
		errs = append(errs, f.Reopen())
	}
	return errors.Join(errs...)
}

func (l *logs) close() error {
	var errs []error
	for _, f := range l.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// warmTime is how long a start may take for having keys at hand.
const warmTime = 150 * time.Millisecond

// warm has the cache look at the keys. What is wrong with the store shows when
// they are asked for.
func warm(ctx context.Context, cached *cache.Cache, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, warmTime)
	defer cancel()
	begun := time.Now()
	n, err := cached.Warm(ctx)
	if err != nil {
		log.Warn("the keys could not be looked at before the first requests", "error", err)
	}
	log.Debug("keys are at hand", "keys", n, "took", time.Since(begun))
}
