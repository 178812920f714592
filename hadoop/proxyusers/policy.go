// Package proxyusers decides who may act for whom, and from where, by the
// properties hadoop.kms.proxyuser.USER.users, .groups and .hosts.
//
// The rules are those of org.apache.hadoop.security.authorize.DefaultImpersonationProvider
// of Hadoop 3.4, as its KMS uses it. They are stricter or more helpful in these
// points: a user's groups that cannot be found out are an error and not a denial;
// IPv6 networks are understood, and a client with an IPv6 address is compared with
// IPv4 networks instead of failing; all addresses of a host name count, not only
// the first.
//
// # Host names
//
// New looks the names up, all at once and for 5 s at most, and warns of those it
// does not find. Later nobody waits for a name. Renew goes on with the addresses
// known, so that a name that was not there before counts a moment later. The first question that comes a
// minute or more after the last look-up starts another in the background and is
// itself decided by the addresses known. A name that is gone then has no addresses
// any more; if it could not be looked up, those last known stay.
package proxyusers

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/edekd/edekd/hadoop/conf"
	"github.com/edekd/edekd/hadoop/groups"
)

const prefix = "hadoop.kms.proxyuser."

// Groups finds the groups of the users for whom others act; *groups.Cache does.
type Groups interface {
	// Lookup returns a user's groups. An error means that they could not be found
	// out, and names the user.
	Lookup(user string) (groups.Membership, error)
}

// Policy is the proxy users in force. Any number of goroutines may use it. Make
// it with New. It holds no resources that need closing.
type Policy struct {
	groups Groups
	grants map[string]*grant // by the short name of the user who acts for others
	hosts  *hosts
}

// grant is what one user may do.
type grant struct {
	allowed   bool // .users or .groups is set
	everybody bool // one of them is *
	users     []string
	groups    []string

	anywhere bool // .hosts is *
	addrs    []netip.Addr
	networks []netip.Prefix
	names    []string
}

// DeniedError is a denial, worded as Hadoop's AuthorizationException, which the
// client gets with status 403.
type DeniedError struct{ Text string }

func (e *DeniedError) Error() string { return e.Text }

// New reads the proxy users in c. The warnings are of settings that do nothing.
// An error is of type *conf.ValueError and names the remedy.
func New(c *conf.Configuration, groups Groups) (*Policy, []conf.Warning, error) {
	return newPolicy(c, groups, net.DefaultResolver.LookupNetIP)
}

func newPolicy(c *conf.Configuration, groups Groups, lookup lookup) (*Policy, []conf.Warning, error) {
	p, r, err := read(c, groups, lookup)
	if err != nil {
		return nil, nil, err
	}
	return p, sorted(append(r.warnings, r.missing(p.hosts.refresh())...)), nil
}

// Renew is New for a changed configuration, and does not wait: host names have
// the addresses that p knows, and are looked up in the background. unfound is
// told once, from there, of those that were not found; not at all if there are
// none.
func (p *Policy) Renew(c *conf.Configuration, groups Groups, unfound func([]conf.Warning)) (*Policy, []conf.Warning, error) {
	next, r, err := read(c, groups, p.hosts.lookup)
	if err != nil {
		return nil, nil, err
	}
	next.hosts.inherit(p.hosts)
	go func() {
		if missing := r.missing(next.hosts.refresh()); len(missing) > 0 {
			unfound(sorted(missing))
		}
	}()
	return next, sorted(r.warnings), nil
}

// read makes a Policy that has yet to look up host names.
func read(c *conf.Configuration, groups Groups, lookup lookup) (*Policy, *reader, error) {
	p := &Policy{groups: groups, grants: map[string]*grant{}}
	r := &reader{c: c}
	for _, property := range c.WithPrefix(prefix) {
		rest := strings.TrimPrefix(property.Name, prefix)
		dot := strings.LastIndexByte(rest, '.')
		user, setting := rest[:max(dot, 0)], rest[dot+1:]
		if user == "" || user == "*" || strings.ContainsFunc(user, isSpace) || setting != "users" && setting != "groups" && setting != "hosts" {
			r.warn(property, "is no setting of a proxy user: write "+prefix+"USER.users, .groups or .hosts, where USER is one short user name")
			continue
		}
		g := p.grants[user]
		if g == nil {
			g = &grant{}
			p.grants[user] = g
		}
		if err := r.read(g, property, setting); err != nil {
			return nil, nil, err
		}
	}
	var names []string
	for user, g := range p.grants {
		names = append(names, g.names...)
		g.warnOfHalf(r, user)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > maxNames {
		return nil, nil, c.Wrong(r.named[names[maxNames]].Name, fmt.Errorf("and others like it name more than %d hosts: name networks instead, as in 10.1.0.0/16", maxNames))
	}
	p.hosts = newHosts(names, lookup)
	return p, r, nil
}

func sorted(warnings []conf.Warning) []conf.Warning {
	slices.SortFunc(warnings, func(a, b conf.Warning) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Text, b.Text))
	})
	return warnings
}

// isSpace tells of what may not stand in a USER: what Java's \s matches.
func isSpace(r rune) bool { return r == ' ' || r >= '\t' && r <= '\r' }

// reader collects warnings while properties are read.
type reader struct {
	c        *conf.Configuration
	warnings []conf.Warning
	named    map[string]conf.Property // where a host name stands
}

func (r *reader) warn(p conf.Property, text string) {
	r.warnings = append(r.warnings, conf.Warning{Source: p.Source, Name: p.Name, Text: text})
}

// missing warns of names that were not found.
func (r *reader) missing(failed map[string]error) (warnings []conf.Warning) {
	for name, err := range failed {
		p := r.named[name]
		warnings = append(warnings, conf.Warning{Source: p.Source, Name: p.Name,
			Text: fmt.Sprintf("names the host %q, which is not found (%v): correct it, or write its address", name, err)})
	}
	return warnings
}

