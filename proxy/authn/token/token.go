package token

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/edekd/edekd/hadoop/writable"
)

const (
	// identifierMax is the length of the longest identifier.
	identifierMax = 1 + 3*(5+NameMax) + 2*9 + 2*5
	// passwordMax is beyond the length of every MAC.
	passwordMax = 256
	// labelMax bounds kind and service, which clients fill in: the service is
	// the URI of their provider, with every host of it.
	labelMax = 32 << 10
	// encodedMax is the longest text that can be a token.
	encodedMax = (identifierMax + passwordMax + 2*labelMax + 4*5) * 4 / 3
)

// Token is a delegation token, taken apart one level. Whoever holds one can act
// for its owner: it is a credential and no fmt verb prints it.
type Token struct {
	Identifier []byte // what Identifier.Append writes
	Password   []byte // the MAC of Identifier
	Kind       string // Kind; on input anything, and nobody looks at it
	Service    string // what the token is for, in the client's view; likewise
}

// AppendURL appends the token's text, as it stands in headers, parameters and
// JSON (Token.encodeToUrlString): URL-safe base64 without padding.
func (t *Token) AppendURL(dst []byte) []byte {
	raw := writable.AppendBytes(nil, t.Identifier)
	raw = writable.AppendBytes(raw, t.Password)
	raw = writable.AppendText(raw, t.Kind)
	raw = writable.AppendText(raw, t.Service)
	dst = base64.RawURLEncoding.AppendEncode(dst, raw)
	clear(raw)
	return dst
}

// Format keeps every fmt verb from reaching the password.
func (t *Token) Format(f fmt.State, _ rune) {
	fmt.Fprint(f, "delegation token (hidden)")
}

var errBase64 = errors.New("not the base64 text of a delegation token")

// ParseURL reads a token's text. As Hadoop does it takes both alphabets of
// base64, mixed if need be, with or without padding; unlike Hadoop it takes no
// other characters among them, and no bytes behind the token. The token shares
// no memory with text.
func ParseURL(text []byte) (*Token, error) {
	if len(text) > encodedMax {
		return nil, &writable.LengthError{Length: int64(len(text)), Limit: encodedMax}
	}
	body := bytes.TrimRight(text, "=")
	if padding := len(text) - len(body); padding > 2 || padding > 0 && len(text)%4 != 0 {
		return nil, errBase64
	}
	url := bytes.Clone(body)
	for i, c := range url {
		switch c {
		case '+':
			url[i] = '-'
		case '/':
			url[i] = '_'
		case '\r', '\n': // which Go's decoder would skip
			return nil, errBase64
		}
	}
	raw, err := base64.RawURLEncoding.Strict().AppendDecode(nil, url)
	clear(url)
	if err != nil {
		return nil, errBase64
	}
	r := writable.NewReader(raw)
	t := &Token{
		Identifier: r.Bytes(identifierMax),
		Password:   r.Bytes(passwordMax),
		Kind:       r.Text(labelMax),
		Service:    r.Text(labelMax),
	}
	err = r.Err()
	if err == nil && len(r.Rest()) > 0 {
		err = errTrailing
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}
