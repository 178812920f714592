package keys

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/edekd/edekd/keystore"
)

// A key deposit's content is an envelope:
//
//	1 byte    envelopeVersion
//	4 bytes   number of the ring key, big-endian
//	12 bytes  random nonce
//	n bytes   AES-256-GCM ciphertext, its last 16 bytes the tag
//
// with the first 5 bytes, the deposit's revision (8 bytes, big-endian) and its
// handle as associated data. Nobody who can write to the box can move content
// from one handle or revision to another.
//
// A ring key is the deposit ring/<number>:
//
//	1 byte    ringVersion
//	1 byte    length of the fingerprint
//	n bytes   fingerprint of the identity it is encrypted to
//	rest      OpenPGP message, signed and encrypted: number and 32 key bytes
//
// Nonces are drawn at random, so a ring key must seal far fewer than 2^32
// times (NIST SP 800-38D, 8.3). Every process takes the right to seal in
// blocks, counted by the revision of the deposit seals/<number>; when all
// blocks of a ring key are taken, the next ring key is made. Old ones stay.
const (
	envelopeVersion = 1
	envelopeHeader  = 5
	envelopeSize    = envelopeHeader + 12 + 16 // what sealing adds

	ringVersion = 1
	ringPrefix  = "ring/"
	sealsPrefix = "seals/"

	sealBlock    = 1 << 16 // seals a process may do for each revision of seals/<number>
	maxSealBlock = 1 << 12 // blocks of a ring key: 2^28 seals
)

// errUnknownRing: sealed under a ring key that is not loaded.
var errUnknownRing = errors.New("sealed under a ring key that is not there: restore the newest backup in which it opens")

// ring seals and opens deposits. It is safe for concurrent use.
type ring struct {
	box keystore.Reader
	id  *Identity

	mu     sync.RWMutex // guards keys and newest
	keys   map[uint32]cipher.AEAD
	newest uint32 // the ring key to seal with, 0 when there is none

	sealing sync.Mutex // guards taken and left
	taken   uint32     // the ring key of which a block is taken
	left    int64      // seals left of that block

	block, maxBlock int64 // sealBlock and maxSealBlock, smaller in tests
}

