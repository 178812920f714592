package jceks

import (
	"crypto/des"
	"crypto/sha1"
	"crypto/subtle"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
)

// The algorithms that protect private keys. Both identifiers are Sun's own.
var (
	oidJKS   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 42, 2, 17, 1, 1} // sun.security.provider.KeyProtector
	oidJCEKS = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 42, 2, 19, 1}    // PBEWithMD5AndTripleDES
)

// ParseCertificates reads a keystore of either kind, JKS or JCEKS, for the
// certificates and private keys in it. When pw is nil the digest is not
// checked, as in Java, which needs no password to look at certificates.
// Failures are those of Parse.
func ParseCertificates(data []byte, pw *Password) ([]*Entry, error) {
	if len(data) < 4 || binary.BigEndian.Uint32(data) != magic && binary.BigEndian.Uint32(data) != magicJKS {
		return nil, fmt.Errorf("%w: it begins neither with the JKS mark FEEDFEED nor with the JCEKS mark CECECECE", ErrFormat)
	}
	return readKeystore(data, pw)
}

// Certificates returns the certificates of an entry in DER: the one of an
// entry of kind Certificate, or the chain of a PrivateKey, the key's own first.
// Those of other types than X.509 are left out. The result is part of e.
func (e *Entry) Certificates() [][]byte {
	r := &reader{data: e.raw}
	r.uint32()
	r.utf()
	r.int64()
	n := 1
	switch e.kind {
	case PrivateKey:
		r.bytes(r.length())
		n = r.length()
	case SecretKey:
		return nil
	}
	var list [][]byte
	for ; n > 0 && r.err == nil; n-- {
		if kind, der := readCertificate(r); r.err == nil && kind == "X.509" {
			list = append(list, der)
		}
	}
	return list
}

// PrivateKey unseals the private key of an entry and returns it in PKCS#8 DER,
// which the caller zeroes. It fails with ErrPassword when the key has another
// password, ErrType when the entry holds no private key, ErrFormat when it is
// damaged.
func (e *Entry) PrivateKey(pw *Password) ([]byte, error) {
	if e.kind != PrivateKey {
		return nil, fmt.Errorf("unseal %q: %w", e.alias, ErrType)
	}
	r := &reader{data: e.raw}
	r.uint32()
	r.utf()
	r.int64()
	plain, err := openPrivateKey(r.bytes(r.length()), pw)
	if err != nil {
		return nil, fmt.Errorf("unseal %q: %w", e.alias, err)
	}
	return plain, nil
}

func openPrivateKey(der []byte, pw *Password) ([]byte, error) {
	var info struct { // EncryptedPrivateKeyInfo of PKCS#8
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	if rest, err := asn1.Unmarshal(der, &info); err != nil || len(rest) != 0 {
		return nil, fmt.Errorf("%w: bad private key", ErrFormat)
	}
	switch {
	case info.Algorithm.Algorithm.Equal(oidJKS):
		return openJKS(info.Data, pw)
	case info.Algorithm.Algorithm.Equal(oidJCEKS):
		var p pbeParameters
		if rest, err := asn1.Unmarshal(info.Algorithm.Parameters.FullBytes, &p); err != nil || len(rest) != 0 || len(p.Salt) != 8 || p.Rounds < 1 {
			return nil, fmt.Errorf("%w: bad sealing parameters", ErrFormat)
		}
		return (&sealed{salt: [8]byte(p.Salt), rounds: p.Rounds, content: info.Data}).openDER(pw)
	}
	return nil, fmt.Errorf("%w: private key sealed with unknown algorithm %s", ErrFormat, info.Algorithm.Algorithm)
}

// openJKS opens what the KeyProtector of JKS made: a salt, the key XORed with
// a chain of SHA-1 over password and what went before, and SHA-1 over password
// and key.
func openJKS(data []byte, pw *Password) ([]byte, error) {
	if len(data) < 2*sha1.Size {
		return nil, fmt.Errorf("%w: private key of %d bytes", ErrFormat, len(data))
	}
	salt, content, sum := data[:sha1.Size], data[sha1.Size:len(data)-sha1.Size], data[len(data)-sha1.Size:]
	text := pw.utf16()
	defer clear(text)
	plain := make([]byte, len(content))
	h := sha1.New()
	for link, off := salt, 0; off < len(content); off += sha1.Size {
		h.Reset()
		h.Write(text)
		h.Write(link)
		link = h.Sum(nil)
		subtle.XORBytes(plain[off:], content[off:], link)
	}
	h.Reset()
	h.Write(text)
	h.Write(plain)
	if subtle.ConstantTimeCompare(h.Sum(nil), sum) != 1 {
		clear(plain)
		return nil, ErrPassword
	}
	return plain, nil
}

// openDER decrypts content that is a DER sequence: nothing else tells a wrong
// password, which passes the padding check once in 256 times.
func (s *sealed) openDER(pw *Password) ([]byte, error) {
	if len(s.content) == 0 || len(s.content)%des.BlockSize != 0 {
		return nil, fmt.Errorf("%w: sealed content of %d bytes", ErrFormat, len(s.content))
	}
	plain, err := s.decrypt(pw)
	if err != nil {
		return nil, err
	}
	var sequence asn1.RawValue
	if rest, err := asn1.Unmarshal(plain, &sequence); err != nil || len(rest) != 0 || sequence.Tag != asn1.TagSequence {
		clear(plain)
		return nil, ErrPassword
	}
	return plain, nil
}
