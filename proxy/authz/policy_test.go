package authz

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/hadoop/conf"
)

// load reads kms-acls.xml from text.
func load(t testing.TB, text string) (*conf.Configuration, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kms-acls.xml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := conf.New(func(string) (string, bool) { return "", false }, nil)
	if err := c.LoadFile(path); err != nil {
		t.Fatal(err)
	}
	return c, path
}

func TestPolicyFromFile(t *testing.T) {
	c, path := load(t, `<configuration>
<property><name>admins</name><value>alice,bob</value></property>
<property><name>hadoop.kms.acl.CREATE</name><value>${admins} staff</value></property>
<property><name> key.acl.zone.one.ALL </name>
  <value>alice</value></property>
</configuration>`)
	p, warnings, err := NewPolicy(c)
	if err != nil || len(warnings) != 0 {
		t.Fatal(warnings, err)
	}
	create := p.acls[Create]
	if create.Value != "alice,bob staff" || create.Source.String() != path+":3" || create.Name != "hadoop.kms.acl.CREATE" {
		t.Errorf("%+v", create)
	}
	a, bob := New(p, static{}), &edek.Caller{User: "bob"}
	if err := a.KMS(Create, bob); err != nil {
		t.Error(err)
	}
	if err := a.Key(KeyRead, "zone.one", bob); !errors.Is(err, ErrDenied) {
		t.Error(err)
	}
	if err := a.Key(KeyRead, "zone.one", &edek.Caller{User: "alice"}); err != nil {
		t.Error(err)
	}
}

func TestUnusableFile(t *testing.T) {
	c, path := load(t, `<configuration>
<property><name>key.acl.k.READ</name><value>${x}</value></property>
<property><name>x</name><value>${y}</value></property>
<property><name>y</name><value>${x}</value></property>
<property><name>hadoop.kms.acl.GET</name><value>${x}</value></property>
</configuration>`)
	p, _, err := NewPolicy(c)
	problems, ok := errors.AsType[Problems](err)
	if p != nil || !ok || len(problems) != 2 {
		t.Fatalf("%v, %v", p, err)
	}
	for i, line := range []string{path + ":5: hadoop.kms.acl.GET: ", path + ":2: key.acl.k.READ: "} {
		if text := problems[i].Error(); !strings.HasPrefix(text, line) || !strings.Contains(text, ". Try: ") {
			t.Errorf("got %q", text)
		}
	}
	if strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("not a line for each problem: %q", err)
	}
}

func TestWarnings(t *testing.T) {
	f := func(name, value, says string) {
		t.Helper()
		_, warnings, err := NewPolicy(rules(name, value))
		if err != nil {
			t.Fatal(err)
		}
		if says == "" {
			if len(warnings) != 0 {
				t.Errorf("%s=%q: unexpected: %v", name, value, warnings)
			}
			return
		}
		if len(warnings) != 1 || !strings.Contains(warnings[0].What, says) || warnings[0].Remedy == "" || warnings[0].Property != name || warnings[0].File != "test" {
			t.Errorf("%s=%q: %v does not say %q", name, value, warnings, says)
		}
	}
	f("hadoop.kms.acl.CREATE", "alice,bob staff,ops", "")
	f("hadoop.kms.acl.CREATE", " staff", "")
	f("hadoop.kms.acl.CREATE", " ", "")
	f("hadoop.kms.acl.CREATE", "*", "")
	f("hadoop.kms.acl.CREATE", "alice  staff", "")
	f("hadoop.kms.acl.CREATE", "alice Domain Users", `"Domain Users" is taken for one name with space in it`)
	f("hadoop.kms.acl.CREATE", "alice\tstaff", `"alice\tstaff" is taken for one name with space in it`)
	f("hadoop.kms.acl.CREATE", "alice,hive/h1@EXAMPLE.COM", `"hive/h1@EXAMPLE.COM" is taken for one name`)
	f("hadoop.kms.acl.CREATE", "alice;bob", `"alice;bob" is taken for one name`)
	f("hadoop.kms.acl.CREATE", "alice,${admins}", "${admins} has no value")
	f("hadoop.kms.acl.CREATE", "", "the list is empty, which is nobody")
	f("hadoop.kms.acl.CREATE", " staff, ops", "")
	f("hadoop.kms.acl.CREATE", "alice, bob", "beside a comma")
	f("hadoop.kms.acl.CREATE", "alice ,bob", "beside a comma")
	f("hadoop.kms.acl.CREATE", "\n   alice,bob\n", "on a line of its own")
	f("hadoop.kms.acl.CREATE", "alice,*", "taken for a name")
	f("hadoop.kms.acl.CREATE", "alice staff,*", "taken for a name")
	f("hadoop.kms.acl.create", "*", `"create" is no operation`)
	f("hadoop.kms.blacklist.DECRYPT", "*", `"DECRYPT" is no operation`)
	f("Hadoop.KMS.acl.CREATE", "*", "case-sensitive")
	f("Default.key.acl.READ", "*", "case-sensitive")
	f("default.key.acl.ALL", "*", "ALL means something only")
	f("whitelist.key.acl.ALL", "*", "ALL means something only")
	f("default.key.acl.read", "*", `"read" is no right`)
	f("key.acl.k.DECRYPT", "*", `"DECRYPT" is no right`)
	f("key.acl.READ", "*", "names no key or no right")
	f("key.acl..READ", "*", "names no key or no right")
	f("key.acl.my.key.READ", "*", "")
	f("hadoop.security.groups.cache.secs", "*", "no rule has such a name")
	f("hadoop.kms.acls.DECRYPT_EEK", "*", "no rule has such a name")
	f("whitelist.acl.key.MANAGEMENT", "*", "no rule has such a name")
	f("keyacl.ez1.READ", "*", "no rule has such a name")
}

