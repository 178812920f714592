package token

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"hash"
	"runtime"
	"strings"
)

// DefaultAlgorithm and DefaultKeyBits are Hadoop's: HMAC-SHA1 with keys of 64
// bits. The keys are short by today's standard, and long enough for passwords
// that live a week and are checked against a store.
const (
	DefaultAlgorithm = "HmacSHA1"
	DefaultKeyBits   = 64
)

// Bounds of the length of master keys; the lower one is the JDK's for its SHA-2
// key generators.
const (
	keyBitsMin = 40
	keyBitsMax = 4096
)

// algorithms are the JDK's names, which it compares without regard to case.
var algorithms = []struct {
	name string
	hash func() hash.Hash
	size int // bytes of the MAC
}{
	{"HmacSHA1", sha1.New, sha1.Size},
	{"HmacSHA224", sha256.New224, sha256.Size224},
	{"HmacSHA256", sha256.New, sha256.Size},
	{"HmacSHA384", sha512.New384, sha512.Size384},
	{"HmacSHA512", sha512.New, sha512.Size},
}

// hashOf returns the hash of the MAC with that name, nil if it is not known.
func hashOf(name string) func() hash.Hash {
	for _, a := range algorithms {
		if strings.EqualFold(a.name, name) {
			return a.hash
		}
	}
	return nil
}

// hashOfSize returns the hash of the MAC that is so many bytes long, nil if there
// is none.
func hashOfSize(size int) func() hash.Hash {
	for _, a := range algorithms {
		if a.size == size {
			return a.hash
		}
	}
	return nil
}

func algorithmNames() string {
	var names []string
	for _, a := range algorithms {
		names = append(names, a.name)
	}
	return strings.Join(names, ", ")
}

// password returns the MAC of an identifier under k.
func password(newHash func() hash.Hash, k *MasterKey, identifier []byte) []byte {
	mac := hmac.New(newHash, k.Secret)
	mac.Write(identifier)
	sum := mac.Sum(nil)
	runtime.KeepAlive(k)
	return sum
}

// NewMasterKey makes a master key. It takes ownership of secret and zeroes it
// when nobody holds the key any more, so use it only while holding the key.
func NewMasterKey(id int32, expires int64, secret []byte) *MasterKey {
	k := &MasterKey{ID: id, Expires: expires, Secret: secret}
	runtime.AddCleanup(k, func(b []byte) { clear(b) }, secret)
	return k
}

// randomSecret returns the bytes of a new master key.
func randomSecret(bits int) []byte {
	b := make([]byte, (bits+7)/8)
	rand.Read(b)
	return b
}
