// Package peer tells where a request comes from when there are proxies between
// the client and this server.
//
// Only proxies that are listed are believed. They tell the client's address by
// one of two ways:
//
//   - the PROXY protocol, version 2 or 1: a header before all other bytes of the
//     connection, TLS's included. A listed proxy must send it, within 5 s; one that
//     sends the command LOCAL (a health check) stands for itself. From everybody
//     else such a header is what it looks like, a broken request.
//   - the HTTP header X-Forwarded-For: the right-most address in it that is no
//     listed proxy's. What stands left of that was written by the client and is not
//     looked at.
//
// The listeners belong together in this order: TCP, Peers.Listener, the proxy
// package's Listener, TLS.
package peer

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/hadoop/conf"
)

// Protocol is how proxies tell the client's address.
type Protocol string

// The values of edekd.proxies.protocol.
const (
	None         Protocol = "none"
	ProxyV2      Protocol = "proxy-v2"        // the PROXY protocol; version 1 is understood as well
	ForwardedFor Protocol = "x-forwarded-for" // the HTTP header
)

const (
	trustedProperty  = "edekd.proxies.trusted"
	protocolProperty = "edekd.proxies.protocol"
)

// forwardedForHeader is the header as fasthttp normalizes its name. Trailers of
// this name, which would come from the client, fasthttp refuses.
const forwardedForHeader = "X-Forwarded-For"

// maxTrusted bounds the list that each address is compared with.
const maxTrusted = 1000

// Peers finds the addresses of clients. Any number of goroutines may use it.
type Peers struct {
	// OnRefused, if set before the first use, is told of connections of listed
	// proxies that were refused because they did not begin with a readable PROXY
	// header. Connections that end without a byte, as health checks make them,
	// are not told of. It is called by many goroutines at once.
	OnRefused func(proxy netip.Addr, err error)

	trusted  []netip.Prefix
	protocol Protocol
}

// New returns Peers that believe the trusted proxies what they say by protocol.
// The zero Protocol is None.
func New(trusted []netip.Prefix, protocol Protocol) *Peers {
	return &Peers{trusted: trusted, protocol: protocol}
}

// Load returns the Peers that edekd.proxies.trusted (addresses and networks,
// divided by commas) and edekd.proxies.protocol describe. Errors are of type
// *conf.ValueError and name the remedy.
func Load(c *conf.Configuration) (*Peers, error) {
	word, err := c.String(protocolProperty, string(None))
	if err != nil {
		return nil, err
	}
	protocol := Protocol(word)
	if !slices.Contains([]Protocol{None, ProxyV2, ForwardedFor}, protocol) {
		return nil, c.Wrong(protocolProperty, fmt.Errorf("is no protocol of proxies: use %s, %s or %s", None, ProxyV2, ForwardedFor))
	}
	list, err := c.Strings(trustedProperty)
	if err != nil {
		return nil, err
	}
	switch {
	case len(list) > 0 && protocol == None:
		return nil, c.Wrong(trustedProperty, fmt.Errorf("has no effect without %s: set it to %s or %s", protocolProperty, ProxyV2, ForwardedFor))
	case len(list) == 0 && protocol != None:
		return nil, c.Wrong(protocolProperty, fmt.Errorf("has no effect without %s: set it to the addresses of the proxies", trustedProperty))
	case len(list) > maxTrusted:
		return nil, c.Wrong(trustedProperty, fmt.Errorf("has more than %d entries: join them to networks", maxTrusted))
	}
	var trusted []netip.Prefix
	for _, text := range list {
		network, err := parseNetwork(text)
		if err != nil {
			return nil, c.Wrong(trustedProperty, err)
		}
		trusted = append(trusted, network)
	}
	return New(trusted, protocol), nil
}

// parseNetwork reads an address or a network that is not everything.
func parseNetwork(text string) (netip.Prefix, error) {
	var network netip.Prefix
	var err error
	if strings.Contains(text, "/") {
		network, err = netip.ParsePrefix(text)
	} else {
		var addr netip.Addr
		addr, err = netip.ParseAddr(text)
		network = netip.PrefixFrom(addr, addr.BitLen())
	}
	if addr := network.Addr(); addr.Is4In6() && network.Bits() >= 96 {
		network = netip.PrefixFrom(addr.Unmap(), network.Bits()-96)
	}
	switch {
	case err != nil || network.Addr().Is4In6() || strings.Contains(text, "%"):
		return network, fmt.Errorf("names %q, which is neither address nor network: write it like 10.0.0.5, 10.0.0.0/24 or 2001:db8::5, not as a host name", text)
	case network.Bits() == 0:
		return network, fmt.Errorf("names %q, by which everybody may say to be anybody: name the proxies only", text)
	}
	return network.Masked(), nil
}

// Addr returns the address of the client that sent a request, IPv4 in its own
// form and without zone. It is not valid for connections that have no IP
// address. Where a listed proxy says nothing that can be understood, it is the
// proxy's own. It allocates only to read X-Forwarded-For.
func (p *Peers) Addr(ctx *fasthttp.RequestCtx) netip.Addr {
	addr := address(ctx.RemoteAddr())
	if p.protocol != ForwardedFor || !p.trusts(addr) {
		return addr
	}
	if client, ok := p.forwardedFor(ctx.Request.Header.PeekAll(forwardedForHeader)); ok {
		return client
	}
	return addr
}

func address(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return normal(tcp.AddrPort().Addr())
	}
	return netip.Addr{}
}

func normal(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

func (p *Peers) trusts(addr netip.Addr) bool {
	for i := range p.trusted {
		if p.trusted[i].Contains(addr) {
			return true
		}
	}
	return false
}
