package main

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/credentials"
	"github.com/jcmturner/gokrb5/v8/messages"
	krb5 "github.com/jcmturner/gokrb5/v8/spnego"
	"github.com/jcmturner/gokrb5/v8/types"

	"github.com/edekd/edekd/internal/kdc"
	"github.com/edekd/edekd/internal/krb5conf"
)

// holder is somebody with a ticket for HTTP/localhost, and the server's view of
// the world before it changes.
type holder struct {
	t      *testing.T
	client *client.Client
	ticket messages.Ticket
	key    types.EncryptionKey
}

// logIn gets a ticket-granting ticket; renew then gets one for the service.
func logIn(t *testing.T, realm *kdc.KDC, user string) *holder {
	t.Helper()
	conf, err := krb5conf.Load(realm.Config)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := conf.Client()
	if err != nil {
		t.Fatal(err)
	}
	cache, err := credentials.LoadCCache(realm.Kinit(user))
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.NewFromCCache(cache, cfg, client.DisablePAFXFAST(true))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Destroy)
	h := &holder{t: t, client: c}
	if h.ticket, h.key, err = c.GetServiceTicket("HTTP/localhost"); err != nil {
		t.Fatal(err)
	}
	return h
}

// negotiate is a header line with a fresh authenticator beside the ticket.
func (h *holder) negotiate() string {
	h.t.Helper()
	init, err := krb5.NewNegTokenInitKRB5(h.client, h.ticket, h.key)
	if err != nil {
		h.t.Fatal(err)
	}
	token, err := (&krb5.SPNEGOToken{Init: true, NegTokenInit: init}).Marshal()
	if err != nil {
		h.t.Fatal(err)
	}
	return "Authorization: Negotiate " + base64.StdEncoding.EncodeToString(token)
}

// Keys of the server come and go, names change and so does krb5.conf, under
// connections and cookies that go on.
func TestKeytabNamesAndKrb5ConfAreReadAgain(t *testing.T) {
	t.Parallel()
	const service, nameRules = "HTTP/localhost", "hadoop.kms.authentication.kerberos.name.rules"
	realm := kdc.Start(t, "EXAMPLE.TEST")
	realm.Add(service, "alice")
	dir := t.TempDir()
	keytab, krb5 := filepath.Join(dir, "http.keytab"), filepath.Join(dir, "krb5.conf")
	install := func(from string) {
		t.Helper()
		rename(t, keytab, read(t, from))
	}
	install(realm.Keytab(service))
	krb5Text := read(t, realm.Config)
	write(t, krb5, krb5Text)
	s := newSite(t, "hadoop.kms.authentication.type", "kerberos",
		"hadoop.kms.authentication.kerberos.keytab", keytab,
		"hadoop.kms.authentication.kerberos.principal", "*")
	s.env = []string{"KRB5_CONFIG=" + krb5}
	s.rules(t, "hadoop.kms.acl.GET_KEYS", "alice")
	p := s.start(t)

	first := logIn(t, realm, "alice")
	cookie, tickets := p.steady(t, nil), p.steady(t, nil)
	cookie.login("", first.negotiate())
	shakes := func(h *holder, status int) func() bool {
		return func() bool { return tickets.status("", h.negotiate()) == status }
	}
	known := func(status int) func() bool {
		return func() bool { return cookie.status("") == status }
	}
	if !shakes(first, 200)() || !known(200)() {
		t.Fatal("alice is not let in")
	}

	realm.Rotate(service, true)
	install(realm.Keytab(service))
	second := logIn(t, realm, "alice")
	p.within(aSecond, "a key is added", shakes(second, 200))
	p.stays("tickets of the old key count beside it", shakes(first, 200))
	write(t, keytab, "no keytab")
	p.complains(keytab, "export it again")
	p.stays("a broken keytab changes nothing", shakes(second, 200))
	realm.Rotate(service, false)
	install(realm.Keytab(service))
	p.within(aSecond, "the old keys are removed", shakes(first, 403))
	if !shakes(second, 403)() || !shakes(logIn(t, realm, "alice"), 200)() {
		t.Error("the new key is not the only one")
	}
	if !known(200)() {
		t.Error("a cookie ended with the key of the ticket it was given for")
	}

	s.configure(t, nameRules, "RULE:[1:$1@$0](alice@EXAMPLE.TEST)s/.*/eve/\nDEFAULT")
	p.within(aSecond, "alice is called eve now, also by the cookie from before", known(403))
	s.configure(t, nameRules, "RULE:[1:$1@$0](alice@EXAMPLE.TEST)s/.*/alice/\nRULE:[")
	p.complains(s.file("kms-site.xml")+":", nameRules, "Try: write DEFAULT")
	p.stays("broken name rules change nothing", known(403))
	s.configure(t)
	p.within(aSecond, "alice has her name again", known(200))

	// DEFAULT is for the default realm.
	rename(t, krb5, strings.Replace(krb5Text, "default_realm = EXAMPLE.TEST", "default_realm = OTHER.TEST", 1))
	p.within(aSecond, "another default realm, so that no rule knows alice", known(401))
	rename(t, krb5, strings.Replace(krb5Text, "[libdefaults]", "[libdefaults", 1))
	p.complains(krb5 + ":1")
	p.stays("a broken krb5.conf changes nothing", known(401))
	rename(t, krb5, krb5Text)
	p.within(aSecond, "the default realm is back", known(200))
	if err := os.Remove(keytab); err != nil {
		t.Fatal(err)
	}
	p.complains(keytab)
	p.stays("a missing keytab changes nothing", shakes(logIn(t, realm, "alice"), 200))
	p.stop()
}
