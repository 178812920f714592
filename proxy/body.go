package proxy

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/edekd/edekd/edek"
)

// Bodies are read twice over: a hand scanner takes the plain shapes that real
// clients send, without allocating, and declines anything odd; what it
// declines goes to encoding/json, whose answer counts. Both follow the Java
// server's reading: maps are untyped, unknown fields are ignored, null equals
// absent, the last of duplicate members wins, and what follows the first value
// is not looked at.

// decryptBody is the body of decrypt and reencrypt. The slices may alias the
// request body; iv and material are decoded. nil means absent.
type decryptBody struct {
	name, iv, material []byte
}

// parseDecryptBody reads body, which it may overwrite.
func parseDecryptBody(body []byte) (decryptBody, error) {
	d, ok := scanDecryptBody(body)
	if !ok {
		o, err := parseObject(body)
		if err != nil {
			return decryptBody{}, err
		}
		if err := errors.Join(o.text("name", &d.name), o.text("iv", &d.iv), o.text("material", &d.material)); err != nil {
			return decryptBody{}, err
		}
	}
	decodeInPlace(&d.iv)
	decodeInPlace(&d.material)
	return d, nil
}

func scanDecryptBody(body []byte) (d decryptBody, ok bool) {
	s := scanner{b: body}
	ok = s.object(func(field []byte) bool {
		switch string(field) {
		case "name":
			return s.textOnce(&d.name)
		case "iv":
			return s.textOnce(&d.iv)
		case "material":
			return s.textOnce(&d.material)
		}
		return s.skipText()
	})
	if !ok {
		d = decryptBody{}
	}
	return d, ok
}

// batchEntry is one EDEK of a batch. The slices may alias the
// request body; iv and wrapped are decoded. nil means absent.
type batchEntry struct {
	present                                bool // not a JSON null
	versionName, iv, innerVersion, wrapped []byte
	hasInner                               bool
}

// parseBatch reads body, which it may overwrite, and appends its entries to
// dst. More than limit entries are refused.
func parseBatch(dst []batchEntry, body []byte, limit int) ([]batchEntry, error) {
	n := len(dst)
	entries, ok := scanBatch(dst, body, limit)
	if !ok {
		clear(entries[n:])
		var err error
		if entries, err = parseBatchSlowly(dst, body, limit); err != nil {
			clear(dst[n:cap(dst)])
			return dst, err
		}
	}
	for i := n; i < len(entries); i++ {
		e := &entries[i]
		decodeInPlace(&e.iv)
		decodeInPlace(&e.wrapped)
	}
	return entries, nil
}

// layout is where an entry of a batch stands in the body, from the end of the
// one before it to its own, and where its values are that differ from entry to
// entry. The entries of one client look all the same but for these.
type layout struct {
	begin, end  int
	iv, wrapped span // from begin
}

type span struct{ begin, end int }

// scanBatch returns what it appended until then, too, when it declines.
func scanBatch(dst []batchEntry, body []byte, limit int) (entries []batchEntry, ok bool) {
	s, n := scanner{b: body}, len(dst)
	if !s.token('[') {
		return dst, false
	}
	var last layout
	for {
		begin := s.i
		if len(dst)-n < limit {
			if iv, wrapped, ok := s.alike(&last); ok {
				dst = append(dst, dst[len(dst)-1])
				e := &dst[len(dst)-1]
				e.iv, e.wrapped = iv, wrapped
				continue
			}
		}
		if s.token(']') {
			return dst, true
		}
		if len(dst) > n && !s.token(',') || len(dst)-n == limit { // the slow parser says so
			return dst, false
		}
		dst = append(dst, batchEntry{present: true})
		l, ok := s.entry(&dst[len(dst)-1], begin)
		if !ok {
			return dst, false
		}
		if len(dst)-n > 1 { // the first has no comma before it, and is no pattern
			last = l
		}
	}
}

// entry takes one entry of a batch. begin is where the one before it ended.
func (s *scanner) entry(e *batchEntry, begin int) (l layout, ok bool) {
	placed := func(into *[]byte, at *span) bool {
		ok := s.textOnce(into)
		*at = span{s.i - 1 - len(*into) - begin, s.i - 1 - begin}
		return ok
	}
	inner := func(field []byte) bool {
		switch string(field) {
		case "versionName":
			return s.textOnce(&e.innerVersion)
		case "material":
			return placed(&e.wrapped, &l.wrapped)
		}
		return s.skipText()
	}
	ok = s.object(func(field []byte) bool {
		switch string(field) {
		case "versionName":
			return s.textOnce(&e.versionName)
		case "iv":
			return placed(&e.iv, &l.iv)
		case "encryptedKeyVersion":
			if e.hasInner {
				return false
			}
			e.hasInner = true
			return s.object(inner)
		}
		return s.skipText()
	})
	l.begin, l.end = begin, s.i
	return l, ok
}

