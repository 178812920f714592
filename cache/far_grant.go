package cache

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/edekd/edekd/cache/grant"
	"github.com/edekd/edekd/edek"
)

// grantBytes bounds what grants may take in memory.
const grantBytes = 64 << 20

func (f *FarKey) grant(c *edek.Caller, known *facts, kind grant.Kind) grant.Grant {
	return grant.Grant{User: c.User, Real: c.Real, Key: f.name, Created: known.metadata.Created, Kind: kind}
}

// granted reports whether the caller may be served without asking the other KMS,
// and whether his grant is to be renewed.
func (f *FarKey) granted(c *edek.Caller, known *facts, kind grant.Kind) (granted, renew bool) {
	s := f.side
	if s.c.LocalAuthorization {
		return true, false
	}
	return s.grants.Holds(f.grant(c, known, kind), time.Now(), f.provider.outages)
}

// renewalsMax bounds the grants that are renewed at a time. The others' turns come
// again.
const renewalsMax = 32

// renewals are requests made in callers' names so that no request of theirs has to
// wait for the other KMS.
type renewals struct {
	mu     sync.Mutex
	closed bool
	under  int
	ended  sync.WaitGroup
}

// begin runs one, and reports whether it does: not where there are too many or the
// end has come.
func (r *renewals) begin(one func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.under == renewalsMax {
		return false
	}
	r.under++
	r.ended.Go(func() {
		one()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.under--
	})
	return true
}

// close waits for those under way.
func (r *renewals) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.ended.Wait()
}

// renew makes a request in the caller's name, whose answer earns him a grant or
// ends the one he has. Strings of c may be views.
func (s *farSide) renew(c edek.Caller, ask func(ctx context.Context, c edek.Caller)) {
	c = edek.Caller{User: strings.Clone(c.User), Full: strings.Clone(c.Full), Real: strings.Clone(c.Real)}
	s.renewals.begin(func() { ask(s.life, c) })
}

// earn notes that a request of the caller, sent at that time, was granted.
func (f *FarKey) earn(c *edek.Caller, known *facts, kind grant.Kind, sent time.Time) {
	if known != nil {
		f.side.grants.Earn(f.grant(c, known, kind), sent)
	}
}

// judge looks at an error that a caller gets: a denial of whatever he asked for
// ends all that he was lately let do to the key. It comes back with the word for how
// keys can be served.
func (f *FarKey) judge(c *edek.Caller, err error) error { return f.side.judge(c, err, f.name) }

func (s *farSide) judge(c *edek.Caller, err error, names ...string) error {
	if denied(err) {
		s.denied.Inc()
		for _, name := range names {
			s.grants.Revoke(c.User, c.Real, name)
		}
	}
	return s.worded(err)
}
