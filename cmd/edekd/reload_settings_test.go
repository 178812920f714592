package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

const frontUsers, frontHosts = "hadoop.kms.proxyuser.front.users", "hadoop.kms.proxyuser.front.hosts"

// A proxy user that is added or removed counts within a second, for cookies that
// were known before, too; what cannot be changed so is named in the log.
func TestProxyUsersAreReadAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, frontHosts, "*")
	p := s.start(t)
	front := p.steady(t, nil)
	front.login("?user.name=front")
	answered := func(status int) func() bool {
		return func() bool { return front.status("?doAs=bob") == status }
	}
	if !answered(403)() {
		t.Fatal("front acts for bob before it may")
	}
	s.configure(t, frontUsers, "bob")
	p.within(aSecond, "a proxy user is added", answered(200))
	s.configure(t, frontUsers, "carol")
	p.within(aSecond, "a proxy user is removed", answered(403))
	s.configure(t, frontUsers, "bob")
	p.within(aSecond, "a proxy user is added again", answered(200))

	file := s.file("kms-site.xml")
	good := read(t, file)
	rename(t, file, strings.Replace(good, "</configuration>", "\n</broken>", 1))
	p.complains(file+":", "Try: ")
	p.stays("a broken kms-site.xml changes nothing", answered(200))
	s.configure(t, frontUsers, "bob", "hadoop.security.groups.cache.secs", "never")
	p.complains(file+":", "hadoop.security.groups.cache.secs", "Try: ")
	p.stays("a value that cannot be used changes nothing", answered(200))
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	p.complains(file+": it was there and is gone", "Try: put it back")
	p.stays("a missing kms-site.xml changes nothing", answered(200))

	s.configure(t, frontUsers, "${who}", "who", "carol", "hadoop.kms.cache.timeout.ms", "1000", "fs.defaultFS", "hdfs://other")
	p.within(aSecond, "a value is taken from another property", answered(403))
	p.eventuallySays(`msg="changed settings need a restart" properties=hadoop.kms.cache.timeout.ms`)
	s.configure(t, frontUsers, "${who}", "who", "bob", "hadoop.kms.cache.timeout.ms", "1000")
	p.within(aSecond, "the other property changes", answered(200))

	// What others have broken keeps nobody from changing the settings.
	write(t, s.file("kms-acls.xml"), "<broken")
	p.complains("kms-acls.xml", "Try: ")
	s.configure(t, frontUsers, "carol")
	p.within(aSecond, "a proxy user is removed beside broken rules", answered(403))
	failures := strings.Count(p.said(), "reload failed")
	p.stays("a complaint is made once", func() bool { return strings.Count(p.said(), "reload failed") == failures })
	p.signal(syscall.SIGHUP)
	p.eventually("SIGHUP complains again", func() bool { return strings.Count(p.said(), "reload failed") == failures+1 })
	p.stop()
}

// A volume of Kubernetes changes by a link that points elsewhere.
func TestMountedConfigurationIsReadAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, frontHosts, "*", frontUsers, "bob")
	s.rules(t, "hadoop.kms.acl.GET_KEYS", "bob")
	m := newMount(t, s.dir, "kms-site.xml", "kms-acls.xml")
	p := s.start(t)
	front := p.steady(t, nil)
	front.login("?user.name=front")
	answered := func(status int) func() bool {
		return func() bool { return front.status("?doAs=bob") == status }
	}
	if !answered(200)() {
		t.Fatal("front does not act for bob")
	}
	rules := read(t, s.file("kms-acls.xml"))
	m.replace("kms-acls.xml", strings.Replace(rules, ">bob<", ">carol<", 1))
	p.within(aSecond, "rules change", answered(403))
	m.replace("kms-acls.xml", rules)
	p.within(aSecond, "rules change back", answered(200))
	m.replace("kms-site.xml", strings.Replace(read(t, s.file("kms-site.xml")), ">bob<", ">carol<", 1))
	p.within(aSecond, "a proxy user is removed", answered(403))
	p.stop()
}

// Two servers share a secret in a file. When another takes its place, cookies of
// the old one end on both, also those that were known; connections go on.
func TestRetiredSecretEndsCookies(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/secret"
	write(t, file, "the first secret")
	properties := []string{"hadoop.kms.authentication.signer.secret.provider", "file", "hadoop.kms.authentication.signature.secret.file", file}
	p, q := newSite(t, properties...).start(t), newSite(t, properties...).start(t)
	here, there := p.steady(t, nil), q.steady(t, nil)
	here.login("?user.name=test")
	there.cookie = here.cookie
	both := func(status int) func() bool {
		return func() bool { return here.status("") == status && there.status("") == status }
	}
	if !both(200)() {
		t.Fatal("the servers do not take each other's cookies")
	}
	rename(t, file, "")
	p.complains(file, "is empty: fill it")
	p.stays("an empty file changes nothing", both(200))
	rename(t, file, "the second secret")
	p.within(aSecond, "the old secret's cookies end", both(401))
	here.cookie = ""
	here.login("?user.name=test")
	there.cookie = here.cookie
	p.within(aSecond, "the new secret's cookies are taken", both(200))
	p.stop()
	q.stop()
}
