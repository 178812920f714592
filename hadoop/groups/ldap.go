package groups

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/edekd/edekd/hadoop/conf"
)

// directory finds groups in an LDAP directory as LdapGroupsMapping does: one
// search for the user's entry, one for the groups that have it as a member, and
// one for each further level of groups in groups. See ldapsession.go for what
// happens when a server fails.
//
// Where Java answers "no groups" after a failure, this one fails: when no
// server answers, the base does not exist, the user's entry or a group lacks an
// attribute that is needed, or the answer was cut short. Names, also those of
// groups that are looked up further, go into filters escaped.
type directory struct {
	servers []server
	binders []binder

	userBase, groupBase     string
	userFilter, groupFilter string
	pattern                 []string // attributes for the numbers in groupFilter, nil for none
	memberOf                string   // attribute of users that names their groups, empty for none
	member                  string   // attribute of groups that names their members
	groupName               string   // attribute that is a group's name
	uid, gid                string   // attributes of posix accounts and groups
	posix                   bool     // members are numbers or short names, not entries
	levels                  int      // of groups in groups
	convert                 func(string) string

	attempts       int
	beforeFailover int           // attempts at one server
	timeout        time.Duration // of a look-up, everything included
	connectTimeout time.Duration // until a session is ready
	readTimeout    time.Duration // of an answer
	searchTimeout  time.Duration // which the server is told; 0: none

	mu     sync.Mutex
	server int // index of the one in use
	binder int
	idle   []*session
}

// server is one that holds the directory.
type server struct {
	url     string
	address string
	tls     *tls.Config // nil: not encrypted
}

// binder is whom a session is opened as; without a name nobody.
type binder struct{ name, password string }

// ldapSettings reads the properties of one LDAP mapping: of the composite's
// part of that name, or where it does not say and without a part, everybody's.
type ldapSettings struct {
	c     *conf.Configuration
	part  string
	files *[]string // takes the files that are read
}

const mappingPrefix = "hadoop.security.group.mapping."

// name returns the name of the property that counts.
func (s ldapSettings) name(suffix string) string {
	if own := providerPrefix + s.part + ".ldap" + suffix; s.part != "" {
		if _, ok := s.c.Lookup(own); ok {
			return own
		}
	}
	return mappingPrefix + "ldap" + suffix
}

func (s ldapSettings) text(suffix, def string) (string, error) {
	return s.c.String(s.name(suffix), def)
}

func (s ldapSettings) wrong(suffix, format string, args ...any) error {
	return s.c.Wrong(s.name(suffix), fmt.Errorf(format, args...))
}

// milliseconds reads a time; what is not positive means no bound, as in Java,
// and is returned as 0.
func (s ldapSettings) milliseconds(suffix string, def int) (time.Duration, error) {
	n, err := s.c.Int(s.name(suffix), def)
	return time.Duration(max(n, 0)) * time.Millisecond, err
}

func (s ldapSettings) positive(suffix string, def int) (int, error) {
	n, err := s.c.Int(s.name(suffix), def)
	if err == nil && n < 1 {
		err = s.wrong(suffix, "is not positive: 3 is the usual value")
	}
	return n, err
}

// newDirectory reads the properties of LdapGroupsMapping and, with rules, of
// RuleBasedLdapGroupsMapping.
func newDirectory(s ldapSettings, rules bool, timeout time.Duration) (*directory, []conf.Warning, error) {
	m := &directory{timeout: timeout, convert: func(name string) string { return name }}
	readers := []func(ldapSettings) error{m.readFilters, m.readAttributes, m.readTimes, m.readBinders}
	if rules {
		readers = append(readers, m.readRule)
	}
	for _, read := range readers {
		if err := read(s); err != nil {
			return nil, nil, err
		}
	}
	warnings, err := m.readServers(s)
	if err != nil {
		return nil, nil, err
	}
	const javaFactory = "com.sun.jndi.ldap.LdapCtxFactory"
	if factory, err := s.text(".ctx.factory.class", javaFactory); err != nil || factory != javaFactory {
		return nil, nil, s.wrong(".ctx.factory.class", "is a Java class, and edekd runs none: remove the property")
	}
	return m, warnings, nil
}

