package main

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/credentials"

	"github.com/edekd/edekd/internal/kdc"
	"github.com/edekd/edekd/internal/krb5conf"
)

const (
	attackRealm   = "EXAMPLE.TEST"
	attackService = "HTTP/localhost"
	// signingSecret signs the cookies of both servers of an arena.
	signingSecret = "the secret that both servers share"
)

// arena is what is attacked: an edekd under Kerberos with a real KDC. The key
// treasure is alice's; mallory has every right on trinket, and on the level of
// operations all that alice has. The user front may act for bob from anywhere,
// gateway for bob from 10.1.2.3 only. Beside it stands a server that believes
// user.name and has the same signing secret.
type arena struct {
	*process
	realm   *kdc.KDC
	simple  *process
	logs    [2]string // folders, the Kerberos server's first
	logins  map[string]*client.Client
	cookies map[string]string // of users, unquoted
	dek     string            // what is in stolen
	stolen  string            // body of a decrypt request for an encrypted key of treasure
	secret  []string          // texts that no log may show
}

func newArena(t *testing.T) *arena {
	t.Helper()
	a := &arena{realm: kdc.Start(t, attackRealm), logins: map[string]*client.Client{}, cookies: map[string]string{}}
	a.realm.Add(attackService, "HTTP/other", "alice", "mallory", "front", "gateway", "empty")
	file := filepath.Join(t.TempDir(), "secret")
	write(t, file, signingSecret)
	shared := func(logs string) []string {
		return []string{
			"hadoop.kms.key.authorization.enable", "true",
			"hadoop.kms.authentication.signer.secret.provider", "file",
			"hadoop.kms.authentication.signature.secret.file", file,
			"edekd.log.dir", logs,
			"edekd.access-log.enabled", "true",
			"edekd.audit.format", "both",
		}
	}
	for i := range a.logs {
		a.logs[i] = filepath.Join(t.TempDir(), "logs")
	}
	guarded := newSite(t, append(shared(a.logs[0]),
		"hadoop.kms.authentication.type", "kerberos",
		"hadoop.kms.authentication.kerberos.keytab", a.realm.Keytab(attackService),
		"hadoop.kms.authentication.kerberos.principal", "*",
		"hadoop.kms.authentication.kerberos.name.rules", "RULE:[1:$1@$0](empty@EXAMPLE.TEST)s/.*//\nDEFAULT",
		"hadoop.kms.proxyuser.front.users", "bob",
		"hadoop.kms.proxyuser.front.hosts", "*",
		"hadoop.kms.proxyuser.gateway.users", "bob",
		"hadoop.kms.proxyuser.gateway.hosts", "10.1.2.3",
		"edekd.proxies.trusted", "127.0.0.2",
		"edekd.proxies.protocol", "x-forwarded-for",
	)...)
	guarded.env = a.realm.Env("")
	rules := `<configuration>
<property><name>key.acl.treasure.ALL</name><value>alice</value></property>
<property><name>default.key.acl.MANAGEMENT</name><value>alice,mallory</value></property>
<property><name>default.key.acl.GENERATE_EEK</name><value>*</value></property>
<property><name>default.key.acl.DECRYPT_EEK</name><value>*</value></property>
<property><name>default.key.acl.READ</name><value>*</value></property>
</configuration>`
	write(t, filepath.Join(guarded.dir, "kms-acls.xml"), rules)
	a.process = guarded.start(t)
	open := newSite(t, append(shared(a.logs[1]), "hadoop.kms.authentication.delegation-token.renew-interval.sec", "1")...)
	write(t, filepath.Join(open.dir, "kms-acls.xml"), rules)
	a.simple = open.start(t)

	for _, user := range []string{"alice", "mallory", "front", "gateway"} {
		got := a.ask(t, "GET", "/kms/v1/keys/names", a.ticket(t, user))
		cookie, _, found := strings.Cut(strings.TrimPrefix(got.Header.Get("Set-Cookie"), `hadoop.auth="`), `"`)
		if got.StatusCode != 200 || !found || !strings.Contains(cookie, "u="+user+"&") {
			t.Fatalf("%s cannot log in: %s %v", user, got.Status, got.Header)
		}
		a.cookies[user] = cookie
		a.secret = append(a.secret, cookie[strings.LastIndex(cookie, "=")-20:])
	}
	for _, key := range []string{"treasure", "trinket"} {
		if got := a.ask(t, "POST", "/kms/v1/keys", a.as("alice"), `{"name":"`+key+`"}`); got.StatusCode != 201 {
			t.Fatalf("create %s: %s %s", key, got.Status, got.body)
		}
	}
	a.hide(t)
	return a
}

