package main

import (
	"encoding/base64"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jcmturner/gokrb5/v8/iana/flags"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Object identifiers in DER.
const (
	derSPNEGO = "\x06\x06\x2b\x06\x01\x05\x05\x02"
	derKrb5   = "\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02"
	derNTLM   = "\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a"
)

func der(tag byte, content string) string {
	var b cryptobyte.Builder
	b.AddASN1(asn1.Tag(tag), func(b *cryptobyte.Builder) { b.AddBytes([]byte(content)) })
	return string(b.BytesOrPanic())
}

// plainToken is an AP-REQ framed as a token of Kerberos.
func plainToken(t *testing.T, req messages.APReq) string {
	t.Helper()
	b, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return der(0x60, derKrb5+"\x01\x00"+string(b))
}

// spnegoToken offers mechanisms, with a token for the first.
func spnegoToken(token string, mechanisms ...string) string {
	init := der(0xa0, der(0x30, strings.Join(mechanisms, "")))
	if token != "" {
		init += der(0xa2, der(0x04, token))
	}
	return der(0x60, derSPNEGO+der(0xa0, der(0x30, init)))
}

func negotiate(token string) string {
	return "Authorization: Negotiate " + base64.StdEncoding.EncodeToString([]byte(token))
}

// apReq is a fresh AP-REQ of a user for a service; change, if not nil, is what
// the user does to its authenticator before it is sealed.
func (a *arena) apReq(t *testing.T, user, service string, change func(*types.Authenticator)) messages.APReq {
	t.Helper()
	c := a.login(t, user)
	ticket, key, err := c.GetServiceTicket(service)
	if err != nil {
		t.Fatal(err)
	}
	authenticator, err := types.NewAuthenticator(c.Credentials.Domain(), c.Credentials.CName())
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&authenticator)
	}
	req, err := messages.NewAPReq(ticket, key, authenticator)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// ticket is a fresh Authorization header of a user.
func (a *arena) ticket(t *testing.T, user string) string {
	t.Helper()
	return negotiate(plainToken(t, a.apReq(t, user, attackService, nil)))
}

// replayed fails unless the answer is that to a replay: one that makes a real
// client try with a new ticket.
func replayed(t *testing.T, what string, got attackAnswer) {
	t.Helper()
	refused(t, what, got, 401)
	if h := got.Header.Get("Www-Authenticate"); h != "Negotiate" {
		t.Errorf("%s: challenge %q", what, h)
	}
}

func replayedTickets(t *testing.T, a *arena) {
	req := a.apReq(t, "alice", attackService, nil)
	plain := plainToken(t, req)
	if got := a.ask(t, "GET", whoAsks, negotiate(plain)); got.StatusCode != 200 {
		t.Fatal(got.Status)
	}
	std := base64.StdEncoding.EncodeToString([]byte(plain))
	for _, again := range []string{
		negotiate(plain), negotiate(plain),
		"Authorization: Negotiate   " + std + " \t",
		"Authorization: negotiate " + std,
		"Authorization: Negotiate " + base64.RawURLEncoding.EncodeToString([]byte(plain)),
		negotiate(spnegoToken(plain, derKrb5)), // the same request in other clothes
	} {
		replayed(t, again[:40], a.ask(t, "GET", whoAsks, again))
		replayed(t, again[:40], a.ask(t, "DELETE", "/kms/v1/key/treasure", again))
		replayed(t, again[:40], a.ask(t, "GET", "/kms/v1/?op=GETDELEGATIONTOKEN", again))
	}
	// Options and key version of an AP-REQ are not sealed.
	types.SetFlag(&req.APOptions, flags.APOptionMutualRequired)
	replayed(t, "with other options", a.ask(t, "GET", whoAsks, negotiate(plainToken(t, req))))
	req.EncryptedAuthenticator.KVNO = 7
	replayed(t, "with another version", a.ask(t, "GET", whoAsks, negotiate(plainToken(t, req))))

	header := a.ticket(t, "alice")
	var wg sync.WaitGroup
	var mu sync.Mutex
	results := map[int]int{}
	wires := make([]*wire, 16)
	for i := range wires {
		wires[i] = a.wire(t)
	}
	for _, w := range wires {
		wg.Go(func() {
			w.send(request("GET", whoAsks, "", header))
			got, _ := w.answer()
			mu.Lock()
			defer mu.Unlock()
			results[got.StatusCode]++
		})
	}
	wg.Wait()
	if results[200] != 1 || results[401] != 15 {
		t.Errorf("one ticket from sixteen at once: %v", results)
	}

	// The JDK sends the same again when the connection breaks before the answer.
	header = a.ticket(t, "alice")
	w := a.wire(t)
	w.send(request("GET", "/kms/v1/key/dropped/_metadata", "", header))
	w.conn.Close()
	a.actor(t, "dropped")
	replayed(t, "after a broken connection", a.ask(t, "GET", whoAsks, header))
	if got := a.ask(t, "GET", whoAsks, a.ticket(t, "alice")); got.StatusCode != 200 {
		t.Errorf("a new ticket after that: %s", got.Status)
	}
}

