// Package cookie reads and writes Hadoop's authentication cookie hadoop.auth:
// the token text inside it, the Cookie header it comes in and the Set-Cookie
// header it goes out with. It knows nothing of signatures but where they
// stand, and trusts nothing it reads.
package cookie

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

// Token is what a cookie says: who, how authenticated, until when. Its text is
// that of hadoop-auth's AuthToken, which Java clients parse too.
type Token struct {
	User      string // short name, not empty, without '&'
	Principal string // full name, same rules; equals User under simple authentication
	Type      string // name of the authentication handler, same rules
	IdleUntil int64  // when it ends unless used before, ms since the epoch; 0: no such limit
	Expires   int64  // when it ends, ms since the epoch; Never: it does not
}

// Never is the expiry of a token that does not expire. No server hands out such
// tokens, but Hadoop accepts one that is well signed.
const Never = -1

// ErrToken says that a text is not a token's. The words are AuthToken's.
var ErrToken = errors.New("Invalid token string, missing attributes") //nolint:staticcheck // Hadoop's spelling

// ErrValue says that a name cannot stand in a token text.
var ErrValue = errors.New("is empty or contains a '&' or a control character")

// CheckValue refuses names that would change the meaning of a token text or
// of a line of a log: empty ones, those with '&', which separates attributes
// (Hadoop refuses these two), and those with ASCII control characters.
func CheckValue(s string) error {
	if s == "" || strings.IndexFunc(s, func(r rune) bool { return r == '&' || r < ' ' || r == 0x7f }) >= 0 {
		return ErrValue
	}
	return nil
}

// Append appends the token's text to dst: u=…&p=…&t=…&e=…, with i=… before e
// when there is an idle limit.
func (t *Token) Append(dst []byte) []byte {
	dst = append(append(dst, "u="...), t.User...)
	dst = append(append(dst, "&p="...), t.Principal...)
	dst = append(append(dst, "&t="...), t.Type...)
	if t.IdleUntil != 0 {
		dst = strconv.AppendInt(append(dst, "&i="...), t.IdleUntil, 10)
	}
	return strconv.AppendInt(append(dst, "&e="...), t.Expires, 10)
}

// Parse reads a token's text. It accepts only what Append writes, attributes
// in that order and numbers in their shortest form, so that what was signed
// and what is understood cannot differ. The token's strings are parts of text.
func Parse(text string) (Token, error) {
	var t Token
	var ok [4]bool
	t.User, text, ok[0] = attribute(text, "u=")
	t.Principal, text, ok[1] = attribute(text, "p=")
	t.Type, text, ok[2] = attribute(text, "t=")
	if ok != [4]bool{true, true, true} {
		return Token{}, ErrToken
	}
	if strings.HasPrefix(text, "i=") {
		var idle string
		idle, text, _ = attribute(text, "i=")
		if t.IdleUntil, ok[3] = millis(idle); !ok[3] || t.IdleUntil <= 0 {
			return Token{}, ErrToken
		}
	}
	expires, found := strings.CutPrefix(text, "e=")
	if t.Expires, ok[3] = millis(expires); !found || !ok[3] {
		return Token{}, ErrToken
	}
	return t, nil
}

// attribute cuts "name=value&" off text.
func attribute(text, name string) (value, rest string, ok bool) {
	text, named := strings.CutPrefix(text, name)
	value, rest, ended := strings.Cut(text, "&")
	return value, rest, named && ended && CheckValue(value) == nil
}

// millis reads a time in its shortest decimal form, Never included.
func millis(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= Never && strconv.FormatInt(n, 10) == s
}

var signatureMark = []byte("&s=")

// Split cuts a cookie's value into token text and signature, at the last "&s="
// as Hadoop does. ok is false when there is none.
func Split(value []byte) (text, signature []byte, ok bool) {
	i := bytes.LastIndex(value, signatureMark)
	if i < 0 {
		return nil, nil, false
	}
	return value[:i], value[i+len(signatureMark):], true
}

// AppendSigned appends a cookie's value: text, the mark, and what sign appends
// for text.
func AppendSigned(dst []byte, t *Token, sign func(dst, text []byte) []byte) []byte {
	start := len(dst)
	dst = t.Append(dst)
	text := dst[start:len(dst):len(dst)]
	return sign(append(dst, signatureMark...), text)
}
