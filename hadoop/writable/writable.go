// Package writable reads and writes the variable-length numbers, texts and byte
// arrays of Hadoop's Writable serialization, which delegation tokens are made
// of.
//
// It writes what Hadoop writes, and reads only that: where Hadoop's readers
// would take a longer spelling of a number, or bytes that are not UTF-8 for a
// text, Reader refuses. So nothing can be spelled in two ways, and whatever was
// read is written again byte for byte.
//
// A Reader never allocates for a length it was merely told: what it returns are
// parts of the bytes it was given.
package writable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"unicode/utf8"
)

// maxNumber is the length of the longest encoded number.
const maxNumber = 9

// AppendVLong appends a number as WritableUtils.writeVLong writes it: one byte
// for -112 to 127; else a byte that tells sign and length, and the number, or
// its complement if negative, in as few big-endian bytes as hold it.
func AppendVLong(dst []byte, n int64) []byte {
	if n >= -112 && n <= 127 {
		return append(dst, byte(n))
	}
	first, magnitude := -112, uint64(n)
	if n < 0 {
		first, magnitude = -120, ^magnitude
	}
	size := (bits.Len64(magnitude) + 7) / 8
	dst = append(dst, byte(first-size))
	for i := size - 1; i >= 0; i-- {
		dst = append(dst, byte(magnitude>>(8*i)))
	}
	return dst
}

// AppendVInt appends a number of 32 bits, WritableUtils.writeVInt. The encoding
// is that of the same number as a VLong.
func AppendVInt(dst []byte, n int32) []byte { return AppendVLong(dst, int64(n)) }

// AppendText appends a Text: length in bytes, UTF-8. The caller sees to it that
// s is UTF-8 and not longer than its reader takes.
func AppendText(dst []byte, s string) []byte {
	return append(AppendVLong(dst, int64(len(s))), s...)
}

// AppendBytes appends a byte array: length, bytes.
func AppendBytes(dst, b []byte) []byte {
	return append(AppendVLong(dst, int64(len(b))), b...)
}

// Errors of a Reader. The words of ErrInt are Hadoop's.
var (
	ErrEnd       = errors.New("the data ends too early")
	ErrCanonical = errors.New("a number is not written in its shortest form")
	ErrUTF8      = errors.New("a text is not UTF-8")
	ErrInt       = errors.New("value too long to fit in integer")
)

// LengthError is a length that cannot be.
type LengthError struct {
	Length int64
	Limit  int // the largest length allowed
}

func (e *LengthError) Error() string {
	if e.Length < 0 {
		return fmt.Sprintf("tried to deserialize %d bytes of data!  newLength must be non-negative.", e.Length)
	}
	return fmt.Sprintf("tried to deserialize %d bytes of data, but maxLength = %d", e.Length, e.Limit)
}

// Reader reads values one after the other from a slice. After the first error
// every method returns a zero value, and Err that error, so that a sequence of
// reads needs one check at its end.
type Reader struct {
	rest []byte
	err  error
}

// NewReader returns a Reader of b, which must not be changed while the Reader
// or anything it returned is in use.
func NewReader(b []byte) *Reader { return &Reader{rest: b} }

// Err returns what went wrong first, nil if nothing did.
func (r *Reader) Err() error { return r.err }

// Rest returns what has not been read.
func (r *Reader) Rest() []byte { return r.rest }

func (r *Reader) fail(err error) {
	if r.err == nil {
		r.err, r.rest = err, nil
	}
}

// Fixed reads n bytes that stand there without a length.
func (r *Reader) Fixed(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.fail(ErrEnd)
	}
	if r.err != nil {
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// Byte reads one byte.
func (r *Reader) Byte() byte {
	if b := r.Fixed(1); b != nil {
		return b[0]
	}
	return 0
}

// VLong reads what AppendVLong writes.
func (r *Reader) VLong() int64 {
	start := r.rest
	first := int8(r.Byte())
	if first >= -112 {
		return int64(first)
	}
	size, negative := -112-int(first), false
	if first < -120 {
		size, negative = -120-int(first), true
	}
	digits := r.Fixed(size)
	if digits == nil {
		return 0
	}
	var wide [8]byte
	copy(wide[8-size:], digits)
	n := int64(binary.BigEndian.Uint64(wide[:]))
	if negative {
		n = ^n
	}
	var again [maxNumber]byte
	if string(AppendVLong(again[:0], n)) != string(start[:1+size]) {
		r.fail(ErrCanonical)
		return 0
	}
	return n
}

// VInt reads what AppendVInt writes.
func (r *Reader) VInt() int32 {
	n := r.VLong()
	if n < math.MinInt32 || n > math.MaxInt32 {
		r.fail(ErrInt)
		return 0
	}
	return int32(n)
}

// Bytes reads what AppendBytes writes, up to limit bytes. A length beyond the
// data is the end of the data, whatever the limit: so it is for Hadoop, which
// has none.
func (r *Reader) Bytes(limit int) []byte { return r.sized(r.VInt(), limit) }

func (r *Reader) sized(n int32, limit int) []byte {
	if n < 0 || int(n) > limit && int(n) <= len(r.rest) {
		r.fail(&LengthError{Length: int64(n), Limit: limit})
		return nil
	}
	return r.Fixed(int(n))
}

// textMax is Hadoop's own limit of the texts it reads (Text.DEFAULT_MAX_LEN),
// which it looks at before the data.
const textMax = 1 << 20

// Text reads what AppendText writes, up to limit bytes, a megabyte at most. The
// string is a copy.
func (r *Reader) Text(limit int) string {
	n := r.VInt()
	if n > textMax {
		r.fail(&LengthError{Length: int64(n), Limit: textMax})
		return ""
	}
	b := r.sized(n, limit)
	if !utf8.Valid(b) {
		r.fail(ErrUTF8)
		return ""
	}
	return string(b)
}