// alike takes an entry that is like the last one, byte for byte, but for its IV
// and its wrapped key, which are as long as those of the last.
func (s *scanner) alike(last *layout) (iv, wrapped []byte, ok bool) {
	size := last.end - last.begin
	if last.iv.end == 0 || last.wrapped.end == 0 || len(s.b)-s.i < size {
		return nil, nil, false
	}
	old, now := s.b[last.begin:last.end], s.b[s.i:s.i+size]
	first, second := last.iv, last.wrapped
	if second.begin < first.begin {
		first, second = second, first
	}
	if !bytes.Equal(old[:first.begin], now[:first.begin]) || !bytes.Equal(old[first.end:second.begin], now[first.end:second.begin]) ||
		!bytes.Equal(old[second.end:], now[second.end:]) || plain(now[first.begin:first.end]) < first.end-first.begin ||
		plain(now[second.begin:second.end]) < second.end-second.begin {
		return nil, nil, false
	}
	s.i += size
	return now[last.iv.begin:last.iv.end:last.iv.end], now[last.wrapped.begin:last.wrapped.end:last.wrapped.end], true
}

func parseBatchSlowly(dst []batchEntry, body []byte, limit int) ([]batchEntry, error) {
	value, commas, err := firstValue(body)
	if err != nil {
		return dst, err
	}
	if commas >= limit {
		return dst, tooManyEntries(limit)
	}
	var raw []json.RawMessage
	if err := unmarshal(value, &raw, "array"); err != nil {
		return dst, err
	}
	if raw == nil {
		return dst, cannotBeNull("jsonPayload")
	}
	for _, r := range raw {
		var e batchEntry
		if e.present = !isNull(r); e.present {
			var o, inner object
			if json.Unmarshal(r, &o) != nil {
				return dst, wrongType("an entry", "an object")
			}
			if r := o["encryptedKeyVersion"]; !isNull(r) {
				e.hasInner = true
				if json.Unmarshal(r, &inner) != nil {
					return dst, wrongType("encryptedKeyVersion", "an object")
				}
			}
			if err := errors.Join(o.text("versionName", &e.versionName), o.text("iv", &e.iv),
				inner.text("versionName", &e.innerVersion), inner.text("material", &e.wrapped)); err != nil {
				return dst, err
			}
		}
		dst = append(dst, e)
	}
	return dst, nil
}

func tooManyEntries(limit int) error {
	return &edek.Error{Kind: edek.Invalid, Op: "read batch",
		Text: fmt.Sprintf("a batch may have at most %d entries (edekd.limits.batch-entries)", limit)}
}

func decodeInPlace(b *[]byte) {
	if *b != nil {
		*b = appendBase64((*b)[:0], *b)
	}
}

// scanner walks a JSON text. Its methods return false for anything that is
// not plain: escapes, control bytes, bytes beyond ASCII, duplicates, numbers.
type scanner struct {
	b []byte
	i int
}

// token skips white space and takes c if it is next.
func (s *scanner) token(c byte) bool {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case c:
			s.i++
			return true
		case ' ', '\n', '\r', '\t':
			s.i++
		default:
			return false
		}
	}
	return false
}

// text takes a string and returns its bytes, never nil.
func (s *scanner) text() ([]byte, bool) {
	if !s.token('"') {
		return nil, false
	}
	start := s.i
	end := start + plain(s.b[start:])
	if end == len(s.b) || s.b[end] != '"' {
		return nil, false
	}
	s.i = end + 1
	return s.b[start:end:end], true
}

// plain returns how many bytes of b, from its begin, mean themselves within a
// JSON string: they are of ASCII, and no quote, backslash or control byte. It
// looks at eight at a time: a byte b of the word has its highest bit set in
// (w-0x01…)&^w&0x80… if b is zero, and the lowest such bit is never wrong.
func plain(b []byte) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; len(b)-i >= 8; i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		quote, backslash := w^ones*'"', w^ones*'\\'
		odd := (w | (w-ones*0x20)&^w | (quote-ones)&^quote | (backslash-ones)&^backslash) & highs
		if odd != 0 {
			return i + bits.TrailingZeros64(odd)/8
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			break
		}
	}
	return i
}

func (s *scanner) textOnce(into *[]byte) bool {
	if *into != nil {
		return false
	}
	var ok bool
	*into, ok = s.text()
	return ok
}

func (s *scanner) skipText() bool {
	_, ok := s.text()
	return ok
}

// object takes an object and calls member at each value.
func (s *scanner) object(member func(field []byte) bool) bool {
	if !s.token('{') {
		return false
	}
	if s.token('}') {
		return true
	}
	for {
		field, ok := s.text()
		if !ok || !s.token(':') || !member(field) {
			return false
		}
		if s.token('}') {
			return true
		}
		if !s.token(',') {
			return false
		}
	}
}

// object is a JSON object as the slow parser reads it. Its values are copies
// of parts of the body, key bytes perhaps among them: see zero.
type object map[string]json.RawMessage

