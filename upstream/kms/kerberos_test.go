package kms

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/internal/kdc"
	"github.com/edekd/edekd/proxy/authn/spnego"
)

// kerberized puts the real acceptor before a fake, with cookies that can be
// made invalid.
func kerberized(t *testing.T, f *fake, acceptor *spnego.Acceptor) (cookie *atomic.Pointer[string]) {
	cookie = new(atomic.Pointer[string])
	first := "u=edekd&p=edekd/sidecar@A.TEST&t=kerberos-dt&e=1&s=Zmlyc3Q="
	cookie.Store(&first)
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Cookie") == `hadoop.auth="`+*cookie.Load()+`"` {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.serve(w, r)
			return true
		}
		token, err := spnego.Decode([]byte(strings.TrimPrefix(r.Header.Get("Authorization"), "Negotiate ")))
		if err == nil && len(token) > 0 {
			principal, reply, err := acceptor.Accept(token)
			if err == nil && principal == "edekd/sidecar@A.TEST" {
				w.Header().Set("WWW-Authenticate", "Negotiate "+base64.StdEncoding.EncodeToString(reply))
				w.Header().Set("Set-Cookie", `hadoop.auth="`+*cookie.Load()+`"; HttpOnly`)
				return true
			}
			t.Logf("accept: %s, %v", principal, err)
		}
		w.Header().Set("WWW-Authenticate", "Negotiate")
		http.Error(w, "Authentication required", 401)
		return true
	})
	return cookie
}

func TestKerberos(t *testing.T) {
	realm := kdc.Start(t, "A.TEST")
	t.Setenv("KRB5_CONFIG", realm.Config)
	realm.Add("HTTP/127.0.0.1", "edekd/sidecar")
	config := func(c *Config) {
		c.Kerberos = &Kerberos{Principal: "edekd/sidecar", Keytab: realm.Keytab("edekd/sidecar")}
		c.Service = "other" // what the upstream makes of the principal counts too
	}
	acceptor, err := spnego.New(spnego.Config{Keytab: realm.Keytab("HTTP/127.0.0.1"), Principal: "HTTP/127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	f := startFake(t, "k")
	cookie := kerberized(t, f, acceptor)
	c := newClient(t, config, f)
	calls(t, 20, func() error { return generate(c, "k", 1) })
	if f.logins != 1 {
		t.Errorf("%d logins for 20 calls at once", f.logins)
	}
	for i, target := range f.seen() {
		if target != "GET /kms/v1/key/k/_eek?eek_op=generate&num_keys=1&doAs=alice" || f.cookies[i] != `hadoop.auth="`+*cookie.Load()+`"` {
			t.Errorf("%s with %s", target, f.cookies[i])
		}
	}

	var foreign *edek.Foreign
	if _, err := c.Generate(t.Context(), edek.Caller{User: "edekd"}, "k", 1); !errors.As(err, &foreign) || foreign.Status != 403 {
		t.Errorf("a caller named like the service: %v", err)
	}

	// A restarted server takes no old cookie: one more login, and nobody notices.
	// A change that was stopped by the filter has not happened and is made again.
	second := strings.Replace(*cookie.Load(), "Zmlyc3Q", "c2Vjb25k", 1)
	cookie.Store(&second)
	calls(t, 20, func() error { return generate(c, "k", 1) })
	if f.logins > 3 || f.logins < 2 {
		t.Errorf("%d logins", f.logins)
	}
	third := strings.Replace(second, "c2Vjb25k", "dGhpcmQ", 1)
	cookie.Store(&third)
	if v, err := c.Roll(t.Context(), alice, "k", nil); err != nil || v.VersionName != "k@1" {
		t.Errorf("%v, %v", v, err)
	}
	if s := c.Nodes()[0]; s.Faults != 0 {
		t.Errorf("%+v", s)
	}
}

// An impostor that cannot read the ticket is not believed, whatever cookie it gives.
func TestAServerThatDoesNotProveItself(t *testing.T) {
	realm := kdc.Start(t, "A.TEST")
	t.Setenv("KRB5_CONFIG", realm.Config)
	realm.Add("HTTP/127.0.0.1", "edekd")
	keytab := realm.Keytab("edekd")
	for _, reply := range []string{"", "Negotiate", "Negotiate !", "Negotiate AAAA", "Negotiate YIGWBgkqhkiG9xIBAgICAG8="} {
		f := startFake(t, "k")
		f.set(func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("WWW-Authenticate", reply)
			w.Header().Set("Set-Cookie", `hadoop.auth="u=edekd&s=x"`)
			return r.Method == http.MethodOptions
		})
		c := newClient(t, func(c *Config) { c.Kerberos = &Kerberos{Principal: "edekd@A.TEST", Keytab: keytab} }, f)
		wantKind(t, generate(c, "k", 1), edek.Unavailable, "does not prove that it is HTTP/127.0.0.1")
		if got := f.seen(); len(got) != 0 {
			t.Errorf("%q", got)
		}
	}
}

func TestALoginThatFails(t *testing.T) {
	realm := kdc.Start(t, "A.TEST")
	t.Setenv("KRB5_CONFIG", realm.Config)
	realm.Add("HTTP/127.0.0.1", "edekd", "nobody")
	f := startFake(t, "k")
	f.set(func(w http.ResponseWriter, _ *http.Request) bool {
		exception(w, 403, "org.apache.hadoop.security.authentication.client.AuthenticationException", "no")
		return true
	})
	try := func(k *Kerberos, text string) {
		t.Helper()
		c := newClient(t, func(c *Config) { c.Kerberos = k; c.Open = time.Hour }, f)
		err := generate(c, "k", 1)
		wantKind(t, err, edek.Unavailable, text)
		// It is edekd's trouble, not the caller's.
		if foreign, ok := errors.AsType[*edek.Foreign](err); ok {
			t.Errorf("passed on to the caller: %v", foreign)
		}
	}
	try(&Kerberos{Principal: "edekd", Keytab: realm.Keytab("edekd")}, "log in: ")
	try(&Kerberos{Principal: "edekd", Keytab: "/no/such/keytab"}, "/no/such/keytab")
	try(&Kerberos{Principal: "edekd", Keytab: realm.Keytab("nobody")}, "log in as edekd@A.TEST")
}
