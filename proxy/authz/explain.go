package authz

import (
	"fmt"
	"strings"

	"github.com/edekd/edekd/edek"
)

// Explanation says why a layer answers as it does.
type Explanation struct {
	Allowed bool
	Rules   []*Rule // the one that decides; where none grants, all that could have
	Why     string  // a clause without full stop
}

// ExplainKMS explains the KMS layer's answer. The error is a look-up of groups
// that failed.
func (p *Policy) ExplainKMS(t Type, c *edek.Caller, groups Groups) (Explanation, error) {
	v, w, err := p.trace(question{layer: layerKMS, what: uint8(t), user: c.User, real: c.Real}, groups)
	switch {
	case err != nil:
		return Explanation{}, err
	case v.rule == nil:
		return Explanation{v.allowed, nil, prefixACL + t.String() + " is not set, which lets everyone in"}, nil
	}
	return Explanation{v.allowed, []*Rule{v.rule}, v.because(w)}, nil
}

// ExplainKey explains the key layer's answer for a key with that ACL name. The
// error is a look-up of groups that failed.
func (p *Policy) ExplainKey(right Right, aclName string, c *edek.Caller, groups Groups) (Explanation, error) {
	v, w, err := p.trace(question{layer: layerKey, what: uint8(right), user: c.User, real: c.Real, name: aclName}, groups)
	if err != nil {
		return Explanation{}, err
	}
	if v.allowed {
		return Explanation{true, []*Rule{v.rule}, v.because(w)}, nil
	}
	e := Explanation{}
	for _, rule := range p.applying(right, aclName) {
		if rule != nil {
			e.Rules = append(e.Rules, rule)
		}
	}
	own := prefixKey + aclName + "."
	switch {
	case len(e.Rules) == 0 && p.keys[aclName] != nil:
		e.Why = fmt.Sprintf("the key has rules of its own, so %s does not count for it, and none of %s%s, %s%s and %s is set",
			prefixDefault+right.String(), own, right, own, keyAll, prefixWhitelist+right.String())
	case len(e.Rules) == 0:
		e.Why = fmt.Sprintf("none of %s%s, %s and %s is set, which keeps everyone out", own, right, prefixDefault+right.String(), prefixWhitelist+right.String())
	default:
		e.Why = v.because(w)
		if p.keys[aclName] != nil && p.defaults[right] != nil {
			e.Why += "; the key has rules of its own, so " + p.defaults[right].Name + " does not count for it"
		}
	}
	return e, nil
}

// trace decides a question.
func (p *Policy) trace(q question, groups Groups) (verdict, *who, error) {
	w := &who{user: q.user, real: q.real}
	v := p.decide(&q, w)
	if v.decided {
		return v, w, nil
	}
	if err := w.ask(groups); err != nil {
		return v, w, err
	}
	return p.decide(&q, w), w, nil
}

// because words how the caller stands to the rule that decided.
func (v verdict) because(w *who) string {
	switch v.match {
	case matchEveryone:
		return "the list is everyone"
	case matchUser:
		return fmt.Sprintf("user %q is in the list", w.user)
	case matchReal:
		return fmt.Sprintf("real user %q is in the list", w.real)
	case matchGroup:
		return fmt.Sprintf("user %q is in the list through group %q", w.user, v.rule.list.group(w))
	}
	text := fmt.Sprintf("user %q is not in the list", w.user)
	if w.asked {
		text += fmt.Sprintf(", nor are the groups [%s]", strings.Join(w.groups, ", "))
	}
	return text
}
