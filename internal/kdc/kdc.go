// Package kdc gives a test a real Kerberos: MIT's krb5kdc with databases of its
// own in the test's temporary folder, on a free port of 127.0.0.1, over UDP and
// TCP. It needs the programs krb5kdc, kdb5_util, kadmin.local and kinit; a
// machine without them fails the test and is told to run "make setup".
//
//	realm := kdc.Start(t, "EXAMPLE.TEST")
//	realm.Add("HTTP/localhost", "alice")
//	keytab := realm.Keytab("HTTP/localhost")
//	cache := realm.Kinit("alice")
//	cmd.Env = append(os.Environ(), realm.Env(cache)...)
//
// Principals are written name@REALM; without the realm, the first one of Start
// is meant. Everything ends with the test.
package kdc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edekd/edekd/internal/freeport"
)

// AES256SHA1 and its neighbours are MIT's names of encryption types, for AddKeys
// and SessionKeys.
const (
	AES128SHA1 = "aes128-cts-hmac-sha1-96"    // etype 17
	AES256SHA1 = "aes256-cts-hmac-sha1-96"    // etype 18
	AES128SHA2 = "aes128-cts-hmac-sha256-128" // etype 19
	AES256SHA2 = "aes256-cts-hmac-sha384-192" // etype 20
	RC4        = "arcfour-hmac"               // etype 23, for tests of its refusal
)

// KDC is a running krb5kdc that serves one or more realms on one port.
type KDC struct {
	// Realms are the names given to Start; the first is the default realm.
	Realms []string
	// Addr is the host:port of the KDC.
	Addr string
	// Config is the path of the krb5.conf for clients and services: for
	// KRB5_CONFIG and for Java's java.security.krb5.conf.
	Config string

	tb    testing.TB
	dir   string
	hosts [][2]string // host, realm: the [domain_realm] section
	files int
}

// Start runs a KDC for the given realms until the test ends. The hosts localhost
// and 127.0.0.1 belong to the first realm; see Host.
func Start(tb testing.TB, realms ...string) *KDC {
	tb.Helper()
	if len(realms) == 0 {
		tb.Fatal("kdc: a KDC needs a realm")
	}
	k := &KDC{Realms: realms, tb: tb, dir: tb.TempDir()}
	k.Config = filepath.Join(k.dir, "krb5.conf")
	k.hosts = [][2]string{{"localhost", realms[0]}, {"127.0.0.1", realms[0]}}

	// The port is free when asked for and may be taken a moment later.
	for attempt := 0; ; attempt++ {
		port, err := freeport.Take()
		if err != nil {
			tb.Fatalf("kdc: %v", err)
		}
		k.Addr = fmt.Sprintf("127.0.0.1:%d", port)
		k.writeConfig()
		k.writeProfile()
		if attempt == 0 {
			for _, realm := range realms {
				k.run(nil, "kdb5_util", "-r", realm, "create", "-s", "-P", "master of "+realm)
			}
		}
		if err = k.serve(); err == nil {
			return k
		}
		if attempt == 4 {
			tb.Fatalf("krb5kdc: %v", err)
		}
	}
}

// Env returns the variables that lead a program to this KDC, and to the ticket
// cache that Kinit returned; "" stands for no cache.
func (k *KDC) Env(cache string) []string {
	if cache == "" {
		cache = filepath.Join(k.dir, "no-such-cache")
	}
	return []string{"KRB5_CONFIG=" + k.Config, "KRB5CCNAME=FILE:" + cache}
}

// Host says that the services of host belong to realm, for clients that start
// after the call.
func (k *KDC) Host(host, realm string) {
	k.tb.Helper()
	k.hosts = slices.DeleteFunc(k.hosts, func(h [2]string) bool { return h[0] == host })
	k.hosts = append(k.hosts, [2]string{host, realm})
	k.writeConfig()
}

// Add makes principals with random keys of the default encryption types, AES256
// and AES128 with SHA1.
func (k *KDC) Add(principals ...string) {
	k.tb.Helper()
	for _, p := range principals {
		k.admin(p, "addprinc", "-randkey", k.full(p))
	}
}

// AddKeys makes a principal with one random key for each of the encryption types.
func (k *KDC) AddKeys(principal string, enctypes ...string) {
	k.tb.Helper()
	k.admin(principal, "addprinc", "-randkey", "-e", salted(enctypes), k.full(principal))
}

// AddPassword makes a principal whose keys come from a password.
func (k *KDC) AddPassword(principal, password string) {
	k.tb.Helper()
	k.admin(principal, "addprinc", "-pw", password, k.full(principal))
}

// SessionKeys lays down which encryption types the session keys of tickets for
// a service may have.
func (k *KDC) SessionKeys(principal string, enctypes ...string) {
	k.tb.Helper()
	k.admin(principal, "setstr", k.full(principal), "session_enctypes", strings.Join(enctypes, " "))
}

// Rotate gives a principal new random keys under the next version number (kvno).
// The old ones stay in the database, and so in later keytabs, when keep is true.
func (k *KDC) Rotate(principal string, keep bool) {
	k.tb.Helper()
	args := []string{"cpw", "-randkey"}
	if keep {
		args = append(args, "-keepold")
	}
	k.admin(principal, append(args, k.full(principal))...)
}

// Keytab writes the keys of the principals into a new file of mode 0600 and
// returns its path. The principals keep their keys.
func (k *KDC) Keytab(principals ...string) string {
	k.tb.Helper()
	path := k.file("keytab")
	for _, p := range principals {
		k.admin(p, "ktadd", "-norandkey", "-k", path, k.full(p))
	}
	return path
}

