package authz

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/edekd/edekd/edek"
)

// who is somebody to be checked.
type who struct {
	user, real string
	groups     []string
	asked      bool // whether groups is known
}

func (w *who) ask(groups Groups) error {
	of, err := groups.Of(w.user)
	if err != nil {
		return &edek.Error{Kind: edek.Unavailable, Op: "authorize", Text: "the groups of user " + w.user + " cannot be looked up now", Err: err}
	}
	w.groups, w.asked = of, true
	return nil
}

// match is how somebody stands to a list.
type match uint8

const (
	matchNot     match = iota
	matchUnknown       // it depends on groups, which were not asked
	matchEveryone
	matchUser
	matchReal
	matchGroup
)

// in reports whether the list holds the one who matched.
func (m match) in() bool { return m > matchUnknown }

// list is a parsed access control list.
type list struct {
	everyone bool
	users    map[string]struct{}
	reals    map[string]struct{} // users behind proxied calls, without the ~
	groups   map[string]struct{}
}

// parseList reads "users groups", divided at the first space. Every string is
// some list: what nobody can have meant is a list of strange names
// (AccessControlList.buildACL; suspicion has words for the likely mistakes).
func parseList(s string) list {
	users, groups, _ := strings.Cut(s, " ")
	if isEveryone(users) || isEveryone(groups) {
		return list{everyone: true}
	}
	l := list{users: names(users), groups: names(groups)}
	for user := range l.users {
		if real, ok := strings.CutPrefix(user, "~"); ok {
			if l.reals == nil {
				l.reals = map[string]struct{}{}
			}
			l.reals[real] = struct{}{}
		}
	}
	return l
}

func isEveryone(s string) bool { return trim(s) == "*" }

// trim is Java's String.trim.
func trim(s string) string {
	return strings.TrimFunc(s, func(r rune) bool { return r <= ' ' })
}

// names divides at commas and line ends (StringUtils.getTrimmedStrings). The
// space inside is less than what trim takes off the ends: \s in Java.
func names(s string) map[string]struct{} {
	var set map[string]struct{}
	for name := range strings.FieldsFuncSeq(trim(s), func(r rune) bool { return r == ',' || r == '\n' }) {
		if name = strings.Trim(name, " \t\n\v\f\r"); name == "" {
			continue
		}
		if set == nil {
			set = map[string]struct{}{}
		}
		set[name] = struct{}{}
	}
	return set
}

func (l *list) match(w *who) match {
	if l.everyone {
		return matchEveryone
	}
	if _, ok := l.users[w.user]; ok {
		return matchUser
	}
	if w.real != "" {
		if _, ok := l.reals[w.real]; ok {
			return matchReal
		}
	}
	if len(l.groups) == 0 {
		return matchNot
	}
	if !w.asked {
		return matchUnknown
	}
	if l.group(w) != "" {
		return matchGroup
	}
	return matchNot
}

// group returns a group of the list that w is in.
func (l *list) group(w *who) string {
	for _, group := range w.groups {
		if _, ok := l.groups[group]; ok {
			return group
		}
	}
	return ""
}

// suspicion says what the writer of a list has probably not meant, and what to
// write instead: "" if nothing looks wrong.
func suspicion(s string) (why, remedy string) {
	const oneLine = `write "user1,user2 group1,group2" on one line, with no space but the one before the groups`
	if reference := reference.FindString(s); reference != "" {
		return reference + " has no value and is taken for a name", "set what it stands for, or write the list out"
	}
	if trim(s) == "" {
		if s == "" {
			return "the list is empty, which is nobody", "write one space if nobody is meant"
		}
		return "", ""
	}
	users, groups, divided := strings.Cut(s, " ")
	written := trim(users)
	switch {
	case divided && trim(groups) != "" && (strings.HasSuffix(written, ",") || strings.HasPrefix(trim(groups), ",")):
		return "there is a space beside a comma among the users, and all that follows the first space is taken for groups", oneLine
	case divided && users != "" && written == "" && trim(groups) != "":
		return "the list begins on a line of its own, and all that follows the first space is taken for groups", oneLine
	}
	l := parseList(s)
	for _, set := range []map[string]struct{}{l.users, l.groups} {
		for _, name := range slices.Sorted(maps.Keys(set)) {
			switch {
			case name == "*":
				return "* stands beside other names and is taken for a name; alone it would mean everyone", oneLine
			case strings.ContainsAny(name, "/@"):
				return fmt.Sprintf("%q is taken for one name, but names are short ones, without host and realm", name), "write the short name that the rules for Kerberos names make of it"
			case strings.Contains(name, ";"):
				return fmt.Sprintf("%q is taken for one name", name), "divide names by commas"
			case strings.ContainsFunc(name, unicode.IsSpace):
				return fmt.Sprintf("%q is taken for one name with space in it", name), "divide names by commas, or leave it so if that is what the group is called"
			}
		}
	}
	return "", ""
}

// reference matches what stands for a variable and is still there when the
// variables that have a value are replaced.
var reference = regexp.MustCompile(`\$\{[^}]*\}`)