// hide makes the encrypted key that everybody is after.
func (a *arena) hide(t *testing.T) {
	t.Helper()
	var made []struct {
		IV        string `json:"iv"`
		Encrypted struct {
			Material string `json:"material"`
		} `json:"encryptedKeyVersion"`
	}
	got := a.ask(t, "GET", "/kms/v1/key/treasure/_eek?eek_op=generate&num_keys=1", a.as("alice"))
	if err := json.Unmarshal([]byte(got.body), &made); err != nil || len(made) != 1 {
		t.Fatalf("generate: %s %s", got.Status, got.body)
	}
	a.stolen = fmt.Sprintf(`"iv":%q,"material":%q`, made[0].IV, made[0].Encrypted.Material)
	var dek struct {
		Material string `json:"material"`
	}
	got = a.ask(t, "POST", "/kms/v1/keyversion/treasure@0/_eek?eek_op=decrypt", a.as("alice"), `{"name":"treasure",`+a.stolen+`}`)
	if err := json.Unmarshal([]byte(got.body), &dek); err != nil || dek.Material == "" {
		t.Fatalf("decrypt: %s %s", got.Status, got.body)
	}
	a.dek = dek.Material
	var zone struct {
		Material string `json:"material"`
	}
	got = a.ask(t, "GET", "/kms/v1/key/treasure/_currentversion", a.as("alice"))
	if err := json.Unmarshal([]byte(got.body), &zone); err != nil || zone.Material == "" {
		t.Fatalf("current version: %s %s", got.Status, got.body)
	}
	a.secret = append(a.secret, a.dek, zone.Material)
}

// login is a logged-in Kerberos client.
func (a *arena) login(t *testing.T, user string) *client.Client {
	t.Helper()
	if c := a.logins[user]; c != nil {
		return c
	}
	conf, err := krb5conf.Load(a.realm.Config)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := conf.Client()
	if err != nil {
		t.Fatal(err)
	}
	cache, err := credentials.LoadCCache(a.realm.Kinit(user))
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.NewFromCCache(cache, cfg, client.DisablePAFXFAST(true))
	if err != nil {
		t.Fatal(err)
	}
	a.logins[user] = c
	return c
}

// as is the header of somebody who has a cookie.
func (a *arena) as(user string) string { return cookieHeader(a.cookies[user]) }

func cookieHeader(value string) string { return `Cookie: hadoop.auth="` + value + `"` }

