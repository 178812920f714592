// Package zkserver gives a test a real ZooKeeper: a standalone server of the
// release Hadoop 3.4 uses, with its data in the test's temporary folder, on a
// free port of 127.0.0.1. Its jars come from Maven Central once and are looked up
// in .cache after that.
//
//	server := zkserver.Start(t, zkserver.Options{})
//	conn, _, err := zk.Connect([]string{server.Addr}, time.Second)
//
// The server can be stopped and started again with its data, and its network can
// be cut or made to hang while it lives on, which is how sessions expire: it
// counts time in ticks of 100 ms, so it grants sessions of 200 ms and more.
// Everything ends with the test.
package zkserver

import (
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edekd/edekd/internal/freeport"
)

// Options says what a server is to know beyond anonymous clients.
type Options struct {
	// Kerberos makes the server accept SASL/GSSAPI as well.
	Kerberos *Kerberos
	// SuperPassword, if set, is the password of the digest user "super", whom no
	// ACL stops.
	SuperPassword string
}

// Kerberos is who the server is. As in clusters where Hadoop services share
// nodes, host and realm are removed from the principals of clients: kms/host@R
// is the ACL identity sasl:kms.
type Kerberos struct {
	Principal string // zookeeper/localhost@REALM
	Keytab    string // file with the principal's keys
	Config    string // krb5.conf
}

// Server is a running ZooKeeper.
type Server struct {
	// Addr is the host:port clients connect to. It stays the same when the
	// server is stopped and started.
	Addr string

	tb      testing.TB
	dir     string
	options []string // of the JVM
	link    *link
	process *exec.Cmd // nil while stopped
	exited  chan struct{}
}

// Start runs a server until the test ends.
func Start(tb testing.TB, o Options) *Server {
	tb.Helper()
	jars, err := classPath()
	if err != nil {
		tb.Fatalf("zkserver: %v", err)
	}
	s := &Server{tb: tb, dir: tb.TempDir(), link: newLink(tb)}
	s.Addr = s.link.listener.Addr().String()
	s.options = []string{
		"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xmx256m",
		"-cp", jars,
		"-Dzookeeper.4lw.commands.whitelist=*",
		"-Dzookeeper.admin.enableServer=false",
		"-Dzookeeper.forceSync=no",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
	}
	if o.SuperPassword != "" {
		sum := sha1.Sum([]byte("super:" + o.SuperPassword))
		s.options = append(s.options, "-Dzookeeper.DigestAuthenticationProvider.superDigest=super:"+
			base64.StdEncoding.EncodeToString(sum[:]))
	}
	if o.Kerberos != nil {
		s.options = append(s.options, s.kerberos(*o.Kerberos)...)
	}
	s.Start()
	tb.Cleanup(s.Stop)
	return s
}

func (s *Server) kerberos(k Kerberos) []string {
	s.tb.Helper()
	jaas := filepath.Join(s.dir, "jaas.conf")
	s.write(jaas, fmt.Sprintf(`Server {
  com.sun.security.auth.module.Krb5LoginModule required
  useKeyTab=true storeKey=true useTicketCache=false doNotPrompt=true
  keyTab=%q principal=%q;
};
`, k.Keytab, k.Principal))
	return []string{
		"-Djava.security.auth.login.config=" + jaas,
		"-Djava.security.krb5.conf=" + k.Config,
		"-Dzookeeper.authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider",
		"-Dzookeeper.kerberos.removeHostFromPrincipal=true",
		"-Dzookeeper.kerberos.removeRealmFromPrincipal=true",
	}
}

// Start starts a stopped server on the data it had.
func (s *Server) Start() {
	s.tb.Helper()
	if s.process != nil {
		s.tb.Fatal("zkserver: started twice")
	}
	// The port is free when asked for and may be taken a moment later.
	for attempt := 0; ; attempt++ {
		err := s.run()
		if err == nil {
			break
		}
		if attempt == 3 {
			s.tb.Fatalf("zkserver: %v", err)
		}
	}
	s.link.set(forwarding)
}

// Stop kills the server; clients see their connections end and no new ones
// begin.
func (s *Server) Stop() {
	s.link.set(cut)
	if s.process != nil {
		_ = s.process.Process.Kill()
		<-s.exited
		s.process = nil
	}
}

// Cut ends all connections and lets no new ones begin, while the server goes on
// and lets sessions expire.
func (s *Server) Cut() { s.link.set(cut) }

// Hang keeps connections open, and lets clients open more, but no byte passes
// any more in either direction.
func (s *Server) Hang() { s.link.set(hanging) }

// Mend ends Cut and Hang. Connections that hung end.
func (s *Server) Mend() { s.link.set(forwarding) }

// AwaitExpiry returns once the server has no sessions left; Cut or Hang comes
// before it.
func (s *Server) AwaitExpiry() {
	s.tb.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		dump := ask(s.link.server(), "dump")
		if strings.Contains(dump, "Session Sets (0)/(0)") {
			return
		}
		if time.Now().After(deadline) {
			s.tb.Fatalf("zkserver: sessions go on:\n%s", dump)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// run starts the process on a free port and returns once it serves.
func (s *Server) run() error {
	port, err := freeport.Take()
	if err != nil {
		return err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	config := filepath.Join(s.dir, "zoo.cfg")
	s.write(config, fmt.Sprintf("dataDir=%s\nclientPortAddress=127.0.0.1\nclientPort=%d\ntickTime=100\nmaxSessionTimeout=60000\nmaxClientCnxns=0\n",
		filepath.Join(s.dir, "data"), port))
	console, err := os.OpenFile(filepath.Join(s.dir, "console.log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer console.Close()
	cmd := exec.Command("java", append(append([]string{}, s.options...), "org.apache.zookeeper.server.ZooKeeperServerMain", config)...)
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w (\"make setup\" installs Java)", err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-exited:
			return errors.New("the server ended at start:\n" + s.Log())
		case <-deadline:
			_ = cmd.Process.Kill()
			<-exited
			return errors.New("the server did not come up:\n" + s.Log())
		case <-tick.C:
			if strings.Contains(ask(addr, "srvr"), "Mode: standalone") {
				s.process, s.exited = cmd, exited
				s.link.lead(addr)
				return nil
			}
		}
	}
}

// Log returns what the server wrote: warnings and errors.
func (s *Server) Log() string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "console.log"))
	return string(text)
}

func (s *Server) write(path, text string) {
	s.tb.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.tb.Fatal(err)
	}
}

// ask sends one of the server's four-letter commands and returns the answer, or
// nothing when there is none.
func ask(addr, command string) string {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := io.WriteString(c, command); err != nil {
		return ""
	}
	answer, _ := io.ReadAll(io.LimitReader(c, 1<<20))
	return string(answer)
}
