package keys

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"time"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/keystore"
)

const (
	// maxName bounds key names, in bytes.
	maxName = 64 << 10

	// maxAttempts bounds how often a change is tried again because somebody
	// else changed the same key between our look and our write.
	maxAttempts = 64

	// readBackTime is how long a change whose outcome is unknown is looked
	// for, also when the caller has gone.
	readBackTime = 5 * time.Second

	keyPrefix = "key/"
)

var errBusy = errors.New("others kept changing it meanwhile")

// deposits is the Provider whose keys are deposits in a box. One deposit,
// key/<escaped name>/<generation>, holds one key with all its versions, sealed
// (seal.go), so each change is a single compare-and-swap and cannot be seen
// half done. Deleting a key leaves a tombstone; a key created later under the
// same name is the next generation. At most one generation is alive, because
// the next is only begun upon a tombstone and a tombstone never changes.
type deposits struct {
	box  keystore.Depositor
	uri  string
	ring *ring

	// Changes of one key in this process take turns instead of colliding.
	seed  maphash.Seed
	turns [64]chan struct{}
}

// OpenDeposits returns the Provider of the keys in box, sealed by id. uri is
// how the provider is called in messages. Where no ring key is, it makes one,
// so that the box shows to which identity it belongs. It fails when the box
// holds a ring key that id does not open; the error names both identities. Closing the
// Provider closes the box if it has a Close method; when OpenDeposits fails,
// the box stays open.
func OpenDeposits(ctx context.Context, box keystore.Depositor, uri string, id *Identity) (Provider, error) {
	r, err := loadRing(ctx, box, id)
	if err != nil {
		return nil, err
	}
	if r.newest == 0 {
		if err := r.extend(ctx, box, 1); err != nil {
			return nil, fmt.Errorf("prepare a ring key: %w", err)
		}
	}
	p := &deposits{box: box, uri: uri, ring: r, seed: maphash.MakeSeed()}
	for i := range p.turns {
		p.turns[i] = make(chan struct{}, 1)
	}
	return p, nil
}

func (p *deposits) String() string { return p.uri }

