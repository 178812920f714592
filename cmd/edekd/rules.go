package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/edekd/edekd/hadoop/conf"
	"github.com/edekd/edekd/hadoop/groups"
	"github.com/edekd/edekd/internal/config"
	"github.com/edekd/edekd/internal/quietly"
	"github.com/edekd/edekd/proxy/authz"
)

// rules are who may do what, which kms-acls.xml says, and to which groups the
// users belong.
type rules struct {
	*authz.Authorizer
	config *config.Config
	log    *slog.Logger
	groups atomic.Pointer[groups.Cache]

	mu     sync.Mutex // guards the rest, and what is set of the others
	acls   *conf.Configuration
	policy *authz.Policy
}

func newRules(c *config.Config, log *slog.Logger) (*rules, error) {
	r := &rules{config: c, log: log, acls: c.ACLs}
	var err error
	if r.policy, err = r.read(c.ACLs); err != nil {
		return nil, err
	}
	g, err := newGroups(c, log)
	if err != nil {
		return nil, err
	}
	logWarnings(log, g.Warnings())
	r.groups.Store(g)
	r.Authorizer = authz.New(r.policy, g)
	return r, nil
}

// generation changes when somebody's groups do.
func (r *rules) generation() uint64 { return r.groups.Load().Generation() }

// setGroups puts another source of groups in force.
func (r *rules) setGroups(g *groups.Cache) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.groups.Store(g)
	r.Set(r.policy, g)
}

// newGroups finds out where groups come from. The log is told when they cannot
// be looked up, which for known users nobody notices for a while.
func newGroups(c *config.Config, log *slog.Logger) (*groups.Cache, error) {
	g, err := groups.New(c.Site)
	if err != nil {
		if _, ok := errors.AsType[*conf.ValueError](err); ok {
			return nil, valueProblem(c, err)
		}
		return nil, c.Problem("hadoop.security.group.mapping", "no groups of users: "+err.Error(), "mend what is named")
	}
	var quiet quietly.Minutely
	g.OnFailure = func(err error) {
		if quiet.Due() {
			log.Warn("groups cannot be looked up; those known serve on for a while", "error", err)
		}
	}
	return g, nil
}

func (r *rules) read(acls *conf.Configuration) (*authz.Policy, error) {
	policy, warnings, err := authz.NewPolicy(acls)
	if problems, ok := errors.AsType[authz.Problems](err); ok {
		var all config.Problems
		for _, p := range problems {
			all = append(all, config.Problem(p))
		}
		return nil, all
	}
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		logProblem(r.log, config.Problem(w))
	}
	return policy, r.closed(policy)
}

// closed refuses rules that let everybody decrypt where no other KMS would keep
// anybody out: edekd decrypts by copies of keys, or hands out DEKs that it remembers
// to whomever its own rules let in.
func (r *rules) closed(policy *authz.Policy) error {
	u := &r.config.Upstream
	how, remedy := "local", "cache"
	switch {
	case u.LocalDecrypts:
	case u.CacheDecrypts && u.LocalAuthorization:
		how, remedy = "cache, with edekd.upstream.authorization local", "forward, or the other to upstream"
	default:
		return nil
	}
	open := policy.Everyone(authz.DecryptEEK, authz.KeyDecryptEEK, r.config.Keys.Authorization)
	if len(open) == 0 {
		return nil
	}
	return r.config.Problem("edekd.upstream.decrypt", how+", while kms-acls.xml lets everybody decrypt by "+strings.Join(open, ", "),
		"name there who may, or set this to "+remedy)
}

func (r *rules) files() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.acls.Files()
}

// refreshGroups makes all groups be looked up again. What is known serves on only
// while that fails.
func (r *rules) refreshGroups() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.groups.Load().Refresh()
	r.Set(r.policy, r.groups.Load())
	return nil
}

// lasting is the file without which everybody might call every operation.
func (r *rules) lasting() []string { return []string{filepath.Join(r.config.Dir, "kms-acls.xml")} }

// reload puts what kms-acls.xml says now in force.
func (r *rules) reload() error {
	acls, err := config.LoadACLs(r.config.Dir, os.LookupEnv)
	if err != nil {
		return err
	}
	policy, err := r.read(acls)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acls, r.policy = acls, policy
	r.Set(r.policy, r.groups.Load())
	return nil
}