func (m *directory) readFilters(s ldapSettings) error {
	var base, pattern string
	for _, p := range []struct {
		to     *string
		suffix string
		def    func() string
	}{
		{&base, ".base", func() string { return "" }},
		{&m.userBase, ".userbase", func() string { return base }},
		{&m.groupBase, ".groupbase", func() string { return base }},
		{&m.userFilter, ".search.filter.user", func() string { return "(&(objectClass=user)(sAMAccountName={0}))" }},
		{&m.groupFilter, ".search.filter.group", func() string { return "(objectClass=group)" }},
		{&m.member, ".search.attr.member", func() string { return "member" }},
		{&pattern, ".group.search.filter.pattern", func() string { return "" }},
	} {
		var err error
		if *p.to, err = s.text(p.suffix, p.def()); err != nil {
			return err
		}
	}
	m.posix = strings.Contains(m.groupFilter, "posixGroup") && strings.Contains(m.userFilter, "posixAccount")
	if pattern != "" {
		for attribute := range strings.SplitSeq(pattern, ",") {
			m.pattern = append(m.pattern, strings.TrimSpace(attribute))
		}
	}
	m.userFilter, m.groupFilter = compact(m.userFilter), compact(m.groupFilter)
	if err := checkFilter(m.userFilter, 1); err != nil {
		return s.wrong(".search.filter.user", "%w: write it like (&(objectClass=user)(sAMAccountName={0}))", err)
	}
	if !strings.Contains(m.userFilter, "{0}") {
		return s.wrong(".search.filter.user", "does not have {0}, for which the user's name is put: it would find the same entry for everybody")
	}
	if err := checkFilter(m.groupFilter, max(2, len(m.pattern))); err != nil {
		return s.wrong(".search.filter.group", "%w: write it like (objectClass=group)", err)
	}
	if err := checkFilter("("+m.member+"={0})", 1); err != nil {
		return s.wrong(".search.attr.member", "is not the name of an attribute: member is the usual value")
	}
	return nil
}

func (m *directory) readAttributes(s ldapSettings) (err error) {
	for _, p := range []struct {
		to          *string
		suffix, def string
	}{
		{&m.memberOf, ".search.attr.memberof", ""},
		{&m.groupName, ".search.attr.group.name", "cn"},
		{&m.uid, ".posix.attr.uid.name", "uidNumber"},
		{&m.gid, ".posix.attr.gid.name", "gidNumber"},
	} {
		if *p.to, err = s.text(p.suffix, p.def); err != nil {
			return err
		}
		if *p.to != "" && checkFilter("("+*p.to+"={0})", 1) != nil {
			return s.wrong(p.suffix, "is not the name of an attribute")
		}
	}
	if m.levels, err = s.c.Int(s.name(".search.group.hierarchy.levels"), 0); err != nil {
		return err
	}
	return nil
}

func (m *directory) readTimes(s ldapSettings) (err error) {
	if m.connectTimeout, err = s.milliseconds(".connection.timeout.ms", 60_000); err != nil {
		return err
	}
	if m.readTimeout, err = s.milliseconds(".read.timeout.ms", 60_000); err != nil {
		return err
	}
	if m.searchTimeout, err = s.milliseconds(".directory.search.timeout", 10_000); err != nil {
		return err
	}
	if m.attempts, err = s.positive(".num.attempts", 3); err != nil {
		return err
	}
	m.beforeFailover, err = s.positive(".num.attempts.before.failover", 3)
	return err
}

