package spnego_test

import (
	"testing"
	"time"

	"github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/credentials"
	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/iana/flags"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/edekd/edekd/internal/kdc"
	"github.com/edekd/edekd/internal/krb5conf"
)

// Object identifiers, in DER.
var (
	derSPNEGO = []byte{6, 6, 0x2b, 6, 1, 5, 5, 2}
	derKrb5   = []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 1, 2, 2}
	derMSKrb5 = []byte{6, 9, 0x2a, 0x86, 0x48, 0x82, 0xf7, 0x12, 1, 2, 2}
	derNTLM   = []byte{6, 10, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 2, 10}
)

// login makes a client of gokrb5 from a ticket cache that MIT's kinit filled.
func login(tb testing.TB, config, cache string) *client.Client {
	tb.Helper()
	conf, err := krb5conf.Load(config)
	if err != nil {
		tb.Fatal(err)
	}
	cfg, err := conf.Client()
	if err != nil {
		tb.Fatal(err)
	}
	tickets, err := credentials.LoadCCache(cache)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := client.NewFromCCache(tickets, cfg, client.DisablePAFXFAST(true))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Destroy)
	return c
}

// minter makes tokens for one service with a ticket of its client.
type minter struct {
	tb     testing.TB
	client *client.Client
	ticket messages.Ticket
	key    types.EncryptionKey
}

func newMinter(tb testing.TB, realm *kdc.KDC, user, service string) *minter {
	tb.Helper()
	return newMinterWith(tb, realm, realm.Config, user, service)
}

// newMinterWith uses another krb5.conf than the KDC's own.
func newMinterWith(tb testing.TB, realm *kdc.KDC, config, user, service string) *minter {
	tb.Helper()
	m := &minter{tb: tb, client: login(tb, config, realm.Kinit(user))}
	var err error
	if m.ticket, m.key, err = m.client.GetServiceTicket(service); err != nil {
		tb.Fatalf("ticket of %s for %s: %v", user, service, err)
	}
	return m
}

// authenticator is a fresh one, of the current time.
func (m *minter) authenticator() types.Authenticator {
	m.tb.Helper()
	a, err := types.NewAuthenticator(m.client.Credentials.Domain(), m.client.Credentials.CName())
	if err != nil {
		m.tb.Fatal(err)
	}
	return a
}

// apReq makes an AP-REQ with the given authenticator.
func (m *minter) apReq(a types.Authenticator, mutual bool) messages.APReq {
	m.tb.Helper()
	req, err := messages.NewAPReq(m.ticket, m.key, a)
	if err != nil {
		m.tb.Fatal(err)
	}
	if mutual {
		types.SetFlag(&req.APOptions, flags.APOptionMutualRequired)
	}
	return req
}

// raw frames an AP-REQ as a token of plain Kerberos.
func raw(tb testing.TB, req messages.APReq) []byte {
	tb.Helper()
	der, err := req.Marshal()
	if err != nil {
		tb.Fatal(err)
	}
	return frame(derKrb5, append([]byte{1, 0}, der...))
}

// token makes a fresh token of plain Kerberos with mutual authentication.
func (m *minter) token() []byte {
	m.tb.Helper()
	return raw(m.tb, m.apReq(m.authenticator(), true))
}

// tokenAt makes one with the client's clock set to at.
func (m *minter) tokenAt(at time.Time) []byte {
	m.tb.Helper()
	a := m.authenticator()
	a.CTime, a.Cusec = at.UTC().Truncate(time.Second), at.Nanosecond()/1000
	return raw(m.tb, m.apReq(a, true))
}

// frame is RFC 2743's InitialContextToken.
func frame(mech, inner []byte) []byte {
	return der(0x60, append(append([]byte{}, mech...), inner...))
}

// spnegoToken wraps a token of a mechanism into a NegTokenInit that offers mechs.
func spnegoToken(mechToken []byte, mechs ...[]byte) []byte {
	var list []byte
	for _, m := range mechs {
		list = append(list, m...)
	}
	init := der(0xa0, der(0x30, list))
	if mechToken != nil {
		init = append(init, der(0xa2, der(0x04, mechToken))...)
	}
	return frame(derSPNEGO, der(0xa0, der(0x30, init)))
}

func der(tag byte, content []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.Tag(tag), func(b *cryptobyte.Builder) { b.AddBytes(content) })
	return b.BytesOrPanic()
}

// within returns what follows the given tags, each inside the last one.
func within(t *testing.T, data []byte, tags ...byte) cryptobyte.String {
	t.Helper()
	s := cryptobyte.String(data)
	for _, tag := range tags {
		var inner cryptobyte.String
		if !s.ReadASN1(&inner, asn1.Tag(tag)) {
			t.Fatalf("no tag %#x in %x", tag, []byte(s))
		}
		s = inner
	}
	return s
}

// checkReply verifies the server's AP-REP as the client of the authenticator
// does: the token is framed for mech, and what it proves is the client's time.
func (m *minter) checkReply(t *testing.T, reply []byte, mech []byte, a types.Authenticator) {
	t.Helper()
	body := within(t, reply, 0x60)
	rest, ok := cutPrefix(body, append(append([]byte{}, mech...), 2, 0))
	if !ok {
		t.Fatalf("the reply is no AP-REP of the mechanism: %x", reply)
	}
	var rep messages.APRep
	if err := rep.Unmarshal(rest); err != nil {
		t.Fatal(err)
	}
	plain, err := crypto.DecryptEncPart(rep.EncPart, m.key, keyusage.AP_REP_ENCPART)
	if err != nil {
		t.Fatal(err)
	}
	var part messages.EncAPRepPart
	if err := part.Unmarshal(plain); err != nil {
		t.Fatal(err)
	}
	if !part.CTime.Equal(a.CTime.Truncate(time.Second)) || part.Cusec != a.Cusec {
		t.Errorf("the reply proves %v %d, the authenticator has %v %d", part.CTime, part.Cusec, a.CTime, a.Cusec)
	}
}

func cutPrefix(s cryptobyte.String, prefix []byte) ([]byte, bool) {
	if len(s) < len(prefix) || string(s[:len(prefix)]) != string(prefix) {
		return nil, false
	}
	return s[len(prefix):], true
}
