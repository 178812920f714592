package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/keystore"
)

func openRingOf(t testing.TB, box keystore.Reader) *ring {
	t.Helper()
	r, err := loadRing(t.Context(), box, identity(t))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSealBindsHandleAndRevision(t *testing.T) {
	ctx := t.Context()
	box := openBox(t)
	r := openRingOf(t, box)
	secret := []byte("the key bytes")
	sealed, err := r.seal(ctx, box, "key/a/0000000001", 3, secret)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, secret) || len(sealed) != len(secret)+envelopeSize {
		t.Errorf("sealed as %q", sealed)
	}
	f := func(handle string, revision int64, alter func([]byte) []byte, ok bool) {
		t.Helper()
		d := &keystore.Deposit{Handle: handle, Revision: revision, Content: alter(slices.Clone(sealed))}
		got, err := r.open(ctx, d)
		if ok != (err == nil) || (ok && !bytes.Equal(got, secret)) {
			t.Errorf("%s at %d: %q, %v", handle, revision, got, err)
		}
	}
	same := func(b []byte) []byte { return b }
	f("key/a/0000000001", 3, same, true)
	f("key/a/0000000002", 3, same, false)
	f("key/b/0000000001", 3, same, false)
	f("key/a/0000000001", 2, same, false)
	f("key/a/0000000001", 4, same, false)
	for i := range sealed { // every byte counts
		f("key/a/0000000001", 3, func(b []byte) []byte { b[i] ^= 1; return b }, false)
	}
	for n := range sealed { // nothing may be missing
		f("key/a/0000000001", 3, func(b []byte) []byte { return b[:n] }, false)
	}
	f("key/a/0000000001", 3, func(b []byte) []byte { return append(b, 0) }, false)

	sealed[0] = 0
	_, err = r.open(ctx, &keystore.Deposit{Handle: "key/a/0000000001", Revision: 3, Content: sealed})
	if err == nil || !strings.Contains(err.Error(), "damaged or from a newer edekd") {
		t.Errorf("of an unknown form: %v", err)
	}
}

