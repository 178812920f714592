package keys

import (
	"context"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream"
)

// Far is a Provider of keys whose material stays behind another KMS (far keys).
// Its own methods speak for edekd itself, which may list and describe keys. All
// others but Copy are refused: what edekd fetched in its own name must answer
// nobody else, and what it may change there is no caller's right. All methods are
// safe for concurrent use and come back by ctx's deadline.
//
// An exception of the other KMS is an *edek.Foreign. A KMS that cannot be reached
// is edek.Unavailable and never edek.NotFound, a change of which nobody knows
// whether it happened edek.Unsettled.
type Far interface {
	Provider
	Wrapper
	// As gives access to the keys in a caller's name: the other KMS decides
	// whether he may.
	As(c edek.Caller) Remote
	// InvalidateEverywhere makes every node of the other KMS forget what it
	// remembers of a key. A node that cannot be told now is told before it is
	// used again.
	InvalidateEverywhere(ctx context.Context, name string) error
	// Copy fetches the version of a key with its material in edekd's own name, for
	// decrypting nearby. It is refused unless the provider was opened for that. The
	// caller zeroes it.
	Copy(ctx context.Context, versionName string) (*edek.KeyVersion, error)
	// State tells how well the other KMS can be used.
	State() upstream.State
}

// Remote is a Provider in one caller's name, with the requests that only make
// sense there. It has no life of its own: Close does nothing.
type Remote interface {
	Provider
	// CurrentVersion returns the newest version of a key. The caller zeroes it.
	CurrentVersion(ctx context.Context, name string) (*edek.KeyVersion, error)
	// KeysMetadata describes keys, in the order of names; nil stands for one
	// that does not exist.
	KeysMetadata(ctx context.Context, names []string) ([]*edek.Metadata, error)
	// Invalidate asks one node to forget what it remembers of a key.
	Invalidate(ctx context.Context, name string) error
}

// Wrapper does with a far key what an *edek.ZoneKey does with a near one. The
// zero Caller is edekd itself.
type Wrapper interface {
	// Generate returns n new EDEKs of the current version.
	Generate(ctx context.Context, c edek.Caller, name string, n int) ([]edek.EDEK, error)
	// Decrypt returns the DEK of an EDEK of the given version of a key. The
	// caller zeroes it.
	Decrypt(ctx context.Context, c edek.Caller, name, versionName string, iv, wrapped []byte) ([]byte, error)
	// Batches reports whether the other KMS has announced DecryptBatch.
	Batches() bool
	// DecryptBatch returns the DEKs of EDEKs of a key, in their order, or
	// upstream.ErrNotSent if the server whose turn it was has not announced that it
	// can. The caller zeroes them.
	DecryptBatch(ctx context.Context, c edek.Caller, name string, all []edek.EDEK) ([][]byte, error)
	// Reencrypt brings an EDEK to the current version.
	Reencrypt(ctx context.Context, c edek.Caller, name, versionName string, iv, wrapped []byte) (edek.EDEK, error)
	// ReencryptBatch brings many to the current version, in their order. Those
	// that are there already come back as they are.
	ReencryptBatch(ctx context.Context, c edek.Caller, name string, all []edek.EDEK) ([]edek.EDEK, error)
}

// As returns p as it is in a caller's name. Only far keys know a difference.
func As(p Provider, c edek.Caller) Provider {
	switch p := p.(type) {
	case chain:
		if p.hasFar() {
			return callersChain{p, c}
		}
	case Far:
		return p.As(c)
	}
	return p
}

// Holder returns the provider in p that knows a key, and what it says of it,
// asked in edekd's own name.
func Holder(ctx context.Context, p Provider, name string) (Provider, *edek.Metadata, error) {
	if c, ok := p.(chain); ok {
		return c.holder(ctx, name)
	}
	m, err := p.Metadata(ctx, name)
	return p, m, err
}

// Written returns the provider in p that changes go to.
func Written(p Provider) Provider {
	if c, ok := p.(chain); ok {
		return c[0]
	}
	return p
}

// FarOnes returns the far providers in p, and whether there are near ones too.
func FarOnes(p Provider) (far []Far, near bool) {
	c, ok := p.(chain)
	if !ok {
		c = chain{p}
	}
	for _, p := range c {
		if f, ok := p.(Far); ok {
			far = append(far, f)
		} else {
			near = true
		}
	}
	return far, near
}

func (c chain) hasFar() bool {
	far, _ := FarOnes(c)
	return len(far) > 0
}

// callersChain is a chain in a caller's name. Which provider knows a key is
// asked in edekd's: what the caller may see must not decide whose key he gets.
type callersChain struct {
	chain
	caller edek.Caller
}

func (c callersChain) Names(ctx context.Context) ([]string, error) {
	theirs := make(chain, len(c.chain))
	for i, p := range c.chain {
		theirs[i] = As(p, c.caller)
	}
	return theirs.Names(ctx)
}

func (c callersChain) Create(ctx context.Context, key *edek.NewKey) (*edek.KeyVersion, error) {
	if err := c.creatable(ctx, key.Name); err != nil {
		return nil, err
	}
	return As(c.chain[0], c.caller).Create(ctx, key)
}

func (c callersChain) Roll(ctx context.Context, name string, material []byte) (*edek.KeyVersion, error) {
	if err := c.writable(ctx, "roll", name); err != nil {
		return nil, err
	}
	return As(c.chain[0], c.caller).Roll(ctx, name, material)
}

func (c callersChain) Delete(ctx context.Context, name string) error {
	if err := c.writable(ctx, "delete", name); err != nil {
		return err
	}
	return As(c.chain[0], c.caller).Delete(ctx, name)
}
