package cookie

import (
	"bytes"
	"errors"
	"time"
)

// Name is the cookie's name. It is compared exactly.
const Name = "hadoop.auth"

// Find returns the value of the first hadoop.auth cookie in the value of a
// Cookie header, without surrounding quotes; it is a part of header. An empty
// value is found too: it means something to Hadoop.
//
// As in Jetty, which the Java server reads cookies with, a cookie that is
// malformed is skipped as if it were not there: one whose value holds a
// control character, a backslash, or a quote elsewhere than around it.
// Jetty also skips values with commas and non-ASCII bytes; these are accepted
// here, so that users whose names have them get a cookie that works.
func Find(header []byte) (value []byte, found bool) {
	for {
		if value, header, found = first(header); !found || carries(value) {
			return value, found
		}
	}
}

// First is Find for those who know the cookie they expect: it does not look at
// the characters of the value. When it returns a value that Find returned
// before, Find would return the same again.
func First(header []byte) (value []byte, found bool) {
	value, _, found = first(header)
	return value, found
}

// first returns the value of the first hadoop.auth cookie, whatever it is, and
// what stands behind the cookie.
func first(header []byte) (value, rest []byte, found bool) {
	// As Hadoop's clients write it; what follows reads it the same way.
	if value, ok := bytes.CutPrefix(header, []byte(Name+`="`)); ok {
		if end := bytes.IndexByte(value, '"'); end >= 0 && end+1 == len(value) {
			return value[:end], nil, true
		}
	}
	for len(header) > 0 {
		var name, raw []byte
		if name, raw, header = next(header); string(name) != Name {
			continue
		}
		if len(raw) >= 2 && raw[0] == '"' && raw[len(raw)-1] == '"' {
			raw = raw[1 : len(raw)-1]
		}
		return raw, header, true
	}
	return nil, nil, false
}

// next cuts the first cookie off header; raw still has its quotes, which hide
// semicolons. The name is nil when there is no '='.
func next(header []byte) (name, raw, rest []byte) {
	equals, end := bytes.IndexByte(header, '='), bytes.IndexByte(header, ';')
	if equals < 0 || (end >= 0 && end < equals) {
		if end >= 0 {
			rest = header[end+1:]
		}
		return nil, nil, rest
	}
	name = bytes.Trim(header[:equals], blanks)
	raw = bytes.TrimLeft(header[equals+1:], blanks)
	if len(raw) > 0 && raw[0] == '"' {
		closing := bytes.IndexByte(raw[1:], '"') + 1
		if closing == 0 {
			return name, raw, nil
		}
		end = bytes.IndexByte(raw[closing:], ';')
		if end >= 0 {
			end += closing
		}
	} else {
		end = bytes.IndexByte(raw, ';')
	}
	if end >= 0 {
		raw, rest = raw[:end], raw[end+1:]
	}
	return name, bytes.TrimRight(raw, blanks), rest
}

const blanks = " \t"

// Carries reports whether a cookie can carry the value, so that it comes back
// as it went out.
func Carries(value string) bool { return carries(value) }

func carries[T string | []byte](value T) bool {
	for i := range len(value) {
		if barred[value[i]] {
			return false
		}
	}
	return true
}

// barred are the bytes that no cookie value may have.
var barred = func() (t [256]bool) {
	for c := range ' ' {
		t[c] = true
	}
	t[0x7f], t['"'], t[';'], t['\\'] = true, true, true, true
	return t
}()

// Attributes are the settings of a server's cookies.
type Attributes struct {
	Path       string // empty: none, which is Hadoop's default for KMS
	Domain     string // empty: none
	Persistent bool   // whether cookies tell their expiry, so that clients keep them beyond a session
}

// Check refuses settings that would break out of their place in the header.
func (a *Attributes) Check() error {
	if !carries(a.Path) || !carries(a.Domain) {
		return errors.New("cookie path and domain must not contain quotes, semicolons, backslashes or control characters")
	}
	return nil
}

// AppendSet appends the value of a Set-Cookie header in Hadoop's own spelling.
// An empty value clears the cookie. expires counts ms since the epoch; secure
// says that the cookie must not travel in the clear. The value must be one
// that cookies carry.
func (a *Attributes) AppendSet(dst []byte, value []byte, expires int64, secure bool) []byte {
	dst = append(append(dst, Name...), '=')
	if len(value) > 0 {
		dst = append(append(append(dst, '"'), value...), '"')
	}
	if a.Path != "" {
		dst = append(append(dst, "; Path="...), a.Path...)
	}
	if a.Domain != "" {
		dst = append(append(dst, "; Domain="...), a.Domain...)
	}
	if a.Persistent {
		dst = append(dst, "; Expires="...)
		dst = time.UnixMilli(expires).UTC().AppendFormat(dst, "Mon, 02-Jan-2006 15:04:05 GMT")
	}
	if secure {
		dst = append(dst, "; Secure"...)
	}
	return append(dst, "; HttpOnly"...)
}
