package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/edekd/edekd/hadoop/conf"
	"github.com/edekd/edekd/hadoop/groups"
	"github.com/edekd/edekd/hadoop/names"
	"github.com/edekd/edekd/hadoop/proxyusers"
	"github.com/edekd/edekd/internal/config"
	"github.com/edekd/edekd/internal/krb5conf"
	"github.com/edekd/edekd/internal/quietly"
	"github.com/edekd/edekd/proxy"
	"github.com/edekd/edekd/proxy/authn"
	"github.com/edekd/edekd/proxy/authn/cookie"
	"github.com/edekd/edekd/proxy/authn/secret"
	"github.com/edekd/edekd/proxy/authn/spnego"
	"github.com/edekd/edekd/proxy/authn/token"
	"github.com/edekd/edekd/proxy/authn/zookeeper"
	"github.com/edekd/edekd/proxy/peer"
)

// callers finds out who sends requests, and holds what that stands on.
type callers struct {
	*authn.Authenticator
	log      *slog.Logger
	peers    *peer.Peers
	policy   *proxyusers.Policy
	acceptor *spnego.Acceptor // nil: authentication is simple
	tokens   *token.Manager
	shared   *zookeeper.Client // nil: nothing is shared in ZooKeeper
}

// newCallers opens what is needed to authenticate. Close it.
func newCallers(ctx context.Context, c *config.Config, r *rules, log *slog.Logger) (*callers, error) {
	k := &callers{log: log}
	if err := k.open(ctx, c, r); err != nil {
		k.close()
		return nil, err
	}
	return k, nil
}

func (k *callers) open(ctx context.Context, c *config.Config, r *rules) (err error) {
	log := k.log
	if k.peers, err = newPeers(c, log); err != nil {
		return err
	}
	a := authn.Config{
		Validity:    c.Auth.TokenValidity,
		MaxInactive: c.Auth.MaxInactive,
		Cookie:      cookie.Attributes{Path: c.Auth.CookiePath, Domain: c.Auth.CookieDomain, Persistent: c.Auth.CookiePersistent},
		Users:       c.HTTP.UnixSocketUsers,
		Groups:      r.generation,
		Address:     k.peers.Addr,
		WriteError:  proxy.WriteError,
		Log:         log,
	}
	if c.Auth.Kerberos {
		if k.acceptor, err = newAcceptor(c); err != nil {
			return err
		}
		k.warnOfKeytab()
		warnOfRealm(c, k.acceptor, log)
		a.Negotiator = k.acceptor
		if a.Names, err = newNames(c, k.acceptor.DefaultRealm()); err != nil {
			return err
		}
	}
	policy, warnings, err := proxyusers.New(c.Site, r.groups.Load())
	if err != nil {
		return valueProblem(c, err)
	}
	logWarnings(log, warnings)
	k.policy, a.ProxyUsers = policy, policy
	if err := k.share(ctx, c); err != nil {
		return err
	}
	if a.Secrets, err = k.secrets(c); err != nil {
		return err
	}
	if k.tokens, err = k.newTokens(ctx, c); err != nil {
		return err
	}
	a.Tokens = k.tokens
	k.Authenticator, err = authn.New(a)
	return err
}

// probeCallers reads everything that says who may come in and what they may
// do, and whom edekd believes itself, tells log what had better be changed, and
// returns what cannot be used. It opens nothing that is shared.
func probeCallers(c *config.Config, log *slog.Logger) (errs []error) {
	check := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	_, err := (&rules{config: c, log: log}).read(c.ACLs)
	check(err)
	g, err := newGroups(c, log)
	check(err)
	if err == nil {
		logWarnings(log, g.Warnings())
		_, warnings, err := proxyusers.New(c.Site, g)
		check(valueProblem(c, err))
		logWarnings(log, warnings)
	}
	if c.Auth.Kerberos {
		var realm string // no rule is well or badly written because of it
		acceptor, err := newAcceptor(c)
		check(err)
		if err == nil {
			k := callers{log: log, acceptor: acceptor}
			k.warnOfKeytab()
			warnOfRealm(c, acceptor, log)
			realm = acceptor.DefaultRealm()
		}
		_, err = newNames(c, realm)
		check(err)
	}
	_, err = newPeers(c, log)
	check(err)
	shared, warnings, err := zookeeper.ReadConfig(c.Site)
	check(valueProblem(c, err))
	check(valueProblem(c, shared.CheckLogin(c.Site)))
	for _, w := range warnings {
		log.Warn("configuration", "what", w)
	}
	_, err = token.ReadConfig(c.Site)
	check(valueProblem(c, err))
	if c.TLS {
		_, err := newCertificate(c, log)
		check(err)
	}
	_, err = upstreamConfig(c, log)
	check(err)
	return errs
}

