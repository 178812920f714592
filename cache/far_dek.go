package cache

import (
	"context"
	"time"

	"github.com/edekd/edekd/cache/dek"
	"github.com/edekd/edekd/cache/flight"
	"github.com/edekd/edekd/cache/grant"
	"github.com/edekd/edekd/edek"
)

// AppendDEK has the other KMS open an EDEK for the caller and appends the DEK to
// dst. Who was lately let decrypt is answered without it, where DEKs are remembered
// or there is a copy of the key version. The caller zeroes what was appended.
func (f *FarKey) AppendDEK(ctx context.Context, c edek.Caller, versionName string, iv, wrapped, dst []byte) ([]byte, error) {
	known := f.facts.Load()
	_, version, _ := edek.SplitVersion(versionName)
	e, err := edek.NewEDEK(version, iv, wrapped)
	if err != nil { // whatever it is, it is the other KMS's to judge, and nothing to remember
		ctx, cancel := f.Deadline(ctx)
		defer cancel()
		return f.open(ctx, &c, versionName, iv, wrapped, dst)
	}
	if f.mayRecall(&c, known, &e) {
		if dst, hit := f.recall(&c, known, &e, dst); hit {
			return dst, nil
		}
	}
	return f.openOnce(ctx, c, known, versionName, e, dst)
}

// mayRecall reports whether EDEKs may be opened for the caller without the other
// KMS. Where it is time his grant is renewed, by having e opened once more.
func (f *FarKey) mayRecall(c *edek.Caller, known *facts, e *edek.EDEK) bool {
	if known == nil || !f.side.remembers() {
		return false
	}
	granted, renew := f.granted(c, known, grant.Decrypt)
	if renew {
		f.reopen(c, known, e)
	}
	return granted
}

// remembers reports whether anything but the other KMS can open EDEKs.
func (s *farSide) remembers() bool { return s.deks != nil || s.copies != nil }

// recall opens an EDEK without the other KMS, if that is possible, for a caller who
// holds a grant.
func (f *FarKey) recall(c *edek.Caller, known *facts, e *edek.EDEK, dst []byte) ([]byte, bool) {
	if f.side.copies != nil {
		return f.openNear(c, known, e, dst)
	}
	return f.side.deks.AppendDEK(dst, f.name, e)
}

// reopen has an EDEK opened as the caller in the background, for what the answer
// says.
func (f *FarKey) reopen(c *edek.Caller, known *facts, e *edek.EDEK) {
	one := *e // only what is kept is allocated
	f.side.renew(*c, func(ctx context.Context, c edek.Caller) {
		dek, _ := f.openOnce(ctx, c, known, f.VersionName(one.Version()), one, nil)
		clear(dek)
	})
}

// openOnce makes one call for all calls of a caller for an EDEK that are under
// way, and remembers what the answer is good for.
func (f *FarKey) openOnce(ctx context.Context, c edek.Caller, known *facts, versionName string, e edek.EDEK, dst []byte) ([]byte, error) {
	ctx, cancel := f.Deadline(ctx)
	defer cancel()
	id := flight.ID{User: c.User, Real: c.Real, Name: f.name, Epoch: f.epochNow(), EDEK: e}
	dst, _, err := f.side.flights.Do(ctx, dst, id, func(ctx context.Context, dst []byte) ([]byte, error) {
		n, asked := len(dst), f.moment()
		dst, err := f.open(ctx, &c, versionName, e.IV[:], e.Wrapped(), dst)
		if err == nil {
			f.opened(&c, known, &e, dst[n:], asked)
		}
		return dst, err
	})
	return dst, err
}

// moment is when the other KMS is asked to open EDEKs of a key.
type moment struct {
	at    time.Time
	epoch uint64 // of the key
	mark  dek.Mark
}

func (f *FarKey) moment() moment {
	m := moment{at: time.Now(), epoch: f.epochNow()}
	if f.side.deks != nil {
		m.mark = f.side.deks.Mark(f.name)
	}
	return m
}

// opened notes that the other KMS, asked at the given moment, opened an EDEK for the
// caller.
func (f *FarKey) opened(c *edek.Caller, known *facts, e *edek.EDEK, dek []byte, asked moment) {
	s := f.side
	if s.remembers() {
		f.earn(c, known, grant.Decrypt, asked.at)
	}
	switch {
	case s.deks != nil:
		s.deks.Put(f.name, e, dek, asked.mark)
	case s.copies != nil:
		f.copyNear(e, dek, asked)
	}
}

// open makes one call for a DEK.
func (f *FarKey) open(ctx context.Context, c *edek.Caller, versionName string, iv, wrapped, dst []byte) ([]byte, error) {
	dek, err := f.provider.Decrypt(ctx, *c, f.name, versionName, iv, wrapped)
	if err != nil {
		return dst, f.judge(c, err)
	}
	f.provider.heard()
	dst = append(dst, dek...)
	clear(dek)
	return dst, nil
}
