package keys

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/edekd/edekd/edek"
)

func TestWalkShowsLivingKeys(t *testing.T) {
	box := openBox(t)
	p := openDeposits(t, box)
	want := map[string]string{}
	for i, name := range []string{"plain", "a", "a.b", "a/b", "schlüssel", "rolled", "again", "gone"} {
		key := newKey(name)
		key.Material = bytes.Repeat([]byte{byte(i)}, key.BitLength/8)
		create(t, p, key).Zero()
		want[name] = fmt.Sprintf("%s@0 %x", name, key.Material)
	}
	for _, name := range []string{"again", "gone"} {
		if err := p.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	delete(want, "gone")
	key := newKey("again")
	key.Material = bytes.Repeat([]byte{0xaa}, key.BitLength/8)
	create(t, p, key).Zero()
	want["again"] = fmt.Sprintf("again@0 %x", key.Material)
	material := bytes.Repeat([]byte{0xbb}, key.BitLength/8)
	if _, err := p.Roll(t.Context(), "rolled", material); err != nil {
		t.Fatal(err)
	}
	want["rolled"] = fmt.Sprintf("rolled@1 %x", material)
	// One that does not open, and does not keep the others from being shown.
	if _, err := box.Put(t.Context(), keyHandle("damaged", 1), 0, []byte("no envelope")); err != nil {
		t.Fatal(err)
	}

	err := p.Walk(t.Context(), func(m *edek.Metadata, current *edek.KeyVersion) bool {
		defer current.Zero()
		if got := fmt.Sprintf("%s %x", current.VersionName, current.Material); got != want[m.Name] || m.CurrentVersion() != current.VersionName || current.Name != m.Name {
			t.Errorf("%s: %s, want %s", m.Name, got, want[m.Name])
		}
		delete(want, m.Name)
		return true
	})
	if err != nil || len(want) > 0 {
		t.Errorf("not shown: %v; %v", want, err)
	}
	n := 0
	if err := p.Walk(t.Context(), func(*edek.Metadata, *edek.KeyVersion) bool { n++; return n < 3 }); err != nil || n != 3 {
		t.Errorf("%d keys were shown to one who wanted 3: %v", n, err)
	}
}
