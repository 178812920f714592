package drive

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// conn is one connection with at most one request under way.
type conn struct {
	socket  *socket
	secure  *tls.Conn // nil: plain
	buf     []byte
	filled  int
	need    int  // bytes of the whole answer, once its head is there; chunked: it ends itself
	arrival int  // which one it serves, for Open
	lenient bool // an answer other than 200 is one, too
	refused bool // the last answer was another
}

const (
	unknown = 0
	chunked = -1
)

func dial(t Target) (*conn, error) {
	s, err := connect(t.Network, t.Addr)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", t.Addr, err)
	}
	c := &conn{socket: s, buf: make([]byte, 8<<10)}
	if t.TLS != nil {
		c.secure = tls.Client(s, t.TLS)
		if err := c.secure.Handshake(); err != nil {
			return nil, errors.Join(fmt.Errorf("TLS with %s: %w", t.Addr, err), s.Close())
		}
	}
	if err := unix.SetNonblock(s.fd, true); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return c, nil
}

// send writes a whole request.
func (c *conn) send(request []byte) (err error) {
	c.filled, c.need, c.refused = 0, unknown, false
	if c.secure != nil {
		_, err = c.secure.Write(request)
	} else {
		_, err = c.socket.Write(request)
	}
	return err
}

// receive reads what has come and says whether the answer is complete.
func (c *conn) receive() (done bool, err error) {
	for {
		if c.filled == len(c.buf) {
			c.buf = append(c.buf, make([]byte, len(c.buf))...)
		}
		var n int
		if c.secure != nil {
			n, err = c.secure.Read(c.buf[c.filled:])
		} else {
			n, err = c.socket.Read(c.buf[c.filled:])
		}
		c.filled += n
		if err == errNotYet {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("reading an answer: %w", err)
		}
		// epoll tells again of what is left in a socket, but knows nothing of
		// what the TLS layer has read already.
		if done, err = c.complete(); done || err != nil || c.secure == nil {
			return done, err
		}
	}
}

var (
	success       = []byte("HTTP/1.1 200")
	endOfHead     = []byte("\r\n\r\n")
	contentLength = []byte("\r\nContent-Length: ")
	isChunked     = []byte("\r\nTransfer-Encoding: chunked\r\n")
	lastChunk     = []byte("\r\n0\r\n\r\n")
)

// complete says whether buf holds the whole answer.
func (c *conn) complete() (bool, error) {
	got := c.buf[:c.filled]
	if c.need == unknown {
		end := bytes.Index(got, endOfHead)
		if end < 0 {
			return false, nil
		}
		head := got[:end+len(crlf)]
		if c.refused = !bytes.HasPrefix(head, success); c.refused && !c.lenient {
			return false, fmt.Errorf("the answer is not 200 but %.900q", got)
		}
		if at := bytes.Index(head, contentLength); at >= 0 {
			n := 0
			for _, digit := range head[at+len(contentLength):] {
				if digit < '0' || digit > '9' {
					break
				}
				n = 10*n + int(digit-'0')
			}
			c.need = end + len(endOfHead) + n
		} else if bytes.Contains(head, isChunked) {
			c.need = chunked
		} else {
			return false, fmt.Errorf("nobody can tell where this answer ends: %q", head)
		}
	}
	if c.need == chunked {
		return bytes.HasSuffix(got, lastChunk), nil
	}
	if c.filled > c.need {
		return false, fmt.Errorf("%d bytes follow the answer %.300q", c.filled-c.need, got)
	}
	return c.filled == c.need, nil
}

var crlf = []byte("\r\n")

// socket is a descriptor as the net.Conn that crypto/tls wants. It blocks until
// it is made non-blocking; then Read returns errNotYet where it would wait.
type socket struct{ fd int }

func connect(network, addr string) (*socket, error) {
	var to unix.Sockaddr
	domain := unix.AF_UNIX
	if network == "unix" {
		to = &unix.SockaddrUnix{Name: addr}
	} else {
		a, err := netip.ParseAddrPort(addr)
		if err != nil || !a.Addr().Is4() {
			return nil, fmt.Errorf("%q is not an IPv4 address with a port", addr)
		}
		domain, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	s := &socket{fd}
	if err := unix.Connect(fd, to); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if network != "unix" {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// notYet is an error that crypto/tls takes for a passing one.
type notYet struct{}

func (notYet) Error() string   { return "nothing to read yet" }
func (notYet) Timeout() bool   { return true }
func (notYet) Temporary() bool { return true }

var errNotYet net.Error = notYet{}

func (s *socket) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(s.fd, b)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return 0, errNotYet
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Write writes all of b and waits where the socket is full. The servers read a
// request whole before they answer, so they take it sooner or later.
func (s *socket) Write(b []byte) (written int, err error) {
	for written < len(b) {
		n, err := unix.Write(s.fd, b[written:])
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			room := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}
			if _, err := unix.Poll(room, int(stuck.Milliseconds())); err != nil && err != unix.EINTR {
				return written, err
			}
		case err != nil:
			return written, err
		default:
			written += n
		}
	}
	return written, nil
}

func (s *socket) Close() error                     { return unix.Close(s.fd) }
func (s *socket) LocalAddr() net.Addr              { return nil }
func (s *socket) RemoteAddr() net.Addr             { return nil }
func (s *socket) SetDeadline(time.Time) error      { return nil }
func (s *socket) SetReadDeadline(time.Time) error  { return nil }
func (s *socket) SetWriteDeadline(time.Time) error { return nil }
