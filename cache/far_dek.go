package cache

import (
	"context"
	"time"

	"github.com/edekd/edekd/cache/flight"
	"github.com/edekd/edekd/cache/grant"
	"github.com/edekd/edekd/edek"
)

// AppendDEK has the other KMS open an EDEK for the caller and appends the DEK to
// dst. Where DEKs are remembered, who was lately let decrypt gets those. The caller
// zeroes what was appended.
func (f *FarKey) AppendDEK(ctx context.Context, c edek.Caller, versionName string, iv, wrapped, dst []byte) ([]byte, error) {
	s, known := f.side, f.facts.Load()
	_, version, _ := edek.SplitVersion(versionName)
	e, err := edek.NewEDEK(version, iv, wrapped)
	if err != nil { // whatever it is, it is the other KMS's to judge, and nothing to remember
		ctx, cancel := f.Deadline(ctx)
		defer cancel()
		return f.open(ctx, &c, versionName, iv, wrapped, dst)
	}
	if f.mayHave(c, known, e) {
		if dst, hit := s.deks.AppendDEK(dst, f.name, &e); hit {
			return dst, nil
		}
	}
	return f.openOnce(ctx, c, known, versionName, e, dst)
}

// mayHave reports whether the caller may have DEKs that are remembered. Where it is
// time his grant is renewed, by having e opened once more.
func (f *FarKey) mayHave(c edek.Caller, known *facts, e edek.EDEK) bool {
	if known == nil || f.side.deks == nil {
		return false
	}
	granted, renew := f.granted(&c, known, grant.Decrypt)
	if renew {
		one := e // only what is kept is allocated
		f.side.renew(c, func(ctx context.Context, c edek.Caller) {
			dek, _ := f.openOnce(ctx, c, known, f.VersionName(one.Version()), one, nil)
			clear(dek)
		})
	}
	return granted
}

// openOnce makes one call for all calls of a caller for an EDEK that are under
// way, and remembers the DEK where DEKs are.
func (f *FarKey) openOnce(ctx context.Context, c edek.Caller, known *facts, versionName string, e edek.EDEK, dst []byte) ([]byte, error) {
	ctx, cancel := f.Deadline(ctx)
	defer cancel()
	s := f.side
	id := flight.ID{User: c.User, Real: c.Real, Name: f.name, Epoch: f.epochNow(), EDEK: e}
	dst, _, err := s.flights.Do(ctx, dst, id, func(ctx context.Context, dst []byte) ([]byte, error) {
		if s.deks == nil {
			return f.open(ctx, &c, versionName, e.IV[:], e.Wrapped(), dst)
		}
		n, mark, sent := len(dst), s.deks.Mark(f.name), time.Now()
		dst, err := f.open(ctx, &c, versionName, e.IV[:], e.Wrapped(), dst)
		if err == nil {
			f.earn(&c, known, grant.Decrypt, sent)
			s.deks.Put(f.name, &e, dst[n:], mark)
		}
		return dst, err
	})
	return dst, err
}

// open makes one call for a DEK.
func (f *FarKey) open(ctx context.Context, c *edek.Caller, versionName string, iv, wrapped, dst []byte) ([]byte, error) {
	dek, err := f.provider.Decrypt(ctx, *c, f.name, versionName, iv, wrapped)
	if err != nil {
		return dst, f.judge(c, err)
	}
	dst = append(dst, dek...)
	clear(dek)
	return dst, nil
}