func (p *deposits) Close() error {
	if c, ok := p.box.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Names implements Provider at the cost of one walk over the handles.
func (p *deposits) Names(ctx context.Context) ([]string, error) {
	const op = "list"
	var names []string
	var odd error
	err := p.box.Handles(ctx, keyPrefix, func(handle string) bool {
		name, _, ok := parseKeyHandle(handle)
		if !ok {
			odd = &edek.Error{Kind: edek.Corrupt, Op: op, Text: fmt.Sprintf("deposit %q does not name a key", handle)}
			return false
		}
		names = append(names, name)
		return true
	})
	if err != nil {
		return nil, p.failure(op, "", err)
	}
	return names, odd
}

// Metadata implements Provider at the cost of reading the key's newest generation.
func (p *deposits) Metadata(ctx context.Context, name string) (*edek.Metadata, error) {
	const op = "metadata"
	k, err := p.look(ctx, op, name)
	if err != nil {
		return nil, err
	}
	defer k.zero()
	if k.record == nil {
		return nil, notFound(op, name, fmt.Sprintf("Key %s not found", name))
	}
	return k.record.metadata(name), nil
}

// Version implements Provider at the cost of reading the key's newest generation.
func (p *deposits) Version(ctx context.Context, versionName string) (*edek.KeyVersion, error) {
	const op = "version"
	missing := notFound(op, versionName, fmt.Sprintf("'%s' not found", versionName))
	name, n, ok := edek.SplitVersion(versionName)
	if !ok {
		return nil, missing
	}
	k, err := p.look(ctx, op, name)
	if err != nil {
		return nil, err
	}
	defer k.zero()
	if k.record == nil || n >= len(k.record.versions) {
		return nil, missing
	}
	return version(name, n, k.record.versions[n]), nil
}

// Versions implements Provider at the cost of reading the key's newest generation.
func (p *deposits) Versions(ctx context.Context, name string) ([]*edek.KeyVersion, error) {
	const op = "versions"
	k, err := p.look(ctx, op, name)
	if err != nil {
		return nil, err
	}
	defer k.zero()
	if k.record == nil {
		return nil, notFound(op, name, fmt.Sprintf("Key %s not found", name))
	}
	versions := make([]*edek.KeyVersion, len(k.record.versions))
	for n, material := range k.record.versions {
		versions[n] = version(name, n, material)
	}
	return versions, nil
}

// Create implements Provider. As in Hadoop's KeyProvider, material is
// generated before the name is looked at.
func (p *deposits) Create(ctx context.Context, key *edek.NewKey) (*edek.KeyVersion, error) {
	const op = "create"
	if key.Name == "" || len(key.Name) > maxName {
		return nil, &edek.Error{Kind: edek.Invalid, Op: op, Text: fmt.Sprintf("A key name has 1 to %d bytes, this one has %d", maxName, len(key.Name))}
	}
	material := bytes.Clone(key.Material)
	if key.Material == nil {
		var err error
		if material, err = edek.GenerateMaterial(op, key.Name, key.Cipher, key.BitLength); err != nil {
			return nil, err
		}
	}
	defer clear(material)
	err := p.change(ctx, op, key.Name, func(ctx context.Context, k *found, unknown bool) error {
		if k.record != nil {
			if unknown && subtle.ConstantTimeCompare(k.record.versions[0], material) == 1 {
				return nil
			}
			return &edek.Error{Kind: edek.Exists, Op: op, Key: key.Name, Text: fmt.Sprintf("Key %s already exists in %s", key.Name, p.uri)}
		}
		if err := edek.CheckMaterial(op, key.Name, material, key.BitLength); err != nil {
			return err
		}
		if k.generation == maxGeneration {
			return &edek.Error{Kind: edek.Invalid, Op: op, Key: key.Name, Text: "The key was deleted too often to be created again"}
		}
		r := &record{
			cipher: key.Cipher, bitLength: key.BitLength, created: time.Now().UnixMilli(),
			description: key.Description, attributes: key.Attributes, versions: [][]byte{material},
		}
		return p.put(ctx, keyHandle(key.Name, k.generation+1), 0, r)
	})
	if err != nil {
		return nil, err
	}
	return version(key.Name, 0, material), nil
}

// Roll implements Provider.
func (p *deposits) Roll(ctx context.Context, name string, given []byte) (*edek.KeyVersion, error) {
	const op = "roll"
	material := bytes.Clone(given)
	defer func() { clear(material) }()
	n := 0 // the version being made
	err := p.change(ctx, op, name, func(ctx context.Context, k *found, unknown bool) (err error) {
		if k.record == nil {
			if given == nil {
				return notFound(op, name, fmt.Sprintf("Can't find Metadata for key %s", name))
			}
			return notFound(op, name, fmt.Sprintf("Key %s not found", name))
		}
		versions := k.record.versions
		if unknown && n < len(versions) && subtle.ConstantTimeCompare(versions[n], material) == 1 {
			return nil
		}
		if material == nil {
			if material, err = edek.GenerateMaterial(op, name, k.record.cipher, k.record.bitLength); err != nil {
				return err
			}
		}
		if err := edek.CheckMaterial(op, name, material, k.record.bitLength); err != nil {
			return err
		}
		n = len(versions)
		k.record.versions = append(versions, material)
		return p.put(ctx, keyHandle(name, k.generation), k.revision, k.record)
	})
	if err != nil {
		return nil, err
	}
	return version(name, n, material), nil
}

// Delete implements Provider. What is left is a tombstone that still holds the
// sealed key.
func (p *deposits) Delete(ctx context.Context, name string) error {
	const op = "delete"
	return p.change(ctx, op, name, func(ctx context.Context, k *found, unknown bool) error {
		switch {
		case k.record != nil:
			return p.box.Delete(ctx, keyHandle(name, k.generation), k.revision)
		case unknown: // done by us or somebody else: it is gone
			return nil
		default:
			return notFound(op, name, fmt.Sprintf("Key %s does not exist in %s", name, p.uri))
		}
	})
}

// change looks at a key and has step change it, again and again while others
// get in between. A step whose write may or may not have been done is followed
// by one that is told so and looks for its own traces; the caller's context no
// longer counts then, because the caller needs the answer most.
func (p *deposits) change(ctx context.Context, op, name string, step func(ctx context.Context, k *found, unknown bool) error) error {
	turn := p.turns[maphash.String(p.seed, name)%uint64(len(p.turns))]
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return p.failure(op, name, ctx.Err())
	}
	unknown := false
	last := errBusy
	for attempt := range maxAttempts {
		if attempt > 3 { // out of step with whoever keeps being faster
			time.Sleep(rand.N(time.Millisecond))
		}
		k, err := p.look(ctx, op, name)
		if err != nil {
			return err
		}
		err = step(ctx, k, unknown)
		k.zero()
		switch {
		case errors.Is(err, keystore.ErrUnknownOutcome):
			last = err
			if !unknown {
				unknown = true
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), readBackTime)
				defer cancel()
			}
		case errors.Is(err, keystore.ErrConflict):
		case err == nil:
			return nil
		default:
			return p.failure(op, name, err)
		}
	}
	return p.failure(op, name, last)
}

