package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/edekd/edekd/hadoop/conf"
	"github.com/edekd/edekd/internal/config"
	"github.com/edekd/edekd/internal/watch"
)

// settings are core-site.xml and kms-site.xml, as far as they can change while edekd
// serves: names of users, proxy users, groups.
type settings struct {
	started *config.Config // what the process was started with
	log     *slog.Logger
	rules   *rules
	callers *callers

	mu         sync.Mutex
	now        *config.Config // what was last read
	realm      string         // that the name rules start from
	groupFiles watch.Set      // passwords and truststores for groups
	regroup    bool           // the source of groups changed and is not yet in force
	waiting    []string       // properties that wait for a restart
}

func newSettings(c *config.Config, log *slog.Logger, r *rules, k *callers) *settings {
	s := &settings{started: c, now: c, log: log, rules: r, callers: k}
	if k.acceptor != nil {
		s.realm = k.acceptor.DefaultRealm()
	}
	s.regroup = s.groupFiles.Add(r.groups.Load().Files(), processStart)
	return s
}

var (
	// groupSettings and liveSettings begin the names of the properties that are
	// put in force while edekd serves.
	groupSettings = []string{"hadoop.security.group", "hadoop.user.group"}
	liveSettings  = append([]string{"hadoop.kms.proxyuser.", nameRulesProperty}, groupSettings...)
	// otherSettings begin the names of what edekd reads besides. A core-site.xml
	// is full of what concerns others.
	otherSettings = []string{"edekd.", "hadoop.kms.", "hadoop.http.", "hadoop.security.", "hadoop.ssl."}
)

// files are those of the properties, and those that the groups are found with.
func (s *settings) files() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(slices.Clone(s.now.Site.Files()), s.rules.groups.Load().Files()...)
}

// lasting are the files without which all that can change would be Hadoop's
// defaults.
func (s *settings) lasting() []string {
	return []string{filepath.Join(s.started.Dir, "core-site.xml"), filepath.Join(s.started.Dir, "kms-site.xml")}
}

// reload puts what can change in force, all of it or, on error, nothing, and
// says what has to wait for a restart.
func (s *settings) reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	began := time.Now()
	c, err := config.LoadSite(s.started.Dir, os.LookupEnv)
	if err != nil {
		return err
	}
	g := s.rules.groups.Load()
	s.regroup = s.groupFiles.Changed(g.Files()) || s.regroup
	regrouping := slices.DeleteFunc(changes(s.now.Site, c.Site), func(name string) bool { return !beginsOneOf(groupSettings)(name) })
	if s.regroup || len(regrouping) > 0 {
		if g, err = newGroups(c, s.log); err != nil {
			return err
		}
		if !slices.ContainsFunc(regrouping, isSource) {
			g.Adopt(s.rules.groups.Load())
		}
	}
	if err := s.callers.reload(c, g); err != nil {
		return err
	}
	if g != s.rules.groups.Load() {
		logWarnings(s.log, g.Warnings())
		s.rules.setGroups(g)
		s.regroup = s.groupFiles.Add(g.Files(), began)
	}
	s.warn(c)
	s.now = c
	return nil
}

// warn logs what had better be changed in c, and what waits for a restart, but
// for what was logged before.
func (s *settings) warn(c *config.Config) {
	for _, w := range c.Warnings {
		if !slices.Contains(s.now.Warnings, w) {
			logProblem(s.log, w)
		}
	}
	waiting := slices.DeleteFunc(changes(s.started.Site, c.Site), func(name string) bool {
		return beginsOneOf(liveSettings)(name) || !beginsOneOf(otherSettings)(name)
	})
	if len(waiting) > 0 && !slices.Equal(waiting, s.waiting) {
		s.log.Warn("changed settings need a restart", "properties", strings.Join(waiting, " "))
	}
	s.waiting = waiting
}

// reloadKeytab reads keytab and krb5.conf again, whose default realm the name
// rules start from.
func (s *settings) reloadKeytab() error {
	if err := s.callers.reloadKeytab(s.started); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	realm := s.callers.acceptor.DefaultRealm()
	if realm == s.realm {
		return nil
	}
	rules, err := newNames(s.now, realm)
	if err != nil {
		return err
	}
	s.callers.SetNames(rules)
	s.realm = realm
	return nil
}

// isSource tells whether a property of groups says in what they are looked up, so
// that what another value brought says nothing any more. How the same source is
// reached, and how long it is believed, is no such thing: a mistyped password
// must not make known users unknown.
func isSource(name string) bool {
	way := []string{".bind.user", ".bind.password", ".ssl", ".timeout", ".attempts", ".static.mapping", ".cache"}
	return !slices.ContainsFunc(way, func(part string) bool { return strings.Contains(name, part) })
}

func beginsOneOf(prefixes []string) func(name string) bool {
	return func(name string) bool {
		return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
	}
}

// changes returns the names of the properties whose values differ, sorted.
func changes(before, after *conf.Configuration) (names []string) {
	for _, p := range after.WithPrefix("") {
		was, known, wasErr := before.Get(p.Name)
		if is, _, err := after.Get(p.Name); !known || was != is || (err == nil) != (wasErr == nil) {
			names = append(names, p.Name)
		}
	}
	for _, p := range before.WithPrefix("") {
		if _, ok := after.Lookup(p.Name); !ok {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return names
}
