package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestRefusedSettings has every property of kms-site.xml that is refused for
// its value alone.
func TestRefusedSettings(t *testing.T) {
	f := func(property, value, what, remedy string) {
		t.Helper()
		s := newSite(t)
		s.raw(t, "empty", "")
		s.write(t, "kms-site.xml", property+"="+value)
		s.refused(t, "kms-site.xml:2", property, what, remedy)
	}
	// Numbers: neither words nor beyond their bounds.
	bounds := func(property, below, above string) {
		t.Helper()
		f(property, below, "out of range", "a number from")
		f(property, above, "out of range", "a number from")
		f(property, "many", "not a whole number", "a number from")
		f(property, " ", "not a whole number", "a number from")
	}
	bounds(httpPort, "-1", "65536")
	bounds(httpHeaderSize, "4095", "16777217")
	bounds(httpThreads, "0", "1000001")
	bounds(httpIdleTimeout, "0", "86400001")
	bounds(httpBacklog, "0", "2147483648")
	bounds(cacheTimeout, "-1", "31536000001")
	bounds(currentTimeout, "-1", "31536000001")
	bounds(queueSize, "0", "1000001")
	bounds(queueThreads, "0", "10001")
	bounds(queueExpiry, "0", "31536000001")
	bounds(auditWindow, "9", "86400001")
	bounds(authValidity, "0", "315360001")
	bounds(defaultBitLength, "0", "2147483648")
	bounds("edekd.limits.num-keys", "0", "1000001")
	bounds("edekd.limits.batch-entries", "0", "1000001")
	bounds("edekd.limits.batch-body-bytes", "1023", "1073741825")
	bounds("edekd.limits.body-bytes", "1023", "1073741825")
	bounds("edekd.log.keep", "-1", "1000001")
	f("edekd.log.max-bytes", "-1", "out of range", "a number from")
	f("edekd.audit.format", "xml", "no form of the audit log", "json")
	bounds("edekd.drain.seconds", "-1", "9")
	f(authInactive, "2147483648", "out of range", "a number from")
	f(authInactive, "soon", "not a whole number", "a number from")
	f(queueWatermark, "0", "out of range", "above 0")
	f(queueWatermark, "1.1", "out of range", "above 0")
	f(queueWatermark, "low", "not a number", "above 0")

	for _, property := range []string{sslEnabled, cacheEnable, keyAuthorization, authAnonymous, authCookiePersist, requiresAdmin, "edekd.access-log.enabled"} {
		f(property, "yes", `"yes" is neither true nor false`, "true or false")
	}
	for _, property := range []string{"edekd.state.dir", "edekd.identity.file", "edekd.identity.passphrase-file", "edekd.log.dir", kmsLogDir, hadoopLogDir} {
		f(property, "some/where", "not an absolute path", "${kms.config.dir}")
		f(property, " ", "not an absolute path", "${kms.config.dir}")
	}
	f("edekd.identity.passphrase-file", "/none/such", "no such file", "create the file")
	f("edekd.identity.passphrase-file", "${kms.config.dir}", "is not a file", "name a file")
	f("edekd.identity.passphrase-file", "${kms.config.dir}/empty", "is empty", "put the secret")

	f(httpHost, " ", "no host", "0.0.0.0")
	f(httpHost, "a b", "no host", "0.0.0.0")
	f(httpHeaders+"X-1", "v", `"X-1" cannot name a header`, "letters")
	f(httpHeaders+"X", "a&#10;b", "control characters", "one line")
	f(metricsProcess, "a=b", "JMX bean", "KMS")
	f(auditLogger, "com.example.Logger", "com.example.Logger", "remove the property")
	f(auditLogger, simpleAuditLogger+",com.example.Logger", "com.example.Logger", "remove the property")
	f(defaultCipher, "DES/ECB/NoPadding", "DES", "AES/CTR/NoPadding")
	f(defaultBitLength, "256000", "256000 bits", "128, 192 or 256")
	f(cipherSuite, "AES/GCM/NoPadding", "cannot wrap keys", "SM4/CTR/NoPadding")
	f(cipherSuite, "aes/ctr/nopadding", "cannot wrap keys", "AES/CTR/NoPadding")
	f("edekd.metrics.address", "127.0.0.1:99999", "no address to listen on", "port up to 65535")
	f("edekd.metrics.address", "127.0.0.1:-1", "no address to listen on", "host:port")
	f("edekd.identity.passphrase-file", "HUNTER2", "the value, which is not shown, is not an absolute path", "")
	f("hadoop.kms.key.provider.uri", "kms://me:HUNTER2@host", `"kms://***@host"`, "sqlite://")
	f("edekd.metrics.address", "localhost", "no address to listen on", "host:port")
	for _, address := range []string{":9602", "0.0.0.0:9602", "10.0.0.1:9602", "[::]:9602", "localhost:9602", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999"} {
		f("edekd.profile.address", address, "no loopback address with a port", "[::1]:9602")
	}
	f(authCookieDomain, "a;b", "cannot stand in a cookie", "without semicolons")
	f(authCookiePath, "a&#10;b", "cannot stand in a cookie", "without semicolons")

	f(providerURI, " ", "names no provider", "sqlite://")
	f(providerURI, "cloudera.hsmkp://file@/k", "cannot yet keep keys", "sqlite://file@PATH")
	f(providerURI, "kms://ftp@h:9600/kms", "neither http@ nor https@", "kms://https@HOST")
	f(providerURI, "kms://https@h:99999/kms", `the port "99999", no number from 1 to 65535`, "kms://https@HOST")
	f(providerURI, "kms://https@h;H:443/kms", "names H:443 twice", "kms://https@HOST")
	f(providerURI, "kms://https@h1/kms,h2:9600/kms", "a comma divides providers", "a semicolon between the hosts")
	f(providerURI, "keys.db", "cannot yet keep keys", "sqlite://file@PATH")
	f(providerURI, "sqlite:///keys.db", "does not say which file system", "sqlite://file@")
	f(providerURI, "jceks://hdfs@nn/k", "only local files", "jceks://file@")

	// Variables that refer to each other.
	for _, property := range []string{httpHost, httpPort, sslEnabled, authType, authSecret, cipherSuite, defaultCipher, providerURI, auditLogger,
		metricsProcess, queueWatermark, "edekd.state.dir", "edekd.log.dir"} {
		f(property, "${a}</value></property><property><name>a</name><value>${b}</value></property><property><name>b</name><value>${a}",
			"circle", "")
	}

	f("edekd.statedir", "/x", "no such property", "edekd.state.dir")
	f("Edekd.state.dir", "/x", "no such property", "edekd.state.dir")
}

