package edek

import (
	"crypto/rand"
	"fmt"
	"strings"
)

// Metadata describes a key: everything but its material. Values handed out by
// providers and caches are shared and must not be changed.
type Metadata struct {
	Name        string
	Cipher      string // algorithm/mode/padding as the creator gave it, e.g. "AES/CTR/NoPadding"
	BitLength   int    // length of each version's material, in bits
	Description *string
	Attributes  map[string]string
	Created     int64 // milliseconds since the Unix epoch
	Versions    int   // how many versions exist; the current one is Versions-1
}

// AttributeACLName is the attribute that holds the name under which the rules of
// kms-acls.xml know a key (HADOOP-10758).
const AttributeACLName = "key.acl.name"

// ACLName returns the name under which the rules know the key: that of its
// attribute, else its own.
func (m *Metadata) ACLName() string {
	if name, ok := m.Attributes[AttributeACLName]; ok {
		return name
	}
	return m.Name
}

// CurrentVersion returns the version name of the newest version.
func (m *Metadata) CurrentVersion() string { return VersionName(m.Name, m.Versions-1) }

// KeyVersion is one version of a zone key. It holds key bytes: whoever
// receives one owns Material and calls Zero when done with it.
type KeyVersion struct {
	Name        string // key name
	VersionName string // name@n
	Material    []byte // raw key bytes; nil when withheld
}

// Zero overwrites the material.
func (v *KeyVersion) Zero() { clear(v.Material) }

// String and GoString name the version and hide its bytes.
func (v *KeyVersion) String() string   { return v.VersionName + "(hidden)" }
func (v *KeyVersion) GoString() string { return v.String() }

// Format keeps every fmt verb from reaching the bytes.
func (v *KeyVersion) Format(f fmt.State, _ rune) { fmt.Fprint(f, v.String()) }

// NewKey is what a caller asks of a provider's Create. Material, when given,
// belongs to the caller, who zeroes it after the call.
type NewKey struct {
	Name        string
	Cipher      string
	BitLength   int
	Description *string
	Attributes  map[string]string
	Material    []byte // nil: the provider generates it
}

// Format keeps every fmt verb from reaching the bytes.
func (k *NewKey) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "new key %q", k.Name) }

// CheckMaterial reports whether material has the length a key declares, in the
// words of Hadoop's JavaKeyStoreProvider.
func CheckMaterial(op, name string, material []byte, bitLength int) error {
	if len(material)*8 == bitLength {
		return nil
	}
	return &Error{Kind: WrongLength, Op: op, Key: name,
		Text: fmt.Sprintf("Wrong key length. Required %d, but got %d", bitLength, 8*len(material))}
}

// GenerateMaterial makes random material for a key of the given cipher
// ("family/mode/padding") and length in bits. As with the JDK's KeyGenerator,
// AES allows 128, 192 and 256 bits; SM4, which a plain JDK lacks, has 128. The
// caller owns the result.
func GenerateMaterial(op, name, cipher string, bitLength int) ([]byte, error) {
	family, _, _ := strings.Cut(cipher, "/")
	switch strings.ToUpper(family) {
	case "AES":
		if bitLength != 128 && bitLength != 192 && bitLength != 256 {
			return nil, &Error{Kind: BadParameter, Op: op, Key: name,
				Text: "Wrong keysize: must be equal to 128, 192 or 256"}
		}
	case "SM4":
		if bitLength != 128 {
			return nil, &Error{Kind: BadParameter, Op: op, Key: name,
				Text: "Wrong keysize: must be equal to 128 for SM4"}
		}
	default:
		return nil, &Error{Kind: NoSuchAlgorithm, Op: op, Key: name,
			Text: fmt.Sprintf("%s KeyGenerator not available: the cipher must be AES/… or SM4/…", family)}
	}
	material := make([]byte, bitLength/8)
	if _, err := rand.Read(material); err != nil {
		return nil, &Error{Kind: Unavailable, Op: op, Key: name, Text: "no random numbers", Err: err}
	}
	return material, nil
}
