package zookeeper

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"
)

// maxConnectReply bounds the server's answer to the begin of a session, in
// bytes.
const maxConnectReply = 4096

// dialer opens connections for the ZooKeeper library. What went wrong last is
// kept for whoever waits: the library only logs it.
type dialer struct {
	ctx     context.Context // ends with the connection's owner
	timeout time.Duration   // for one server
	login   *kerberos       // nil: none

	mu      sync.Mutex
	fault   error
	current net.Conn       // the last one opened
	watched map[string]int // paths whose reads set a watch; how many ask for it
}

// watch makes reads of a path set a watch until the function that it returns is
// called. The library must not set them itself: it would set them again after
// each loss of the connection, and while it does so read what its receiver
// writes (lastZxid in sendSetWatches and recvLoop of v1.0.4).
func (d *dialer) watch(path string) (end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.watched == nil {
		d.watched = map[string]int{}
	}
	d.watched[path]++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.watched[path]--; d.watched[path] == 0 {
			delete(d.watched, path)
		}
	}
}

func (d *dialer) isWatched(path []byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.watched[string(path)] > 0
}

func (d *dialer) fail(server string, err error) error {
	err = fmt.Errorf("%s: %w", server, err)
	d.mu.Lock()
	d.fault = err
	d.mu.Unlock()
	return err
}

// lastFault returns why the last attempt failed, nil if it did not.
func (d *dialer) lastFault() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fault
}

// hangUp ends the connection, so that the library looks for another server.
func (d *dialer) hangUp() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current != nil {
		d.current.Close()
	}
}

// dial is a zk.Dialer. Its time limit is the dialer's, not the library's second.
func (d *dialer) dial(network, server string, _ time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, d.timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, network, server)
	if err != nil {
		return nil, d.fail(server, err)
	}
	c := &opening{Conn: conn, dialer: d, server: server}
	c.unhook = context.AfterFunc(d.ctx, func() { conn.Close() })
	d.mu.Lock()
	d.current = conn
	d.mu.Unlock()
	return c, nil
}

// opening is a connection that authenticates before the library sees the answer
// to its first packet, which begins the session: the library knows no SASL.
type opening struct {
	net.Conn
	dialer *dialer
	server string
	unhook func() bool

	opened bool
	ready  []byte // of the server's answer, not read yet
}

// Read returns the server's bytes. Only the library's one reader calls it.
func (c *opening) Read(p []byte) (int, error) {
	if !c.opened {
		if err := c.open(); err != nil {
			return 0, c.dialer.fail(c.server, err)
		}
		c.opened = true
		c.dialer.mu.Lock()
		c.dialer.fault = nil
		c.dialer.mu.Unlock()
	}
	if len(c.ready) > 0 {
		n := copy(p, c.ready)
		c.ready = c.ready[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// Write sends a packet of the library's, which writes each at once.
func (c *opening) Write(p []byte) (int, error) {
	if path, ok := readPath(p); ok && c.dialer.isWatched(path) {
		watching := append([]byte(nil), p...)
		watching[len(watching)-1] = 1
		return c.Conn.Write(watching)
	}
	return c.Conn.Write(p)
}

// opGetData is the type of a request that reads a node.
const opGetData = 4

// readPath returns the path in a packet that reads a node: length, request
// number and type, then the path behind its length, and the byte that sets a
// watch.
func readPath(packet []byte) (path []byte, ok bool) {
	const head = 4 + 4 + 4 + 4
	if len(packet) <= head || binary.BigEndian.Uint32(packet[8:]) != opGetData ||
		uint64(binary.BigEndian.Uint32(packet[12:])) != uint64(len(packet)-head-1) {
		return nil, false
	}
	return packet[head : len(packet)-1], true
}

// open takes the server's answer and authenticates. An answer that the session
// has expired is for the library alone: a new one begins on the next connection.
func (c *opening) open() error {
	limit := c.dialer.timeout
	if c.dialer.login != nil {
		limit += kdcPatience
	}
	if err := c.Conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	frame, err := readFrame(c.Conn, maxConnectReply)
	if err != nil {
		return fmt.Errorf("begin a session: %w", err)
	}
	if !hasSession(frame) {
		// The library reads the answer and then leaves the connection open.
		defer c.Close()
	} else if c.dialer.login != nil {
		if err := c.dialer.login.converse(c.Conn, c.host()); err != nil {
			return fmt.Errorf("SASL: %w", err)
		}
	}
	c.ready = append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
	return c.Conn.SetDeadline(time.Time{})
}

// hasSession looks for a session ID other than 0 behind protocol version and
// timeout.
func hasSession(frame []byte) bool {
	return len(frame) >= 16 && binary.BigEndian.Uint64(frame[8:]) != 0
}

// host returns the name in the server's principal. Like Java's client it
// believes reverse DNS, and falls back to the name in the connection string.
func (c *opening) host() string {
	name, _, _ := net.SplitHostPort(c.server)
	address, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		return name
	}
	ctx, cancel := context.WithTimeout(c.dialer.ctx, c.dialer.timeout)
	defer cancel()
	names, err := net.DefaultResolver.LookupAddr(ctx, address)
	if err != nil || len(names) == 0 {
		return name
	}
	return strings.ToLower(strings.TrimSuffix(names[0], "."))
}

func (c *opening) Close() error {
	c.unhook()
	return c.Conn.Close()
}

// hosts is a zk.HostProvider that keeps the names of servers: they are looked up
// at every attempt, and Kerberos needs them.
type hosts struct {
	mu      sync.Mutex
	servers []string
	next    int
	tried   int // since a connection succeeded
}

// Init implements zk.HostProvider.
func (h *hosts) Init(servers []string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.servers = append([]string(nil), servers...)
	rand.Shuffle(len(h.servers), func(i, j int) {
		h.servers[i], h.servers[j] = h.servers[j], h.servers[i]
	})
	return nil
}

// Len implements zk.HostProvider.
func (h *hosts) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.servers)
}

// Next implements zk.HostProvider. The library pauses when all were tried.
func (h *hosts) Next() (server string, retryStart bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	retryStart = h.tried >= len(h.servers)
	if retryStart {
		h.tried = 0
	}
	h.tried++
	server = h.servers[h.next]
	h.next = (h.next + 1) % len(h.servers)
	return server, retryStart
}

// Connected implements zk.HostProvider.
func (h *hosts) Connected() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tried = 0
}
