package main

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"github.com/edekd/edekd/hadoop/conf"
	"github.com/edekd/edekd/hadoop/names"
	"github.com/edekd/edekd/internal/config"
	"github.com/edekd/edekd/proxy/authn/spnego"
)

// warnOfRealm warns of name rules with a DEFAULT for another realm than those
// that the server has keys for: its users would have tickets, but no names.
func warnOfRealm(c *config.Config, a *spnego.Acceptor, log *slog.Logger) {
	realm := a.DefaultRealm()
	rules, err := names.New(c.Auth.NameRules, c.Auth.RuleMechanism, realm)
	if err != nil || !rules.HasDefault() { // an error is told where the rules are put in force
		return
	}
	var realms []string
	for _, principal := range a.Principals() {
		realms = append(realms, principal[strings.LastIndexByte(principal, '@')+1:])
	}
	slices.Sort(realms)
	realms = slices.Compact(realms)
	if slices.Contains(realms, realm) {
		return
	}
	what := fmt.Sprintf("DEFAULT takes principals of %s only, the default_realm of krb5.conf, but the keytab has keys of %s only", realm, strings.Join(realms, ", "))
	if realm == "" {
		what = "DEFAULT takes nobody, because krb5.conf has no default_realm"
	}
	problem := config.Problem{File: filepath.Join(c.Dir, "kms-site.xml"), Property: nameRulesProperty, What: what,
		Remedy: "set default_realm in krb5.conf to the realm of the users, or write a rule for them"}
	if p, ok := c.Site.Lookup(nameRulesProperty); ok && p.Source.File != conf.Default {
		problem.File = p.Source.String()
	}
	logProblem(log, problem)
}
