package audit

import (
	"net/url"
	"strings"
)

// redacted stands for the value of a parameter that is nobody's business.
const redacted = "***"

// secretParameters hold what proves an identity: the delegation token a request
// is sent with, and the one it renews or cancels.
var secretParameters = []string{"delegation", "token"}

// Redact returns a URL, or a part of one from the path on, with the values of
// the parameters delegation and token replaced, in whatever case and percent
// encoding their names are written. A semicolon divides parameters as '&' does:
// authentication, like Hadoop's, finds a token behind either. Everything else
// stays as it is. Logs show no URL that has not been through it.
func Redact(raw string) string {
	path, query, ok := strings.Cut(raw, "?")
	if !ok {
		return raw
	}
	var b strings.Builder
	b.WriteString(path)
	divider := "?"
	for more := true; more; {
		parameter, next := query, ""
		if i := strings.IndexAny(query, "&;"); i >= 0 {
			parameter, next, query = query[:i], query[i:i+1], query[i+1:]
		}
		b.WriteString(divider)
		if name, value, ok := strings.Cut(parameter, "="); ok && value != "" && isSecret(name) {
			parameter = name + "=" + redacted
		}
		b.WriteString(parameter)
		divider, more = next, next != ""
	}
	return b.String()
}

// isSecret reports whether the name of a parameter, as a client wrote it, is
// one whose value must not be shown. A name that is badly encoded is compared
// as far as it can be read, since servers differ in what they make of it.
func isSecret(name string) bool {
	decoded := strings.Trim(unescape(name), " \t\r\n\x00")
	for _, s := range secretParameters {
		if strings.EqualFold(decoded, s) {
			return true
		}
	}
	return false
}

// unescape decodes the escapes that are right and leaves the others.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := url.PathUnescape(s[i : i+3]); err == nil {
				b.WriteString(c)
				i += 2
				continue
			}
		}
		if s[i] == '+' {
			b.WriteByte(' ')
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
