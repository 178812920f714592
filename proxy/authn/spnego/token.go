package spnego

import (
	"bytes"
	"encoding/base64"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// MaxToken bounds a token, in bytes after decoding.
const MaxToken = 64 << 10

// The contents of the object identifiers.
const (
	oidSPNEGO = "\x2b\x06\x01\x05\x05\x02"                 // 1.3.6.1.5.5.2
	oidKrb5   = "\x2a\x86\x48\x86\xf7\x12\x01\x02\x02"     // 1.2.840.113554.1.2.2
	oidMSKrb5 = "\x2a\x86\x48\x82\xf7\x12\x01\x02\x02"     // 1.2.840.48018.1.2.2, which Windows lists first
	oidNTLM   = "\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a" // 1.3.6.1.4.1.311.2.2.10
	oidNegoEx = "\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x1e" // 1.3.6.1.4.1.311.2.2.30
	oidIAKerb = "\x2b\x06\x01\x05\x02\x05"                 // 1.3.6.1.5.2.5
	ntlmMagic = "NTLMSSP\x00"                              // a bare NTLM message
)

// Kinds of Kerberos tokens, RFC 4121, 4.1.
const (
	tokenAPReq = "\x01\x00"
	tokenAPRep = "\x02\x00"
)

var urlSafe = strings.NewReplacer("-", "+", "_", "/")

// Tags of RFC 2743, 3.1 and RFC 4178, 4.2.
const (
	tagInitial = asn1.Tag(0x60) // [APPLICATION 0], constructed
	tagResp    = asn1.Tag(0xa1) // NegTokenResp
)

// Decode decodes what stands after "Negotiate " in an Authorization header. It
// takes the standard alphabet of base64 and the URL-safe one, which libhdfs3
// sends, with padding or without, and refuses all else as Malformed.
func Decode(header []byte) ([]byte, error) {
	text := string(bytes.Trim(header, " \t"))
	if base64.RawStdEncoding.DecodedLen(len(text)) > MaxToken+2 {
		return nil, refuse(Malformed, "the token is larger than %d bytes", MaxToken)
	}
	if strings.ContainsAny(text, "\r\n") {
		return nil, refuse(Malformed, "the token is not base64")
	}
	for range 2 {
		text = strings.TrimSuffix(text, "=")
	}
	token, err := base64.RawStdEncoding.DecodeString(urlSafe.Replace(text))
	if err != nil {
		return nil, refuse(Malformed, "the token is not base64")
	}
	return token, nil
}

// request is the outer part of a token: how it is wrapped, and the Kerberos
// message within.
type request struct {
	spnego []byte // the mechanism's OID in the client's list; nil: the token is not SPNEGO
	mech   []byte // OID of the Kerberos token itself
	apReq  []byte
}

// unwrap takes a token apart down to the AP-REQ. The result shares its memory.
func unwrap(token []byte) (*request, *Error) {
	switch {
	case len(token) == 0:
		return nil, refuse(Malformed, "the token is empty")
	case len(token) > MaxToken:
		return nil, refuse(Malformed, "the token is larger than %d bytes", MaxToken)
	case bytes.HasPrefix(token, []byte(ntlmMagic)):
		return nil, refuse(Mechanism, "the client offers NTLM, the server takes Kerberos only")
	case token[0] == byte(tagResp):
		return nil, refuse(Malformed, "a negotiation is continued that was not begun here")
	}
	mech, inner, ok := initialToken(token)
	if !ok {
		return nil, refuse(Malformed, "GSSHeader did not find the right tag")
	}
	r := &request{}
	if string(mech) == oidSPNEGO {
		chosen, mechToken, refusal := negotiate(inner)
		if refusal != nil {
			return nil, refusal
		}
		if mech, inner, ok = initialToken(mechToken); !ok {
			return nil, refuse(Malformed, "GSSHeader did not find the right tag in the mechanism token")
		}
		r.spnego = chosen
	}
	if !isKerberos(mech) {
		return nil, refuse(Mechanism, "%s is not supported, the server takes Kerberos only", mechName(mech))
	}
	r.mech = mech
	if r.apReq, ok = bytes.CutPrefix(inner, []byte(tokenAPReq)); !ok {
		return nil, refuse(Malformed, "the Kerberos token holds no AP-REQ")
	}
	return r, nil
}

// initialToken reads the frame of RFC 2743, 3.1: mechanism and its token.
func initialToken(token []byte) (mech, inner []byte, ok bool) {
	in := cryptobyte.String(token)
	var body, oid cryptobyte.String
	if !in.ReadASN1(&body, tagInitial) || !in.Empty() || !body.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) {
		return nil, nil, false
	}
	return oid, body, true
}

