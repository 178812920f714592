package proxy

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	login "github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/credentials"
	krb5 "github.com/jcmturner/gokrb5/v8/spnego"

	"github.com/edekd/edekd/hadoop/names"
	"github.com/edekd/edekd/internal/kdc"
	"github.com/edekd/edekd/internal/krb5conf"
	"github.com/edekd/edekd/proxy/authn"
	"github.com/edekd/edekd/proxy/authn/secret"
	"github.com/edekd/edekd/proxy/authn/spnego"
)

// kerberized is a server under `kerberos`, with a real KDC, and tickets for it.
type kerberized struct {
	*kms
	acceptor *spnego.Acceptor
	client   *login.Client
}

func newKerberized(t *testing.T) *kerberized {
	t.Helper()
	realm := kdc.Start(t, "EXAMPLE.TEST")
	realm.Add("HTTP/localhost", "alice")
	acceptor, err := spnego.New(spnego.Config{Keytab: realm.Keytab("HTTP/localhost"), Principal: "*", Krb5Conf: realm.Config})
	if err != nil {
		t.Fatal(err)
	}
	rules, err := names.New("DEFAULT", "", "EXAMPLE.TEST")
	if err != nil {
		t.Fatal(err)
	}
	ring, err := secret.NewRandom(time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	auth, err := authn.New(authn.Config{Secrets: ring, WriteError: WriteError, Negotiator: acceptor, Names: rules})
	if err != nil {
		t.Fatal(err)
	}
	k := &kerberized{acceptor: acceptor, kms: newKMS(t, func(c *Config) { c.Authn = auth })}
	conf, err := krb5conf.Load(realm.Config)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := conf.Client()
	if err != nil {
		t.Fatal(err)
	}
	cache, err := credentials.LoadCCache(realm.Kinit("alice"))
	if err != nil {
		t.Fatal(err)
	}
	if k.client, err = login.NewFromCCache(cache, cfg, login.DisablePAFXFAST(true)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.client.Destroy)
	return k
}

// ticket is a fresh Authorization header.
func (k *kerberized) ticket(t *testing.T) string {
	t.Helper()
	service, key, err := k.client.GetServiceTicket("HTTP/localhost")
	if err != nil {
		t.Fatal(err)
	}
	init, err := krb5.NewNegTokenInitKRB5(k.client, service, key)
	if err != nil {
		t.Fatal(err)
	}
	token, err := (&krb5.SPNEGOToken{Init: true, NegTokenInit: init}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return "Authorization: Negotiate " + base64.StdEncoding.EncodeToString(token)
}

// ask sends one request, with a body and a header of its own.
func (k *kerberized) ask(t *testing.T, method, target, body, header string) answered {
	t.Helper()
	return k.raw(t, requestText(method, "/kms/v1"+target, body, header), 1)[0]
}

// completed fails unless the answer completes the negotiation. (This client asks
// for no proof of the server, which would be in the token, too.)
func completed(t *testing.T, a answered) {
	t.Helper()
	if got := a.Header["Www-Authenticate"]; len(got) != 1 || !strings.HasPrefix(got[0], "Negotiate ") || len(got[0]) == len("Negotiate ") {
		t.Errorf("%d: the negotiation is not completed: %q", a.StatusCode, got)
	}
}

func TestTicketOnTheRequestItself(t *testing.T) {
	k := newKerberized(t)
	a := k.ask(t, "POST", "/keys", `{"name":"k1"}`, k.ticket(t))
	if a.StatusCode != 201 || len(a.Cookies()) != 1 || !strings.Contains(a.Header.Get("Set-Cookie"), "u=alice&p=alice@EXAMPLE.TEST&t=kerberos-dt&e=") {
		t.Errorf("%d %q %s", a.StatusCode, a.Header, a.body)
	}
	completed(t, a)
	// That and the cookie come whatever becomes of the request.
	for _, f := range []struct {
		method, target, body string
		status               int
	}{
		{"POST", "/keys", `{"name":"k1"}`, 500},
		{"POST", "/keys", `{`, 500},
		{"GET", "/nothing", "", 500},
		{"PATCH", "/keys", "", 500},
		{"GET", "/key/%zz", "", 400},
		{"GET", "/key/k1/_metadata?doAs=bob", "", 403},
	} {
		a := k.ask(t, f.method, f.target, f.body, k.ticket(t))
		if a.StatusCode != f.status || len(a.Cookies()) != 1 {
			t.Errorf("%s %s: %d %v", f.method, f.target, a.StatusCode, a.Header)
		}
		completed(t, a)
	}
	used := k.ticket(t)
	if a := k.ask(t, "GET", "/keys/names", "", used); a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	a = k.ask(t, "GET", "/keys/names", "", used)
	if a.StatusCode != 401 || a.Header.Get("Www-Authenticate") != "Negotiate" || !strings.Contains(a.Status, "eplay") {
		t.Errorf("a replay: %s %v", a.Status, a.Header)
	}
}

// The sender of a large body is known before the body is read; the ticket is
// good for that and for the request.
func TestTicketOfALargeBody(t *testing.T) {
	k := newKerberized(t)
	large := "[" + strings.Repeat(" ", 100<<10) + "]"
	const target = "/key/k/_reencryptbatch"
	a := k.ask(t, "POST", target, large, k.ticket(t))
	if a.StatusCode != 200 || len(a.Cookies()) != 1 {
		t.Errorf("%d %v %s", a.StatusCode, a.Header, a.body)
	}
	completed(t, a)

	// Chunked, and announced with Expect: decided on the headers, too.
	text := "POST /kms/v1" + target + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
	a = k.raw(t, text+k.ticket(t)+"\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n", 1)[0]
	if a.StatusCode != 200 {
		t.Errorf("chunked: %d %s", a.StatusCode, a.body)
	}
	completed(t, a)
	c := k.dial(t)
	c.send(t, text+k.ticket(t)+"\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n")
	if a := c.answer(t, "POST"); a.StatusCode != 100 {
		t.Fatalf("%d %v", a.StatusCode, a.Header)
	}
	c.send(t, "["+strings.Repeat(" ", 100000-2)+"]")
	if a := c.answer(t, "POST"); a.StatusCode != 200 {
		t.Errorf("after 100: %d %v %s", a.StatusCode, a.Header, a.body)
	}

	// The header that was good once is a replay on the same connection.
	header := k.ticket(t)
	c = k.dial(t)
	request := requestText("POST", "/kms/v1"+target, large, header)
	go c.Write([]byte(request + request))
	if a := c.answer(t, "POST"); a.StatusCode != 200 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a := c.answer(t, "POST"); a.StatusCode != 401 || a.Header.Get("Www-Authenticate") != "Negotiate" {
		t.Errorf("a replay: %d %v", a.StatusCode, a.Header)
	}

	// No room is not a matter of who asks.
	k.large.inUse.Add(largeBodyBudget)
	a = k.ask(t, "POST", target, large, k.ticket(t))
	k.large.inUse.Add(-largeBodyBudget)
	if a.StatusCode != 500 || !strings.Contains(a.body, "try again") {
		t.Errorf("no room: %d %s", a.StatusCode, a.body)
	}
}

// What is no ticket is refused and harms nobody, in time that the sender's bytes
// do not buy.
func TestBrokenTickets(t *testing.T) {
	k := newKerberized(t)
	good, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(k.ticket(t), "Authorization: Negotiate "))
	if err != nil {
		t.Fatal(err)
	}
	refused := func(token []byte) {
		t.Helper()
		a := k.ask(t, "GET", "/keys/names", "", "Authorization: Negotiate "+base64.StdEncoding.EncodeToString(token))
		if a.StatusCode != 403 || a.Header.Get("Www-Authenticate") != "" || a.Header.Get("Set-Cookie") != "hadoop.auth=; HttpOnly" ||
			!strings.HasPrefix(a.Status, "403 GSSException: ") {
			t.Errorf("%d bytes: %s %v", len(token), a.Status, a.Header)
		}
	}
	refused(nil)
	refused([]byte("junk"))
	refused(make([]byte, 40<<10))
	// A well-formed list of mechanisms with nothing in it.
	refused([]byte{0x60, 0x12, 6, 6, 0x2b, 6, 1, 5, 5, 2, 0xa0, 8, 0x30, 6, 0xa0, 4, 0x30, 2, 4, 0})
	refused([]byte{0x60, 0x10, 6, 6, 0x2b, 6, 1, 5, 5, 2, 0xa0, 6, 0x30, 4, 0xa0, 2, 0x30, 0})
	for n := 1; n < len(good); n += 17 {
		refused(good[:n])
	}
	for n := len(good) - 100; n < len(good); n += 9 { // within what is encrypted
		damaged := append([]byte(nil), good...)
		damaged[n] ^= 1
		refused(damaged)
	}
	if a := k.ask(t, "GET", "/keys/names", "", "Authorization: Negotiate "+base64.StdEncoding.EncodeToString(good)); a.StatusCode != 200 {
		t.Errorf("the whole one: %s", a.Status)
	}
	// Of two headers the first counts, and no other scheme helps.
	a := k.ask(t, "GET", "/keys/names", "", "Authorization: Basic eDp5\r\n"+k.ticket(t))
	if a.StatusCode != 401 || a.Header.Get("Www-Authenticate") != "Negotiate" {
		t.Errorf("after Basic: %s %v", a.Status, a.Header)
	}
	// Beyond what headers may take.
	if a := k.ask(t, "GET", "/keys/names", "", "Authorization: Negotiate "+strings.Repeat("A", 64<<10)); a.StatusCode != 431 {
		t.Errorf("a huge one: %s", a.Status)
	}
}

// A ticket that came with a body that never arrived is used up all the same: what
// was found out about it dies with its connection, whose memory others get.
func TestTicketOfABatchThatNeverCame(t *testing.T) {
	k := newKerberized(t)
	for range 5 {
		header := k.ticket(t)
		open, accepted := k.http.GetOpenConnectionsCount(), k.acceptor.Stats().Accepted
		c := k.dial(t)
		c.send(t, "POST /kms/v1/key/k/_reencryptbatch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"+header+"\r\nTransfer-Encoding: chunked\r\n\r\n")
		deadline := time.Now().Add(10 * time.Second)
		for k.acceptor.Stats().Accepted == accepted {
			if time.Now().After(deadline) {
				t.Fatal("the ticket was not looked at")
			}
			time.Sleep(time.Millisecond)
		}
		c.Close()
		for k.http.GetOpenConnectionsCount() > open {
			if time.Now().After(deadline) {
				t.Fatal("the connection stays")
			}
			time.Sleep(time.Millisecond)
		}
		again := k.raw(t, "GET /kms/v1/keys/names HTTP/1.1\r\nHost: localhost\r\n"+header+"\r\n\r\n", 1)[0]
		if again.StatusCode != 401 {
			t.Errorf("the same ticket on another connection: %d", again.StatusCode)
		}
	}
}
