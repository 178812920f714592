//go:build cgo && !osusergo

package groups

import (
	"errors"
	"os/user"
	"time"
)

// system asks NSS through the C library.
type system struct{}

// newSystem returns the mapping of the operating system. It does not watch the
// time: a call into the C library cannot be ended.
func newSystem(time.Duration) (Mapping, error) { return system{}, nil }

// Of leaves groups without a name out, as Hadoop does.
func (system) Of(name string) ([]string, error) {
	if !plausible(name) {
		return nil, nil
	}
	u, err := user.Lookup(name)
	if unknown := user.UnknownUserError(""); errors.As(err, &unknown) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, id := range ids {
		g, err := user.LookupGroupId(id)
		if unknown := user.UnknownGroupIdError(""); errors.As(err, &unknown) {
			continue
		}
		if err != nil {
			return nil, err
		}
		names = append(names, g.Name)
	}
	return distinct(names), nil
}
