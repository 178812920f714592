package keys

import (
	"context"
	"errors"
	"fmt"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/keystore"
)

// Census is what a walk through all deposits of a box found.
type Census struct {
	Keys     int // living keys
	Versions int // versions of living keys
	Deleted  int // tombstones
	RingKeys int
	Damaged  []error // deposits that do not open or parse, at most maxDamaged of them
}

// maxDamaged bounds the list of damaged deposits.
const maxDamaged = 1000

// TakeCensus opens every deposit in box with id and counts what it finds. The
// error is non-nil when the walk could not be done, not when deposits are
// damaged. The box may be in use meanwhile.
func TakeCensus(ctx context.Context, box keystore.Reader, id *Identity) (*Census, error) {
	r, err := loadRing(ctx, box, id)
	if err != nil {
		return nil, err
	}
	var c Census
	var later []*keystore.Deposit // sealed under ring keys made since
	err = box.List(ctx, keyPrefix, func(d *keystore.Deposit) bool {
		if n, err := ringOf(d.Content); err == nil && r.loaded(n) == nil {
			later = append(later, d)
		} else {
			c.count(ctx, r, d)
		}
		return len(c.Damaged) < maxDamaged
	})
	if err != nil {
		return nil, fmt.Errorf("walk through the keys: %w", err)
	}
	for _, d := range later {
		c.count(ctx, r, d)
	}
	c.RingKeys = len(r.keys)
	return &c, nil
}

func (c *Census) count(ctx context.Context, r *ring, d *keystore.Deposit) {
	name, generation, ok := parseKeyHandle(d.Handle)
	if !ok {
		c.Damaged = append(c.Damaged, fmt.Errorf("deposit %q does not name a key", d.Handle))
		return
	}
	plaintext, err := r.open(ctx, d)
	defer clear(plaintext)
	var rec *record
	if err == nil {
		rec, err = decodeRecord(plaintext)
	}
	if err == nil {
		for n, material := range rec.versions {
			err = errors.Join(err, edek.CheckMaterial("verify", edek.VersionName(name, n), material, rec.bitLength))
		}
	}
	switch {
	case err != nil:
		c.Damaged = append(c.Damaged, fmt.Errorf("key %q, generation %d: %w", name, generation, err))
	case d.Deleted:
		c.Deleted++
	default:
		c.Keys++
		c.Versions += len(rec.versions)
	}
}