// put seals and stores a record as the deposit that follows revision expect.
func (p *deposits) put(ctx context.Context, handle string, expect int64, r *record) error {
	plaintext := r.encode()
	defer clear(plaintext)
	sealed, err := p.ring.seal(ctx, p.box, handle, expect+1, plaintext)
	if err != nil {
		return err
	}
	_, err = p.box.Put(ctx, handle, expect, sealed)
	return err
}

// found is what look saw of a key: its newest generation (0 for none) and,
// if that is alive, its record.
type found struct {
	generation uint32
	revision   int64
	record     *record
	plaintext  []byte // holds key bytes, aliased by record
}

func (k *found) zero() { clear(k.plaintext) }

// look reads the newest generation of a key. The caller zeroes the result.
func (p *deposits) look(ctx context.Context, op, name string) (*found, error) {
	if name == "" || len(name) > maxName { // can't have been created
		return &found{}, nil
	}
	var newest *keystore.Deposit
	err := p.box.List(ctx, keyHandlePrefix(name), func(d *keystore.Deposit) bool { newest = d; return false })
	if err != nil {
		return nil, p.failure(op, name, err)
	}
	if newest == nil {
		return &found{}, nil
	}
	k := &found{revision: newest.Revision}
	var ok bool
	if _, k.generation, ok = parseKeyHandle(newest.Handle); !ok {
		return nil, &edek.Error{Kind: edek.Corrupt, Op: op, Key: name, Text: fmt.Sprintf("Deposit %q does not name a key", newest.Handle)}
	}
	if newest.Deleted {
		return k, nil
	}
	if k.plaintext, err = p.ring.open(ctx, newest); err == nil {
		k.record, err = decodeRecord(k.plaintext)
	}
	if err != nil {
		k.zero()
		return nil, &edek.Error{Kind: edek.Corrupt, Op: op, Key: name, Text: fmt.Sprintf("Key %s cannot be read from %s", name, p.uri), Err: err}
	}
	return k, nil
}

// failure says in Hadoop's error family what a box reported.
func (p *deposits) failure(op, name string, err error) error {
	var known *edek.Error
	if errors.As(err, &known) {
		return known
	}
	e := &edek.Error{Kind: edek.Unavailable, Op: op, Key: name, Err: err, Text: "The key store cannot serve now"}
	switch {
	case errors.Is(err, errBusy):
		e.Kind, e.Text = edek.Conflict, "The key is being changed by others"
	case errors.Is(err, keystore.ErrInvalid):
		e.Kind, e.Text = edek.Invalid, "The key with all its versions and attributes is too large"
	case errors.Is(err, keystore.ErrFull):
		e.Text = "The disk of the key store is full: nothing was changed"
	case errors.Is(err, keystore.ErrUnknownOutcome):
		e.Text = "The key store cannot tell whether the change was made"
	}
	return e
}

func notFound(op, key, text string) error {
	return &edek.Error{Kind: edek.NotFound, Op: op, Key: key, Text: text}
}

// version copies material, so that it outlives the record it is part of.
func version(name string, n int, material []byte) *edek.KeyVersion {
	return &edek.KeyVersion{Name: name, VersionName: edek.VersionName(name, n), Material: bytes.Clone(material)}
}
