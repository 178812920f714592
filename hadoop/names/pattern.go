package names

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// pattern is a Java regular expression in Go's words. It finds what Java's
// finds, groups included, in every text without control characters, line breaks
// and characters beyond U+FFFF; if ascii is set, only in texts of ASCII.
type pattern struct {
	expr   string
	groups int
	names  map[string]int
	looped map[int]bool // groups whose text Java does not always tell right
	ascii  bool
}

// fault is what is wrong with a pattern or a replacement.
type fault struct {
	at           int  // characters before it
	inTo         bool // it is in the replacement
	what, remedy string
}

// maxNesting bounds groups within groups and classes within classes.
const maxNesting = 100

// translate reads a regular expression as java.util.regex.Pattern does. begin is
// what ^ and \A become.
func translate(text, begin string) (p pattern, wrong *fault) {
	t := translator{begin: begin, pattern: pattern{names: map[string]int{}, looped: map[int]bool{}}}
	defer func() {
		if thrown := recover(); thrown != nil {
			f, ok := thrown.(*fault)
			if !ok {
				panic(thrown)
			}
			wrong = f
		}
	}()
	t.unquote([]rune(text))
	piece := t.alternatives()
	if t.more() {
		t.fail("a ) without its (", `write \) for a parenthesis`)
	}
	t.expr = piece.expr
	return t.pattern, nil
}

// unit is a character of the expression, plain where it stood between \Q and \E.
type unit struct {
	c     rune
	plain bool
	at    int
}

// translator is the state while an expression is read. Its methods panic with a
// *fault.
type translator struct {
	pattern
	begin   string
	units   []unit
	pos     int
	fold    bool // (?i) is on
	nesting int
}

// piece is the translation of a part of the expression.
type piece struct {
	expr  string
	empty bool // can match nothing
	bound bool // matches a place, not characters
}

func (t *translator) fail(what, remedy string) {
	at := 0
	if t.pos < len(t.units) {
		at = t.units[t.pos].at
	} else if n := len(t.units); n > 0 {
		at = t.units[n-1].at
	}
	panic(&fault{at: at, what: what, remedy: remedy})
}

// unquote fills units, \Q and \E resolved.
func (t *translator) unquote(text []rune) {
	plain := false
	for i := 0; i < len(text); i++ {
		pair := text[i] == '\\' && i+1 < len(text)
		switch {
		case unfit(text[i]):
			panic(&fault{at: i, what: "a control character, a line break or a character beyond U+FFFF in the expression", remedy: "take it out: no principal holds it"})
		case pair && plain && text[i+1] == 'E':
			plain = false
			i++
		case pair && !plain && text[i+1] == 'Q':
			plain = true
			i++
		case pair && !plain && !unfit(text[i+1]):
			t.units = append(t.units, unit{text[i], false, i}, unit{text[i+1], false, i + 1})
			i++
		default:
			t.units = append(t.units, unit{text[i], plain, i})
		}
	}
}

func (t *translator) more() bool { return t.pos < len(t.units) }

// ahead tells whether the next units are these, none of them plain.
func (t *translator) ahead(text string) bool {
	i := t.pos
	for _, c := range text {
		if i >= len(t.units) || t.units[i].plain || t.units[i].c != c {
			return false
		}
		i++
	}
	return true
}

// take passes over text if it is ahead.
func (t *translator) take(text string) bool {
	ok := t.ahead(text)
	if ok {
		t.pos += utf8.RuneCountInString(text)
	}
	return ok
}

// next returns the next unit and passes over it.
func (t *translator) next(remedy string) unit {
	if !t.more() {
		t.fail("the expression ends too early", remedy)
	}
	t.pos++
	return t.units[t.pos-1]
}

// enter counts a level of nesting; the caller calls what it returns at its end.
func (t *translator) enter() (leave func()) {
	if t.nesting++; t.nesting > maxNesting {
		t.fail(fmt.Sprintf("groups or classes are nested deeper than %d", maxNesting), "write it flatter")
	}
	return func() { t.nesting-- }
}

// alternatives reads up to the end or to a closing parenthesis.
func (t *translator) alternatives() piece {
	p := t.sequence()
	for t.take("|") {
		q := t.sequence()
		p = piece{expr: p.expr + "|" + q.expr, empty: p.empty || q.empty}
	}
	return p
}

func (t *translator) sequence() piece {
	var expr strings.Builder
	empty := true
	for t.more() && !t.ahead("|") && !t.ahead(")") {
		p := t.repeated()
		expr.WriteString(p.expr)
		empty = empty && p.empty
	}
	return piece{expr: expr.String(), empty: empty}
}

