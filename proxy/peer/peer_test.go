package peer

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/hadoop/conf"
)

// believing returns Peers for trusted proxies, written as in the configuration.
func believing(t testing.TB, trusted string, protocol Protocol) *Peers {
	t.Helper()
	c := conf.New(func(string) (string, bool) { return "", false }, nil)
	if trusted != "" {
		c.Override(trustedProperty, trusted, "test")
	}
	c.Override(protocolProperty, string(protocol), "test")
	p, err := Load(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// received returns a request with these header lines that comes from an address.
func received(t testing.TB, from string, headers ...string) *fasthttp.RequestCtx {
	t.Helper()
	ctx := &fasthttp.RequestCtx{}
	text := "GET / HTTP/1.1\r\nHost: h\r\n" + strings.Join(append(headers, "\r\n"), "\r\n")
	if len(headers) == 0 {
		text = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	}
	var req fasthttp.Request
	if err := req.Read(bufio.NewReader(strings.NewReader(text))); err != nil {
		t.Fatalf("%q: %v", headers, err)
	}
	ctx.Init(&req, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 4711)), nil)
	return ctx
}

func TestForwardedFor(t *testing.T) {
	p := believing(t, "10.0.0.5, 10.1.0.0/16, 2001:db8::5, ::ffff:10.2.0.0/112", ForwardedFor)
	f := func(from, want string, headers ...string) {
		t.Helper()
		if got := p.Addr(received(t, from, headers...)); got.String() != want {
			t.Errorf("from %s with %q: %s, want %s", from, headers, got, want)
		}
	}
	const h = "X-Forwarded-For: "

	// Believed are listed proxies only.
	f("10.0.0.5", "1.2.3.4", h+"1.2.3.4")
	f("::ffff:10.0.0.5", "1.2.3.4", h+"1.2.3.4")
	f("10.2.255.1", "1.2.3.4", h+"1.2.3.4")
	f("2001:db8::5", "1.2.3.4", h+"1.2.3.4")
	f("10.0.0.6", "10.0.0.6", h+"1.2.3.4")
	f("10.0.0.5", "10.0.0.5")

	// What the client wrote stands left, and may be anything.
	f("10.0.0.5", "1.2.3.4", h+"9.9.9.9, 1.2.3.4")
	f("10.0.0.5", "1.2.3.4", h+"127.0.0.1", h+"1.2.3.4")
	f("10.0.0.5", "1.2.3.4", h+"127.0.0.1, 10.0.0.5", h+"1.2.3.4")
	f("10.0.0.5", "1.2.3.4", h+"nonsense, 1.2.3.4")
	f("10.0.0.5", "1.2.3.4", h+",,,1.2.3.4")
	f("10.0.0.5", "1.2.3.4", h+strings.Repeat("x", 1000), h+"1.2.3.4")

	// Proxies behind proxies.
	f("10.0.0.5", "1.2.3.4", h+"9.9.9.9, 1.2.3.4, 10.1.0.1, 10.1.2.3")
	f("10.0.0.5", "1.2.3.4", h+"1.2.3.4", h+"10.1.0.1", h+"10.1.2.3")
	f("10.0.0.5", "10.1.0.1", h+"10.1.0.1, 10.1.2.3")
	f("10.0.0.5", "10.0.0.5", h+"1.2.3.4"+strings.Repeat(",10.1.0.1", maxHops+1))

	// Forms of addresses.
	f("10.0.0.5", "1.2.3.4", "x-FORWARDED-for:\t 1.2.3.4:65535 \t")
	f("10.0.0.5", "2001:db8::1", h+"2001:db8::1")
	f("10.0.0.5", "2001:db8::1", h+"[2001:db8::1]")
	f("10.0.0.5", "2001:db8::1", h+"[2001:DB8:0::1]:443")
	f("10.0.0.5", "1.2.3.4", h+"::ffff:1.2.3.4")
	f("10.0.0.5", "1.2.3.4", h+"1.2.3.4, ::ffff:10.1.2.3")

	// What is none leaves the proxy's own address, whatever else there is.
	for _, malformed := range []string{"", ",", "unknown", "1.2.3.4,", "1.2.3.4, ,10.1.0.1", "1.2.3", "01.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:x", "[1.2.3.4]", "[::1", "::1]", "[::1]x", "[]",
		"fe80::1%eth0", "[fe80::1%eth0]:1", `"1.2.3.4"`, "1.2.3.4 5.6.7.8", "1.2.3.4;5.6.7.8", "gateway.example.com", "_hidden", strings.Repeat("1", maxElement+1), "for=1.2.3.4"} {
		f("10.0.0.5", "10.0.0.5", h+malformed)
		f("10.0.0.5", "10.0.0.5", h+"1.2.3.4", h+malformed)
		f("10.0.0.5", "10.0.0.5", h+"1.2.3.4,"+malformed+",10.1.0.1")
	}

	// Headers that are not it.
	f("10.0.0.5", "10.0.0.5", "X_Forwarded_For: 1.2.3.4", "Forwarded: for=1.2.3.4", "X-Forwarded-For-: 1.2.3.4", "X-Real-IP: 1.2.3.4", "PROXY: TCP4 1.2.3.4 5.6.7.8 1 2")
	f("10.0.0.5", "1.2.3.4", h+"1.2.3.4", "X-Other: a\r\n X-Forwarded-For: 9.9.9.9")

	// Nobody is believed when nobody is listed, or another protocol is spoken.
	p = believing(t, "", None)
	f("10.0.0.5", "10.0.0.5", h+"1.2.3.4")
	p = believing(t, "10.0.0.5", ProxyV2)
	f("10.0.0.5", "10.0.0.5", h+"1.2.3.4")
}