// What stands in the file and does nothing may be the very line that was to
// close a door.
func TestUnusedPropertiesAreToldOf(t *testing.T) {
	c, path := load(t, `<configuration>
<property><name>hadoop.kms.acl.CREATE</name><value></value></property>
<property><name>hadoop.kms.blacklist.CREATE</name><valeu>bob</valeu></property>
<property><name>key.acl.k.READ</name><value/></property>
<property><name>keyacl.k.READ</name></property>
<property><name>hadoop.kms.acl.GET</name><value>alice</value></property>
<property><name>hadoop.kms.acl.GET</name><value>*</value></property>
<property><name>hadoop.kms.acl.DELETE</name><value> </value></property>
</configuration>`)
	p, warnings, err := NewPolicy(c)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		":2: hadoop.kms.acl.CREATE: it has no value and is as if it were not there, which lets everyone in",
		":3: hadoop.kms.blacklist.CREATE: it has no value and is as if it were not there, which keeps nobody out",
		":4: key.acl.k.READ: it has no value and is as if it were not there, which gives nobody the right",
		":5: keyacl.k.READ: ignored: no rule has such a name",
		":6: hadoop.kms.acl.GET: ignored: set again at " + path + ":7, which counts",
	}
	if len(warnings) != len(want) {
		t.Fatalf("%v", warnings)
	}
	for i, w := range warnings {
		if text := w.Error(); !strings.HasPrefix(text, path+want[i]) || !strings.Contains(text, ". Try: ") {
			t.Errorf("got %q, want %q", text, want[i])
		}
	}
	if len(p.keys) != 0 {
		t.Error("a property without a value takes a key from the default rules")
	}
}

// FuzzList parses strings as lists and compares the answers with a reading of
// Hadoop's that is slow and literal.
func FuzzList(f *testing.F) {
	for _, s := range []string{"", " ", "*", "alice *", "alice,bob staff", " staff", "~gw", "a, b", "\n a,b\n", "x,\x01 y", "a\xffb c", "a  b"} {
		f.Add(s, "alice", "gw", "staff")
	}
	f.Fuzz(func(t *testing.T, s, user, real, group string) {
		l := parseList(s)
		w := who{user: user, real: real, groups: []string{group}}
		open := l.match(&w)
		w.asked = true
		closed := l.match(&w)
		if closed == matchUnknown || open != matchUnknown && open != closed {
			t.Errorf("%q: %d without groups, %d with", s, open, closed)
		}
		if want := slowAllows(s, user, real, group); closed.in() != want {
			t.Errorf("%q for %q, %q, %q: got %v, want %v", s, user, real, group, closed.in(), want)
		}
		suspicion(s)
	})
}

// slowAllows is AccessControlList for a caller with one group.
func slowAllows(s, user, real, group string) bool {
	parts := strings.SplitN(s, " ", 2)
	sets := make([][]string, 2)
	for i, part := range parts {
		part = strings.Trim(part, "\x00\x01\x02\x03\x04\x05\x06\x07\x08\t\n\x0b\x0c\r\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f ")
		if part == "*" {
			return true
		}
		for name := range strings.SplitSeq(strings.ReplaceAll(part, "\n", ","), ",") {
			if name = strings.Trim(name, " \t\n\v\f\r"); name != "" {
				sets[i] = append(sets[i], name)
			}
		}
	}
	return slices.Contains(sets[0], user) || slices.Contains(sets[1], group) || real != "" && slices.Contains(sets[0], "~"+real)
}

// FuzzNames reads arbitrary property names as rules: each is one rule or none,
// and the rule is found again by the name it was written for.
func FuzzNames(f *testing.F) {
	for _, name := range []string{"hadoop.kms.acl.GET", "hadoop.kms.blacklist.get", "key.acl.a.b.READ", "key.acl..READ", "key.acl.READ",
		"default.key.acl.ALL", "whitelist.key.acl.READ", "KEY.ACL.x.READ", "key.acl.k.", "key.acl.", ""} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		p, _, err := NewPolicy(rules(name, "*"))
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, set := range [][]*Rule{p.acls[:], p.blacklists[:], p.defaults[:], p.whitelist[:]} {
			for _, r := range set {
				if r != nil {
					found = append(found, r.Name)
				}
			}
		}
		for aclName, own := range maps.All(p.keys) {
			for i, r := range own {
				if r != nil {
					found = append(found, prefixKey+aclName+"."+Right(i).String())
				}
			}
		}
		if len(found) > 1 || len(found) == 1 && found[0] != name {
			t.Errorf("%q became the rules %q", name, found)
		}
	})
}
