package groups

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Of finds the groups of a user, trying again and elsewhere as configured.
func (m *directory) Of(user string) ([]string, error) {
	deadline := time.Now().Add(m.timeout)
	failures := 0 // in a row, of one server
	var err error
	for range m.attempts {
		var groups []string
		server, binder := m.current()
		groups, err = m.attempt(server, binder, user, deadline)
		if err == nil {
			return groups, nil
		}
		if isRefusal(err) {
			m.next(&m.binder, binder, len(m.binders))
		} else if failures++; failures >= m.beforeFailover {
			m.next(&m.server, server, len(m.servers))
			failures = 0
		}
		if !time.Now().Before(deadline) {
			break
		}
	}
	return nil, err
}

// current returns the indexes of server and binder in use.
func (m *directory) current() (server, binder int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.server, m.binder
}

// next moves an index on, unless another look-up has done so already.
func (m *directory) next(index *int, from, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if *index == from {
		*index = (from + 1) % n
	}
}

// lookup finds the groups of a user in a session.
func (m *directory) lookup(s *session, user string) ([]string, error) {
	users, err := s.search(m.userBase, fill(m.userFilter, user), m.userAttributes())
	if err != nil || len(users) == 0 {
		return nil, err
	}
	entry := users[0] // the others are left out in Java, too
	if m.memberOf != "" && m.levels <= 0 {
		if groups := m.named(entry); len(groups) > 0 {
			return m.finish(groups), nil
		}
	}
	filter, err := m.filterFor(entry)
	if err != nil {
		return nil, err
	}
	groups, parents, err := m.searchGroups(s, filter, nil, nil)
	if err != nil {
		return nil, err
	}
	if !m.posix {
		if groups, err = m.climb(s, groups, parents); err != nil {
			return nil, err
		}
	}
	return m.finish(groups), nil
}

func (m *directory) finish(groups []string) []string {
	for i, group := range groups {
		groups[i] = m.convert(group)
	}
	return distinct(groups)
}

// userAttributes are those of a user's entry that are needed.
func (m *directory) userAttributes() []string {
	wanted := []string{m.uid, m.gid}
	if m.memberOf != "" {
		wanted = append(wanted, m.memberOf)
	}
	for _, attribute := range m.pattern {
		if !isDN(attribute) {
			wanted = append(wanted, attribute)
		}
	}
	return wanted
}

// filterFor returns the filter for the groups that have entry as a member.
func (m *directory) filterFor(entry entity) (string, error) {
	if m.pattern != nil {
		args := make([]string, len(m.pattern))
		for i, attribute := range m.pattern {
			if args[i] = entry.dn; isDN(attribute) {
				continue
			}
			var ok bool
			if args[i], ok = entry.first(attribute); !ok {
				return "", fmt.Errorf("the entry %q has no %s, which the filter for groups needs", entry.dn, attribute)
			}
		}
		return fill(m.groupFilter, args...), nil
	}
	if !m.posix {
		return fill("(&"+m.groupFilter+"("+m.member+"={0}))", entry.dn), nil
	}
	gid, hasGid := entry.first(m.gid)
	uid, hasUID := entry.first(m.uid)
	if !hasGid || !hasUID {
		return "", fmt.Errorf("the entry %q lacks %s or %s, by which groups are found: is that what posix.attr.uid.name and posix.attr.gid.name should be?",
			entry.dn, m.gid, m.uid)
	}
	return fill("(&"+m.groupFilter+"(|("+m.gid+"={0})("+m.member+"={1})))", gid, uid), nil
}

func isDN(attribute string) bool { return strings.EqualFold(attribute, "userDN") }

// named returns the groups that an entry says it is in, none if one of them
// cannot be understood.
func (m *directory) named(entry entity) []string {
	var groups []string
	for _, dn := range entry.all(m.memberOf) {
		name, ok := firstName(dn, m.groupName)
		if !ok {
			return nil
		}
		groups = append(groups, name)
	}
	return groups
}

// searchGroups adds the names of the groups that a filter finds, and the
// entries of which none is among those seen.
func (m *directory) searchGroups(s *session, filter string, groups []string, seen map[string]bool) (all, dns []string, err error) {
	found, err := s.search(m.groupBase, filter, []string{m.groupName})
	if err != nil {
		return nil, nil, err
	}
	for _, g := range found {
		name, ok := g.first(m.groupName)
		if !ok {
			return nil, nil, fmt.Errorf("the group %q has no %s, which would be its name", g.dn, m.groupName)
		}
		groups = append(groups, name)
		if !seen[g.dn] {
			dns = append(dns, g.dn)
		}
	}
	return groups, dns, nil
}

// maxAlternatives bounds the groups that are looked up by one filter.
const maxAlternatives = 100

// climb adds the groups that groups are in, as many levels up as configured.
func (m *directory) climb(s *session, groups, level []string) ([]string, error) {
	seen := map[string]bool{}
	for range m.levels {
		var above []string
		for _, dn := range level {
			seen[dn] = true
		}
		for chunk := range slices.Chunk(level, maxAlternatives) {
			var alternatives strings.Builder
			for _, dn := range chunk {
				alternatives.WriteString(fill("("+m.member+"={0})", dn))
			}
			var dns []string
			var err error
			groups, dns, err = m.searchGroups(s, "(&"+m.groupFilter+"(|"+alternatives.String()+"))", groups, seen)
			if err != nil {
				return nil, err
			}
			above = append(above, dns...)
		}
		if level = distinct(above); len(level) == 0 {
			break
		}
	}
	return groups, nil
}
