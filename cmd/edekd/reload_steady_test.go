package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/xml"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	// aSecond is how long a change on disk may take to count.
	aSecond = time.Second
	// busy is what a busy machine may add to a promise.
	busy = 3 * time.Second
)

// steady is a client with one connection, which the server must not close.
type steady struct {
	t      *testing.T
	conn   net.Conn
	r      *bufio.Reader
	cookie string // sent with each request, unless empty
}

// steady opens a connection, over TLS if the server wants that.
func (p *process) steady(t *testing.T, c *tls.Config) *steady {
	t.Helper()
	scheme, addr, _ := strings.Cut(p.base, "://")
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if scheme == "https" {
		conn = tls.Client(conn, c)
	}
	return &steady{t: t, conn: conn, r: bufio.NewReader(conn)}
}

// got is an answer.
type got struct {
	*http.Response
	body string
}

// ask sends a request, with header lines of its own, and returns the answer.
func (s *steady) ask(method, target string, lines ...string) got {
	s.t.Helper()
	if s.cookie != "" {
		lines = append(lines, "Cookie: "+s.cookie)
	}
	request := method + " " + target + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n" + strings.Join(append(lines, "", ""), "\r\n")
	if err := s.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	if _, err := io.WriteString(s.conn, request); err != nil {
		s.t.Fatalf("the connection was not kept: %v", err)
	}
	resp, err := http.ReadResponse(s.r, &http.Request{Method: method})
	if err != nil {
		s.t.Fatalf("the connection was not kept: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return got{resp, string(body)}
}

// status asks for the names of the keys.
func (s *steady) status(query string, lines ...string) int {
	s.t.Helper()
	return s.ask("GET", "/kms/v1/keys/names"+query, lines...).StatusCode
}

// login takes the cookie of an answer for later requests.
func (s *steady) login(query string, lines ...string) {
	s.t.Helper()
	a := s.ask("GET", "/kms/v1/keys/names"+query, lines...)
	for _, c := range a.Cookies() {
		if c.Name == "hadoop.auth" && c.Value != "" {
			s.cookie = "hadoop.auth=\"" + c.Value + "\""
			return
		}
	}
	s.t.Fatalf("no cookie: %s %q", a.Status, a.body)
}

// within fails unless ok comes true in the time promised since now. How long it
// takes to ask does not count: the promise is broken by an answer to a question
// that was put too late to be answered so.
func (p *process) within(promise time.Duration, what string, ok func() bool) {
	p.t.Helper()
	begun := time.Now()
	var not time.Duration // when ok was last asked in vain
	p.eventually(what, func() bool {
		asked := time.Since(begun)
		if ok() {
			return true
		}
		not = asked
		return false
	})
	p.t.Logf("%s: not %v later, promised %v", what, not.Round(time.Millisecond), promise)
	if not > promise+busy {
		p.t.Errorf("%s: not yet after %v, promised are %v", what, not, promise)
	}
}

// stays fails unless ok is true and remains so while the server has looked at its
// files a few times.
func (p *process) stays(what string, ok func() bool) {
	p.t.Helper()
	for end := time.Now().Add(3 * lookEvery); time.Now().Before(end); time.Sleep(lookEvery / 4) {
		if !ok() {
			p.t.Errorf("no longer: %s", what)
			return
		}
	}
}

// complains waits until the log tells of a failed reload, in a line with all the
// words, and returns how to go on.
func (p *process) complains(words ...string) {
	p.t.Helper()
	p.eventually("the log says reload failed, "+strings.Join(words, ", "), func() bool {
		for line := range strings.SplitSeq(p.said(), "\n") {
			all := strings.Contains(line, "reload failed, what was in force stays")
			for _, word := range words {
				all = all && strings.Contains(line, word)
			}
			if all {
				return true
			}
		}
		return false
	})
}

// rename replaces a file as careful programs do.
func rename(t *testing.T, path, content string) {
	t.Helper()
	write(t, path+".new", content)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// configure replaces kms-site.xml by the one the site began with and more
// properties name, value, ….
func (s *site) configure(t *testing.T, properties ...string) {
	t.Helper()
	if s.first == "" {
		s.first = read(t, s.file("kms-site.xml"))
	}
	rename(t, s.file("kms-site.xml"), strings.Replace(s.first, "</configuration>", propertiesXML(t, properties...)+"</configuration>", 1))
}

func (s *site) file(name string) string { return filepath.Join(s.dir, name) }

func propertiesXML(t *testing.T, properties ...string) string {
	t.Helper()
	var b bytes.Buffer
	for all := properties; len(all) > 0; all = all[2:] {
		b.WriteString("<property><name>" + all[0] + "</name>\n<value>")
		if err := xml.EscapeText(&b, []byte(all[1])); err != nil {
			t.Fatal(err)
		}
		b.WriteString("</value></property>\n")
	}
	return b.String()
}

// rules writes kms-acls.xml.
func (s *site) rules(t *testing.T, properties ...string) {
	t.Helper()
	rename(t, s.file("kms-acls.xml"), "<configuration>\n"+propertiesXML(t, properties...)+"</configuration>")
}

// mount puts a folder's files where Kubernetes puts those of a volume: behind
// links, through a link to a folder that is replaced as a whole.
type mount struct {
	t       *testing.T
	dir     string
	current string
}

func newMount(t *testing.T, dir string, names ...string) *mount {
	t.Helper()
	m := &mount{t: t, dir: dir, current: filepath.Join(dir, "..1")}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(m.current, 0o700))
	for _, name := range names {
		must(os.Rename(filepath.Join(dir, name), filepath.Join(m.current, name)))
		must(os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
	}
	must(os.Symlink("..1", filepath.Join(dir, "..data")))
	return m
}

// replace makes a new folder of the old files, but for the given one, and points
// the link to it.
func (m *mount) replace(name, content string) {
	m.t.Helper()
	must := func(err error) {
		m.t.Helper()
		if err != nil {
			m.t.Fatal(err)
		}
	}
	next := m.current + "1"
	must(os.CopyFS(next, os.DirFS(m.current)))
	write(m.t, filepath.Join(next, name), content)
	link := filepath.Join(m.dir, "..data")
	must(os.Symlink(filepath.Base(next), link+"_tmp"))
	must(os.Rename(link+"_tmp", link))
	must(os.RemoveAll(m.current))
	m.current = next
}
