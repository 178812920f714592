package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/keystore"
	"github.com/edekd/edekd/keystore/sqlite"
)

const testURI = "sqlite://file@/var/lib/edekd/keys.db"

// testIdentity makes an identity that several tests may share.
var testIdentity = sync.OnceValues(func() (*Identity, error) {
	dir, err := os.MkdirTemp("", "identity")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	return CreateIdentity(filepath.Join(dir, "identity.asc"), nil)
})

func identity(t testing.TB) *Identity {
	t.Helper()
	id, err := testIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func openBox(t testing.TB) *sqlite.Store {
	t.Helper()
	box, err := sqlite.Open(filepath.Join(t.TempDir(), "keys.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := box.Close(); err != nil && !errors.Is(err, sqlite.ErrClosed) {
			t.Error(err)
		}
	})
	return box
}

func openDeposits(t testing.TB, box keystore.Depositor) *deposits {
	t.Helper()
	p, err := OpenDeposits(t.Context(), box, testURI, identity(t))
	if err != nil {
		t.Fatal(err)
	}
	return p.(*deposits)
}

func newKey(name string) *edek.NewKey {
	return &edek.NewKey{Name: name, Cipher: "AES/CTR/NoPadding", BitLength: 128}
}

func create(t testing.TB, p Provider, key *edek.NewKey) *edek.KeyVersion {
	t.Helper()
	v, err := p.Create(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wantError(t testing.TB, err error, kind edek.Kind, text string) {
	t.Helper()
	var e *edek.Error
	if !errors.As(err, &e) || e.Kind != kind || e.Text != text {
		t.Errorf("error is %v, want %v %q", err, kind, text)
	}
}

func TestKeyLifeCycle(t *testing.T) {
	ctx := t.Context()
	box := openBox(t)
	p := openDeposits(t, box)
	description := "zone of a test"
	key := newKey("k")
	key.Description, key.Attributes = &description, map[string]string{"key.acl.name": "k", "a": ""}
	v0 := create(t, p, key)
	if v0.Name != "k" || v0.VersionName != "k@0" || len(v0.Material) != 16 {
		t.Errorf("created %v of %d bytes", v0, len(v0.Material))
	}
	v1, err := p.Roll(ctx, "k", nil)
	if err != nil {
		t.Fatal(err)
	}
	given := bytes.Repeat([]byte{7}, 16)
	v2, err := p.Roll(ctx, "k", given)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(v2.Material, given) || v2.VersionName != "k@2" {
		t.Errorf("rolled to %v", v2)
	}
	if !bytes.Equal(given, bytes.Repeat([]byte{7}, 16)) {
		t.Error("Roll changed its caller's material")
	}

	check := func(p Provider) {
		t.Helper()
		for i, want := range []*edek.KeyVersion{v0, v1, v2} {
			got, err := p.Version(ctx, edek.VersionName("k", i))
			if err != nil || !bytes.Equal(got.Material, want.Material) || got.VersionName != want.VersionName || got.Name != "k" {
				t.Errorf("version %d is %v, %v", i, got, err)
			}
		}
		all, err := p.Versions(ctx, "k")
		if err != nil || len(all) != 3 || !bytes.Equal(all[0].Material, v0.Material) || !bytes.Equal(all[2].Material, v2.Material) || all[2].VersionName != "k@2" {
			t.Errorf("all versions are %v, %v", all, err)
		}
		m, err := p.Metadata(ctx, "k")
		if err != nil {
			t.Fatal(err)
		}
		if m.Name != "k" || m.Cipher != key.Cipher || m.BitLength != 128 || *m.Description != description ||
			len(m.Attributes) != 2 || m.Attributes["key.acl.name"] != "k" || m.Versions != 3 || m.Created == 0 {
			t.Errorf("metadata %+v", m)
		}
		if names, err := p.Names(ctx); err != nil || !slices.Equal(names, []string{"k"}) {
			t.Errorf("names %q, %v", names, err)
		}
	}
	check(p)
	check(openDeposits(t, box)) // what another process would see

	if err := p.Delete(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	if names, err := p.Names(ctx); err != nil || len(names) != 0 {
		t.Errorf("names after deletion %q, %v", names, err)
	}
	_, err = p.Version(ctx, "k@0")
	wantError(t, err, edek.NotFound, "'k@0' not found")

	again := create(t, p, newKey("k"))
	if again.VersionName != "k@0" || bytes.Equal(again.Material, v0.Material) {
		t.Errorf("created again as %v", again)
	}
	if m, err := p.Metadata(ctx, "k"); err != nil || m.Versions != 1 || m.Description != nil || m.Attributes != nil {
		t.Errorf("metadata %+v, %v", m, err)
	}
	if d, err := box.Get(ctx, "key/k/0000000001"); err != nil || !d.Deleted || d.Revision != 3 {
		t.Errorf("the first generation is %+v, %v", d, err)
	}
	if d, err := box.Get(ctx, "key/k/0000000002"); err != nil || d.Deleted || d.Revision != 1 {
		t.Errorf("the second generation is %+v, %v", d, err)
	}
}

func TestFailuresUseHadoopsWords(t *testing.T) {
	ctx := t.Context()
	p := openDeposits(t, openBox(t))
	create(t, p, newKey("k"))
	if p.String() != testURI {
		t.Errorf("called %q", p)
	}

	_, err := p.Create(ctx, newKey("k"))
	wantError(t, err, edek.Exists, "Key k already exists in "+testURI)
	short := newKey("short")
	short.Material = make([]byte, 15)
	_, err = p.Create(ctx, short)
	wantError(t, err, edek.WrongLength, "Wrong key length. Required 128, but got 120")
	odd := newKey("odd")
	odd.BitLength = 100
	_, err = p.Create(ctx, odd)
	wantError(t, err, edek.BadParameter, "Wrong keysize: must be equal to 128, 192 or 256")
	odd.Name = "k" // generating comes before looking, as in Hadoop
	_, err = p.Create(ctx, odd)
	wantError(t, err, edek.BadParameter, "Wrong keysize: must be equal to 128, 192 or 256")
	_, err = p.Create(ctx, newKey(""))
	wantError(t, err, edek.Invalid, "A key name has 1 to 65536 bytes, this one has 0")
	_, err = p.Create(ctx, newKey(strings.Repeat("n", maxName+1)))
	wantError(t, err, edek.Invalid, "A key name has 1 to 65536 bytes, this one has 65537")

	wantError(t, p.Delete(ctx, "no"), edek.NotFound, "Key no does not exist in "+testURI)
	_, err = p.Roll(ctx, "no", nil)
	wantError(t, err, edek.NotFound, "Can't find Metadata for key no")
	_, err = p.Roll(ctx, "no", make([]byte, 16))
	wantError(t, err, edek.NotFound, "Key no not found")
	_, err = p.Roll(ctx, "k", make([]byte, 32))
	wantError(t, err, edek.WrongLength, "Wrong key length. Required 128, but got 256")
	_, err = p.Versions(ctx, "no")
	wantError(t, err, edek.NotFound, "Key no not found")
	_, err = p.Metadata(ctx, "no")
	wantError(t, err, edek.NotFound, "Key no not found")
	for _, v := range []string{"k@1", "k", "k@00", "no@0", "", "@0"} {
		_, err = p.Version(ctx, v)
		wantError(t, err, edek.NotFound, "'"+v+"' not found")
	}

	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = p.Roll(ended, "k", nil)
	if edek.KindOf(err) != edek.Unavailable || !errors.Is(err, context.Canceled) {
		t.Errorf("roll after the caller left: %v", err)
	}

	large := newKey("large")
	large.Attributes = map[string]string{"a": strings.Repeat("x", keystore.MaxContent)}
	_, err = p.Create(ctx, large)
	wantError(t, err, edek.Invalid, "The key with all its versions and attributes is too large")
}

func TestAnyNameWorks(t *testing.T) {
	p := openDeposits(t, openBox(t))
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	names := []string{
		"a", "a/b", "a/", "/a", "/", "a%2Fb", "%", "a b", "ключ", "\xff\xfe", "\x00", string(all), "a/0000000001",
		"A", ".", "..", "~", strings.Repeat("n", maxName), strings.Repeat("\xff", maxName),
	}
	material := map[string][]byte{}
	for _, name := range names {
		material[name] = create(t, p, newKey(name)).Material
	}
	listed, err := p.Names(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(listed)
	slices.Sort(names)
	if !slices.Equal(listed, names) {
		t.Errorf("listed %q", listed)
	}
	for name, want := range material {
		if v, err := p.Version(t.Context(), name+"@0"); err != nil || !bytes.Equal(v.Material, want) {
			t.Errorf("version of %.40q: %v", name, err)
		}
	}
}

// TestEachConcurrentRollHasItsOwnVersion rolls one key from many goroutines of
// two providers on one box, which stand for two processes.
func TestEachConcurrentRollHasItsOwnVersion(t *testing.T) {
	box := openBox(t)
	providers := []Provider{openDeposits(t, box), openDeposits(t, box)}
	create(t, providers[0], newKey("k"))
	const rolls = 40
	var mu sync.Mutex
	got := map[string][]byte{}
	var wg sync.WaitGroup
	for i := range rolls {
		wg.Go(func() {
			v, err := providers[i%2].Roll(context.Background(), "k", nil)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if _, twice := got[v.VersionName]; twice {
				t.Errorf("%s was given out twice", v.VersionName)
			}
			got[v.VersionName] = v.Material
		})
	}
	wg.Wait()
	for n := 1; n <= rolls; n++ {
		name := edek.VersionName("k", n)
		if v, err := providers[0].Version(t.Context(), name); err != nil || !bytes.Equal(v.Material, got[name]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConcurrentCreatesHaveOneWinner(t *testing.T) {
	box := openBox(t)
	providers := []Provider{openDeposits(t, box), openDeposits(t, box)}
	for round := range 5 {
		name := fmt.Sprint("k", round%2) // the later rounds meet tombstones
		var mu sync.Mutex
		var winner *edek.KeyVersion
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				v, err := providers[i%2].Create(context.Background(), newKey(name))
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil && winner == nil:
					winner = v
				case err == nil:
					t.Errorf("%s was created twice", name)
				case edek.KindOf(err) != edek.Exists:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if winner == nil {
			t.Fatal("nobody created it")
		}
		if v, err := providers[0].Version(t.Context(), name+"@0"); err != nil || !bytes.Equal(v.Material, winner.Material) {
			t.Errorf("%v, %v", v, err)
		}
		if err := providers[1].Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}

// doubtful is a box whose next writes end with an unknown outcome, done or not.
type doubtful struct {
	keystore.Depositor
	doubts []bool // one for each write in doubt: whether it is done
	after  func() // runs after a write in doubt
}

func (b *doubtful) doubt(do func() error) error {
	if len(b.doubts) == 0 {
		return do()
	}
	done := b.doubts[0]
	b.doubts = b.doubts[1:]
	if done {
		if err := do(); err != nil {
			return err
		}
	}
	if b.after != nil {
		b.after()
	}
	return fmt.Errorf("disk trouble: %w", keystore.ErrUnknownOutcome)
}

func (b *doubtful) Put(ctx context.Context, handle string, expect int64, content []byte) (int64, error) {
	if strings.HasPrefix(handle, keyPrefix) {
		return expect + 1, b.doubt(func() error { _, err := b.Depositor.Put(ctx, handle, expect, content); return err })
	}
	return b.Depositor.Put(ctx, handle, expect, content)
}

func (b *doubtful) Delete(ctx context.Context, handle string, expect int64) error {
	return b.doubt(func() error { return b.Depositor.Delete(ctx, handle, expect) })
}

func TestUnknownOutcomeIsReadBack(t *testing.T) {
	f := func(doubts ...bool) {
		t.Helper()
		box := &doubtful{Depositor: openBox(t)}
		p := openDeposits(t, box)
		ctx, cancel := context.WithCancel(t.Context())
		box.after = cancel // the caller leaves, the read-back goes on

		box.doubts = slices.Clone(doubts)
		v0, err := p.Create(ctx, newKey("k"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		box.after, box.doubts = cancel, slices.Clone(doubts)
		v1, err := p.Roll(ctx, "k", nil)
		if err != nil {
			t.Fatal(err)
		}
		if v1.VersionName != "k@1" {
			t.Errorf("%v: rolled to %v", doubts, v1)
		}
		for _, want := range []*edek.KeyVersion{v0, v1} {
			if got, err := p.Version(t.Context(), want.VersionName); err != nil || !bytes.Equal(got.Material, want.Material) {
				t.Errorf("%v: %v, %v", doubts, got, err)
			}
		}
		ctx, cancel = context.WithCancel(t.Context())
		box.after, box.doubts = cancel, slices.Clone(doubts)
		if err := p.Delete(ctx, "k"); err != nil {
			t.Errorf("%v: delete: %v", doubts, err)
		}
		if names, err := p.Names(t.Context()); err != nil || len(names) != 0 {
			t.Errorf("%v: names %q, %v", doubts, names, err)
		}
	}
	f(true)
	f(false)
	f(false, false, true)
}

// full is a box whose disk is full.
type full struct{ keystore.Depositor }

func (full) Put(context.Context, string, int64, []byte) (int64, error) {
	return 0, fmt.Errorf("%w: /var/lib", keystore.ErrFull)
}
func (full) Delete(context.Context, string, int64) error {
	return fmt.Errorf("%w: /var/lib", keystore.ErrFull)
}

func TestFullDiskIsNamed(t *testing.T) {
	ctx := t.Context()
	p := openDeposits(t, openBox(t))
	create(t, p, newKey("k"))
	p.box = full{p.box}
	const text = "The disk of the key store is full: nothing was changed"
	_, err := p.Create(ctx, newKey("k2"))
	wantError(t, err, edek.Unavailable, text)
	_, err = p.Roll(ctx, "k", nil)
	wantError(t, err, edek.Unavailable, text)
	wantError(t, p.Delete(ctx, "k"), edek.Unavailable, text)
	if _, err := p.Metadata(ctx, "k"); err != nil {
		t.Errorf("a full disk keeps keys from being read: %v", err)
	}
}

func TestDoubtWithoutEndIsReported(t *testing.T) {
	box := &doubtful{Depositor: openBox(t)}
	p := openDeposits(t, box)
	box.doubts = make([]bool, 1000)
	_, err := p.Create(t.Context(), newKey("k"))
	wantError(t, err, edek.Unavailable, "The key store cannot tell whether the change was made")
	if !errors.Is(err, keystore.ErrUnknownOutcome) {
		t.Errorf("%v", err)
	}
}

func TestCensus(t *testing.T) {
	ctx := t.Context()
	box := openBox(t)
	p := openDeposits(t, box)
	for _, name := range []string{"a", "b", "gone"} {
		create(t, p, newKey(name))
	}
	if _, err := p.Roll(ctx, "b", nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Delete(ctx, "gone"); err != nil {
		t.Fatal(err)
	}
	c, err := TakeCensus(ctx, box, identity(t))
	if err != nil || c.Keys != 2 || c.Versions != 3 || c.Deleted != 1 || c.RingKeys != 1 || len(c.Damaged) != 0 {
		t.Errorf("%+v, %v", c, err)
	}

	d, err := box.Get(ctx, "key/a/0000000001")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := box.Put(ctx, "key/copy/0000000001", 0, d.Content); err != nil {
		t.Fatal(err)
	}
	if _, err := box.Put(ctx, "key/odd", 0, nil); err != nil {
		t.Fatal(err)
	}
	c, err = TakeCensus(ctx, box, identity(t))
	if err != nil || c.Keys != 2 || len(c.Damaged) != 2 || !strings.Contains(c.Damaged[1].Error(), `key "copy"`) {
		t.Errorf("%+v, %v", c, err)
	}
}

// counting is a box that counts the deposits it gives out.
type counting struct {
	keystore.Depositor
	given int
}

func (b *counting) List(ctx context.Context, prefix string, visit func(*keystore.Deposit) bool) error {
	return b.Depositor.List(ctx, prefix, func(d *keystore.Deposit) bool { b.given++; return visit(d) })
}

func (b *counting) Get(ctx context.Context, handle string) (*keystore.Deposit, error) {
	b.given++
	return b.Depositor.Get(ctx, handle)
}

// TestTombstonesCostNothing: neither a look at a key nor the list of all names
// reads what was deleted before.
func TestTombstonesCostNothing(t *testing.T) {
	ctx := t.Context()
	box := &counting{Depositor: openBox(t)}
	p := openDeposits(t, box)
	for range 20 {
		create(t, p, newKey("k"))
		if err := p.Delete(ctx, "k"); err != nil {
			t.Fatal(err)
		}
	}
	create(t, p, newKey("k"))
	f := func(op string, most int, do func() error) {
		t.Helper()
		box.given = 0
		if err := do(); err != nil || box.given > most {
			t.Errorf("%s read %d deposits, %v", op, box.given, err)
		}
	}
	f("version", 1, func() error { _, err := p.Version(ctx, "k@0"); return err })
	f("versions", 1, func() error { _, err := p.Versions(ctx, "k"); return err })
	f("metadata", 1, func() error { _, err := p.Metadata(ctx, "k"); return err })
	f("roll", 1, func() error { _, err := p.Roll(ctx, "k", nil); return err })
	f("names", 0, func() error { _, err := p.Names(ctx); return err })
	f("delete", 1, func() error { return p.Delete(ctx, "k") })
	f("create", 1, func() error { _, err := p.Create(ctx, newKey("k")); return err })
}
