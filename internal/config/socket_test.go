package config

import (
	"strings"
	"testing"
)

func TestUnixSocket(t *testing.T) {
	s := newSite(t)
	path := "/run/" + strings.Repeat("s", socketPathMax-5)
	s.write(t, "kms-site.xml", unixSocket+"="+path+"\n"+unixSocketMode+"=666\n"+unixSocketUsers+"=1000=hive, 0 = root,4294967294=x.y-z")
	h := s.mustLoad(t).HTTP
	if h.UnixSocket != path || h.UnixSocketMode != 0o666 || len(h.UnixSocketUsers) != 3 ||
		h.UnixSocketUsers[1000] != "hive" || h.UnixSocketUsers[0] != "root" || h.UnixSocketUsers[1<<32-2] != "x.y-z" {
		t.Errorf("%+v", h)
	}

	f := func(property, value, what, remedy string) {
		t.Helper()
		s := newSite(t)
		s.write(t, "kms-site.xml", property+"="+value)
		s.refused(t, "kms-site.xml:2", property, what, remedy)
	}
	f(unixSocket, "kms.sock", "not an absolute path", "${kms.config.dir}")
	f(unixSocket, "@kms", "not an absolute path", "${kms.config.dir}")
	f(unixSocket, path+"s", "108 bytes", "shorter")
	for _, mode := range []string{"660x", "0", "1777", "0888", "0460", "-1", " "} {
		f(unixSocketMode, mode, "no file mode", "0660")
	}
	for _, uid := range []string{"alice", "=alice", "-1=a", "4294967295=a", "4294967296=a", "x=a"} {
		f(unixSocketUsers, uid, "does not begin with the number of a user", "id -u")
	}
	for _, name := range []string{"1", "1=", "1=hive/h", "1=hive@R", "1=a=b", "1=a b", "1=a;b"} {
		f(unixSocketUsers, name, "does not name a user", "short name")
	}
	f(unixSocketUsers, "1=a,01=b", "there twice", "one name")
}

func TestUnixSocketSettingsWithoutSocket(t *testing.T) {
	s := newSite(t)
	s.write(t, "kms-site.xml", unixSocketUsers+"=1000=hive")
	if w := s.mustLoad(t).Warnings; len(w) != 1 || w[0].Property != unixSocketUsers || !strings.Contains(w[0].What, "not used") {
		t.Errorf("%v", w)
	}
}