func damagedTickets(t *testing.T, a *arena) {
	f := func(what, token string) {
		t.Helper()
		refused(t, what, a.ask(t, "GET", whoAsks, negotiate(token)), 403)
	}
	good := func() messages.APReq { return a.apReq(t, "mallory", attackService, nil) }
	f("an empty list of mechanisms", spnegoToken("", ""))
	f("an empty list with a token", spnegoToken(plainToken(t, good()), ""))
	f("no token", spnegoToken("", derKrb5))
	f("NTLM first", spnegoToken(plainToken(t, good()), derNTLM, derKrb5))
	f("NTLM", "NTLMSSP\x00\x01\x00\x00\x00")
	f("a response", der(0xa1, der(0x30, der(0xa0, "\x0a\x01\x00"))))
	f("empty", "")

	for n := range 48 {
		req := good()
		req.EncryptedAuthenticator.Cipher = req.EncryptedAuthenticator.Cipher[:n]
		f("a short authenticator", plainToken(t, req))
		req = good()
		req.Ticket.EncPart.Cipher = req.Ticket.EncPart.Cipher[:n]
		f("a short ticket", plainToken(t, req))
	}
	for _, n := range []int{0, 1, 5, 20, 100} {
		token := plainToken(t, good())
		f("a cut token", token[:len(token)-1-n])
		f("a token that begins late", token[n+1:])
	}
	// Every byte that is sealed counts; of the frame around it not all do.
	// Lengths differ by a byte from one ticket to the next, as the numbers in them do.
	flip := func(cipher []byte, i int) { cipher[i%len(cipher)] ^= 1 << (i % 8) }
	first := good()
	for i := range max(len(first.EncryptedAuthenticator.Cipher), len(first.Ticket.EncPart.Cipher)) {
		req := good()
		flip(req.EncryptedAuthenticator.Cipher, i)
		f("a flipped bit of the authenticator", plainToken(t, req))
		req = good()
		flip(req.Ticket.EncPart.Cipher, i)
		f("a flipped bit of the ticket", plainToken(t, req))
	}
	for _, more := range []string{"\x00", strings.Repeat("\x00", 16)} {
		req := good()
		req.EncryptedAuthenticator.Cipher = append(req.EncryptedAuthenticator.Cipher, more...)
		f("a longer authenticator", plainToken(t, req))
	}
	for _, etype := range []int32{0, 1, 3, 16, 23, 24, -128, 1 << 30} {
		req := good()
		req.EncryptedAuthenticator.EType = etype
		f("another encryption", plainToken(t, req))
		req = good()
		req.Ticket.EncPart.EType = etype
		f("another encryption", plainToken(t, req))
	}
	for _, kvno := range []int{0, 2, 255, -1, 1 << 31} {
		req := good()
		req.Ticket.EncPart.KVNO = kvno
		if got := a.ask(t, "GET", whoAsks, negotiate(plainToken(t, req))); kvno != 0 && got.StatusCode != 403 {
			t.Errorf("key version %d: %s", kvno, got.Status)
		}
	}
}

