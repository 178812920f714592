package main

import (
	"fmt"
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

const (
	directoryAdmin  = "cn=admin,dc=example,dc=com"
	directoryReader = "cn=reader,dc=example,dc=com"
	adminPassword   = "the admin's"
)

// directory is a real OpenLDAP server in which bob is one of the staff. Nobody
// but its admin and its reader may look into it.
type directory struct {
	t   *testing.T
	url string
}

const slapdConf = `include /etc/ldap/schema/core.schema
pidfile @DIR@/pid
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
suffix dc=example,dc=com
rootdn @ADMIN@
rootpw "@PASSWORD@"
directory @DIR@/db
maxsize 16777216
access to attrs=userPassword by anonymous auth
access to * by dn="@READER@" read by anonymous auth
`

const directoryEntries = `dn: dc=example,dc=com
objectClass: dcObject
objectClass: organization
o: example
dc: example

dn: @READER@
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: the first

dn: cn=bob,dc=example,dc=com
objectClass: person
cn: bob
sn: bob

dn: cn=staff,dc=example,dc=com
objectClass: groupOfNames
cn: staff
member: @ADMIN@
member: cn=bob,dc=example,dc=com
`

func startDirectory(t *testing.T) *directory {
	t.Helper()
	dir := t.TempDir()
	fill := strings.NewReplacer("@DIR@", dir, "@ADMIN@", directoryAdmin, "@READER@", directoryReader, "@PASSWORD@", adminPassword)
	config, entries := filepath.Join(dir, "slapd.conf"), filepath.Join(dir, "entries.ldif")
	write(t, config, fill.Replace(slapdConf))
	write(t, entries, fill.Replace(directoryEntries))
	if err := os.Mkdir(filepath.Join(dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	sbin := func(name string) string {
		path, err := exec.LookPath(name)
		if err != nil {
			path = "/usr/sbin/" + name
		}
		return path
	}
	if out, err := exec.Command(sbin("slapadd"), "-f", config, "-l", entries).CombinedOutput(); err != nil {
		t.Fatalf("slapadd: %v: run \"make setup\"\n%s", err, out)
	}
	port, err := freeport.Take()
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	d := &directory{t: t, url: "ldap://" + addr}
	cmd := exec.Command(sbin("slapd"), "-d", "0", "-f", config, "-h", d.url)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return d
		}
		if time.Now().After(deadline) {
			t.Fatalf("slapd does not listen: %v", err)
		}
	}
}

// modify changes the directory.
func (d *directory) modify(ldif string) {
	d.t.Helper()
	cmd := exec.Command("ldapmodify", "-x", "-H", d.url, "-D", directoryAdmin, "-w", adminPassword)
	cmd.Stdin = strings.NewReader(ldif)
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("ldapmodify: %v: run \"make setup\"\n%s", err, out)
	}
}

func (d *directory) member(change string) {
	d.t.Helper()
	d.modify("dn: cn=staff,dc=example,dc=com\nchangetype: modify\n" + change + ": member\nmember: cn=bob,dc=example,dc=com\n")
}

// password gives the reader another password.
func (d *directory) password(password string) {
	d.t.Helper()
	d.modify(fmt.Sprintf("dn: %s\nchangetype: modify\nreplace: userPassword\nuserPassword: %s\n", directoryReader, password))
}

