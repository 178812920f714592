package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"encoding/xml"
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

const (
	patience = 20 * time.Second // for whatever should take a moment
	stopTime = 10 * time.Second // what the process contract says
)

// site is a folder that edekd is started with, and the changes to the usual
// kms-site.xml that a test wants.
type site struct {
	dir   string   // configuration
	state string   // edekd.state.dir
	env   []string // added to the environment
	shell string   // what a shell does before edekd takes its place
	first string   // the kms-site.xml of the beginning, once it was replaced
	as    *syscall.Credential
}

// newSite makes a configuration for one node that trusts everybody, on a free
// port of the loopback address, with properties name, value, ….
func newSite(t *testing.T, properties ...string) *site {
	t.Helper()
	s := &site{dir: t.TempDir()}
	s.state = filepath.Join(s.dir, "state")
	var b strings.Builder
	b.WriteString("<configuration>\n")
	for all := append([]string{
		"hadoop.kms.http.host", "127.0.0.1",
		"hadoop.kms.http.port", "0",
		"hadoop.kms.key.authorization.enable", "false",
		"edekd.state.dir", s.state,
		"edekd.drain.seconds", "0",
	}, properties...); len(all) > 0; all = all[2:] {
		b.WriteString("<property><name>" + all[0] + "</name><value>")
		if err := xml.EscapeText(&b, []byte(all[1])); err != nil {
			t.Fatal(err)
		}
		b.WriteString("</value></property>\n")
	}
	b.WriteString("</configuration>\n")
	write(t, filepath.Join(s.dir, "kms-site.xml"), b.String())
	return s
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// process is a running edekd.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	base string // http://127.0.0.1:PORT

	exited chan struct{} // closed when the process has ended
	mu     sync.Mutex
	log    []string
}

var servingLine = regexp.MustCompile(`msg="edekd is serving" address=(https?://127\.0\.0\.1:\d+)/kms `)

func (s *site) command() *exec.Cmd {
	cmd := exec.Command(binary, "--config", s.dir)
	if s.shell != "" {
		cmd = exec.Command("sh", "-c", s.shell+`; exec "$0" "$@"`, binary, "--config", s.dir)
	}
	cmd.Env = append(append(os.Environ(), "HOME="+s.dir), s.env...)
	if s.as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	}
	return cmd
}

// start starts edekd and waits until it says that it serves. The process does
// not outlive the test.
func (s *site) start(t *testing.T) *process {
	t.Helper()
	return follow(t, s.command())
}

func follow(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, exited: make(chan struct{})}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	serving := make(chan string, 1)
	go func() {
		defer close(p.exited)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			p.mu.Lock()
			p.log = append(p.log, lines.Text())
			p.mu.Unlock()
			if m := servingLine.FindStringSubmatch(lines.Text()); m != nil {
				serving <- m[1]
			}
		}
		cmd.Wait()
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("edekd said:\n%s", p.said())
		}
	})
	select {
	case p.base = <-serving:
	case <-p.exited:
		t.Fatalf("edekd ended at start, exit code %d", cmd.ProcessState.ExitCode())
	case <-time.After(patience):
		t.Fatal("edekd does not say that it serves")
	}
	return p
}

// refused runs edekd, which must end with exit code 2, and returns what it said.
func (s *site) refused(t *testing.T) string {
	t.Helper()
	cmd := s.command()
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	giveUp := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer giveUp.Stop()
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 2 {
		t.Fatalf("exit code %d, want 2:\n%s", code, out.String())
	}
	if !strings.Contains(out.String(), " Try: ") {
		t.Errorf("no remedy in\n%s", out.String())
	}
	return out.String()
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.log, "\n")
}

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// ended waits for the end of the process, which must be a clean one within the
// ten seconds of the contract.
func (p *process) ended() {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(stopTime):
		p.t.Fatalf("edekd still runs %v after the signal", stopTime)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.t.Errorf("%v, want exit code 0", p.cmd.ProcessState)
	}
}

func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	p.ended()
	if !strings.HasSuffix(p.said(), `level=INFO msg="edekd has stopped"`) {
		p.t.Error("the log does not end with the end")
	}
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.exited
}

// eventually polls until ok returns true.
func (p *process) eventually(what string, ok func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			p.t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (p *process) eventuallySays(text string) {
	p.t.Helper()
	p.eventually("the log says "+text, func() bool { return strings.Contains(p.said(), text) })
}

// fresh is a client that opens a connection for each request.
var fresh = &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}

// kept is a client that keeps its connections.
var kept = &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}

// call sends a request as user "test" and decodes a JSON answer into result,
// unless that is nil. It returns the status, 0 with an error when there is no
// whole answer.
func (p *process) call(client *http.Client, method, path, body string, result any) (int, error) {
	mark := "?"
	if strings.Contains(path, "?") {
		mark = "&"
	}
	req, err := http.NewRequest(method, p.base+path+mark+"user.name=test", strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	if result != nil && resp.StatusCode < 300 {
		if err := json.Unmarshal(content, result); err != nil {
			return 0, fmt.Errorf("%s %s: %d %q: %w", method, path, resp.StatusCode, content, err)
		}
	}
	return resp.StatusCode, nil
}

// must is call for an answer of 200 or 201.
func (p *process) must(method, path, body string, result any) {
	p.t.Helper()
	if status, err := p.call(fresh, method, path, body, result); err != nil || status > 201 {
		p.t.Fatalf("%s %s: %d %v", method, path, status, err)
	}
}

// wrapped is an encrypted key with what is in it.
type wrapped struct {
	version, key string // key version, and name of the key
	request      string // what to send to have it decrypted
	dek          string
}

var errStatus = errors.New("unexpected status")

// encrypt has an encrypted key made with the current version of a key, and
// decrypted.
func (p *process) encrypt(client *http.Client, key string) (*wrapped, error) {
	var made []struct {
		Version   string `json:"versionName"`
		IV        string `json:"iv"`
		Encrypted struct {
			Material string `json:"material"`
		} `json:"encryptedKeyVersion"`
	}
	status, err := p.call(client, "GET", "/kms/v1/key/"+key+"/_eek?eek_op=generate&num_keys=1", "", &made)
	if err != nil {
		return nil, err
	}
	if status != 200 || len(made) != 1 {
		return nil, fmt.Errorf("generate: %w %d", errStatus, status)
	}
	request, err := json.Marshal(map[string]string{"name": key, "iv": made[0].IV, "material": made[0].Encrypted.Material})
	if err != nil {
		return nil, err
	}
	s := &wrapped{version: made[0].Version, key: key, request: string(request)}
	s.dek, err = p.decrypt(client, s)
	return s, err
}

func (p *process) decrypt(client *http.Client, s *wrapped) (string, error) {
	var dek struct {
		Material string `json:"material"`
	}
	status, err := p.call(client, "POST", "/kms/v1/keyversion/"+s.version+"/_eek?eek_op=decrypt", s.request, &dek)
	if err != nil {
		return "", err
	}
	if status != 200 || dek.Material == "" {
		return "", fmt.Errorf("decrypt with %s: %w %d", s.version, errStatus, status)
	}
	return dek.Material, nil
}