// What edekd cannot enforce yet must not seem to be in force.
func TestRefusesWhatItCannotEnforce(t *testing.T) {
	f := func(file, property, value, what, remedy string) {
		t.Helper()
		s := newSite(t)
		line := ":2"
		text := property + "=" + value
		if file == "kms-acls.xml" {
			line, text = ":6", openACLs+"\n"+text
		}
		s.write(t, file, text)
		s.refused(t, file+line, property, what, remedy)
	}
	f("kms-site.xml", authType, "Simple", "Simple", "simple")
	f("kms-site.xml", authType, "com.example.Handler", "com.example.Handler", "simple")
	f("kms-site.xml", authAnonymous, "true", "callers without a name", "false")
	f("kms-site.xml", authSecret, "string", "string", "random")
	f("kms-site.xml", "hadoop.kms.security.authorization.manager", "org.apache.ranger.authorization.kms.authorizer.RangerKmsAuthorizer", "access rules", "remove the property")
	f("kms-acls.xml", "edekd.log.dir", "/x", "not read from this file", "kms-site.xml")
	f("ssl-server.xml", "edekd.tls.key-file", "/x", "not read from this file", "kms-site.xml")
}

// In Hadoop a missing rule of the key layer lets nobody in.
func TestClosedKeysAreToldOf(t *testing.T) {
	f := func(site, acls string, missing ...string) {
		t.Helper()
		s := newSite(t)
		s.write(t, "kms-site.xml", site)
		s.write(t, "kms-acls.xml", acls)
		var got []string
		for _, p := range s.mustLoad(t).Warnings {
			got = append(got, p.Property)
			if p.File != filepath.Join(s.dir, "kms-acls.xml") || !strings.Contains(p.What, "closes all keys") {
				t.Error(p)
			}
		}
		if strings.Join(got, " ") != strings.Join(missing, " ") {
			t.Errorf("%q: warned of %v, want %v", acls, got, missing)
		}
	}
	all := []string{"default.key.acl.MANAGEMENT", "default.key.acl.GENERATE_EEK", "default.key.acl.DECRYPT_EEK", "default.key.acl.READ"}
	f("", "", all...)
	f("", "default.key.acl.READ=hdfs\ndefault.key.acl.ALL=*", all[:3]...)
	f("", openACLs)
	f("hadoop.kms.key.authorization.enable=false", "")
}