// problemsOf words an error of a part of the configuration.
func problemsOf(err error) config.Problems {
	if all, ok := errors.AsType[config.Problems](err); ok {
		return all
	}
	if one, ok := errors.AsType[config.Problem](err); ok {
		return config.Problems{one}
	}
	return config.Problems{{What: err.Error(), Remedy: "mend what is named"}}
}

func (k *callers) close() {
	if k.tokens != nil {
		k.tokens.Close()
	}
	if k.shared != nil {
		k.shared.Close()
	}
}

const (
	kerberosPrefix    = "hadoop.kms.authentication.kerberos."
	nameRulesProperty = kerberosPrefix + "name.rules"
)

func newAcceptor(c *config.Config) (*spnego.Acceptor, error) {
	a, err := spnego.New(spnego.Config{Keytab: c.Auth.Keytab, Principal: c.Auth.Principal})
	if err != nil {
		return nil, kerberosProblem(c, err)
	}
	return a, nil
}

// kerberosProblem words an error of package spnego. That of krb5.conf, which no
// property names, stands by itself.
func kerberosProblem(c *config.Config, err error) error {
	p := config.Problem{File: krb5conf.Path(), What: "Kerberos cannot be served: " + err.Error(), Remedy: "mend what is named, then try again"}
	if e, ok := errors.AsType[*spnego.ConfigError](err); ok {
		switch e.Field {
		case "Keytab":
			return c.Problem(kerberosPrefix+"keytab", p.What, p.Remedy)
		case "Principal":
			return c.Problem(kerberosPrefix+"principal", p.What, p.Remedy)
		}
	}
	return p
}

func newNames(c *config.Config, realm string) (*names.Rules, error) {
	rules, err := names.New(c.Auth.NameRules, c.Auth.RuleMechanism, realm)
	if syntax, ok := errors.AsType[*names.SyntaxError](err); ok {
		property := nameRulesProperty
		if syntax.Mechanism {
			property += ".mechanism"
		}
		return nil, c.Problem(property, syntax.Place()+syntax.What, syntax.Remedy)
	}
	return rules, err
}

func newPeers(c *config.Config, log *slog.Logger) (*peer.Peers, error) {
	peers, err := peer.Load(c.Site)
	if err != nil {
		return nil, valueProblem(c, err)
	}
	var quiet quietly.Minutely
	peers.OnRefused = func(proxy netip.Addr, err error) {
		if quiet.Due() {
			log.Warn("a connection of a listed proxy is refused", "proxy", proxy, "error", err,
				"remedy", "let the proxy send a PROXY header on each connection, or take it from edekd.proxies.trusted")
		}
	}
	return peers, nil
}

// valueProblem words an error that a part of the configuration gave for a value
// of c.Site, or for several, joined. Another error stays as it is.
func valueProblem(c *config.Config, err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		if value, ok := errors.AsType[*conf.ValueError](err); ok {
			return c.Problem(value.Property.Name, value.What(), "another value, see docs/configuration.md")
		}
		return err
	}
	var all config.Problems
	for _, err := range joined.Unwrap() {
		all = append(all, problemsOf(valueProblem(c, err))...)
	}
	return all
}

// logProblem logs a remark on what is in force all the same.
func logProblem(log *slog.Logger, w config.Problem) {
	log.Warn("configuration", "where", w.File, "property", w.Property, "what", w.What, "remedy", w.Remedy)
}

func logWarnings(log *slog.Logger, warnings []conf.Warning) {
	for _, w := range warnings {
		log.Warn("configuration", "where", w.Source.String(), "property", w.Name, "what", w.Text)
	}
}

// share connects to ZooKeeper where something is to be kept there.
func (k *callers) share(ctx context.Context, c *config.Config) error {
	cfg, warnings, err := zookeeper.ReadConfig(c.Site)
	if err != nil {
		return valueProblem(c, err)
	}
	for _, w := range warnings {
		k.log.Warn("configuration", "what", w)
	}
	if cfg.Secrets == nil && cfg.Tokens == nil {
		return nil
	}
	if err := cfg.CheckLogin(c.Site); err != nil {
		return valueProblem(c, err)
	}
	if cfg.Secrets != nil {
		cfg.Secrets.Validity = c.Auth.TokenValidity
	}
	if k.shared, err = zookeeper.Open(ctx, cfg, k.log); err != nil {
		property, remedy := zookeeper.TokensPrefix+"zkConnectionString", "mend what is named"
		if errors.Is(err, zookeeper.ErrAway) {
			remedy = "start ZooKeeper, or correct the connection string"
		}
		if cfg.Secrets != nil {
			property = zookeeper.SecretsPrefix + "connection.string"
		}
		return c.Problem(property, "ZooKeeper cannot be used: "+err.Error(), remedy)
	}
	return nil
}

