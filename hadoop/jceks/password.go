package jceks

import (
	"crypto/fips140"
	"crypto/md5"
	"crypto/sha1"
	"errors"
	"hash"
	"slices"
)

// Password is a keystore password in the two forms that JCEKS wants it. It is
// immutable, and safe for concurrent use until it is cleared.
type Password struct {
	ascii []byte // as the sealing of entries wants it
}

// NewPassword checks and copies a password. As in Java, only printable ASCII
// can seal entries; "" is allowed. It fails in a process that is restricted to
// FIPS 140 algorithms, for the format has none.
func NewPassword(password []byte) (*Password, error) {
	if fips140.Enforced() {
		return nil, errors.New("JCEKS keystores need MD5, SHA-1 and Triple DES, which GODEBUG=fips140=only forbids")
	}
	for _, c := range password {
		if c < 0x20 || c > 0x7E {
			return nil, errors.New("the keystore password has a character that is not printable ASCII, which Java cannot use either")
		}
	}
	return &Password{ascii: append([]byte(nil), password...)}, nil
}

// String and GoString hide the password.
func (p *Password) String() string   { return "(hidden)" }
func (p *Password) GoString() string { return "(hidden)" }

// digest begins the keyed digest that ends a keystore: SHA-1 over the password
// in UTF-16BE, a fixed phrase, and then the file so far.
func (p *Password) digest() hash.Hash {
	text := p.utf16()
	defer clear(text)
	h := sha1.New()
	h.Write(text)
	h.Write([]byte("Mighty Aphrodite"))
	return h
}

// utf16 returns the password in UTF-16BE. The caller zeroes the result.
func (p *Password) utf16() []byte {
	text := make([]byte, 2*len(p.ascii))
	for i, c := range p.ascii {
		text[2*i+1] = c
	}
	return text
}

// Clear zeroes the password, which is then good for nothing.
func (p *Password) Clear() { clear(p.ascii) }

// derive makes the 24 bytes of key and 8 bytes of IV of Sun's
// PBEWithMD5AndTripleDES: each half of the salt on its own goes through
// rounds of MD5(previous, password), the first half reversed if both are
// equal. The caller zeroes the result.
func (p *Password) derive(salt [8]byte, rounds int) (out [2 * md5.Size]byte) {
	if [4]byte(salt[:4]) == [4]byte(salt[4:]) {
		slices.Reverse(salt[:4])
	}
	buf := make([]byte, md5.Size+len(p.ascii))
	copy(buf[md5.Size:], p.ascii)
	defer clear(buf)
	for half := range 2 {
		in := buf[md5.Size-4:]
		copy(in, salt[4*half:4*half+4])
		for range rounds {
			sum := md5.Sum(in)
			copy(buf, sum[:])
			in = buf
		}
		copy(out[half*md5.Size:], buf[:md5.Size])
	}
	return out
}
