package edek

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"

	"github.com/emmansun/gmsm/sm4"
)

// IVSize is the size of an EDEK's IV in bytes: one cipher block.
const IVSize = 16

// Suite is the cipher that wraps DEKs, Hadoop's
// hadoop.security.crypto.cipher.suite. It is a property of the server: the
// key's own cipher metadata plays no part in wrapping.
type Suite string

const (
	AESCTR Suite = "AES/CTR/NoPadding"
	SM4CTR Suite = "SM4/CTR/NoPadding"
)

func (s Suite) newBlock(material []byte) (cipher.Block, error) {
	if s == SM4CTR {
		return sm4.NewCipher(material)
	}
	return aes.NewCipher(material)
}

// ZoneKey is one key version made ready to wrap and unwrap: material plus
// expanded cipher. It is immutable and safe for concurrent use. It holds key
// bytes, which are zeroed once no reader can reach the ZoneKey any more; a
// cache may therefore drop one at any moment.
type ZoneKey struct {
	name        string
	versionName string
	suite       Suite
	material    []byte
	block       cipher.Block // nil when the material does not fit the suite
}

// NewZoneKey takes ownership of v.Material. Material that the suite cannot use
// (Hadoop lets people create keys of any length by giving material) makes a
// ZoneKey that names itself and shows its material but refuses to wrap.
func NewZoneKey(v *KeyVersion, suite Suite) *ZoneKey {
	z := &ZoneKey{name: v.Name, versionName: v.VersionName, suite: suite, material: v.Material}
	if strings.HasPrefix(v.VersionName, v.Name) {
		z.name = v.VersionName[:len(v.Name)] // one string in memory less to look up
	}
	if b, err := suite.newBlock(v.Material); err == nil {
		z.block = b
	}
	runtime.AddCleanup(z, func(material []byte) { clear(material) }, v.Material)
	return z
}

// Name returns the key name.
func (z *ZoneKey) Name() string { return z.name }

// VersionName returns name@n.
func (z *ZoneKey) VersionName() string { return z.versionName }

// DEKSize is the size in bytes of the DEKs this key wraps: that of its own
// material, as in Hadoop.
func (z *ZoneKey) DEKSize() int { return len(z.material) }

// AppendMaterial appends a copy of the key bytes to dst. The caller owns and
// zeroes the copy.
func (z *ZoneKey) AppendMaterial(dst []byte) []byte {
	dst = append(dst, z.material...)
	runtime.KeepAlive(z)
	return dst
}

// String and Format name the version and hide its bytes.
func (z *ZoneKey) String() string             { return z.versionName + "(hidden)" }
func (z *ZoneKey) Format(f fmt.State, _ rune) { fmt.Fprint(f, z.String()) }
func (z *ZoneKey) unusable(op string) error {
	return &Error{Kind: BadCipherInput, Op: op, Key: z.versionName,
		Text: fmt.Sprintf("java.security.InvalidKeyException: Invalid %s key length: %d bytes", family(z.suite), len(z.material))}
}

func family(s Suite) string {
	if s == SM4CTR {
		return "SM4"
	}
	return "AES"
}

// AppendGenerate appends n fresh EDEKs to dst, each IVSize bytes of IV and then
// DEKSize bytes of wrapped DEK. Every call gives new ones.
//
// Wrapping is XOR with a keystream, so a wrapped DEK drawn at random is the
// wrapping of a DEK drawn at random: of (IV, DEK, wrapped DEK) exactly the
// same values come out with exactly the same probabilities as when the DEK is
// drawn first and encrypted after (the keystream is fixed by key and IV, and
// XOR with a fixed value permutes the DEKs; NIST SP 800-133r2 section 4 allows
// keys formed so). Drawing the wrapped form spares the cipher and, which is
// the point, means that no DEK exists in this process until somebody entitled
// to it asks for it.
func (z *ZoneKey) AppendGenerate(dst []byte, n int) ([]byte, error) {
	if z.block == nil {
		return dst, z.unusable("generate")
	}
	begin := len(dst)
	size := n * (IVSize + len(z.material))
	dst = reserve(dst, size)[:begin+size]
	if _, err := rand.Read(dst[begin:]); err != nil {
		return dst[:begin], &Error{Kind: Unavailable, Op: "generate", Key: z.versionName, Text: "no random numbers", Err: err}
	}
	return dst, nil
}

