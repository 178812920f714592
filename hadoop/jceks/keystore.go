package jceks

import (
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"time"
)

const (
	magic    = 0xCECECECE
	magicJKS = 0xFEEDFEED
	version  = 2
)

// Kind is what an entry holds.
type Kind uint32

// The kinds of entries, as tagged in the file.
const (
	PrivateKey  Kind = 1 // with its certificate chain
	Certificate Kind = 2
	SecretKey   Kind = 3 // any sealed Java object of type Key, Hadoop's KeyMetadata among them
)

// Entry is one entry of a keystore. It is immutable and holds what it holds
// sealed.
type Entry struct {
	kind    Kind
	alias   string
	created int64
	raw     []byte  // the entry as it stands in a file
	sealed  *sealed // nil unless kind is SecretKey
}

// Alias returns the name of the entry exactly as it is stored. Java's own
// look-ups fold it to lower case.
func (e *Entry) Alias() string { return e.alias }

// Kind says what the entry holds.
func (e *Entry) Kind() Kind { return e.kind }

// Created returns when the entry was put into the keystore.
func (e *Entry) Created() time.Time { return time.UnixMilli(e.created) }

// Iterations returns the rounds of MD5 per half that unsealing costs, 0 for
// entries that are not secret keys.
func (e *Entry) Iterations() int {
	if e.sealed == nil {
		return 0
	}
	return e.sealed.rounds
}

// Parse reads a keystore file. Failures are ErrFormat, or ErrPassword when the
// structure is whole but the digest over it does not fit. data is not retained.
func Parse(data []byte, pw *Password) ([]*Entry, error) {
	if len(data) >= 4 {
		switch m := binary.BigEndian.Uint32(data); {
		case m == magicJKS:
			return nil, fmt.Errorf("%w: this is a JKS keystore, which cannot hold secret keys", ErrFormat)
		case m>>24 == 0x30:
			return nil, fmt.Errorf("%w: this looks like a PKCS#12 keystore: convert it with keytool -importkeystore -deststoretype jceks", ErrFormat)
		case m != magic:
			return nil, fmt.Errorf("%w: it does not begin with the JCEKS mark CECECECE", ErrFormat)
		}
	}
	return readKeystore(data, pw)
}

// readKeystore reads a keystore behind either mark. A nil password leaves the digest
// unchecked.
func readKeystore(data []byte, pw *Password) ([]*Entry, error) {
	if len(data) > MaxFileSize {
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrFormat, MaxFileSize)
	}
	r := &reader{data: data}
	r.uint32() // the mark
	if v := r.uint32(); r.err == nil && v != version {
		r.fail("version %d, only %d is known", v, version)
	}
	count := r.length()
	var entries []*Entry
	seen := make(map[string]bool)
	for i := 0; i < count && r.err == nil; i++ {
		e := readEntry(r)
		if r.err == nil && seen[e.alias] {
			r.fail("alias %q twice", e.alias)
		}
		seen[e.alias] = true
		entries = append(entries, e)
	}
	end := r.off
	sum := r.bytes(sha1.Size)
	if r.err == nil && r.off != len(data) {
		r.fail("%d bytes too many", len(data)-r.off)
	}
	if r.err != nil {
		return nil, r.err
	}
	if pw == nil {
		return entries, nil
	}
	h := pw.digest()
	h.Write(data[:end])
	if subtle.ConstantTimeCompare(h.Sum(nil), sum) != 1 {
		return nil, ErrPassword
	}
	return entries, nil
}

func readEntry(r *reader) *Entry {
	start := r.off
	e := &Entry{kind: Kind(r.uint32()), alias: r.utf(), created: r.int64()}
	switch e.kind {
	case PrivateKey:
		r.bytes(r.length())
		for n := r.length(); n > 0 && r.err == nil; n-- {
			readCertificate(r)
		}
	case Certificate:
		readCertificate(r)
	case SecretKey:
		e.sealed = readSealed(r)
	default:
		r.fail("entry of unknown kind %d", e.kind)
	}
	if r.err != nil {
		return e
	}
	e.raw = append([]byte(nil), r.data[start:r.off]...)
	if e.sealed != nil {
		e.sealed.content = append([]byte(nil), e.sealed.content...)
	}
	return e
}

// readCertificate returns a certificate and its type. The bytes stay part of
// the reader's data.
func readCertificate(r *reader) (kind string, der []byte) {
	return r.utf(), r.bytes(r.length())
}

// Append appends a keystore file with the given entries, in that order, to dst.
func Append(dst []byte, entries []*Entry, pw *Password) []byte {
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, magic)
	dst = binary.BigEndian.AppendUint32(dst, version)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(entries)))
	for _, e := range entries {
		dst = append(dst, e.raw...)
	}
	h := pw.digest()
	h.Write(dst[start:])
	return h.Sum(dst)
}

