package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/edekd/edekd/internal/kdc"
)

// TestKerberos logs in with a keytab and with a ticket cache, and gets tokens for
// users that alice may act for.
func TestKerberos(t *testing.T) {
	realm := kdc.Start(t, "EXAMPLE.TEST")
	realm.Add("HTTP/localhost", "alice", "bob")
	url, _, stop, err := startServer(filepath.Join(t.TempDir(), "server"), realm.Env(""),
		"hadoop.kms.authentication.type", "kerberos",
		"hadoop.kms.authentication.kerberos.keytab", realm.Keytab("HTTP/localhost"),
		"hadoop.kms.authentication.kerberos.principal", "HTTP/localhost",
		"hadoop.kms.proxyuser.alice.users", "*",
		"hadoop.kms.proxyuser.alice.hosts", "*")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	f := func(want string, args ...string) {
		t.Helper()
		args = append(append([]string{"clients", "--rate=40", "--duration=500ms", "--create-keys=1"}, args...), strings.Replace(url, "127.0.0.1", "localhost", 1))
		cmd := exec.Command(filepath.Join(binaries, "edekload"), args...)
		cmd.Env = append(os.Environ(), realm.Env("")...)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) || !regexp.MustCompile(`(?m)^ +decrypt +20 +0 `).Match(out) {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
	keytab, cache := realm.Keytab("alice", "bob"), realm.Kinit("alice")
	f("2 kerberos identities", "--auth=kerberos", "--keytab="+keytab, "--principal=alice,bob")
	f("1 kerberos identity", "--auth=kerberos", "--ccache="+cache)
	f("2 kerberos identities", "--auth=kerberos", "--ccache="+cache, "--do-as=joe,jim")
	f("3 token identities", "--auth=token", "--ccache="+cache, "--do-as=joe,jim,jane")
}
