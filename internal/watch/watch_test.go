package watch

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestChanged(t *testing.T) {
	dir := t.TempDir()
	file, other, link := filepath.Join(dir, "file"), filepath.Join(dir, "other"), filepath.Join(dir, "link")
	old := time.Now().Add(-time.Hour)
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, old, old); err != nil { // size and time tell nothing
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var s Set
	paths := []string{file, link}
	f := func(what string, change func()) {
		t.Helper()
		change()
		if !s.Changed(paths) {
			t.Errorf("%s: not seen", what)
		}
		if s.Changed(paths) {
			t.Errorf("%s: seen twice", what)
		}
	}
	if s.Changed(paths) {
		t.Error("files asked for the first time have changed")
	}
	f("made", func() { write(file, "a") })
	f("linked", func() { must(os.Symlink(file, link)) })
	f("written over", func() { time.Sleep(10 * time.Millisecond); write(file, "b") }) // beyond the clock tick of the file system
	f("renamed over", func() { write(other, "b"); must(os.Rename(other, file)) })
	f("linked elsewhere", func() {
		write(other, "b")
		must(os.Symlink(other, link+"2"))
		must(os.Rename(link+"2", link))
	})
	f("behind the link", func() { write(other, "cc") })
	f("mode", func() { must(os.Chmod(file, 0)) })
	f("removed", func() { must(os.Remove(file)) })
	paths = append(paths, other)
	if s.Add(paths, time.Now().Add(time.Hour)) {
		t.Error("added files have changed since they were read")
	}
	f("added and written over", func() { write(other, "ddd") })
	f("changed before it is added again", func() { write(other, "eeee"); s.Add(paths, time.Now()) })
	paths = []string{filepath.Join(dir, "late")}
	began := time.Now()
	write(paths[0], "f")
	if !s.Add(paths, began) {
		t.Error("a change while the file was read is missed")
	}
}
