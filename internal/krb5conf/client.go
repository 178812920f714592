package krb5conf

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jcmturner/gokrb5/v8/config"
)

// enctypes are those that a client asks for where the configuration says
// nothing: MIT's default, without what is weak.
const enctypes = "aes256-cts-hmac-sha1-96 aes128-cts-hmac-sha1-96 aes256-cts-hmac-sha384-192 aes128-cts-hmac-sha256-128"

// Client returns the configuration for gokrb5's client. It carries over default
// realm, DNS look-ups, lifetimes, flags and encryption types of libdefaults, the
// KDCs of the realms, and domain_realm.
func (c *Config) Client() (cfg *config.Config, err error) {
	text, err := c.clientText()
	if err != nil {
		return nil, err
	}
	defer func() {
		if r := recover(); r != nil {
			cfg, err = nil, fmt.Errorf("krb5.conf: gokrb5 cannot read it: %v", r)
		}
	}()
	cfg, err = config.NewFromString(text)
	if err != nil {
		return nil, fmt.Errorf("krb5.conf: gokrb5 cannot read it: %w", err)
	}
	return cfg, nil
}

func (c *Config) clientText() (string, error) {
	var b strings.Builder
	var errs []error
	relation := func(indent, name, value string) {
		// gokrb5 ends a value at these, and takes the others for structure.
		if value != "" && !strings.ContainsAny(value, "#;={}\n") {
			fmt.Fprintf(&b, "%s%s = %s\n", indent, name, value)
		}
	}
	b.WriteString("[libdefaults]\n")
	relation(" ", "default_realm", c.DefaultRealm())
	relation(" ", "clockskew", seconds(c.ClockSkew()))
	for _, name := range []string{"ticket_lifetime", "renew_lifetime"} {
		if value := c.first("libdefaults", name); value != "" {
			d, err := parseDuration(value)
			errs = append(errs, invalid(name, value, err))
			relation(" ", name, seconds(d))
		}
	}
	for _, name := range []string{"dns_lookup_kdc", "dns_lookup_realm", "forwardable", "proxiable", "noaddresses", "canonicalize"} {
		if value := c.first("libdefaults", name); value != "" {
			on, err := parseBool(value)
			errs = append(errs, invalid(name, value, err))
			relation(" ", name, strconv.FormatBool(on))
		}
	}
	if value := c.first("libdefaults", "udp_preference_limit"); value != "" {
		limit, err := strconv.Atoi(value)
		errs = append(errs, invalid("udp_preference_limit", value, err))
		// What is beyond MIT's bound, MIT lowers to it.
		relation(" ", "udp_preference_limit", strconv.Itoa(max(0, min(limit, 32700))))
	}
	for _, name := range []string{"default_tgs_enctypes", "default_tkt_enctypes", "permitted_enctypes"} {
		value := c.first("libdefaults", name)
		if value == "" {
			value = enctypes
		}
		relation(" ", name, strings.Join(strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }), " "))
	}

	b.WriteString("[realms]\n")
	written := map[string]bool{}
	for _, section := range c.root.children {
		if section.name != "realms" {
			continue
		}
		for _, realm := range section.children {
			if realm.children == nil || written[realm.name] || strings.ContainsAny(realm.name, "#;={}") {
				continue
			}
			written[realm.name] = true
			fmt.Fprintf(&b, " %s = {\n", realm.name)
			for _, name := range []string{"kdc", "admin_server", "kpasswd_server", "master_kdc", "default_domain"} {
				for _, value := range c.Values("realms", realm.name, name) {
					relation("  ", name, value)
				}
			}
			b.WriteString(" }\n")
		}
	}

	b.WriteString("[domain_realm]\n")
	written = map[string]bool{}
	for _, section := range c.root.children {
		if section.name != "domain_realm" {
			continue
		}
		for _, domain := range section.children {
			name := strings.ToLower(domain.name)
			if !written[name] && !strings.ContainsAny(name, "#;[{}") {
				relation(" ", name, domain.value)
			}
			written[name] = true
		}
	}
	return b.String(), errors.Join(errs...)
}

func invalid(name, value string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("krb5.conf: libdefaults.%s %q: %w", name, value, err)
}

func seconds(d time.Duration) string {
	return strconv.FormatInt(int64(d/time.Second), 10) + "s"
}

func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "y", "yes", "true", "t", "1", "on":
		return true, nil
	case "n", "no", "false", "f", "nil", "0", "off":
		return false, nil
	}
	return false, errors.New("neither true nor false")
}

// parseDuration reads the forms of MIT's krb5.conf: seconds, 1d2h3m4s with or
// without blanks, h:mm and h:mm:ss.
func parseDuration(s string) (time.Duration, error) {
	bad := errors.New("not a duration")
	const most = 100 * 365 * 24 * 3600
	if parts := strings.Split(s, ":"); len(parts) > 1 {
		if len(parts) > 3 {
			return 0, bad
		}
		total := 0
		for i, unit := range []int{3600, 60, 1} {
			if i >= len(parts) {
				break
			}
			n, err := strconv.ParseUint(parts[i], 10, 31)
			if err != nil || n > most/uint64(unit) {
				return 0, bad
			}
			total += int(n) * unit
		}
		return time.Duration(total) * time.Second, nil
	}
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	units := map[byte]int{'d': 86400, 'h': 3600, 'm': 60, 's': 1}
	total, rest := 0, strings.ReplaceAll(strings.ReplaceAll(s, " ", ""), "\t", "")
	if rest == "" {
		return 0, bad
	}
	for rest != "" {
		i := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if i < 1 {
			return 0, bad
		}
		n, err := strconv.ParseUint(rest[:i], 10, 31)
		unit := units[rest[i]]
		if err != nil || unit == 0 || n > most/uint64(unit) || total > most {
			return 0, bad
		}
		total, rest = total+int(n)*unit, rest[i+1:]
	}
	return time.Duration(total) * time.Second, nil
}
