package audit

import (
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

// timeLayout is log4j's ISO8601 date, in local time.
const timeLayout = "2006-01-02 15:04:05,000"

const (
	// maxName bounds a user or key name, maxText an extra, URL or message, in
	// bytes of the original. Parsers read lines into buffers too.
	maxName = 1 << 10
	maxText = 4 << 10
)

// The formats below are frozen: Hadoop promises them to whoever parses audit
// logs, the space after the closing bracket included (SimpleKMSAuditLogger).

func appendTime(b []byte, t time.Time) []byte {
	return append(t.AppendFormat(b, timeLayout), ' ')
}

// appendText appends a record as one of the five frozen kinds of lines, or
// nothing where none of them is for it.
func appendText(b []byte, r *record) []byte {
	if r.Op.jsonOnly() {
		return b
	}
	b = appendTime(b, r.time)
	switch r.verdict {
	case denied:
		b = appendOperation(append(b, "UNAUTHORIZED"...), r)
	case failed, lost:
		b = appendFailure(b, r)
	case unauthenticated:
		b = appendUnauthenticated(b, r)
	default:
		b = appendOperation(append(b, "OK"...), r)
	}
	return append(b, '\n')
}

// appendOperation appends `[op=X, key=K, user=U] extra`, for counted successes
// with `accessCount=N, interval=Tms` in the brackets. What is empty is left
// out, and with it the brackets when nothing remains.
func appendOperation(b []byte, r *record) []byte {
	sep := "["
	field := func(name, value string) {
		if value == "" {
			return
		}
		b = append(append(append(b, sep...), name...), '=')
		b = appendClean(b, value, maxName)
		sep = ", "
	}
	field("op", r.Op.String())
	field("key", r.Key)
	field("user", r.Caller.Full)
	if r.count > 0 {
		b = strconv.AppendInt(append(b, ", accessCount="...), r.count, 10)
		b = strconv.AppendInt(append(b, ", interval="...), r.interval.Milliseconds(), 10)
		b = append(b, "ms"...)
	}
	if sep != "[" {
		b = append(b, ']')
	}
	return appendClean(append(b, ' '), r.extra, maxText)
}

// appendFailure appends `ERROR[user=U] Method:'M' Exception:'text'`. Losses are
// told in this form, too, as those of nobody: all parsers of the format know it.
func appendFailure(b []byte, r *record) []byte {
	method, text := r.method, r.text
	if r.verdict == lost {
		method, text = "AUDIT", "lost "+strconv.FormatInt(r.gap.successes, 10)+" successes and "+strconv.FormatInt(r.gap.others, 10)+
			" other events between "+r.gap.from.Format(timeLayout)+" and "+r.gap.to.Format(timeLayout)
	}
	b = append(b, "ERROR"...)
	if r.Caller.Full != "" {
		b = append(appendClean(append(b, "[user="...), r.Caller.Full, maxName), ']')
	}
	b = appendClean(append(b, " Method:'"...), method, maxName)
	b = appendClean(append(b, "' Exception:'"...), text, maxText)
	return append(b, '\'')
}

func appendUnauthenticated(b []byte, r *record) []byte {
	b = append(b, "UNAUTHENTICATED RemoteHost:"...)
	if r.Client.IsValid() {
		b = r.Client.WithZone("").AppendTo(b) // a zone is any text
	}
	b = appendClean(append(b, " Method:"...), r.method, maxName)
	b = appendClean(append(b, " URL:"...), r.url, maxText)
	b = appendClean(append(b, " ErrorMsg:'"...), r.text, maxText)
	return append(b, '\'')
}

const hex = "0123456789abcdef"

// appendClean appends s so that it can't start a line of its own or deceive the
// reader of a terminal: control characters, line and paragraph separators,
// characters that turn the writing direction and bytes that are not UTF-8 are
// replaced by Java-like escapes. Backslashes stay single, since DOMAIN\user is
// an everyday name. More than limit bytes of s are cut off and counted.
func appendClean(b []byte, s string, limit int) []byte {
	s, rest := cut(s, limit)
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < 0x7f {
			b = append(b, c)
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r == utf8.RuneError && size == 1:
			b = append(b, '\\', 'x', hex[c>>4], hex[c&15])
		case deceptive(r):
			b = appendEscape(b, r)
		default:
			b = append(b, s[i:i+size]...)
		}
		i += size
	}
	return appendRest(b, rest)
}

// deceptive reports whether a terminal or an editor may take r for the end of a
// line or change what stands beside it.
func deceptive(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control)
}

// appendEscape appends a rune of the basic plane, where all deceptive ones are.
func appendEscape(b []byte, r rune) []byte {
	return append(b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}

// cut returns s, or as many whole runes of it as limit bytes hold and how many
// bytes are missing.
func cut(s string, limit int) (string, int) {
	if len(s) <= limit {
		return s, 0
	}
	end := limit
	for end > max(0, limit-utf8.UTFMax) && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end], len(s) - end
}

// appendRest tells how many bytes have been cut off, if any.
func appendRest(b []byte, rest int) []byte {
	if rest == 0 {
		return b
	}
	b = strconv.AppendInt(append(b, "...("...), int64(rest), 10)
	return append(b, " bytes cut)"...)
}