func TestLoadACLsReadsTheRulesAlone(t *testing.T) {
	s := newSite(t)
	s.raw(t, "kms-site.xml", "broken")
	s.write(t, "kms-acls.xml", "hadoop.kms.acl.CREATE=alice")
	acls, err := LoadACLs(s.dir, os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	if value, _, err := acls.Get("hadoop.kms.acl.CREATE"); value != "alice" || err != nil {
		t.Errorf("%q, %v", value, err)
	}
	s.raw(t, "kms-acls.xml", "<configuration>")
	if acls, err = LoadACLs(s.dir, os.LookupEnv); err == nil || len(acls.Files()) != 1 {
		t.Errorf("%v, files %q", err, acls.Files())
	}
}

func TestEachFileIsReadAgainAlone(t *testing.T) {
	s := newSite(t)
	s.write(t, "kms-site.xml", "hadoop.ssl.server.conf=other.xml\nhadoop.kms.cache.timeout.ms=1000")
	s.write(t, "other.xml", "ssl.server.keystore.location=/first")
	started := s.mustLoad(t)
	env := func(name string) (string, bool) {
		return map[string]string{"KMS_SSL_KEYSTORE_PASS": "secret", "KMS_HTTP_PORT": "9700"}[name], true
	}

	s.raw(t, "kms-acls.xml", "broken")
	s.raw(t, "other.xml", "broken")
	s.write(t, "kms-site.xml", "hadoop.kms.cache.timeout.ms=2000")
	c, err := LoadSite(s.dir, env)
	if err != nil || c.Cache.Timeout != 2*time.Second || c.HTTP.Port != 9700 || len(c.Warnings) > 0 {
		t.Errorf("%v, %+v", err, c)
	}
	if _, err := started.LoadSSL(env); err == nil {
		t.Error("a broken file goes unnoticed")
	}

	s.raw(t, "kms-site.xml", "broken")
	s.write(t, "other.xml", "ssl.server.keystore.location=/second")
	if _, err := LoadSite(s.dir, env); err == nil {
		t.Error("a broken file goes unnoticed")
	}
	ssl, err := started.LoadSSL(env)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"ssl.server.keystore.location": "/second", "ssl.server.keystore.password": "secret"} {
		if value, _, err := ssl.Get(name); value != want || err != nil {
			t.Errorf("%s: %q, %v", name, value, err)
		}
	}
}

func TestKerberos(t *testing.T) {
	s := newSite(t)
	s.raw(t, "kms.keytab", "keys")
	s.write(t, "kms-site.xml", authType+"=kerberos\n"+authKeytab+"=${kms.config.dir}/kms.keytab\n"+authPrincipal+"=*\n"+
		authNameRules+"=RULE:[1:$1]\n"+authWhitelist+"=/jmx, /metrics\n"+authSecret+"=zookeeper\n"+authInactive+"=60")
	c := s.mustLoad(t)
	want := Auth{Kerberos: true, Keytab: filepath.Join(s.dir, "kms.keytab"), Principal: "*", NameRules: "RULE:[1:$1]",
		Whitelist: []string{"/jmx", "/metrics"}, SharedSecret: true, MaxInactive: time.Minute, TokenValidity: 10 * time.Hour}
	if !reflect.DeepEqual(c.Auth, want) {
		t.Errorf("%+v", c.Auth)
	}

	s.write(t, "kms-site.xml", authType+"=kerberos")
	s.refused(t, "kms-site.xml", authKeytab, "no such file", "create the file") // Hadoop's default, in the home folder
	keytab := "\n" + authKeytab + "=${kms.config.dir}/kms.keytab"
	s.write(t, "kms-site.xml", authType+"=kerberos\n"+authPrincipal+"= "+keytab)
	s.refused(t, "kms-site.xml:3", authPrincipal, "no principal", "*")

	// The rules that other daemons read are not the KMS's.
	s.write(t, "core-site.xml", authToLocal+"=RULE:[1:$1]")
	s.write(t, "kms-site.xml", authType+"=kerberos"+keytab)
	if c := s.mustLoad(t); len(c.Warnings) != 1 || c.Warnings[0].Property != authToLocal || c.Auth.NameRules != "DEFAULT" || c.Auth.Principal != "HTTP/localhost" {
		t.Errorf("%+v", c)
	}
	s.write(t, "kms-site.xml", authType+"=kerberos\n"+authNameRules+"=DEFAULT"+keytab)
	if c := s.mustLoad(t); len(c.Warnings) != 0 {
		t.Errorf("%v", c.Warnings)
	}
}

