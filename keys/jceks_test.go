package keys

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/hadoop/jceks"
)

// testKeystore is a provider with shorter ways to call it from a test.
type testKeystore struct{ Provider }

func openJCEKS(t testing.TB, path string) testKeystore {
	t.Helper()
	t.Setenv(JCEKSPasswordEnv, "changeit")
	p, err := OpenJCEKS(t.Context(), "jceks://file@"+path, JCEKSOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return testKeystore{p}
}

func aes128(name string) *edek.NewKey {
	return &edek.NewKey{Name: name, Cipher: "AES/CTR/NoPadding", BitLength: 128}
}

func (p testKeystore) create(t testing.TB, name string) []byte {
	t.Helper()
	v, err := p.Create(t.Context(), aes128(name))
	if err != nil {
		t.Fatal(err)
	}
	return v.Material
}

// names returns all names, sorted, with spaces between them.
func (p testKeystore) names(t testing.TB) string {
	t.Helper()
	all, err := p.Names(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func (p testKeystore) material(t testing.TB, versionName string) []byte {
	t.Helper()
	v, err := p.Version(t.Context(), versionName)
	if err != nil {
		t.Fatal(err)
	}
	return v.Material
}

// failsWith checks an error's kind and what a Hadoop client gets to read.
func failsWith(t testing.TB, err error, kind edek.Kind, text string) {
	t.Helper()
	var e *edek.Error
	if !errors.As(err, &e) || e.Kind != kind || e.Text != text {
		t.Errorf("error %v, want %v with text %q", err, kind, text)
	}
}

// siblings lists the keystore and what lies beside it, without the lock.
func siblings(t testing.TB, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		if e.Name() != filepath.Base(path)+".lock" {
			all = append(all, e.Name())
		}
	}
	return all
}

func TestJCEKSLifeCycle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kms.keystore")
	p := openJCEKS(t, path)
	if got := siblings(t, path); len(got) != 0 || p.names(t) != "" {
		t.Fatalf("opening a new keystore made %q with keys %q", got, p.names(t))
	}
	description := "for tests"
	given := []byte("0123456789abcdef")
	before := time.Now().UnixMilli()
	v, err := p.Create(t.Context(), &edek.NewKey{Name: "k1", Cipher: "AES/CTR/NoPadding", BitLength: 128, Material: given,
		Description: &description, Attributes: map[string]string{"key.acl.name": "k1"}})
	if err != nil || v.VersionName != "k1@0" || v.Name != "k1" || string(v.Material) != string(given) {
		t.Fatalf("%v, %v", v, err)
	}
	v.Zero()
	if string(given) != "0123456789abcdef" {
		t.Error("the caller's material is shared with the result")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("new keystore: %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	rolled, err := p.Roll(t.Context(), "k1", nil)
	if err != nil || rolled.VersionName != "k1@1" || len(rolled.Material) != 16 {
		t.Fatalf("%v, %v", rolled, err)
	}
	p.create(t, "k2")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the operator's permissions became %v, %v", info.Mode(), err)
	}

	check := func(p testKeystore) {
		t.Helper()
		if got := p.names(t); got != "k1 k2" {
			t.Errorf("names %q", got)
		}
		m, err := p.Metadata(t.Context(), "k1")
		if err != nil {
			t.Fatal(err)
		}
		if m.Name != "k1" || m.Cipher != "AES/CTR/NoPadding" || m.BitLength != 128 || *m.Description != description || m.Versions != 2 ||
			m.Created < before || m.Created > time.Now().UnixMilli() || !maps.Equal(m.Attributes, map[string]string{"key.acl.name": "k1"}) {
			t.Errorf("metadata %+v", m)
		}
		if got := p.material(t, "k1@0"); string(got) != string(given) {
			t.Errorf("k1@0 is %d bytes of something else", len(got))
		}
		if !bytes.Equal(p.material(t, "k1@1"), rolled.Material) {
			t.Error("k1@1 is not what the roll returned")
		}
	}
	check(p)
	p.Close()
	p = openJCEKS(t, path)
	check(p)

	if err := p.Delete(t.Context(), "k1"); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"k1@0", "k1@1"} {
		_, err := p.Version(t.Context(), gone)
		failsWith(t, err, edek.NotFound, "'"+gone+"' not found")
	}
	p.create(t, "k1")
	if m, err := p.Metadata(t.Context(), "k1"); err != nil || m.Versions != 1 || m.Description != nil {
		t.Errorf("created anew: %+v, %v", m, err)
	}
	if got := siblings(t, path); !slices.Equal(got, []string{"kms.keystore"}) {
		t.Errorf("left behind: %q", got)
	}
}

func TestJCEKSRefusals(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kms.keystore")
	p := openJCEKS(t, path)
	p.create(t, "k1")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	uri := "jceks://file@" + path
	create := func(k *edek.NewKey) error {
		_, err := p.Create(t.Context(), k)
		return err
	}
	roll := func(name string, material []byte) error {
		_, err := p.Roll(t.Context(), name, material)
		return err
	}
	failsWith(t, create(aes128("k1")), edek.Exists, "Key k1 already exists in "+uri)
	failsWith(t, create(aes128("k1@0")), edek.Exists, "Key k1@0 already exists in "+uri)
	failsWith(t, create(aes128("Key")), edek.Invalid, "Uppercase key names are unsupported: Key")
	failsWith(t, create(aes128("É")), edek.Invalid, "Uppercase key names are unsupported: É")
	failsWith(t, create(aes128("\xff")), edek.Invalid, "Key names must be valid UTF-8")
	failsWith(t, create(&edek.NewKey{Name: "k2", Cipher: "AES", BitLength: 256, Material: make([]byte, 16)}), edek.WrongLength, "Wrong key length. Required 256, but got 128")
	failsWith(t, create(&edek.NewKey{Name: "k2", Cipher: "AES", Material: []byte{}}), edek.Invalid, "Empty key")
	failsWith(t, create(&edek.NewKey{Name: "k1", Cipher: "AES", BitLength: 100}), edek.BadParameter, "Wrong keysize: must be equal to 128, 192 or 256")
	failsWith(t, roll("nokey", nil), edek.NotFound, "Can't find Metadata for key nokey")
	failsWith(t, roll("nokey", make([]byte, 16)), edek.NotFound, "Key nokey not found")
	failsWith(t, roll("K1", nil), edek.NotFound, "Can't find Metadata for key K1")
	failsWith(t, roll("k1", make([]byte, 32)), edek.WrongLength, "Wrong key length. Required 128, but got 256")
	failsWith(t, p.Delete(t.Context(), "nokey"), edek.NotFound, "Key nokey does not exist in "+uri)
	failsWith(t, p.Delete(t.Context(), "K1"), edek.NotFound, "Key K1 does not exist in "+uri)
	_, err = p.Versions(t.Context(), "K1")
	failsWith(t, err, edek.NotFound, "Key K1 not found")
	if all, err := p.Versions(t.Context(), "k1"); err != nil || len(all) != 1 || !bytes.Equal(all[0].Material, p.material(t, "k1@0")) {
		t.Errorf("versions %v, %v", all, err)
	}
	_, err = p.Metadata(t.Context(), "K1")
	failsWith(t, err, edek.NotFound, "Key K1 not found")
	_, err = p.Metadata(t.Context(), "k1@0")
	failsWith(t, err, edek.Corrupt, "Can't cast key for k1@0 in keystore file:"+path+" to a KeyMetadata. Key may have been added using  keytool or some other non-Hadoop method.")
	for _, v := range []string{"k1", "K1@0", "k1@1", "k1@00", "k1@", ""} {
		_, err = p.Version(t.Context(), v)
		failsWith(t, err, edek.NotFound, "'"+v+"' not found")
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("a refusal changed the file (%v)", err)
	}
}

// In Java, rolling "a" would overwrite the metadata of a key called "a@1".
func TestJCEKSKeysNamedLikeVersions(t *testing.T) {
	p := openJCEKS(t, filepath.Join(t.TempDir(), "kms.keystore"))
	p.create(t, "a")
	want := p.create(t, "a@1")
	_, err := p.Roll(t.Context(), "a", nil)
	if edek.KindOf(err) != edek.Conflict {
		t.Errorf("roll over another key: %v", err)
	}
	if _, err := p.Version(t.Context(), "a@1"); edek.KindOf(err) != edek.NotFound {
		t.Errorf("metadata served as a version: %v", err)
	}
	if got := p.names(t); got != "a" {
		t.Errorf("names %q", got)
	}
	if !bytes.Equal(p.material(t, "a@1@0"), want) {
		t.Error("a@1@0 is another key")
	}
}

// Java cannot reach an alias with capitals, but files may hold one.
func TestJCEKSStoredCapitalsAreReachedExactly(t *testing.T) {
	pw, err := jceks.NewPassword([]byte("changeit"))
	if err != nil {
		t.Fatal(err)
	}
	meta, err := jceks.NewKeyMetadata("Zone", &jceks.KeyMetadata{Cipher: "AES/CTR/NoPadding", BitLength: 128, Versions: 1}, time.Now(), pw)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := jceks.NewSecretKey("Zone@0", "AES", []byte("0123456789abcdef"), time.Now(), pw)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kms.keystore")
	if err := os.WriteFile(path, jceks.Append(nil, []*jceks.Entry{meta, secret}, pw), 0o600); err != nil {
		t.Fatal(err)
	}
	p := openJCEKS(t, path)
	if got := p.names(t); got != "Zone" {
		t.Errorf("names %q", got)
	}
	if m, err := p.Metadata(t.Context(), "Zone"); err != nil || m.Name != "Zone" {
		t.Errorf("%+v, %v", m, err)
	}
	if got := p.material(t, "Zone@0"); string(got) != "0123456789abcdef" {
		t.Errorf("%d bytes of something else", len(got))
	}
	_, err = p.Version(t.Context(), "zone@0")
	failsWith(t, err, edek.NotFound, "'zone@0' not found")
}

// What keytool put beside Hadoop's keys survives our changes untouched.
func TestJCEKSForeignEntriesSurvive(t *testing.T) {
	content, err := os.ReadFile("../hadoop/jceks/testdata/keytool-17.jceks")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kms.keystore")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	p := openJCEKS(t, path)
	if got := p.names(t); got != "aeskey des otherpass" {
		t.Errorf("names %q", got)
	}
	p.create(t, "k1")
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const header, digest = 12, 20
	if !bytes.HasPrefix(after[header:], content[header:len(content)-digest]) {
		t.Error("the entries that were there are not as they were")
	}
}

func TestJCEKSPasswordSources(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "kms.keystore")
	uri := "jceks://file@" + path
	if err := os.WriteFile(filepath.Join(dir, "pass.txt"), []byte(" sesame \r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pw, err := jceks.NewPassword([]byte("sesame"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, jceks.Append(nil, nil, pw), 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(opts JCEKSOptions, want string) {
		t.Helper()
		p, err := OpenJCEKS(context.Background(), uri, opts)
		if err == nil {
			p.Close()
		}
		if (want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%+v: %v, want %q", opts, err, want)
		}
	}
	t.Setenv(JCEKSPasswordEnv, "") // restores it after the test
	f(JCEKSOptions{PasswordFile: "pass.txt", ConfigDir: dir}, "password is wrong")
	os.Unsetenv(JCEKSPasswordEnv)
	f(JCEKSOptions{}, "password is wrong") // "none"
	f(JCEKSOptions{PasswordFile: "pass.txt", ConfigDir: dir}, "")
	f(JCEKSOptions{PasswordFile: filepath.Join(dir, "pass.txt")}, "")
	f(JCEKSOptions{PasswordFile: "missing.txt", ConfigDir: dir}, "no such file")
	f(JCEKSOptions{PasswordFile: "/dev/zero"}, "is it the right file")
	os.Setenv(JCEKSPasswordEnv, "sesame")
	f(JCEKSOptions{PasswordFile: "missing.txt", ConfigDir: dir}, "")
	os.Setenv(JCEKSPasswordEnv, "sésame")
	f(JCEKSOptions{}, "printable ASCII")
}

func TestJCEKSReadersDoNotWaitForAChange(t *testing.T) {
	p := openJCEKS(t, filepath.Join(t.TempDir(), "kms.keystore"))
	p.create(t, "k1")
	inner := p.Provider.(*jceksProvider)
	inner.writing <- struct{}{} // a change that does not end
	defer inner.end()
	p.material(t, "k1@0")
	if _, err := p.Metadata(t.Context(), "k1"); err != nil {
		t.Error(err)
	}
	if p.names(t) != "k1" {
		t.Error("no names")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range []error{
		func() error { _, err := p.Create(ctx, aes128("k2")); return err }(),
		func() error { _, err := p.Roll(ctx, "k1", nil); return err }(),
		p.Delete(ctx, "k1"),
	} {
		if edek.KindOf(err) != edek.Unavailable || !errors.Is(err, context.Canceled) {
			t.Errorf("a change whose caller left: %v", err)
		}
	}
}
