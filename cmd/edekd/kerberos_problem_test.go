package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/edekd/edekd/internal/kdc"
)

// What keeps Kerberos from being served is told where it is to be mended.
func TestKerberosProblemsNameWhatIsWrong(t *testing.T) {
	t.Parallel()
	realm := kdc.Start(t, "EXAMPLE.TEST")
	realm.Add("HTTP/localhost")
	keytab := realm.Keytab("HTTP/localhost")
	torn := filepath.Join(t.TempDir(), "krb5.conf")
	write(t, torn, "[libdefaults\n")
	f := func(krb5, want string, properties ...string) {
		t.Helper()
		s := newSite(t, append([]string{"hadoop.kms.authentication.type", "kerberos"}, properties...)...)
		s.env = []string{"KRB5_CONFIG=" + krb5}
		var kept []string
		for line := range strings.Lines(s.refused(t)) {
			if strings.Contains(line, " Try: ") && !strings.HasPrefix(line, "time=") {
				kept = append(kept, line)
			}
		}
		if len(kept) != 1 || !strings.Contains(kept[0], strings.ReplaceAll(want, "SITE", s.file("kms-site.xml"))) {
			t.Errorf("%q\nwant %s", kept, want)
		}
	}
	const (
		keytabProperty = kerberosPrefix + "keytab"
		principal      = kerberosPrefix + "principal"
	)
	f(realm.Config, "SITE:8: "+keytabProperty+": Kerberos cannot be served: keytab: "+torn, keytabProperty, torn)
	f(realm.Config, "SITE:9: "+principal+": Kerberos cannot be served: principal \"hive/host\"", keytabProperty, keytab, principal, "hive/host")
	f(torn, torn+": Kerberos cannot be served: "+torn+":1: ", keytabProperty, keytab)
	f(torn+"-none", torn+"-none: Kerberos cannot be served: ", keytabProperty, keytab)
	f(realm.Config, "SITE:9: "+nameRulesProperty+".mechanism: \"other\" is no mechanism of name rules. Try: write hadoop or mit",
		keytabProperty, keytab, nameRulesProperty+".mechanism", "other")
	f(realm.Config, "SITE:9: "+nameRulesProperty+": rule 2, ", keytabProperty, keytab, nameRulesProperty, "RULE:[1:$1](a")
}
