package keys

import (
	"bytes"
	"math"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.Custom(func(t *rapid.T) string {
			return string(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes"))
		})
		r := &record{
			cipher:     text.Draw(t, "cipher"),
			bitLength:  rapid.IntRange(0, maxBitLength).Draw(t, "bit length"),
			created:    rapid.Int64Range(0, math.MaxInt64).Draw(t, "created"),
			attributes: rapid.MapOfN(text, text, 0, 5).Draw(t, "attributes"),
			versions:   rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 64), 1, 40).Draw(t, "versions"),
		}
		if len(r.attributes) == 0 {
			r.attributes = nil
		}
		if rapid.Bool().Draw(t, "has description") {
			s := text.Draw(t, "description")
			r.description = &s
		}
		b := r.encode()
		got, err := decodeRecord(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, r) {
			t.Fatalf("%+v became %+v", r, got)
		}
		for n := range b {
			if _, err := decodeRecord(b[:n]); err == nil {
				t.Fatalf("accepted the first %d of %d bytes", n, len(b))
			}
		}
	})
}

func TestRecordHasOneForm(t *testing.T) {
	f := func(what string, b []byte) {
		t.Helper()
		if r, err := decodeRecord(b); err == nil {
			t.Errorf("%s: read as %+v", what, r)
		}
	}
	good := []byte{recordVersion, 1, 'c', 8, 0, 0, 2, 1, 'a', 0, 1, 'b', 0, 1, 1, 7}
	if r, err := decodeRecord(good); err != nil || !bytes.Equal(r.encode(), good) {
		t.Fatalf("%+v, %v", r, err)
	}
	f("other version", append([]byte{2}, good[1:]...))
	f("trailing byte", append(bytes.Clone(good), 0))
	f("long varint", []byte{recordVersion, 0x81, 0, 'c', 8, 0, 0, 0, 1, 1, 7})
	f("description marked 2", []byte{recordVersion, 0, 8, 0, 2, 0, 0, 1, 1, 7})
	f("attributes out of order", []byte{recordVersion, 0, 8, 0, 0, 2, 1, 'b', 0, 1, 'a', 0, 1, 1, 7})
	f("attribute twice", []byte{recordVersion, 0, 8, 0, 0, 2, 1, 'a', 0, 1, 'a', 0, 1, 1, 7})
	f("no versions", []byte{recordVersion, 0, 8, 0, 0, 0, 0})
	f("more versions than bytes", []byte{recordVersion, 0, 8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f("more attributes than bytes", []byte{recordVersion, 0, 8, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f("nothing", nil)
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte{recordVersion, 1, 'c', 8, 0, 0, 2, 1, 'a', 0, 1, 'b', 0, 1, 1, 7})
	f.Add([]byte{recordVersion, 0, 8, 0, 1, 1, 'd', 0, 2, 1, 7, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err == nil && !bytes.Equal(r.encode(), b) {
			t.Errorf("%x reads as %+v, which is written %x", b, r, r.encode())
		}
	})
}

func FuzzKeyHandle(f *testing.F) {
	f.Add("key/a/0000000001")
	f.Add("key/a%2Fb%FF/4294967295")
	f.Add("key/%2f/0000000001")
	f.Add("key/a%41/0000000001")
	f.Fuzz(func(t *testing.T, handle string) {
		name, generation, ok := parseKeyHandle(handle)
		if ok && (keyHandle(name, generation) != handle || name == "" || generation == 0) {
			t.Errorf("%q is read as %q, %d", handle, name, generation)
		}
		if handle == "" {
			return
		}
		if back, g, ok := parseKeyHandle(keyHandle(handle, 7)); !ok || back != handle || g != 7 {
			t.Errorf("name %q came back as %q, %d, %v", handle, back, g, ok)
		}
	})
}
