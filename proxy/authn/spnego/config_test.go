package spnego_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/edekd/edekd/internal/kdc"
	"github.com/edekd/edekd/proxy/authn/spnego"
)

func TestSeveralServices(t *testing.T) {
	realm, _ := start(t)
	vip, node, other := "HTTP/vip.test", "HTTP/node.test", "hdfs/node.test"
	realm.Add(vip, node, other)
	keytab := realm.Keytab(service, vip, node, other)
	tokens := map[string]*minter{}
	for _, name := range []string{service, vip, node, other} {
		tokens[name] = newMinter(t, realm, "alice", name)
	}
	f := func(principal string, served ...string) {
		t.Helper()
		acceptor := newAcceptor(t, spnego.Config{Keytab: keytab, Principal: principal, Krb5Conf: realm.Config, Host: "Node.Test"})
		for name, m := range tokens {
			if slices.Contains(served, name) {
				wantPrincipal(t, acceptor, m.token(), "alice@"+home)
			} else {
				wantRefusal(t, acceptor, m.token(), spnego.Service, "the ticket is for \""+name+"@HOME.TEST\", which this server is not)")
			}
		}
		var want []string
		for _, name := range served {
			want = append(want, name+"@"+home)
		}
		slices.Sort(want)
		if got := acceptor.Principals(); !slices.Equal(got, want) {
			t.Errorf("%s: serves %q, want %q", principal, got, want)
		}
	}
	f("*", service, vip, node)
	f(vip, vip)
	f(vip+"@"+home+", "+service, vip, service)
	f("HTTP/_HOST@"+home, node)
	f("HTTP/_HOST", node)
}

func TestPrincipalsThatCannotBeServed(t *testing.T) {
	realm, _ := start(t)
	keytab, users := realm.Keytab(service), realm.Keytab("alice")
	empty := filepath.Join(t.TempDir(), "krb5.conf")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	field := "Principal"
	f := func(keytab, principal, conf, want string) {
		t.Helper()
		_, err := spnego.New(spnego.Config{Keytab: keytab, Principal: principal, Krb5Conf: conf})
		var e *spnego.ConfigError
		if !errors.As(err, &e) || e.Field != field || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q of %s", principal, err, want, field)
		}
	}
	f(keytab, "", realm.Config, "no principal is given: use HTTP/<host>@<REALM>")
	f(keytab, "alice@"+home, realm.Config, `principal "alice@HOME.TEST": clients ask for HTTP/<host>`)
	f(keytab, service, empty, "it has no realm, and krb5.conf has no default_realm: append @REALM")
	field = "Keytab"
	f(keytab, "HTTP/other", realm.Config, "has no key for HTTP/other@HOME.TEST, only for HTTP/localhost@HOME.TEST: add it with ktadd")
	f(users, "*", realm.Config, "has keys for no HTTP/… principal, only for alice@HOME.TEST: add one with ktadd")
	f(users, "HTTP/_HOST", realm.Config, "has no key for HTTP/"+strings.ToLower(host))
	f(keytab+"-none", "*", realm.Config, "no such file")
	f(filepath.Dir(keytab), "*", realm.Config, "not a regular file")
	f(realm.Config, "*", realm.Config, "it is not a whole keytab")
	field = "Krb5Conf"
	f(keytab, "*", realm.Config+"-none", "correct KRB5_CONFIG")
}

func TestReloadAfterNewKeys(t *testing.T) {
	realm, _ := start(t)
	keytab := realm.Keytab(service)
	acceptor := newAcceptor(t, spnego.Config{Keytab: keytab, Principal: "*", Krb5Conf: realm.Config})
	before := newMinter(t, realm, "alice", service)
	wantPrincipal(t, acceptor, before.token(), "alice@"+home)

	replace := func(with string) {
		t.Helper()
		if err := os.Rename(with, keytab); err != nil {
			t.Fatal(err)
		}
	}
	realm.Rotate(service, true)
	after := newMinter(t, realm, "alice", service)
	wantRefusal(t, acceptor, after.token(), spnego.NoKey, "the ticket for HTTP/localhost@HOME.TEST is of version 2, the keytab has not that one")
	replace(realm.Keytab(service))
	if err := acceptor.Reload(); err != nil {
		t.Fatal(err)
	}
	wantPrincipal(t, acceptor, before.token(), "alice@"+home)
	wantPrincipal(t, acceptor, after.token(), "alice@"+home)

	broken := keytab + ".broken"
	if err := os.WriteFile(broken, []byte{5, 2, 0, 0, 0, 9, 1}, 0o600); err != nil {
		t.Fatal(err)
	}
	replace(broken)
	if err := acceptor.Reload(); err == nil || !strings.Contains(err.Error(), keytab+": it is not a whole keytab") {
		t.Errorf("error %v, want that the keytab is not whole", err)
	}
	wantPrincipal(t, acceptor, before.token(), "alice@"+home)

	realm.Rotate(service, false)
	replace(realm.Keytab(service))
	if err := acceptor.Reload(); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, acceptor, before.token(), spnego.NoKey, "Specified version of key is not available (44)")
	wantPrincipal(t, acceptor, newMinter(t, realm, "alice", service).token(), "alice@"+home)
}

func TestWarningsAndFiles(t *testing.T) {
	realm, acceptor := start(t)
	if got := acceptor.Warnings(); len(got) != 0 {
		t.Errorf("warnings %q", got)
	}
	realm.AddKeys("HTTP/old", kdc.RC4)
	keytab := realm.Keytab(service, "HTTP/old")
	if err := os.Chmod(keytab, 0o640); err != nil {
		t.Fatal(err)
	}
	acceptor = newAcceptor(t, spnego.Config{Keytab: keytab, Principal: "*", Krb5Conf: realm.Config})
	want := []string{
		"keytab " + keytab + ": HTTP/old@HOME.TEST has no AES key but only RC4, which is refused: give the account AES keys and export the keytab again",
		"keytab " + keytab + ": its mode 0640 lets others read the server's keys: chmod 600",
	}
	if got := acceptor.Warnings(); !slices.Equal(got, want) {
		t.Errorf("warnings %q\nwant %q", got, want)
	}
	if got, want := acceptor.Files(), []string{keytab, realm.Config}; !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	if got := acceptor.DefaultRealm(); got != home {
		t.Errorf("default realm %q", got)
	}
}
