package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestCreateIdentity(t *testing.T) {
	f := func(passphrase string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "identity.asc")
		id, err := CreateIdentity(path, []byte(passphrase))
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		if _, err := CreateIdentity(path, nil); !errors.Is(err, fs.ErrExist) {
			t.Errorf("a second identity in its place: %v", err)
		}
		again, err := LoadIdentity(path, []byte(passphrase))
		if err != nil {
			t.Fatal(err)
		}
		if again.Fingerprint() != id.Fingerprint() || len(id.Fingerprint()) != 40 || again.Protected() != (passphrase != "") {
			t.Errorf("%v became %v, protected %v", id, again, again.Protected())
		}
		if s := fmt.Sprintf("%+v %#v %s %x", id, id, id, id); s != strings.TrimSpace(strings.Repeat(id.Fingerprint()+" ", 4)) {
			t.Errorf("formats as %q", s)
		}
		content, err := newRing(id, 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := openRing(again, 1, content); err != nil {
			t.Errorf("the loaded identity does not open what the new one closed: %v", err)
		}
	}
	f("")
	f("correct horse battery staple")
}

func TestLoadIdentityRefuses(t *testing.T) {
	dir := t.TempDir()
	plain, locked := filepath.Join(dir, "plain"), filepath.Join(dir, "locked")
	if _, err := CreateIdentity(plain, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateIdentity(locked, []byte("right")); err != nil {
		t.Fatal(err)
	}
	write := func(name string, content []byte, mode fs.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	f := func(path, passphrase, says string) {
		t.Helper()
		_, err := LoadIdentity(path, []byte(passphrase))
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q", filepath.Base(path), err, says)
		}
	}
	f(filepath.Join(dir, "none"), "", "no such file")
	f(dir, "", "not a regular file")
	f(write("group", key, 0o640), "", "chmod 600")
	f(write("others", key, 0o604), "", "chmod 600")
	f(write("empty", nil, 0o600), "", "exactly one OpenPGP secret key")
	f(write("text", []byte("no key at all"), 0o600), "", "not an OpenPGP key")
	f(write("torn", key[:len(key)/2], 0o600), "", "not an OpenPGP key")
	f(write("huge", make([]byte, maxIdentityFile+1), 0o600), "", "too large")
	f(locked, "", "name the file that holds the passphrase")
	f(locked, "wrong", "check the passphrase file")
}

func TestReadPassphrase(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "passphrase")
	f := func(content string, mode fs.FileMode, want, says string) {
		t.Helper()
		os.Remove(path)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		got, err := ReadPassphrase(path)
		if (err == nil) != (says == "") || string(got) != want || (err != nil && !strings.Contains(err.Error(), says)) {
			t.Errorf("%q, mode %o: %q, %v", content, mode, got, err)
		}
	}
	f("secret\n", 0o600, "secret", "")
	f("secret\r\n", 0o440, "secret", "")
	f(" a b ", 0o600, " a b ", "")
	f("\n", 0o600, "", "is empty")
	f("secret", 0o604, "", "chmod 600")
	f(strings.Repeat("s", maxPassphraseFile+1), 0o600, "", "too large")
}

func TestIdentityForABox(t *testing.T) {
	ctx := t.Context()
	box := openBox(t)
	path := filepath.Join(t.TempDir(), "identity.asc")
	id, err := IdentityFor(ctx, box, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	// As after a start that was cut short, or beside a store that was lost.
	if _, err := IdentityFor(ctx, box, path, nil); err == nil || !strings.Contains(err.Error(), "the key store is empty although its identity "+path+" exists") {
		t.Errorf("%v", err)
	}
	p, err := OpenDeposits(ctx, box, testURI, id)
	if err != nil {
		t.Fatal(err)
	}
	again, err := IdentityFor(ctx, box, path, nil)
	if err != nil || again.Fingerprint() != id.Fingerprint() {
		t.Errorf("%v became %v, %v", id, again, err)
	}
	create(t, p, newKey("k"))
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	_, err = IdentityFor(ctx, box, path, nil)
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "put the file back") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an identity was made for a box that holds keys: %v", err)
	}
}

// gnuPG returns a function that runs gpg with a home of its own and the given
// passphrase, and returns its output.
func gnuPG(t *testing.T, passphrase string) func(args ...string) string {
	t.Helper()
	home, err := os.MkdirTemp("", "gpg") // short: gpg-agent's socket lies in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		exec.Command("gpgconf", "--homedir", home, "--kill", "gpg-agent").Run()
		os.RemoveAll(home)
	})
	return func(args ...string) string {
		t.Helper()
		cmd := exec.Command("gpg", append([]string{"--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase", passphrase}, args...)...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("gpg %v: %v: %s", args, err, stderr.String())
		}
		return string(out)
	}
}

// TestGnuPGReadsTheIdentity imports identities into gpg and has it decrypt a
// ring key, so that an operator can reach the keys without this program.
func TestGnuPGReadsTheIdentity(t *testing.T) {
	f := func(passphrase string) {
		t.Helper()
		dir := t.TempDir()
		path := filepath.Join(dir, "identity.asc")
		id, err := CreateIdentity(path, []byte(passphrase))
		if err != nil {
			t.Fatal(err)
		}
		gpg := gnuPG(t, passphrase)
		gpg("--import", path)
		if list := gpg("--with-colons", "--list-secret-keys"); !strings.Contains(list, id.Fingerprint()) {
			t.Errorf("gpg lists %s", list)
		}
		content, err := newRing(id, 1)
		if err != nil {
			t.Fatal(err)
		}
		message := filepath.Join(dir, "message")
		if err := os.WriteFile(message, content[2+int(content[1]):], 0o600); err != nil {
			t.Fatal(err)
		}
		if secret := gpg("--decrypt", message); len(secret) != 36 || secret[:4] != "\x00\x00\x00\x01" {
			t.Errorf("gpg decrypts %d bytes", len(secret))
		}
	}
	f("")
	f("correct horse")
}

// TestGnuPGAddsAPassphrase follows the steps of docs/store.md.
func TestGnuPGAddsAPassphrase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.asc")
	before, err := CreateIdentity(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := newRing(before, 1)
	if err != nil {
		t.Fatal(err)
	}
	gpg := gnuPG(t, "correct horse")
	gpg("--import", path)
	gpg("--passwd", before.Fingerprint())
	exported := gpg("--armor", "--export-secret-keys", before.Fingerprint())
	gpg("--yes", "--delete-secret-keys", before.Fingerprint())
	if left := gpg("--list-secret-keys"); left != "" {
		t.Errorf("gpg still has %s", left)
	}
	if _, err := ParseIdentity([]byte(exported), nil); err == nil {
		t.Error("the exported identity has no passphrase")
	}
	after, err := ParseIdentity([]byte(exported), []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openRing(after, 1, ring); err != nil {
		t.Error(err)
	}
}