// loadRing opens all ring keys in the box.
func loadRing(ctx context.Context, box keystore.Reader, id *Identity) (*ring, error) {
	r := &ring{box: box, id: id, keys: map[uint32]cipher.AEAD{}, block: sealBlock, maxBlock: maxSealBlock}
	// Keys first: a ring key is there before anything is sealed under it.
	anyKey := false
	if err := box.List(ctx, keyPrefix, func(*keystore.Deposit) bool { anyKey = true; return false }); err != nil {
		return nil, fmt.Errorf("look for keys: %w", err)
	}
	var found []*keystore.Deposit
	if err := box.List(ctx, ringPrefix, func(d *keystore.Deposit) bool { found = append(found, d); return true }); err != nil {
		return nil, fmt.Errorf("look for ring keys: %w", err)
	}
	if anyKey && len(found) == 0 {
		return nil, errors.New("there are keys but no ring key that opens them: restore a backup (edekctl store restore)")
	}
	for _, d := range found {
		if _, err := r.add(d); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func ringHandle(n uint32) string  { return fmt.Sprintf("%s%010d", ringPrefix, n) }
func sealsHandle(n uint32) string { return fmt.Sprintf("%s%010d", sealsPrefix, n) }

// add opens a ring deposit unless it is open already.
func (r *ring) add(d *keystore.Deposit) (cipher.AEAD, error) {
	number, err := strconv.ParseUint(strings.TrimPrefix(d.Handle, ringPrefix), 10, 32)
	n := uint32(number)
	if err != nil || n == 0 || d.Handle != ringHandle(n) {
		return nil, fmt.Errorf("deposit %s is no ring key that this program knows: restore a backup (edekctl store restore), or use the version that wrote it", d.Handle)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if aead, ok := r.keys[n]; ok {
		return aead, nil
	}
	aead, err := openRing(r.id, n, d.Content)
	if err != nil {
		return nil, err
	}
	r.keys[n] = aead
	r.newest = max(r.newest, n)
	return aead, nil
}

// key returns ring key n, asking the box for one that another process made.
func (r *ring) key(ctx context.Context, n uint32) (cipher.AEAD, error) {
	if aead := r.loaded(n); aead != nil {
		return aead, nil
	}
	d, err := r.box.Get(ctx, ringHandle(n))
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, errUnknownRing
	}
	if err != nil {
		return nil, fmt.Errorf("get ring key %d: %w", n, err)
	}
	return r.add(d)
}

func (r *ring) loaded(n uint32) cipher.AEAD {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys[n]
}

// seal encloses plaintext, which it does not retain, for the deposit handle at
// the given revision.
func (r *ring) seal(ctx context.Context, box keystore.Depositor, handle string, revision int64, plaintext []byte) ([]byte, error) {
	n, err := r.take(ctx, box)
	if err != nil {
		return nil, err
	}
	envelope := make([]byte, envelopeHeader, envelopeSize+len(plaintext))
	envelope[0] = envelopeVersion
	binary.BigEndian.PutUint32(envelope[1:], n)
	return r.loaded(n).Seal(envelope, nil, plaintext, associated(envelope, handle, revision)), nil
}

// open returns what seal enclosed in d. The caller zeroes it.
func (r *ring) open(ctx context.Context, d *keystore.Deposit) ([]byte, error) {
	n, err := ringOf(d.Content)
	if err != nil {
		return nil, err
	}
	aead, err := r.key(ctx, n)
	if err != nil {
		return nil, err
	}
	return unseal(aead, d)
}

// ringOf returns the number of the ring key an envelope is sealed under.
func ringOf(envelope []byte) (uint32, error) {
	if len(envelope) < envelopeSize {
		return 0, fmt.Errorf("a sealed deposit of %d bytes is too short: restore the newest backup in which it opens", len(envelope))
	}
	if envelope[0] != envelopeVersion {
		return 0, fmt.Errorf("the deposit is damaged or from a newer edekd (its form is %d, known is %d): restore the newest backup in which it opens, or use that version", envelope[0], envelopeVersion)
	}
	return binary.BigEndian.Uint32(envelope[1:]), nil
}

func unseal(aead cipher.AEAD, d *keystore.Deposit) ([]byte, error) {
	plaintext, err := aead.Open(nil, nil, d.Content[envelopeHeader:], associated(d.Content, d.Handle, d.Revision))
	if err != nil {
		return nil, errors.New("the seal is broken: the content is not what was stored under this handle and revision: restore the newest backup in which it opens")
	}
	return plaintext, nil
}

func associated(envelope []byte, handle string, revision int64) []byte {
	ad := make([]byte, 0, envelopeHeader+8+len(handle))
	ad = append(ad, envelope[:envelopeHeader]...)
	ad = binary.BigEndian.AppendUint64(ad, uint64(revision))
	return append(ad, handle...)
}

// take uses up the right to one seal and returns the ring key it is for.
func (r *ring) take(ctx context.Context, box keystore.Depositor) (uint32, error) {
	r.sealing.Lock()
	defer r.sealing.Unlock()
	if r.left == 0 {
		if err := r.takeBlock(ctx, box); err != nil {
			return 0, fmt.Errorf("prepare a ring key: %w", err)
		}
	}
	r.left--
	return r.taken, nil
}

func (r *ring) takeBlock(ctx context.Context, box keystore.Depositor) error {
	for range maxAttempts {
		r.mu.RLock()
		n := r.newest
		r.mu.RUnlock()
		blocks := r.maxBlock
		if n != 0 {
			d, err := box.Get(ctx, sealsHandle(n))
			switch {
			case err == nil:
				blocks = d.Revision
			case errors.Is(err, keystore.ErrNotFound):
				blocks = 0
			default:
				return err
			}
		}
		if blocks >= r.maxBlock {
			if err := r.extend(ctx, box, n+1); err != nil {
				return err
			}
			continue
		}
		_, err := box.Put(ctx, sealsHandle(n), blocks, nil)
		switch {
		case err == nil:
			r.taken, r.left = n, r.block
			return nil
		case !errors.Is(err, keystore.ErrConflict) && !errors.Is(err, keystore.ErrUnknownOutcome):
			return err
		}
	}
	return errBusy
}

// extend makes ring key n, or takes the one that another process made first.
func (r *ring) extend(ctx context.Context, box keystore.Depositor, n uint32) error {
	content, err := newRing(r.id, n)
	if err != nil {
		return err
	}
	_, err = box.Put(ctx, ringHandle(n), 0, content)
	if err != nil && !errors.Is(err, keystore.ErrConflict) && !errors.Is(err, keystore.ErrUnknownOutcome) {
		return err
	}
	// What the box holds counts, whoever put it there.
	_, err = r.key(ctx, n)
	return err
}

// newRing makes the content of deposit ring/<n>.
func newRing(id *Identity, n uint32) ([]byte, error) {
	secret := make([]byte, 4+32)
	defer clear(secret)
	binary.BigEndian.PutUint32(secret, n)
	if _, err := rand.Read(secret[4:]); err != nil {
		return nil, err
	}
	message, err := id.encrypt(secret)
	if err != nil {
		return nil, fmt.Errorf("encrypt ring key %d: %w", n, err)
	}
	fingerprint := id.entity.PrimaryKey.Fingerprint
	content := append([]byte{ringVersion, byte(len(fingerprint))}, fingerprint...)
	return append(content, message...), nil
}

// openRing is the inverse of newRing.
func openRing(id *Identity, n uint32, content []byte) (cipher.AEAD, error) {
	if len(content) < 2 || len(content) < 2+int(content[1]) {
		return nil, fmt.Errorf("ring key %d is cut short: restore a backup", n)
	}
	if content[0] != ringVersion {
		return nil, fmt.Errorf("ring key %d is damaged or from a newer edekd (its form is %d, known is %d): restore a backup (edekctl store restore), or use that version", n, content[0], ringVersion)
	}
	fingerprint, message := content[2:2+content[1]], content[2+content[1]:]
	if !bytes.Equal(fingerprint, id.entity.PrimaryKey.Fingerprint) {
		return nil, fmt.Errorf("ring key %d is encrypted to the identity %s, but the configured identity is %s: configure the identity file that belongs to this key store (edekd.identity.file), or restore a backup with both",
			n, strings.ToUpper(hex.EncodeToString(fingerprint)), id.Fingerprint())
	}
	secret := make([]byte, 4+32)
	defer clear(secret)
	if err := id.decrypt(secret, message); err != nil {
		return nil, fmt.Errorf("ring key %d does not open with identity %s: %w: restore a backup", n, id.Fingerprint(), err)
	}
	if binary.BigEndian.Uint32(secret) != n {
		return nil, fmt.Errorf("ring key %d is a copy of another one: restore a backup", n)
	}
	block, err := aes.NewCipher(secret[4:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
