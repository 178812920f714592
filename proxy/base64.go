package proxy

// base64Value holds the six bits of each letter of both alphabets, standard
// and URL-safe; 0xff marks what is no letter.
var base64Value = func() (table [256]byte) {
	for i := range table {
		table[i] = 0xff
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		table[c] = byte(i)
	}
	table['-'], table['_'] = 62, 63
	return table
}()

// base64Group holds the bits of the letters of a group of four, each at its
// place among 24; what is no letter has notLetter.
var base64Group = func() (group [4][256]uint32) {
	for place := range group {
		for c, v := range base64Value {
			if group[place][c] = notLetter; v != 0xff {
				group[place][c] = uint32(v) << (18 - 6*place)
			}
		}
	}
	return group
}()

const notLetter = 1 << 24

// appendBase64 appends what src decodes to, the way Apache Commons Codec does
// for the Java server: both alphabets, mixed, padded or not, foreign
// characters skipped, the first '=' ends the text, a lone last letter is
// dropped. dst may be src[:0]: the result never overtakes the source.
func appendBase64(dst, src []byte) []byte {
	for len(src) >= 4 {
		x := base64Group[0][src[0]] | base64Group[1][src[1]] | base64Group[2][src[2]] | base64Group[3][src[3]]
		if x >= notLetter {
			break
		}
		dst = append(dst, byte(x>>16), byte(x>>8), byte(x))
		src = src[4:]
	}
	var bits uint32
	n := 0
	for _, c := range src {
		if c == '=' {
			break
		}
		v := base64Value[c]
		if v == 0xff {
			continue
		}
		bits = bits<<6 | uint32(v)
		if n++; n == 4 {
			dst = append(dst, byte(bits>>16), byte(bits>>8), byte(bits))
			bits, n = 0, 0
		}
	}
	switch n {
	case 2:
		dst = append(dst, byte(bits>>4))
	case 3:
		dst = append(dst, byte(bits>>10), byte(bits>>2))
	}
	return dst
}
