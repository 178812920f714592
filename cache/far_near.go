package cache

import (
	"bytes"
	"crypto/subtle"

	"github.com/edekd/edekd/cache/near"
	"github.com/edekd/edekd/edek"
)

// proofSize is the least length of a DEK that shows whether a copy opens EDEKs as
// the other KMS does: nobody guesses 16 bytes.
const proofSize = 16

// copyNear has a copy of a version fetched in the background, in edekd's own name,
// where one is wanted and the other KMS has just opened e, asked at the given moment.
// The copy is kept only if it opens e to the same DEK: of a KMS with another cipher
// suite, or whose key of that name is another by now, it would make garbage of
// everything.
func (f *FarKey) copyNear(e *edek.EDEK, dek []byte, asked moment) {
	s := f.side
	if len(dek) < proofSize {
		return
	}
	wish, wanted := s.copies.Want(f.name, e.Version())
	if !wanted {
		return
	}
	sample, proof := *e, bytes.Clone(dek)
	if !s.renewals.begin(func() {
		defer clear(proof)
		f.fetchCopy(wish, &sample, proof, asked)
	}) {
		clear(proof)
	}
}

func (f *FarKey) fetchCopy(wish near.Wish, sample *edek.EDEK, proof []byte, asked moment) {
	s, name := f.side, f.VersionName(sample.Version())
	ctx, cancel := f.Deadline(s.life)
	defer cancel()
	v, err := f.provider.Copy(ctx, name)
	if err != nil {
		if s.mayNotCopy.Due() {
			s.c.Log.Warn("a key version cannot be copied; what was encrypted with it is decrypted by the KMS behind edekd", "version", name, "error", err)
		}
		return
	}
	z := edek.NewZoneKey(v, s.cache.suite)
	opened, err := z.AppendDEK(nil, sample.IV[:], sample.Wrapped())
	defer clear(opened)
	switch same := err == nil && subtle.ConstantTimeCompare(opened, proof) == 1; {
	case f.epochNow() != asked.epoch: // it is another key by now
	case !same:
		s.c.Log.Error("a copy of a key version decrypts otherwise than the KMS behind edekd, and is not used: is hadoop.security.crypto.cipher.suite the same there?",
			"version", name, "suite", string(s.cache.suite))
	default:
		s.copies.Put(wish, z)
	}
}

// openNear opens an EDEK by the copy of its version, if there is one, for a caller
// who holds a grant. When it is time for another copy, the EDEK is opened as the
// caller, too, in the background: that one follows.
func (f *FarKey) openNear(c *edek.Caller, known *facts, e *edek.EDEK, dst []byte) ([]byte, bool) {
	z, ends := f.side.copies.Get(f.name, e.Version())
	if z == nil {
		return dst, false
	}
	if ends && !f.provider.gone() {
		f.reopen(c, known, e)
	}
	dst, err := z.AppendDEK(dst, e.IV[:], e.Wrapped())
	return dst, err == nil
}

func (s *farSide) dropCopies(name string) {
	if s.copies != nil {
		s.copies.Drop(name)
	}
}
