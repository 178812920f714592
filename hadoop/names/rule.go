package names

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// rule is one rule. The zero rule is DEFAULT.
type rule struct {
	text       string // as Hadoop writes it
	components int    // of the principals it is for; 0 for DEFAULT
	format     []part
	match      *regexp.Regexp // nil: any
	matchASCII bool           // match is exact for ASCII only
	subst      *substitution  // nil: none
	lower      bool
	isDefault  bool
}

func (r *rule) String() string { return r.text }

// part is a piece of a format: a parameter or, where it is negative, text.
type part struct {
	parameter int
	text      string
}

// syntax matches the first of a line of rules, as Hadoop's ruleParser does.
var syntax = regexp.MustCompile(`^[ \t\n\v\f\r]*((DEFAULT)|(RULE:\[([0-9]*):([^\]]*)\](\(([^)]*)\))?(s/([^/]*)/([^/]*)/(g)?)?))/?(L)?`)

// The groups of syntax.
const (
	groupBody    = 1
	groupDefault = 2
	groupCount   = 4
	groupFormat  = 5
	groupMatch   = 7
	groupFrom    = 9
	groupTo      = 10
	groupRepeat  = 11
	groupLower   = 12
)

// parse reads all rules.
func parse(text string) ([]rule, error) {
	if len(text) > maxRules {
		return nil, &SyntaxError{What: fmt.Sprintf("the rules are longer than %d bytes", maxRules), Remedy: "join rules that do the same"}
	}
	if !utf8.ValidString(text) {
		return nil, &SyntaxError{What: "the rules are not UTF-8", Remedy: "save the file as UTF-8"}
	}
	var rules []rule
	rest := strings.TrimFunc(text, func(r rune) bool { return r <= ' ' })
	for rest != "" {
		at := syntax.FindStringSubmatchIndex(rest)
		if at == nil {
			line, _, _ := strings.Cut(strings.TrimLeft(rest, " \t\n\v\f\r"), "\n")
			return nil, &SyntaxError{Rule: len(rules) + 1, Text: line, Position: 1, What: "no rule begins here",
				Remedy: "write DEFAULT or RULE:[COMPONENTS:FORMAT](MATCH)s/FROM/TO/, without ] in FORMAT, ) in MATCH and / in FROM and TO"}
		}
		s := source{text: rest[at[2*groupBody]:at[1]], shift: at[2*groupBody], at: at}
		r, err := s.rule()
		if err != nil {
			err.Rule, err.Text = len(rules)+1, s.text
			return nil, err
		}
		rules = append(rules, r)
		rest = rest[at[1]:]
	}
	if len(rules) == 0 {
		return nil, &SyntaxError{What: "there are no name rules", Remedy: "write DEFAULT, which takes the principals of the default realm"}
	}
	return rules, nil
}

// source is the text of one rule and where its pieces are.
type source struct {
	text  string
	shift int   // of text within what at counts
	at    []int // places of the groups of syntax
}

// group returns a piece, whether there is one, and its place in text.
func (s *source) group(n int) (piece string, ok bool, at int) {
	from, to := s.at[2*n]-s.shift, s.at[2*n+1]-s.shift
	if s.at[2*n] < 0 {
		return "", false, 0
	}
	return s.text[from:to], true, from
}

// fail returns an error about what is n characters behind byte at of the rule.
func (s *source) fail(at, n int, what, remedy string) *SyntaxError {
	return &SyntaxError{Position: utf8.RuneCountInString(s.text[:at]) + n + 1, What: what, Remedy: remedy}
}