// repeated reads an atom and what says how often.
func (t *translator) repeated() piece {
	outer := t.groups
	p := t.atom()
	start := t.pos
	least, most, ok := t.count()
	if !ok {
		return p
	}
	end := t.pos
	if p.bound || p.empty && most != 1 {
		t.pos = start
		t.fail("what is repeated here can match nothing: the languages count that differently", "repeat something that has at least one character")
	}
	suffix := ""
	if t.take("?") {
		suffix = "?"
	} else if t.ahead("+") {
		t.fail("a possessive quantifier", "leave out the second +")
	}
	if t.ahead("*") || t.ahead("?") || t.ahead("+") || t.ahead("{") {
		t.fail("a quantifier behind a quantifier", "put the first with its atom in (?:…)")
	}
	for _, u := range t.units[start:end] {
		p.expr += string(u.c)
	}
	if p.expr[len(p.expr)-1] != '?' {
		for n := outer + 1; n <= t.groups; n++ {
			t.looped[n] = true
		}
	}
	return piece{expr: p.expr + suffix, empty: p.empty || least == 0}
}

// count reads a quantifier; most is -1 where there is no bound.
func (t *translator) count() (least, most int, ok bool) {
	switch {
	case t.take("*"):
		return 0, -1, true
	case t.take("+"):
		return 1, -1, true
	case t.take("?"):
		return 0, 1, true
	case !t.take("{"):
		return 0, 0, false
	}
	number := func() (n int, ok bool) {
		start := t.pos
		for t.more() && !t.units[t.pos].plain && t.units[t.pos].c >= '0' && t.units[t.pos].c <= '9' {
			n = min(n*10+int(t.units[t.pos].c-'0'), 1<<20)
			t.pos++
		}
		return n, t.pos > start
	}
	least, ok = number()
	most = least
	if ok && t.take(",") {
		var bounded bool
		if most, bounded = number(); !bounded {
			most = -1
		}
	}
	if !ok || !t.ahead("}") || most >= 0 && most < least {
		t.fail("a { that begins no {n}, {n,} or {n,m}", `write \{ for a brace`)
	}
	if max(least, most) > 1000 {
		t.fail("more than 1000 repetitions", "write * or + where that many are meant")
	}
	t.pos++
	return least, most, true
}

