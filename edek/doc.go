// Package edek is the vocabulary and the cryptography of Hadoop's encrypted
// data encryption keys.
//
// HDFS encrypts each file with a data encryption key (DEK). The DEK travels
// and rests wrapped under one version of a zone key; the wrapped form with its
// IV is the EDEK. This package knows how key versions are named, what metadata
// a key has, how EDEKs are generated, opened and re-encrypted, and in which
// typed errors all rooms above report what went wrong. It does no I/O and
// knows neither HTTP nor stores.
//
// Key bytes: every type that holds them says so, formats itself without them,
// and is either zeroed by an explicit call (KeyVersion.Zero) or when the last
// reader has dropped it (ZoneKey). Expanded key schedules live inside the
// standard library's ciphers and are left to the garbage collector.
package edek