// parseObject is the slow parser for rows that take an object.
func parseObject(body []byte) (object, error) {
	value, _, err := firstValue(body)
	if err != nil {
		return nil, err
	}
	var o object
	if err := unmarshal(value, &o, "object"); err != nil {
		return nil, err
	}
	if o == nil {
		return nil, malformed("the body must be a JSON object")
	}
	return o, nil
}

func malformed(format string, args ...any) error {
	return &edek.Error{Kind: edek.Malformed, Op: "read body", Text: fmt.Sprintf(format, args...)}
}

// maxDepth bounds the nesting of a body, as Jackson does
// (StreamReadConstraints).
const maxDepth = 1000

// beginsArray reports whether the first JSON value of body is an array, if it is
// one at all.
func beginsArray(body []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), " \t\r\n"), []byte("["))
}

// firstValue cuts body to its first JSON value, which is all that Jackson
// reads. It looks at brackets only: whether that is JSON, unmarshal finds out.
// commas is the number of commas between the members of an array or object, so
// that a crowd can be refused before anything is made of it.
func firstValue(body []byte) (value []byte, commas int, err error) {
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	body = bytes.TrimLeft(body, " \t\r\n")
	if len(body) == 0 {
		return nil, 0, malformed("the request has no body: a JSON value is needed")
	}
	if body[0] != '{' && body[0] != '[' {
		return body, 0, nil
	}
	depth, quoted := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == ',' && depth == 1:
			commas++
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return nil, 0, malformed("the JSON value is nested more than %d deep", maxDepth)
			}
		case c == '}' || c == ']':
			if depth--; depth > 0 {
				continue
			}
			if value = body[:i+1]; !utf8.Valid(value) {
				return nil, 0, malformed("the body is not UTF-8")
			}
			return value, commas, nil
		}
	}
	return nil, 0, malformed("the body ends in the middle of the JSON value")
}

func unmarshal(value []byte, into any, want string) error {
	err := json.Unmarshal(value, into)
	if err == nil {
		return nil
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return malformed("the body is not JSON: wrong at byte %d", syntax.Offset)
	}
	return malformed("the body must be a JSON %s", want)
}

func isNull(raw json.RawMessage) bool {
	return raw == nil || bytes.Equal(raw, []byte("null"))
}

func wrongType(field, want string) error {
	return &edek.Error{Kind: edek.WrongType, Op: "read body", Text: fmt.Sprintf("'%s' must be %s", field, want)}
}

// zero overwrites all values.
func (o object) zero() {
	for _, raw := range o {
		clear(raw)
	}
}

// text sets *into to a copy of a string field, which the caller owns, and
// leaves it alone when the field is absent or null.
func (o object) text(field string, into *[]byte) error {
	raw := o[field]
	if isNull(raw) {
		return nil
	}
	if raw[0] != '"' {
		return wrongType(field, "a string")
	}
	*into = appendUnquoted(make([]byte, 0, len(raw)), raw)
	return nil
}

// appendUnquoted appends what raw, a JSON string that encoding/json found
// valid, stands for. That is never longer than raw. It may be key bytes, which
// encoding/json would leave in a Go string that nobody can clear.
func appendUnquoted(dst, raw []byte) []byte {
	for i := 1; i < len(raw)-1; i++ {
		if raw[i] != '\\' {
			dst = append(dst, raw[i])
			continue
		}
		i++
		switch c := raw[i]; c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			char := hexRune(raw[i+1:])
			i += 4
			if utf16.IsSurrogate(char) && raw[i+1] == '\\' && raw[i+2] == 'u' {
				if pair := utf16.DecodeRune(char, hexRune(raw[i+3:])); pair != utf8.RuneError {
					char = pair
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, char) // a lone surrogate becomes U+FFFD
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// hexRune reads four hexadecimal digits.
func hexRune(b []byte) (char rune) {
	for _, c := range b[:4] {
		char = char<<4 | rune(unhex(c))
	}
	return char
}

// integer returns an integer field, 0 when it is absent or null. As Jackson
// reads into untyped maps, an integer beyond int32 or with a fraction is of
// another Java type and does not pass for an int.
func (o object) integer(field string) (int, error) {
	raw := o[field]
	if isNull(raw) {
		return 0, nil
	}
	n, err := strconv.ParseInt(string(raw), 10, 32)
	if err != nil {
		return 0, wrongType(field, "an integer within 32 bits")
	}
	return int(n), nil
}

// texts returns a field that maps strings to strings, nil when it is absent
// or null.
func (o object) texts(field string) (map[string]string, error) {
	raw := o[field]
	if isNull(raw) {
		return nil, nil
	}
	var pointers map[string]*string
	if err := json.Unmarshal(raw, &pointers); err != nil {
		return nil, wrongType(field, "an object of strings")
	}
	m := make(map[string]string, len(pointers))
	for name, value := range pointers {
		if value == nil {
			return nil, wrongType(field, "an object of strings")
		}
		m[name] = *value
	}
	return m, nil
}