// Kinit logs the principal in with its keys and returns the path of the ticket
// cache. The ticket-granting ticket is forwardable and lasts a day.
func (k *KDC) Kinit(principal string) (cache string) {
	k.tb.Helper()
	cache = k.file("ccache")
	k.run(nil, "kinit", "-k", "-t", k.Keytab(principal), "-c", "FILE:"+cache, k.full(principal))
	return cache
}

// KinitPassword logs the principal in with its password.
func (k *KDC) KinitPassword(principal, password string) (cache string) {
	k.tb.Helper()
	cache = k.file("ccache")
	k.run([]byte(password+"\n"), "kinit", "-c", "FILE:"+cache, k.full(principal))
	return cache
}

// Trust lets principals of the realm client use the services of the realm
// service: it makes krbtgt/SERVICE@CLIENT in both databases.
func (k *KDC) Trust(client, service string) {
	k.tb.Helper()
	principal := "krbtgt/" + service + "@" + client
	for _, realm := range []string{client, service} {
		k.run(nil, "kadmin.local", "-r", realm, "addprinc", "-pw", "trust of "+principal, principal)
	}
}

func (k *KDC) full(principal string) string {
	if strings.Contains(principal, "@") {
		return principal
	}
	return principal + "@" + k.Realms[0]
}

// admin runs one kadmin.local query on the database of the principal's realm.
func (k *KDC) admin(principal string, query ...string) {
	k.tb.Helper()
	full := k.full(principal)
	realm := full[strings.LastIndexByte(full, '@')+1:]
	k.run(nil, "kadmin.local", append([]string{"-r", realm}, query...)...)
}

// run executes one of MIT's programs and fails the test unless it succeeds.
func (k *KDC) run(stdin []byte, program string, args ...string) {
	k.tb.Helper()
	cmd := exec.Command(k.find(program), args...)
	cmd.Env = k.programEnv()
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		k.tb.Fatalf("kdc: %s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}

func (k *KDC) programEnv() []string {
	return append(os.Environ(),
		"KRB5_CONFIG="+k.Config,
		"KRB5_KDC_PROFILE="+k.profile(),
		"LC_ALL=C")
}

// find looks beside PATH into /usr/sbin, which users other than root have not in
// theirs.
func (k *KDC) find(program string) string {
	k.tb.Helper()
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path
		}
	}
	k.tb.Fatalf("kdc: %s is not installed: run \"make setup\"", program)
	return ""
}

func (k *KDC) file(kind string) string {
	k.files++
	return filepath.Join(k.dir, kind+"-"+strconv.Itoa(k.files))
}

// serve starts krb5kdc and returns once it answers.
func (k *KDC) serve() error {
	args := []string{"-n"}
	for _, realm := range k.Realms {
		args = append(args, "-r", realm)
	}
	console, err := os.Create(filepath.Join(k.dir, "console.log"))
	if err != nil {
		return err
	}
	defer console.Close()
	cmd := exec.Command(k.find("krb5kdc"), args...)
	cmd.Env = k.programEnv()
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	stop := func() {
		_ = cmd.Process.Kill()
		<-exited
	}

	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-exited:
			return errors.New("it ended at start:\n" + k.logs())
		case <-deadline:
			stop()
			return errors.New("it did not come up:\n" + k.logs())
		case <-tick.C:
			log, _ := os.ReadFile(k.logFile())
			if bytes.Contains(log, []byte("commencing operation")) {
				k.tb.Cleanup(stop)
				return nil
			}
		}
	}
}

func (k *KDC) logs() string {
	console, _ := os.ReadFile(filepath.Join(k.dir, "console.log"))
	log, _ := os.ReadFile(k.logFile())
	return string(console) + string(log)
}

func (k *KDC) logFile() string { return filepath.Join(k.dir, "kdc.log") }
func (k *KDC) profile() string { return filepath.Join(k.dir, "kdc.conf") }

func (k *KDC) writeConfig() {
	k.tb.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, `[libdefaults]
  default_realm = %s
  dns_lookup_realm = false
  dns_lookup_kdc = false
  dns_canonicalize_hostname = false
  rdns = false
  forwardable = true
  ticket_lifetime = 1d
  renew_lifetime = 7d
  udp_preference_limit = 1
  default_ccache_name = FILE:%s

[realms]
`, k.Realms[0], filepath.Join(k.dir, "ccache"))
	for _, realm := range k.Realms {
		fmt.Fprintf(&b, "  %s = {\n    kdc = %s\n  }\n", realm, k.Addr)
	}
	b.WriteString("\n[domain_realm]\n")
	for _, h := range k.hosts {
		fmt.Fprintf(&b, "  %s = %s\n", h[0], h[1])
	}
	k.write(k.Config, b.String())
}

func (k *KDC) writeProfile() {
	k.tb.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, `[libdefaults]
  allow_rc4 = true

[kdcdefaults]
  kdc_listen = %s
  kdc_tcp_listen = %s

[logging]
  kdc = FILE:%s

[realms]
`, k.Addr, k.Addr, k.logFile())
	for _, realm := range k.Realms {
		base := filepath.Join(k.dir, realm)
		fmt.Fprintf(&b, `  %s = {
    database_name = %s.db
    key_stash_file = %s.stash
    acl_file = %s.acl
    max_life = 1d
    max_renewable_life = 7d
    supported_enctypes = %s:normal %s:normal
  }
`, realm, base, base, base, AES256SHA1, AES128SHA1)
	}
	k.write(k.profile(), b.String())
}

// write replaces a file at once: a client may be reading it.
func (k *KDC) write(path, text string) {
	k.tb.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		k.tb.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		k.tb.Fatal(err)
	}
}

func salted(enctypes []string) string {
	types := make([]string, len(enctypes))
	for i, e := range enctypes {
		types[i] = e + ":normal"
	}
	return strings.Join(types, ",")
}
