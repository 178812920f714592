package groups

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// fill puts arguments, escaped, for {0}, {1} … of a filter that checkFilter has
// accepted for that many.
func fill(filter string, args ...string) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(filter, "{")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		number, after, _ := strings.Cut(rest, "}")
		if n, err := strconv.Atoi(number); err == nil && n >= 0 && n < len(args) {
			b.WriteString(ldap.EscapeFilter(args[n]))
		}
		filter = after
	}
}

// checkFilter says what is wrong with a filter that has {0} to {args-1} in it.
func checkFilter(filter string, args int) error {
	for rest := filter; ; {
		_, after, ok := strings.Cut(rest, "{")
		if !ok {
			break
		}
		number, after, ok := strings.Cut(after, "}")
		if n, err := strconv.Atoi(number); !ok || err != nil || n < 0 || n >= args {
			return fmt.Errorf("has {%s, and only {0} to {%d} mean something", number, args-1)
		}
		rest = after
	}
	dummies := make([]string, args)
	for i := range dummies {
		dummies[i] = "x"
	}
	if !strings.HasPrefix(filter, "(") {
		return fmt.Errorf("is no LDAP filter: it does not begin with a parenthesis")
	}
	if _, err := ldap.CompileFilter(fill(filter, dummies...)); err != nil {
		return fmt.Errorf("is no LDAP filter (%w)", err)
	}
	return nil
}

// compact takes out the space that Java allows round the parts of a filter, as
// configuration files break long ones into lines.
func compact(filter string) string {
	out := make([]byte, 0, len(filter))
	last := byte(')')
	opening := false // out ends in what opens a part: "(", or "(&" and the like
	for _, c := range []byte(filter) {
		space := c == ' ' || c == '\t' || c == '\r' || c == '\n'
		if space && (opening || last == ')') {
			continue
		}
		opening = c == '(' || last == '(' && (c == '&' || c == '|' || c == '!')
		out, last = append(out, c), c
	}
	return string(out)
}

// firstName returns the value of an attribute in the first part of a
// distinguished name.
func firstName(dn, attribute string) (string, bool) {
	parsed, err := ldap.ParseDN(dn)
	if err != nil || len(parsed.RDNs) == 0 {
		return "", false
	}
	for _, a := range parsed.RDNs[0].Attributes {
		if strings.EqualFold(a.Type, attribute) {
			return a.Value, true
		}
	}
	return "", false
}
