package config

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/edekd/edekd/hadoop/conf"
	"github.com/edekd/edekd/upstream/kms"
)

// upstream reads how the KMS of a provider kms:// is used.
func (l *loader) upstream() {
	const prefix = "edekd.upstream."
	s, u := &l.site, &l.cfg.Upstream
	far := slices.ContainsFunc(l.cfg.Keys.Providers, func(uri string) bool { return strings.HasPrefix(uri, "kms://") })
	if !far {
		for _, p := range s.conf.WithPrefix(prefix) {
			if s.isSet(p.Name) {
				s.warn(p.Name, "not used, because "+providerURI+" names no kms://", "remove it, or name the KMS")
			}
		}
		return
	}
	switch kind := s.text(prefix + "authentication"); kind {
	case "simple":
	case "kerberos":
		u.Kerberos = true
		u.Principal = s.text(prefix + "principal")
		if u.Principal == "" {
			s.refuse(prefix+"principal", "no principal is named to log in at the KMS with", "edekd/_HOST@REALM, a principal that the keytab has")
		}
		if host, err := os.Hostname(); err == nil {
			u.Principal = strings.Replace(u.Principal, "_HOST", strings.ToLower(host), 1)
		}
		u.Keytab = s.readable(prefix+"keytab", s.filePath(prefix+"keytab"), true)
	default:
		s.refuse(prefix+"authentication", fmt.Sprintf("edekd cannot prove itself by %q", kind), "kerberos or simple")
	}
	u.User = s.text(prefix + "user")
	if u.User == "" && u.Kerberos {
		u.User = firstPart(u.Principal)
	}
	if u.User == "" {
		u.User = l.userName
	}
	if u.User == "" && len(l.problems) == 0 {
		s.refuse(prefix+"user", "the user that edekd runs as has no name", "the name that the KMS lists as a proxy user")
	}
	if strings.ContainsAny(u.User, "/@") || strings.ContainsFunc(u.User, unicode.IsSpace) {
		s.refuse(prefix+"user", fmt.Sprintf("%q is no short name: the KMS shortens it, so callers of that shorter name would be taken for edekd", u.User),
			"the short name alone, such as edekd, that the KMS lists as a proxy user")
	}
	l.upstreamRights(prefix)
	u.RingCover = l.seconds(prefix+"ring.cover.seconds", 0, day)
	u.RingBytes = int64(s.number(prefix+"ring.budget-bytes", 1<<20, 64<<30))
	u.RingReserve = float64(s.number(prefix+"ring.reserve.percent", 0, 99)) / 100
	users, err := s.conf.Strings(prefix + "ring.reserve.users")
	if err != nil {
		s.refuseValue(prefix+"ring.reserve.users", err, "write the names out, divided by commas")
	}
	u.Reserved = map[string]bool{}
	for _, user := range users {
		u.Reserved[user] = true
	}
	switch {
	case u.RingReserve > 0 && len(users) == 0:
		s.warn(prefix+"ring.reserve.percent", "this part is kept in an outage and nobody gets it, because "+prefix+"ring.reserve.users names nobody", "name the NameNodes' users there, or set this to 0")
	case u.RingReserve == 0 && len(users) > 0:
		s.warn(prefix+"ring.reserve.users", "nothing is kept for them, because "+prefix+"ring.reserve.percent is 0", "set that to 20, say, or remove this")
	}
	u.Poll = l.seconds(prefix+"poll.seconds", time.Second, time.Hour)
	u.Attempt = s.milliseconds(prefix+"attempt.ms", 10*time.Millisecond, time.Minute)
	u.Total = s.milliseconds(prefix+"total.ms", 10*time.Millisecond, time.Minute)
	if u.Total < u.Attempt {
		s.refuse(prefix+"total.ms", "less than "+prefix+"attempt.ms, which is "+u.Attempt.String(), "at least twice as much")
	}
	u.InFlight = s.number(prefix+"in-flight", 1, 100_000)
	l.clientSSL()
}

