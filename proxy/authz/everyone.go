package authz

import (
	"maps"
	"slices"
)

// Everyone returns why anybody at all passes for an operation: the rules of keys
// that let everyone in, if its layer does too. keyLayer says whether the rules of
// keys are asked; where they are not, it is the operation's own property. It is
// empty where somebody has to be named for each key.
func (p *Policy) Everyone(t Type, right Right, keyLayer bool) (open []string) {
	acl, black := p.acls[t], p.blacklists[t]
	if acl != nil && !acl.list.everyone || black != nil && black.list.everyone {
		return nil
	}
	if !keyLayer {
		return []string{prefixACL + t.String()}
	}
	note := func(rule *Rule) {
		if rule != nil && rule.list.everyone {
			open = append(open, rule.Name)
		}
	}
	note(p.defaults[right])
	note(p.whitelist[right])
	for _, name := range slices.Sorted(maps.Keys(p.keys)) {
		note(p.keys[name][right])
		note(p.keys[name][keyAll])
	}
	return open
}
