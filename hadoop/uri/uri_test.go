package uri

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestLocalPath(t *testing.T) {
	f := func(uri, want string) {
		t.Helper()
		got, err := LocalPath(uri)
		if err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", uri, got, err, want)
		}
	}
	f("sqlite://file@/var/lib/edekd/keys.db", "/var/lib/edekd/keys.db")
	f("jceks://file/kms.keystore", "/kms.keystore") // no '@': the file system's authority is empty
	f("jceks://file@/a%20b/%25", "/a b/%")
	f("jceks://file@//a///b/../c/./d/", "/a/c/d")
	f("jceks://file@/a?b#c", "/a?b#c")
	f("jceks://file@/at@home", "/at@home")
	f("jceks://file@/a+b", "/a+b") // a plus sign is itself in a path
}

func TestLocalPathRefuses(t *testing.T) {
	f := func(uri, says string) {
		t.Helper()
		got, err := LocalPath(uri)
		if err == nil {
			t.Errorf("%q: accepted as %q", uri, got)
		} else if !strings.Contains(err.Error(), says) {
			t.Errorf("%q: error %q does not say %q", uri, err, says)
		}
	}
	f("", "not a provider URI")
	f("/var/lib/keys.db", "not a provider URI")
	f("://file@/p", "not a provider URI")
	f("sqlite:///p", "write sqlite://file@/p")
	f("jceks://hdfs@nn1:8020/p", `file system "hdfs"`)
	f("jceks://file@host/p", `host "host"`)
	f("jceks://file@", "names no file")
	f("jceks://file@/", "names no file")
	f("jceks://file@/..", "names no file")
	f("jceks://file@?p", "names no file")
	f("jceks://file@/100%", "%25")
	f("jceks://file@/a%00b", "NUL byte")
}

func FuzzLocalPath(f *testing.F) {
	f.Add("sqlite://file@/p")
	f.Add("jceks://file@/a%20b?c")
	f.Fuzz(func(t *testing.T, s string) {
		path, err := LocalPath(s)
		if err == nil && (!filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/") {
			t.Errorf("%q gives %q", s, path)
		}
	})
}