func (s *source) rule() (rule, *SyntaxError) {
	if _, ok, _ := s.group(groupDefault); ok {
		return rule{text: "DEFAULT", isDefault: true}, nil // Hadoop passes over /L here
	}
	var r rule
	count, _, at := s.group(groupCount)
	components, err := strconv.ParseInt(count, 10, 32)
	if err != nil {
		return r, s.fail(at, 0, fmt.Sprintf("%q is no number of components", count), "write 1 for names like user@REALM, 2 for service/host@REALM")
	}
	r.components = int(components)
	format, _, at := s.group(groupFormat)
	var problem *SyntaxError
	if r.format, problem = s.format(format, at, r.components); problem != nil {
		return r, problem
	}
	r.text = fmt.Sprintf("RULE:[%d:%s]", r.components, format)
	if match, ok, at := s.group(groupMatch); ok {
		p, wrong := translate(match, `\A`)
		if wrong != nil {
			return r, s.fail(at, wrong.at, wrong.what, wrong.remedy)
		}
		if r.match, err = regexp.Compile(`\A(?:` + p.expr + `)\z`); err != nil {
			return r, s.fail(at, 0, "the regular expression is too large", "write smaller numbers of repetitions")
		}
		r.matchASCII = p.ascii
		r.text += "(" + match + ")"
	}
	if from, ok, at := s.group(groupFrom); ok {
		to, _, toAt := s.group(groupTo)
		_, repeat, _ := s.group(groupRepeat)
		var wrong *fault
		if r.subst, wrong = newSubstitution(from, to, repeat); wrong != nil {
			if wrong.inTo {
				at = toAt
			}
			return r, s.fail(at, wrong.at, wrong.what, wrong.remedy)
		}
		r.text += "s/" + from + "/" + to + "/"
		if repeat {
			r.text += "g"
		}
	}
	if _, r.lower, _ = s.group(groupLower); r.lower {
		r.text += "/L"
	}
	return r, nil
}

// format reads text with parameters: $0 is the realm, $1 the first component.
// at is where it stands in the rule.
func (s *source) format(text string, at, components int) ([]part, *SyntaxError) {
	if i := strings.IndexFunc(text, unfit); i >= 0 {
		return nil, s.fail(at+i, 0, "a control character, a line break or a character beyond U+FFFF in the format", "take it out")
	}
	var parts []part
	for rest := text; rest != ""; {
		literal, after, found := strings.Cut(rest, "$")
		if literal != "" {
			parts = append(parts, part{-1, literal})
		}
		if !found {
			break
		}
		here := at + len(text) - len(after) - 1
		rest = strings.TrimLeft(after, "0123456789")
		digits := after[:len(after)-len(rest)]
		n, err := strconv.ParseInt(digits, 10, 32)
		if err != nil {
			return nil, s.fail(here, 0, "a $ without the number of a component", "write $0 for the realm, $1 for the first component, $2 for the second")
		}
		if int(n) > components {
			return nil, s.fail(here, 0, fmt.Sprintf("$%s is beyond the %d components the rule is for", digits, components),
				"use a smaller number; digits right behind it belong to it")
		}
		parts = append(parts, part{int(n), ""})
	}
	return parts, nil
}

// apply returns the name the rule makes of a principal, ok = false if the rule
// is not for it, and what is wrong if that cannot be told.
func (r *rule) apply(p principal, defaultRealm string) (name string, ok bool, problem string) {
	if r.isDefault {
		return p.service, p.realm != "" && p.realm == defaultRealm, ""
	}
	components := 1
	if p.host != "" {
		components = 2
	}
	if components != r.components {
		return "", false, ""
	}
	var b strings.Builder
	for _, part := range r.format {
		switch part.parameter {
		case 0:
			if p.realm == "" {
				return "", false, "$0 of a name without realm"
			}
			b.WriteString(p.realm)
		case 1:
			b.WriteString(p.service)
		case 2:
			b.WriteString(p.host)
		default:
			b.WriteString(part.text)
		}
	}
	base := b.String()
	ascii := strings.IndexFunc(base, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
	if r.match != nil {
		if r.matchASCII && !ascii {
			return "", false, `\b and letters beyond ASCII`
		}
		if !r.match.MatchString(base) {
			return "", false, ""
		}
	}
	if r.subst == nil {
		return base, true, ""
	}
	if r.subst.ascii && !ascii {
		return "", false, `\b and letters beyond ASCII`
	}
	return r.subst.replace(base), true, ""
}
