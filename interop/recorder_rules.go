package interop

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
)

// Rule explains a class of differences between edekd and the Java KMS. The
// rules stand in differences.txt, as stanzas of
//
//	rule      short-id
//	exchanges patterns of exchange names, as in path.Match
//	differs   parts as Differences names them, separated by commas; "header *" is any header
//	only      the comparison it is limited to, when it is
//	reason    why, on as many lines as it takes
type Rule struct {
	ID       string
	Patterns []string
	Parts    []string
	Only     string
	Reason   string

	used map[string]bool // patterns that explained something
}

// LoadRules reads the file and checks that every rule is complete.
func LoadRules(file string) ([]*Rule, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var rules []*Rule
	for _, stanza := range strings.Split(string(text), "\n\n") {
		r := &Rule{used: map[string]bool{}}
		var field string
		for _, line := range strings.Split(stanza, "\n") {
			if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
				continue
			}
			value := strings.TrimSpace(line)
			if !strings.HasPrefix(line, " ") {
				field, value, _ = strings.Cut(line, " ")
				value = strings.TrimSpace(value)
			}
			switch field {
			case "rule":
				r.ID = value
			case "exchanges":
				r.Patterns = append(r.Patterns, strings.Fields(value)...)
			case "differs":
				for _, p := range strings.Split(value, ",") {
					r.Parts = append(r.Parts, strings.TrimSpace(p))
				}
			case "only":
				r.Only = value
			case "reason":
				r.Reason = strings.TrimSpace(r.Reason + " " + value)
			default:
				return nil, fmt.Errorf("%s: unknown field %q", file, field)
			}
		}
		if field == "" {
			continue
		}
		if r.ID == "" || len(r.Patterns) == 0 || len(r.Parts) == 0 || r.Reason == "" {
			return nil, fmt.Errorf("%s: rule %q lacks its id, exchanges, parts or reason", file, r.ID)
		}
		for _, p := range r.Patterns {
			if _, err := path.Match(p, ""); err != nil {
				return nil, fmt.Errorf("%s: rule %s, pattern %q: %w", file, r.ID, p, err)
			}
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// Explain reports whether r explains that part of the exchange's difference in
// the named comparison, and remembers the pattern that did.
func (r *Rule) Explain(comparison, exchange, part string) bool {
	if r.Only != "" && r.Only != comparison {
		return false
	}
	if !slices.Contains(r.Parts, part) && (!strings.HasPrefix(part, "header ") || !slices.Contains(r.Parts, "header *")) {
		return false
	}
	for _, p := range r.Patterns {
		if ok, _ := path.Match(p, exchange); ok {
			r.used[p] = true
			return true
		}
	}
	return false
}

// Unused returns the patterns that explained nothing so far.
func (r *Rule) Unused() []string {
	var list []string
	for _, p := range r.Patterns {
		if !r.used[p] {
			list = append(list, p)
		}
	}
	return list
}
