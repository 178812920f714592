package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/edekd/edekd/keystore"
)

// TestAgainstAMap compares the store with a map under random operations,
// reopening now and then.
func TestAgainstAMap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	reopen := func() (s *Store, err error) {
		if s, err = Open(path); err == nil {
			_, err = s.conn.ExecContext(t.Context(), "PRAGMA synchronous=OFF") // thousands of writes, no power cut
		}
		return s, err
	}
	s, err := reopen()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Close() }()
	runs := 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		room := fmt.Sprintf("run%d/", runs) // of this run's own
		ctx := context.Background()
		type entry struct {
			revision int64
			content  string
			deleted  bool
		}
		model := map[string]entry{}
		handles := rapid.SampledFrom([]string{"a", "a/", "a/b", "a/c", "a~", "a0", "b", "%2F"})
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				h, expect := room+handles.Draw(t, "handle"), rapid.Int64Range(-1, 4).Draw(t, "expect")
				content := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "content")
				old := model[h]
				rev, err := s.Put(ctx, h, expect, content)
				if expect == old.revision && !old.deleted {
					if err != nil || rev != expect+1 {
						t.Fatalf("put: %d, %v", rev, err)
					}
					model[h] = entry{revision: rev, content: string(content)}
				} else if !errors.Is(err, keystore.ErrConflict) {
					t.Fatalf("put at %d upon %+v: %v", expect, old, err)
				}
			},
			"delete": func(t *rapid.T) {
				h, expect := room+handles.Draw(t, "handle"), rapid.Int64Range(0, 4).Draw(t, "expect")
				old, exists := model[h]
				err := s.Delete(ctx, h, expect)
				if exists && expect == old.revision && !old.deleted {
					if err != nil {
						t.Fatal(err)
					}
					old.deleted = true
					model[h] = old
				} else if !errors.Is(err, keystore.ErrConflict) {
					t.Fatalf("delete at %d of %+v: %v", expect, old, err)
				}
			},
			"reopen": func(t *rapid.T) {
				if rapid.IntRange(0, 15).Draw(t, "how seldom") != 0 {
					return
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if s, err = reopen(); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				prefix := room + rapid.SampledFrom([]string{"", "a", "a/", "b", "c"}).Draw(t, "prefix")
				want := 0
				for h := range model {
					if strings.HasPrefix(h, prefix) {
						want++
					}
				}
				last := "~"
				err := s.List(ctx, prefix, func(d *keystore.Deposit) bool {
					want--
					e := model[d.Handle]
					if d.Handle >= last || (entry{d.Revision, string(d.Content), d.Deleted}) != e {
						t.Fatalf("listed %+v after %q, want %+v", d, last, e)
					}
					last = d.Handle
					return true
				})
				if err != nil || want != 0 {
					t.Fatalf("list %q: %d missing, %v", prefix, want, err)
				}
				for h, e := range model {
					if strings.HasPrefix(h, prefix) && !e.deleted {
						want++
					}
				}
				last = "~"
				err = s.Handles(ctx, prefix, func(h string) bool {
					want--
					if e, ok := model[h]; h >= last || !strings.HasPrefix(h, prefix) || !ok || e.deleted {
						t.Fatalf("named %q after %q, which is %+v", h, last, e)
					}
					last = h
					return true
				})
				if err != nil || want != 0 {
					t.Fatalf("handles %q: %d missing, %v", prefix, want, err)
				}
			},
		})
	})
}
