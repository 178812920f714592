package jceks

import (
	"encoding/binary"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// reader is a cursor over big-endian data. The first failure sticks: from then
// on every read gives zero values, and err says what was wrong.
type reader struct {
	data []byte
	off  int
	err  error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: at byte %d: %s", ErrFormat, r.off, fmt.Sprintf(format, args...))
	}
}

// bytes returns the next n bytes, which stay part of data.
func (r *reader) bytes(n int) []byte {
	if r.err == nil && (n < 0 || n > len(r.data)-r.off) {
		r.fail("%d bytes announced, %d left", n, len(r.data)-r.off)
	}
	if r.err != nil {
		return nil
	}
	r.off += n
	return r.data[r.off-n : r.off : r.off]
}

func (r *reader) uint8() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() int {
	if b := r.bytes(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) int64() int64 {
	if b := r.bytes(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

// length reads a count that Java keeps in a signed int.
func (r *reader) length() int {
	n := r.uint32()
	if n > 1<<31-1 {
		r.fail("negative length")
		return 0
	}
	return int(n)
}

// utf reads a string in the modified UTF-8 of java.io.DataInput: a 16-bit
// length, NUL as two bytes, and UTF-16 surrogates encoded one by one.
func (r *reader) utf() string {
	n := r.uint16()
	b := r.bytes(n)
	units := make([]uint16, 0, len(b))
	for i := 0; i < len(b); {
		cont := func(k int) uint16 {
			if i+k >= len(b) || b[i+k]&0xC0 != 0x80 {
				r.fail("malformed string")
				return 0
			}
			return uint16(b[i+k] & 0x3F)
		}
		switch c := b[i]; {
		case c < 0x80:
			units, i = append(units, uint16(c)), i+1
		case c&0xE0 == 0xC0:
			units, i = append(units, uint16(c&0x1F)<<6|cont(1)), i+2
		case c&0xF0 == 0xE0:
			units, i = append(units, uint16(c&0x0F)<<12|cont(1)<<6|cont(2)), i+3
		default:
			r.fail("malformed string")
		}
		if r.err != nil {
			return ""
		}
	}
	s := string(utf16.Decode(units))
	if check, err := appendUTF(nil, s); err != nil || string(check[2:]) != string(b) {
		r.fail("malformed string")
		return ""
	}
	return s
}

// appendUTF appends s as reader.utf reads it. It fails when s is not valid
// UTF-8 or takes more than 65535 bytes.
func appendUTF(dst []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return dst, fmt.Errorf("%q is not valid UTF-8", s)
	}
	start := len(dst)
	dst = append(dst, 0, 0)
	for _, c := range s {
		switch {
		case c == 0:
			dst = append(dst, 0xC0, 0x80)
		case c < 0x10000:
			dst = utf8.AppendRune(dst, c)
		default:
			hi, lo := utf16.EncodeRune(c)
			for _, u := range [2]rune{hi, lo} {
				dst = append(dst, 0xE0|byte(u>>12), 0x80|byte(u>>6)&0x3F, 0x80|byte(u)&0x3F)
			}
		}
	}
	n := len(dst) - start - 2
	if n > 0xFFFF {
		return dst[:start], fmt.Errorf("string of %d bytes is too long for Java (at most 65535)", n)
	}
	binary.BigEndian.PutUint16(dst[start:], uint16(n))
	return dst, nil
}
