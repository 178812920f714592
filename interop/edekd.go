package interop

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Edekd is an edekd started as a child process on the loopback interface, with
// simple authentication and every operation open to everyone.
type Edekd struct {
	// Addr is the host:port it serves on, the same after a restart.
	Addr string

	scheme     string // http or https
	client     *http.Client
	dir, state string
	properties []string
	env        []string
	cmd        *exec.Cmd
	exited     chan error

	mu  sync.Mutex
	log []string
}

const (
	edekdStart = 20 * time.Second // from exec to ready
	edekdStop  = 15 * time.Second // the process contract says ten
)

var servingAddress = regexp.MustCompile(`edekd is serving.*\baddress="?(https?://[^/"]+)/kms`)

// buildEdekd compiles cmd/edekd once per test process. Concurrent processes wait
// for each other; go build itself leaves an up-to-date binary alone.
var buildEdekd = sync.OnceValues(func() (string, error) {
	root, err := repoRoot()
	if err != nil {
		return "", err
	}
	cache := filepath.Join(root, ".cache", "interop")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(filepath.Join(cache, "lock-edekd"))
	if err != nil {
		return "", err
	}
	defer unlock()
	binary := filepath.Join(cache, "edekd")
	build := exec.Command("go", "build", "-o", binary, "./cmd/edekd")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/edekd: %w\n%s", err, out)
	}
	return binary, nil
})

// StartEdekd runs edekd with a fresh configuration and an empty store, and
// returns once it is ready. properties are further name, value pairs of
// kms-site.xml. When the test ends, the process must stop cleanly on SIGTERM.
func StartEdekd(tb testing.TB, properties ...string) *Edekd {
	tb.Helper()
	return startEdekd(tb, edekdOptions{site: properties})
}

// edekdOptions are what a test changes of an edekd: name, value pairs that
// replace or join those of kms-site.xml and kms-acls.xml, environment variables,
// and for TLS the text of ssl-server.xml and a client that is let in.
type edekdOptions struct {
	site, rules, env []string
	ssl              string
	client           *http.Client
}

func startEdekd(tb testing.TB, o edekdOptions) *Edekd {
	tb.Helper()
	dir := tb.TempDir()
	e := &Edekd{dir: filepath.Join(dir, "conf"), state: filepath.Join(dir, "state"), properties: o.site, env: o.env,
		client: cmp.Or(o.client, http.DefaultClient)}
	if err := os.Mkdir(e.dir, 0o700); err != nil {
		tb.Fatal(err)
	}
	writeKMSConfig(tb, e.dir, "sqlite://file@"+filepath.Join(e.state, "keys.db"), nil, o.rules)
	if o.ssl != "" {
		writeFile(tb, filepath.Join(e.dir, "ssl-server.xml"), o.ssl)
	}
	tb.Cleanup(func() {
		e.Stop(tb)
		if tb.Failed() {
			tb.Logf("edekd's log:\n%s", e.Log())
		}
	})
	e.Start(tb)
	return e
}

// ProviderURI is what clients put into hadoop.security.key.provider.path.
func (e *Edekd) ProviderURI() string { return "kms://" + e.scheme + "@" + e.Addr + "/kms" }

// Log returns what the process wrote to standard error so far, over all starts.
func (e *Edekd) Log() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.log, "\n")
}

// Start runs the process again on the same store and, after the first time, on
// the same port.
func (e *Edekd) Start(tb testing.TB) {
	tb.Helper()
	binary, err := buildEdekd()
	if err != nil {
		tb.Fatal(err)
	}
	port := "0"
	if e.Addr != "" {
		port = e.Addr[strings.LastIndexByte(e.Addr, ':')+1:]
	}
	e.writeSite(tb, port)

	cmd := exec.Command(binary, "--config", e.dir)
	cmd.Env = append(os.Environ(), e.env...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	e.cmd, e.exited = cmd, make(chan error, 1)
	address := make(chan string, 1)
	go func() {
		e.follow(stderr, address)
		e.exited <- cmd.Wait()
	}()

	deadline := time.NewTimer(edekdStart)
	defer deadline.Stop()
	select {
	case base := <-address:
		e.scheme, e.Addr, _ = strings.Cut(base, "://")
	case err := <-e.exited:
		e.cmd = nil
		tb.Fatalf("edekd ended at start: %v\n%s", err, e.Log())
	case <-deadline.C:
		tb.Fatalf("edekd named no address within %v:\n%s", edekdStart, e.Log())
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		response, err := e.client.Get(e.scheme + "://" + e.Addr + "/readyz")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			tb.Fatalf("edekd was not ready within %v (last: %v):\n%s", edekdStart, err, e.Log())
		}
	}
}

// Stop ends the process by SIGTERM and fails the test unless it exits with
// status 0 in time. It does nothing when the process is not running.
func (e *Edekd) Stop(tb testing.TB) {
	tb.Helper()
	if e.cmd == nil {
		return
	}
	cmd := e.cmd
	e.cmd = nil
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		tb.Errorf("SIGTERM to edekd: %v", err)
	}
	select {
	case err := <-e.exited:
		if err != nil {
			tb.Errorf("edekd after SIGTERM: %v", err)
		}
	case <-time.After(edekdStop):
		tb.Errorf("edekd still ran %v after SIGTERM", edekdStop)
		if err := cmd.Process.Kill(); err != nil {
			tb.Errorf("killing edekd: %v", err)
		}
		<-e.exited
	}
}

// writeSite replaces the kms-site.xml of WriteKMSConfig by one that names the
// port, the state folder and the test's own properties, and lets no test wait
// for balancers that aren't there.
func (e *Edekd) writeSite(tb testing.TB, port string) {
	tb.Helper()
	writeFile(tb, filepath.Join(e.dir, "kms-site.xml"), siteXML(append([]string{
		"hadoop.kms.http.host", "127.0.0.1",
		"hadoop.kms.http.port", port,
		"hadoop.kms.authentication.type", "simple",
		"edekd.state.dir", e.state,
		"edekd.drain.seconds", "0",
	}, e.properties...)...))
}

// follow keeps every line of r and sends the first serving address it finds.
func (e *Edekd) follow(r io.Reader, address chan<- string) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if m := servingAddress.FindStringSubmatch(lines.Text()); m != nil {
			select {
			case address <- m[1]:
			default:
			}
		}
		e.mu.Lock()
		e.log = append(e.log, lines.Text())
		e.mu.Unlock()
	}
}
