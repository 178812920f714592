package spnego

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/iana"
	"github.com/jcmturner/gokrb5/v8/iana/flags"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/iana/msgtype"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

const confounder = 16 // bytes of randomness before what is encrypted, one block

// Tags of RFC 4120, 5.10: [APPLICATION n], constructed.
const (
	tagAPRep        = asn1.Tag(0x60 | 15)
	tagEncAPRepPart = asn1.Tag(0x60 | 27)
)

// verify checks an AP-REQ by the rules of RFC 4120, 3.2.3. gokrb5 decodes and
// decrypts; its own check is not used, because its replay cache lets a token
// through twice, it takes any key of the keytab and the system's clock, and it
// does not compare the client's realms. Elapsed is Acceptor.elapsed's.
func (s *state) verify(r *request, seen *replays, now time.Time, elapsed time.Duration) (principal string, reply []byte, refusal *Error) {
	var ap messages.APReq
	if err := ap.Unmarshal(r.apReq); err != nil {
		return "", nil, refuse(Malformed, "the AP-REQ is damaged").because("%v", err)
	}
	if ap.PVNO != iana.PVNO || ap.Ticket.TktVNO != iana.PVNO {
		return "", nil, refuse(Malformed, "the AP-REQ is not of Kerberos 5")
	}
	if ap.APOptions.At(flags.APOptionUseSessionKey) == 1 {
		return "", nil, refuse(Mechanism, "tickets encrypted with a session key are not supported")
	}
	ticket, refusal := s.decryptTicket(&ap.Ticket)
	if refusal != nil {
		return "", nil, refusal
	}
	defer clear(ticket.Key.KeyValue)
	if refusal := s.checkTicket(ticket, now); refusal != nil {
		return "", nil, refusal
	}

	sealed := ap.EncryptedAuthenticator
	var authenticator types.Authenticator
	if refusal := checkCipher(sealed, "the authenticator"); refusal != nil {
		return "", nil, refusal
	}
	if len(ticket.Key.KeyValue) != keySize[ticket.Key.KeyType] || sealed.EType != ticket.Key.KeyType {
		return "", nil, refuse(Enctype, "the session key is not one for the authenticator's encryption")
	}
	plain, err := crypto.DecryptMessage(sealed.Cipher, ticket.Key, keyusage.AP_REQ_AUTHENTICATOR)
	if err == nil {
		err = authenticator.Unmarshal(plain)
		clear(plain)
		defer clear(authenticator.SubKey.KeyValue)
	}
	if err != nil {
		return "", nil, refuse(Integrity, "Integrity check on decrypted field failed (31)").because("authenticator: %v", err)
	}
	if !authenticator.CName.Equal(ticket.CName) || authenticator.CRealm != ticket.CRealm {
		return "", nil, refuse(Integrity, "Ticket and authenticator do not match (36)")
	}
	principal, refusal = clientName(ticket.CName, ticket.CRealm)
	if refusal != nil {
		return "", nil, refusal
	}
	at := authenticator.CTime.Add(time.Duration(authenticator.Cusec) * time.Microsecond)
	if refusal := s.checkClock(at, now, elapsed); refusal != nil {
		return "", nil, refusal.because("token of %s", principal)
	}

	fresh, full := seen.add(sealed.Cipher, principal, elapsed, lifetime(s.remembered(elapsed)))
	if full {
		return "", nil, refuse(Full, "the server remembers as many requests as it can (60): try again").because("token of %s", principal)
	}
	if !fresh {
		return "", nil, refuse(Replay, "Request is a replay (34)").because("token of %s", principal)
	}

	var apRep []byte
	if ap.APOptions.At(flags.APOptionMutualRequired) == 1 {
		if apRep, err = sealReply(&authenticator, ticket.Key); err != nil {
			return "", nil, refuse(Internal, "no reply could be made").because("%v", err)
		}
	}
	if reply, err = r.reply(apRep); err != nil {
		return "", nil, refuse(Internal, "no reply could be made").because("%v", err)
	}
	return principal, reply, nil
}

// decryptTicket opens a ticket with the key that it names.
func (s *state) decryptTicket(t *messages.Ticket) (*messages.EncTicketPart, *Error) {
	service := strings.Join(t.SName.NameString, "/") + "@" + t.Realm
	keys, found := s.keys[service]
	if !found {
		return nil, refuse(Service, "the ticket is for %s, which this server is not", quoted(service)).
			because("it serves %s: let clients use a host name of these, or add the key to the keytab", strings.Join(s.keys.names(), ", "))
	}
	if refusal := checkCipher(t.EncPart, "the ticket"); refusal != nil {
		return nil, refusal.because("ticket for %s", service)
	}
	version := uint32(t.EncPart.KVNO)
	sameType, tried := false, false
	for i := range keys {
		if keys[i].key.KeyType != t.EncPart.EType {
			continue
		}
		sameType = true
		if !keys[i].matches(version) {
			continue
		}
		tried = true
		plain, err := crypto.DecryptMessage(t.EncPart.Cipher, keys[i].key, keyusage.KDC_REP_TICKET)
		if err != nil {
			continue // the next key may have the same version
		}
		defer clear(plain)
		var part messages.EncTicketPart
		if err := part.Unmarshal(plain); err != nil {
			return nil, refuse(Malformed, "the ticket is damaged").because("ticket for %s: %v", service, err)
		}
		return &part, nil
	}
	switch {
	case !sameType:
		return nil, refuse(NoKey, "Cannot find key of appropriate type to decrypt AP-REQ - %s", etypeName(t.EncPart.EType)).
			because("the keytab has only %s for %s: export it again", etypesOf(keys), service)
	case !tried:
		return nil, refuse(NoKey, "Specified version of key is not available (44)").
			because("the ticket for %s is of version %d, the keytab has not that one: export it again, or let the client log in again", service, version)
	}
	return nil, refuse(Integrity, "Integrity check on decrypted field failed (31)").
		because("the key of %s in the keytab, version %d, is not the KDC's: export it again", service, version)
}

