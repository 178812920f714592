package pkcs12

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"hash"
	"unicode/utf16"
	"unicode/utf8"
)

// Digests by the names that a MAC gives them.
var digests = map[string]func() hash.Hash{
	"1.3.14.3.2.26":          sha1.New,
	"2.16.840.1.101.3.4.2.1": sha256.New,
	"2.16.840.1.101.3.4.2.2": sha512.New384,
	"2.16.840.1.101.3.4.2.3": sha512.New,
	"2.16.840.1.101.3.4.2.4": sha256.New224,
}

// Pseudo-random functions of PBKDF2.
var prfs = map[string]func() hash.Hash{
	"1.2.840.113549.2.7":  sha1.New,
	"1.2.840.113549.2.8":  sha256.New224,
	"1.2.840.113549.2.9":  sha256.New,
	"1.2.840.113549.2.10": sha512.New384,
	"1.2.840.113549.2.11": sha512.New,
}

// scheme is a cipher in CBC mode.
type scheme struct {
	keySize   int
	blockSize int
	cipher    func(key []byte) (cipher.Block, error)
}

// Ciphers of PBES2.
var schemes = map[string]scheme{
	"1.2.840.113549.3.7":      {24, des.BlockSize, des.NewTripleDESCipher},
	"2.16.840.1.101.3.4.1.2":  {16, aes.BlockSize, aes.NewCipher},
	"2.16.840.1.101.3.4.1.22": {24, aes.BlockSize, aes.NewCipher},
	"2.16.840.1.101.3.4.1.42": {32, aes.BlockSize, aes.NewCipher},
}

// Ciphers of PKCS#12's own key derivation with SHA-1.
var oldSchemes = map[string]scheme{
	"1.2.840.113549.1.12.1.3": {24, des.BlockSize, des.NewTripleDESCipher},
	"1.2.840.113549.1.12.1.5": {16, rc2BlockSize, newRC2},
	"1.2.840.113549.1.12.1.6": {5, rc2BlockSize, newRC2},
}

var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
)

type macData struct {
	Digest struct {
		Algorithm pkix.AlgorithmIdentifier
		Value     []byte
	}
	Salt   []byte
	Rounds int `asn1:"optional,default:1"`
}

// Uses of a derived value in PKCS#12, by which it differs.
const (
	forKey = 1
	forIV  = 2
	forMAC = 3
)

// spend takes rounds from the budget of the store.
func (s *Store) spend(rounds int) error {
	if rounds < 1 || rounds > s.budget {
		return fmt.Errorf("%w: more than %d iterations", ErrFormat, MaxRounds)
	}
	s.budget -= rounds
	return nil
}

// verify checks the MAC over the content of a store.
func (s *Store) verify(m *macData, content, password []byte) error {
	newHash := digests[m.Digest.Algorithm.Algorithm.String()]
	if newHash == nil {
		return fmt.Errorf("%w: its MAC is made with %s, which is not supported: convert the store with keytool -importkeystore", ErrFormat, m.Digest.Algorithm.Algorithm)
	}
	if err := s.spend(m.Rounds); err != nil {
		return err
	}
	text, err := encodeBMP(password)
	if err != nil {
		return err
	}
	defer clear(text)
	fits := func(text []byte) bool {
		key := derive(newHash, text, m.Salt, m.Rounds, forMAC, newHash().Size())
		defer clear(key)
		h := hmac.New(newHash, key)
		h.Write(content)
		return hmac.Equal(h.Sum(nil), m.Digest.Value)
	}
	if fits(text) || len(password) == 0 && fits(nil) { // an empty password has two spellings
		return nil
	}
	return ErrPassword
}

// decrypt opens content sealed under a password. The caller zeroes the result.
func (s *Store) decrypt(a pkix.AlgorithmIdentifier, content, password []byte) ([]byte, error) {
	var c cipher.Block
	var iv []byte
	var err error
	if a.Algorithm.Equal(oidPBES2) {
		c, iv, err = s.pbes2(a.Parameters.FullBytes, password)
	} else {
		c, iv, err = s.oldScheme(a, password)
	}
	if err != nil {
		return nil, err
	}
	size := c.BlockSize()
	if len(content) == 0 || len(content)%size != 0 {
		return nil, fmt.Errorf("%w: sealed content of %d bytes", ErrFormat, len(content))
	}
	plain := make([]byte, len(content))
	cipher.NewCBCDecrypter(c, iv).CryptBlocks(plain, content)
	pad := int(plain[len(plain)-1])
	ok := pad >= 1 && pad <= size
	for i := 0; ok && i < pad; i++ {
		ok = int(plain[len(plain)-1-i]) == pad
	}
	if !ok {
		clear(plain)
		return nil, ErrPassword
	}
	return plain[:len(plain)-pad], nil
}

