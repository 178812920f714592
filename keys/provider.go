// Package keys knows where zone keys live. A Provider is one kind of place:
// deposits in a box (deposits.go), a Java keystore file (jceks.go). Open turns
// the URIs of hadoop.kms.key.provider.uri into providers. Names are exact byte
// strings here: folding or trimming them would let one key be reached under
// another's access rules.
package keys

import (
	"context"

	"github.com/edekd/edekd/edek"
)

// Provider holds keys whose material this process may see (near keys). All
// methods are safe for concurrent use. Failures are *edek.Error with Hadoop's
// own words where it has some; an unknown key or version is edek.NotFound.
// Changes are durable when the call returns without error.
type Provider interface {
	// Names lists all keys in no particular order.
	Names(ctx context.Context) ([]string, error)
	// Metadata describes a key.
	Metadata(ctx context.Context, name string) (*edek.Metadata, error)
	// Version returns the key version named name@n. The caller zeroes it.
	Version(ctx context.Context, versionName string) (*edek.KeyVersion, error)
	// Versions returns all versions of a key, oldest first, at the cost of
	// reading the key once. The caller zeroes them.
	Versions(ctx context.Context, name string) ([]*edek.KeyVersion, error)
	// Create makes a key with its first version. The caller zeroes the result.
	Create(ctx context.Context, key *edek.NewKey) (*edek.KeyVersion, error)
	// Roll makes a new current version, of the given material or, when that
	// is nil, of generated material. The caller zeroes the result.
	Roll(ctx context.Context, name string, material []byte) (*edek.KeyVersion, error)
	// Delete removes a key with all versions. A key created later under the
	// same name starts again at version 0.
	Delete(ctx context.Context, name string) error

	// String is the provider's URI as Hadoop prints it in its messages.
	String() string
	// Close releases files and locks. No call may be under way or follow.
	Close() error
}

// Warner is a Provider that can be served, but has something to tell an
// operator at the start.
type Warner interface {
	Provider
	// Warnings says each time what is so now: what happened, then what to try.
	Warnings() []string
}
