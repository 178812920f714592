// Package secret holds the secrets that sign authentication cookies.
//
// A Ring is what the server signs and verifies with: the current secret and,
// when secrets are rolled, the one before it. Rings are safe for concurrent
// use; looking at one takes no lock. Secret bytes never leave the package:
// callers get signatures and verdicts. They are zeroed once the last user of a
// retired Key has dropped it.
package secret

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"runtime"
)

// SignatureSize is the length in bytes of a signature: an HMAC-SHA256 in
// standard base64 with padding, as hadoop-auth's Signer writes it.
const SignatureSize = 44

// Key is one signing secret. Its address is its identity: what was verified
// under a Key stays verified exactly as long as a Ring still hands out that
// Key.
type Key struct {
	bytes []byte
}

// newKey takes ownership of b.
func newKey(b []byte) *Key {
	k := &Key{bytes: b}
	runtime.AddCleanup(k, func(b []byte) { clear(b) }, b)
	return k
}

// AppendSignature appends the signature of text, SignatureSize bytes, to dst.
func (k *Key) AppendSignature(dst, text []byte) []byte {
	mac := hmac.New(sha256.New, k.bytes)
	mac.Write(text)
	var sum [sha256.Size]byte
	dst = base64.StdEncoding.AppendEncode(dst, mac.Sum(sum[:0]))
	runtime.KeepAlive(k)
	return dst
}

// Verifies reports whether signature is the signature of text. As in Hadoop
// the base64 text is what is compared, so a signature has one spelling only.
func (k *Key) Verifies(text, signature []byte) bool {
	var want [SignatureSize]byte
	return Equal(k.AppendSignature(want[:0], text), signature)
}

// Format keeps every fmt verb from reaching the bytes.
func (k *Key) Format(f fmt.State, _ rune) { fmt.Fprint(f, "signing secret (hidden)") }

// Equal compares a credential with the one expected, in time that depends on
// their lengths only: eight bytes at a time, because it is part of every
// request. Every comparison of signatures and of remembered credentials goes
// through it.
func Equal(want, got []byte) bool {
	if len(want) != len(got) {
		return false
	}
	var difference uint64
	for len(want) >= 8 {
		difference |= binary.LittleEndian.Uint64(want) ^ binary.LittleEndian.Uint64(got)
		want, got = want[8:], got[8:]
	}
	for i := range want {
		difference |= uint64(want[i] ^ got[i])
	}
	return difference == 0
}
