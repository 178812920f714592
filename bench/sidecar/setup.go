// Package sidecar measures an edekd that stands before another KMS, which is a
// network away: the goals that docs/sidecar.md promises as figures.
//
// All are processes of their own. The front has a core to itself; the KMS behind,
// the line between and the load share the other. The KMS behind is an edekd with
// its own keys, which costs little: what is measured is the front. Each part
// starts its servers anew, so none profits from what another has warmed.
package sidecar

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/edekd/edekd/bench/distance"
	"github.com/edekd/edekd/bench/drive"
	"github.com/edekd/edekd/bench/kms"
)

// Front is an edekd before the nodes of a KMS.
type Front struct {
	*kms.Server
	Client *kms.Client
	// Lines are the ways to the nodes, in their order.
	Lines []*distance.Line
}

// StartFront starts one on a core, each of the nodes, host:port, a round trip away.
// site are further properties. dir is for its files.
func StartFront(dir string, cpu int, roundTrip time.Duration, site kms.Properties, nodes ...string) (_ *Front, err error) {
	f := &Front{}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.closeLines())
		}
	}()
	var hosts []string
	for _, node := range nodes {
		line, err := distance.Listen("127.0.0.1:0", node, roundTrip)
		if err != nil {
			return nil, err
		}
		f.Lines = append(f.Lines, line)
		hosts = append(hosts, line.Addr())
	}
	f.Server, err = kms.StartEdekd(kms.Options{CPU: cpu, Dir: dir, Provider: "kms://http@" + strings.Join(hosts, ";") + "/kms",
		Site: append(kms.Properties{"edekd.upstream.user", kms.Service}, site...)})
	if err != nil {
		return nil, err
	}
	f.Client = kms.NewClient(f.Target)
	return f, nil
}

func (f *Front) closeLines() (err error) {
	for _, line := range f.Lines {
		err = errors.Join(err, line.Close())
	}
	return err
}

// Stop ends the front, and then the lines.
func (f *Front) Stop() error { return errors.Join(f.Server.Stop(), f.closeLines()) }

// KeyName is the name of the i-th key of the KMS behind.
func KeyName(i int) string { return fmt.Sprintf("key%06d", i) }

// setup is a front and the KMS behind it.
type setup struct {
	*Front
	cookie string // of the NameNode, at the front
	nodes  []*node
	dir    string
}

// node is a server of the KMS behind. down says that it was killed.
type node struct {
	*kms.Server
	options kms.Options
	down    bool
}

// with runs f before a KMS of so many nodes with so many keys, and ends them all.
func (o *Options) with(nodes, keys int, site kms.Properties, f func(*setup) error) (err error) {
	dir, err := os.MkdirTemp(memory(), "edekd-bench-")
	if err != nil {
		return err
	}
	s := &setup{dir: dir}
	defer func() { err = errors.Join(err, s.end()) }()
	addrs, err := s.startNodes(nodes, keys, o.ClientCPU)
	if err != nil {
		return err
	}
	front := filepath.Join(dir, "front")
	if err := os.Mkdir(front, 0o700); err != nil {
		return err
	}
	if s.Front, err = StartFront(front, o.ServerCPU, o.RoundTrip, site, addrs...); err != nil {
		return err
	}
	if s.cookie, err = s.Client.Cookie(kms.NameNode); err != nil {
		return err
	}
	return f(s)
}

// memory is a folder in memory, "" where the machine has none: stores of the KMS
// behind are not what is measured.
func memory() string {
	if _, err := os.Stat("/dev/shm"); err == nil {
		return "/dev/shm"
	}
	return ""
}

// startNodes makes keys in the store of one server, and gives each further one a
// copy of it. Keys that nobody changes are then the same everywhere.
func (s *setup) startNodes(nodes, keys, cpu int) (addrs []string, err error) {
	first := filepath.Join(s.dir, "node0")
	if err := os.Mkdir(first, 0o700); err != nil {
		return nil, err
	}
	maker, err := kms.StartEdekd(kms.Options{CPU: cpu, Dir: first})
	if err != nil {
		return nil, err
	}
	c := kms.NewClient(maker.Target)
	err = kms.Each(keys, func(i int) error { return c.Create(KeyName(i)) })
	if err = errors.Join(err, maker.Stop()); err != nil {
		return nil, err
	}
	for i := range nodes {
		dir := filepath.Join(s.dir, "node"+strconv.Itoa(i))
		if i > 0 {
			if err := copyPrivate(dir, first); err != nil {
				return nil, err
			}
		}
		s.nodes = append(s.nodes, &node{options: kms.Options{CPU: cpu, Dir: dir}, down: true})
	}
	for _, n := range s.nodes {
		if err := n.start(); err != nil {
			return nil, err
		}
		addrs = append(addrs, n.Target.Addr)
	}
	return addrs, nil
}

// copyPrivate copies a folder that nobody else may look at.
func copyPrivate(to, from string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	return filepath.WalkDir(to, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		return os.Chmod(path, 0o600)
	})
}

func (n *node) start() (err error) {
	if n.Server, err = kms.StartEdekd(n.options); err == nil {
		n.down = false
	}
	return err
}

// kill ends a server as a crash does.
func (n *node) kill() error {
	if err := n.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	n.down = true
	<-n.Exited()
	return nil
}

// restart starts a node that was killed, and leads its line there.
func (s *setup) restart(i int) error {
	if err := s.nodes[i].start(); err != nil {
		return err
	}
	s.Lines[i].Redirect(s.nodes[i].Target.Addr)
	return nil
}

func (s *setup) end() (err error) {
	if s.Front != nil {
		err = s.Front.Stop()
	}
	for _, n := range s.nodes {
		if !n.down {
			err = errors.Join(err, n.Stop())
		}
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// pool opens connections to the front, one of them for events.
func (s *setup) pool(connections int) (*drive.Pool, error) {
	return drive.NewPool(s.Target, connections+1, hello)
}

var hello = []byte("GET /healthz HTTP/1.1\r\nHost: front\r\n\r\n")

func (s *setup) generate(key int) []byte {
	return s.Client.GenerateRequest(KeyName(key), 1, s.cookie, "")
}

// calls is how many requests the front has made to the KMS behind, by its
// metrics. Probes of nodes out of use and logins are not among them.
func calls(values map[string]float64) (sum float64) {
	for name, v := range values {
		if strings.HasPrefix(name, "edekd_upstream_node_requests_total") {
			sum += v
		}
	}
	return sum
}

// sample is what the front's metrics said.
type sample struct {
	at     time.Time
	values map[string]float64
}

// watch reads the front's metrics every so often until stop is called.
func (f *Front) watch(every time.Duration) (stop func() ([]sample, error)) {
	var all []sample
	var failed error
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			var values map[string]float64
			if values, failed = f.Client.Metrics(); failed != nil {
				return
			}
			for name := range values {
				if !strings.HasPrefix(name, "edekd_upstream_") && !strings.HasPrefix(name, "edekd_ring_") {
					delete(values, name)
				}
			}
			all = append(all, sample{time.Now(), values})
			select {
			case <-end:
				return
			case <-tick.C:
			}
		}
	}()
	return func() ([]sample, error) {
		close(end)
		<-ended
		return all, failed
	}
}
