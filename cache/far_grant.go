package cache

import (
	"time"

	"github.com/edekd/edekd/cache/grant"
	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream"
)

// grantBytes bounds what grants may take in memory.
const grantBytes = 64 << 20

func (f *FarKey) grant(c *edek.Caller, known *facts, kind grant.Kind) grant.Grant {
	return grant.Grant{User: c.User, Real: c.Real, Key: f.name, Created: known.metadata.Created, Kind: kind}
}

// granted reports whether the caller may be served without asking the other KMS.
func (f *FarKey) granted(c *edek.Caller, known *facts, kind grant.Kind) bool {
	s := f.side
	if s.c.LocalAuthorization {
		return true
	}
	g, now := f.grant(c, known, kind), time.Now()
	return s.grants.Holds(g, now) || s.c.GrantOutage > 0 && f.provider.State() >= upstream.CacheOnly && s.grants.HoldsStale(g, now)
}

// earn notes that a request of the caller, sent at that time, was granted.
func (f *FarKey) earn(c *edek.Caller, known *facts, kind grant.Kind, sent time.Time) {
	if known != nil {
		f.side.grants.Earn(f.grant(c, known, kind), sent)
	}
}

// judge looks at an error that a caller gets: a denial of whatever he asked for
// ends all that he was lately let do to the key.
func (f *FarKey) judge(c *edek.Caller, err error) error {
	if denied(err) {
		f.side.denied.Inc()
		f.side.grants.Revoke(c.User, c.Real, f.name)
	}
	return err
}
