package kms

import (
	"encoding/json"
	"errors"
)

// wireEDEK is an EDEK as it stands in an answer, and wireKey a key version. The
// slices lie in the answer where it could be scanned, and are copies where it
// had to be decoded.
type wireEDEK struct {
	version, iv []byte
	wrapped     wireKey
}

type wireKey struct {
	material, name, version []byte // nil for null and for none
}

var errShape = errors.New("the JSON is of another shape")

// scanner reads the JSON that a KMS writes: objects of known members, plain
// strings and nulls. It gives up at everything else that JSON may have, such as
// escapes, letters beyond ASCII, unknown or repeated members; encoding/json then
// decides. What it accepts, it reads as encoding/json does.
type scanner struct {
	rest         []byte
	iv, material int // how much was left where the last of these began
}

func (s *scanner) blanks() {
	for len(s.rest) > 0 {
		switch s.rest[0] {
		case ' ', '\n', '\t', '\r':
			s.rest = s.rest[1:]
		default:
			return
		}
	}
}

// take reads one byte of punctuation.
func (s *scanner) take(c byte) bool {
	s.blanks()
	if len(s.rest) == 0 || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

func (s *scanner) text() (text []byte, ok bool) {
	if !s.take('"') {
		return nil, false
	}
	for i, c := range s.rest {
		switch {
		case c == '"':
			text, s.rest = s.rest[:i:i], s.rest[i+1:]
			return text, true
		case c < ' ' || c >= 0x80 || c == '\\':
			return nil, false
		}
	}
	return nil, false
}

// value reads a string or null.
func (s *scanner) value() (text []byte, ok bool) {
	s.blanks()
	if len(s.rest) >= 4 && string(s.rest[:4]) == "null" {
		s.rest = s.rest[4:]
		return nil, true
	}
	return s.text()
}

// object reads an object; member reads the value of one of its members.
func (s *scanner) object(member func(name []byte) bool) bool {
	if !s.take('{') {
		return false
	}
	if s.take('}') {
		return true
	}
	for {
		name, ok := s.text()
		if !ok || !s.take(':') || !member(name) {
			return false
		}
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

func (s *scanner) key(k *wireKey) bool {
	var seen [3]bool
	return s.object(func(name []byte) (ok bool) {
		i, to := 0, &k.material
		switch string(name) {
		case "material":
		case "name":
			i, to = 1, &k.name
		case "versionName":
			i, to = 2, &k.version
		default:
			return false
		}
		if seen[i] {
			return false
		}
		seen[i] = true
		*to, ok = s.value()
		if i == 0 {
			s.material = len(s.rest) + 1 + len(*to)
		}
		return ok
	})
}

func (s *scanner) edek(e *wireEDEK) bool {
	var seen [3]bool
	return s.object(func(name []byte) (ok bool) {
		i := 0
		switch string(name) {
		case "versionName":
			e.version, ok = s.value()
		case "iv":
			i = 1
			e.iv, ok = s.value()
			s.iv = len(s.rest) + 1 + len(e.iv)
		case "encryptedKeyVersion":
			i = 2
			ok = s.key(&e.wrapped)
		}
		ok = ok && !seen[i]
		seen[i] = true
		return ok
	})
}

// end reports whether nothing follows.
func (s *scanner) end() bool {
	s.blanks()
	return len(s.rest) == 0
}

// pattern is the text of an EDEK, of which the next ones of an answer are likely
// to be copies in all but two places.
type pattern struct {
	text   string
	places [2][2]int // from, to
	iv     int       // which of the places is the IV; the other is what is wrapped
	e      wireEDEK
}

// learn takes what was just scanned for a pattern.
func (s *scanner) learn(whole []byte, e wireEDEK) (p pattern) {
	if len(e.iv) == 0 || len(e.wrapped.material) == 0 {
		return pattern{}
	}
	used := whole[:len(whole)-len(s.rest)]
	iv, material := len(whole)-s.iv, len(whole)-s.material
	p = pattern{text: string(used), e: e, places: [2][2]int{{iv, iv + len(e.iv)}, {material, material + len(e.wrapped.material)}}}
	if material < iv {
		p.places[0], p.places[1], p.iv = p.places[1], p.places[0], 1
	}
	return p
}

// match reads an EDEK that follows the pattern.
func (s *scanner) match(p *pattern) (e wireEDEK, ok bool) {
	if p.text == "" || len(s.rest) < len(p.text) {
		return e, false
	}
	b, first, second := s.rest[:len(p.text)], p.places[0], p.places[1]
	if string(b[:first[0]]) != p.text[:first[0]] || string(b[first[1]:second[0]]) != p.text[first[1]:second[0]] || string(b[second[1]:]) != p.text[second[1]:] ||
		!isBase64(b[first[0]:first[1]]) || !isBase64(b[second[0]:second[1]]) {
		return e, false
	}
	e = p.e
	e.iv, e.wrapped.material = b[p.places[p.iv][0]:p.places[p.iv][1]], b[p.places[1-p.iv][0]:p.places[1-p.iv][1]]
	s.rest = s.rest[len(p.text):]
	return e, true
}

var inBase64 = func() (in [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		in[c] = true
	}
	return in
}()

func isBase64(b []byte) bool {
	for _, c := range b {
		if !inBase64[c] {
			return false
		}
	}
	return true
}

// scanEDEKs reads an array of at most most EDEKs.
func scanEDEKs(body []byte, most int) (all []wireEDEK, ok bool) {
	s := scanner{rest: body}
	if !s.take('[') {
		return nil, false
	}
	all = make([]wireEDEK, 0, min(most, len(body)/64+1))
	if s.take(']') {
		return all, s.end()
	}
	var p pattern
	for len(all) < most {
		s.blanks()
		e, ok := s.match(&p)
		if !ok {
			whole := s.rest
			if !s.edek(&e) {
				return nil, false
			}
			p = s.learn(whole, e)
		}
		all = append(all, e)
		if s.take(']') {
			return all, s.end()
		}
		if !s.take(',') {
			return nil, false
		}
	}
	return nil, false
}

func scanEDEK(body []byte) (e wireEDEK, ok bool) {
	s := scanner{rest: body}
	ok = s.edek(&e) && s.end()
	return e, ok
}

func scanKey(body []byte) (k wireKey, ok bool) {
	s := scanner{rest: body}
	ok = s.key(&k) && s.end()
	return k, ok
}

// lazy is a string of JSON that is kept in bytes, so that it can be zeroed.
type lazy []byte

func (l *lazy) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*l = nil
		return nil
	}
	if len(b) < 2 || b[0] != '"' {
		return errShape
	}
	for _, c := range b {
		if c == '\\' {
			var s string
			err := json.Unmarshal(b, &s)
			*l = lazy(s)
			return err
		}
	}
	*l = append(lazy{}, b[1:len(b)-1]...)
	return nil
}

type jsonKey struct {
	Material    lazy    `json:"material"`
	Name        *string `json:"name"`
	VersionName *string `json:"versionName"`
}

type jsonEDEK struct {
	VersionName *string `json:"versionName"`
	IV          *string `json:"iv"`
	Encrypted   jsonKey `json:"encryptedKeyVersion"`
}

func raw(s *string) []byte {
	if s == nil {
		return nil
	}
	return append([]byte{}, *s...)
}

func (k *jsonKey) wire() wireKey {
	return wireKey{material: k.Material, name: raw(k.Name), version: raw(k.VersionName)}
}

func (e *jsonEDEK) wire() wireEDEK {
	return wireEDEK{version: raw(e.VersionName), iv: raw(e.IV), wrapped: e.Encrypted.wire()}
}

func readEDEKs(body []byte, most int) ([]wireEDEK, error) {
	if all, ok := scanEDEKs(body, most); ok {
		return all, nil
	}
	var slow []jsonEDEK
	if err := json.Unmarshal(body, &slow); err != nil {
		return nil, errShape
	}
	all := make([]wireEDEK, len(slow))
	for i := range slow {
		all[i] = slow[i].wire()
	}
	return all, nil
}

func readEDEK(body []byte) (wireEDEK, error) {
	if e, ok := scanEDEK(body); ok {
		return e, nil
	}
	var slow jsonEDEK
	if err := json.Unmarshal(body, &slow); err != nil {
		return wireEDEK{}, errShape
	}
	return slow.wire(), nil
}

// scanKeys reads an array of at most most keys.
func scanKeys(body []byte, most int) (all []wireKey, ok bool) {
	s := scanner{rest: body}
	if !s.take('[') {
		return nil, false
	}
	all = make([]wireKey, 0, min(most, len(body)/32+1))
	if s.take(']') {
		return all, s.end()
	}
	for len(all) < most {
		var k wireKey
		if !s.key(&k) {
			return nil, false
		}
		all = append(all, k)
		if s.take(']') {
			return all, s.end()
		}
		if !s.take(',') {
			return nil, false
		}
	}
	return nil, false
}

func readKeys(body []byte, most int) ([]wireKey, error) {
	if all, ok := scanKeys(body, most); ok {
		return all, nil
	}
	var slow []jsonKey
	err := json.Unmarshal(body, &slow)
	all := make([]wireKey, len(slow))
	for i := range slow {
		all[i] = slow[i].wire()
	}
	if err != nil {
		for i := range all {
			clear(all[i].material)
		}
		return nil, errShape
	}
	return all, nil
}

func readKey(body []byte) (wireKey, error) {
	if k, ok := scanKey(body); ok {
		return k, nil
	}
	var slow jsonKey
	if err := json.Unmarshal(body, &slow); err != nil {
		return wireKey{}, errShape
	}
	return slow.wire(), nil
}
