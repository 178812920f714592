package groups

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/hadoop/conf"
)

// ldapProperties are those of a mapping that uses s as Active Directory.
func ldapProperties(s *slapd, pairs ...string) map[string]string {
	properties := map[string]string{
		classProperty: classLDAP,
		ldapURL:       s.url(),
		ldapBase:      "dc=example,dc=com",
		ldapUser:      readerName,
		ldapPassword:  readerPassword,
	}
	for pair := range slices.Chunk(pairs, 2) {
		properties[pair[0]] = pair[1]
	}
	return properties
}

const (
	ldapURL         = mappingPrefix + "ldap.url"
	ldapBase        = mappingPrefix + "ldap.base"
	ldapUser        = mappingPrefix + "ldap.bind.user"
	ldapUsers       = mappingPrefix + "ldap.bind.users"
	ldapPassword    = mappingPrefix + "ldap.bind.password"
	ldapUserFilter  = mappingPrefix + "ldap.search.filter.user"
	ldapGroupFilter = mappingPrefix + "ldap.search.filter.group"
	ldapMember      = mappingPrefix + "ldap.search.attr.member"
	ldapGroupName   = mappingPrefix + "ldap.search.attr.group.name"
	ldapLevels      = mappingPrefix + "ldap.search.group.hierarchy.levels"
	ldapUID         = mappingPrefix + "ldap.posix.attr.uid.name"
	ldapAttempts    = mappingPrefix + "ldap.num.attempts"
	ldapFailover    = mappingPrefix + "ldap.num.attempts.before.failover"
	ldapSSL         = mappingPrefix + "ldap.ssl"
	ldapTrust       = mappingPrefix + "ldap.ssl.truststore"
	ldapRule        = mappingPrefix + "ldap.conversion.rule"
)

var posixProperties = []string{
	ldapUserFilter, "(&(objectClass=posixAccount)(uid={0}))",
	ldapGroupFilter, "(objectClass=posixGroup)",
	ldapMember, "memberUid",
}

// mappingOf returns the uncached mapping.
func mappingOf(t *testing.T, properties map[string]string) Mapping {
	t.Helper()
	c, err := New(configured(properties))
	if err != nil {
		t.Fatal(err)
	}
	return c.mapping
}

// wantGroups looks a user up; want "error" is an error.
func wantGroups(t *testing.T, m Mapping, user, want string) {
	t.Helper()
	if got := answerOf(m, user); got != want {
		t.Errorf("groups of %q: %q, want %q", user, got, want)
	}
}

// answerOf is the groups of a user, sorted, or "error".
func answerOf(m Mapping, user string) string {
	groups, err := m.Of(user)
	if err != nil {
		return "error"
	}
	groups = slices.Sorted(slices.Values(groups))
	return strings.Join(groups, ";")
}

// TestLDAPAsInJava compares our answers with those of Hadoop's own class.
func TestLDAPAsInJava(t *testing.T) {
	s := newSlapd(t)
	text, err := os.ReadFile("testdata/ldap.txt")
	if err != nil {
		t.Fatal(err)
	}
	var m Mapping
	cases := 0
	for n, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		fields := strings.Split(line, "\t")
		if fields[0] == "with" {
			properties := ldapProperties(s)
			for _, pair := range fields[1:] {
				name, value, _ := strings.Cut(pair, "=")
				properties[mappingPrefix+"ldap."+name] = strings.ReplaceAll(value, `\n`, "\n")
				if name == "conversion.rule" {
					properties[classProperty] = classRuleLDAP
				}
			}
			m = mappingOf(t, properties)
			continue
		}
		cases++
		want := fields[len(fields)-1]
		if got := answerOf(m, fields[0]); got != want {
			t.Errorf("ldap.txt:%d: groups of %q: %q, want %q", n+1, fields[0], got, want)
		}
	}
	if cases != 59 {
		t.Errorf("%d cases: the file is not the one this test was written for", cases)
	}
}

func TestLDAPNamesStayNames(t *testing.T) {
	s := newSlapd(t)
	m := mappingOf(t, ldapProperties(s))
	for _, user := range []string{"star\\2a", "par", "alice)(|(cn=*)", "alice\x00", "\xff", "&", "\\"} {
		wantGroups(t, m, user, "")
	}
}

func TestLDAPHeals(t *testing.T) {
	s := newSlapd(t)
	m := mappingOf(t, ldapProperties(s))
	wantGroups(t, m, "bob", "staff")
	s.stop()
	wantGroups(t, m, "bob", "error")
	wantGroups(t, m, "nobody", "error")
	s.start(t)
	wantGroups(t, m, "bob", "staff")

	// A restart that nobody noticed: the session kept is dead, and no failure.
	one := mappingOf(t, ldapProperties(s, ldapAttempts, "1"))
	wantGroups(t, one, "bob", "staff")
	s.stop()
	s.start(t)
	wantGroups(t, one, "bob", "staff")
}

