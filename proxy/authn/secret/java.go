package secret

import "unicode/utf8"

// decodeAsJava returns a copy of b as Hadoop's FileSignerSecretProvider sees a
// file: it reads text as UTF-8 and turns it back into bytes, so that each
// malformed sequence of a binary file becomes U+FFFD. Text is unchanged. Where
// one malformed sequence ends is the JDK's own rule, see malformed.
func decodeAsJava(b []byte) []byte {
	size := 0
	for rest := b; len(rest) > 0; {
		n, ok := sequence(rest)
		if !ok {
			size += len(replacement)
		} else {
			size += n
		}
		rest = rest[n:]
	}
	// Sized beforehand: growing would leave copies of the secret behind.
	out := make([]byte, 0, size)
	for len(b) > 0 {
		n, ok := sequence(b)
		if ok {
			out = append(out, b[:n]...)
		} else {
			out = append(out, replacement...)
		}
		b = b[n:]
	}
	return out
}

const replacement = "\uFFFD"

// sequence returns the length of the first UTF-8 sequence of b and whether it
// is well formed.
func sequence(b []byte) (n int, ok bool) {
	r, n := utf8.DecodeRune(b)
	if r == utf8.RuneError && n == 1 {
		return malformed(b), false
	}
	return n, true
}

// malformed returns how many bytes the JDK's UTF-8 decoder takes for one
// malformed sequence: the longest beginning of a well-formed one, as Unicode
// recommends, except that an encoded surrogate counts as a whole.
func malformed(b []byte) int {
	want, low, high := 1, byte(0x80), byte(0xBF)
	switch lead := b[0]; {
	case lead == 0xE0:
		want, low = 3, 0xA0
	case lead > 0xE0 && lead <= 0xEF:
		want = 3
	case lead == 0xF0:
		want, low = 4, 0x90
	case lead == 0xF4:
		want, high = 4, 0x8F
	case lead > 0xF0 && lead < 0xF4:
		want = 4
	}
	n := 1
	for n < min(want, len(b)) && low <= b[n] && b[n] <= high {
		n, low, high = n+1, 0x80, 0xBF
	}
	return n
}