// NewSecretKey seals a key as Java seals a SecretKeySpec. algorithm is what
// the key says of itself; Hadoop puts the whole cipher there
// ("AES/CTR/NoPadding"). material, which must not be empty, is not retained.
func NewSecretKey(alias, algorithm string, material []byte, created time.Time, pw *Password) (*Entry, error) {
	if len(material) == 0 {
		return nil, fmt.Errorf("seal %q: empty key", alias)
	}
	if _, err := appendUTF(nil, algorithm); err != nil {
		return nil, fmt.Errorf("seal %q: algorithm: %w", alias, err)
	}
	w := newObjectWriter(make([]byte, 0, 512+3*len(algorithm)+len(material))) // growing would leave a copy of the key behind
	w.object(secretKeyClass)
	w.string(algorithm)
	w.byteArray(material)
	return newEntry(alias, w.buf, created, pw)
}

// SecretKey unseals an entry that holds a SecretKeySpec. The caller zeroes the
// material. It fails with ErrPassword when the entry has another password than
// the keystore, ErrType when it holds something else, ErrFormat when it is damaged.
func (e *Entry) SecretKey(pw *Password) (algorithm string, material []byte, err error) {
	err = e.unseal(pw, secretKeyClass, func(o *object) error {
		key, _ := o.values["key"].([]byte)
		algorithm, _ = o.values["algorithm"].(string)
		if len(key) == 0 {
			return fmt.Errorf("%w: empty key", ErrFormat)
		}
		material = append([]byte(nil), key...)
		return nil
	})
	return algorithm, material, err
}

// KeyMetadata is the payload of the entry by which Hadoop describes a key, the
// JSON form of its KeyProvider.Metadata.
type KeyMetadata struct {
	Cipher      string            `json:"cipher,omitempty"`
	BitLength   int               `json:"bitLength,omitempty"`
	Created     int64             `json:"created,omitempty"` // milliseconds since the Unix epoch
	Description *string           `json:"description,omitempty"`
	Attributes  map[string]string `json:"attributes,omitempty"`
	Versions    int               `json:"versions"`
}

// NewKeyMetadata seals a key's metadata as Hadoop's JavaKeyStoreProvider does.
func NewKeyMetadata(alias string, m *KeyMetadata, created time.Time, pw *Password) (*Entry, error) {
	payload, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("seal metadata of %q: %w", alias, err)
	}
	w := newObjectWriter(nil)
	w.object(keyMetadataClass)
	w.blockData(append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...))
	return newEntry(alias, w.buf, created, pw)
}

// KeyMetadata unseals an entry that holds a key's metadata. Errors are those
// of SecretKey.
func (e *Entry) KeyMetadata(pw *Password) (*KeyMetadata, error) {
	m := new(KeyMetadata)
	err := e.unseal(pw, keyMetadataClass, func(o *object) error {
		if len(o.block) < 4 || uint32(len(o.block)-4) != binary.BigEndian.Uint32(o.block) {
			return fmt.Errorf("%w: metadata of wrong length", ErrFormat)
		}
		if err := json.Unmarshal(o.block[4:], m); err != nil {
			return fmt.Errorf("%w: metadata: %w", ErrFormat, err)
		}
		if m.Versions < 0 || m.Versions >= math.MaxInt32 || m.BitLength < 0 || m.BitLength > math.MaxInt32 {
			return fmt.Errorf("%w: metadata with %d versions of %d bits", ErrFormat, m.Versions, m.BitLength)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// newEntry seals a serialized object, which it zeroes.
func newEntry(alias string, plain []byte, created time.Time, pw *Password) (*Entry, error) {
	object, err := seal(plain, pw, Iterations)
	if err != nil {
		return nil, fmt.Errorf("seal %q: %w", alias, err)
	}
	raw := binary.BigEndian.AppendUint32(nil, uint32(SecretKey))
	raw, err = appendUTF(raw, alias)
	if err != nil {
		return nil, fmt.Errorf("alias: %w", err)
	}
	raw = binary.BigEndian.AppendUint64(raw, uint64(created.UnixMilli()))
	r := &reader{data: append(raw, object...)}
	e := readEntry(r)
	return e, r.err
}

// unseal opens the entry, has take look at the object if it is a c, and zeroes
// the object's bytes.
func (e *Entry) unseal(pw *Password, c *class, take func(*object) error) error {
	if e.sealed == nil {
		return fmt.Errorf("unseal %q: %w", e.alias, ErrType)
	}
	plain, err := e.sealed.open(pw)
	if err != nil {
		return fmt.Errorf("unseal %q: %w", e.alias, err)
	}
	defer clear(plain)
	r := &reader{data: plain}
	o := readObject(r)
	switch {
	case r.err != nil:
		return fmt.Errorf("unseal %q: %w", e.alias, r.err)
	case !o.is(c.name, c.uid):
		return fmt.Errorf("unseal %q: %w: %s", e.alias, ErrType, o.class.name)
	case r.off != len(plain):
		return fmt.Errorf("unseal %q: %w: %d bytes too many", e.alias, ErrFormat, len(plain)-r.off)
	}
	if err := take(o); err != nil {
		return fmt.Errorf("unseal %q: %w", e.alias, err)
	}
	return nil
}
