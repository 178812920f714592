package kms

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/edekd/edekd/upstream"
)

// Config says which KMS, and as whom.
type Config struct {
	Address

	// Service is the short name by which the upstream knows edekd. Nobody of
	// that name is passed on.
	Service string
	// Kerberos, when given, is how edekd logs in; nil means simple
	// authentication: the upstream believes Service.
	Kerberos *Kerberos
	// TLS is for https; nil trusts what the system trusts. It is cloned.
	TLS *tls.Config

	// Attempt, Total, Open and InFlight are those of upstream.Settings.
	Attempt, Total, Open time.Duration
	InFlight             int
	// Changed, when given, is told of a new state.
	Changed func(upstream.State)
	// Log gets what no caller is told; nil for nowhere.
	Log *slog.Logger
}

// Kerberos is a principal and the file of its keys.
type Kerberos struct {
	Principal string // "edekd/host@REALM"; without a realm, krb5.conf's default
	Keytab    string // path; read anew at each login
}

// Address is where a KMS is.
type Address struct {
	Scheme string   // "http" or "https"
	Nodes  []string // host:port, at least one
	Path   string   // "/kms": without a slash at its end
}

// ParseURI reads a provider URI of Hadoop's, kms://https@h1;h2:9600/kms: all
// hosts have the port at the end, and without one that of the scheme. Beyond
// Hadoop's, a host may have a port of its own: kms://http@h1:9600;h2:9601/kms.
func ParseURI(uri string) (Address, error) {
	bad := func(what string) (Address, error) {
		return Address{}, &URIError{uri, what}
	}
	rest, ok := strings.CutPrefix(uri, "kms://")
	if !ok {
		return bad("does not begin with kms://")
	}
	authority, path, _ := strings.Cut(rest, "/")
	scheme, hosts, ok := strings.Cut(authority, "@")
	if !ok || scheme != "http" && scheme != "https" {
		return bad("names neither http@ nor https@")
	}
	if strings.ContainsAny(rest, "?#") {
		return bad("has a query or a fragment")
	}
	a := Address{Scheme: scheme, Path: strings.TrimSuffix("/"+path, "/")}
	if u, err := url.Parse(a.Path); err != nil || u.EscapedPath() != a.Path {
		return bad("has a path that is not one of a URL")
	}
	var names, ports []string
	for text := range strings.SplitSeq(hosts, ";") {
		host, port, err := splitHost(text)
		if err != nil {
			return bad(err.Error())
		}
		names, ports = append(names, host), append(ports, port)
	}
	last := ports[len(ports)-1]
	if last == "" {
		last = map[string]string{"http": "80", "https": "443"}[scheme]
	}
	seen := map[string]bool{}
	for i, host := range names {
		if ports[i] == "" {
			ports[i] = last
		}
		addr := net.JoinHostPort(host, ports[i])
		if seen[strings.ToLower(addr)] {
			return bad("names " + addr + " twice")
		}
		seen[strings.ToLower(addr)] = true
		a.Nodes = append(a.Nodes, addr)
	}
	return a, nil
}

// splitHost cuts host and optional port.
func splitHost(text string) (host, port string, err error) {
	host = text
	if i := strings.LastIndexByte(text, ':'); i >= 0 && !strings.HasSuffix(text, "]") {
		host, port = text[:i], text[i+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", "", fmt.Errorf("has the port %q, no number from 1 to 65535", port)
		}
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
		if net.ParseIP(host) == nil {
			return "", "", fmt.Errorf("has the address %q", host)
		}
		return host, port, nil
	}
	if strings.Contains(host, ",") {
		return "", "", errors.New("divides hosts by a comma, not a semicolon")
	}
	if host == "" || strings.ContainsFunc(host, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._", r))
	}) {
		return "", "", fmt.Errorf("has the host %q", host)
	}
	return host, port, nil
}

func (c *Config) check() error {
	var errs []error
	if c.Scheme != "http" && c.Scheme != "https" {
		errs = append(errs, fmt.Errorf("scheme %q is neither http nor https", c.Scheme))
	}
	if len(c.Nodes) == 0 {
		errs = append(errs, errors.New("no node is named"))
	}
	if c.Service == "" {
		errs = append(errs, errors.New("the name by which the upstream knows edekd is empty"))
	}
	if c.Kerberos != nil && (c.Kerberos.Principal == "" || c.Kerberos.Keytab == "") {
		errs = append(errs, errors.New("Kerberos needs both a principal and a keytab"))
	}
	return errors.Join(errs...)
}