func TestLDAPFailsOver(t *testing.T) {
	first, second := newSlapd(t), newSlapd(t)
	both := first.url() + "," + second.url()
	m := mappingOf(t, ldapProperties(first, ldapURL, both, ldapFailover, "2"))
	wantGroups(t, m, "bob", "staff")
	first.stop()
	wantGroups(t, m, "bob", "staff")
	first.start(t)
	second.stop()
	wantGroups(t, m, "bob", "staff")
	second.start(t)

	// As many attempts as before failing over: the next look-up has the luck.
	m = mappingOf(t, ldapProperties(first, ldapURL, both))
	first.stop()
	wantGroups(t, m, "bob", "error")
	wantGroups(t, m, "bob", "staff")
	first.start(t)

	// A server that accepts and says nothing.
	m = mappingOf(t, ldapProperties(first, ldapURL, both, ldapFailover, "1", timeoutProperty, "3s"))
	thaw := first.freeze(t)
	wantGroups(t, m, "bob", "staff")
	thaw()
}

func TestLDAPTimesOut(t *testing.T) {
	s := newSlapd(t)
	m := mappingOf(t, ldapProperties(s, timeoutProperty, "3s"))
	wantGroups(t, m, "bob", "staff")
	thaw := s.freeze(t)
	if _, err := m.Of("bob"); !errors.Is(err, errNoAnswer) {
		t.Error(err)
	}
	thaw()
	eventually(t, "the server is asked again", func() bool {
		groups, err := m.Of("bob")
		return err == nil && slices.Equal(groups, []string{"staff"})
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in 20 s: " + what)
		}
	}
}

// The cache over a directory serves what it knows while that is away.
func TestLDAPOutageServesStale(t *testing.T) {
	s := newSlapd(t)
	// Known groups serve for ten times as long as they are believed.
	c, err := New(configured(ldapProperties(s, ttlProperty, "10", negativeProperty, "1")))
	if err != nil {
		t.Fatal(err)
	}
	want := func(user, want string) {
		t.Helper()
		wantGroups(t, c, user, want)
	}
	want("bob", "staff")
	s.stop()
	c.Refresh()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		want("bob", "staff")
		want("alice", "error")
	}
	s.start(t)
	eventually(t, "a user is found again", func() bool {
		groups, err := c.Of("alice")
		return err == nil && len(groups) == 1
	})
}

func TestLDAPOverTLS(t *testing.T) {
	s := newSlapd(t)
	other := t.TempDir()
	writeCertificates(t, other)
	f := func(want string, pairs ...string) {
		t.Helper()
		wantGroups(t, mappingOf(t, ldapProperties(s, pairs...)), "bob", want)
	}
	f("staff", ldapURL, s.tlsURL(), ldapTrust, s.truststr)
	f("staff", ldapURL, fmt.Sprintf("ldap://127.0.0.1:%d", s.tlsPort), ldapSSL, "true", ldapTrust, s.truststr)
	f("error", ldapURL, s.tlsURL())
	f("error", ldapURL, s.tlsURL(), ldapTrust, filepath.Join(other, "ca.pem"))
	f("error", ldapURL, strings.Replace(s.tlsURL(), "127.0.0.1", "localhost", 1), ldapTrust, s.truststr) // not its name
	f("error", ldapSSL, "true", ldapTrust, s.truststr)                                                   // no TLS on that port
}

