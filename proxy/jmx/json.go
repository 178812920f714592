package jmx

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// appendObject appends attrs as Jackson's default pretty printer does inside
// depth objects; arrays add no depth.
func appendObject(b []byte, depth int, attrs []Attr) []byte {
	b = append(b, '{')
	for i, a := range attrs {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendIndent(b, depth+1)
		b = append(appendString(b, a.Name), " : "...)
		b = appendValue(b, depth+1, a.Value)
	}
	return append(appendIndent(b, depth), '}')
}

func appendIndent(b []byte, depth int) []byte {
	b = append(b, '\n')
	for range depth {
		b = append(b, "  "...)
	}
	return b
}

func appendValue(b []byte, depth int, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case string:
		return appendString(b, v)
	case bool:
		return strconv.AppendBool(b, v)
	case int:
		return strconv.AppendInt(b, int64(v), 10)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case uint64:
		return strconv.AppendUint(b, v, 10)
	case float64:
		return appendFloat(b, v, 64)
	case float32:
		return appendFloat(b, float64(v), 32)
	case []Attr:
		return appendObject(b, depth, v)
	}
	panic(fmt.Sprintf("jmx: an attribute cannot be a %T", v))
}

// appendFloat writes a float as Java's Double.toString and Float.toString do:
// always with a fraction, and with an exponent outside [0.001, 10 000 000). What
// is no number in JSON is written as 0.0, as with hadoop.http.jmx.nan-filter.enabled.
func appendFloat(b []byte, f float64, bits int) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		f = 0
	}
	if abs := math.Abs(f); abs == 0 || abs >= 1e-3 && abs < 1e7 {
		start := len(b)
		b = strconv.AppendFloat(b, f, 'f', -1, bits)
		if !strings.Contains(string(b[start:]), ".") {
			b = append(b, ".0"...)
		}
		return b
	}
	mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(f, 'e', -1, bits), "e")
	if !strings.Contains(mantissa, ".") {
		mantissa += ".0"
	}
	sign := ""
	if exponent[0] == '-' {
		sign = "-"
	}
	return append(b, mantissa+"E"+sign+strings.TrimLeft(exponent, "+-0")...)
}

const upperHex = "0123456789ABCDEF"

// appendString quotes s with Jackson's escapes. Bytes that are not UTF-8 become
// U+FFFD, as when Java decodes them.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"', r == '\\':
			b = append(b, '\\', byte(r))
		case r >= ' ':
			b = append(b, string(r)...)
		case r == '\b':
			b = append(b, `\b`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\f':
			b = append(b, `\f`...)
		case r == '\r':
			b = append(b, `\r`...)
		default:
			b = append(b, '\\', 'u', '0', '0', upperHex[r>>4], upperHex[r&15])
		}
	}
	return append(b, '"')
}
