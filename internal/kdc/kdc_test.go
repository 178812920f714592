package kdc_test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"testing"

	"github.com/edekd/edekd/internal/kdc"
)

// klist shows the tickets or keys a program of MIT's sees.
func klist(t *testing.T, realm *kdc.KDC, args ...string) string {
	t.Helper()
	cmd := exec.Command("klist", args...)
	cmd.Env = append(os.Environ(), realm.Env("")...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("klist %q: %v\n%s", args, err, out)
	}
	return string(out)
}

func wantText(t *testing.T, text string, wanted ...string) {
	t.Helper()
	for _, w := range wanted {
		if !bytes.Contains([]byte(text), []byte(w)) {
			t.Errorf("%q is missing in:\n%s", w, text)
		}
	}
}

func TestTicketsOfTwoTrustingRealms(t *testing.T) {
	realm := kdc.Start(t, "A.TEST", "B.TEST")
	realm.Add("HTTP/localhost", "alice")
	realm.AddPassword("bob@B.TEST", "secret of bob")
	realm.Trust("B.TEST", "A.TEST")

	get := func(cache, service string) string {
		t.Helper()
		cmd := exec.Command("kvno", service)
		cmd.Env = append(os.Environ(), realm.Env(cache)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("kvno %s: %v\n%s", service, err, out)
		}
		return klist(t, realm, "-e", "-c", "FILE:"+cache)
	}
	wantText(t, get(realm.Kinit("alice"), "HTTP/localhost@A.TEST"),
		"Default principal: alice@A.TEST", "HTTP/localhost@A.TEST", kdc.AES256SHA1)
	wantText(t, get(realm.KinitPassword("bob@B.TEST", "secret of bob"), "HTTP/localhost@A.TEST"),
		"Default principal: bob@B.TEST", "krbtgt/A.TEST@B.TEST", "HTTP/localhost@A.TEST")
}

func TestKeysAndVersions(t *testing.T) {
	realm := kdc.Start(t, "A.TEST")
	realm.AddKeys("HTTP/localhost", kdc.AES128SHA2, kdc.AES256SHA2)
	realm.SessionKeys("HTTP/localhost", kdc.AES256SHA2)
	wantText(t, klist(t, realm, "-kte", realm.Keytab("HTTP/localhost")), kdc.AES128SHA2, kdc.AES256SHA2)

	realm.Add("alice")
	realm.Rotate("alice", true)
	wantText(t, klist(t, realm, "-k", realm.Keytab("alice")), "   1 alice@A.TEST", "   2 alice@A.TEST")
	realm.Rotate("alice", false)
	text := klist(t, realm, "-k", realm.Keytab("alice"))
	wantText(t, text, "   3 alice@A.TEST")
	if bytes.Contains([]byte(text), []byte("   2 alice")) {
		t.Errorf("an old key is still there:\n%s", text)
	}
}

func TestTheKDCEndsWithTheTest(t *testing.T) {
	var addr string
	t.Run("inner", func(t *testing.T) {
		addr = kdc.Start(t, "A.TEST").Addr
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	})
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Fatalf("something still listens on %s", addr)
	}
}
