package authn

import "bytes"

// parameter is one parameter of a query string as hadoop-auth reads it.
type parameter struct {
	raw   []byte // still encoded; a part of the query
	given bool   // false: not in the query
	bare  bool   // there is no '=' behind the name
}

// parameters are those that authentication looks at in every request. Nothing
// else in the server reads them: what stands here is what counts.
type parameters struct {
	query      []byte
	user       parameter // user.name
	delegation parameter
	doAs       parameter
	op         parameter
	// disputed says that a later doAs names somebody else than the first,
	// which is the one that counts.
	disputed bool
}

// query returns the query string of a request target, still encoded.
func query(target []byte) []byte {
	if i := bytes.IndexByte(target, '#'); i >= 0 {
		target = target[:i]
	}
	if i := bytes.IndexByte(target, '?'); i >= 0 {
		return target[i+1:]
	}
	return nil
}

// parse finds the parameters in one pass. Of several of one name the first
// counts; all names are case-sensitive but doAs. It does not allocate unless a
// name is percent-encoded.
func parse(query []byte) (p parameters) {
	p.query = query
	for rest := query; len(rest) > 0; {
		var key []byte
		var value parameter
		key, value, rest = cutParameter(rest)
		switch len(key) {
		case len("op"):
			if string(key) == "op" && !p.op.given {
				p.op = value
			}
		case len("doAs"), len("doA\u017f"): // the long s is an s to Java when case does not count
			if !bytes.EqualFold(key, []byte("doAs")) {
				break
			}
			if !p.doAs.given {
				p.doAs = value
			} else if value.bare != p.doAs.bare || !bytes.Equal(value.raw, p.doAs.raw) {
				p.disputed = p.disputed || value.value() != p.doAs.value()
			}
		case len("user.name"):
			if string(key) == "user.name" && !p.user.given {
				p.user = value
			}
		case len("delegation"):
			if string(key) == "delegation" && !p.delegation.given {
				p.delegation = value
			}
		}
	}
	return p
}

// first finds the first parameter of that name.
func (p *parameters) first(name string) parameter {
	for rest := p.query; len(rest) > 0; {
		var key []byte
		var value parameter
		key, value, rest = cutParameter(rest)
		if string(key) == name {
			return value
		}
	}
	return parameter{}
}

// cutParameter cuts the first parameter off a query. Like the parser hadoop-auth
// uses (Apache HttpClient's URLEncodedUtils) it splits at ';' as well as at '&'.
func cutParameter(query []byte) (key []byte, value parameter, rest []byte) {
	end, equals, encoded := 0, -1, false
	for ; end < len(query); end++ {
		c := query[end]
		if c == '&' || c == ';' {
			rest = query[end+1:]
			break
		}
		if equals >= 0 {
			continue
		}
		switch c {
		case '=':
			equals = end
		case '%', '+':
			encoded = true
		}
	}
	value = parameter{given: true, bare: equals < 0}
	key, value.raw = query[:end], query[end:end]
	if equals >= 0 {
		key, value.raw = query[:equals], query[equals+1:end]
	}
	if encoded {
		key = decode(key)
	}
	return key, value, rest
}

// present reports whether the parameter has a value, be it an empty one.
func (p parameter) present() bool { return p.given && !p.bare }

// bytes returns the decoded value, a part of the query if nothing is encoded.
func (p parameter) bytes() []byte {
	if bytes.ContainsAny(p.raw, "%+") {
		return decode(p.raw)
	}
	return p.raw
}

// value returns the decoded value. Bytes that are not UTF-8 become U+FFFD.
func (p parameter) value() string {
	return string(bytes.ToValidUTF8(decode(p.raw), []byte("\uFFFD")))
}

// decode undoes form encoding as URLEncodedUtils does: '+' is a space, and a
// '%' without two hexadecimal digits behind it stands, with the two characters
// there, for itself.
func decode(src []byte) []byte {
	dst := make([]byte, 0, len(src))
	for i := 0; i < len(src); i++ {
		switch c := src[i]; {
		case c == '%' && i+2 < len(src):
			high, low := unhex(src[i+1]), unhex(src[i+2])
			if high < 16 && low < 16 {
				dst = append(dst, high<<4|low)
			} else {
				dst = append(dst, src[i:i+3]...)
			}
			i += 2
		case c == '+':
			dst = append(dst, ' ')
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// unhex returns the value of a hexadecimal digit, 16 for anything else.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 16
}
