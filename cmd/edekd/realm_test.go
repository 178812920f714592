package main

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edekd/edekd/hadoop/conf"
	"github.com/edekd/edekd/internal/config"
	"github.com/edekd/edekd/internal/kdc"
	"github.com/edekd/edekd/proxy/authn/spnego"
)

func TestDefaultRealmOfNobodyIsToldOf(t *testing.T) {
	t.Parallel()
	realm := kdc.Start(t, "EXAMPLE.TEST")
	realm.Add("HTTP/localhost")
	keytab := realm.Keytab("HTTP/localhost")
	f := func(libdefaults, rules, says string) {
		t.Helper()
		krb5 := filepath.Join(t.TempDir(), "krb5.conf")
		write(t, krb5, "[libdefaults]\n"+libdefaults)
		a, err := spnego.New(spnego.Config{Keytab: keytab, Principal: "*", Krb5Conf: krb5})
		if err != nil {
			t.Fatal(err)
		}
		c := &config.Config{Site: conf.New(func(string) (string, bool) { return "", false }, nil)}
		c.Auth.NameRules = rules
		var log bytes.Buffer
		warnOfRealm(c, a, slog.New(slog.NewTextHandler(&log, nil)))
		if got := log.String(); !strings.Contains(got, says) || says == "" && got != "" || says != "" && !strings.Contains(got, "remedy=") {
			t.Errorf("%q, %q: %q", libdefaults, rules, got)
		}
	}
	f(" default_realm = EXAMPLE.TEST\n", "DEFAULT", "")
	f(" default_realm = OTHER.TEST\n", "RULE:[1:$1@$0](.*@EXAMPLE.TEST)s/@.*//", "")
	f(" default_realm = OTHER.TEST\n", "RULE:[1:$1@$0](x@EXAMPLE.TEST)s/@.*//\nDEFAULT", "DEFAULT takes principals of OTHER.TEST only, the default_realm of krb5.conf, but the keytab has keys of EXAMPLE.TEST only")
	f("", "DEFAULT", "DEFAULT takes nobody, because krb5.conf has no default_realm")
}