// checkCipher refuses what gokrb5 would slice out of bounds, and weak types.
func checkCipher(data types.EncryptedData, what string) *Error {
	mac, accepted := macSize[data.EType]
	if !accepted {
		return refuse(Enctype, "%s is encrypted with %s; the server takes AES only", what, etypeName(data.EType))
	}
	if len(data.Cipher) <= confounder+mac {
		return refuse(Malformed, "%s is cut short", what)
	}
	return nil
}

// checkTicket looks at times and session key.
func (s *state) checkTicket(t *messages.EncTicketPart, now time.Time) *Error {
	if _, accepted := macSize[t.Key.KeyType]; !accepted {
		return refuse(Enctype, "the session key is one of %s; the server takes AES only", etypeName(t.Key.KeyType))
	}
	if ago := now.Sub(t.EndTime); ago > s.skew {
		return refuse(Expired, "Ticket expired (32): %d s ago", seconds(ago))
	}
	begin := t.StartTime
	if begin.IsZero() {
		begin = t.AuthTime
	}
	if ahead := begin.Sub(now); ahead > s.skew {
		return refuse(NotYetValid, "Ticket not yet valid (33): it begins in %d s", seconds(ahead)).
			because("compare this server's clock with the KDC's")
	}
	if t.Flags.At(flags.Invalid) == 1 {
		return refuse(NotYetValid, "Ticket not yet valid (33): it is postdated")
	}
	return nil
}

// checkClock compares the client's clock with ours.
func (s *state) checkClock(at, now time.Time, elapsed time.Duration) *Error {
	behind, direction := now.Sub(at), "behind"
	if behind < 0 {
		behind, direction = -behind, "ahead of"
	}
	if behind > s.skew {
		return refuse(Skew, "Clock skew too great (37): the client's clock is %d s %s the server's, %d s are allowed",
			seconds(behind), direction, seconds(s.skew))
	}
	if elapsed < s.notBeforeUntil && at.Before(s.notBefore) {
		return refuse(Skew, "Clock skew too great (37): the request is older than the last change of the allowed clock skew")
	}
	return nil
}

func seconds(d time.Duration) int64 { return int64(d.Round(time.Second) / time.Second) }

// anonymous is the name of those whom a KDC let in without asking who they are,
// RFC 8062.
const anonymous = "WELLKNOWN"

// clientName writes a principal. Names are refused that would read like other
// ones, or that cannot stand in a log.
func clientName(name types.PrincipalName, realm string) (string, *Error) {
	for i, part := range name.NameString {
		if strings.ContainsAny(part, "/@") || !printable(part) || part == "" && i == 0 {
			return "", refuse(Name, "the client's name cannot be written")
		}
	}
	if len(name.NameString) == 0 || realm == "" || strings.ContainsAny(realm, "/@") || !printable(realm) {
		return "", refuse(Name, "the client's name cannot be written")
	}
	if name.NameString[0] == anonymous {
		return "", refuse(Name, "anonymous clients are not served")
	}
	return strings.Join(name.NameString, "/") + "@" + realm, nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// sealReply makes the AP-REP, RFC 4120, 5.5.2: the client's own time under the
// session key, which only the holder of the service's key can know.
func sealReply(a *types.Authenticator, key types.EncryptionKey) ([]byte, error) {
	var part cryptobyte.Builder
	part.AddASN1(tagEncAPRepPart, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddASN1GeneralizedTime(a.CTime.UTC()) })
			b.AddASN1(explicit(1), func(b *cryptobyte.Builder) { b.AddASN1Int64(int64(a.Cusec)) })
		})
	})
	plain, err := part.Bytes()
	if err != nil {
		return nil, err
	}
	sealed, err := crypto.GetEncryptedData(plain, key, keyusage.AP_REP_ENCPART, 0)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(tagAPRep, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddASN1Int64(iana.PVNO) })
			b.AddASN1(explicit(1), func(b *cryptobyte.Builder) { b.AddASN1Int64(msgtype.KRB_AP_REP) })
			b.AddASN1(explicit(2), func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddASN1Int64(int64(sealed.EType)) })
					b.AddASN1(explicit(2), func(b *cryptobyte.Builder) {
						b.AddASN1(asn1.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddBytes(sealed.Cipher) })
					})
				})
			})
		})
	})
	return b.Bytes()
}
