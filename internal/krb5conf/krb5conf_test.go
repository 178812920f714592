package krb5conf_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/internal/krb5conf"
)

// write makes files in a new folder; "$DIR" in their text is that folder.
func write(t testing.TB, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "$DIR", dir)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func load(t testing.TB, files map[string]string) *krb5conf.Config {
	t.Helper()
	c, err := krb5conf.Load(filepath.Join(write(t, files), "krb5.conf"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestValues(t *testing.T) {
	c := load(t, map[string]string{
		"krb5.conf": "# a comment\n" +
			"include $DIR/first.conf\n" +
			"[libdefaults]\n" +
			"\tdefault_realm = SECOND.TEST\n" +
			"\tclockskew = 2m 30s\n" +
			"  quoted = \"a \\\"b\\\" #c\" \n" +
			"includedir $DIR/conf.d\n" +
			"  after = include\n" + // still in libdefaults
			"  # include $DIR/none\n" +
			"[realms] # of this site\n" +
			"  A.TEST = {\n" +
			"    kdc = one:88\n" +
			"    kdc = two\n" +
			"    auth_to_local_names = {\n      root = admin\n    }\n" +
			"  }\n" +
			"  B.TEST =\n  {\n    kdc = three\n  }*\n" +
			"[libdefaults]\n  later* = yes\n",
		"first.conf":            "[libdefaults]\n default_realm = FIRST.TEST\r\n",
		"conf.d/a":              "[realms]\n A.TEST = {\n  kdc = zero\n }\n",
		"conf.d/b.conf":         "[libdefaults]\n b = 1\n",
		"conf.d/c.bak":          "nonsense",
		"conf.d/.d.conf":        "nonsense",
		"conf.d/e~":             "nonsense",
		"conf.d/sub/ignored":    "nonsense",
		"conf.d/krb5_include-1": "include $DIR/deeper\n",
		"deeper":                "[domain_realm]\n .a.test = A.TEST\n",
	})
	f := func(want []string, path ...string) {
		t.Helper()
		if got := c.Values(path...); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
	f([]string{"FIRST.TEST", "SECOND.TEST"}, "libdefaults", "default_realm")
	f([]string{`a "b" #c`}, "libdefaults", "quoted")
	f([]string{"include"}, "libdefaults", "after")
	f([]string{"1"}, "libdefaults", "b")
	f([]string{"yes"}, "libdefaults", "later")
	f([]string{"zero", "one:88", "two"}, "realms", "A.TEST", "kdc")
	f([]string{"admin"}, "realms", "A.TEST", "auth_to_local_names", "root")
	f([]string{"three"}, "realms", "B.TEST", "kdc")
	f([]string{"A.TEST"}, "domain_realm", ".a.test")
	f(nil, "realms", "A.TEST")
	f(nil, "none", "at", "all")
	if got := c.DefaultRealm(); got != "FIRST.TEST" {
		t.Errorf("default realm %q", got)
	}
	if got := c.ClockSkew(); got != 150*time.Second {
		t.Errorf("clock skew %v", got)
	}
	var names []string
	for _, file := range c.Files() {
		names = append(names, filepath.Base(file))
	}
	if want := []string{"krb5.conf", "first.conf", "conf.d", "a", "b.conf", "krb5_include-1", "deeper"}; !reflect.DeepEqual(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}
}

func TestMistakesNameFileAndLine(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		dir := write(t, map[string]string{"krb5.conf": text, "bad": "[a]\n x", "plain": ""})
		_, err := krb5conf.Load(filepath.Join(dir, "krb5.conf"))
		if err == nil {
			t.Fatalf("%q: no error, want %q", text, want)
		}
		if want = strings.ReplaceAll(want, "$DIR", dir); !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v\nwant %q", text, err, want)
		}
	}
	f("[a]\nx = 1\ny\n", "$DIR/krb5.conf:3: name = value is expected")
	f("[a]\nx y = 1\n", "$DIR/krb5.conf:2: name = value is expected")
	f("[a]\n= 1\n", "$DIR/krb5.conf:2: name = value is expected")
	f("x = 1\n", "$DIR/krb5.conf:1: a [section] must come first")
	f("[a\n", "$DIR/krb5.conf:1: [section] is expected")
	f("[a] b\n", "$DIR/krb5.conf:1: [section] is expected")
	f("[]\n", "$DIR/krb5.conf:1: [section] is expected")
	f("[a]\nb = {\n[c]\n", `$DIR/krb5.conf:3: a section begins while the block "b" is open`)
	f("[a]\nb = {\n", `the block "b" is not closed with }`)
	f("[a]\nb =\nc = d\n", "$DIR/krb5.conf:3: a value or { is expected")
	f("[a]\n}\n", "$DIR/krb5.conf:2: } without a {")
	f("[a]\nb = \x00\n", "zero byte")
	f("[a]\n"+strings.Repeat("b = {\n", 40), "blocks are nested deeper than 10")
	f("include relative\n", "$DIR/krb5.conf:1: relative: an included path must be absolute")
	f("includedir relative\n", "$DIR/krb5.conf:1: relative: an included path must be absolute")
	f("include $DIR/none\n", "$DIR/krb5.conf:1: open $DIR/none: no such file")
	f("includedir $DIR/none\n", "$DIR/krb5.conf:1: open $DIR/none: no such file")
	f("include $DIR/bad\n", "$DIR/krb5.conf:1: $DIR/bad:2: name = value is expected")
	f("include $DIR/krb5.conf\n", "nested deeper than 10")
	f("include $DIR\n", "it is not a regular file")
	f(strings.Repeat("include $DIR/plain\n", 300), "at most 256 files")
	f(strings.Repeat("#", 1<<20+1), "a file may have 1048576 bytes")
	f("[libdefaults]\nclockskew = soon\n", `libdefaults.clockskew "soon": not a duration`)
	f("[libdefaults]\nclockskew = 0\n", `libdefaults.clockskew "0": it must be more than 0`)
	f("[libdefaults]\nclockskew = 3d\n", `libdefaults.clockskew "3d": it must be more than 0`)
}

func TestSeveralAndMissingFiles(t *testing.T) {
	dir := write(t, map[string]string{"a": "[libdefaults]\ndefault_realm = A\n", "b": "[libdefaults]\ndefault_realm = B\n"})
	a, b, none := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "none")
	f := func(path, realm string) {
		t.Helper()
		c, err := krb5conf.Load(path)
		if realm == "" {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: error %v, want that the file does not exist", path, err)
			}
		} else if err != nil || c.DefaultRealm() != realm {
			t.Errorf("%s: %v, want realm %s", path, err, realm)
		}
	}
	f(a, "A")
	f(a+":"+b, "A")
	f(b+"::"+a, "B")
	f(none+":"+b, "B")
	f(none, "")
	f("", "")
	f(none+":"+none, "")

	t.Setenv("KRB5_CONFIG", b)
	f(krb5conf.Path(), "B")
	t.Setenv("KRB5_CONFIG", "")
	if krb5conf.Path() != krb5conf.DefaultPath {
		t.Errorf("without KRB5_CONFIG: %s", krb5conf.Path())
	}
}

