package tlsstore

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/edekd/edekd/hadoop/jceks"
	"github.com/edekd/edekd/hadoop/tlsstore/pkcs12"
)

var (
	// errKeyType: a key that TLS, or crypto/tls, has no use for.
	errKeyType = errors.New("a private key of a type that TLS cannot use")
	// errPasswordText: a password that no keystore of that kind can have.
	errPasswordText = errors.New("the password cannot be that of such a store")
)

// format is what a file is by its first bytes.
type format int

const (
	formatUnknown format = iota
	formatPEM
	formatJava
	formatPKCS12
)

func (f *file) format() format {
	switch {
	case len(f.content) >= 4 && slices.Contains([]uint32{0xFEEDFEED, 0xCECECECE}, binary.BigEndian.Uint32(f.content)):
		return formatJava
	case bytes.Contains(f.content, pemMark):
		return formatPEM
	case len(f.content) > 0 && f.content[0] == 0x30: // a DER sequence
		return formatPKCS12
	}
	return formatUnknown
}

// store is a Java keystore, its keys still sealed.
type store struct {
	keys    []sealedKey
	trusted []*x509.Certificate
}

type sealedKey struct {
	alias string
	open  func(password []byte) ([]byte, error) // PKCS#8, which the caller zeroes
	chain func(public publicKey) [][]byte       // DER, the key's own certificate first
}

type publicKey interface{ Equal(crypto.PublicKey) bool }

// pair unseals the key.
func (k *sealedKey) pair(password []byte) (tls.Certificate, error) {
	der, err := k.open(password)
	if err != nil {
		return tls.Certificate{}, err
	}
	defer clear(der)
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%w: %w", errKeyType, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return tls.Certificate{}, errKeyType
	}
	public, ok := signer.Public().(publicKey)
	if !ok {
		return tls.Certificate{}, errKeyType
	}
	pair := tls.Certificate{Certificate: k.chain(public), PrivateKey: key}
	if len(pair.Certificate) == 0 {
		return tls.Certificate{}, errors.New("has no certificate")
	}
	if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate: %w", err)
	}
	if !public.Equal(pair.Leaf.PublicKey) {
		return tls.Certificate{}, errors.New("its certificate is that of another key")
	}
	return pair, nil
}

// readStore reads a keystore of Java. A nil password leaves it unchecked.
func readStore(content, password []byte) (*store, error) {
	switch (&file{content: content}).format() {
	case formatJava:
		return readJava(content, password)
	case formatPKCS12:
		return readPKCS12(content, password)
	}
	return nil, errors.New("neither a JKS, JCEKS or PKCS#12 keystore nor PEM")
}

func readJava(content, password []byte) (*store, error) {
	var pw *jceks.Password
	if password != nil {
		var err error
		if pw, err = jceks.NewPassword(password); err != nil {
			return nil, fmt.Errorf("%w: %w", errPasswordText, err)
		}
		defer pw.Clear()
	}
	entries, err := jceks.ParseCertificates(content, pw)
	if err != nil {
		return nil, err
	}
	s := new(store)
	for _, e := range entries {
		chain := e.Certificates()
		if len(chain) == 0 {
			continue
		}
		if e.Kind() == jceks.PrivateKey {
			s.keys = append(s.keys, sealedKey{e.Alias(), openJava(e), func(publicKey) [][]byte { return chain }})
		}
		// Java trusts the certificates of a store's own keys as well.
		cert, err := x509.ParseCertificate(chain[0])
		if err != nil {
			return nil, fmt.Errorf("certificate of %q: %w", e.Alias(), err)
		}
		s.trusted = append(s.trusted, cert)
	}
	return s, nil
}

func openJava(e *jceks.Entry) func(password []byte) ([]byte, error) {
	return func(password []byte) ([]byte, error) {
		pw, err := jceks.NewPassword(password)
		if err != nil {
			return nil, err
		}
		defer pw.Clear()
		return e.PrivateKey(pw)
	}
}

func readPKCS12(content, password []byte) (*store, error) {
	p, err := pkcs12.Parse(content, password)
	if err != nil {
		return nil, err
	}
	certs := make([]*x509.Certificate, len(p.Certificates))
	for i, c := range p.Certificates {
		if certs[i], err = x509.ParseCertificate(c.DER); err != nil {
			return nil, fmt.Errorf("certificate of %q: %w", c.Alias, err)
		}
	}
	s := new(store)
	for _, k := range p.Keys {
		own := -1 // the certificate that says it is the key's
		if k.ID != nil {
			own = slices.IndexFunc(p.Certificates, func(c pkcs12.Certificate) bool { return bytes.Equal(c.ID, k.ID) })
		}
		s.keys = append(s.keys, sealedKey{k.Alias, k.Open, func(public publicKey) [][]byte {
			at := own
			if at < 0 {
				at = slices.IndexFunc(certs, func(c *x509.Certificate) bool { return public.Equal(c.PublicKey) })
			}
			if at < 0 {
				return nil
			}
			return chain(certs[at], certs)
		}})
		if own >= 0 {
			s.trusted = append(s.trusted, certs[own])
		}
	}
	for i, c := range p.Certificates {
		if c.Trusted {
			s.trusted = append(s.trusted, certs[i])
		}
	}
	return s, nil
}

// chain follows the issuers of a certificate as far as the store has them, as
// Java does: PKCS#12 does not keep the order of a chain.
func chain(leaf *x509.Certificate, certs []*x509.Certificate) [][]byte {
	list := []*x509.Certificate{leaf}
	for at := leaf; !bytes.Equal(at.RawIssuer, at.RawSubject); {
		next := slices.IndexFunc(certs, func(c *x509.Certificate) bool {
			return bytes.Equal(c.RawSubject, at.RawIssuer) && !slices.Contains(list, c)
		})
		if next < 0 {
			break
		}
		at = certs[next]
		list = append(list, at)
	}
	der := make([][]byte, len(list))
	for i, c := range list {
		der[i] = c.Raw
	}
	return der
}

// pemBlocks takes PEM text apart. Text that is cut off is an error, where
// crypto/tls would serve what is left of a chain. The caller zeroes blocks with
// keys.
func pemBlocks(text []byte) ([]*pem.Block, error) {
	var blocks []*pem.Block
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		blocks = append(blocks, block)
	}
	if n := bytes.Count(text, pemMark); n != len(blocks) {
		return blocks, fmt.Errorf("%d of %d PEM blocks are cut off or damaged", n-len(blocks), n)
	}
	return blocks, nil
}

var pemMark = []byte("-----BEGIN ")

// pemKey makes a key with its chain of PEM text.
func pemKey(cert, key []byte) (tls.Certificate, error) {
	for _, text := range [][]byte{cert, key} {
		blocks, err := pemBlocks(text)
		for _, b := range blocks {
			if b.Type == "ENCRYPTED PRIVATE KEY" || b.Headers["DEK-Info"] != "" {
				err = errors.New("the private key is encrypted")
			}
			clear(b.Bytes)
		}
		if err != nil {
			return tls.Certificate{}, err
		}
	}
	return tls.X509KeyPair(cert, key)
}

// trustedCertificates returns the authorities that a file holds.
func trustedCertificates(f *file, password []byte) ([]*x509.Certificate, error) {
	if f.format() != formatPEM {
		s, err := readStore(f.content, password)
		if err != nil {
			return nil, err
		}
		return s.trusted, nil
	}
	blocks, err := pemBlocks(f.content)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for _, b := range blocks {
		if b.Type != "CERTIFICATE" {
			clear(b.Bytes)
			continue
		}
		cert, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	return certs, nil
}