// AppendDEK unwraps and appends the DEK, as long as wrapped is, to dst. The
// caller zeroes what was appended. iv must have IVSize bytes. CTR mode has no
// integrity: a foreign wrapped DEK gives garbage, not an error (as in Hadoop).
func (z *ZoneKey) AppendDEK(dst, iv, wrapped []byte) ([]byte, error) {
	return z.appendXOR("decrypt", dst, iv, wrapped)
}

// AppendWrapped wraps dek under the given IV and appends the result, as long
// as dek is, to dst.
func (z *ZoneKey) AppendWrapped(dst, iv, dek []byte) ([]byte, error) {
	return z.appendXOR("wrap", dst, iv, dek)
}

// AppendReencrypted turns a DEK wrapped under z into one wrapped under to and
// appends it to dst. IV and DEK stay the same: only the wrapping changes.
func (z *ZoneKey) AppendReencrypted(dst []byte, to *ZoneKey, iv, wrapped []byte) ([]byte, error) {
	n := len(dst)
	dst = reserve(dst, 2*paddedSize(len(wrapped))) // growing later would leave a copy of the DEK behind
	dst, err := z.appendXOR("reencrypt", dst, iv, wrapped)
	if err != nil {
		return dst, err
	}
	end := len(dst)
	dst, err = to.appendXOR("reencrypt", dst, iv, dst[n:end])
	if err != nil {
		clear(dst[n:end])
		return dst[:n], err
	}
	copy(dst[n:], dst[end:])
	clear(dst[end:])
	return dst[:end], nil
}

// appendXOR appends in XOR keystream. The keystream starts at the bitwise
// complement of the IV, counted up as one 128-bit big-endian number
// (CryptoExtension's IV derivation). Counter blocks are laid out in dst and
// encrypted in place, so that nothing escapes to the heap.
func (z *ZoneKey) appendXOR(op string, dst, iv, in []byte) ([]byte, error) {
	if z.block == nil {
		return dst, z.unusable(op)
	}
	if len(iv) != IVSize {
		return dst, &Error{Kind: BadCipherInput, Op: op, Key: z.versionName,
			Text: fmt.Sprintf("java.security.InvalidAlgorithmParameterException: Wrong IV length: must be %d bytes long", IVSize)}
	}
	n := len(dst)
	dst = reserve(dst, paddedSize(len(in)))
	ks := dst[n : n+paddedSize(len(in))]
	hi, lo := ^binary.BigEndian.Uint64(iv), ^binary.BigEndian.Uint64(iv[8:])
	for b := ks; len(b) > 0; b = b[IVSize:] {
		binary.BigEndian.PutUint64(b, hi)
		binary.BigEndian.PutUint64(b[8:], lo)
		z.block.Encrypt(b, b)
		if lo++; lo == 0 {
			hi++
		}
	}
	subtle.XORBytes(ks, ks[:len(in)], in)
	clear(ks[len(in):])
	return dst[:n+len(in)], nil
}

// paddedSize rounds n up to whole cipher blocks.
func paddedSize(n int) int { return (n + IVSize - 1) / IVSize * IVSize }

// reserve makes room for n more bytes behind dst without changing its length.
func reserve(dst []byte, n int) []byte {
	if cap(dst)-len(dst) >= n {
		return dst
	}
	out := make([]byte, len(dst), 2*len(dst)+n)
	copy(out, dst)
	return out
}
