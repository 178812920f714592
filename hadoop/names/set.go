package names

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// set is a set of characters: pairs of first and last in ascending order, with
// gaps between them. nil is no set; the empty one is not nil.
type set []rune

func single(c rune) set { return set{c, c} }

// union joins sets, which may be given as pairs in any order.
func union(sets ...set) set {
	type span struct{ first, last rune }
	var spans []span
	for _, s := range sets {
		for i := 0; i < len(s); i += 2 {
			spans = append(spans, span{s[i], s[i+1]})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return int(a.first - b.first) })
	joined := set{}
	for _, s := range spans {
		if n := len(joined); n > 0 && s.first <= joined[n-1]+1 {
			joined[n-1] = max(joined[n-1], s.last)
		} else {
			joined = append(joined, s.first, s.last)
		}
	}
	return joined
}

// negated returns all other characters.
func (s set) negated() set {
	others, from := set{}, rune(0)
	for i := 0; i < len(s); i += 2 {
		if from < s[i] {
			others = append(others, from, s[i]-1)
		}
		from = s[i+1] + 1
	}
	if from <= unicode.MaxRune {
		others = append(others, from, unicode.MaxRune)
	}
	return others
}

func intersection(a, b set) set { return union(a.negated(), b.negated()).negated() }

// folded adds the other case of the letters of ASCII, as Java's (?i) does.
func (s set) folded() set {
	const shift = 'a' - 'A'
	lower, upper := intersection(s, set{'a', 'z'}), intersection(s, set{'A', 'Z'})
	for i := range lower {
		lower[i] -= shift
	}
	for i := range upper {
		upper[i] += shift
	}
	return union(s, lower, upper)
}

// String is the set in the syntax of Go's expressions.
func (s set) String() string {
	if len(s) == 0 {
		return never
	}
	var b strings.Builder
	b.WriteByte('[')
	for i := 0; i < len(s); i += 2 {
		fmt.Fprintf(&b, `\x{%x}-\x{%x}`, s[i], s[i+1])
	}
	b.WriteByte(']')
	return b.String()
}

// Java's predefined classes; without the flag U all but \h and \v are of ASCII.
var (
	digits     = set{'0', '9'}
	letters    = set{'A', 'Z', 'a', 'z'}
	words      = set{'0', '9', 'A', 'Z', '_', '_', 'a', 'z'}
	spaces     = set{'\t', '\r', ' ', ' '}
	horizontal = set{'\t', '\t', ' ', ' ', 0xa0, 0xa0, 0x1680, 0x1680, 0x180e, 0x180e, 0x2000, 0x200a, 0x202f, 0x202f, 0x205f, 0x205f, 0x3000, 0x3000}
	vertical   = set{'\n', '\r', 0x85, 0x85, 0x2028, 0x2029}
)

var escapedSets = map[rune]set{
	'd': digits, 'D': digits.negated(),
	'w': words, 'W': words.negated(),
	's': spaces, 'S': spaces.negated(),
	'h': horizontal, 'H': horizontal.negated(),
	'v': vertical, 'V': vertical.negated(),
}

// properties are the classes of POSIX, which in Java are of ASCII.
var properties = map[string]set{
	"Lower": {'a', 'z'}, "Upper": {'A', 'Z'}, "Alpha": letters, "Digit": digits,
	"Alnum": union(letters, digits), "ASCII": {0, 0x7f}, "XDigit": {'0', '9', 'A', 'F', 'a', 'f'},
	"Punct": {'!', '/', ':', '@', '[', '`', '{', '~'}, "Graph": {'!', '~'}, "Print": {' ', '~'},
	"Blank": {'\t', '\t', ' ', ' '}, "Cntrl": {0, 0x1f, 0x7f, 0x7f}, "Space": spaces,
}

// class reads a class behind its opening bracket: characters, ranges and classes
// joined, && between those of which all must hold.
func (t *translator) class() set {
	defer t.enter()()
	negated := t.take("^")
	var all []set // the operands of &&
	items, plain := []set{}, true
	for {
		if t.ahead("]") || t.ahead("&&") {
			if len(items) == 0 {
				t.fail("an empty part of a class", `write \] or \& for the character`)
			}
			all = append(all, union(items...))
			items = nil
			if t.take("]") {
				break
			}
			t.pos += 2
			if plain = false; t.ahead("&") {
				t.fail("an & behind &&", `write \& for the character`)
			}
			continue
		}
		if t.take("[") {
			plain = false
			items = append(items, t.class())
			continue
		}
		items = append(items, t.item())
	}
	if negated && !plain {
		t.fail("a ^ before a class with classes in it, which is not the same in all releases of the JDK", "write [X&&[^Y]]")
	}
	s := all[0]
	for _, other := range all[1:] {
		s = intersection(s, other)
	}
	if negated {
		s = s.negated()
	}
	return s
}

// item reads a character, an escape or a range within a class.
func (t *translator) item() set {
	const unclosed = "close the class with ]"
	first, s := t.member(unclosed)
	if t.ahead("-") && !t.ahead("-]") {
		if s != nil || t.ahead("-[") || t.ahead("-&&") {
			t.fail("a - that is no range", `write \- for the character`)
		}
		t.pos++
		last, s := t.member(unclosed)
		if s != nil || last < first {
			t.fail("a range whose end is not behind its beginning", `write \- for the character`)
		}
		return t.cased(set{first, last})
	}
	if s != nil {
		return s
	}
	return t.cased(single(first))
}

// member reads one character, or a set of them.
func (t *translator) member(remedy string) (rune, set) {
	if t.ahead(`\`) {
		return t.escaped()
	}
	return t.next(remedy).c, nil
}

func (t *translator) cased(s set) set {
	if t.fold {
		return s.folded()
	}
	return s
}