// Hadoop's whitelist takes any path; what cannot be opened must not be thought
// open.
func TestPathsThatAreNotOpenedAreToldOf(t *testing.T) {
	s := newSite(t)
	s.raw(t, "kms.keytab", "keys")
	s.write(t, "kms-site.xml", authType+"=kerberos\n"+authKeytab+"=${kms.config.dir}/kms.keytab\n"+authWhitelist+"=/jmx, /kms/jmx, /metrics, /conf, /kms/v1/keys")
	warnings := s.mustLoad(t).Warnings
	if len(warnings) != 2 {
		t.Fatalf("%v", warnings)
	}
	for i, path := range []string{"/conf", "/kms/v1/keys"} {
		if w := warnings[i]; w.Property != authWhitelist || !strings.Contains(w.What, `"`+path+`" is not opened`) || !strings.Contains(w.Remedy, "/metrics, /jmx, /kms/jmx") {
			t.Error(w)
		}
	}
}

func TestInstruments(t *testing.T) {
	s := newSite(t)
	s.write(t, "kms-site.xml", requiresAdmin+"=true\n"+serviceAuthorization+"=true\n"+httpAdmins+"=hdfs admins\nedekd.metrics.address=127.0.0.1:9601\nedekd.profile.address=[::1]:9602")
	if c := s.mustLoad(t); !c.HTTP.AdminsOnly || c.HTTP.Admins != "hdfs admins" || c.HTTP.MetricsAddress != "127.0.0.1:9601" || c.HTTP.ProfileAddress != "[::1]:9602" {
		t.Errorf("%+v", c.HTTP)
	}
	s.write(t, "kms-site.xml", requiresAdmin+"=true")
	if c := s.mustLoad(t); c.HTTP.AdminsOnly || len(c.Warnings) != 1 || c.Warnings[0].Property != requiresAdmin {
		t.Errorf("%+v", c)
	}
}

func TestSigningSecretFile(t *testing.T) {
	f := func(file, what string) {
		t.Helper()
		s := newSite(t)
		s.raw(t, "empty", "")
		s.write(t, "kms-site.xml", authSecret+"=file\n"+authSecretFile+"="+file)
		place := "kms-site.xml"
		if file != "" {
			place += ":3"
		}
		s.refused(t, place, authSecretFile, what, "")
	}
	f("", "no file is named")
	f(" ", "not an absolute path")
	f("secret", "not an absolute path")
	f("/none/such", "no such file")
	f("${kms.config.dir}/empty", "is empty")
	f("${a}/secret", "not an absolute path")
}

func TestKeystorePasswordFile(t *testing.T) {
	s := newSite(t)
	s.write(t, "kms-site.xml", passwordFile+"=none\n"+providerURI+"=jceks://file@/k")
	s.refused(t, "kms-site.xml:2", passwordFile, "no such file", "create the file")
	s.env["HADOOP_KEYSTORE_PASSWORD"] = "p"
	if c := s.mustLoad(t); c.Keys.KeystorePasswordFile != filepath.Join(s.dir, "none") {
		t.Errorf("%+v", c.Keys)
	}
}

func TestTLS(t *testing.T) {
	s := newSite(t)
	s.write(t, "kms-site.xml", "hadoop.kms.ssl.enabled=true\nhadoop.ssl.server.conf=other.xml")
	s.write(t, "other.xml", "ssl.server.keystore.location=/k")
	c := s.mustLoad(t)
	if location, _, _ := c.SSL.Get("ssl.server.keystore.location"); !c.TLS || location != "/k" {
		t.Errorf("TLS %v from %q", c.TLS, location)
	}
}

// What comes to light only at the start is told with the place of its cause.
func TestProblemKnowsWhereAPropertyIsSet(t *testing.T) {
	s := newSite(t)
	s.raw(t, "kms-site.xml", "<configuration>\n<property><name>hadoop.kms.http.port</name><value>81</value></property>\n</configuration>")
	s.write(t, "kms-acls.xml", "")
	c, _ := s.load()
	if p := c.Problem("hadoop.kms.http.port", "busy", "another"); !strings.HasSuffix(p.File, "kms-site.xml:2") {
		t.Errorf("%v", p)
	}
	if p := c.Problem("edekd.log.dir", "full", "another"); !strings.HasSuffix(p.File, "kms-site.xml") {
		t.Errorf("%v", p)
	}
}
