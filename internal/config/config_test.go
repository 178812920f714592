package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/edek"
)

// openACLs is the kms-acls.xml that comes with Hadoop, as far as edekd asks
// for it.
const openACLs = "default.key.acl.MANAGEMENT=*\ndefault.key.acl.GENERATE_EEK=*\ndefault.key.acl.DECRYPT_EEK=*\ndefault.key.acl.READ=*"

// site is a configuration folder to be loaded, with its surroundings.
type site struct {
	dir, home string
	env       map[string]string
}

// newSite makes a folder in which only a kms-acls.xml stands.
func newSite(t *testing.T) *site {
	s := &site{dir: t.TempDir(), home: t.TempDir(), env: map[string]string{}}
	s.write(t, "kms-acls.xml", openACLs)
	return s
}

// write makes a file of properties, given as name=value, one a line. The
// property of line n then stands on line n+1 of the file.
func (s *site) write(t *testing.T, file, properties string) {
	t.Helper()
	var text bytes.Buffer
	text.WriteString("<configuration>\n")
	for line := range strings.SplitSeq(properties, "\n") {
		if name, value, ok := strings.Cut(line, "="); ok {
			text.WriteString("<property><name>" + name + "</name><value>" + value + "</value></property>\n")
		}
	}
	text.WriteString("</configuration>\n")
	s.raw(t, file, text.String())
}

func (s *site) raw(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, file), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *site) load() (*Config, error) {
	return load(s.dir, func(name string) (string, bool) { v, ok := s.env[name]; return v, ok }, s.home, "kms", (*loader).everything)
}

