package edek

import (
	"strings"
	"testing"
)

func TestSplitVersion(t *testing.T) {
	f := func(in, name string, n int, ok bool) {
		t.Helper()
		gotName, gotN, gotOK := SplitVersion(in)
		if gotName != name || gotN != n || gotOK != ok {
			t.Errorf("%q: %q %d %v", in, gotName, gotN, gotOK)
		}
	}
	f("k@0", "k", 0, true)
	f("a@b@12", "a@b", 12, true)
	f("k@2147483647", "k", 2147483647, true)
	f("@0", "", 0, true)
	for _, bad := range []string{"", "k", "k@", "k@01", "k@+1", "k@-1", "k@ 1", "k@1 ", "k@2147483648", "k@99999999999", "k@1_0", "k@0x1"} {
		f(bad, "", 0, false)
	}
}

func FuzzSplitVersion(f *testing.F) {
	f.Add("k@0")
	f.Add("a@b@00")
	f.Fuzz(func(t *testing.T, s string) {
		name, n, ok := SplitVersion(s)
		if ok != (ok && VersionName(name, n) == s) {
			t.Errorf("%q names %q version %d, which is written %q", s, name, n, VersionName(name, n))
		}
		if base, has := BaseName(s); has != strings.Contains(s, "@") || (ok && base != name) {
			t.Errorf("%q: base %q, split %q", s, base, name)
		}
	})
}