func (s *Store) oldScheme(a pkix.AlgorithmIdentifier, password []byte) (cipher.Block, []byte, error) {
	scheme, ok := oldSchemes[a.Algorithm.String()]
	if !ok {
		return nil, nil, fmt.Errorf("%w: sealed with %s, which is not supported: convert the store with keytool -importkeystore", ErrFormat, a.Algorithm)
	}
	var p struct {
		Salt   []byte
		Rounds int
	}
	if err := unmarshal(a.Parameters.FullBytes, &p); err != nil {
		return nil, nil, err
	}
	if err := s.spend(p.Rounds); err != nil {
		return nil, nil, err
	}
	text, err := encodeBMP(password)
	if err != nil {
		return nil, nil, err
	}
	defer clear(text)
	key := derive(sha1.New, text, p.Salt, p.Rounds, forKey, scheme.keySize)
	defer clear(key)
	c, err := scheme.cipher(key)
	return c, derive(sha1.New, text, p.Salt, p.Rounds, forIV, scheme.blockSize), err
}

func (s *Store) pbes2(parameters, password []byte) (cipher.Block, []byte, error) {
	var p struct {
		KDF    pkix.AlgorithmIdentifier
		Scheme pkix.AlgorithmIdentifier
	}
	if err := unmarshal(parameters, &p); err != nil {
		return nil, nil, err
	}
	if !p.KDF.Algorithm.Equal(oidPBKDF2) {
		return nil, nil, fmt.Errorf("%w: key derivation %s is not supported: convert the store with keytool -importkeystore", ErrFormat, p.KDF.Algorithm)
	}
	var kdf struct {
		Salt    []byte
		Rounds  int
		KeySize int                      `asn1:"optional"`
		PRF     pkix.AlgorithmIdentifier `asn1:"optional"`
	}
	if err := unmarshal(p.KDF.Parameters.FullBytes, &kdf); err != nil {
		return nil, nil, err
	}
	newHash := sha1.New
	if kdf.PRF.Algorithm != nil {
		newHash = prfs[kdf.PRF.Algorithm.String()]
	}
	scheme, ok := schemes[p.Scheme.Algorithm.String()]
	if !ok || newHash == nil {
		return nil, nil, fmt.Errorf("%w: sealed with %s and %s, which is not supported: convert the store with keytool -importkeystore",
			ErrFormat, p.Scheme.Algorithm, kdf.PRF.Algorithm)
	}
	var iv []byte
	if err := unmarshal(p.Scheme.Parameters.FullBytes, &iv); err != nil {
		return nil, nil, err
	}
	if len(iv) != scheme.blockSize {
		return nil, nil, fmt.Errorf("%w: IV of %d bytes", ErrFormat, len(iv))
	}
	if err := s.spend(kdf.Rounds); err != nil {
		return nil, nil, err
	}
	key, err := pbkdf2.Key(newHash, string(password), kdf.Salt, kdf.Rounds, scheme.keySize)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	defer clear(key)
	c, err := scheme.cipher(key)
	return c, iv, err
}

// encodeBMP returns a password in UTF-16BE with the NUL that PKCS#12 wants
// behind it. The caller zeroes the result.
func encodeBMP(password []byte) ([]byte, error) {
	if !utf8.Valid(password) {
		return nil, fmt.Errorf("%w: it is not valid UTF-8", ErrPassword)
	}
	text := make([]byte, 0, 2*len(password)+2)
	for rest := password; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		rest = rest[n:]
		if r < 0x10000 {
			text = append(text, byte(r>>8), byte(r))
		} else {
			hi, lo := utf16.EncodeRune(r)
			text = append(text, byte(hi>>8), byte(hi), byte(lo>>8), byte(lo))
		}
	}
	return append(text, 0, 0), nil
}

// derive makes size bytes by the method of RFC 7292, appendix B.2. The caller
// zeroes the result.
func derive(newHash func() hash.Hash, password, salt []byte, rounds int, use byte, size int) []byte {
	h := newHash()
	v := h.BlockSize()
	in := append(stretch(salt, v), stretch(password, v)...)
	defer clear(in)
	first := make([]byte, v)
	for i := range first {
		first[i] = use
	}
	var out []byte
	for {
		h.Reset()
		h.Write(first)
		h.Write(in)
		sum := h.Sum(nil)
		for range rounds - 1 {
			h.Reset()
			h.Write(sum)
			sum = h.Sum(sum[:0])
		}
		out = append(out, sum...)
		if len(out) >= size {
			clear(out[size:])
			return out[:size]
		}
		addend := stretch(sum, v)[:v]
		for block := in; len(block) > 0; block = block[v:] { // block = block + addend + 1
			carry := 1
			for i := v - 1; i >= 0; i-- {
				carry += int(block[i]) + int(addend[i])
				block[i] = byte(carry)
				carry >>= 8
			}
		}
	}
}

// stretch repeats b up to the next multiple of size.
func stretch(b []byte, size int) []byte {
	out := make([]byte, (len(b)+size-1)/size*size)
	for n := 0; len(b) > 0 && n < len(out); {
		n += copy(out[n:], b)
	}
	return out
}