func TestLDAPBinders(t *testing.T) {
	s := newSlapd(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "password")
	if err := os.WriteFile(file, []byte(readerPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(want string, pairs ...string) {
		t.Helper()
		properties := ldapProperties(s, pairs...)
		maps.DeleteFunc(properties, func(name, value string) bool { return value == "-" })
		wantGroups(t, mappingOf(t, properties), "bob", want)
	}
	f("staff", ldapPassword, "-", ldapPassword+".file", file)
	f("error", ldapPassword, "-", ldapUser, "-") // nobody may read
	// Of several the next is tried where one is not accepted.
	several := []string{ldapPassword, "-", ldapUser, "-", ldapUsers, "one,two",
		ldapUsers + ".one.bind.user", readerName, ldapUsers + ".one.bind.password", "wrong",
		ldapUsers + ".two.bind.user", readerName, ldapUsers + ".two.bind.password.file", file}
	f("staff", several...)
	f("error", append(several, ldapAttempts, "1")...)
}

func TestLDAPInComposite(t *testing.T) {
	s := newSlapd(t)
	part := func(name string, pairs ...string) []string {
		out := []string{providerPrefix + name, classLDAP}
		for pair := range slices.Chunk(pairs, 2) {
			out = append(out, strings.Replace(pair[0], mappingPrefix, providerPrefix+name+".", 1), pair[1])
		}
		return out
	}
	properties := ldapProperties(s, classProperty, classComposite, providersProperty, "ad,posix,os", providerPrefix+"os", classShell)
	for pair := range slices.Chunk(append(part("ad"), part("posix", append(posixProperties, ldapUID, "uid")...)...), 2) {
		properties[pair[0]] = pair[1]
	}
	m := mappingOf(t, properties)
	wantGroups(t, m, "alice", "inner")
	wantGroups(t, m, "dave", "byname;primary")
	wantGroups(t, m, "star*", "byname;staff")
	wantGroups(t, m, "daemon", "daemon")
	s.stop()
	wantGroups(t, m, "daemon", "error")
}

func TestLDAPSessionsEnd(t *testing.T) {
	s := newSlapd(t)
	m := mappingOf(t, ldapProperties(s)).(*directory)
	wantGroups(t, m, "bob", "staff")
	m.mu.Lock()
	idle := slices.Clone(m.idle)
	m.mu.Unlock()
	if len(idle) != 1 {
		t.Fatalf("%d sessions idle", len(idle))
	}
	m.expire(idle[0])
	if !idle[0].conn.IsClosing() || len(m.idle) != 0 {
		t.Error("the session lives on")
	}
}

// A server that sends what is not LDAP, or does not stop sending, ends nothing
// but the look-up.
func TestLDAPHostileServer(t *testing.T) {
	f := func(what string, answer func(net.Conn)) {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					var request [1024]byte
					if _, err := c.Read(request[:]); err == nil {
						answer(c)
						_, _ = c.Read(request[:])
					}
				}()
			}
		}()
		m := mappingOf(t, map[string]string{classProperty: classLDAP, ldapURL: "ldap://" + l.Addr().String(), timeoutProperty: "500ms", ldapAttempts: "1"})
		if groups, err := m.Of("bob"); err == nil || groups != nil {
			t.Errorf("%s: groups %q, error %v", what, groups, err)
		}
	}
	send := func(packets ...string) func(net.Conn) {
		return func(c net.Conn) {
			for _, p := range packets {
				_, _ = c.Write([]byte(p))
			}
		}
	}
	const bound = "\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00"
	f("nothing", send())
	f("HTTP", send("HTTP/1.0 400 Bad Request\r\n\r\n"))
	f("two gigabytes announced", send("\x30\x84\x7f\xff\xff\xff"))
	f("an empty message", send("\x30\x00"))
	f("a number alone", send("\x30\x03\x02\x01\x01"))
	f("a result without fields", send("\x30\x05\x02\x01\x01\x61\x00"))
	f("an entry without fields", send(bound, "\x30\x05\x02\x01\x02\x64\x00"))
	f("an entry of numbers", send(bound, "\x30\x0b\x02\x01\x02\x64\x06\x02\x01\x01\x02\x01\x01"))
	f("a reference without fields", send(bound, "\x30\x05\x02\x01\x02\x73\x00"))
	f("entries without end", func(c net.Conn) {
		entry := []byte(bound)
		for err := error(nil); err == nil; _, err = c.Write(entry) {
		}
	})
}

func TestLDAPRefusals(t *testing.T) {
	f := func(remedy string, pairs ...string) {
		t.Helper()
		properties := map[string]string{classProperty: classLDAP, ldapURL: "ldap://localhost"}
		for pair := range slices.Chunk(pairs, 2) {
			properties[pair[0]] = pair[1]
		}
		_, err := New(configured(properties))
		var value *conf.ValueError
		if !errors.As(err, &value) || !strings.Contains(err.Error(), remedy) {
			t.Errorf("%q: error %v, want a *conf.ValueError with %q", pairs, err, remedy)
		}
	}
	f("names no server", ldapURL, " , ")
	f("only ldap:// and ldaps://", ldapURL, "ldapi:///")
	f("only ldap:// and ldaps://", ldapURL, "ldap://ok,http://host")
	f("name the base in", ldapURL, "ldap://host/dc=example,dc=com")
	f("name the base in", ldapURL, "ldap://user@host")
	f("no URL", ldapURL, "ldap:host")
	f("does not have {0}", ldapUserFilter, "(uid=x)")
	f("{1}", ldapUserFilter, "(uid={1})")
	f("{x}", ldapUserFilter, "(uid={x})")
	f("{0", ldapUserFilter, "(uid={0)")
	f("no LDAP filter", ldapUserFilter, "uid={0}")
	f("no LDAP filter", ldapUserFilter, "(uid={0}")
	f("{2}", ldapGroupFilter, "(member={2})")
	f("not the name of an attribute", ldapMember, "a)(b")
	f("not the name of an attribute", ldapGroupName, "c n)")
	f("has no password", ldapUser, "cn=x")
	f("is missing", ldapPassword, "x")
	f("is missing", ldapUsers, "a")
	f("cannot be read", ldapUser, "cn=x", ldapPassword+".file", "/nonexistent")
	f("is empty", ldapUser, "cn=x", ldapPassword+".file", "/dev/null")
	f("cannot be read", ldapTrust, "/nonexistent")
	f("holds no certificate", ldapTrust, "/dev/null")
	f("not supported", mappingPrefix+"ldap.ssl.keystore", "/x.jks")
	f("none of to_upper", classProperty, classRuleLDAP, ldapRule, "shout")
	f("edekd runs none", mappingPrefix+"ldap.ctx.factory.class", "com.example.Factory")
	f("not positive", ldapAttempts, "0")
	f("whole number", ldapLevels, "many")
}

