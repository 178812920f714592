package jceks

import (
	"crypto/cipher"
	"crypto/des"
	"crypto/rand"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
)

const pbeAlgorithm = "PBEWithMD5AndTripleDES"

// The classes involved, with the versions and fields that the JDK and Hadoop
// give them. A reader in Java accepts no others.
var (
	byteArrayClass = &class{name: "[B", uid: -5984413125824719648, flags: scSerializable}

	sealedClass = &class{name: "com.sun.crypto.provider.SealedObjectForKeyProtector", uid: -3650226485480866989, flags: scSerializable,
		super: &class{name: "javax.crypto.SealedObject", uid: 4482838265551344752, flags: scSerializable, fields: []field{
			{'[', "encodedParams", "[B"},
			{'[', "encryptedContent", "[B"},
			{'L', "paramsAlg", "Ljava/lang/String;"},
			{'L', "sealAlg", "Ljava/lang/String;"},
		}}}

	secretKeyClass = &class{name: "javax.crypto.spec.SecretKeySpec", uid: 6577238317307289933, flags: scSerializable, fields: []field{
		{'L', "algorithm", "Ljava/lang/String;"},
		{'[', "key", "[B"},
	}}

	keyMetadataClass = &class{name: "org.apache.hadoop.crypto.key.JavaKeyStoreProvider$KeyMetadata", uid: 8405872419967874451,
		flags: scSerializable | scWriteMethod, fields: []field{
			{'L', "metadata", "Lorg/apache/hadoop/crypto/key/KeyProvider$Metadata;"},
		}}
)

// sealed is a serialized object under a password. content belongs to whoever
// made it and is not changed.
type sealed struct {
	salt    [8]byte
	rounds  int
	content []byte
}

// pbeParameters is the ASN.1 structure PBEParameter of PKCS#5.
type pbeParameters struct {
	Salt   []byte
	Rounds int
}

// readSealed reads the SealedObjectForKeyProtector at r, of which the result
// remains a part.
func readSealed(r *reader) *sealed {
	o := readObject(r)
	if r.err != nil {
		return nil
	}
	if !o.is(sealedClass.name, sealedClass.uid) {
		r.fail("sealed object of unknown class %q", o.class.name)
		return nil
	}
	params, _ := o.values["encodedParams"].([]byte)
	content, _ := o.values["encryptedContent"].([]byte)
	for _, f := range [...]string{"paramsAlg", "sealAlg"} {
		if alg, _ := o.values[f].(string); alg != pbeAlgorithm {
			r.fail("sealed with %q, not %s", alg, pbeAlgorithm)
			return nil
		}
	}
	var p pbeParameters
	if rest, err := asn1.Unmarshal(params, &p); err != nil || len(rest) != 0 || len(p.Salt) != 8 || p.Rounds < 1 {
		r.fail("bad sealing parameters")
		return nil
	}
	if len(content) == 0 || len(content)%des.BlockSize != 0 {
		r.fail("sealed content of %d bytes", len(content))
		return nil
	}
	return &sealed{salt: [8]byte(p.Salt), rounds: p.Rounds, content: content}
}

// seal encrypts a serialized object, zeroing plain, and returns the serialized
// SealedObjectForKeyProtector around it.
func seal(plain []byte, pw *Password, rounds int) ([]byte, error) {
	defer clear(plain)
	var salt [8]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return nil, fmt.Errorf("no random numbers: %w", err)
	}
	params, err := asn1.Marshal(pbeParameters{salt[:], rounds})
	if err != nil {
		return nil, err
	}
	pad := des.BlockSize - len(plain)%des.BlockSize
	content := make([]byte, len(plain)+pad)
	copy(content, plain)
	for i := len(plain); i < len(content); i++ {
		content[i] = byte(pad)
	}
	s := &sealed{salt: salt, rounds: rounds}
	block, iv, err := s.cipher(pw)
	if err != nil {
		clear(content)
		return nil, err
	}
	cipher.NewCBCEncrypter(block, iv[:]).CryptBlocks(content, content)

	w := newObjectWriter(nil)
	w.object(sealedClass)
	w.byteArray(params)
	w.byteArray(content)
	w.string(pbeAlgorithm)
	w.string(pbeAlgorithm)
	return w.buf, nil
}

// open decrypts an object stream. The caller zeroes the result.
func (s *sealed) open(pw *Password) ([]byte, error) {
	plain, err := s.decrypt(pw)
	if err != nil {
		return nil, err
	}
	if len(plain) < 4 || binary.BigEndian.Uint32(plain) != streamHeader { // wrong keys pass the padding check once in 256 times
		clear(plain)
		return nil, ErrPassword
	}
	return plain, nil
}

// decrypt undoes the cipher and its padding. The caller zeroes the result.
func (s *sealed) decrypt(pw *Password) ([]byte, error) {
	if s.rounds > MaxIterations {
		return nil, fmt.Errorf("%w: %d iterations, more than the %d that Java allows", ErrFormat, s.rounds, MaxIterations)
	}
	block, iv, err := s.cipher(pw)
	if err != nil {
		return nil, err
	}
	plain := make([]byte, len(s.content))
	cipher.NewCBCDecrypter(block, iv[:]).CryptBlocks(plain, s.content)
	pad := int(plain[len(plain)-1])
	ok := pad >= 1 && pad <= des.BlockSize
	for i := 0; ok && i < pad; i++ {
		ok = int(plain[len(plain)-1-i]) == pad
	}
	if !ok {
		clear(plain)
		return nil, ErrPassword
	}
	return plain[:len(plain)-pad], nil
}

func (s *sealed) cipher(pw *Password) (cipher.Block, [8]byte, error) {
	secret := pw.derive(s.salt, s.rounds)
	defer clear(secret[:])
	block, err := des.NewTripleDESCipher(secret[:24])
	return block, [8]byte(secret[24:]), err
}
