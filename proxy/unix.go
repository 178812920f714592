package proxy

import (
	"net"

	"github.com/edekd/edekd/proxy/authn"
)

// ServeUnix is Serve for a listener of authn's over a Unix socket.
func (s *Server) ServeUnix(l net.Listener) error {
	return s.serveUntilStopped(&s.local, knownListener{l, s})
}

// knownListener accepts connections that tell who sends their requests. Others
// get the server that asks each request: how large a body may be is decided
// before there is more to look at than its header.
type knownListener struct {
	net.Listener
	s *Server
}

func (l knownListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || known(c.RemoteAddr()) {
			return c, err
		}
		if l.s.isStopped() {
			c.Close()
			continue
		}
		go l.s.http.ServeConn(c)
	}
}

func known(a net.Addr) bool {
	process, ok := a.(*authn.Process)
	return ok && process.Known()
}

func (s *Server) isStopped() bool {
	s.serving.Lock()
	defer s.serving.Unlock()
	return s.stopped
}
