package kms

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/edekd/edekd/bench/drive"
	"github.com/edekd/edekd/bench/process"
)

// startTime is how long a server may take until it serves.
const startTime = time.Minute

// Server is a running server of a measurement.
type Server struct {
	*process.Process
	Target drive.Target
	Dir    string // configuration; of edekd also its state
	Known  bool   // senders need no cookie

	profiles string // URL of Go's profiles of an edekd; "": there are none
}

// Options are what differs between the servers of a measurement.
type Options struct {
	CPU      int
	Dir      string     // exists; a bare server needs none
	Provider string     // URI; "": a new embedded store in Dir
	Site     Properties // further properties of kms-site.xml
	TLS      bool
	Unix     bool // the socket instead of the port
	Known    bool // with Unix: the kernel says that we are the NameNode
	Profiles bool // Go's profiles of an edekd can be fetched
	Threads  int  // GOMAXPROCS; 0: one
	Readers  int  // further users: reader0, reader1, …
}

func (o *Options) environment() []string {
	return append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", max(o.Threads, 1)))
}

// state is where edekd keeps its logs and, unless told otherwise, its keys.
func state(dir string) string { return filepath.Join(dir, "state") }

// AuditLog is the file edekd writes its audit lines to.
func (s *Server) AuditLog() string { return filepath.Join(state(s.Dir), "logs", "kms-audit.log") }

var profilesAddress = regexp.MustCompile(`profiles are served.*\baddress="?(http://[^/"]+/debug/pprof/)`)

var servingAddress = regexp.MustCompile(`edekd is serving.*\baddress="?https?://([^/"]+)/kms`)

// StartEdekd builds and starts an edekd and returns once it serves. What it says
// goes to edekd.log in its folder. A folder that was started in before keeps its
// keys.
func StartEdekd(o Options) (*Server, error) {
	binary, err := process.Build("./cmd/edekd")
	if err != nil {
		return nil, err
	}
	if o.Provider == "" {
		o.Provider = "sqlite://file@" + filepath.Join(state(o.Dir), "keys.db")
	}
	site := slices.Concat(Properties{"edekd.state.dir", state(o.Dir), "edekd.drain.seconds", "0"}, o.Site)
	var target drive.Target
	if o.TLS {
		pem := filepath.Join(o.Dir, "server.pem")
		if err := WriteCertificate(pem); err != nil {
			return nil, err
		}
		site = append(site, "hadoop.kms.ssl.enabled", "true", "edekd.tls.certificate-file", pem, "edekd.tls.key-file", pem)
		target.TLS = clientTLS()
	}
	if o.Unix {
		site = append(site, "edekd.http.unix-socket", filepath.Join(o.Dir, "socket"))
	}
	if o.Known {
		site = append(site, "edekd.http.unix-socket.users", fmt.Sprintf("%d=%s", os.Getuid(), NameNode))
	}
	if o.Profiles {
		site = append(site, "edekd.profile.address", "127.0.0.1:0")
	}
	if err := WriteConfig(o.Dir, o.Provider, o.Readers, site); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(o.Dir, "edekd.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, "--config", o.Dir)
	cmd.Env = o.environment()
	said, err := cmd.StderrPipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	p, err := process.Start(cmd, o.CPU)
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	target.Network = "tcp"
	profiles := ""
	err = process.Await(said, log, startTime, func(line string) bool {
		if m := profilesAddress.FindStringSubmatch(line); m != nil {
			profiles = m[1]
		}
		m := servingAddress.FindStringSubmatch(line)
		if m != nil {
			target.Addr = m[1]
		}
		return m != nil
	})
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("edekd: %w\n%s", errors.Join(err, p.Stop()), text)
	}
	if o.Unix {
		target = drive.Target{Network: "unix", Addr: filepath.Join(o.Dir, "socket")}
	}
	return &Server{Process: p, Target: target, Dir: o.Dir, Known: o.Known, profiles: profiles}, nil
}

// profileTime is how long a profile of the heap may take.
const profileTime = 20 * time.Second

// Collector makes an edekd that was started with Profiles collect its garbage.
type Collector struct {
	conn  net.Conn
	r     *bufio.Reader
	asked bool // an answer is due
}