// TestTrailersAreNotBelieved sends trailers, which fasthttp puts among the headers
// if it takes them.
func TestTrailersAreNotBelieved(t *testing.T) {
	addr := serve(t, believing(t, "127.0.0.1", ForwardedFor), nil)
	f := func(want, headers, trailer string) {
		t.Helper()
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n%s\r\n0\r\n%s\r\n", headers, trailer)
		if got := answer(t, conn); got != want {
			t.Errorf("%q, trailer %q: %s, want %s", headers, trailer, got, want)
		}
	}
	const h = "X-Forwarded-For: "
	f("1.2.3.4", h+"1.2.3.4\r\n", "")
	f("1.2.3.4", h+"1.2.3.4\r\n", "X-Other: 9.9.9.9\r\n")
	f("400", h+"1.2.3.4\r\n", h+"9.9.9.9\r\n")
	f("400", "", "x-forwarded-FOR: 9.9.9.9\r\n")
	f("400", "Trailer: X-Forwarded-For\r\n"+h+"1.2.3.4\r\n", "")
}

func TestAddrIsNotValidWithoutIP(t *testing.T) {
	ctx := &fasthttp.RequestCtx{}
	ctx.Init(&fasthttp.Request{}, &net.UnixAddr{Name: "/run/edekd.sock", Net: "unix"}, nil)
	for _, p := range []*Peers{believing(t, "", None), believing(t, "10.0.0.0/8", ForwardedFor)} {
		if addr := p.Addr(ctx); addr.IsValid() {
			t.Error(addr)
		}
	}
}