func TestLDAPWarnsOfClearText(t *testing.T) {
	f := func(url string, want int) {
		t.Helper()
		c, err := New(configured(map[string]string{classProperty: classLDAP, ldapURL: url}))
		if err != nil {
			t.Fatal(err)
		}
		if n := len(c.Warnings()); n != want {
			t.Errorf("%s: %d warnings, want %d: %v", url, n, want, c.Warnings())
		}
	}
	f("ldap://directory.example.com", 1)
	f("ldap://a.example.com,ldap://b.example.com ldaps://c.example.com", 2)
	f("ldap://localhost", 0)
	f("ldap://[::1]:3389", 0)
	f("ldaps://directory.example.com", 0)
}

func TestLDAPFiles(t *testing.T) {
	dir := t.TempDir()
	writeCertificates(t, dir)
	password, trust := filepath.Join(dir, "password"), filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(password, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := New(configured(map[string]string{classProperty: classLDAP, ldapURL: "ldaps://h", ldapUser: "cn=x", ldapPassword + ".file": password, ldapTrust: trust}))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Files(); !slices.Equal(got, []string{trust, password}) {
		t.Errorf("files %q", got)
	}
}

func TestFill(t *testing.T) {
	f := func(filter, want string, args ...string) {
		t.Helper()
		if got := fill(filter, args...); got != want {
			t.Errorf("%q with %q: %q, want %q", filter, args, got, want)
		}
	}
	f("(a={0})", `(a=x\2a\28\29\5c\00{0})`, "x*()\\\x00{0}")
	f("(|(a={1})(b={0})(c={1}))", "(|(a=y)(b=x)(c=y))", "x", "y")
	f("(a=b)", "(a=b)", "x")
}

func TestCompact(t *testing.T) {
	f := func(filter, want string) {
		t.Helper()
		if got := compact(filter); got != want {
			t.Errorf("%q: %q, want %q", filter, got, want)
		}
	}
	f("(a=b c)", "(a=b c)")
	f(" ( & \n (a=b)\t( ! ( c=d)) ) \n", "(&(a=b)(!(c=d)))")
	f("(a=x& y)", "(a=x& y)")
	f("", "")
}

// FuzzFilterValue: whatever a name holds, the filter keeps its shape.
func FuzzFilterValue(f *testing.F) {
	for _, seed := range []string{"alice", "*", ")(cn=*", "\\2a", "\x00", "{0}", "é", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got := fill("(&(objectClass=user)(cn={0}))", name)
		value, ok := strings.CutPrefix(got, "(&(objectClass=user)(cn=")
		value, end := strings.CutSuffix(value, "))")
		if !ok || !end || strings.ContainsAny(value, "()*\x00") {
			t.Fatalf("%q became %q", name, got)
		}
		if err := checkFilter(strings.ReplaceAll(got, "{", `\7b`), 1); err != nil {
			t.Fatalf("%q became %q: %v", name, got, err)
		}
	})
}

// FuzzCheckFilter: what is accepted can be filled.
func FuzzCheckFilter(f *testing.F) {
	for _, seed := range []string{"(a={0})", "(&(a={0})(b={1}))", "{0", "(a={9})", "(a=*)", "( a = b )"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		filter := compact(text)
		if checkFilter(filter, 2) != nil {
			return
		}
		if filled := fill(filter, "*", "("); strings.Contains(filled, "{") {
			t.Fatalf("%q became %q", filter, filled)
		}
	})
}
