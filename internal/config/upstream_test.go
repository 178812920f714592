package config

import (
	"strings"
	"testing"
	"time"
)

const sidecarSite = "hadoop.kms.key.provider.uri=kms://http@kms1;kms2:9600/kms"

func TestUpstream(t *testing.T) {
	s := newSite(t)
	s.write(t, "kms-site.xml", sidecarSite)
	u := s.mustLoad(t).Upstream
	if u.Kerberos || u.User != "kms" || u.CacheDecrypts || u.LocalAuthorization || u.Grant != 5*time.Minute || u.GrantOutage != 0 ||
		u.RingCover != 10*time.Minute || u.RingBytes != 64<<20 || u.Poll != 10*time.Second || u.Attempt != 5*time.Second || u.Total != 12500*time.Millisecond {
		t.Errorf("%+v", u)
	}
	s.raw(t, "kms.keytab", "keys")
	s.write(t, "kms-site.xml", sidecarSite+`
edekd.upstream.authentication=kerberos
edekd.upstream.principal=gateway/kms.example.com@EXAMPLE.COM
edekd.upstream.keytab=${kms.config.dir}/kms.keytab
edekd.upstream.decrypt=cache
edekd.upstream.ring.reserve.percent=20
edekd.upstream.ring.reserve.users=hdfs, ozone`)
	u = s.mustLoad(t).Upstream
	if !u.Kerberos || u.User != "gateway" || !u.CacheDecrypts || u.RingReserve != 0.2 || !u.Reserved["hdfs"] || !u.Reserved["ozone"] || len(u.Reserved) != 2 {
		t.Errorf("%+v", u)
	}
	s.write(t, "kms-site.xml", sidecarSite+"\nedekd.upstream.decrypt=local")
	if c := s.mustLoad(t); !c.Upstream.LocalDecrypts || c.Upstream.CacheDecrypts || len(c.Warnings) != 1 {
		t.Errorf("%+v %v", c.Upstream, c.Warnings)
	}
	// Without such a provider nothing of it counts, and that is said.
	s.write(t, "kms-site.xml", "edekd.upstream.user=gateway")
	if c := s.mustLoad(t); c.Upstream.User != "" || len(c.Warnings) != 1 {
		t.Errorf("%+v %v", c.Upstream, c.Warnings)
	}
}

func TestRefusedUpstream(t *testing.T) {
	f := func(property, value, what, remedy string) {
		t.Helper()
		s := newSite(t)
		s.write(t, "kms-site.xml", sidecarSite+"\n"+property+"="+value)
		s.refused(t, "kms-site.xml:3", property, what, remedy)
	}
	f("edekd.upstream.decrypt", "Forward", "no way to decrypt", "forward, cache or local")
	f("edekd.upstream.authorization", "none", "decides nothing", "upstream, or local")
	f("edekd.upstream.authentication", "digest", "cannot prove itself", "kerberos or simple")
	f("edekd.upstream.total.ms", "4999", "less than edekd.upstream.attempt.ms", "twice")
	f("edekd.upstream.poll.seconds", "0", "out of range", "from 1")
	f("edekd.upstream.ring.reserve.percent", "100", "out of range", "to 99")
	f("edekd.upstream.ring.budget-bytes", "1000", "out of range", "")
	for _, user := range []string{"edekd/gateway.example.com@EXAMPLE.COM", "edekd@EXAMPLE.COM", "edekd gateway", "edekd/x"} {
		f("edekd.upstream.user", user, "no short name", "edekd")
	}
	f("edekd.upstream.rings", "1", "no such property", "edekd.upstream.")
}

// warned loads a kms-site.xml and checks that it is warned of in these words, one
// for each warning.
func warned(t *testing.T, properties string, words ...string) {
	t.Helper()
	s := newSite(t)
	s.write(t, "kms-site.xml", properties)
	got := s.mustLoad(t).Warnings
	if len(got) != len(words) {
		t.Errorf("%s: want %d warnings, got %v", properties, len(words), got)
		return
	}
	for i, w := range got {
		if !strings.Contains(w.Error(), words[i]) || w.Remedy == "" {
			t.Errorf("%s: want %q in: %v", properties, words[i], w)
		}
	}
}

func TestAddressesThatMislead(t *testing.T) {
	f := func(uris string, words ...string) {
		t.Helper()
		warned(t, "hadoop.kms.key.provider.uri="+uris, words...)
	}
	f("kms://http@h:9600/kms")
	f("kms://http@h:9600/kms/")
	f("kms://http@h:9600", `the path ""`)
	f("kms://http@h:9600/kms/v1", `the path "/kms/v1"`)
	f("kms://http@h:9600/foo", `the path "/foo"`)
	f("kms://http@h1:9600/kms,kms://http@h2:9600/kms")
	f("kms://http@h1;h2:9600/kms,kms://http@H2:9600/kms", "h2:9600 is named in two providers")
}

func TestSettingsThatDoNotGoTogether(t *testing.T) {
	f := func(properties string, words ...string) {
		t.Helper()
		warned(t, sidecarSite+"\n"+strings.ReplaceAll(properties, " ", "\n"), words...)
	}
	const percent, users = "edekd.upstream.ring.reserve.percent=", "edekd.upstream.ring.reserve.users="
	f(percent+"20", "names nobody")
	f(users+"hdfs", "nothing is kept for them")
	f(percent + "20 " + users + "hdfs")

	const outage, age, cache, local = "edekd.upstream.grant.outage.seconds=", "edekd.upstream.decrypt.max-age.seconds=", "edekd.upstream.decrypt=cache ", "edekd.upstream.decrypt=local "
	const keepsCopies = "keeps copies in memory"
	f(outage + "600")
	f(cache + outage + "300")
	f(cache+outage+"301", "end after 5m0s")
	f(cache + outage + "600 " + age + "600")
	f(local+outage+"600 "+age+"1200", keepsCopies)
	f(local+outage+"600 "+age+"1199", keepsCopies, "Try: 1200 or more")
}
