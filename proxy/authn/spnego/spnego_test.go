package spnego_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jcmturner/gokrb5/v8/types"
	"go.uber.org/goleak"

	"github.com/edekd/edekd/internal/kdc"
	"github.com/edekd/edekd/proxy/authn/spnego"
)

const (
	home    = "HOME.TEST"
	service = "HTTP/localhost"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// start runs a KDC with the service and alice, and an acceptor for the service.
func start(tb testing.TB) (*kdc.KDC, *spnego.Acceptor) {
	tb.Helper()
	realm := kdc.Start(tb, home)
	realm.Add(service, "alice")
	return realm, newAcceptor(tb, spnego.Config{
		Keytab: realm.Keytab(service), Principal: "*", Krb5Conf: realm.Config,
	})
}

func newAcceptor(tb testing.TB, cfg spnego.Config) *spnego.Acceptor {
	tb.Helper()
	a, err := spnego.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// wantRefusal checks that a token is refused in a certain way.
func wantRefusal(t *testing.T, a *spnego.Acceptor, token []byte, kind spnego.Kind, text string) {
	t.Helper()
	principal, reply, err := a.Accept(token)
	checkRefusal(t, err, kind, text)
	if principal != "" || reply != nil {
		t.Errorf("refused, yet principal %q and reply %x", principal, reply)
	}
}

func checkRefusal(t *testing.T, err error, kind spnego.Kind, text string) {
	t.Helper()
	var refusal *spnego.Error
	if !errors.As(err, &refusal) {
		t.Fatalf("error %v, want %q", err, text)
	}
	if refusal.Kind != kind || !strings.Contains(refusal.Error(), text) {
		t.Errorf("refusal of kind %d: %v\nwant kind %d: %s", refusal.Kind, refusal, kind, text)
	}
	if retry := kind == spnego.Replay || kind == spnego.Full; refusal.Retry() != retry {
		t.Errorf("kind %d: Retry() = %v", kind, refusal.Retry())
	}
	for _, c := range []byte(refusal.Text) {
		if c < ' ' || c > '~' {
			t.Fatalf("the text for the sender has the byte %#x: %q", c, refusal.Text)
		}
	}
	if len(refusal.Text) > 1024 {
		t.Errorf("the text for the sender has %d bytes", len(refusal.Text))
	}
}

func wantPrincipal(t *testing.T, a *spnego.Acceptor, token []byte, want string) (reply []byte) {
	t.Helper()
	principal, reply, err := a.Accept(token)
	if err != nil || principal != want {
		t.Fatalf("principal %q, error %v, want %s", principal, err, want)
	}
	return reply
}

func TestBothMechanismsAndTheirReplies(t *testing.T) {
	realm, acceptor := start(t)
	m := newMinter(t, realm, "alice", service)

	a := m.authenticator()
	m.checkReply(t, wantPrincipal(t, acceptor, raw(t, m.apReq(a, true)), "alice@"+home), derKrb5, a)

	if reply := wantPrincipal(t, acceptor, raw(t, m.apReq(m.authenticator(), false)), "alice@"+home); reply != nil {
		t.Errorf("reply %x to a client that asked for none", reply)
	}

	// The mechanisms that a client lists, and the one that it is told.
	f := func(listed ...[]byte) {
		t.Helper()
		a := m.authenticator()
		reply := wantPrincipal(t, acceptor, spnegoToken(raw(t, m.apReq(a, true)), listed...), "alice@"+home)
		resp := within(t, reply, 0xa1, 0x30)
		want := append([]byte{0xa0, 3, 0x0a, 1, 0}, der(0xa1, listed[0])...)
		rest, ok := cutPrefix(resp, want)
		if !ok {
			t.Fatalf("NegTokenResp %x, want accept-completed and the mechanism %x", []byte(resp), listed[0])
		}
		m.checkReply(t, within(t, rest, 0xa2, 0x04), derKrb5, a)
	}
	f(derKrb5)
	f(derMSKrb5, derKrb5, derNTLM) // Windows
	f(derKrb5, derMSKrb5, derNTLM)

	reply := wantPrincipal(t, acceptor, spnegoToken(raw(t, m.apReq(m.authenticator(), false)), derKrb5), "alice@"+home)
	if want := der(0xa1, der(0x30, append([]byte{0xa0, 3, 0x0a, 1, 0}, der(0xa1, derKrb5)...))); string(reply) != string(want) {
		t.Errorf("reply without mutual authentication %x, want %x", reply, want)
	}

	if got := acceptor.Stats(); got.Accepted != 6 || got.Remembered != 6 || got.Refused+got.Replays+got.Full != 0 {
		t.Errorf("counts %+v", got)
	}
}

func TestRefusedMechanisms(t *testing.T) {
	realm, acceptor := start(t)
	m := newMinter(t, realm, "alice", service)
	good := m.token()
	f := func(token []byte, kind spnego.Kind, text string) {
		t.Helper()
		wantRefusal(t, acceptor, token, kind, text)
	}
	f(spnegoToken(good), spnego.Malformed, "the list of mechanisms is empty")
	f(spnegoToken(good, derNTLM, derKrb5), spnego.Mechanism, "the client prefers NTLM to Kerberos")
	f(spnegoToken([]byte("NTLMSSP\x00x"), derNTLM), spnego.Mechanism, "NTLM is not supported")
	f([]byte("NTLMSSP\x00x"), spnego.Mechanism, "the client offers NTLM")
	f(spnegoToken(nil, derKrb5), spnego.Malformed, "no mechanism token")
	f(spnegoToken([]byte("x"), derKrb5), spnego.Malformed, "GSSHeader did not find the right tag in the mechanism token")
	f(spnegoToken(spnegoToken(good, derKrb5), derKrb5), spnego.Mechanism, "another mechanism is not supported")
	f(frame(derNTLM, good), spnego.Mechanism, "NTLM is not supported")
	f(frame(derKrb5, []byte{3, 0}), spnego.Malformed, "no AP-REQ")
	f(frame(derKrb5, []byte{1, 0}), spnego.Malformed, "the AP-REQ is damaged")
	f(frame(derKrb5, nil), spnego.Malformed, "no AP-REQ")
	f(der(0xa1, der(0x30, nil)), spnego.Malformed, "a negotiation is continued")
	f(append(slices.Clone(good), 0), spnego.Malformed, "GSSHeader did not find the right tag")
	f(good[:len(good)-1], spnego.Malformed, "GSSHeader did not find the right tag")
	f(nil, spnego.Malformed, "the token is empty")
	f(make([]byte, spnego.MaxToken+1), spnego.Malformed, "larger than 65536 bytes")
	wantPrincipal(t, acceptor, good, "alice@"+home)
}

func TestDamagedRequests(t *testing.T) {
	realm, acceptor := start(t)
	m := newMinter(t, realm, "alice", service)
	f := func(kind spnego.Kind, text string, damage func(m *minter, a *types.Authenticator) []byte) {
		t.Helper()
		a, copied := m.authenticator(), *m
		copied.ticket.EncPart.Cipher = slices.Clone(m.ticket.EncPart.Cipher)
		wantRefusal(t, acceptor, damage(&copied, &a), kind, text)
	}
	for _, n := range []int{0, 1, 11, 12, 16, 28} {
		f(spnego.Malformed, "the ticket is cut short", func(m *minter, a *types.Authenticator) []byte {
			m.ticket.EncPart.Cipher = m.ticket.EncPart.Cipher[:n]
			return raw(t, m.apReq(*a, true))
		})
		f(spnego.Malformed, "the authenticator is cut short", func(m *minter, a *types.Authenticator) []byte {
			req := m.apReq(*a, true)
			req.EncryptedAuthenticator.Cipher = req.EncryptedAuthenticator.Cipher[:n]
			return raw(t, req)
		})
	}
	f(spnego.Integrity, "Integrity check on decrypted field failed (31)", func(m *minter, a *types.Authenticator) []byte {
		m.ticket.EncPart.Cipher[40] ^= 1
		return raw(t, m.apReq(*a, true))
	})
	f(spnego.Integrity, "Integrity check on decrypted field failed (31)", func(m *minter, a *types.Authenticator) []byte {
		req := m.apReq(*a, true)
		req.EncryptedAuthenticator.Cipher[20] ^= 1
		return raw(t, req)
	})
	f(spnego.Integrity, "Ticket and authenticator do not match (36)", func(m *minter, a *types.Authenticator) []byte {
		a.CName.NameString = []string{"root"}
		return raw(t, m.apReq(*a, true))
	})
	f(spnego.Integrity, "Ticket and authenticator do not match (36)", func(m *minter, a *types.Authenticator) []byte {
		a.CRealm = "OTHER.TEST"
		return raw(t, m.apReq(*a, true))
	})
	f(spnego.Service, `the ticket is for "root@HOME.TEST"`, func(m *minter, a *types.Authenticator) []byte {
		req := m.apReq(*a, true)
		req.Ticket.SName.NameString = []string{"root"}
		return raw(t, req)
	})
	f(spnego.Service, `the ticket is for "@HOME.TEST"`, func(m *minter, a *types.Authenticator) []byte {
		req := m.apReq(*a, true)
		req.Ticket.SName.NameString = nil
		return raw(t, req)
	})
	f(spnego.Service, `the ticket is for "HTTP/localhost@\nx\u00ff`, func(m *minter, a *types.Authenticator) []byte {
		req := m.apReq(*a, true)
		req.Ticket.Realm = "\nx\u00ff" + strings.Repeat("y", 5000)
		return raw(t, req)
	})
	f(spnego.NoKey, "Specified version of key is not available (44)", func(m *minter, a *types.Authenticator) []byte {
		m.ticket.EncPart.KVNO = 77
		return raw(t, m.apReq(*a, true))
	})
	f(spnego.NoKey, "AES128 with SHA256): the keytab has only AES256 with SHA1, AES128 with SHA1", func(m *minter, a *types.Authenticator) []byte {
		m.ticket.EncPart.EType = 19
		return raw(t, m.apReq(*a, true))
	})
	f(spnego.Enctype, "the ticket is encrypted with RC4", func(m *minter, a *types.Authenticator) []byte {
		m.ticket.EncPart.EType = 23
		return raw(t, m.apReq(*a, true))
	})
	f(spnego.Enctype, "the ticket is encrypted with encryption type 4711", func(m *minter, a *types.Authenticator) []byte {
		m.ticket.EncPart.EType = 4711
		return raw(t, m.apReq(*a, true))
	})
	f(spnego.Enctype, "the session key is not one for the authenticator's encryption", func(m *minter, a *types.Authenticator) []byte {
		req := m.apReq(*a, true)
		req.EncryptedAuthenticator.EType = 17
		return raw(t, req)
	})
	f(spnego.Malformed, "not of Kerberos 5", func(m *minter, a *types.Authenticator) []byte {
		req := m.apReq(*a, true)
		req.PVNO = 4
		return raw(t, req)
	})
	f(spnego.Mechanism, "tickets encrypted with a session key", func(m *minter, a *types.Authenticator) []byte {
		req := m.apReq(*a, true)
		types.SetFlag(&req.APOptions, 1)
		return raw(t, req)
	})

	// A ticket that names no version is tried with all of them; options of no
	// length are none.
	a := m.authenticator()
	req := m.apReq(a, true)
	req.Ticket.EncPart.KVNO = 0
	req.APOptions.Bytes, req.APOptions.BitLength = nil, 0
	if reply := wantPrincipal(t, acceptor, raw(t, req), "alice@"+home); reply != nil {
		t.Errorf("reply %x to a request without options", reply)
	}
	if got := acceptor.Stats(); got.Accepted != 1 || got.Remembered != 1 {
		t.Errorf("counts %+v, want one token accepted and remembered", got)
	}
}

// Each byte of a token damaged in turn, and each of its beginnings.
func TestNoDamageIsTakenForAMistakeOfOurs(t *testing.T) {
	realm, acceptor := start(t)
	good := spnegoToken(newMinter(t, realm, "alice", service).token(), derKrb5)
	f := func(token []byte) {
		t.Helper()
		_, _, err := acceptor.Accept(token)
		var refusal *spnego.Error
		if errors.As(err, &refusal) && refusal.Kind == spnego.Internal {
			t.Errorf("%x: %v", token, err)
		}
	}
	for i := range good {
		f(good[:i])
		for _, flip := range []byte{0x01, 0x02, 0x20, 0x80, 0xff} {
			damaged := slices.Clone(good)
			damaged[i] ^= flip
			f(damaged)
		}
	}
	if got := acceptor.Stats(); got.Refused < uint64(len(good)) || got.Remembered > 1 {
		t.Errorf("counts %+v", got)
	}
}

func TestReplayIsAcceptedOnce(t *testing.T) {
	realm, acceptor := start(t)
	m := newMinter(t, realm, "alice", service)
	const rounds, senders = 20, 8
	for range rounds {
		token := m.token()
		var wg sync.WaitGroup
		results := make([]error, senders)
		gate := make(chan struct{})
		for i := range results {
			wg.Go(func() {
				<-gate
				_, _, results[i] = acceptor.Accept(token)
			})
		}
		close(gate)
		wg.Wait()
		accepted := 0
		for _, err := range results {
			if err == nil {
				accepted++
				continue
			}
			checkRefusal(t, err, spnego.Replay, "GSSException: Failure unspecified at GSS-API level (Mechanism level: Request is a replay (34))")
		}
		if accepted != 1 {
			t.Fatalf("the same token was accepted %d times", accepted)
		}
	}
	// In another wrapping it is still the same.
	token := m.token()
	wantPrincipal(t, acceptor, token, "alice@"+home)
	wantRefusal(t, acceptor, spnegoToken(token, derKrb5), spnego.Replay, "replay")
	if got := acceptor.Stats(); got.Accepted != rounds+1 || got.Replays != rounds*(senders-1)+1 {
		t.Errorf("counts %+v", got)
	}
}

func TestReplaysAreForgottenOnlyWhenTheyAreOld(t *testing.T) {
	realm, _ := start(t)
	m := newMinter(t, realm, "alice", service)
	begin := time.Now().Truncate(time.Second)
	now := begin
	acceptor := newAcceptor(t, spnego.Config{
		Keytab: realm.Keytab(service), Principal: "*", Krb5Conf: realm.Config,
		Replays: 1, Now: func() time.Time { return now },
	})
	// A client whose clock is as far ahead as it may be.
	token := m.tokenAt(begin.Add(5 * time.Minute))
	wantPrincipal(t, acceptor, token, "alice@"+home)
	now = begin.Add(10 * time.Minute)
	wantRefusal(t, acceptor, token, spnego.Replay, "replay")
	now = begin.Add(10*time.Minute + time.Second)
	wantRefusal(t, acceptor, token, spnego.Skew, "301 s behind")

	// With room for 32 in 16 shards of 2, of which one client may fill half,
	// alice is refused sooner or later, until time has passed.
	full := false
	for range 100 {
		_, _, err := acceptor.Accept(m.tokenAt(now))
		if err != nil {
			checkRefusal(t, err, spnego.Full, "the server remembers as many requests as it can (60): try again")
			full = true
		}
	}
	if got := acceptor.Stats(); !full || got.Full == 0 || got.Remembered > 32 {
		t.Errorf("never full: %+v", got)
	}
	now = now.Add(10*time.Minute + 31*time.Second)
	wantPrincipal(t, acceptor, m.tokenAt(now), "alice@"+home)
}

func TestTimes(t *testing.T) {
	realm, _ := start(t)
	m := newMinter(t, realm, "alice", service)
	begin := time.Now()
	now := begin
	conf := filepath.Join(t.TempDir(), "krb5.conf")
	setSkew := func(value string) {
		t.Helper()
		if err := os.WriteFile(conf, []byte("include "+realm.Config+"\n[libdefaults]\nclockskew = "+value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	setSkew("60")
	acceptor := newAcceptor(t, spnego.Config{
		Keytab: realm.Keytab(service), Principal: service, Krb5Conf: conf,
		Now: func() time.Time { return now },
	})
	f := func(clock, client time.Duration, kind spnego.Kind, text string) {
		t.Helper()
		now = begin.Add(clock)
		if token := m.tokenAt(now.Add(client)); text == "" {
			wantPrincipal(t, acceptor, token, "alice@"+home)
		} else {
			wantRefusal(t, acceptor, token, kind, text)
		}
	}
	f(0, -59*time.Second, 0, "")
	f(0, 59*time.Second, 0, "")
	f(0, -90*time.Second, spnego.Skew, "Clock skew too great (37): the client's clock is 90 s behind the server's, 60 s are allowed")
	f(0, 2*time.Hour, spnego.Skew, "Clock skew too great (37): the client's clock is 7200 s ahead of the server's, 60 s are allowed")
	f(25*time.Hour, 0, spnego.Expired, "Ticket expired (32): 3")
	f(-time.Hour, 0, spnego.NotYetValid, "Ticket not yet valid (33): it begins in 3")

	// What was accepted and forgotten under a smaller skew does not come back.
	now = begin
	token := m.tokenAt(begin)
	wantPrincipal(t, acceptor, token, "alice@"+home)
	now = begin.Add(4 * time.Minute)
	wantPrincipal(t, acceptor, m.tokenAt(now), "alice@"+home) // forgets
	setSkew("10m")
	if err := acceptor.Reload(); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, acceptor, token, spnego.Skew, "older than the last change of the allowed clock skew")
	f(4*time.Minute, 9*time.Minute, 0, "")

	setSkew("now and then")
	if err := acceptor.Reload(); err == nil || !strings.Contains(err.Error(), "clockskew") {
		t.Errorf("error %v, want one about clockskew", err)
	}
	f(4*time.Minute, 9*time.Minute, 0, "")
}

func TestEncryptionTypes(t *testing.T) {
	realm := kdc.Start(t, home)
	realm.Add("alice")
	f := func(host, ticket, session string, kind spnego.Kind, text string) {
		t.Helper()
		name := "HTTP/" + host
		realm.AddKeys(name, ticket)
		realm.SessionKeys(name, session)
		keytab := realm.Keytab(name)
		if ticket == kdc.RC4 {
			_, err := spnego.New(spnego.Config{Keytab: keytab, Principal: "*", Krb5Conf: realm.Config})
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("error %v, want %q", err, text)
			}
			return
		}
		acceptor := newAcceptor(t, spnego.Config{Keytab: keytab, Principal: "*", Krb5Conf: realm.Config})
		m := newMinter(t, realm, "alice", name)
		a := m.authenticator()
		if token := raw(t, m.apReq(a, true)); text == "" {
			m.checkReply(t, wantPrincipal(t, acceptor, token, "alice@"+home), derKrb5, a)
		} else {
			wantRefusal(t, acceptor, token, kind, text)
		}
	}
	f("a", kdc.AES128SHA1, kdc.AES256SHA1, 0, "")
	f("b", kdc.AES256SHA1, kdc.AES128SHA1, 0, "")
	f("c", kdc.AES128SHA2, kdc.AES256SHA2, 0, "")
	f("d", kdc.AES256SHA2, kdc.AES128SHA2, 0, "")
	f("e", kdc.RC4, kdc.AES256SHA1, 0, "HTTP/e@HOME.TEST has no AES key but only RC4, which is refused")

	// An AES ticket around a weak session key.
	realm.AddKeys("HTTP/weak", kdc.AES256SHA1)
	realm.SessionKeys("HTTP/weak", kdc.RC4)
	weak := filepath.Join(t.TempDir(), "krb5.conf")
	if err := os.WriteFile(weak, []byte("[libdefaults]\ndefault_tgs_enctypes = rc4-hmac\ninclude "+realm.Config+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	acceptor := newAcceptor(t, spnego.Config{Keytab: realm.Keytab("HTTP/weak"), Principal: "*", Krb5Conf: realm.Config})
	m := newMinterWith(t, realm, weak, "alice", "HTTP/weak")
	wantRefusal(t, acceptor, m.token(), spnego.Enctype, "the session key is one of RC4; the server takes AES only")
}

func TestCrossRealm(t *testing.T) {
	realm := kdc.Start(t, home, "OTHER.TEST")
	realm.Add(service, "alice@OTHER.TEST", "impala/node.test@OTHER.TEST")
	realm.Trust("OTHER.TEST", home)
	acceptor := newAcceptor(t, spnego.Config{Keytab: realm.Keytab(service), Principal: "*", Krb5Conf: realm.Config})
	for _, user := range []string{"alice@OTHER.TEST", "impala/node.test@OTHER.TEST"} {
		wantPrincipal(t, acceptor, newMinter(t, realm, user, service).token(), user)
	}
}