// Collector opens the connection for it. Close it.
func (s *Server) Collector() (*Collector, error) {
	u, err := url.Parse(s.profiles)
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		return nil, err
	}
	return &Collector{conn: conn, r: bufio.NewReader(conn)}, nil
}

// Collect asks for a collection and does not wait for it: a profile of the heap,
// just after it, comes along and is thrown away at the next call. The server closes
// the connection when that is more than a minute later.
func (c *Collector) Collect() error {
	if err := c.finish(); err != nil {
		return err
	}
	_, err := io.WriteString(c.conn, "GET /debug/pprof/heap?gc=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
	c.asked = err == nil
	return err
}

// finish reads the answer to the last question.
func (c *Collector) finish() error {
	if !c.asked {
		return nil
	}
	c.asked = false
	if err := c.conn.SetReadDeadline(time.Now().Add(profileTime)); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("a collection of garbage was answered with %s", resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// Close waits for the collection that was asked for last, and returns what went
// wrong with it.
func (c *Collector) Close() error { return errors.Join(c.finish(), c.conn.Close()) }

// clientTLS takes any certificate (the server is our child) and nothing older than
// TLS 1.3.
func clientTLS() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}
}

// Bare is a server that does nothing.
type Bare struct {
	Server
	orders io.WriteCloser
	heard  *bufio.Reader
}

// StartBare builds and starts a bare server. Only CPU, TLS, Unix, Dir and Threads
// of the options count.
func StartBare(o Options) (*Bare, error) {
	binary, err := process.Build("./bench/bare")
	if err != nil {
		return nil, err
	}
	var args []string
	target := drive.Target{Network: "tcp"}
	if o.TLS {
		pem := filepath.Join(o.Dir, "bare.pem")
		if err := WriteCertificate(pem); err != nil {
			return nil, err
		}
		args = append(args, "-tls", pem)
		target.TLS = clientTLS()
	}
	if o.Unix {
		target.Network = "unix"
		args = append(args, "-unix", filepath.Join(o.Dir, "bare.socket"))
	}
	cmd := exec.Command(binary, args...)
	cmd.Env = o.environment()
	cmd.Stderr = os.Stderr
	// Pipes of our own: those of exec are closed when the process ends, which
	// races with the last line.
	orders, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	heard, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = out
	p, err := process.Start(cmd, o.CPU)
	out.Close()
	if err != nil {
		return nil, errors.Join(err, heard.Close())
	}
	b := &Bare{Server: Server{Process: p, Target: target, Dir: o.Dir}, orders: orders, heard: bufio.NewReader(heard)}
	line, err := b.heard.ReadString('\n')
	addr, found := strings.CutPrefix(strings.TrimSpace(line), "serving ")
	if err != nil || !found {
		return nil, fmt.Errorf("the bare server said %q: %w", line, errors.Join(err, p.Stop()))
	}
	b.Target.Addr = addr
	return b, nil
}

// Mirror makes the bare server answer from now on what another server answered:
// the bytes that Exchange returns, of an edekd.
func (b *Bare) Mirror(answered []byte) error {
	head, body, found := bytes.Cut(answered, []byte("\r\n\r\n"))
	if !found {
		return fmt.Errorf("no answer to mirror: %q", answered)
	}
	var order struct {
		Header [][2]string
		Body   []byte
	}
	order.Body = body
	for _, line := range strings.Split(string(head), "\r\n")[1:] {
		name, value, _ := strings.Cut(line, ": ")
		if name != "Date" && name != "Content-Length" {
			order.Header = append(order.Header, [2]string{name, value})
		}
	}
	if err := json.NewEncoder(b.orders).Encode(&order); err != nil {
		return err
	}
	if line, err := b.heard.ReadString('\n'); err != nil || line != "ok\n" {
		return fmt.Errorf("the bare server said %q to an order: %w", line, err)
	}
	return nil
}

// Stop ends the bare server, which has nothing to lose.
func (b *Bare) Stop() error {
	err := b.orders.Close()
	<-b.Exited()
	return err
}
