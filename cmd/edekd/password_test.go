package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What is wrong with a password, or beside it, is told without the password: by
// check-config, by a start and by a reload, on standard error and in kms.log.
func TestPasswordsAreNotTold(t *testing.T) {
	t.Parallel()
	const (
		secret = "HUNTER2"
		ldap   = "hadoop.security.group.mapping.ldap."
	)
	broken := filepath.Join(t.TempDir(), "broken.jceks")
	write(t, broken, "this is no credential store")
	stores := []string{"hadoop.security.credential.provider.path", "jceks://file@" + broken}
	directory := []string{"hadoop.security.group.mapping", "org.apache.hadoop.security.LdapGroupsMapping"}
	silent := func(t *testing.T, where, text string) {
		t.Helper()
		if strings.Contains(text, secret) {
			t.Errorf("%s tells the password:\n%s", where, text)
		}
	}
	checked := func(t *testing.T, s *site, named string) {
		t.Helper()
		var out bytes.Buffer
		cmd := exec.Command(binary, "check-config", s.dir)
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		if err == nil || !strings.Contains(out.String(), named) {
			t.Errorf("check-config: %v, and %s is not named:\n%s", err, named, out.String())
		}
		silent(t, "check-config", out.String())
	}
	concat := func(lists ...[]string) (all []string) {
		for _, list := range lists {
			all = append(all, list...)
		}
		return all
	}

	// f reads properties of kms-site.xml that cannot be used: before edekd serves and
	// while it does.
	f := func(named string, properties ...string) {
		t.Run(named, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, properties...)
			checked(t, s, named)
			silent(t, "the start", s.refused(t))

			logs := t.TempDir()
			s = newSite(t, "edekd.log.dir", logs)
			p := s.start(t)
			s.configure(t, properties...)
			p.complains(named)
			p.stop()
			silent(t, "the log", p.said())
			silent(t, "kms.log", read(t, filepath.Join(logs, "kms.log")))
		})
	}
	loop := secret + "${loop}${loop}"
	for password, rest := range map[string][]string{
		ldap + "bind.password":           {ldap + "url", "ldaps://localhost", ldap + "bind.user", "cn=x"},
		ldap + "ssl.truststore.password": {ldap + "url", "ldaps://localhost", ldap + "ssl.truststore", broken},
	} {
		f(ldap+"bind.password", concat(directory, stores, rest, []string{password, secret})...) // which is looked for first
		f(password, concat(directory, rest, []string{password, loop, "loop", "${loop2}${loop2}", "loop2", "${loop}"})...)
	}
	f(ldap+"bind.users.a.bind.password", concat(directory, stores, []string{ldap + "bind.users", "a", ldap + "bind.users.a.bind.user", "cn=a",
		ldap + "bind.users.a.bind.password", secret})...)
	part := "hadoop.security.group.mapping.provider.p"
	f(part+".ldap.bind.password", concat(stores, []string{"hadoop.security.group.mapping", "org.apache.hadoop.security.CompositeGroupsMapping",
		"hadoop.security.group.mapping.providers", "p", part, directory[1], part + ".ldap.bind.password", secret})...)
	f(ldap+"bind.user", concat(directory, []string{ldap + "bind.password", secret})...)
	for _, url := range []string{"ldap://cn=x:" + secret + "@host", "ldap://" + secret + "@host", "ldap://u:" + secret + "/,@host", "http://u:" + secret + "@host"} {
		f(ldap+"url", concat(directory, []string{ldap + "url", url})...)
	}

	// Those of ssl-server.xml.
	g := func(named string, properties ...string) {
		t.Helper()
		s := newSite(t, "hadoop.kms.ssl.enabled", "true")
		write(t, s.file("ssl-server.xml"), "<configuration>\n"+propertiesXML(t, properties...)+"</configuration>")
		checked(t, s, named)
		silent(t, "the start", s.refused(t))
	}
	store := filepath.Join(t.TempDir(), "store")
	newStore(t, store, "JKS", "server")
	passwords := []string{"ssl.server.keystore.password", secret, "ssl.server.keystore.keypassword", secret, "ssl.server.truststore.password", secret}
	names := []string{"ssl.server.keystore.location", store, "ssl.server.keystore.type", "jks", "ssl.server.truststore.location", store}
	g("ssl.server.keystore.password", concat(names, passwords)...)
	g(stores[0], concat(names, passwords, stores)...)
	names[1], names[5] = broken, broken
	g("ssl.server.keystore.location", concat(names, passwords)...)
	g("ssl.server.keystore.password", concat(names, []string{"ssl.server.keystore.password", loop, "ssl.server.keystore.keypassword", loop, "ssl.server.truststore.password", loop,
		"loop", "${loop2}${loop2}", "loop2", "${loop}"})...)
}
