package spnego_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/edekd/edekd/proxy/authn/spnego"
)

// Whatever is sent, it is answered: with a principal only when it is one of the
// tokens that the KDC's ticket made, and never by a panic.
func FuzzAccept(f *testing.F) {
	realm, acceptor := start(f)
	m := newMinter(f, realm, "alice", service)
	token := m.token()
	for _, seed := range [][]byte{
		nil, token, spnegoToken(token, derKrb5), spnegoToken(token, derMSKrb5, derKrb5, derNTLM), spnegoToken(token),
		spnegoToken(nil, derKrb5), token[:40], []byte("NTLMSSP\x00"), der(0xa1, der(0x30, nil)), frame(derKrb5, []byte{1, 0, 0x6e, 0}),
	} {
		f.Add(seed, uint16(0), byte(0))
		f.Add(seed, uint16(len(seed)/2), byte(0x80))
	}
	// Corpora of earlier runs hold tokens of other KDCs, so besides what the
	// fuzzer sends as it is, a token of this one is damaged in one place.
	f.Fuzz(func(t *testing.T, data []byte, at uint16, flip byte) {
		damaged := bytes.Clone(token)
		damaged[int(at)%len(damaged)] ^= flip
		for _, token := range [][]byte{data, spnegoToken(data, derKrb5), frame(derKrb5, append([]byte{1, 0}, data...)), damaged, spnegoToken(damaged, derKrb5)} {
			principal, reply, err := acceptor.Accept(token)
			var refusal *spnego.Error
			switch {
			case err == nil && principal != "alice@"+home:
				t.Fatalf("%x makes %q", token, principal)
			case err != nil && (!errors.As(err, &refusal) || refusal.Kind == spnego.Internal || principal != "" || reply != nil):
				t.Fatalf("%x: principal %q, reply %x, %v", token, principal, reply, err)
			case err != nil:
				checkRefusal(t, err, refusal.Kind, "")
			}
		}
	})
}
