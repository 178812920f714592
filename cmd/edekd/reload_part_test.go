package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What changes between the reading of a file and the first look at it is read,
// and what cannot be read is tried again although its files stay as they are.
func TestPartsAreReadUntilTheyAreWhole(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, "after the start of the process")
	var wrong error
	reads := 0
	p := &part{name: "rules", files: func() []string { return []string{path} }, lasting: func() []string { return []string{path} },
		load: func() error { reads++; return wrong }}
	new(reloader).add(p)
	// look fails unless it reads, succeeds and complains as it should.
	look := func(what string, wantReads int, wantDone bool, wantErr string) {
		t.Helper()
		before := reads
		done, err := p.look()
		if reads-before != wantReads || done != wantDone || (err == nil) != (wantErr == "") || err != nil && !strings.Contains(err.Error(), wantErr) {
			t.Errorf("%s: read %d times, done %v, error %v", what, reads-before, done, err)
		}
	}
	look("changed while the process started", 1, true, "")
	look("nothing is new", 0, false, "")
	write(t, path, "broken")
	wrong = errors.New("it is broken")
	look("broken", 1, false, "rules: it is broken")
	p.next = time.Time{}
	look("still broken, as was told", 1, false, "")
	p.next = time.Now().Add(time.Hour)
	look("not its turn", 0, false, "")
	p.next = time.Time{}
	wrong = errors.New("it is broken in another way")
	look("broken in another way", 1, false, "in another way")
	p.next, wrong = time.Time{}, nil
	look("what it needs has come", 1, true, "")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	look("gone", 0, false, "it was there and is gone")
	if err := p.again(); err == nil {
		t.Error("SIGHUP does not tell that the file is gone")
	}
	write(t, path, "back")
	look("back", 1, true, "")
}
