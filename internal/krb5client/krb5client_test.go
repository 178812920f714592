package krb5client

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edekd/edekd/internal/kdc"
)

func TestBegin(t *testing.T) {
	realm := kdc.Start(t, "EXAMPLE.TEST")
	realm.Add("edekd", "HTTP/localhost")
	t.Setenv("KRB5_CONFIG", realm.Config)
	login := Login{Principal: "edekd", Keytab: realm.Keytab("edekd")}
	token, c, err := login.Begin("HTTP", "localhost")
	if err != nil || len(token) == 0 {
		t.Fatalf("%d bytes, %v", len(token), err)
	}
	// What is no AP-REP to this request proves nothing.
	for _, reply := range [][]byte{nil, []byte("nonsense"), token} {
		if c.Verify(reply) == nil {
			t.Errorf("%d bytes pass for an AP-REP", len(reply))
		}
	}
	f := func(l Login, service, part string) {
		t.Helper()
		if _, _, err := l.Begin(service, "localhost"); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%+v, %s: %v", l, service, err)
		}
	}
	f(Login{Principal: "nobody@EXAMPLE.TEST", Keytab: login.Keytab}, "HTTP", "log in as nobody@EXAMPLE.TEST with keytab "+login.Keytab)
	f(login, "imap", "get a ticket for imap/localhost")
	missing := filepath.Join(t.TempDir(), "none")
	if _, err := (Login{Principal: "edekd", Keytab: missing}).Client(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Error(err)
	}
}
