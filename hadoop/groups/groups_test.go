package groups

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/hadoop/conf"
)

// configured returns a Configuration that says what the map says.
func configured(properties map[string]string) *conf.Configuration {
	c := conf.New(os.LookupEnv, nil)
	for name, value := range properties {
		c.Override(name, value, "the test")
	}
	return c
}

// fixed is a mapping that gives one answer.
type fixed struct {
	groups []string
	err    error
}

func (f fixed) Of(string) ([]string, error) { return f.groups, f.err }

func TestNewServes(t *testing.T) {
	f := func(user, want string, pairs ...string) {
		t.Helper()
		properties := map[string]string{}
		for pair := range slices.Chunk(pairs, 2) {
			properties[pair[0]] = pair[1]
		}
		c, err := New(configured(properties))
		if err != nil {
			t.Error(err)
			return
		}
		groups, err := c.Of(user)
		if got := strings.Join(groups, ","); err != nil || got != want && !strings.HasPrefix(got, want+",") {
			t.Errorf("%s: groups %q, error %v, want %q first", user, got, err, want)
		}
	}
	f("root", "root") // who is in further groups on some systems
	f("dr.who", "")
	f("root", "root", classProperty, " "+classFallback+"\n")
	f("root", "root", classProperty, classJNI)
	f("root", "root", classProperty, classShell)
	f("root", "", classProperty, classNull)
	f("root", "a,b", staticProperty, "root=a,b")
	f("root", "", staticProperty, "root=")
	f("root", "root", classProperty, classComposite, providersProperty, "none, system",
		providerPrefix+"none", classNull, providerPrefix+"system", classShell)
	f("root", "root", classProperty, classComposite, providersProperty, "one,two", combinedProperty, "false",
		providerPrefix+"one", classShell, providerPrefix+"two", classJNI)
}

func TestNewRefuses(t *testing.T) {
	f := func(remedy string, pairs ...string) {
		t.Helper()
		properties := map[string]string{}
		for pair := range slices.Chunk(pairs, 2) {
			properties[pair[0]] = pair[1]
		}
		_, err := New(configured(properties))
		var value *conf.ValueError
		if !errors.As(err, &value) || !strings.Contains(err.Error(), remedy) {
			t.Errorf("%q: error %v, want a *conf.ValueError with %q", pairs, err, remedy)
		}
	}
	f("names no server", classProperty, classLDAP)
	f("names no server", classProperty, classRuleLDAP)
	f("use "+classFallback, classProperty, "com.example.Groups")
	f("use "+classFallback, classProperty, "")
	f("needs "+providersProperty, classProperty, classComposite)
	f(`names "b"`, classProperty, classComposite, providersProperty, "a,b", providerPrefix+"a", classNull)
	f("part of itself", classProperty, classComposite, providersProperty, "a", providerPrefix+"a", classComposite)
	f("names no server", classProperty, classComposite, providersProperty, "a", providerPrefix+"a", classLDAP)
	f("neither true nor false", classProperty, classComposite, providersProperty, "a", providerPrefix+"a", classNull, combinedProperty, "maybe")
	f("not positive", ttlProperty, "0")
	f("not positive", ttlProperty, "-1")
	f("beyond", ttlProperty, "9223372036854775807")
	f("beyond", negativeProperty, "-9223372036854775807")
	f("whole number", negativeProperty, "soon")
	f("whole number", timeoutProperty, "soon")
	f("semicolons", staticProperty, "a=b=c")
	f("substitutions", staticProperty, "${"+staticProperty+"x}", staticProperty+"x", "${"+staticProperty+"y}", staticProperty+"y", "${"+staticProperty+"x}")
}

func TestNewTimes(t *testing.T) {
	f := func(ttl, negative, timeout time.Duration, pairs ...string) {
		t.Helper()
		properties := map[string]string{classProperty: classNull}
		for pair := range slices.Chunk(pairs, 2) {
			properties[pair[0]] = pair[1]
		}
		c, err := New(configured(properties))
		if err != nil {
			t.Fatal(err)
		}
		if c.ttl != ttl || c.negative != negative || c.timeout != timeout {
			t.Errorf("%q: times %v, %v, %v, want %v, %v, %v", pairs, c.ttl, c.negative, c.timeout, ttl, negative, timeout)
		}
	}
	f(300*time.Second, 30*time.Second, 10*time.Second)
	f(60*time.Second, 0, 10*time.Second, ttlProperty, "60", negativeProperty, "0", timeoutProperty, "0s")
	f(300*time.Second, 30*time.Second, 2*time.Second, timeoutProperty, "2000")
	f(300*time.Second, 30*time.Second, 2*time.Second, timeoutProperty, "2s")
}

func TestComposite(t *testing.T) {
	broken := errors.New("broken")
	f := func(combined bool, want string, wantErr error, parts ...Mapping) {
		t.Helper()
		groups, err := composite{parts, combined}.Of("u")
		if got := strings.Join(groups, ","); got != want || err != wantErr {
			t.Errorf("groups %q, error %v, want %q, %v", got, err, want, wantErr)
		}
	}
	ab, bc := fixed{groups: []string{"a", "b"}}, fixed{groups: []string{"b", "c"}}
	f(true, "a,b,c", nil, ab, none{}, bc)
	f(false, "a,b", nil, none{}, ab, bc)
	f(true, "", nil, none{}, none{})
	f(true, "", broken, ab, fixed{err: broken})
	f(false, "", broken, fixed{err: broken}, ab)
	f(false, "a,b", nil, ab, fixed{err: broken})
}