// farProvider checks the URI of a KMS behind edekd.
func (l *loader) farProvider(provider string) {
	s := &l.site
	address, err := kms.ParseURI(provider)
	if err != nil {
		what := " names no KMS"
		if wrong, ok := errors.AsType[*kms.URIError](err); ok {
			what += ": it " + wrong.What
		}
		s.refuse(providerURI, conf.Quote(providerURI, provider)+what, "kms://https@HOST;HOST:9600/kms; sqlite://file@PATH keeps keys here")
		return
	}
	if address.Path != "/kms" {
		s.warn(providerURI, fmt.Sprintf("%s has the path %q: a KMS is at /kms, and Hadoop's clients add v1 themselves", conf.Quote(providerURI, provider), address.Path),
			"/kms after the port, unless a proxy before the KMS has it elsewhere")
	}
	for _, node := range address.Nodes {
		node = strings.ToLower(node)
		if slices.Contains(l.farNodes, node) {
			s.warn(providerURI, node+" is named in two providers, so it is asked twice for what it does not know", "one provider for each KMS")
		}
		l.farNodes = append(l.farNodes, node)
	}
}

// upstreamRights reads what decides on the use of what was fetched ahead.
func (l *loader) upstreamRights(prefix string) {
	s, u := &l.site, &l.cfg.Upstream
	switch who := s.text(prefix + "authorization"); who {
	case "upstream":
	case "local":
		u.LocalAuthorization = true
		s.warn(prefix+"authorization", "kms-acls.xml alone decides who gets what edekd fetched ahead, whatever the KMS would say", "upstream, unless both have the same rules")
	default:
		s.refuse(prefix+"authorization", fmt.Sprintf("%q decides nothing", who), "upstream, or local")
	}
	u.Grant = l.seconds(prefix+"grant.seconds", time.Second, day)
	u.GrantOutage = l.seconds(prefix+"grant.outage.seconds", 0, 30*day)
	switch mode := s.text(prefix + "decrypt"); mode {
	case "forward":
	case "cache":
		u.CacheDecrypts = true
	case "local":
		u.LocalDecrypts = true
		s.warn(prefix+"decrypt", "edekd reads key material of the KMS in its own name and keeps copies in memory: who has its login or its memory has those keys", "cache, unless new files must be written while the KMS is away")
	default:
		s.refuse(prefix+"decrypt", fmt.Sprintf("%q is no way to decrypt", mode), "forward, cache or local")
	}
	u.DecryptBytes = int64(s.number(prefix+"decrypt.cache-bytes", 1<<20, 64<<30))
	u.DecryptAge = l.seconds(prefix+"decrypt.max-age.seconds", time.Second, day)
	l.outageOfDecrypts(prefix)
}

// outageOfDecrypts warns where decrypts end in an outage before those grants do
// that were prolonged for it.
func (l *loader) outageOfDecrypts(prefix string) {
	u := &l.cfg.Upstream
	needed, ends := u.GrantOutage, u.DecryptAge
	switch {
	case u.LocalDecrypts:
		needed, ends = 2*needed, ends/2 // a copy can be half that old when the outage begins
	case !u.CacheDecrypts:
		return
	}
	if u.DecryptAge < needed {
		l.site.warn(prefix+"decrypt.max-age.seconds", fmt.Sprintf("in an outage decrypts can end after %v, while %sgrant.outage.seconds lets callers go on for %v", ends, prefix, u.GrantOutage),
			fmt.Sprintf("%d or more", needed/time.Second))
	}
}

// firstPart is the short name that Hadoop's default rule gives a principal of its
// own realm.
func firstPart(principal string) string {
	if i := strings.IndexAny(principal, "/@"); i >= 0 {
		return principal[:i]
	}
	return principal
}

func (l *loader) seconds(name string, least, most time.Duration) time.Duration {
	return time.Duration(l.site.number(name, int(least/time.Second), int(most/time.Second))) * time.Second
}

// clientSSL reads which authorities are trusted, where a provider is reached by
// https.
func (l *loader) clientSSL() {
	if !slices.ContainsFunc(l.cfg.Keys.Providers, func(uri string) bool { return strings.HasPrefix(uri, "kms://https@") }) {
		return
	}
	client := l.section(l.site.text(sslClientConf), l.system(l.userName))
	client.load(client.path)
	if client.sound {
		l.cfg.ClientSSL = client.conf
	}
}
