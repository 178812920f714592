package keys

import (
	"context"
	"errors"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream"
	"github.com/edekd/edekd/upstream/kms"
)

// KMS is a Far provider: the keys of another Hadoop KMS, with all its nodes.
type KMS struct {
	*kms.Client // Wrapper and InvalidateEverywhere are its own
	uri         string
	copies      bool // Copy is allowed
}

var (
	_ Far    = (*KMS)(nil)
	_ Remote = (*asCaller)(nil)
)

// OpenKMS makes a provider of a URI kms://SCHEME@HOST;HOST:PORT/PATH. c says how
// the nodes are reached, but not which they are; copies allows Far.Copy. Nothing is
// sent yet: a KMS that is away keeps nobody from starting.
func OpenKMS(uri string, c kms.Config, copies bool) (*KMS, error) {
	address, err := kms.ParseURI(uri)
	if err != nil {
		return nil, err
	}
	c.Address = address
	client, err := kms.New(c)
	if err != nil {
		return nil, err
	}
	return &KMS{client, uri, copies}, nil
}

// As implements Far.
func (k *KMS) As(c edek.Caller) Remote { return &asCaller{k, c} }

// State implements Far.
func (k *KMS) State() upstream.State { return k.Client.State() }

// Names lists the keys that edekd itself may see.
func (k *KMS) Names(ctx context.Context) ([]string, error) {
	names, err := k.Client.Names(ctx, edek.Caller{})
	return names, own("names", "", err)
}

// Metadata describes a key as it is now: of what a KMS may be asked, only the
// metadata of several keys comes from no cache of its.
func (k *KMS) Metadata(ctx context.Context, name string) (*edek.Metadata, error) {
	all, err := k.KeysMetadata(ctx, edek.Caller{}, []string{name})
	if err != nil {
		return nil, own("metadata", name, err)
	}
	if all[0] == nil {
		return nil, &edek.Error{Kind: edek.NotFound, Op: "metadata", Key: name, Text: "Key " + name + " not found"}
	}
	return all[0], nil
}

// own keeps what another KMS says to edekd from going to a caller as if it was
// about him.
func own(op, name string, err error) error {
	if foreign, ok := errors.AsType[*edek.Foreign](err); ok {
		return &edek.Error{Kind: edek.Unavailable, Op: op, Key: name,
			Text: "edekd itself is refused by the KMS behind it: that one's rules must let edekd read the metadata and the names of keys",
			Err:  errors.New(foreign.Error())} // not a Foreign: nobody's but the log's
	}
	return err
}

var errOwnName = errors.New("asked for in edekd's own name")

func withheld(op, name, text string) error {
	return &edek.Error{Kind: edek.Unavailable, Op: op, Key: name, Text: text, Err: errOwnName}
}

const (
	staysThere   = "key material stays at the KMS behind edekd"
	asCallerOnly = "keys behind edekd are changed in a caller's name only"
)

// Version is refused, see Far.
func (k *KMS) Version(_ context.Context, versionName string) (*edek.KeyVersion, error) {
	return nil, withheld("version", versionName, staysThere)
}

// Versions is refused, see Far.
func (k *KMS) Versions(_ context.Context, name string) ([]*edek.KeyVersion, error) {
	return nil, withheld("versions", name, staysThere)
}

// Copy implements Far.
func (k *KMS) Copy(ctx context.Context, versionName string) (*edek.KeyVersion, error) {
	if !k.copies {
		return nil, withheld("copy", versionName, staysThere)
	}
	v, err := k.Client.Version(ctx, edek.Caller{}, versionName)
	if _, refused := errors.AsType[*edek.Foreign](err); refused {
		return nil, &edek.Error{Kind: edek.Unavailable, Op: "copy", Key: versionName,
			Text: "the KMS behind edekd must let it read key material (GET, and READ of the key)", Err: errors.New(err.Error())}
	}
	return v, err
}

// Create is refused, see Far.
func (k *KMS) Create(_ context.Context, key *edek.NewKey) (*edek.KeyVersion, error) {
	return nil, withheld("create", key.Name, asCallerOnly)
}

// Roll is refused, see Far.
func (k *KMS) Roll(_ context.Context, name string, _ []byte) (*edek.KeyVersion, error) {
	return nil, withheld("roll", name, asCallerOnly)
}

// Delete is refused, see Far.
func (k *KMS) Delete(_ context.Context, name string) error {
	return withheld("delete", name, asCallerOnly)
}

func (k *KMS) String() string { return k.uri }

// Close ends the connections.
func (k *KMS) Close() error {
	k.Client.Close()
	return nil
}

// asCaller is a KMS in a caller's name.
type asCaller struct {
	kms    *KMS
	caller edek.Caller
}

func (a *asCaller) Names(ctx context.Context) ([]string, error) {
	return a.kms.Client.Names(ctx, a.caller)
}

func (a *asCaller) Metadata(ctx context.Context, name string) (*edek.Metadata, error) {
	return a.kms.Client.Metadata(ctx, a.caller, name)
}

func (a *asCaller) KeysMetadata(ctx context.Context, names []string) ([]*edek.Metadata, error) {
	return a.kms.KeysMetadata(ctx, a.caller, names)
}

func (a *asCaller) CurrentVersion(ctx context.Context, name string) (*edek.KeyVersion, error) {
	return a.kms.CurrentVersion(ctx, a.caller, name)
}

func (a *asCaller) Version(ctx context.Context, versionName string) (*edek.KeyVersion, error) {
	return a.kms.Client.Version(ctx, a.caller, versionName)
}

func (a *asCaller) Versions(ctx context.Context, name string) ([]*edek.KeyVersion, error) {
	return a.kms.Client.Versions(ctx, a.caller, name)
}

func (a *asCaller) Create(ctx context.Context, key *edek.NewKey) (*edek.KeyVersion, error) {
	return a.kms.Client.Create(ctx, a.caller, key)
}

func (a *asCaller) Roll(ctx context.Context, name string, material []byte) (*edek.KeyVersion, error) {
	return a.kms.Client.Roll(ctx, a.caller, name, material)
}

func (a *asCaller) Delete(ctx context.Context, name string) error {
	return a.kms.Client.Delete(ctx, a.caller, name)
}

func (a *asCaller) Invalidate(ctx context.Context, name string) error {
	return a.kms.InvalidateCache(ctx, a.caller, name)
}

func (a *asCaller) String() string { return a.kms.uri }
func (a *asCaller) Close() error   { return nil }