// systems are the two ways to ask NSS, of which one is used in each build.
func systems(t *testing.T) map[string]Mapping {
	t.Helper()
	inProcess, err := newSystem(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	byCommand, err := newCommand(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]Mapping{"system": inProcess, "command": byCommand}
}

func TestSystem(t *testing.T) {
	mappings := systems(t)
	f := func(user, want string) {
		t.Helper()
		for kind, m := range mappings {
			groups, err := m.Of(user)
			if got := strings.Join(groups, ","); err != nil || got != want && !strings.HasPrefix(got, want+",") {
				t.Errorf("%s: groups of %q: %q, error %v, want %q first", kind, user, got, err, want)
			}
		}
	}
	f("root", "root")
	f("daemon", "daemon")
	f("no-such-user", "")
	f("Root", "")
	f("", "")

	// Names that id would take for the number of root, for options or for parts of names.
	for _, user := range []string{"0", "00", " 0", "\t0", "+0", " root", "root ", "-u", "--help", "-", "--",
		"root\x00", "root\x00x", "root\n", "root:x", "roo\xff", "$(id)", "`id`", "root;id", "root daemon", "root,daemon", "'root'",
		"*", "../root", strings.Repeat("r", maxUser), strings.Repeat("r", maxUser+1)} {
		f(user, "")
	}
}

// TestSystemAgrees looks every user of this host up in both ways.
func TestSystemAgrees(t *testing.T) {
	mappings := systems(t)
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(passwd)) {
		user, _, _ := strings.Cut(line, ":")
		a, errA := mappings["system"].Of(user)
		b, errB := mappings["command"].Of(user)
		if !slices.Equal(a, b) || errA != nil || errB != nil {
			t.Errorf("%s: %q, %v in the process and %q, %v by the command", user, a, errA, b, errB)
		}
	}
}

// TestCommandFails lets a script stand for id: no look-up that goes wrong may
// be taken for a user without groups.
func TestCommandFails(t *testing.T) {
	f := func(script, want string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "id")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		groups, err := command{path, 5 * time.Second}.Of("alice")
		if err == nil || groups != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: groups %q, error %v, want one with %q", script, groups, err, want)
		}
	}
	f(`exit 1`, "id")
	f(`exit 2`, "exit status 2")
	f(`kill -9 $$`, "killed")
	f(`printf 'a\0'; exit 2`, "exit status 2")
	f(`echo "id: 'alice': no such user: Connection refused" >&2; exit 1`, "Connection refused")
	f(`echo "id: unrecognized option: z" >&2; exit 1`, "unrecognized option")
	f(`printf 'a b'`, "coreutils")
	f(`printf '\0'`, "coreutils")
	f(`exec head -c 2000000 /dev/zero`, "")
	f(`exec tr '\0' a </dev/zero`, "id")
}

func TestCommandTimeout(t *testing.T) {
	path := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexec sleep 600\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	groups, err := command{path, 50 * time.Millisecond}.Of("alice")
	if err == nil || groups != nil || !strings.Contains(err.Error(), "did not answer within 50ms") {
		t.Errorf("groups %q, error %v", groups, err)
	}
}

func TestCommandMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := New(configured(map[string]string{classProperty: classShell})); err == nil || !strings.Contains(err.Error(), "install coreutils") {
		t.Errorf("error %v", err)
	}
}

func TestParsePartial(t *testing.T) {
	f := func(stdout, stderr, want string, wantOK bool) {
		t.Helper()
		names, ok := parsePartial(stdout, stderr)
		if got := strings.Join(names, ","); got != want || ok != wantOK {
			t.Errorf("%q, %q: %q, %v, want %q, %v", stdout, stderr, got, ok, want, wantOK)
		}
	}
	// As id of coreutils 9.1 prints it where /etc/group lacks the primary group.
	f("1\x00bin\x00staff name\x00", "id: cannot find name for group ID 1\n", "bin,staff name", true)
	f("1\x002\x00", "id: cannot find name for group ID 1\nid: cannot find name for group ID 2\n", "", true)
	f("", "id: 'nosuch': no such user\n", "", true)
	f("", "id: '': no such user: No such file or directory\n", "", true)
	f("", "/usr/bin/id: 'nosuch': no such user: No such process\n", "", true)
	f("", "id: 'x': no such user: Connection refused\n", "", false)
	f("", "id: 'x': no such user: Input/output error\n", "", false)
	f("a\x00", "id: 'x': no such user\n", "", false)
	f("1\x00", "id: cannot find name for group ID 1\nid: 'x': no such user\n", "", false)
	f("1\x00", "id: cannot find name for group ID 1\nsegmentation fault\n", "", false)
	f("a b", "id: cannot find name for group ID 1\n", "", false)
	f("", "", "", false)
	f("a\x00", "", "", false)
}

// FuzzOutput holds the readers of id's output to what they promise.
func FuzzOutput(f *testing.F) {
	f.Add("root\x00", "")
	f.Add("1\x00bin\x00", "id: cannot find name for group ID 1\n")
	f.Add("", "id: 'x': no such user\n")
	f.Add("", "id: 'x': no such user: Connection refused\n")
	f.Fuzz(func(t *testing.T, stdout, stderr string) {
		names, err := parseNames(stdout)
		if err == nil {
			again, err := parseNames(strings.Join(append(names, ""), "\x00"))
			if err != nil || !slices.Equal(again, names) {
				t.Fatalf("%q: %q, read again %q, %v", stdout, names, again, err)
			}
		}
		partial, ok := parsePartial(stdout, stderr)
		if ok && stderr == "" {
			t.Fatalf("%q: an answer without a reason for the failure", stdout)
		}
		for _, name := range partial {
			if ok && !slices.Contains(names, name) {
				t.Fatalf("%q, %q: the group %q out of nowhere", stdout, stderr, name)
			}
		}
	})
}
