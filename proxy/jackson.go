package proxy

import (
	"encoding/base64"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/edekd/edekd/edek"
)

// The answers have the shape of Jackson's default pretty printer, which is
// what the Java server sends: two-space indent, `"key" : value`, arrays in
// line. No client parses the white space, but people compare answers.

// base64URL is the alphabet of all key bytes on the wire out: URL-safe without
// padding, since Kudu and Pegasus decode strictly.
var base64URL = base64.RawURLEncoding

const hexUpper = "0123456789ABCDEF"

// appendString appends s as a JSON string with Jackson's escapes: quote,
// backslash and control bytes, all else as it is. Bytes that are not UTF-8
// become U+FFFD.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\uFFFD"...)
			i++
			start = i
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\t':
			dst = append(dst, '\\', 't')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\r':
			dst = append(dst, '\\', 'r')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexUpper[c>>4], hexUpper[c&15])
		}
		i++
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

func appendNullable(dst []byte, s *string) []byte {
	if s == nil {
		return append(dst, "null"...)
	}
	return appendString(dst, *s)
}

// appendBytes appends key bytes as a JSON string, or null when there are none
// to show.
func appendBytes(dst, b []byte) []byte {
	if b == nil {
		return append(dst, "null"...)
	}
	dst = append(dst, '"')
	dst = base64URL.AppendEncode(dst, b)
	return append(dst, '"')
}

// appendKeyVersion appends a key version in the order Java's hash maps yield.
// When dst must move to grow, the place it leaves is cleared of key bytes.
func appendKeyVersion(dst, material []byte, name, versionName string) []byte {
	const longestEscape = 6
	dst = growClearing(dst, 128+base64URL.EncodedLen(len(material))+longestEscape*(len(name)+len(versionName)))
	dst = append(dst, keyVersionHead...)
	dst = appendBytes(dst, material)
	dst = append(dst, ",\n  \"name\" : "...)
	dst = appendString(dst, name)
	dst = append(dst, ",\n  \"versionName\" : "...)
	dst = appendString(dst, versionName)
	return append(dst, "\n}"...)
}

// growClearing makes room for n more bytes. When dst must move for it, the place
// it leaves is cleared.
func growClearing(dst []byte, n int) []byte {
	if cap(dst)-len(dst) >= n {
		return dst
	}
	grown := append(make([]byte, 0, 2*len(dst)+n), dst...)
	clear(dst)
	return grown
}

// What stands before and behind the bytes of key versions and EDEKs.
const (
	keyVersionHead = "{\n  \"material\" : "
	edekHead       = "{\n  \"encryptedKeyVersion\" : {\n    \"material\" : "
	edekTail       = "\n}"
)

// appendEncryptedKey appends one EDEK. keyName is null on the wire when nil,
// as Java sends it for batch entries it left alone.
func appendEncryptedKey(dst []byte, versionName string, iv, wrapped []byte, keyName *string) []byte {
	dst = append(dst, edekHead...)
	dst = appendBytes(dst, wrapped)
	dst = append(dst, ",\n    \"name\" : "...)
	dst = appendNullable(dst, keyName)
	dst = append(dst, ",\n    \"versionName\" : \"EEK\"\n  },\n  \"versionName\" : "...)
	dst = appendString(dst, versionName)
	dst = append(dst, ",\n  \"iv\" : "...)
	dst = appendBytes(dst, iv)
	return append(dst, edekTail...)
}

// appendMetadata appends a key's description in the order Java sends it.
func appendMetadata(dst []byte, m *edek.Metadata) []byte {
	dst = append(dst, "{\n  \"name\" : "...)
	dst = appendString(dst, m.Name)
	dst = append(dst, ",\n  \"cipher\" : "...)
	dst = appendString(dst, m.Cipher)
	dst = append(dst, ",\n  \"length\" : "...)
	dst = strconv.AppendInt(dst, int64(m.BitLength), 10)
	dst = append(dst, ",\n  \"description\" : "...)
	dst = appendNullable(dst, m.Description)
	dst = append(dst, ",\n  \"attributes\" : "...)
	dst = appendAttributes(dst, m.Attributes)
	dst = append(dst, ",\n  \"created\" : "...)
	dst = strconv.AppendInt(dst, m.Created, 10)
	dst = append(dst, ",\n  \"versions\" : "...)
	dst = strconv.AppendInt(dst, int64(m.Versions), 10)
	return append(dst, "\n}"...)
}

func appendAttributes(dst []byte, attributes map[string]string) []byte {
	if len(attributes) == 0 {
		return append(dst, "{ }"...)
	}
	separator := "{\n    "
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		dst = append(dst, separator...)
		dst = appendString(dst, name)
		dst = append(dst, " : "...)
		dst = appendString(dst, attributes[name])
		separator = ",\n    "
	}
	return append(dst, "\n  }"...)
}

// list appends a JSON array in Jackson's style, element by element.
type list struct{ n int }

func (l *list) next(dst []byte) []byte {
	l.n++
	if l.n == 1 {
		return append(dst, "[ "...)
	}
	return append(dst, ", "...)
}

func (l *list) end(dst []byte) []byte {
	if l.n == 0 {
		return append(dst, "[ ]"...)
	}
	return append(dst, " ]"...)
}

// edekList appends a JSON array of EDEKs. One that differs from the last in
// nothing but its bytes is the last one's text with other bytes in it.
type edekList struct {
	list
	from, to    int // of the last one's text
	iv, wrapped int // sizes in bytes
	versionName string
	keyName     string
	named       bool // has a key name
}

func (l *edekList) append(dst []byte, versionName string, iv, wrapped []byte, keyName *string) []byte {
	dst = l.next(dst)
	begin := len(dst)
	if l.n > 1 && l.like(versionName, iv, wrapped, keyName) {
		dst = append(dst, dst[l.from:l.to]...)
		base64URL.Encode(dst[begin+len(edekHead)+1:], wrapped)
		base64URL.Encode(dst[len(dst)-len(edekTail)-1-base64URL.EncodedLen(len(iv)):], iv)
	} else {
		dst = appendEncryptedKey(dst, versionName, iv, wrapped, keyName)
		l.iv, l.wrapped, l.versionName = len(iv), len(wrapped), versionName
		if l.named = keyName != nil; l.named {
			l.keyName = *keyName
		}
	}
	l.from, l.to = begin, len(dst)
	return dst
}

// like reports whether an EDEK differs from the last one in its bytes only.
func (l *edekList) like(versionName string, iv, wrapped []byte, keyName *string) bool {
	return iv != nil && wrapped != nil && l.iv == len(iv) && l.wrapped == len(wrapped) && l.versionName == versionName &&
		l.named == (keyName != nil) && (keyName == nil || *keyName == l.keyName)
}

// dekList does the same with DEKs of one key.
type dekList struct {
	list
	from, to int // of the last one's text
	dek      int // size in bytes
}

// append appends one. When dst must move to grow, the place it leaves is cleared.
func (l *dekList) append(dst, dek []byte, name string) []byte {
	dst = l.next(dst)
	begin := len(dst)
	if l.n > 1 && l.dek == len(dek) {
		dst = growClearing(dst, l.to-l.from+len(", "))
		dst = append(dst, dst[l.from:l.to]...)
		base64URL.Encode(dst[begin+len(keyVersionHead)+1:], dek)
	} else {
		dst = appendKeyVersion(dst, nonNil(dek), name, edek.EK)
		l.dek = len(dek)
	}
	l.from, l.to = begin, len(dst)
	return dst
}
