package authz

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/edekd/edekd/hadoop/conf"
)

// The names of rules. They are case-sensitive, as in Hadoop.
const (
	prefixACL       = "hadoop.kms.acl."
	prefixBlacklist = "hadoop.kms.blacklist."
	prefixKey       = "key.acl."
	prefixDefault   = "default.key.acl."
	prefixWhitelist = "whitelist.key.acl."
)

var prefixes = [...]string{prefixACL, prefixBlacklist, prefixKey, prefixDefault, prefixWhitelist}

// Rule is one property of kms-acls.xml.
type Rule struct {
	Name   string
	Value  string // expanded, not trimmed: a leading space has a meaning
	Source conf.Source
	list   list
}

// Policy is what a kms-acls.xml says. It does not change.
type Policy struct {
	acls       [types]*Rule // nil: everyone
	blacklists [types]*Rule // nil: nobody
	keys       map[string]*[rights]*Rule
	defaults   [rights]*Rule
	whitelist  [rights]*Rule
}

// Problem is something in the file that cannot be used, or had better be
// changed.
type Problem struct {
	File     string // path with line
	Property string
	What     string // what is wrong, without a full stop
	Remedy   string // what to do, an imperative sentence without a full stop
}

// Error is "file: property: what. Try: remedy".
func (p Problem) Error() string {
	return p.File + ": " + p.Property + ": " + p.What + ". Try: " + p.Remedy
}

// Problems are all that is wrong with a file. NewPolicy returns it as its
// error.
type Problems []Problem

// Error has one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.Error()
	}
	return strings.Join(lines, "\n")
}

// NewPolicy reads the rules in c, into which kms-acls.xml was loaded. The
// warnings are of what Hadoop overlooks: names that are no rule, lists that
// probably say something else than was meant. The error, if any, is Problems;
// there is no policy then.
func NewPolicy(c *conf.Configuration) (p *Policy, warnings []Problem, err error) {
	r := reader{c: c, policy: &Policy{keys: map[string]*[rights]*Rule{}}, variables: map[string]bool{}}
	properties := c.WithPrefix("")
	for _, property := range properties {
		for _, match := range reference.FindAllString(property.Raw, -1) {
			r.variables[match[2:len(match)-1]] = true
		}
	}
	for _, property := range properties {
		r.read(property)
	}
	for _, property := range c.Unused() {
		r.unused(property)
	}
	if len(r.problems) > 0 {
		return nil, r.warnings, r.problems
	}
	return r.policy, r.warnings, nil
}

type reader struct {
	c         *conf.Configuration
	policy    *Policy
	variables map[string]bool // names of properties that others refer to
	warnings  []Problem
	problems  Problems
}

func (r *reader) read(property conf.Property) {
	place, why, remedy := r.policy.place(property.Name)
	if place == nil {
		if !r.variables[property.Name] {
			r.warn(property, why, remedy)
		}
		return
	}
	value, _, err := r.c.Get(property.Name)
	if err != nil {
		what := err.Error()
		if e, ok := errors.AsType[*conf.ValueError](err); ok {
			what = e.What()
		}
		r.problems = append(r.problems, Problem{property.Source.String(), property.Name, what, "write the list out"})
		return
	}
	if why, remedy := suspicion(value); why != "" {
		r.warn(property, fmt.Sprintf("%q: %s", value, why), remedy)
	}
	*place = &Rule{Name: property.Name, Value: value, Source: property.Source, list: parseList(value)}
}

// unused warns of a property that does nothing, though its file has it.
func (r *reader) unused(u conf.Unused) {
	names := Policy{keys: map[string]*[rights]*Rule{}} // a name alone makes no rule
	place, why, remedy := names.place(u.Name)
	switch {
	case u.By != (conf.Source{}):
		r.warn(u.Property, "ignored: set again at "+u.By.String()+", which counts", "keep one of the two")
	case place == nil:
		r.warn(u.Property, why, remedy)
	default:
		r.warn(u.Property, "it has no value and is as if it were not there, "+without(u.Name),
			"write a list between <value> and </value>: one space for nobody, * for everyone")
	}
}

// without says what the lack of a rule does.
func without(name string) string {
	switch prefix, _ := cutPrefix(name); prefix {
	case prefixACL:
		return "which lets everyone in unless another file has it"
	case prefixBlacklist:
		return "which keeps nobody out unless another file has it"
	}
	return "which gives nobody the right unless another rule does"
}

func (r *reader) warn(property conf.Property, what, remedy string) {
	r.warnings = append(r.warnings, Problem{property.Source.String(), property.Name, what, remedy})
}