// secrets are what signs cookies.
func (k *callers) secrets(c *config.Config) (*secret.Ring, error) {
	if k.shared != nil && k.shared.Secrets != nil {
		return k.shared.Secrets.Ring(), nil
	}
	if c.Auth.SecretFile == "" {
		return secret.NewRandom(c.Auth.TokenValidity, time.Now())
	}
	ring, err := secret.OpenFile(c.Auth.SecretFile)
	if err != nil {
		return nil, c.Problem("hadoop.kms.authentication.signature.secret.file", "no secret to sign cookies with: "+err.Error(),
			"a file that this user can read and that is not empty")
	}
	return ring, nil
}

func (k *callers) newTokens(ctx context.Context, c *config.Config) (*token.Manager, error) {
	cfg, err := token.ReadConfig(c.Site)
	if err != nil {
		return nil, valueProblem(c, err)
	}
	cfg.Log = k.log
	if k.shared != nil && k.shared.Tokens != nil {
		cfg.Store = k.shared.Tokens
	} else {
		cfg.Store = token.NewMemory()
	}
	return token.New(ctx, cfg)
}

// keytabFiles are what tickets are checked with.
func (k *callers) keytabFiles() []string { return k.acceptor.Files() }

func (k *callers) reloadKeytab(c *config.Config) error {
	if err := k.acceptor.Reload(); err != nil {
		return kerberosProblem(c, err)
	}
	k.warnOfKeytab()
	return nil
}

func (k *callers) warnOfKeytab() {
	for _, w := range k.acceptor.Warnings() {
		k.log.Warn("Kerberos", "what", w)
	}
}

// reload puts the rules of a configuration that was read again in force.
func (k *callers) reload(c *config.Config, g *groups.Cache) error {
	var rules authn.Names
	if k.acceptor != nil && c.Auth.Kerberos {
		r, err := newNames(c, k.acceptor.DefaultRealm())
		if err != nil {
			return err
		}
		rules = r
		warnOfRealm(c, k.acceptor, k.log)
	}
	policy, warnings, err := k.policy.Renew(c.Site, g, func(unfound []conf.Warning) { logWarnings(k.log, unfound) })
	if err != nil {
		return valueProblem(c, err)
	}
	logWarnings(k.log, warnings)
	if rules != nil {
		k.SetNames(rules)
	}
	k.policy = policy
	k.SetProxyUsers(policy)
	return nil
}

// remarks tell what of authentication does not work while what is shared in
// ZooKeeper cannot be reached.
func (k *callers) remarks() []string {
	if k.shared == nil {
		return nil
	}
	s := k.shared.Status()
	if s.Connected {
		return nil
	}
	away := fmt.Sprintf("ZooKeeper is out of reach for %v", time.Since(s.Since).Round(time.Second))
	if k.shared.Tokens != nil {
		return []string{away + ": delegation tokens are answered with 500, cookies and tickets count"}
	}
	return []string{away + ": cookies go on with the secrets known"}
}

// register shows how authentication fares.
func (k *callers) register(set *metrics.Set) {
	if k.acceptor != nil {
		for result, count := range map[string]func(spnego.Stats) float64{
			"accepted": func(s spnego.Stats) float64 { return float64(s.Accepted) },
			"refused":  func(s spnego.Stats) float64 { return float64(s.Refused) },
			"replay":   func(s spnego.Stats) float64 { return float64(s.Replays) },
			"full":     func(s spnego.Stats) float64 { return float64(s.Full) },
		} {
			set.NewGauge(`edekd_kerberos_tickets_total{result="`+result+`"}`, func() float64 { return count(k.acceptor.Stats()) })
		}
		set.NewGauge("edekd_kerberos_replays_remembered", func() float64 { return float64(k.acceptor.Stats().Remembered) })
	}
	if k.shared != nil {
		set.NewGauge("edekd_zookeeper_connected", func() float64 {
			if k.shared.Status().Connected {
				return 1
			}
			return 0
		})
		if secrets := k.shared.Secrets; secrets != nil {
			set.NewGauge("edekd_zookeeper_secrets_followed", func() float64 {
				if secrets.Status().Err == nil {
					return 1
				}
				return 0
			})
		}
	}
}
