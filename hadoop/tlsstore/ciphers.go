package tlsstore

import (
	"crypto/tls"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// javaDefault is the value by which Hadoop knows that nothing was configured;
// it then leaves the choice to the JDK, which takes TLS 1.2 and 1.3.
const javaDefault = "TLSv1.2"

// jettyExcluded is what Jetty excludes unless a list is configured, as far as
// it concerns suites that crypto/tls takes for secure.
var jettyExcluded = []string{"^.*_(MD5|SHA|SHA1)$"}

// protocols sets the range of versions.
func (l *loader) protocols() {
	c := l.loaded.Config
	c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS13
	value, err := l.site.String(EnabledProtocols, javaDefault)
	if err != nil {
		l.refuseValue(l.site, EnabledProtocols, err, "write the value out")
		return
	}
	if value == javaDefault || value == "" {
		return
	}
	list, err := l.site.Strings(EnabledProtocols)
	if err != nil {
		l.refuseValue(l.site, EnabledProtocols, err, "write the value out")
		return
	}
	var versions []uint16
	var others []string
	for _, name := range list {
		switch name {
		case "TLSv1.2":
			versions = append(versions, tls.VersionTLS12)
		case "TLSv1.3":
			versions = append(versions, tls.VersionTLS13)
		case "SSLv2Hello": // a form of greeting, which no client of today needs
		default:
			others = append(others, name)
		}
	}
	switch {
	case len(versions) == 0:
		l.refuse(l.site, EnabledProtocols, fmt.Sprintf("%q leaves nothing: TLS 1.2 and 1.3 are spoken, nothing older", value), "TLSv1.2,TLSv1.3")
		return
	case len(others) > 0:
		l.warn(l.site, EnabledProtocols, fmt.Sprintf("%s not spoken, nor by a JDK of today", strings.Join(others, ", ")), "TLSv1.2,TLSv1.3, and clients that can speak them")
	}
	c.MinVersion, c.MaxVersion = slices.Min(versions), slices.Max(versions)
}

// ciphers picks the suites of TLS 1.2 by Jetty's rules: start from those
// included or else from all, take away those excluded. An entry of either list
// is a regular expression for the whole of a name in Java's spelling.
func (l *loader) ciphers() {
	include, ok1 := l.patterns(IncludeCiphers)
	exclude, ok2 := l.patterns(ExcludeCiphers)
	if !ok1 || !ok2 {
		return
	}
	if len(exclude) == 0 {
		for _, p := range jettyExcluded {
			exclude = append(exclude, regexp.MustCompile(p))
		}
	}
	var old, fixed []*tls.CipherSuite
	var suites []uint16
	for _, s := range tls.CipherSuites() {
		if slices.Contains(s.SupportedVersions, tls.VersionTLS12) {
			old = append(old, s)
		} else {
			fixed = append(fixed, s)
		}
	}
	for _, s := range old {
		if (len(include) == 0 || matches(include, s.Name)) && !matches(exclude, s.Name) {
			suites = append(suites, s.ID)
		}
	}
	c := l.loaded.Config
	if len(suites) == 0 && c.MinVersion == tls.VersionTLS12 {
		l.noneLeft(include, old)
		return
	}
	c.CipherSuites = suites
	if c.MaxVersion < tls.VersionTLS13 {
		return
	}
	for _, s := range fixed {
		property := ExcludeCiphers
		if len(include) > 0 && !matches(include, s.Name) {
			property = IncludeCiphers
		} else if !matches(exclude, s.Name) {
			continue
		}
		l.warn(l.ssl, property, s.Name+" is offered all the same: the suites of TLS 1.3 cannot be chosen", EnabledProtocols+" TLSv1.2,TLSv1.1 in core-site.xml, if TLS 1.3 must not be spoken")
	}
}

func (l *loader) noneLeft(include []*regexp.Regexp, suites []*tls.CipherSuite) {
	var names []string
	for _, s := range suites {
		names = append(names, s.Name)
	}
	property := ExcludeCiphers
	if len(include) > 0 {
		property = IncludeCiphers
	}
	l.refuse(l.ssl, property, "leaves no cipher suite for TLS 1.2", "leave one of "+strings.Join(names, ", ")+", or set "+EnabledProtocols+" to TLSv1.3 in core-site.xml")
}

// patterns compiles a list of suites.
func (l *loader) patterns(property string) (list []*regexp.Regexp, ok bool) {
	names, err := l.ssl.Strings(property)
	if err != nil {
		l.refuseValue(l.ssl, property, err, "write the value out")
		return nil, false
	}
	for _, name := range names {
		p, err := regexp.Compile("^(?:" + name + ")$")
		if err != nil {
			l.refuse(l.ssl, property, fmt.Sprintf("%q is not a regular expression: %v", name, err), "names of cipher suites, or simple patterns of names")
			return nil, false
		}
		list = append(list, p)
	}
	return list, true
}

// matches tries the two spellings that Java has: SSL_ for suites older than TLS.
func matches(patterns []*regexp.Regexp, name string) bool {
	old := "SSL_" + strings.TrimPrefix(name, "TLS_")
	return slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(name) || p.MatchString(old) })
}
