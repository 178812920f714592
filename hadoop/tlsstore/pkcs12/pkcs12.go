// Package pkcs12 reads PKCS#12 stores (RFC 7292) as Java does: any number of
// private keys, each under its own password if need be, their certificate
// chains, and certificates marked as trusted. It reads what keytool of JDK 8 to
// 21 and OpenSSL write by default: DER, the password's MAC, content sealed with
// PBES2 (PBKDF2 and AES or Triple DES) or with the older RC2 and Triple DES.
// Secret keys and revocation lists in a store are passed over.
//
// The package does no I/O. Passwords are UTF-8 and stay the caller's; every
// copy of a password or key made on the way is zeroed here.
package pkcs12

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"unicode/utf16"
)

// Limits on what Parse accepts.
const (
	MaxRounds = 5_000_000 // iterations that opening a whole store may cost; Java's limit for each part
	maxBags   = 10_000
)

// What can be wrong with a store, to be found with errors.Is.
var (
	// ErrFormat: not a PKCS#12 store that can be read, or one that is cut off
	// or damaged.
	ErrFormat = errors.New("not an intact PKCS#12 store")
	// ErrPassword: the password is missing or wrong, or the store was altered.
	ErrPassword = errors.New("the password is wrong, or the store was altered")
)

// Store is what a PKCS#12 file holds.
type Store struct {
	Keys         []*Key // in the order of the file
	Certificates []Certificate
	budget       int // rounds that may still be spent
}

// Key is a private key, still sealed.
type Key struct {
	Alias string // friendlyName, "" when it has none
	ID    []byte // localKeyId, which the key shares with its certificate; nil when it has none
	store *Store
	der   []byte // PrivateKeyInfo, or EncryptedPrivateKeyInfo when sealed
	plain bool
}

// Certificate is an X.509 certificate of a store.
type Certificate struct {
	Alias   string
	ID      []byte // localKeyId of the key it belongs to, nil for others
	Trusted bool   // whether Java takes it for a trusted one, which keytool -importcert makes
	DER     []byte
}

var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidEncryptedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 6}

	oidKeyBag         = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 1}
	oidShroudedKeyBag = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 2}
	oidCertBag        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 3}
	oidX509           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 22, 1}

	oidFriendlyName = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 20}
	oidLocalKeyID   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 21}
	oidTrusted      = asn1.ObjectIdentifier{2, 16, 840, 1, 113894, 746875, 1, 1} // Oracle's trustedKeyUsage
)

type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue `asn1:"tag:0,explicit,optional"`
}

type pfx struct {
	Version  int
	AuthSafe contentInfo
	Mac      macData `asn1:"optional"`
}

type encryptedData struct {
	Version int
	Info    struct {
		Type      asn1.ObjectIdentifier
		Algorithm pkix.AlgorithmIdentifier
		Content   []byte `asn1:"tag:0,optional"`
	}
}

type safeBag struct {
	Type       asn1.ObjectIdentifier
	Value      asn1.RawValue `asn1:"tag:0,explicit"`
	Attributes []struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue `asn1:"set"`
	} `asn1:"set,optional"`
}

type encryptedPrivateKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