func TestSealsOfARingKeyAreBounded(t *testing.T) {
	ctx := t.Context()
	box := openBox(t)
	rings := []*ring{openRingOf(t, box), openRingOf(t, box)} // two processes
	for _, r := range rings {
		r.block, r.maxBlock = 2, 3
	}
	perRing := map[uint32]int{}
	var deposits []*keystore.Deposit
	for i := range 40 {
		handle := fmt.Sprintf("key/k%d/0000000001", i)
		sealed, err := rings[i%2].seal(ctx, box, handle, 1, []byte(handle))
		if err != nil {
			t.Fatal(err)
		}
		n, err := ringOf(sealed)
		if err != nil {
			t.Fatal(err)
		}
		perRing[n]++
		deposits = append(deposits, &keystore.Deposit{Handle: handle, Revision: 1, Content: sealed})
	}
	for n, seals := range perRing {
		if seals > 2*3 {
			t.Errorf("ring key %d sealed %d times, allowed are 6", n, seals)
		}
	}
	if len(perRing) < 40/6 {
		t.Errorf("ring keys used: %v", perRing)
	}
	late := openRingOf(t, box)
	for _, r := range append(rings, late) { // also those of the other process
		for _, d := range deposits {
			if got, err := r.open(ctx, d); err != nil || string(got) != d.Handle {
				t.Errorf("%s: %q, %v", d.Handle, got, err)
			}
		}
	}
	// What a process took before it died is not taken again.
	late.block, late.maxBlock = 2, 3
	if _, err := late.seal(ctx, box, "key/x/0000000001", 1, nil); err != nil {
		t.Fatal(err)
	}
	if d, err := box.Get(ctx, sealsHandle(late.taken)); err != nil || d.Revision > 3 {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestAnotherIdentityIsRefused(t *testing.T) {
	box := openBox(t)
	create(t, openDeposits(t, box), newKey("k"))
	other, err := CreateIdentity(filepath.Join(t.TempDir(), "other.asc"), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = OpenDeposits(t.Context(), box, testURI, other)
	if err == nil || !strings.Contains(err.Error(), other.Fingerprint()) || !strings.Contains(err.Error(), identity(t).Fingerprint()) {
		t.Errorf("error does not name both identities: %v", err)
	}
}

func TestKeysWithoutRingKeyAreRefused(t *testing.T) {
	box := openBox(t)
	if _, err := box.Put(t.Context(), keyHandle("k", 1), 0, []byte("sealed")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDeposits(t.Context(), box, testURI, identity(t)); err == nil || !strings.Contains(err.Error(), "no ring key") {
		t.Errorf("%v", err)
	}
}

// TestPlantedRingKeyIsRefused: who can write to the box and knows the public
// key must not be able to choose what new keys are sealed under.
func TestPlantedRingKeyIsRefused(t *testing.T) {
	id := identity(t)
	good, err := newRing(id, 1)
	if err != nil {
		t.Fatal(err)
	}
	header := good[:2+int(good[1])]
	if _, err := openRing(id, 1, good); err != nil {
		t.Fatal(err)
	}

	f := func(what string, n uint32, content []byte) {
		t.Helper()
		if _, err := openRing(id, n, content); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	encrypt := func(secret []byte, signer *Identity) []byte {
		var out bytes.Buffer
		var by *openpgp.Entity
		config := id.config()
		if signer != nil {
			by, config = signer.entity, signer.config()
		}
		w, err := openpgp.Encrypt(&out, []*openpgp.Entity{id.entity}, by, nil, config)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(secret)
		w.Close()
		return append(slices.Clone(header), out.Bytes()...)
	}
	planted := append([]byte{0, 0, 0, 1}, make([]byte, 32)...)
	stranger, err := CreateIdentity(filepath.Join(t.TempDir(), "id"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openRing(id, 1, encrypt(planted, id)); err != nil {
		t.Errorf("the test's own way to encrypt: %v", err)
	}
	f("not signed", 1, encrypt(planted, nil))
	f("signed by a stranger", 1, encrypt(planted, stranger))
	f("ring key of another number", 2, good)
	f("too long", 1, encrypt(append(planted, 0), id))
	f("too short", 1, encrypt(planted[:35], id))
	f("cut short", 1, good[:len(good)-1])
	f("header only", 1, header)
	f("empty", 1, nil)
	f("half a header", 1, good[:10])
	f("newer form", 1, append([]byte{ringVersion + 1}, good[1:]...))
	var signed bytes.Buffer
	w, err := openpgp.Sign(&signed, id.entity, nil, id.config())
	if err != nil {
		t.Fatal(err)
	}
	w.Write(planted)
	w.Close()
	f("signed but not encrypted", 1, append(slices.Clone(header), signed.Bytes()...))
}

func TestTamperedKeyIsCorruptNotMissing(t *testing.T) {
	ctx := t.Context()
	box := openBox(t)
	p := openDeposits(t, box)
	create(t, p, newKey("k"))
	d, err := box.Get(ctx, keyHandle("k", 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := box.Put(ctx, d.Handle, d.Revision, d.Content); err != nil { // same bytes, later revision
		t.Fatal(err)
	}
	const text = "Key k cannot be read from " + testURI
	_, err = p.Metadata(ctx, "k")
	wantError(t, err, edek.Corrupt, text)
	_, err = p.Version(ctx, "k@0")
	wantError(t, err, edek.Corrupt, text)
	_, err = p.Roll(ctx, "k", nil)
	wantError(t, err, edek.Corrupt, text)
	_, err = p.Create(ctx, newKey("k"))
	wantError(t, err, edek.Corrupt, text)
}

// broken is a box whose disk is gone.
type broken struct{ keystore.Depositor }

var errDisk = errors.New("disk is gone")

func (broken) Put(context.Context, string, int64, []byte) (int64, error)        { return 0, errDisk }
func (broken) Get(context.Context, string) (*keystore.Deposit, error)           { return nil, errDisk }
func (broken) Delete(context.Context, string, int64) error                      { return errDisk }
func (broken) List(context.Context, string, func(*keystore.Deposit) bool) error { return errDisk }
func (broken) Handles(context.Context, string, func(string) bool) error         { return errDisk }

func TestBrokenBoxIsUnavailable(t *testing.T) {
	ctx := t.Context()
	p := openDeposits(t, openBox(t))
	p.box, p.ring.box = broken{}, broken{}
	check := func(err error) {
		t.Helper()
		wantError(t, err, edek.Unavailable, "The key store cannot serve now")
		if !errors.Is(err, errDisk) {
			t.Errorf("the cause is lost: %v", err)
		}
	}
	_, err := p.Names(ctx)
	check(err)
	_, err = p.Metadata(ctx, "k")
	check(err)
	_, err = p.Version(ctx, "k@0")
	check(err)
	_, err = p.Create(ctx, newKey("k"))
	check(err)
	_, err = p.Roll(ctx, "k", nil)
	check(err)
	check(p.Delete(ctx, "k"))
}