// borrowedTickets: what is in a ticket and what is said about it must agree.
func borrowedTickets(t *testing.T, a *arena) {
	alice := a.login(t, "alice").Credentials.CName()
	f := func(what string, req messages.APReq) {
		t.Helper()
		refused(t, what, a.ask(t, "GET", whoAsks, negotiate(plainToken(t, req))), 403)
	}
	f("alice in mallory's ticket", a.apReq(t, "mallory", attackService, func(x *types.Authenticator) { x.CName = alice }))
	f("another realm", a.apReq(t, "mallory", attackService, func(x *types.Authenticator) { x.CRealm = "OTHER.TEST" }))
	f("nobody", a.apReq(t, "mallory", attackService, func(x *types.Authenticator) { x.CName.NameString = nil }))
	f("late", a.apReq(t, "mallory", attackService, func(x *types.Authenticator) { x.CTime = x.CTime.Add(-time.Hour) }))
	f("early", a.apReq(t, "mallory", attackService, func(x *types.Authenticator) { x.CTime = x.CTime.Add(time.Hour) }))
	f("for another service", a.apReq(t, "mallory", "HTTP/other", nil))
	req := a.apReq(t, "mallory", "HTTP/other", nil)
	req.Ticket.SName.NameString = []string{"HTTP", "localhost"}
	f("relabelled", req)
	for _, name := range [][]string{nil, {""}, {"HTTP", "localhost", ""}, {"HTTP/localhost"}, {"HTTP", "LOCALHOST"}, {"http", "localhost"}, {"krbtgt", attackRealm}, {"HTTP", "*"}, {"*"}, {"HTTP\r\nX-A: b", "\x1b[31m"}} {
		req := a.apReq(t, "mallory", attackService, nil)
		req.Ticket.SName.NameString = name
		if strings.Join(name, "/") == "HTTP/localhost" { // the same name in other pieces
			continue
		}
		f("service "+strings.Join(name, "/"), req)
	}
	theirs, mine := a.apReq(t, "alice", attackService, nil), a.apReq(t, "mallory", attackService, nil)
	mine.Ticket = theirs.Ticket
	f("mallory's authenticator for alice's ticket", mine)
}

// emptyUser: a rule that leaves nothing of a name gives no user.
func emptyUser(t *testing.T, a *arena) {
	got := a.ask(t, "GET", whoAsks, a.ticket(t, "empty"))
	refused(t, "a rule that yields nothing", got, 403)
	if !strings.Contains(got.Status, "empty@"+attackRealm) {
		t.Errorf("the principal is not named: %s", got.Status)
	}
	refused(t, "a token", a.ask(t, "GET", "/kms/v1/?op=GETDELEGATIONTOKEN", a.ticket(t, "empty")), 403)
	empty := sign(signingSecret, "u=alice&p=empty@"+attackRealm+"&t=kerberos-dt&e=9999999999999")
	refused(t, "the principal counts, not the short name", a.ask(t, "GET", whoAsks, cookieHeader(empty)), 401)
}

// exhaustingTickets: what nobody has vouched for takes little time and memory.
func exhaustingTickets(t *testing.T, a *arena) {
	deep := ""
	for len(deep) < 40<<10 {
		deep = der(0x30, deep)
	}
	wide := strings.Repeat("\x30\x00", 20<<10)
	long := a.apReq(t, "mallory", attackService, nil)
	long.Ticket.SName.NameString = make([]string, 8000)
	cipher := a.apReq(t, "mallory", attackService, nil)
	cipher.Ticket.EncPart.Cipher = []byte(strings.Repeat("c", 40<<10))
	tokens := []string{
		der(0x60, derKrb5+"\x01\x00"+deep), der(0x60, derKrb5+"\x01\x00"+wide), der(0x60, derKrb5+"\x01\x00"+der(0x6e, deep)),
		der(0x60, derSPNEGO+deep), spnegoToken(strings.Repeat(derKrb5, 3000), strings.Repeat(derKrb5, 1000)),
		"\x60\x84\xff\xff\xff\xff" + wide, "\x60\x88\x7f\xff\xff\xff\xff\xff\xff\xff", "\x60\x80" + wide,
		plainToken(t, long), plainToken(t, cipher),
	}
	before, began := a.memory(t), time.Now()
	var wg sync.WaitGroup
	for i := range 8 {
		w := a.wire(t)
		wg.Go(func() {
			for n := range 40 {
				w.send(request("GET", whoAsks, "", negotiate(tokens[(i+n)%len(tokens)])))
				got, ok := w.answer()
				if !ok || got.StatusCode != 403 {
					t.Errorf("token %d: %s", (i+n)%len(tokens), got.Status)
					return
				}
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took > patience {
		t.Errorf("320 tokens took %v", took)
	}
	if after := a.memory(t); after-before > 128<<20 {
		t.Errorf("%d MiB have become %d", before>>20, after>>20)
	}
	if said := strings.Count(read(t, filepath.Join(a.logs[0], "kms.log")), "a Kerberos ticket was refused"); said > 60 {
		t.Errorf("the log says it %d times", said)
	}
}
