package keys

import (
	"context"
	"errors"
	"strings"

	"github.com/edekd/edekd/edek"
)

// chain asks several providers in turn: the first that knows a key answers for
// it. Only the first is written to, so a key that lives further down can be
// used but not changed. A provider that fails ends the search: what it would
// have said is not known, and a later provider's key of the same name must not
// take its place.
type chain []Provider

// holder returns the provider that knows name.
func (c chain) holder(ctx context.Context, name string) (Provider, *edek.Metadata, error) {
	var missing error
	for _, p := range c {
		m, err := p.Metadata(ctx, name)
		if err == nil {
			return p, m, nil
		}
		if edek.KindOf(err) != edek.NotFound {
			return nil, nil, err
		}
		if missing == nil {
			missing = err
		}
	}
	return nil, nil, missing
}

func (c chain) Names(ctx context.Context) ([]string, error) {
	var all []string
	seen := map[string]bool{}
	for _, p := range c {
		names, err := p.Names(ctx)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if !seen[name] {
				seen[name] = true
				all = append(all, name)
			}
		}
	}
	return all, nil
}

func (c chain) Metadata(ctx context.Context, name string) (*edek.Metadata, error) {
	_, m, err := c.holder(ctx, name)
	return m, err
}

func (c chain) Version(ctx context.Context, versionName string) (*edek.KeyVersion, error) {
	name, ok := edek.BaseName(versionName)
	if !ok {
		return c[0].Version(ctx, versionName)
	}
	p, _, err := c.holder(ctx, name)
	if err != nil {
		return nil, err
	}
	return p.Version(ctx, versionName)
}

func (c chain) Versions(ctx context.Context, name string) ([]*edek.KeyVersion, error) {
	p, _, err := c.holder(ctx, name)
	if err != nil {
		return nil, err
	}
	return p.Versions(ctx, name)
}

func (c chain) Create(ctx context.Context, key *edek.NewKey) (*edek.KeyVersion, error) {
	if err := c.creatable(ctx, key.Name); err != nil {
		return nil, err
	}
	return c[0].Create(ctx, key)
}

// creatable returns an error unless no provider knows the name.
func (c chain) creatable(ctx context.Context, name string) error {
	p, _, err := c.holder(ctx, name)
	if err == nil {
		return &edek.Error{Kind: edek.Exists, Op: "create", Key: name,
			Text: "Key " + name + " already exists in " + p.String()}
	}
	if edek.KindOf(err) != edek.NotFound {
		return err
	}
	return nil
}

// writable returns an error when the key lives beyond the first provider. An
// unknown key is left to the first to refuse in its own words.
func (c chain) writable(ctx context.Context, op, name string) error {
	p, _, err := c.holder(ctx, name)
	if err != nil && edek.KindOf(err) != edek.NotFound {
		return err
	}
	if err == nil && p != c[0] {
		return &edek.Error{Kind: edek.Unavailable, Op: op, Key: name,
			Text: "Key " + name + " lives in " + p.String() + ", which is read only here: only the first provider of the chain is written to"}
	}
	return nil
}

func (c chain) Roll(ctx context.Context, name string, material []byte) (*edek.KeyVersion, error) {
	if err := c.writable(ctx, "roll", name); err != nil {
		return nil, err
	}
	return c[0].Roll(ctx, name, material)
}

func (c chain) Delete(ctx context.Context, name string) error {
	if err := c.writable(ctx, "delete", name); err != nil {
		return err
	}
	return c[0].Delete(ctx, name)
}

// String lists all providers as the configuration does. Messages about a key
// name its own provider instead.
func (c chain) String() string {
	uris := make([]string, len(c))
	for i, p := range c {
		uris[i] = p.String()
	}
	return strings.Join(uris, ",")
}

// Warnings implements Warner.
func (c chain) Warnings() []string {
	var all []string
	for _, p := range c {
		if w, ok := p.(Warner); ok {
			all = append(all, w.Warnings()...)
		}
	}
	return all
}

func (c chain) Close() error {
	var errs []error
	for _, p := range c {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}