func (t *translator) atom() piece {
	switch {
	case t.ahead("("):
		return t.group()
	case t.take("["):
		return piece{expr: t.class().String()}
	case t.ahead(`\`):
		return t.escape()
	case t.take("^"):
		return piece{expr: t.begin, empty: true, bound: true}
	case t.take("$"):
		return piece{expr: `\z`, empty: true, bound: true}
	case t.take("."):
		return piece{expr: `(?s:.)`}
	case t.ahead("*"), t.ahead("+"), t.ahead("?"), t.ahead("{"):
		t.fail(fmt.Sprintf("%c with nothing before it to repeat", t.units[t.pos].c), fmt.Sprintf(`write \%c for the character`, t.units[t.pos].c))
	}
	return t.literal(t.next("").c)
}

func (t *translator) literal(c rune) piece {
	if t.fold {
		if set := single(c).folded(); len(set) > 2 {
			return piece{expr: set.String()}
		}
	}
	return piece{expr: regexp.QuoteMeta(string(c))}
}

// group reads a parenthesis with its contents, or flags that hold up to the end
// of the group they stand in.
func (t *translator) group() piece {
	defer t.enter()()
	fold := t.fold
	open := "("
	switch {
	case t.ahead("(?=") || t.ahead("(?!") || t.ahead("(?<=") || t.ahead("(?<!"):
		t.fail("look-around", "say it with several rules: the first that matches counts")
	case t.ahead("(?>"):
		t.fail("an atomic group", "write (?:…)")
	case t.take("(?:"):
		open = "(?:"
	case t.take("(?<"):
		name := ""
		for !t.take(">") {
			c := t.next("end the name of the group with >").c
			if letter := c|0x20 >= 'a' && c|0x20 <= 'z'; !letter && (name == "" || c < '0' || c > '9') {
				t.fail("a name of a group with something but letters and digits", "write (?<name>…)")
			}
			name += string(c)
		}
		if _, twice := t.names[name]; twice || name == "" {
			t.fail("a group without a name of its own", "write (?<name>…) with a new name")
		}
		t.groups++
		t.names[name] = t.groups
	case t.take("(?"):
		if t.flags() {
			return piece{bound: true, empty: true}
		}
		open = "(?:"
	default:
		t.pos++
		t.groups++
	}
	p := t.alternatives()
	if !t.take(")") {
		t.fail("a ( without its )", "close the group; in the part before s/ there can be none, because ) ends that part")
	}
	t.fold = fold
	return piece{expr: open + p.expr + ")", empty: p.empty}
}

// flags reads what stands between (? and the ) or : that ends it, and tells
// whether it was the former.
func (t *translator) flags() (alone bool) {
	on := true
	for {
		switch c := t.next("end the flags with ) or :").c; {
		case c == ')':
			return true
		case c == ':':
			return false
		case c == '-' && on:
			on = false
		case c == 'i':
			t.fold = on
		case c == 's' || c == 'd': // they are about line breaks, which there are none of
		default:
			t.pos--
			t.fail("a flag or a kind of group that Go's expressions do not have", "use i only, and the plain ( and (?:")
		}
	}
}

// escape reads a backslash and what belongs to it, outside of classes.
func (t *translator) escape() piece {
	if t.pos+1 < len(t.units) {
		switch c := t.units[t.pos+1].c; {
		case c == 'A':
			t.pos += 2
			return piece{expr: t.begin, empty: true, bound: true}
		case c == 'z' || c == 'Z':
			t.pos += 2
			return piece{expr: `\z`, empty: true, bound: true}
		case c == 'b' || c == 'B':
			t.ascii = true
			t.pos += 2
			if t.ahead("{") {
				t.fail("a boundary of another kind than words", `write \b`)
			}
			return piece{expr: `\` + string(c), empty: true, bound: true}
		case c >= '1' && c <= '9' || c == 'k':
			t.fail("a reference back to a group", "say it with one rule for each text that may repeat")
		}
	}
	c, set := t.escaped()
	if set != nil {
		return piece{expr: set.String()}
	}
	return t.literal(c)
}

// escaped reads a backslash and what may follow it everywhere: a set of
// characters or, where set is nil, one character.
func (t *translator) escaped() (c rune, set set) {
	t.pos++
	c = t.next(`write \\ for a backslash`).c
	if known, ok := escapedSets[c]; ok {
		return 0, known
	}
	switch c {
	case 'p', 'P':
		set = t.property()
		if c == 'P' {
			set = set.negated()
		}
		return 0, set
	case 'x':
		if t.take("{") {
			return t.hex(1, 6, "}"), nil
		}
		return t.hex(2, 2, ""), nil
	case 'u':
		return t.hex(4, 4, ""), nil
	case 't', 'n', 'r', 'f', 'a', 'e':
		return map[rune]rune{'t': '\t', 'n': '\n', 'r': '\r', 'f': '\f', 'a': '\a', 'e': 0x1b}[c], nil
	}
	if letter := c|0x20 >= 'a' && c|0x20 <= 'z'; letter || c >= '0' && c <= '9' {
		t.pos--
		t.fail(fmt.Sprintf(`\%c, which Go's expressions do not have or have with another meaning`, c), "write the character, or a class like [a-z]")
	}
	return c, nil
}

// hex reads a code point of least to most digits, and what ends it.
func (t *translator) hex(least, most int, end string) rune {
	digits := ""
	for len(digits) < most && t.more() && !t.units[t.pos].plain && strings.ContainsRune("0123456789abcdefABCDEF", t.units[t.pos].c) {
		digits += string(t.next("").c)
	}
	n, err := strconv.ParseUint(digits, 16, 32)
	if err != nil || len(digits) < least || !t.take(end) {
		t.fail("a character code with the wrong digits", `write \x and two hexadecimal digits, or \u and four`)
	}
	if n > 0xFFFF || n >= 0xD800 && n <= 0xDFFF {
		t.fail("a character beyond U+FFFF", "take it out: no principal holds it")
	}
	return rune(n)
}

// property reads the name behind \p.
func (t *translator) property() set {
	name := ""
	if t.take("{") {
		for !t.take("}") {
			name += string(t.next(`write \p{Alpha}`).c)
		}
	}
	known, ok := properties[name]
	if !ok {
		t.fail(fmt.Sprintf("the class %q, which is not the same in all releases of the JDK", name), `use \p{Alpha}, \p{Digit}, \p{Alnum} or another class of ASCII, or write the characters`)
	}
	if t.fold && (name == "Lower" || name == "Upper") {
		t.fail("a class of one case under (?i), which is not the same in all releases of the JDK", `use \p{Alpha}`)
	}
	return known
}