// read takes one property into g.
func (r *reader) read(g *grant, p conf.Property, setting string) error {
	list, err := r.c.Strings(p.Name)
	if err != nil {
		return err
	}
	if len(list) > 1 && slices.Contains(list, "*") {
		r.warn(p, "holds a * among other names, where it means nothing: write it alone, or leave it out")
	}
	everything := len(list) == 1 && list[0] == "*"
	if setting == "hosts" {
		g.anywhere = everything
		if everything {
			return nil
		}
		for _, host := range list {
			if err := r.host(g, p, host); err != nil {
				return r.c.Wrong(p.Name, err)
			}
		}
		return nil
	}
	g.allowed = true
	g.everybody = g.everybody || everything
	if setting == "users" {
		g.users = list
	} else {
		g.groups = list
	}
	return nil
}

// host reads a network, an address or a name.
func (r *reader) host(g *grant, p conf.Property, text string) error {
	if strings.Contains(text, "/") {
		network, err := netip.ParsePrefix(text)
		if addr := network.Addr(); err == nil && addr.Is4In6() && network.Bits() >= 96 {
			network = netip.PrefixFrom(addr.Unmap(), network.Bits()-96)
		}
		if err != nil || network.Addr().Is4In6() {
			return fmt.Errorf("names %q, which is no network: write it like 10.1.0.0/16 or 2001:db8::/32, without leading zeros", text)
		}
		g.networks = append(g.networks, network.Masked())
		return nil
	}
	bare := text
	if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
		bare = text[1 : len(text)-1]
	}
	if addr, err := netip.ParseAddr(bare); err == nil {
		g.addrs = append(g.addrs, normal(addr))
		return nil
	}
	if strings.Trim(text, "0123456789.") == "" || strings.ContainsAny(text, ":[]") {
		return fmt.Errorf("names %q, which is no address: write it like 10.1.2.3 or 2001:db8::1, without leading zeros and without a port", text)
	}
	if text == "*" {
		return nil
	}
	g.names = append(g.names, text)
	if r.named == nil {
		r.named = map[string]conf.Property{}
	}
	r.named[text] = p
	return nil
}

// warnOfHalf warns of a user who may act for others but from nowhere, or the
// other way round.
func (g *grant) warnOfHalf(r *reader, user string) {
	hosts, hasHosts := r.c.Lookup(prefix + user + ".hosts")
	switch {
	case !g.allowed:
		r.warn(hosts, "does nothing without "+prefix+user+".users or .groups: set one")
	case !hasHosts:
		p, ok := r.c.Lookup(prefix + user + ".users")
		if !ok {
			p, _ = r.c.Lookup(prefix + user + ".groups")
		}
		r.warn(p, "does nothing without "+prefix+user+".hosts: set it to the hosts the requests come from, or to *")
	}
}

// Authorize tells whether a user may act for another, coming from addr. realShort
// and realFull are the short and full name of the user who asks, as is the short
// name of the other; addr, where it is not valid, is in no list but *.
//
// A denial is a *DeniedError. Any other error means that the groups of the other
// user could not be found out: the client is to try again, status 500. Either
// answer may be remembered for some seconds, together with the generation of the
// groups.
func (p *Policy) Authorize(realShort, realFull, as string, addr netip.Addr) error {
	g := p.grants[realShort]
	if g == nil || !g.allowed {
		return deniedUser(realFull, as)
	}
	ok, err := p.covers(g, realShort, as)
	if err != nil {
		return fmt.Errorf("whether %s may act for %s: %w", realFull, as, err)
	}
	if !ok {
		return deniedUser(realFull, as)
	}
	if !p.from(g, normal(addr)) {
		return &DeniedError{"Unauthorized connection for super-user: " + realFull + " from IP /" + javaText(addr)}
	}
	return nil
}

func deniedUser(real, as string) error {
	return &DeniedError{"User: " + real + " is not allowed to impersonate " + as}
}

// covers tells whether g holds for acting for as. A ~ before a user's own name
// stands for everybody, Hadoop's AccessControlList.USE_REAL_ACLS.
func (p *Policy) covers(g *grant, real, as string) (bool, error) {
	if g.everybody || slices.Contains(g.users, as) || slices.Contains(g.users, "~"+real) {
		return true, nil
	}
	if len(g.groups) == 0 {
		return false, nil
	}
	membership, err := p.groups.Lookup(as)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(g.groups, func(group string) bool { return slices.Contains(membership.Groups, group) }), nil
}

// from tells whether g holds for requests from addr.
func (p *Policy) from(g *grant, addr netip.Addr) bool {
	if g.anywhere {
		return true
	}
	if !addr.IsValid() {
		return false
	}
	return slices.Contains(g.addrs, addr) ||
		slices.ContainsFunc(g.networks, func(n netip.Prefix) bool { return n.Contains(addr) }) ||
		len(g.names) > 0 && p.hosts.have(g.names, addr)
}

// normal is an address as it is compared: IPv4 where it is that in IPv6's
// clothes, and without zone.
func normal(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

// javaText is an address as Java's InetAddress.getHostAddress writes it.
func javaText(addr netip.Addr) string {
	addr = addr.Unmap()
	if !addr.Is6() {
		return addr.String()
	}
	var b strings.Builder
	bytes := addr.As16()
	for i := 0; i < len(bytes); i += 2 {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(strconv.FormatUint(uint64(bytes[i])<<8|uint64(bytes[i+1]), 16))
	}
	if addr.Zone() != "" {
		b.WriteString("%" + addr.Zone())
	}
	return b.String()
}
