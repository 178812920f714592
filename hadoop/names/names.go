// Package names turns Kerberos principals into short user names, by Hadoop's
// rules (auth_to_local, hadoop.kms.authentication.kerberos.name.rules).
//
// The rules are those of org.apache.hadoop.security.authentication.util.KerberosName
// of Hadoop 3.4 and give the same names. Their regular expressions are Java's:
// they are translated into Go's where the two can be made to agree on every
// principal, and refused by New where they cannot (look-around, back references,
// possessive quantifiers and what depends on the release of the JDK). What the
// Java class only notices when a principal arrives is refused by New as well.
//
// It is stricter than Java in what it takes for a principal: not more than 1024
// bytes of UTF-8 without control characters, line breaks and characters beyond
// U+FFFF, and two components at most. That is also what makes $ and . of the two
// languages the same. No principal ever gets an empty short name.
package names

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxRules     = 64 << 10 // bytes of all rules
	maxPrincipal = 1024     // bytes of a principal
)

// Rules are the rules in force. They are immutable: any number of goroutines
// may use them. Make them with New.
type Rules struct {
	rules []rule
	mit   bool
	realm string
}

// New reads rules in Hadoop's notation, one after the other:
//
//	DEFAULT
//	RULE:[COMPONENTS:FORMAT](MATCH)s/FROM/TO/g/L
//
// where (MATCH), s/FROM/TO/, g and /L may be missing. mechanism is hadoop or
// mit, in any case; empty means hadoop. defaultRealm is the realm whose
// principals DEFAULT takes, from krb5.conf; if it is empty, DEFAULT takes none.
// Errors are of type *SyntaxError.
func New(rules, mechanism, defaultRealm string) (*Rules, error) {
	r := &Rules{realm: defaultRealm}
	switch strings.ToLower(mechanism) {
	case "", "hadoop":
	case "mit":
		r.mit = true
	default:
		return nil, &SyntaxError{Mechanism: true, What: fmt.Sprintf("%q is no mechanism of name rules", mechanism), Remedy: "write hadoop or mit"}
	}
	var err error
	r.rules, err = parse(rules)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// HasDefault tells whether one of the rules is DEFAULT.
func (r *Rules) HasDefault() bool {
	return slices.ContainsFunc(r.rules, func(rule rule) bool { return rule.isDefault })
}

// SyntaxError is a rule that cannot be served, or a mechanism.
type SyntaxError struct {
	Rule      int    // which rule, counted from 1; 0 when none is meant
	Text      string // of that rule
	Position  int    // the character of Text where the mistake is, counted from 1; 0 when all of it is meant
	Mechanism bool   // the mechanism is meant, not the rules
	What      string // what is wrong, without a full stop
	Remedy    string // what to do, an imperative sentence without a full stop
}

// Error is Place, What, and Remedy after ". Try: ".
func (e *SyntaxError) Error() string {
	return e.Place() + e.What + ". Try: " + e.Remedy
}

// Place says where in the rules the mistake is, up to and with a colon and a
// space; "" when it is nowhere in particular.
func (e *SyntaxError) Place() string {
	place := ""
	if e.Rule > 0 {
		place = fmt.Sprintf("rule %d, %q: ", e.Rule, e.Text)
	}
	if e.Position > 0 {
		place += fmt.Sprintf("at character %d: ", e.Position)
	}
	return place
}

// NoNameError tells that a principal has no short name: no rule matches, or the
// one that does yields what is no user. To its owner the server answers 403
// with the text.
type NoNameError struct {
	Principal string
	Text      string // Hadoop's, where Hadoop has one
}

func (e *NoNameError) Error() string { return e.Text }

// ShortName returns the user name for a principal: service, service/host, both
// perhaps with @REALM. A name without host and realm is its own short name.
// With mechanism mit a principal that no rule matches is its own short name too,
// and short names may hold / and @. Errors are of type *NoNameError.
func (r *Rules) ShortName(principal string) (string, error) {
	p, ok := split(principal)
	if !ok {
		shown := principal
		if len(principal) > maxPrincipal {
			shown = fmt.Sprintf("one of %d bytes", len(principal))
		} else if !utf8.ValidString(principal) || strings.ContainsFunc(principal, unfit) {
			shown = strconv.QuoteToASCII(principal)
		}
		return "", &NoNameError{principal, "Malformed Kerberos name: " + shown}
	}
	if p.host == "" && p.realm == "" {
		return p.service, nil
	}
	for i := range r.rules {
		rule := &r.rules[i]
		name, ok, err := rule.apply(p, r.realm)
		if err != "" {
			return "", &NoNameError{principal, fmt.Sprintf("auth_to_local rule %s: %s: %s", rule, err, principal)}
		}
		if !ok {
			continue
		}
		if !r.mit && strings.ContainsAny(name, "/@") {
			return "", &NoNameError{principal, fmt.Sprintf("Non-simple name %s after auth_to_local rule %s", name, rule)}
		}
		if rule.lower && name != "" {
			name, err = lower(name)
		}
		if name == "" || err != "" {
			if err == "" {
				err = "leaves no user name"
			}
			return "", &NoNameError{principal, fmt.Sprintf("auth_to_local rule %s: %s: %s", rule, err, principal)}
		}
		return name, nil
	}
	if !r.mit {
		return "", &NoNameError{principal, "No rules applied to " + principal}
	}
	return principal, nil
}

// principal is a Kerberos name in its parts; host and realm may be empty.
type principal struct{ service, host, realm string }

// split takes a principal apart. Empty parts and a third component are none.
func split(name string) (p principal, ok bool) {
	if len(name) > maxPrincipal || !utf8.ValidString(name) || strings.ContainsFunc(name, unfit) {
		return p, false
	}
	rest, realm, hasRealm := strings.Cut(name, "@")
	service, host, hasHost := strings.Cut(rest, "/")
	p = principal{service, host, realm}
	if service == "" || hasHost && host == "" || hasRealm && realm == "" || strings.ContainsAny(host+realm, "/@") {
		return p, false
	}
	return p, true
}

// unfit tells of characters that no principal and no rule may hold: those that
// break lines, and those that are two characters in Java.
func unfit(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r > 0xFFFF
}

// lower is Java's String.toLowerCase(Locale.ENGLISH), except for the two letters
// whose lower case is more than one letter or depends on the next.
func lower(name string) (lowered, problem string) {
	if strings.ContainsAny(name, "\u0130\u03a3") {
		return "", "no lower case is known for a letter of " + name
	}
	return strings.ToLower(name), ""
}