// place returns where the rule of a name belongs. It is nil for a name that is
// no rule; why and remedy then say what is wrong with it.
func (p *Policy) place(name string) (place **Rule, why, remedy string) {
	what, value := cutPrefix(name)
	switch what {
	case prefixACL, prefixBlacklist:
		i := slices.Index(typeNames[:], value)
		if i < 0 {
			return nil, fmt.Sprintf("ignored: %q is no operation", value), "one of " + strings.Join(typeNames[:], ", ") + ", in upper case"
		}
		if what == prefixACL {
			return &p.acls[i], "", ""
		}
		return &p.blacklists[i], "", ""
	case prefixDefault, prefixWhitelist:
		i := slices.Index(rightNames[:keyAll], value)
		switch {
		case value == rightNames[keyAll]:
			return nil, "ignored: ALL means something only in the rules of one key", "one property for each of " + strings.Join(rightNames[:keyAll], ", ")
		case i < 0:
			return nil, fmt.Sprintf("ignored: %q is no right to a key", value), "one of " + strings.Join(rightNames[:keyAll], ", ") + ", in upper case"
		case what == prefixDefault:
			return &p.defaults[i], "", ""
		}
		return &p.whitelist[i], "", ""
	case prefixKey:
		return p.keyPlace(value)
	}
	lower := strings.ToLower(name)
	if prefix, _ := cutPrefix(lower); prefix != "" {
		return nil, "ignored: the names of rules are case-sensitive", "begin the name with " + prefix
	}
	return nil, "ignored: no rule has such a name", "begin the name with one of " + strings.Join(prefixes[:], ", ")
}

// keyPlace is place for what follows key.acl. in a name: the ACL name, which
// may have dots, a dot, and the right.
func (p *Policy) keyPlace(s string) (place **Rule, why, remedy string) {
	const example = "key.acl.<key name>.<right>, the right one of "
	dot := strings.LastIndexByte(s, '.')
	if dot <= 0 {
		return nil, "ignored: it names no key or no right", example + strings.Join(rightNames[:], ", ")
	}
	name, right := s[:dot], s[dot+1:]
	i := slices.Index(rightNames[:], right)
	if i < 0 {
		return nil, fmt.Sprintf("ignored: %q is no right to a key", right), example + strings.Join(rightNames[:], ", ") + ", in upper case"
	}
	own := p.keys[name]
	if own == nil {
		own = new([rights]*Rule)
		p.keys[name] = own
	}
	return &own[i], "", ""
}

func cutPrefix(name string) (prefix, rest string) {
	for _, prefix := range prefixes {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			return prefix, rest
		}
	}
	return "", ""
}

// verdict is an answer, and what it rests on.
type verdict struct {
	decided bool // false: groups have to be asked first
	allowed bool
	rule    *Rule // that decided, nil where the lack of a rule did
	match   match // of the caller with the rule
}

func (v verdict) err() error {
	if v.allowed {
		return nil
	}
	return ErrDenied
}

// decide answers a question. It needs groups only where the users named in the
// rules leave it open; with groups it always decides.
func (p *Policy) decide(q *question, w *who) verdict {
	if q.layer == layerKMS {
		return p.kms(Type(q.what), w)
	}
	return p.key(Right(q.what), q.name, w)
}

// kms is KMSACLs.hasAccess: in the list, where there is one, and not in the
// blacklist.
func (p *Policy) kms(t Type, w *who) verdict {
	v := verdict{decided: true, allowed: true, match: matchEveryone}
	if v.rule = p.acls[t]; v.rule != nil {
		v.match = v.rule.list.match(w)
		v.decided, v.allowed = v.match != matchUnknown, v.match.in()
		if v.match == matchNot {
			return v
		}
	}
	if black := p.blacklists[t]; black != nil {
		switch m := black.list.match(w); {
		case m.in():
			return verdict{decided: true, rule: black, match: m}
		case m == matchUnknown:
			return verdict{}
		}
	}
	return v
}

// key is KeyAuthorizationKeyProvider.checkAccess: any of the rules that apply
// is enough.
func (p *Policy) key(right Right, aclName string, w *who) verdict {
	no := verdict{decided: true}
	for _, rule := range p.applying(right, aclName) {
		if rule == nil {
			continue
		}
		m := rule.list.match(w)
		if m.in() {
			return verdict{decided: true, allowed: true, rule: rule, match: m}
		}
		if no.rule == nil {
			no.rule = rule
		}
		if m == matchUnknown {
			no.decided = false
		}
	}
	return no
}

// generalize takes the name out of a question about a key that has no rules of its
// own: the answer is the same for all those.
func (p *Policy) generalize(q *question) {
	if q.layer == layerKey && p.keys[q.name] == nil {
		q.name = ""
	}
}

// applying returns the rules that can grant a right to a key, nil for those
// that are not there: its own, or the default for keys without any rule of
// their own, then the whitelist, then its own ALL.
func (p *Policy) applying(right Right, aclName string) [3]*Rule {
	if own := p.keys[aclName]; own != nil {
		return [...]*Rule{own[right], p.whitelist[right], own[keyAll]}
	}
	return [...]*Rule{p.defaults[right], p.whitelist[right], nil}
}
