package authn

import (
	"net"
	"strconv"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/proxy/authn/cookie"
)

// Process is the remote address of a connection over a Unix socket: the process
// that opened it, as the kernel wrote it down then (SO_PEERCRED of unix(7)).
type Process struct {
	UID  uint32
	PID  int32
	told bool      // whether the kernel said it
	user *verified // nil: none that Config.Users names
}

// Network is "unix".
func (p *Process) Network() string { return "unix" }

// String is "unix:" with the uid.
func (p *Process) String() string {
	if !p.told {
		return "unix:?"
	}
	return "unix:" + strconv.FormatUint(uint64(p.UID), 10)
}

// Known reports whether requests over the connection need no other proof of who
// sends them.
func (p *Process) Known() bool { return p.user != nil }

// Listener wraps that of a Unix socket, beneath everything but the waiting for
// file descriptors: the remote addresses of its connections are Processes. The
// kernel is asked once for each connection.
//
// The connections have CloseWrite.
func (a *Authenticator) Listener(l net.Listener) net.Listener { return &unixListener{l, a} }

type unixListener struct {
	net.Listener
	a *Authenticator
}

func (l *unixListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c, ok := nc.(*net.UnixConn)
	if !ok {
		return nc, nil
	}
	process := &Process{}
	if credential, err := peerCredential(c); err == nil {
		*process = Process{UID: credential.Uid, PID: credential.Pid, told: true, user: l.a.users[credential.Uid]}
	} else {
		l.a.warn("the kernel does not tell who opened a connection: its sender has to authenticate", "error", err)
	}
	return &unixConn{c, process}, nil
}

type unixConn struct {
	*net.UnixConn
	process *Process
}

func (c *unixConn) RemoteAddr() net.Addr { return c.process }

func peerCredential(c *net.UnixConn) (credential *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	if controlErr := raw.Control(func(fd uintptr) {
		credential, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); controlErr != nil {
		return nil, controlErr
	}
	return credential, err
}

// ofUsers are the senders that Config.Users names. Name rules are not for them:
// those are short names already.
func ofUsers(names map[uint32]string) map[uint32]*verified {
	users := make(map[uint32]*verified, len(names))
	for uid, name := range names {
		users[uid] = &verified{id: Identity{Caller: edek.Caller{User: name, Full: name}, Type: TypeUnix, Expires: cookie.Never}}
	}
	return users
}

// fromProcess returns the user whose process sent the request, nil if the
// connection does not tell.
func fromProcess(ctx *fasthttp.RequestCtx) *verified {
	if p, ok := ctx.RemoteAddr().(*Process); ok {
		return p.user
	}
	return nil
}
