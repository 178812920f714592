package audit

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// jsonTime is RFC 3339 in local time with milliseconds.
const jsonTime = "2006-01-02T15:04:05.000Z07:00"

// decisions are the words for what became of a request.
var decisions = [...]string{
	allowed:         "allowed",
	denied:          "denied",
	failed:          "failed",
	unauthenticated: "unauthenticated",
	lost:            "lost",
}

// appendJSON appends a record as one JSON object on a line. Fields that have no
// value are left out; see docs/audit.md for their meaning.
func appendJSON(b []byte, r *record) []byte {
	b = r.time.AppendFormat(append(b, `{"time":"`...), jsonTime)
	b = append(append(b, `","decision":"`...), decisions[r.verdict]...)
	b = append(b, '"')
	b = appendJSONField(b, "server", r.server, maxName)
	if r.verdict == lost {
		return append(appendJSONGap(b, &r.gap), "}\n"...)
	}
	if r.status != 0 {
		b = appendJSONInt(b, "status", int64(r.status))
	}
	b = appendJSONField(b, "op", r.Op.String(), maxName)
	if r.Op >= KeyAll {
		b = append(b, `,"layer":"key"`...)
	}
	b = appendJSONField(b, "key", r.Key, maxName)
	b = appendJSONField(b, "user", r.Caller.User, maxName)
	b = appendJSONField(b, "principal", r.Caller.Full, maxName)
	switch {
	case r.mixed:
		b = append(b, `,"mixed":true`...)
	default:
		b = appendJSONField(b, "realUser", r.Caller.Real, maxName)
		b = appendJSONField(b, "realPrincipal", r.RealFull, maxName)
		b = appendJSONField(b, "auth", r.Auth, maxName)
		if r.Client.IsValid() {
			b = append(b, `,"client":"`...)
			b = append(r.Client.WithZone("").AppendTo(b), '"') // a zone is any text
		}
	}
	if r.Request != 0 && !r.total {
		b = append(b, `,"requestId":"`...)
		b = append(strconv.AppendUint(b, r.Request, 16), '"')
	}
	if r.sequence != nil {
		b = appendJSONInt(b, "tokenSequence", int64(*r.sequence))
	}
	if r.count > 0 {
		b = appendJSONInt(b, "count", r.count)
		b = appendJSONInt(b, "intervalMs", r.interval.Milliseconds())
	}
	if r.batch > 0 {
		b = appendJSONInt(b, "count", int64(r.batch))
	}
	b = appendJSONField(b, "method", r.method, maxName)
	b = appendJSONField(b, "url", r.url, maxText)
	b = appendJSONField(b, "error", r.text, maxText)
	b = appendJSONField(b, "details", r.extra, maxText)
	return append(b, "}\n"...)
}

// jsonForm is appendJSON with the name of the server.
func jsonForm(server string) form {
	return func(b []byte, r *record) []byte {
		named := *r
		named.server = server
		return appendJSON(b, &named)
	}
}

func appendJSONGap(b []byte, g *gap) []byte {
	b = appendJSONInt(b, "successes", g.successes)
	b = appendJSONInt(b, "others", g.others)
	at := func(name string, t time.Time) {
		b = append(append(append(b, `,"`...), name...), `":"`...)
		b = append(t.AppendFormat(b, jsonTime), '"')
	}
	at("from", g.from)
	at("to", g.to)
	return b
}

func appendJSONInt(b []byte, name string, n int64) []byte {
	b = append(append(append(b, `,"`...), name...), `":`...)
	return strconv.AppendInt(b, n, 10)
}

// appendJSONField appends a string that is not empty.
func appendJSONField(b []byte, name, value string, limit int) []byte {
	if value == "" {
		return b
	}
	b = append(append(append(b, `,"`...), name...), `":"`...)
	return append(appendJSONString(b, value, limit), '"')
}

// appendJSONString appends the inside of a JSON string. What appendClean
// escapes is escaped here as well, so that the raw file deceives nobody
// either; whoever reads the JSON gets the original back. Only bytes that are
// not UTF-8, which JSON cannot carry, are spelled out as \xNN.
func appendJSONString(b []byte, s string, limit int) []byte {
	s, rest := cut(s, limit)
	for i := 0; i < len(s); {
		c := s[i]
		if c == '"' || c == '\\' {
			b = append(b, '\\', c)
			i++
			continue
		}
		if c >= ' ' && c < 0x7f {
			b = append(b, c)
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, '\\', '\\', 'x', hex[c>>4], hex[c&15])
		case deceptive(r):
			b = appendEscape(b, r)
		default:
			b = append(b, s[i:i+size]...)
		}
		i += size
	}
	return appendRest(b, rest)
}
