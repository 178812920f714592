package peer

import (
	"bytes"
	"net/netip"
)

const (
	maxHops    = 32 // listed proxies one behind the other
	maxElement = 64 // bytes of an address with its port
)

// forwardedFor reads X-Forwarded-For from the right: each proxy adds the address
// of whom it got the request from at the end, the last to the last of the lines.
// It returns the first address that is no listed proxy's, or the left-most one if
// all are. ok is false if there is none, or something else stands before it: an
// empty element is no address, or what a proxy cannot tell would let the client's
// own words count.
func (p *Peers) forwardedFor(lines [][]byte) (client netip.Addr, ok bool) {
	hops := 0
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, comma := lines[i], 0; comma >= 0; rest = rest[:max(comma, 0)] {
			comma = bytes.LastIndexByte(rest, ',')
			client, ok = parseElement(bytes.Trim(rest[comma+1:], " \t"))
			if !ok || hops == maxHops {
				return netip.Addr{}, false
			}
			if !p.trusts(client) {
				return client, true
			}
			hops++
		}
	}
	return client, ok
}

// parseElement reads an address, with or without a port, that of IPv6 in
// brackets or not if there is no port.
func parseElement(text []byte) (netip.Addr, bool) {
	if len(text) == 0 || len(text) > maxElement || bytes.IndexByte(text, '%') >= 0 {
		return netip.Addr{}, false
	}
	s := string(text)
	if s[0] == '[' && s[len(s)-1] == ']' {
		addr, err := netip.ParseAddr(s[1 : len(s)-1])
		return normal(addr), err == nil && addr.Is6()
	}
	if addr, err := netip.ParseAddr(s); err == nil {
		return normal(addr), true
	}
	withPort, err := netip.ParseAddrPort(s)
	return normal(withPort.Addr()), err == nil
}
