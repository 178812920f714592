// Package target reads the addresses of key management servers, as Hadoop's
// provider URI (kms://https@h1;h2:9600/kms) or as plain URLs, and tells which of
// them are on this machine.
package target

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Target is one server.
type Target struct {
	TLS  bool
	Host string // name or address, without port and brackets
	Addr string // host:port
	Path string // before /v1, like /kms
}

// String returns the URL.
func (t Target) String() string {
	scheme := "http"
	if t.TLS {
		scheme = "https"
	}
	return scheme + "://" + t.Addr + t.Path
}

// Parse reads one argument, which may name several hosts.
func Parse(text string) ([]Target, error) {
	if rest, ok := strings.CutPrefix(text, "kms://"); ok {
		return parseProvider(text, rest)
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%q is no URL: %w", text, err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil || u.Fragment != "" {
		return nil, fmt.Errorf("%q is neither like kms://http@host:9600/kms nor like http://host:9600/kms", text)
	}
	t, err := newTarget(u.Scheme, u.Hostname(), u.Port(), u.EscapedPath())
	if err != nil {
		return nil, fmt.Errorf("%q: %w", text, err)
	}
	return []Target{t}, nil
}

// parseProvider reads what follows kms://, in the way of Hadoop's
// KMSClientProvider: the scheme before the @, hosts between semicolons, one port
// for all of them.
func parseProvider(text, rest string) ([]Target, error) {
	scheme, rest, ok := strings.Cut(rest, "@")
	if !ok || scheme != "http" && scheme != "https" {
		return nil, fmt.Errorf("%q is not like kms://http@host:9600/kms", text)
	}
	authority, path, _ := strings.Cut(rest, "/")
	hosts, port := authority, ""
	if at := strings.LastIndexByte(authority, ':'); at > strings.LastIndexByte(authority, ']') {
		hosts, port = authority[:at], authority[at+1:]
	}
	var all []Target
	for host := range strings.SplitSeq(hosts, ";") {
		t, err := newTarget(scheme, strings.Trim(host, "[]"), port, "/"+path)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
		all = append(all, t)
	}
	return all, nil
}

func newTarget(scheme, host, port, path string) (Target, error) {
	if port == "" {
		port = "9600"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return Target{}, fmt.Errorf("port %q is no number between 1 and 65535", port)
	}
	if _, err := netip.ParseAddr(host); err != nil && !plain(host, "") || strings.Contains(host, "%") {
		return Target{}, fmt.Errorf("host %q is neither name nor address", host)
	}
	path = strings.TrimRight(path, "/")
	if path != "" && (path[0] != '/' || !plain(path, "/~")) {
		return Target{}, fmt.Errorf("path %q is not made of plain letters", path)
	}
	if path == "" {
		path = "/kms"
	}
	return Target{TLS: scheme == "https", Host: host, Addr: net.JoinHostPort(host, port), Path: path}, nil
}

// plain tells whether a text is made of letters, digits, dots, hyphens,
// underscores and what else is allowed.
func plain(text, also string) bool {
	for _, c := range text {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.ContainsRune(".-_"+also, c):
		default:
			return false
		}
	}
	return text != ""
}

// Loopback tells whether every address that a host's name stands for is on this
// machine's loopback network.
func Loopback(ctx context.Context, host string) (bool, error) {
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return false, err
	}
	for _, a := range addresses {
		if !a.Unmap().IsLoopback() {
			return false, nil
		}
	}
	return len(addresses) > 0, nil
}
