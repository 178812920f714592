package keys

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// maxGeneration is the last generation a key name can have; the first is 1.
const maxGeneration = math.MaxUint32

const hexDigits = "0123456789ABCDEF"

// keyHandlePrefix is what the handles of all generations of a key begin with.
// The name is percent-escaped but for letters, digits and "-._~" (the
// unreserved characters of RFC 3986, 2.3), so that it can be any byte string
// and never holds the slash that ends it.
func keyHandlePrefix(name string) string {
	b := make([]byte, 0, len(keyPrefix)+len(name)+16)
	b = append(b, keyPrefix...)
	for i := 0; i < len(name); i++ {
		if c := name[i]; unreserved(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return string(append(b, '/'))
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// keyHandle is the handle of one generation. Its fixed width makes the byte
// order of handles the order of generations.
func keyHandle(name string, generation uint32) string {
	return fmt.Sprintf("%s%010d", keyHandlePrefix(name), generation)
}

// parseKeyHandle is the inverse of keyHandle; ok is false for anything that
// keyHandle does not write.
func parseKeyHandle(handle string) (name string, generation uint32, ok bool) {
	rest, ok := strings.CutPrefix(handle, keyPrefix)
	escaped, digits, cut := strings.Cut(rest, "/")
	if !ok || !cut {
		return "", 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || n == 0 {
		return "", 0, false
	}
	b := make([]byte, 0, len(escaped))
	for i := 0; i < len(escaped); i++ {
		c := escaped[i]
		if c == '%' {
			if i+2 >= len(escaped) {
				return "", 0, false
			}
			hi, lo := strings.IndexByte(hexDigits, escaped[i+1]), strings.IndexByte(hexDigits, escaped[i+2])
			if hi < 0 || lo < 0 {
				return "", 0, false
			}
			c, i = byte(hi<<4|lo), i+2
		}
		b = append(b, c)
	}
	name, generation = string(b), uint32(n)
	return name, generation, name != "" && keyHandle(name, generation) == handle
}