// negotiate reads a NegTokenInit of RFC 4178, 4.2.1. It returns the mechanism
// that the client prefers, which must be Kerberos under one of its two names,
// and the token the client sent along for it.
//
// A client that prefers another mechanism and would also take Kerberos is
// refused: to choose for it takes a second round trip with a checksum over the
// list, and HTTP has no connection state for that. Clients that hold a Kerberos
// ticket prefer Kerberos.
func negotiate(inner []byte) (chosen, mechToken []byte, refusal *Error) {
	malformed := refuse(Malformed, "the NegTokenInit is damaged")
	in := cryptobyte.String(inner)
	var outer, init, wrapped, list, flags, octets, mic cryptobyte.String
	if !in.ReadASN1(&outer, explicit(0)) || !in.Empty() ||
		!outer.ReadASN1(&init, asn1.SEQUENCE) || !outer.Empty() ||
		!init.ReadASN1(&wrapped, explicit(0)) ||
		!wrapped.ReadASN1(&list, asn1.SEQUENCE) || !wrapped.Empty() {
		return nil, nil, malformed
	}
	if list.Empty() {
		return nil, nil, refuse(Malformed, "the list of mechanisms is empty")
	}
	var first cryptobyte.String
	kerberos := false
	for !list.Empty() {
		var mech cryptobyte.String
		if !list.ReadASN1(&mech, asn1.OBJECT_IDENTIFIER) {
			return nil, nil, malformed
		}
		if first == nil {
			first = mech
		}
		kerberos = kerberos || isKerberos(mech)
	}
	if !isKerberos(first) {
		if kerberos {
			return nil, nil, refuse(Mechanism, "the client prefers %s to Kerberos", mechName(first))
		}
		return nil, nil, refuse(Mechanism, "%s is not supported, the server takes Kerberos only", mechName(first))
	}
	var given bool
	if !init.ReadOptionalASN1(&flags, nil, explicit(1)) ||
		!init.ReadOptionalASN1(&octets, &given, explicit(2)) ||
		!init.ReadOptionalASN1(&mic, nil, explicit(3)) || !init.Empty() {
		return nil, nil, malformed
	}
	if !given {
		return nil, nil, refuse(Malformed, "the client sent no mechanism token")
	}
	var value cryptobyte.String
	if !octets.ReadASN1(&value, asn1.OCTET_STRING) || !octets.Empty() {
		return nil, nil, malformed
	}
	return first, value, nil
}

// reply wraps an AP-REP as the request was wrapped. Without one, SPNEGO still
// says that the negotiation is complete, and plain Kerberos says nothing.
func (r *request) reply(apRep []byte) ([]byte, error) {
	var b cryptobyte.Builder
	if r.spnego == nil {
		if apRep == nil {
			return nil, nil
		}
		r.addToken(&b, apRep)
		return b.Bytes()
	}
	b.AddASN1(tagResp, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
				b.AddASN1Enum(0) // accept-completed
			})
			b.AddASN1(explicit(1), func(b *cryptobyte.Builder) {
				addOID(b, r.spnego)
			})
			if apRep != nil {
				b.AddASN1(explicit(2), func(b *cryptobyte.Builder) {
					b.AddASN1(asn1.OCTET_STRING, func(b *cryptobyte.Builder) {
						r.addToken(b, apRep)
					})
				})
			}
		})
	})
	return b.Bytes()
}

// addToken frames an AP-REP as a token of the mechanism.
func (r *request) addToken(b *cryptobyte.Builder, apRep []byte) {
	b.AddASN1(tagInitial, func(b *cryptobyte.Builder) {
		addOID(b, r.mech)
		b.AddBytes([]byte(tokenAPRep))
		b.AddBytes(apRep)
	})
}

func addOID(b *cryptobyte.Builder, oid []byte) {
	b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes(oid) })
}

func explicit(n uint8) asn1.Tag { return asn1.Tag(n).ContextSpecific().Constructed() }

func isKerberos(oid []byte) bool { return string(oid) == oidKrb5 || string(oid) == oidMSKrb5 }

func mechName(oid []byte) string {
	switch string(oid) {
	case oidNTLM:
		return "NTLM"
	case oidNegoEx:
		return "NEGOEX"
	case oidIAKerb:
		return "IAKERB"
	}
	return "another mechanism"
}
