package keys

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/edekd/edekd/edek"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openAt opens an embedded store and its identity in a folder.
func openAt(ctx context.Context, dir string) (Provider, error) {
	return Open(ctx, []string{"sqlite://file@" + filepath.Join(dir, "keys.db")}, Options{IdentityFile: filepath.Join(dir, "identity.pgp")})
}

// copyFiles copies files of one folder into a new one.
func copyFiles(t *testing.T, dir string, names ...string) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func TestStoreAndIdentityAreCompleteAfterClose(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	var want []string
	for _, name := range []string{"", "k1", "k2"} { // the first life makes no key
		p, err := openAt(ctx, dir)
		if err != nil {
			t.Fatal(err)
		}
		if name != "" {
			create(t, p, newKey(name))
			want = append(want, name)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		copied, err := openAt(ctx, copyFiles(t, dir, "keys.db", "identity.pgp"))
		if err != nil {
			t.Fatal(err)
		}
		names, err := copied.Names(ctx)
		slices.Sort(names)
		if err != nil || !slices.Equal(names, want) {
			t.Errorf("the copy has %q, want %q, %v", names, want, err)
		}
		if err := copied.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestLostStoreIsNotServedEmpty leaves nothing that would be in the way of a
// restore.
func TestLostStoreIsNotServedEmpty(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	p, err := openAt(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	create(t, p, newKey("k"))
	running := copyFiles(t, dir, "keys.db", "identity.pgp") // without keys.db-wal
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	f := func(dir, want string) {
		t.Helper()
		for range 2 {
			if p, err := openAt(ctx, dir); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "restore a backup") {
				t.Errorf("opened as %v, %v", p, err)
			}
		}
	}
	f(running, "keys.db-wal is missing or empty")
	lost := copyFiles(t, dir, "identity.pgp")
	f(lost, "the key store is empty although its identity "+filepath.Join(lost, "identity.pgp")+" exists")
	if entries, err := os.ReadDir(lost); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	if err := os.Remove(filepath.Join(lost, "identity.pgp")); err != nil { // as the message says
		t.Fatal(err)
	}
	if p, err = openAt(ctx, lost); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestChainNamesEveryProvider(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	t.Setenv(JCEKSPasswordEnv, "changeit")
	keystore := "jceks://file@" + filepath.Join(dir, "ks")
	old, err := Open(ctx, []string{keystore}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	create(t, old, newKey("old"))
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "ks"), 0o644); err != nil {
		t.Fatal(err)
	}

	store := "sqlite://file@" + filepath.Join(dir, "keys.db")
	p, err := Open(ctx, []string{store, keystore}, Options{IdentityFile: filepath.Join(dir, "identity.pgp")})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got, want := p.String(), store+","+keystore; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	create(t, p, newKey("new"))
	f := func(name, uri string) {
		t.Helper()
		_, err := p.Create(ctx, newKey(name))
		wantError(t, err, edek.Exists, "Key "+name+" already exists in "+uri)
	}
	f("old", keystore)
	f("new", store)
	if w := p.(Warner).Warnings(); len(w) != 1 || !strings.Contains(w[0], "chmod 600") {
		t.Errorf("warnings %q", w)
	}
}