// sign makes the value of a cookie from the text before its signature.
func sign(secret, text string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return text + "&s=" + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// attackAnswer is an HTTP answer whose body was read.
type attackAnswer struct {
	*http.Response
	body string
}

// wire is a connection that raw bytes are sent over.
type wire struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func (p *process) wire(t *testing.T) *wire { return p.wireFrom(t, "127.0.0.1") }

// wireFrom connects from one of the loopback network's addresses.
func (p *process) wireFrom(t *testing.T, from string) *wire {
	t.Helper()
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.Dial("tcp", strings.TrimPrefix(p.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &wire{t, conn, bufio.NewReader(conn)}
}

// send writes text, as far as the other end takes it.
func (w *wire) send(text string) { io.WriteString(w.conn, text) }

// answer reads the next answer; ok is false when there is none.
func (w *wire) answer() (a attackAnswer, ok bool) { return w.answerTo("GET") }

// answerTo is answer for one to a method.
func (w *wire) answerTo(method string) (a attackAnswer, ok bool) {
	w.t.Helper()
	resp, err := http.ReadResponse(w.r, &http.Request{Method: method})
	if err != nil {
		return attackAnswer{Response: &http.Response{}}, false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Errorf("the answer is not whole: %v", err)
	}
	return attackAnswer{resp, string(body)}, true
}

// request is the text of a request, headers without line ends.
func request(method, target, body string, headers ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: localhost\r\n", method, target)
	for _, h := range headers {
		if h != "" {
			b.WriteString(h + "\r\n")
		}
	}
	if body != "" {
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	} else if method != "GET" {
		b.WriteString("Content-Length: 0\r\n")
	}
	return b.String() + "\r\n" + body
}

// ask sends one request over a connection of its own.
func (p *process) ask(t *testing.T, method, target, header string, body ...string) attackAnswer {
	t.Helper()
	w := p.wire(t)
	defer w.conn.Close()
	w.send(request(method, target, strings.Join(body, ""), header))
	a, ok := w.answerTo(method)
	if !ok {
		t.Errorf("%.200s %.200s: no answer", method, target)
	}
	return a
}

// refused fails unless the status is the one wanted, and nobody was given a
// cookie.
func refused(t *testing.T, what string, got attackAnswer, status int) {
	t.Helper()
	if got.StatusCode != status {
		t.Errorf("%.300s: %s, want %d: %.300s", what, got.Status, status, got.body)
	}
	if strings.Contains(got.Header.Get("Set-Cookie"), "u=") {
		t.Errorf("%.300s: %s with a cookie", what, got.Status)
	}
}

// unharmed fails when an attack has changed something, or has broken it.
func (a *arena) unharmed(t *testing.T) {
	t.Helper()
	if got := a.ask(t, "GET", "/kms/v1/keys/names", a.as("alice")); got.body != `[ "treasure", "trinket" ]` {
		t.Fatalf("the keys are %s %s", got.Status, got.body)
	}
	for _, key := range []string{"treasure", "trinket"} {
		if got := a.ask(t, "GET", "/kms/v1/key/"+key+"/_metadata", a.as("alice")); !strings.Contains(got.body, `"versions" : 1`) {
			t.Fatalf("%s: %s", key, got.body)
		}
	}
	got := a.ask(t, "POST", "/kms/v1/keyversion/treasure@0/_eek?eek_op=decrypt", a.as("alice"), `{"name":"treasure",`+a.stolen+`}`)
	if got.StatusCode != 200 || !strings.Contains(got.body, a.dek) {
		t.Fatalf("alice is locked out: %s %s", got.Status, got.body)
	}
	for _, p := range []*process{a.process, a.simple} {
		select {
		case <-p.exited:
			t.Fatal("edekd has ended")
		default:
		}
		if said := p.said(); strings.Contains(said, "panic") {
			t.Fatalf("edekd panicked:\n%s", said)
		}
	}
}

// audited is a line of the audit log in its JSON form.
type audited struct {
	Decision, Op, Key, User, Principal, RealUser, Client, URL, Error string
}

// actor waits for the audit line about a key that nobody has, and returns it.
func (a *arena) actor(t *testing.T, key string) (found audited) {
	t.Helper()
	a.eventually("the audit log knows "+key, func() bool {
		for line := range strings.Lines(read(t, filepath.Join(a.logs[0], "kms-audit.json"))) {
			var l audited
			if json.Unmarshal([]byte(line), &l) == nil && l.Key == key {
				found = l
				return true
			}
		}
		return false
	})
	return found
}

var (
	auditLine = regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (` +
		`(OK|UNAUTHORIZED)\[op=[A-Z_]+(, key=.*)?, user=.+(, accessCount=\d+, interval=\d+ms)?\] .*|` +
		`ERROR\[user=.+\] Method:'.*' Exception:'.*'|` +
		`UNAUTHENTICATED RemoteHost:[0-9a-f.:]+ Method:\S+ URL:http://.* ErrorMsg:'.*')$`)
	accessLine = regexp.MustCompile(`^[0-9a-f.:]+ - \S+ \[[^\]]+\] "[^"\\]*(\\.[^"\\]*)*" \d{3} \d+ "[^"\\]*(\\.[^"\\]*)*" "[^"\\]*(\\.[^"\\]*)*" \d+$`)
	mainLine   = regexp.MustCompile(`^time=\S+ level=[A-Z]+ msg=.*$`)
	// lineBreaker is what some reader of a log takes for the end of a line, or
	// what moves the cursor of a terminal.
	lineBreaker = regexp.MustCompile("[\x00-\x09\x0b-\x1f\x7f\u0080-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
)

// logsAreWhole looks at every line of every log: each has one of the shapes it
// may have, and none shows a secret.
func (a *arena) logsAreWhole(t *testing.T) {
	t.Helper()
	for _, dir := range a.logs {
		files, err := os.ReadDir(dir)
		if err != nil || len(files) != 4 {
			t.Fatalf("%v %v", files, err)
		}
		for _, f := range files {
			wrong := 0
			for line := range strings.Lines(read(t, filepath.Join(dir, f.Name()))) {
				if wrong == 5 {
					break
				}
				line = strings.TrimSuffix(line, "\n")
				good := false
				switch f.Name() {
				case "kms-audit.log":
					good = auditLine.MatchString(line)
				case "kms-audit.json":
					good = json.Valid([]byte(line))
				case "kms-access.log":
					good = accessLine.MatchString(line)
				case "kms.log":
					good = mainLine.MatchString(line)
				}
				if !good || lineBreaker.MatchString(line) {
					wrong++
					t.Errorf("%s: %.500q", f.Name(), line)
				}
				for _, s := range a.secret {
					if strings.Contains(line, s) {
						wrong++
						t.Errorf("%s shows %.20s…: %.500s", f.Name(), s, line)
					}
				}
			}
		}
	}
}
