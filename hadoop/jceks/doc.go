// Package jceks reads and writes keystore files of Java's JCEKS kind, as far
// as Hadoop's JavaKeyStoreProvider puts keys into them: secret keys and key
// metadata, each sealed under the keystore's password. Certificates and
// private keys that somebody else put there are carried along, byte for byte.
// JKS, PKCS#12 and anything else is refused.
//
// ParseCertificates reads files for TLS: private keys and certificates of JCEKS
// files, and of JKS files, which are the same but for the mark they begin with
// and the sealing of private keys.
//
// Parse checks the structure of a whole file and its keyed digest but unseals
// nothing: an entry costs some 400 000 rounds of MD5, so SecretKey and
// KeyMetadata do that one entry at a time, when asked. Append writes a file;
// entries that came from Parse keep their exact bytes.
//
// The format is the JDK's: com.sun.crypto.provider.JceKeyStore for the
// container, KeyProtector and PBEWithMD5AndTripleDES for the sealing, and the
// object serialization protocol for what is sealed. Its cryptography is of its
// time (MD5, SHA-1, Triple DES); the protection of such a file is its file mode.
//
// The package does no I/O. Entries are immutable and safe for concurrent use.
// Key bytes are handed out as copies that the caller zeroes, and every copy
// made on the way is zeroed here.
package jceks

import "errors"

// Limits on what Parse accepts.
const (
	MaxFileSize   = 64 << 20  // bytes of a keystore file
	MaxIterations = 5_000_000 // MD5 rounds per half when unsealing; the JDK's own limit
)

// Iterations is the number of MD5 rounds per half with which new entries are
// sealed, the default of JDK 17.
const Iterations = 200_000

// What can be wrong with a keystore, to be found with errors.Is.
var (
	// ErrFormat: not a JCEKS keystore, or one that is cut off or damaged.
	ErrFormat = errors.New("not an intact JCEKS keystore")
	// ErrPassword: the digest over the file, or the padding of an entry, does
	// not fit the password. Damage that leaves the structure whole looks the
	// same, to Java as well.
	ErrPassword = errors.New("the keystore password is wrong, or the keystore was altered")
	// ErrType: the entry is intact but holds something else than was asked for.
	ErrType = errors.New("the keystore entry holds another kind of object")
)