// Parse reads a store. A nil password leaves the MAC unchecked and fails with
// ErrPassword where certificates are sealed. data is retained.
func Parse(data, password []byte) (*Store, error) {
	var p pfx
	if err := unmarshal(data, &p); err != nil {
		return nil, err
	}
	if p.Version != 3 || !p.AuthSafe.Type.Equal(oidData) {
		return nil, fmt.Errorf("%w: version %d, content %s", ErrFormat, p.Version, p.AuthSafe.Type)
	}
	var safe []byte
	if err := unmarshal(p.AuthSafe.Content.Bytes, &safe); err != nil {
		return nil, err
	}
	s := &Store{budget: MaxRounds}
	if password != nil && p.Mac.Digest.Algorithm.Algorithm != nil {
		if err := s.verify(&p.Mac, safe, password); err != nil {
			return nil, err
		}
	}
	var contents []contentInfo
	if err := unmarshal(safe, &contents); err != nil {
		return nil, err
	}
	for _, c := range contents {
		if err := s.content(c, password); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Store) content(c contentInfo, password []byte) error {
	var bags []byte
	switch {
	case c.Type.Equal(oidData):
		if err := unmarshal(c.Content.Bytes, &bags); err != nil {
			return err
		}
	case c.Type.Equal(oidEncryptedData):
		var e encryptedData
		if err := unmarshal(c.Content.Bytes, &e); err != nil {
			return err
		}
		if password == nil {
			return fmt.Errorf("%w: its content is sealed, and no password was given", ErrPassword)
		}
		var err error
		if bags, err = s.decrypt(e.Info.Algorithm, e.Info.Content, password); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: content of unknown type %s", ErrFormat, c.Type)
	}
	var list []safeBag
	if err := unmarshal(bags, &list); err != nil {
		return err
	}
	for i := range list {
		if len(s.Keys)+len(s.Certificates) >= maxBags {
			return fmt.Errorf("%w: more than %d entries", ErrFormat, maxBags)
		}
		if err := s.bag(&list[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) bag(b *safeBag) error {
	alias, id, trusted, err := b.attributes()
	if err != nil {
		return err
	}
	switch {
	case b.Type.Equal(oidKeyBag):
		s.Keys = append(s.Keys, &Key{alias, id, s, b.Value.Bytes, true})
	case b.Type.Equal(oidShroudedKeyBag):
		s.Keys = append(s.Keys, &Key{alias, id, s, b.Value.Bytes, false})
	case b.Type.Equal(oidCertBag):
		var cert struct {
			Type asn1.ObjectIdentifier
			DER  []byte `asn1:"tag:0,explicit"`
		}
		if err := unmarshal(b.Value.Bytes, &cert); err != nil {
			return err
		}
		if cert.Type.Equal(oidX509) {
			s.Certificates = append(s.Certificates, Certificate{alias, id, trusted, cert.DER})
		}
	}
	return nil
}

func (b *safeBag) attributes() (alias string, id []byte, trusted bool, err error) {
	for _, a := range b.Attributes {
		switch {
		case a.Type.Equal(oidFriendlyName):
			var name asn1.RawValue
			if err = unmarshal(a.Value.Bytes, &name); err == nil {
				alias, err = decodeBMP(name.Bytes)
			}
		case a.Type.Equal(oidLocalKeyID):
			err = unmarshal(a.Value.Bytes, &id)
		case a.Type.Equal(oidTrusted):
			trusted = true
		}
		if err != nil {
			return "", nil, false, err
		}
	}
	return alias, id, trusted, nil
}

// Open unseals the key and returns it in PKCS#8 DER, which the caller zeroes.
// The store's password is the one that keytool and OpenSSL give to keys, too.
func (k *Key) Open(password []byte) ([]byte, error) {
	if k.plain {
		return bytes.Clone(k.der), nil
	}
	var e encryptedPrivateKey
	if err := unmarshal(k.der, &e); err != nil {
		return nil, err
	}
	plain, err := k.store.decrypt(e.Algorithm, e.Data, password)
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", k.Alias, err)
	}
	var info asn1.RawValue
	if rest, err := asn1.Unmarshal(plain, &info); err != nil || len(rest) != 0 || info.Tag != asn1.TagSequence {
		clear(plain)
		return nil, fmt.Errorf("key %q: %w", k.Alias, ErrPassword) // wrong keys pass the padding check once in 256 times
	}
	return plain, nil
}

func unmarshal(der []byte, into any) error {
	rest, err := asn1.Unmarshal(der, into)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if len(rest) != 0 {
		return fmt.Errorf("%w: %d bytes too many", ErrFormat, len(rest))
	}
	return nil
}

func decodeBMP(b []byte) (string, error) {
	if len(b)%2 != 0 {
		return "", fmt.Errorf("%w: malformed name", ErrFormat)
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = uint16(b[2*i])<<8 | uint16(b[2*i+1])
	}
	return string(utf16.Decode(units)), nil
}
