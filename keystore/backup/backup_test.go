package backup

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// write makes a backup and returns its content, the identity and the snapshot.
func write(t testing.TB) (file, identity, database []byte) {
	t.Helper()
	dir := t.TempDir()
	identity = []byte("the identity")
	database = make([]byte, 10_000)
	for i := range database {
		database[i] = byte(rand.Int())
	}
	snapshot, to := filepath.Join(dir, "snapshot"), filepath.Join(dir, "backup")
	if err := os.WriteFile(snapshot, database, 0o600); err != nil {
		t.Fatal(err)
	}
	b := &Backup{Created: time.Unix(1_700_000_000, 0), StoreID: "id", Identity: identity}
	if err := Write(to, b, snapshot); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := Write(to, b, snapshot); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a backup over a file: %v", err)
	}
	file, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	return file, identity, database
}

func TestRoundTrip(t *testing.T) {
	file, identity, database := write(t)
	to := filepath.Join(t.TempDir(), "keys.db")
	b, err := Read(bytes.NewReader(file), to)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Identity, identity) || b.StoreID != "id" || b.Created.Unix() != 1_700_000_000 {
		t.Errorf("%+v", b)
	}
	got, err := os.ReadFile(to)
	if err != nil || !bytes.Equal(got, database) {
		t.Errorf("the snapshot changed on its way (%v)", err)
	}
	if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := Read(bytes.NewReader(file), to); !errors.Is(err, fs.ErrExist) {
		t.Errorf("restored over a file: %v", err)
	}
}

func TestDamageIsFound(t *testing.T) {
	file, identity, database := write(t)
	to := filepath.Join(t.TempDir(), "keys.db")
	f := func(what string, content []byte, says string) {
		t.Helper()
		_, err := Read(bytes.NewReader(content), to)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", what, err, says)
		}
		if _, err := os.Stat(to); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a file was left", what)
			os.Remove(to)
		}
	}
	flip := func(at int) []byte {
		b := bytes.Clone(file)
		b[at] ^= 1
		return b
	}
	f("empty", nil, "manifest.json is missing")
	f("text", []byte("hello"), "manifest.json is missing")
	f("identity changed", flip(bytes.Index(file, identity)), "identity does not match")
	f("database changed", flip(bytes.Index(file, database)+5000), "database does not match")
	f("cut within the database", file[:bytes.Index(file, database)+5000], "cut short")
	f("cut before the database", file[:bytes.Index(file, database)-300], "keys.db is missing")
	f("newer format", bytes.Replace(file, []byte(`"format": 1`), []byte(`"format": 2`), 1), "use the version that wrote it")
	f("another member", append(bytes.Clone(file[:len(file)-1024]), file...), "more in it")
}

func FuzzRead(f *testing.F) {
	file, _, _ := write(f)
	f.Add(file)
	f.Add(file[:2048])
	f.Fuzz(func(t *testing.T, content []byte) {
		to := filepath.Join(t.TempDir(), "keys.db")
		_, err := Read(bytes.NewReader(content), to)
		if _, stat := os.Stat(to); (err == nil) != (stat == nil) {
			t.Errorf("Read says %v, the file %v", err, stat)
		}
	})
}