func (m *directory) readRule(s ldapSettings) error {
	rule, err := s.text(".conversion.rule", "none")
	if err != nil {
		return err
	}
	switch strings.ToLower(rule) {
	case "to_upper":
		m.convert = strings.ToUpper
	case "to_lower":
		m.convert = strings.ToLower
	case "none":
	default:
		return s.wrong(".conversion.rule", "is none of to_upper, to_lower and none")
	}
	return nil
}

// readBinders reads whom to bind as: one user, or several of whom the next is
// tried when the directory does not accept one.
func (m *directory) readBinders(s ldapSettings) error {
	aliases, err := s.c.Strings(s.name(".bind.users"))
	if err != nil {
		return err
	}
	prefixes := []string{""}
	if len(aliases) > 0 {
		prefixes = nil
		for _, alias := range aliases {
			prefixes = append(prefixes, ".bind.users."+alias)
		}
	}
	for _, prefix := range prefixes {
		b := binder{}
		if b.name, err = s.text(prefix+".bind.user", ""); err != nil {
			return err
		}
		if b.password, err = s.password(prefix+".bind.password", prefix+".bind.password.alias"); err != nil {
			return err
		}
		// A directory takes a name without a password for nobody (RFC 4513
		// section 5.1.2), which is not what its owner wanted.
		if b.name == "" && (prefix != "" || b.password != "") {
			return s.wrong(prefix+".bind.user", "is missing: set the name that the password belongs to")
		}
		if b.name != "" && b.password == "" {
			return s.wrong(prefix+".bind.user", "has no password: put it into a file of mode 0600 and name that in %s", s.name(prefix+".bind.password.file"))
		}
		m.binders = append(m.binders, b)
	}
	return nil
}

// readServers reads where the directory is. The warnings are about what anybody
// on the way could read or forge.
func (m *directory) readServers(s ldapSettings) ([]conf.Warning, error) {
	list, err := s.c.Strings(s.name(".url"))
	if err != nil {
		return nil, err
	}
	ssl, err := s.c.Bool(s.name(".ssl"), false)
	if err != nil {
		return nil, err
	}
	trust, err := s.tlsConfig()
	if err != nil {
		return nil, err
	}
	var warnings []conf.Warning
	for _, text := range strings.Fields(strings.Join(list, " ")) {
		one, err := parseServer(text, ssl, trust)
		if err != nil {
			return nil, s.wrong(".url", "%w", err)
		}
		m.servers = append(m.servers, one)
		host, _, _ := net.SplitHostPort(one.address)
		if ip := net.ParseIP(host); one.tls == nil && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			p, _ := s.c.Lookup(s.name(".url"))
			warnings = append(warnings, conf.Warning{Source: p.Source, Name: p.Name,
				Text: fmt.Sprintf("%s is not encrypted, so the network decides who has which groups and sees the bind password: use ldaps://", text)})
		}
	}
	if len(m.servers) == 0 {
		return nil, s.wrong(".url", "names no server: write ldaps://host, or several divided by commas")
	}
	return warnings, nil
}

// parseServer reads ldap://host:port or ldaps://host:port. Errors do not repeat
// the text, which may hold a password.
func parseServer(text string, ssl bool, trust *tls.Config) (server, error) {
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" {
		return server{}, errors.New("has what is no URL: write ldap://host or ldaps://host")
	}
	scheme := strings.ToLower(u.Scheme)
	if scheme != "ldap" && scheme != "ldaps" {
		return server{}, errors.New("has a URL of another kind: only ldap:// and ldaps:// are served")
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return server{}, fmt.Errorf("has a URL with too much: leave out what is not scheme, host and port, and name the base in %sldap.base", mappingPrefix)
	}
	host, port := u.Hostname(), u.Port()
	if host == "" {
		host = "localhost"
	}
	one := server{url: text}
	if scheme == "ldaps" || ssl {
		one.tls = trust.Clone()
		one.tls.ServerName = host
	}
	switch {
	case port != "":
	case one.tls != nil:
		port = "636"
	default:
		port = "389"
	}
	one.address = net.JoinHostPort(host, port)
	return one, nil
}