func TestClientConfiguration(t *testing.T) {
	c := load(t, map[string]string{"krb5.conf": `
[libdefaults]
  default_realm = A.TEST
  clockskew = 1:30
  ticket_lifetime = 1d
  renew_lifetime = 7d 1h
  forwardable = on
  dns_lookup_kdc = nil
  udp_preference_limit = 1
  includes = nothing of this
[realms]
  A.TEST = {
    kdc = one:88
    auth_to_local = RULE:[1:$1@$0](.*@B.TEST)s/@.*//
    auth_to_local_names = {
      root = admin
    }
    kdc = two
    kdc = comment#
  }
  A.TEST = {
    kdc = three
  }
  B.TEST = {
    kdc = four
  }
[domain_realm]
  .A.test = A.TEST
  a.test = A.TEST
`})
	client, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]any{
		"realm": client.LibDefaults.DefaultRealm, "skew": client.LibDefaults.Clockskew,
		"ticket": client.LibDefaults.TicketLifetime, "renew": client.LibDefaults.RenewLifetime,
		"forwardable": client.LibDefaults.Forwardable, "dns": client.LibDefaults.DNSLookupKDC,
		"udp": client.LibDefaults.UDPPreferenceLimit, "enctypes": client.LibDefaults.PermittedEnctypeIDs,
		"realms": len(client.Realms), "kdc": client.Realms[0].KDC, "domains": client.ResolveRealm("x.a.test"),
	}
	want := map[string]any{
		"realm": "A.TEST", "skew": 90 * time.Minute,
		"ticket": 24 * time.Hour, "renew": 169 * time.Hour,
		"forwardable": true, "dns": false,
		"udp": 1, "enctypes": []int32{18, 17, 20, 19},
		"realms": 2, "kdc": []string{"one:88", "two:88", "three:88"}, "domains": "A.TEST",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}

	bad := load(t, map[string]string{"krb5.conf": "[libdefaults]\nforwardable = maybe\nticket_lifetime = 1x\n"})
	if _, err := bad.Client(); err == nil || !strings.Contains(err.Error(), `libdefaults.forwardable "maybe"`) ||
		!strings.Contains(err.Error(), `libdefaults.ticket_lifetime "1x"`) {
		t.Errorf("error %v, want one that names both relations", err)
	}
}

// Whatever a file says, reading it ends, and what was read is fit for a client.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{
		"", "[a]\nb = c\n", "[realms]\nA = {\n kdc = b\n}\n[domain_realm]\n.a = A\n",
		"[libdefaults]\ndefault_realm = \"a b\"\nclockskew = 1d2h\nrenew_lifetime = 1:2:3\n",
		"include /dev/null\n", "[a]*\nb* =\n{\n}*\n", "[realms]\n}=\n{ = {\n}\n[libdefaults]\n= =\n",
		"[realms]\nA = {\nv4_x = 1\n}\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if strings.Contains(string(text), "include") {
			return // the fuzzer is not to read this machine's files
		}
		path := filepath.Join(t.TempDir(), "krb5.conf")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := krb5conf.Load(path)
		if err != nil {
			return
		}
		client, err := c.Client()
		if err != nil {
			if strings.Contains(err.Error(), "gokrb5 cannot read") {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if client.LibDefaults.Clockskew != c.ClockSkew().Truncate(time.Second) {
			t.Errorf("%q: clock skew %v became %v", text, c.ClockSkew(), client.LibDefaults.Clockskew)
		}
	})
}
