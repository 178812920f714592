package edek

import "fmt"

// MaxDEKSize is the size in bytes of the longest DEK that an EDEK holds: that
// of an AES-256 key.
const MaxDEKSize = 32

// EDEK is an encrypted data key in binary, of fixed size and without pointers,
// so that many fit into a slab. Which key it is of, its holder knows. It holds
// no key bytes in the clear; still it is handed out once only.
type EDEK struct {
	IV      [IVSize]byte
	wrapped [MaxDEKSize]byte
	size    uint8
	version int32
}

// NewEDEK copies iv, which has IVSize bytes, and wrapped, which has one to
// MaxDEKSize, of a DEK that is wrapped under the given version of its key.
// Other lengths, and negative versions, are Corrupt.
func NewEDEK(version int, iv, wrapped []byte) (e EDEK, err error) {
	if len(iv) != IVSize || len(wrapped) == 0 || len(wrapped) > MaxDEKSize || version < 0 || version > 1<<31-1 {
		return EDEK{}, &Error{Kind: Corrupt, Op: "read EDEK",
			Text: fmt.Sprintf("an EDEK with an IV of %d bytes, %d bytes of wrapped key, version %d", len(iv), len(wrapped), version)}
	}
	copy(e.IV[:], iv)
	copy(e.wrapped[:], wrapped)
	e.size, e.version = uint8(len(wrapped)), int32(version)
	return e, nil
}

// Wrapped returns the wrapped DEK. It aliases e.
func (e *EDEK) Wrapped() []byte { return e.wrapped[:e.size] }

// Version returns the number of the key's version that the DEK is wrapped under.
func (e *EDEK) Version() int { return int(e.version) }
