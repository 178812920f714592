package keys

import (
	"context"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/keystore"
)

// Walker is a Provider that can show many keys at a fraction of what asking for
// each by its name costs.
type Walker interface {
	Provider
	// Walk calls visit with the metadata and the current version of each key, in
	// no particular order, until visit returns false. The versions are the
	// visitor's to zero. What cannot be read is left out: asking for it says why.
	// visit must not call the provider.
	Walk(ctx context.Context, visit func(m *edek.Metadata, current *edek.KeyVersion) bool) error
}

// Walk implements Walker.
func (p *deposits) Walk(ctx context.Context, visit func(*edek.Metadata, *edek.KeyVersion) bool) error {
	last := ""
	err := p.box.List(ctx, keyPrefix, func(d *keystore.Deposit) bool {
		name, _, ok := parseKeyHandle(d.Handle)
		if !ok || name == last { // of a key, the newest generation comes first and counts
			return true
		}
		last = name
		if d.Deleted {
			return true
		}
		n, err := ringOf(d.Content)
		if err != nil {
			return true
		}
		aead := p.ring.loaded(n)
		if aead == nil {
			return true
		}
		plaintext, err := unseal(aead, d)
		if err != nil {
			return true
		}
		defer clear(plaintext)
		r, err := decodeRecord(plaintext)
		if err != nil {
			return true
		}
		newest := len(r.versions) - 1
		return visit(r.metadata(name), version(name, newest, r.versions[newest]))
	})
	if err != nil {
		return p.failure("walk", "", err)
	}
	return nil
}