// Where groups come from can be changed under way: the static table, the
// mapping, its server and the file with its password. Who leaves a group has its
// rights for hadoop.security.groups.cache.secs and a second at most.
func TestGroupsAreReadAgain(t *testing.T) {
	t.Parallel()
	const (
		static  = "hadoop.user.group.static.mapping.overrides"
		mapping = "hadoop.security.group.mapping"
		ldap    = mapping + ".ldap"
		believe = 2 * time.Second
	)
	d := startDirectory(t)
	passwordFile := filepath.Join(t.TempDir(), "password")
	write(t, passwordFile, "the first")
	s := newSite(t, "hadoop.security.groups.cache.secs", "2", "hadoop.security.groups.negative-cache.secs", "0",
		"hadoop.security.groups.shell.command.timeout", "5s", frontHosts, "*", "hadoop.kms.proxyuser.front.groups", "staff")
	s.rules(t, "hadoop.kms.acl.GET_KEYS", " staff")
	byLDAP := []string{mapping, "org.apache.hadoop.security.LdapGroupsMapping", static, "",
		ldap + ".url", d.url, ldap + ".base", "dc=example,dc=com", ldap + ".bind.user", directoryReader,
		ldap + ".bind.password.file", passwordFile,
		ldap + ".search.filter.user", "(&(objectClass=person)(cn={0}))", ldap + ".search.filter.group", "(objectClass=groupOfNames)"}
	nobody := []string{mapping, "org.apache.hadoop.security.NullGroupsMapping"}
	s.configure(t, append(nobody, static, "bob=staff")...)
	p := s.start(t)
	bob := p.steady(t, nil)
	bob.login("?user.name=bob")
	answered := func(status int) func() bool { return func() bool { return bob.status("") == status } }
	if !answered(200)() {
		t.Fatal("bob is not of the staff by the static table")
	}
	s.configure(t, append(nobody, static, "bob=")...)
	p.within(aSecond, "bob is taken out of the static table", answered(403))
	s.configure(t, byLDAP...)
	p.within(aSecond, "the directory is asked", answered(200))
	front := p.steady(t, nil)
	front.login("?user.name=front")
	// The rules of this page do not ask for groups, so that only the proxy user's do.
	acts := func(status int) func() bool {
		return func() bool { return front.ask("GET", "/kms/v1/key/k/_metadata?doAs=bob").StatusCode == status }
	}
	if !acts(200)() {
		t.Fatal("front does not act for the staff")
	}
	d.member("delete")
	p.within(believe+aSecond, "nobody acts any more for bob, who left the group", acts(403))
	d.member("add")
	p.within(believe+aSecond, "bob is back, and front acts for him", acts(200))
	d.member("delete")
	p.within(believe+aSecond, "bob is taken out of the group in the directory", answered(403))
	d.member("add")
	p.within(believe+aSecond, "bob is in the group again", answered(200))
	s.configure(t, append(byLDAP, ldap+".search.filter.user", "(cn={0}")...)
	p.complains(s.file("kms-site.xml")+":", ldap+".search.filter.user", "Try: ")
	p.stays("a mapping that cannot be used changes nothing", answered(200))
	s.configure(t, byLDAP...)

	// The reader's password changes, first here and then there.
	write(t, passwordFile, "")
	p.complains(ldap+".bind.password.file", "put the password into it")
	p.stays("an empty password file changes nothing", answered(200))
	rename(t, passwordFile, "the second")
	p.stays("a password the directory does not know: what is known serves on", answered(200))
	p.eventuallySays("groups cannot be looked up; those known serve on for a while")
	carol := p.steady(t, nil)
	carol.login("?user.name=carol")
	if status := carol.status(""); status != 500 {
		t.Errorf("%d for somebody unknown while the directory cannot be asked: neither yes nor no", status)
	}
	d.password("the second")
	p.within(believe, "the directory knows the new password", func() bool { return carol.status("") == 403 })
	d.password("the third")
	rename(t, passwordFile, "the third")
	p.stays("bob is known while the password changes", answered(200))
	other := startDirectory(t)
	other.password("the third")
	other.member("delete")
	s.configure(t, append(byLDAP, ldap+".url", other.url)...)
	p.within(aSecond, "another server has other groups", answered(403))

	// With a long memory SIGHUP is what makes a removal count at once.
	other.member("add")
	s.configure(t, append(byLDAP, ldap+".url", other.url, "hadoop.security.groups.cache.secs", "300")...)
	p.within(believe, "bob is in the group of the other server", answered(200))
	other.member("delete")
	p.stays("groups are believed for a while", answered(200))
	p.signal(syscall.SIGHUP)
	p.within(aSecond, "SIGHUP has groups looked up again", answered(403))
	p.stop()
}
