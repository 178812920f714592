package cache

import (
	"context"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/keys"
)

// judged is a provider in a caller's name whose answers about keys are judged: who
// may not even see a key has no grants for it any more.
type judged struct {
	keys.Remote
	side   *farSide
	caller edek.Caller
}

func (j judged) Metadata(ctx context.Context, name string) (*edek.Metadata, error) {
	m, err := j.Remote.Metadata(ctx, name)
	return m, j.side.judge(&j.caller, err, name)
}

// KeysMetadata is refused as a whole, for whichever of the keys: it ends the grants
// for all of them.
func (j judged) KeysMetadata(ctx context.Context, names []string) ([]*edek.Metadata, error) {
	all, err := j.Remote.KeysMetadata(ctx, names)
	return all, j.side.judge(&j.caller, err, names...)
}

func (j judged) CurrentVersion(ctx context.Context, name string) (*edek.KeyVersion, error) {
	v, err := j.Remote.CurrentVersion(ctx, name)
	return v, j.side.judge(&j.caller, err, name)
}

func (j judged) Version(ctx context.Context, versionName string) (*edek.KeyVersion, error) {
	v, err := j.Remote.Version(ctx, versionName)
	name, _ := edek.BaseName(versionName)
	return v, j.side.judge(&j.caller, err, name)
}

func (j judged) Versions(ctx context.Context, name string) ([]*edek.KeyVersion, error) {
	all, err := j.Remote.Versions(ctx, name)
	return all, j.side.judge(&j.caller, err, name)
}

// judgeChange is judge for a change of a key, whichever provider it went to.
func (k *Cache) judgeChange(c *edek.Caller, name string, err error) error {
	if k.far == nil {
		return err
	}
	return k.far.judge(c, err, name)
}
