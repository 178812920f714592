package spnego_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/edekd/edekd/internal/kdc"
	"github.com/edekd/edekd/proxy/authn/spnego"
)

// serve is the smallest server around an Acceptor. It names the principal in a
// header and breaks the connection where the real answer to a request for /drop
// would come, once.
func serve(t *testing.T, acceptor *spnego.Acceptor) (url string, statuses *[]int) {
	t.Helper()
	statuses = new([]int)
	dropped := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := func(status int) {
			*statuses = append(*statuses, status)
			w.WriteHeader(status)
		}
		const scheme = "Negotiate "
		header, ok := strings.CutPrefix(r.Header.Get("Authorization"), scheme)
		if !ok {
			w.Header().Set("WWW-Authenticate", "Negotiate")
			answer(http.StatusUnauthorized)
			return
		}
		token, err := spnego.Decode([]byte(header))
		var principal string
		var reply []byte
		if err == nil {
			principal, reply, err = acceptor.Accept(token)
		}
		var refusal *spnego.Error
		if errors.As(err, &refusal) {
			if refusal.Retry() {
				w.Header().Set("WWW-Authenticate", "Negotiate")
				answer(http.StatusUnauthorized)
			} else {
				w.Header().Set("X-Refusal", refusal.Text)
				answer(http.StatusForbidden)
			}
			return
		}
		if r.URL.Path == "/drop" && !dropped {
			dropped = true
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			conn.Close()
			return
		}
		if reply != nil {
			w.Header().Set("WWW-Authenticate", scheme+base64.StdEncoding.EncodeToString(reply))
		}
		w.Header().Set("X-Principal", principal)
		answer(http.StatusOK)
	}))
	t.Cleanup(server.Close)
	return strings.Replace(server.URL, "127.0.0.1", "localhost", 1), statuses
}

func run(t *testing.T, realm *kdc.KDC, cache string, name string, args ...string) string {
	t.Helper()
	program, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed: run \"make setup\"", name)
	}
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), realm.Env(cache)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", name, err, out, stderr.Bytes())
	}
	return string(out)
}

func TestCurl(t *testing.T) {
	realm, acceptor := start(t)
	url, _ := serve(t, acceptor)
	cache := realm.Kinit("alice")
	const format = "%{http_code} %header{x-principal} %header{www-authenticate}"
	f := func(args ...string) {
		t.Helper()
		out := run(t, realm, cache, "curl", append([]string{"-sS", "-o", filepath.Join(t.TempDir(), "body"),
			"--negotiate", "-u", ":", "-w", format}, args...)...)
		if !strings.HasPrefix(out, "200 alice@"+home+" Negotiate ") {
			t.Errorf("curl %q: %s", args, out)
		}
	}
	f(url)
	f(url, "-X", "POST", "-d", "body")

	stranger := run(t, realm, "", "curl", "-sS", "--negotiate", "-u", ":", "-w", "%{http_code}", url)
	if stranger != "401" {
		t.Errorf("curl without a ticket: %s", stranger)
	}
	if got := acceptor.Stats(); got.Accepted != 2 || got.Refused != 0 {
		t.Errorf("counts %+v", got)
	}
}

func TestJava(t *testing.T) {
	realm, acceptor := start(t)
	f := func(want, path string, args ...string) (statuses []int) {
		t.Helper()
		url, seen := serve(t, acceptor)
		out := run(t, realm, "", "java", append([]string{"-Djava.security.krb5.conf=" + realm.Config,
			filepath.Join("testdata", "Handshake.java"), "alice@" + home, realm.Keytab("alice"), url + path}, args...)...)
		if out != want {
			t.Errorf("the client printed\n%swant\n%s", out, want)
		}
		return *seen
	}
	f(`raw: 200 alice@HOME.TEST established=true mutual=true
spnego: 200 alice@HOME.TEST established=true mutual=true
raw one-way: 200 alice@HOME.TEST established=true mutual=false
spnego one-way: 200 alice@HOME.TEST established=true mutual=false
jdk: 200 alice@HOME.TEST
`, "/")

	// The connection breaks after a token was accepted. The JDK sends the same
	// token again on its own, is challenged, and gives up; its caller does not.
	statuses := f("jdk: 401 null\nchallenged: 200 alice@HOME.TEST established=true mutual=true\n", "/drop", "jdk")
	if want := []int{401, 401, 200}; !slices.Equal(statuses, want) {
		t.Errorf("answers %v, want %v", statuses, want)
	}
	if got := acceptor.Stats(); got.Replays != 1 || got.Accepted != 7 || got.Refused != 0 {
		t.Errorf("counts %+v", got)
	}
}
