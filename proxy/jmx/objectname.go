package jmx

import "strings"

// pattern is a parsed query: which bean names it matches. It follows the
// grammar of javax.management.ObjectName, less quoted values, which no query
// can contain (see quoteHTML).
type pattern struct {
	domain     string
	properties map[string]string
	more       bool // a name may have other properties too: the "*" in "d:k=v,*"
}

// parsePattern parses an ObjectName, ok is false where the JDK throws
// MalformedObjectNameException. The empty name means all beans.
func parsePattern(s string) (p pattern, ok bool) {
	if s == "" {
		s = "*:*"
	}
	domain, rest, ok := strings.Cut(s, ":")
	if !ok || rest == "" || strings.Contains(domain, "\n") {
		return pattern{}, false
	}
	p = pattern{domain: domain, properties: make(map[string]string)}
	for rest != "" {
		property, tail, comma := strings.Cut(rest, ",")
		if property == "*" {
			if p.more {
				return pattern{}, false
			}
			p.more, rest = true, tail // the JDK lets a comma end the name here
			continue
		}
		key, value, ok := strings.Cut(property, "=")
		if !ok || key == "" || strings.ContainsAny(key, "*?:\n") || strings.ContainsAny(value, "=:\n") || comma && tail == "" {
			return pattern{}, false
		}
		if _, twice := p.properties[key]; twice {
			return pattern{}, false
		}
		p.properties[key] = value
		rest = tail
	}
	return p, true
}

// match reports whether p selects the bean called name.
func (p pattern) match(name pattern) bool {
	if !wildMatch(p.domain, name.domain) || !p.more && len(p.properties) != len(name.properties) {
		return false
	}
	for key, value := range p.properties {
		have, ok := name.properties[key]
		if !ok || !wildMatch(value, have) {
			return false
		}
	}
	return true
}

// wildMatch reports whether s is what w describes, with * for any characters
// and ? for one. It takes at most len(w)·len(s) steps.
func wildMatch(w, s string) bool {
	star, mark := -1, 0 // the last * in w, and how much of s it has taken
	i, j := 0, 0
	for j < len(s) {
		switch {
		case i < len(w) && w[i] == '*':
			star, mark = i, j
			i++
		case i < len(w) && (w[i] == '?' || w[i] == s[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(w[i:], "*") == ""
}

// quoteHTML escapes what Hadoop's HttpServer2 escapes in every parameter before
// a servlet sees it (QuotingInputFilter).
var quoteHTML = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "'", "&apos;", `"`, "&quot;")
