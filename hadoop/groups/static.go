package groups

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/edekd/edekd/hadoop/conf"
)

// defaultStatic keeps dr.who, for whom Hadoop's web pages are shown, without
// groups.
const defaultStatic = "dr.who=;"

// loadStatic reads the table of users who are never looked up.
func loadStatic(c *conf.Configuration) (map[string][]string, []conf.Warning, error) {
	value, ok, err := c.Get(staticProperty)
	if err != nil {
		return nil, nil, err
	}
	if !ok {
		value = defaultStatic
	}
	static, err := parseStatic(value)
	if err != nil {
		return nil, nil, c.Wrong(staticProperty, err)
	}
	p, _ := c.Lookup(staticProperty)
	var warnings []conf.Warning
	for _, user := range slices.Sorted(maps.Keys(static)) {
		for _, name := range append([]string{user}, static[user]...) {
			if trimmed := strings.TrimSpace(name); trimmed != name && trimmed != "" {
				warnings = append(warnings, conf.Warning{Source: p.Source, Name: staticProperty,
					Text: fmt.Sprintf("the space around %q counts as part of the name, as in Hadoop: take it out", name)})
			}
		}
	}
	return static, warnings, nil
}

// parseStatic reads USER=GROUP,GROUP;USER=;… as Hadoop does: empty elements
// are passed over, nothing is trimmed, and of two entries for a user the last
// one counts. A user without groups is in the table with none.
func parseStatic(text string) (map[string][]string, error) {
	table := map[string][]string{}
	for entry := range tokens(text, ';') {
		fields := slices.Collect(tokens(entry, '='))
		if len(fields) == 0 || len(fields) > 2 {
			return nil, fmt.Errorf("has the entry %q: write USER=GROUP,GROUP and divide entries by semicolons", entry)
		}
		var groups []string
		if len(fields) == 2 {
			groups = distinct(slices.Collect(tokens(fields[1], ',')))
		}
		table[fields[0]] = groups
	}
	return table, nil
}

// tokens yields the non-empty pieces of text between delimiters.
func tokens(text string, delimiter rune) iter.Seq[string] {
	return strings.FieldsFuncSeq(text, func(r rune) bool { return r == delimiter })
}
