package conf

import (
	"fmt"
	"strconv"
	"strings"
)

// ValueError is a property whose value cannot be used. Its texts do not tell
// passwords; Value does.
type ValueError struct {
	Property Property
	Value    string // expanded
	Err      error  // what is wrong with it
}

// Wrong returns a *ValueError for a property that c has or lacks: its Source is
// then Default.
func (c *Configuration) Wrong(name string, err error) error {
	p, ok := c.Lookup(name)
	if !ok {
		p = Property{Name: name, Source: Source{File: Default}}
	}
	value, _, expandErr := c.Get(name)
	if expandErr != nil {
		value = p.Raw
	}
	return &ValueError{Property: p, Value: trim(value), Err: err}
}

// Error is "place: property: " and What.
func (e *ValueError) Error() string {
	return fmt.Sprintf("%s: %s: %s", e.Property.Source, e.Property.Name, e.What())
}

// What is the value, as far as it may be shown, and what is wrong with it.
func (e *ValueError) What() string {
	switch {
	case e.Value != "":
		return fmt.Sprintf("%s %v", Quote(e.Property.Name, e.Value), e.Err)
	case e.Property.Source.File == Default:
		return fmt.Sprintf("not set: %v", e.Err)
	default:
		return fmt.Sprintf("the empty value %v", e.Err)
	}
}

func (e *ValueError) Unwrap() error { return e.Err }

// hidden stands in the place of what may not be shown.
const hidden = "***"

// Quote returns the value of a property in quotation marks, for logs and
// messages: without what is or could be a password. That is the whole value
// where the name says so, and who logs in where the value has URLs.
func Quote(name, value string) string {
	if holdsSecret(name) {
		return "the value, which is not shown,"
	}
	return strconv.Quote(withoutUsers(value))
}

// holdsSecret tells whether a property could hold a password: what names the
// file with one, too, since that is where the password itself is put by mistake.
func holdsSecret(name string) bool {
	name = strings.ToLower(name)
	return strings.Contains(name, "password") || strings.Contains(name, "passphrase") ||
		strings.Contains(name, "signature.secret") || strings.HasSuffix(name, "secret")
}

// withoutUsers hides what stands between :// and @ of each URL. A password can
// hold any character, also those that end a URL's authority, so all counts up to
// the last @ before the next URL. Nested provider URIs have the scheme of a file
// system in that place.
func withoutUsers(value string) string {
	parts := strings.Split(value, "://")
	for i, part := range parts[1:] {
		at := strings.LastIndexByte(part, '@')
		if at < 0 {
			continue
		}
		switch inner, _, _ := strings.Cut(part, "@"); inner {
		case "file", "hdfs", "http", "https":
		default:
			parts[i+1] = hidden + part[at:]
		}
	}
	return strings.Join(parts, "://")
}