func TestAddrDoesNotAllocate(t *testing.T) {
	f := func(p *Peers, ctx *fasthttp.RequestCtx) {
		t.Helper()
		if n := testing.AllocsPerRun(100, func() { p.Addr(ctx) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
	f(believing(t, "", None), received(t, "10.0.0.5", "X-Forwarded-For: 1.2.3.4"))
	f(believing(t, "10.0.0.5", ForwardedFor), received(t, "10.0.0.5", "Accept: */*"))
	f(believing(t, "10.0.0.5", ForwardedFor), received(t, "10.0.0.6", "X-Forwarded-For: 1.2.3.4"))
}

func TestRefusedSettings(t *testing.T) {
	f := func(trusted, protocol, property, says string) {
		t.Helper()
		c := conf.New(func(string) (string, bool) { return "", false }, nil)
		if trusted != "" {
			c.Override(trustedProperty, trusted, "test")
		}
		if protocol != "" {
			c.Override(protocolProperty, protocol, "test")
		}
		_, err := Load(c)
		var value *conf.ValueError
		if !errors.As(err, &value) || value.Property.Name != property || !strings.Contains(err.Error(), says) {
			t.Errorf("%q, %q: %v", trusted, protocol, err)
		}
	}
	f("10.0.0.5", "", trustedProperty, "has no effect without edekd.proxies.protocol")
	f("10.0.0.5", "none", trustedProperty, "has no effect without edekd.proxies.protocol")
	f("", "proxy-v2", protocolProperty, "has no effect without edekd.proxies.trusted")
	f("10.0.0.5", "proxy", protocolProperty, "use none, proxy-v2 or x-forwarded-for")
	for _, text := range []string{"balancer", "10.0.0", "10.0.0.0/33", "010.0.0.1", "fe80::1%eth0", "::ffff:0:0/95", "10.0.0.5:80", "*"} {
		f("10.0.0.6,"+text, "proxy-v2", trustedProperty, "neither address nor network")
	}
	for _, text := range []string{"0.0.0.0/0", "::/0", "::ffff:0.0.0.0/96"} {
		f(text, "proxy-v2", trustedProperty, "everybody may say to be anybody")
	}
	var many []string
	for i := range maxTrusted + 1 {
		many = append(many, fmt.Sprintf("10.0.%d.%d", i/256, i%256))
	}
	f(strings.Join(many, ","), "proxy-v2", trustedProperty, "more than 1000 entries")
}

// FuzzForwardedFor compares the reading of arbitrary header lines with that of
// a slow reader.
func FuzzForwardedFor(f *testing.F) {
	f.Add("9.9.9.9, 1.2.3.4\n10.1.0.1,[2001:db8::1]:80")
	f.Add("::ffff:1.2.3.4:80,10.1.0.1\n,")
	f.Add("[::1]\n10.1.2.3:1 , 10.1.0.0")
	p := &Peers{trusted: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2001:db8::/32")}, protocol: ForwardedFor}
	f.Fuzz(func(t *testing.T, text string) {
		var lines [][]byte
		for line := range strings.SplitSeq(text, "\n") {
			lines = append(lines, []byte(line))
		}
		got, ok := p.forwardedFor(lines)
		want, wantOK := slowForwardedFor(strings.Split(strings.ReplaceAll(text, "\n", ","), ","), p)
		if ok != wantOK || ok && got != want {
			t.Errorf("%q: %v %v, want %v %v", text, got, ok, want, wantOK)
		}
	})
}

func slowForwardedFor(elements []string, p *Peers) (client netip.Addr, ok bool) {
	for n := range elements {
		element := strings.Trim(elements[len(elements)-1-n], " \t")
		if n == maxHops || len(element) > maxElement {
			return netip.Addr{}, false
		}
		if host, _, err := net.SplitHostPort(element); err == nil {
			if _, err := netip.ParseAddrPort(element); err != nil {
				return netip.Addr{}, false
			}
			element = host
		} else if inner, ok := strings.CutPrefix(element, "["); ok {
			if element, ok = strings.CutSuffix(inner, "]"); !ok || !strings.Contains(element, ":") {
				return netip.Addr{}, false
			}
		}
		addr, err := netip.ParseAddr(element)
		if err != nil || addr.Zone() != "" {
			return netip.Addr{}, false
		}
		if client = addr.Unmap(); !p.trusts(client) {
			break
		}
	}
	return client, true
}
