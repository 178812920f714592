package names

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// substitution is s/FROM/TO/, with g where all matches are replaced.
type substitution struct {
	first *regexp.Regexp // finds FROM in a text
	next  *regexp.Regexp // finds FROM behind the first character of a text, as group 1; nil without g
	to    []part         // parameters are groups of FROM
	ascii bool           // FROM is exact for ASCII only
}

// never is an expression that matches nothing.
const never = `[^\x00-\x{10FFFF}]`

func newSubstitution(from, to string, repeat bool) (*substitution, *fault) {
	tooLarge := &fault{what: "the regular expression is too large", remedy: "write smaller numbers of repetitions"}
	p, wrong := translate(from, `\A`)
	if wrong != nil {
		return nil, wrong
	}
	s := &substitution{ascii: p.ascii}
	var err error
	if s.first, err = regexp.Compile(p.expr); err != nil {
		return nil, tooLarge
	}
	if repeat {
		later, wrong := translate(from, never)
		if wrong != nil {
			return nil, wrong
		}
		if s.next, err = regexp.Compile(`\A(?s:.)(?s:.*?)(` + later.expr + `)`); err != nil {
			return nil, tooLarge
		}
	}
	if s.to, wrong = replacement(to, p); wrong != nil {
		wrong.inTo = true
		return nil, wrong
	}
	return s, nil
}

// replacement reads TO as Java's Matcher.appendReplacement does: \ makes the
// next character plain, $ is followed by a group's {name} or number. The first
// digit always belongs to the number, each further one if there is such a group.
func replacement(to string, from pattern) ([]part, *fault) {
	var parts []part
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			parts = append(parts, part{-1, text.String()})
			text.Reset()
		}
	}
	runes := []rune(to)
	for i := 0; i < len(runes); i++ {
		switch c := runes[i]; {
		case unfit(c):
			return nil, &fault{at: i, what: "a control character, a line break or a character beyond U+FFFF in the replacement", remedy: "take it out"}
		case c == '\\':
			if i++; i == len(runes) || unfit(runes[i]) {
				return nil, &fault{at: i - 1, what: "a backslash without a character behind it", remedy: `write \\ for a backslash`}
			}
			text.WriteRune(runes[i])
		case c == '$':
			flush()
			group, length, wrong := from.reference(string(runes[i+1:]))
			if wrong != nil {
				wrong.at = i
				return nil, wrong
			}
			if from.looped[group] {
				return nil, &fault{at: i, what: "the text of a group that is repeated, of which Java may tell an earlier one than the last", remedy: "put the repetition as a whole in parentheses and make the groups in it (?:…)"}
			}
			parts = append(parts, part{group, ""})
			i += length
		default:
			text.WriteRune(c)
		}
	}
	flush()
	return parts, nil
}

// reference reads what stands behind a $, and returns the group and how many
// characters name it.
func (p pattern) reference(text string) (group, length int, wrong *fault) {
	if name, ok := strings.CutPrefix(text, "{"); ok {
		name, _, closed := strings.Cut(name, "}")
		group, known := p.names[name]
		if !closed || !known {
			return 0, 0, &fault{what: "${…} names no group of the expression", remedy: "name a (?<name>…), or write $ and a number"}
		}
		return group, len(name) + 2, nil
	}
	for length < len(text) && text[length] >= '0' && text[length] <= '9' {
		n := group*10 + int(text[length]-'0')
		if length > 0 && n > p.groups {
			break
		}
		group, length = n, length+1
	}
	if length == 0 {
		return 0, 0, &fault{what: "a $ without the number of a group", remedy: `write \$ for a dollar sign`}
	}
	if group > p.groups {
		return 0, 0, &fault{what: fmt.Sprintf("$%d is no group of the expression", group), remedy: "put the part that is meant in parentheses, or use the number of one that is"}
	}
	return group, length, nil
}

// replace is Java's replaceFirst or, with g, its replaceAll: an empty match may
// follow right behind another, which ReplaceAll of Go's regexp passes over.
func (s *substitution) replace(base string) string {
	var b strings.Builder
	at := s.first.FindStringSubmatchIndex(base)
	last := 0
	for at != nil {
		b.WriteString(base[last:at[0]])
		for _, part := range s.to {
			if part.parameter < 0 {
				b.WriteString(part.text)
			} else if from := at[2*part.parameter]; from >= 0 {
				b.WriteString(base[from:at[2*part.parameter+1]])
			}
		}
		last = at[1]
		if s.next == nil {
			break
		}
		from := last
		if at[0] == at[1] {
			from++
			for from < len(base) && !utf8.RuneStart(base[from]) {
				from++
			}
		}
		at = s.find(base, from)
	}
	b.WriteString(base[last:])
	return b.String()
}

// find returns the leftmost match that begins at from, which is not 0, or behind.
func (s *substitution) find(base string, from int) []int {
	if from > len(base) {
		return nil
	}
	_, size := utf8.DecodeLastRuneInString(base[:from])
	before := from - size
	at := s.next.FindStringSubmatchIndex(base[before:])
	if at == nil {
		return nil
	}
	at = at[2:] // group 1 is the whole of FROM
	for i := range at {
		if at[i] >= 0 {
			at[i] += before
		}
	}
	return at
}
