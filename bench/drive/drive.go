// Package drive is the client of the measurements: as little client as there can
// be, so that one core of it keeps a server on another core busy.
//
// One thread serves all connections of a Pool with epoll and bare read and write
// calls. Requests are bytes made beforehand; of an answer only its status and its
// end are looked at. A connection has one request under way at a time.
//
// Two ways to load: Closed sends a connection's next request when its last one
// was answered, and finds what a server can do. Open sends by a plan that no
// server can slow down and counts latency from when a request was due, sent or
// not, so that a stall is felt by all it held up (no coordinated omission).
package drive

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Requests are the bytes of the requests that a load chooses from.
type Requests [][]byte

// pick returns one of them, all with the same probability.
func (r Requests) pick(random *rand.Rand) []byte {
	if len(r) == 1 {
		return r[0]
	}
	return r[random.IntN(len(r))]
}

// Target says where a pool connects to.
type Target struct {
	Network string // tcp or unix
	Addr    string // host:port, or the path of a socket
	// TLS is used where it is not nil.
	TLS *tls.Config
}

// Pool is a set of open connections to one server. It is for one goroutine.
type Pool struct {
	target Target
	epoll  int
	conns  []*conn // by what epoll calls them
	events []unix.EpollEvent
	random *rand.Rand
}

// stuck is how long nothing at all may come from a server with requests to answer.
const stuck = 30 * time.Second

// NewPool opens connections and sends hello over each: servers give up on those
// that nobody speaks on. Close it.
func NewPool(t Target, connections int, hello []byte) (*Pool, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	p := &Pool{target: t, epoll: epoll, events: make([]unix.EpollEvent, 1024), random: rand.New(rand.NewPCG(5, 6))}
	for range connections {
		if err := p.open(); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	if _, err := p.Closed(0, connections, Requests{hello}); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Pool) open() error {
	c, err := dial(p.target)
	if err != nil {
		return err
	}
	p.conns = append(p.conns, c)
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(len(p.conns) - 1)}
	return unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, c.socket.fd, &event)
}

// Len is the number of connections.
func (p *Pool) Len() int { return len(p.conns) }

// Close closes all connections.
func (p *Pool) Close() error {
	err := unix.Close(p.epoll)
	for _, c := range p.conns {
		err = errors.Join(err, c.socket.Close())
	}
	return err
}

// Closed keeps the first `active` connections busy for a time and returns how many
// requests were answered. When it returns, none is under way. An answer other
// than 200 is an error.
func (p *Pool) Closed(length time.Duration, active int, requests Requests) (answered int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, c := range p.conns[:active] {
		if err := c.send(requests.pick(p.random)); err != nil {
			return 0, err
		}
	}
	end := time.Now().Add(length)
	for under := active; under > 0; {
		n, err := p.wait(stuck)
		if err != nil {
			return answered, err
		}
		more := time.Now().Before(end)
		for _, event := range p.events[:n] {
			c := p.conns[event.Fd]
			done, err := c.receive()
			if err != nil {
				return answered, err
			}
			if !done {
				continue
			}
			answered++
			if !more {
				under--
			} else if err := c.send(requests.pick(p.random)); err != nil {
				return answered, err
			}
		}
	}
	return answered, nil
}

// Each sends n requests one after the other over the first connection, the i-th
// being requests[i % len], and returns how long each took.
func (p *Pool) Each(n int, requests Requests) ([]time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	took := make([]time.Duration, 0, n)
	c := p.conns[0]
	for i := range n {
		begin := time.Now()
		if err := c.send(requests[i%len(requests)]); err != nil {
			return took, err
		}
		for done := false; !done; {
			if _, err := p.wait(stuck); err != nil {
				return took, err
			}
			var err error
			if done, err = c.receive(); err != nil {
				return took, err
			}
		}
		took = append(took, time.Since(begin))
	}
	return took, nil
}

// wait returns how many connections have something to read, at least one.
func (p *Pool) wait(limit time.Duration) (int, error) {
	for {
		n, err := unix.EpollWait(p.epoll, p.events, int(limit.Milliseconds()))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, fmt.Errorf("%s answers nothing for %v", p.target.Addr, limit)
		default:
			return n, nil
		}
	}
}

// Exchange sends one request over the first connection and returns the whole
// answer, head and body, valid until the next request.
func (p *Pool) Exchange(request []byte) ([]byte, error) {
	c := p.conns[0]
	if err := c.send(request); err != nil {
		return nil, err
	}
	for {
		if _, err := p.wait(stuck); err != nil {
			return nil, err
		}
		done, err := c.receive()
		if err != nil {
			return nil, err
		}
		if done {
			return c.buf[:c.filled], nil
		}
	}
}