func (s *site) mustLoad(t *testing.T) *Config {
	t.Helper()
	c, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// refused loads the site and checks that exactly one problem is found: that of
// property in file ("NAME:LINE" or "NAME"), saying what is wrong and what to
// do about it.
func (s *site) refused(t *testing.T, file, property, what, remedy string) {
	t.Helper()
	_, err := s.load()
	var problems Problems
	if !errors.As(err, &problems) {
		t.Errorf("%s %s: accepted (%v)", file, property, err)
		return
	}
	if len(problems) != 1 {
		t.Errorf("%s %s: %d problems:\n%v", file, property, len(problems), err)
		return
	}
	p := problems[0]
	if strings.TrimPrefix(p.File, s.dir+"/") != file || p.Property != property || !strings.Contains(p.What, what) || !strings.Contains(p.Remedy, remedy) {
		t.Errorf("%s %s: want %q and %q in:\n%v", file, property, what, remedy, p)
	}
}

func TestDefaults(t *testing.T) {
	s := newSite(t)
	want := &Config{
		Dir:  s.dir,
		HTTP: HTTP{Host: "0.0.0.0", Port: 9600, MaxHeaderBytes: 65536, MaxThreads: 1000, IdleTimeout: time.Minute, Backlog: 500, UnixSocketMode: 0o660},
		Auth: Auth{TokenValidity: 10 * time.Hour},
		Keys: Keys{
			Providers:     []string{"sqlite://file@/var/lib/edekd/keys.db"},
			IdentityFile:  "/var/lib/edekd/identity.pgp",
			DefaultCipher: "AES/CTR/NoPadding", DefaultBitLength: 128, Suite: edek.AESCTR, Authorization: true,
		},
		Cache:    Cache{Enabled: true, Timeout: 10 * time.Minute, CurrentTimeout: 30 * time.Second},
		Queue:    Queue{Size: 100, LowWatermark: 0.3, FillThreads: 2, Expiry: 12 * time.Hour},
		Audit:    Audit{Text: true, Window: 10 * time.Second},
		Logs:     Logs{Dir: "/var/lib/edekd/logs"},
		Limits:   Limits{NumKeys: 10000, BatchEntries: 20000, BatchBodyBytes: 16 << 20, BodyBytes: 64 << 10},
		StateDir: "/var/lib/edekd", HomeDir: s.home, Drain: 3 * time.Second, MetricsProcess: "KMS",
	}
	got := s.mustLoad(t)
	settingsOnly(got)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestEverySetting(t *testing.T) {
	s := newSite(t)
	s.raw(t, "secret", "s")
	s.raw(t, "passphrase", "p")
	s.raw(t, "kms.password", "p")
	s.write(t, "core-site.xml", "hadoop.kms.http.host=overridden\nhadoop.security.crypto.cipher.suite=SM4/CTR/NoPadding\nunknown.to.us=1")
	s.write(t, "kms-site.xml", `hadoop.kms.http.host= 127.0.0.1
hadoop.kms.http.port=0
hadoop.http.max.threads=7
hadoop.http.max.request.header.size=8192
hadoop.http.idle_timeout.ms=20000
hadoop.http.socket.backlog.size=9
hadoop.http.header.X-B=two words
hadoop.http.header.X-A=1
hadoop.kms.authentication.token.validity=60
hadoop.kms.authentication.token.max-inactive-interval=0
hadoop.kms.authentication.cookie.domain=example.com
hadoop.kms.authentication.cookie.path=/kms
hadoop.kms.authentication.cookie.persistent=true
hadoop.kms.authentication.signer.secret.provider=file
hadoop.kms.authentication.signature.secret.file=${kms.config.dir}/secret
hadoop.kms.key.provider.uri=jceks://file@/${user.home}/kms.keystore, sqlite://file@${edekd.state.dir}/k.db
hadoop.security.keystore.java-keystore-provider.password-file=kms.password
hadoop.security.key.default.cipher=SM4/CTR/NoPadding
hadoop.security.key.default.bitlength=128
hadoop.kms.key.authorization.enable=false
hadoop.kms.cache.enable=false
hadoop.kms.cache.timeout.ms=1
hadoop.kms.current.key.cache.timeout.ms=0
hadoop.security.kms.encrypted.key.cache.size=5
hadoop.security.kms.encrypted.key.cache.low.watermark=0.5f
hadoop.security.kms.encrypted.key.cache.num.fill.threads=4
hadoop.security.kms.encrypted.key.cache.expiry=6
hadoop.kms.audit.aggregation.window.ms=11
hadoop.kms.metrics.process.name=KMS2
edekd.state.dir=/s
edekd.identity.file=/i
edekd.identity.passphrase-file=${kms.config.dir}/passphrase
edekd.log.dir=/l
edekd.access-log.enabled=true
edekd.limits.num-keys=11
edekd.limits.batch-entries=12
edekd.limits.batch-body-bytes=2000
edekd.limits.body-bytes=1024
edekd.drain.seconds=0`)
	want := &Config{
		Dir: s.dir,
		HTTP: HTTP{Host: "127.0.0.1", Port: 0, MaxHeaderBytes: 8192, MaxThreads: 7, IdleTimeout: 20 * time.Second, Backlog: 9, UnixSocketMode: 0o660,
			Headers: []Header{{"X-A", "1"}, {"X-B", "two words"}}},
		Auth: Auth{TokenValidity: time.Minute, CookieDomain: "example.com", CookiePath: "/kms", CookiePersistent: true,
			SecretFile: filepath.Join(s.dir, "secret")},
		Keys: Keys{
			Providers:            []string{"jceks://file@/" + s.home + "/kms.keystore", "sqlite://file@/s/k.db"},
			KeystorePasswordFile: filepath.Join(s.dir, "kms.password"), IdentityFile: "/i", PassphraseFile: filepath.Join(s.dir, "passphrase"),
			DefaultCipher: "SM4/CTR/NoPadding", DefaultBitLength: 128, Suite: edek.SM4CTR, Authorization: false,
		},
		Cache:    Cache{Enabled: false, Timeout: time.Millisecond},
		Queue:    Queue{Size: 5, LowWatermark: 0.5, FillThreads: 4, Expiry: 6 * time.Millisecond},
		Audit:    Audit{Text: true, Window: 11 * time.Millisecond},
		Logs:     Logs{Dir: "/l", ToFile: true, Access: true},
		Limits:   Limits{NumKeys: 11, BatchEntries: 12, BatchBodyBytes: 2000, BodyBytes: 1024},
		StateDir: "/s", HomeDir: s.home, MetricsProcess: "KMS2",
	}
	got := s.mustLoad(t)
	settingsOnly(got)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestEnvironmentOverrides(t *testing.T) {
	s := newSite(t)
	s.raw(t, "kms-site.xml", `<configuration><property name="hadoop.kms.http.port" value="1" final="true"/></configuration>`)
	s.write(t, "ssl-server.xml", "ssl.server.keystore.type=pem\nssl.server.keystore.location=/none")
	s.env = map[string]string{
		"KMS_HTTP_PORT": "9700", "KMS_MAX_THREADS": "12", "KMS_MAX_HTTP_HEADER_SIZE": "10000", "KMS_TEMP": "/t",
		"KMS_SSL_ENABLED": "true", "KMS_SSL_KEYSTORE_FILE": filepath.Join(s.dir, "env.pem"), "KMS_SSL_KEYSTORE_PASS": "unused",
		"KMS_LOG": "/log", "STATE_DIRECTORY": "/var/lib/private/a:/var/lib/b",
	}
	c := s.mustLoad(t)
	if c.HTTP.Port != 9700 || c.HTTP.MaxThreads != 12 || c.HTTP.MaxHeaderBytes != 10000 {
		t.Errorf("HTTP: %+v", c.HTTP)
	}
	if location, _, _ := c.SSL.Get(storeLocation); !c.TLS || location != s.env["KMS_SSL_KEYSTORE_FILE"] {
		t.Errorf("TLS %v from %q", c.TLS, location)
	}
	if want := (Logs{Dir: "/log", ToFile: true}); c.Logs != want {
		t.Errorf("Logs: %+v", c.Logs)
	}
	if c.StateDir != "/var/lib/private/a" {
		t.Errorf("StateDir: %s", c.StateDir)
	}

	s.env = map[string]string{"KMS_HTTP_PORT": ""}
	if c := s.mustLoad(t); c.HTTP.Port != 1 {
		t.Errorf("an empty variable changes the port to %d", c.HTTP.Port)
	}
	s.env = map[string]string{"KMS_HTTP_PORT": "web"}
	s.refused(t, "environment variable KMS_HTTP_PORT", "hadoop.kms.http.port", `"web" is not a whole number`, "0 to 65535")
}

func TestLogFolders(t *testing.T) {
	f := func(properties, env, dir string) {
		t.Helper()
		s := newSite(t)
		s.env["KMS_LOG"] = env
		s.write(t, "kms-site.xml", properties)
		if got := s.mustLoad(t).Logs; got.Dir != dir || !got.ToFile {
			t.Errorf("%q and KMS_LOG=%q: %+v", properties, env, got)
		}
	}
	f("hadoop.log.dir=/hadoop", "", "/hadoop")
	f("hadoop.log.dir=/hadoop\nkms.log.dir=/kms", "", "/kms")
	f("hadoop.log.dir=/hadoop\nkms.log.dir=/kms", "/env", "/env")
	f("edekd.log.dir=/own\nkms.log.dir=/kms", "/env", "/own")
	f("edekd.log.dir=${kms.log.dir}/edekd", "/env", "/env/edekd")
}

func TestOwnStoreNeverReplacesHadoopsDefault(t *testing.T) {
	f := func(set func(s *site, home string)) {
		t.Helper()
		s := newSite(t)
		home := t.TempDir()
		set(s, home)
		keystore := filepath.Join(home, "kms.keystore")
		s.write(t, "kms-site.xml", "edekd.state.dir=/s%")
		for _, suffix := range []string{"", "_OLD", "_NEW"} {
			if err := os.WriteFile(keystore+suffix, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			s.refused(t, "kms-site.xml", providerURI, keystore+suffix+" exists", "jceks://file@"+keystore+" to serve the keys in that file, or sqlite://file@/s%25/keys.db to")
			if err := os.Remove(keystore + suffix); err != nil {
				t.Fatal(err)
			}
			s.mustLoad(t)
		}
		if err := os.WriteFile(keystore, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s.write(t, "kms-site.xml", "hadoop.kms.key.provider.uri=sqlite://file@/s/keys.db")
		s.mustLoad(t)
	}
	f(func(s *site, home string) { s.home = home })
	f(func(s *site, home string) { s.env["HOME"] = home })

	s := newSite(t)
	s.home = strings.Repeat("x", 5000) // a path that cannot be looked at
	s.refused(t, "kms-site.xml", providerURI, "cannot be seen", "sqlite://")
}

func TestFoldersAndFiles(t *testing.T) {
	f := func(dir, what string) {
		t.Helper()
		_, err := Load(dir, os.LookupEnv)
		var problems Problems
		if !errors.As(err, &problems) || len(problems) != 1 || problems[0].File != dir || !strings.Contains(problems[0].What, what) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	f(filepath.Join(t.TempDir(), "none"), "cannot be read")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f(file, "not a folder")

	for _, name := range []string{"core-site.xml", "kms-site.xml", "kms-acls.xml", "ssl-server.xml"} {
		s := newSite(t)
		s.raw(t, name, "<configuration>\n<property>\n</configuration>")
		s.refused(t, name+":3", "", "not well-formed", "correct the XML")
		s = newSite(t)
		if err := os.RemoveAll(filepath.Join(s.dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		s.refused(t, name, "", "not a regular file", "put a file there")
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	s := newSite(t)
	s.write(t, "kms-site.xml", "hadoop.kms.http.port=x\nedekd.drain.second=3\nhadoop.kms.authentication.type=ldap")
	s.write(t, "ssl-server.xml", "edekd.tls.key-file=/x")
	_, err := s.load()
	want := []string{
		s.dir + `/kms-site.xml:3: edekd.drain.second: edekd has no such property. Try: edekd.drain.seconds, if that is what is meant; edekd --help lists all`,
		s.dir + `/ssl-server.xml:2: edekd.tls.key-file: properties of edekd are not read from this file. Try: move it to ` + s.dir + `/kms-site.xml`,
		s.dir + `/kms-site.xml:2: hadoop.kms.http.port: "x" is not a whole number. Try: a number from 0 to 65535`,
		s.dir + `/kms-site.xml:4: hadoop.kms.authentication.type: edekd cannot authenticate callers by "ldap". Try: kerberos, or simple for a cluster where everybody is trusted`,
	}
	if err == nil || err.Error() != strings.Join(want, "\n") {
		t.Errorf("got\n%v\nwant\n%s", err, strings.Join(want, "\n"))
	}
}

func TestWarnings(t *testing.T) {
	f := func(set func(s *site), want string) {
		t.Helper()
		s := newSite(t)
		set(s)
		c := s.mustLoad(t)
		if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].Error(), want) {
			t.Errorf("want %q in %v", want, c.Warnings)
		}
	}
	f(func(s *site) {
		s.raw(t, "core-site.xml", `<c><property name="hadoop.kms.http.port" value="1" final="true"/></c>`)
		s.write(t, "kms-site.xml", "hadoop.kms.http.port=2")
	}, "core-site.xml:1 makes the property final")
	f(func(s *site) { s.write(t, "core-site.xml", "fs.default.name=hdfs://x") }, "fs.defaultFS")
	f(func(s *site) { s.write(t, "kms-site.xml", "hadoop.http.idle_timeout.ms=5000") }, "at least 10000")
	f(func(s *site) { s.write(t, "kms-site.xml", "edekd.tls.key-file=/x") }, "hadoop.kms.ssl.enabled is false")
	f(func(s *site) { s.write(t, "kms-site.xml", authSecretFile+"=/x") }, "signer.secret.provider is random")
	f(func(s *site) {
		s.raw(t, "p", "secret")
		if err := os.Chmod(filepath.Join(s.dir, "p"), 0o640); err != nil {
			t.Fatal(err)
		}
		s.write(t, "kms-site.xml", "edekd.identity.passphrase-file=${kms.config.dir}/p")
	}, "chmod 600")
}

func TestExample(t *testing.T) {
	c, err := Load("testdata/example", func(string) (string, bool) { return "", false })
	if err != nil || len(c.Warnings) > 0 {
		t.Fatalf("%v, warnings %v", err, c.Warnings)
	}
	s := newSite(t)
	want := s.mustLoad(t)
	// The example names what it says is not the default.
	want.Dir, want.HomeDir = c.Dir, c.HomeDir
	want.HTTP.Headers = []Header{{"Strict-Transport-Security", "max-age=31536000"}}
	want.Logs = Logs{Dir: "/var/log/edekd", ToFile: true}
	settingsOnly(c)
	settingsOnly(want)
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestPropertiesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	row := func(name, value string) {
		t.Helper()
		if value == "" {
			value = "none"
		} else if strings.Contains(value, "$") {
			value = "`" + value + "`"
		}
		if !strings.Contains(string(text), "\n| `"+name+"` | "+value+" | ") {
			t.Errorf("docs/configuration.md has no row for %s with the default %s", name, value)
		}
	}
	for _, p := range Properties() {
		row(p.Name, p.Default)
		if !strings.HasPrefix(p.Name, "edekd.") || !strings.HasSuffix(p.Meaning, ".") {
			t.Errorf("%+v: not one sentence on a property of edekd", p)
		}
	}
	for name, value := range hadoopDefaults {
		if name != httpTempDir && name != "hadoop.tmp.dir" { // of no use to edekd itself
			row(name, value)
		}
	}
	for _, e := range environment {
		if !strings.Contains(string(text), "`"+e.variable+"`") {
			t.Errorf("docs/configuration.md does not speak of %s", e.variable)
		}
	}
}

func TestNearest(t *testing.T) {
	f := func(name, want string) {
		t.Helper()
		if got := nearest(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	f("edekd.statedir", "edekd.state.dir")
	f("edekd.limit.num.keys", "edekd.limits.num-keys")
	f("EDEKD.LOG.DIR", "edekd.log.dir")
	f("edekd.tls.cert-file", "edekd.tls.key-file")
	f("edekd.upstream.ring.cover", "edekd.upstream.ring.cover.seconds") // edekd.upstream.principal is as near
	f("edekd.metrics", "edekd.metrics.address")
	f("edekd."+strings.Repeat("x", 1<<20), nearest("edekd."+strings.Repeat("x", 194)))
}

// A store must be restorable on a host where other settings are still wrong.
func TestLoadKeysMindsOnlyTheKeyStore(t *testing.T) {
	dir := t.TempDir()
	write := func(properties string) {
		if err := os.WriteFile(filepath.Join(dir, "kms-site.xml"), []byte("<configuration>"+properties+"</configuration>"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	none := func(string) (string, bool) { return "", false }
	write(`<property><name>hadoop.kms.authentication.type</name><value>kerberos</value></property>
		<property><name>hadoop.kms.authentication.kerberos.keytab</name><value>/none</value></property>
		<property><name>edekd.state.dir</name><value>/srv/keys</value></property>
		<property><name>hadoop.kms.key.provider.uri</name><value>sqlite://file@/srv/keys/keys.db</value></property>`)
	if _, err := Load(dir, none); err == nil {
		t.Error("Load takes a folder without a keytab")
	}
	c, err := LoadKeys(dir, none)
	if err != nil || c.StateDir != "/srv/keys" || c.Keys.Providers[0] != "sqlite://file@/srv/keys/keys.db" {
		t.Errorf("LoadKeys: %+v, %v", c.Keys, err)
	}
	write(`<property><name>hadoop.kms.key.provider.uri</name><value>nowhere://x</value></property>`)
	if _, err := LoadKeys(dir, none); err == nil {
		t.Error("LoadKeys takes a store that nobody has")
	}
}

// settingsOnly takes from c what two readings of the same files do not share.
func settingsOnly(c *Config) { c.place, c.Site, c.ACLs, c.SSL = nil, nil, nil, nil }

func TestRulesInTheWrongFileAreToldOf(t *testing.T) {
	s := newSite(t)
	s.write(t, "core-site.xml", "key.acl.k.READ=alice")
	s.write(t, "kms-site.xml", "hadoop.kms.acl.DECRYPT_EEK=alice\nhadoop.kms.blacklist.GET=bob\ndefault.key.acl.READ=alice\nwhitelist.key.acl.READ=alice")
	found := map[string]string{}
	for _, w := range s.mustLoad(t).Warnings {
		if strings.Contains(w.What, "rules are not read from this file") && strings.HasSuffix(w.Remedy, "kms-acls.xml") {
			found[w.Property] = filepath.Base(w.File)
		}
	}
	if len(found) != 5 || !strings.HasPrefix(found["key.acl.k.READ"], "core-site.xml:") || !strings.HasPrefix(found["hadoop.kms.acl.DECRYPT_EEK"], "kms-site.xml:") {
		t.Errorf("%v", found)
	}
}
