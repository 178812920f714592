package peer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
)

// headerTime is how long a proxy may take to send its header.
const headerTime = 5 * time.Second

// Listener wraps the TCP listener, beneath everything else. With the protocol
// ProxyV2 the connections of listed proxies have the remote address that their
// header tells, which is read by the first Read, Write or RemoteAddr: these wait
// for it. A connection without a readable header fails them all. Other connections
// come as they are; with other protocols all do.
//
// The connections have CloseWrite, as TCP's have.
func (p *Peers) Listener(l net.Listener) net.Listener {
	if p.protocol != ProxyV2 {
		return l
	}
	return &listener{l, p}
}

type listener struct {
	net.Listener
	peers *Peers
}

func (l *listener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil || !l.peers.trusts(address(nc.RemoteAddr())) {
		return nc, err
	}
	raw := &socket{Conn: nc}
	return &conn{
		Conn: proxyproto.NewConn(raw, proxyproto.WithPolicy(proxyproto.REQUIRE),
			proxyproto.SetReadHeaderTimeout(headerTime), proxyproto.ValidateHeader(reduce)),
		raw:   raw,
		peers: l.peers,
	}, nil
}

// reduce takes addresses out of a header that are no TCP addresses: the
// specification has the proxy's own counted then.
func reduce(h *proxyproto.Header) error {
	if _, _, ok := h.TCPAddrs(); !ok {
		h.SourceAddr, h.DestinationAddr = nil, nil
	}
	return nil
}

// socket is a connection that knows whether anything came.
type socket struct {
	net.Conn
	heard bool
}

func (s *socket) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.heard = s.heard || n > 0
	return n, err
}

// conn is the connection of a listed proxy.
type conn struct {
	*proxyproto.Conn
	raw   *socket
	peers *Peers
	once  sync.Once // tells of a header that was refused
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && c.Conn.ProxyHeader() == nil {
		if !c.raw.heard {
			return n, io.EOF
		}
		c.once.Do(func() { c.refused(err) })
	}
	return n, err
}

func (c *conn) refused(err error) {
	if errors.Is(err, proxyproto.ErrNoProxyProtocol) {
		err = fmt.Errorf("no PROXY header came within %v", headerTime)
	}
	if c.peers.OnRefused != nil {
		c.peers.OnRefused(address(c.raw.RemoteAddr()), fmt.Errorf("%w: have the proxy begin with a header of the PROXY protocol, also in its health checks (HAProxy: send-proxy-v2 check-send-proxy), or take it from %s", err, trustedProperty))
	}
}

// CloseWrite ends what is sent to the proxy.
func (c *conn) CloseWrite() error {
	tcp, ok := c.raw.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return tcp.CloseWrite()
}
