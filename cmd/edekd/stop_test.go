package main

import (
	"bufio"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dial opens a connection and sends what is given over it.
func (p *process) dial(sends string) net.Conn {
	p.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(p.base, "http://"))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		p.t.Fatal(err)
	}
	if _, err := io.WriteString(c, sends); err != nil {
		p.t.Fatal(err)
	}
	return c
}

func (p *process) answer(r *bufio.Reader) *http.Response {
	p.t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		p.t.Fatal(err)
	}
	return resp
}

const createHead = "POST /kms/v1/keys?user.name=test HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"

// TestStopDrains looks at a stop from all sides at once: probes, new
// connections, one that idles, and a request that was under way.
func TestStopDrains(t *testing.T) {
	const drain = 6 * time.Second // for all of what follows
	f := func(t *testing.T, sig syscall.Signal) {
		t.Parallel()
		p := newSite(t, "edekd.drain.seconds", fmt.Sprint(drain.Seconds())).start(t)
		idle := p.dial("GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n")
		idleReader := bufio.NewReader(idle)
		if resp := p.answer(idleReader); resp.StatusCode != 200 || resp.Close {
			t.Errorf("before the signal: %d, close %v", resp.StatusCode, resp.Close)
		}
		unused := p.dial("GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n")
		unusedReader := bufio.NewReader(unused)
		p.answer(unusedReader)
		body := `{"name":"underway"}`
		slow := p.dial(fmt.Sprintf(createHead, len(body)) + body[:5])

		began := time.Now()
		p.signal(sig)
		p.eventuallySays("msg=stopping")
		// New connections are served, and told to go elsewhere.
		resp, err := fresh.Get(p.base + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 503 {
			t.Errorf("/readyz while draining: %d", resp.StatusCode)
		}
		if resp, err = fresh.Get(p.base + "/healthz"); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 || !resp.Close {
			t.Errorf("/healthz while draining: %d, close %v", resp.StatusCode, resp.Close)
		}
		p.must("POST", "/kms/v1/keys", `{"name":"late"}`, nil)
		// So is the connection that idled,
		io.WriteString(idle, "GET /kms/v1/keys/names?user.name=test HTTP/1.1\r\nHost: h\r\n\r\n")
		if resp := p.answer(idleReader); resp.StatusCode != 200 || !resp.Close {
			t.Errorf("on a kept connection: %d, close %v", resp.StatusCode, resp.Close)
		}
		// and the request that was under way when the signal came.
		io.WriteString(slow, body[5:])
		if resp := p.answer(bufio.NewReader(slow)); resp.StatusCode != 201 || !resp.Close {
			t.Errorf("the request under way: %d, close %v", resp.StatusCode, resp.Close)
		}
		p.ended()
		if took := time.Since(began); took < drain {
			t.Errorf("closed %v after the signal, before the drain was over", took)
		}
		if _, err := unusedReader.ReadByte(); err == nil {
			t.Error("the idle connection is still open")
		}
		if _, err := fresh.Get(p.base + "/healthz"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("after the end: %v", err)
		}
	}
	t.Run("SIGTERM", func(t *testing.T) { f(t, syscall.SIGTERM) })
	t.Run("SIGINT", func(t *testing.T) { f(t, syscall.SIGINT) })
}

// TestStopDespiteClientsThatHold: a connection that never speaks, one that
// stops in a header and one that sends a byte now and then.
func TestStopDespiteClientsThatHold(t *testing.T) {
	t.Parallel()
	p := newSite(t).start(t)
	p.dial("")
	p.dial("GET /kms/v1/keys/na")
	drip := p.dial(fmt.Sprintf(createHead, 4000) + `{"name":"never`)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-p.exited:
				return
			case <-time.After(200 * time.Millisecond):
				if _, err := drip.Write([]byte("a")); err != nil {
					return
				}
			}
		}
	}()
	p.stop()
	<-done
}

func TestSecondSignalStopsAtOnce(t *testing.T) {
	t.Parallel()
	const drain = 8 * time.Second
	p := newSite(t, "edekd.drain.seconds", fmt.Sprint(drain.Seconds())).start(t)
	began := time.Now()
	p.signal(syscall.SIGINT)
	p.eventuallySays("msg=stopping")
	p.signal(syscall.SIGINT)
	p.ended()
	if took := time.Since(began); took >= drain {
		t.Errorf("it took %v", took)
	}
}

// Signals come when they come: right after the start-up line, and again and
// again while everything is being closed.
func TestSignalsAtBadMoments(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for range 5 {
		p := s.start(t)
		p.signal(syscall.SIGHUP)
		p.signal(syscall.SIGTERM)
	again:
		for {
			select {
			case <-p.exited:
				break again
			default:
				p.cmd.Process.Signal(syscall.SIGHUP)
				p.cmd.Process.Signal(syscall.SIGTERM)
			}
		}
		p.ended()
	}
}

// The reader of standard error may go away: `edekd 2>&1 | logger` and logger
// is restarted.
func TestServesOnWithoutStandardError(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	logs := s.state + "/logs"
	cmd := s.command()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd, exited: make(chan struct{})}
	t.Cleanup(func() { cmd.Process.Kill(); <-p.exited })
	line, err := bufio.NewReader(stderr).ReadString('\n')
	m := servingLine.FindStringSubmatch(line)
	if err != nil || m == nil {
		close(p.exited)
		t.Fatalf("%q, %v", line, err)
	}
	p.base = m[1]
	stderr.Close()
	go func() { defer close(p.exited); cmd.Wait() }()
	rotate(t, logs+"/kms-audit.log")
	p.signal(syscall.SIGHUP) // says something
	p.eventually("the log is reopened", func() bool { return exists(logs + "/kms-audit.log") })
	p.must("POST", "/kms/v1/keys", `{"name":"k"}`, nil)
	p.signal(syscall.SIGTERM)
	p.ended()
}

// A store that hangs (here: another program keeps it locked) holds a change
// beyond all deadlines. The process ends in time, says that it was by force, and
// the store is none the worse.
func TestStopDespiteHangingStore(t *testing.T) {
	t.Parallel()
	s := newSite(t, "edekd.drain.seconds", "8")
	p := s.start(t)
	p.must("POST", "/kms/v1/keys", `{"name":"k"}`, nil)
	db, err := sql.Open("sqlite", filepath.Join(s.state, "keys.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)

	p.signal(syscall.SIGTERM)
	<-time.After(6 * time.Second) // the change gives up after 5 s, which shall be too late
	if _, err := db.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	if status, err := p.call(fresh, "POST", "/kms/v1/keys", `{"name":"stuck"}`, nil); err == nil {
		t.Errorf("an answer from a store that hangs: %d", status)
	}
	select {
	case <-p.exited:
	case <-time.After(stopTime - 6*time.Second):
		t.Fatal("it still runs")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("%v, want exit code 1", p.cmd.ProcessState)
	}
	if said := p.said(); !strings.Contains(said, "requests were still running") || !strings.Contains(said, "by force") {
		t.Error("the log does not say why")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	p = s.start(t)
	p.must("POST", "/kms/v1/keys", `{"name":"stuck"}`, nil)
	if _, err := p.encrypt(fresh, "k"); err != nil {
		t.Error(err)
	}
	p.kill()
}
