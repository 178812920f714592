package jceks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// stream returns an object stream of the given bytes.
func stream(parts ...string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, streamHeader), strings.Join(parts, "")...)
}

func TestHostileObjects(t *testing.T) {
	const desc = "\x72\x00\x01A\x00\x00\x00\x00\x00\x00\x00\x01" // class A, version 1
	f := func(what, want string, parts ...string) {
		t.Helper()
		r := &reader{data: stream(parts...)}
		readObject(r)
		if !errors.Is(r.err, ErrFormat) || !strings.Contains(r.err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, r.err, want)
		}
	}
	f("nothing", "announced")
	f("null", "no Java object", "\x70")
	f("a string", "no Java object", "\x74\x00\x01x")
	f("no class", "without class", "\x73\x70")
	f("an object for a class", "no class where", "\x73\x74\x00\x01x")
	f("its own superclass", "deep", "\x73"+desc+"\x02\x00\x00\x78\x71\x00\x7e\x00\x00")
	f("reference to an array not read yet", "nothing", "\x73"+desc+"\x02\x00\x00\x78\x71\x00\x7e\x00\x07")
	f("too many fields", "65535 fields", "\x73"+desc+"\x02\xff\xff")
	f("externalizable", "flags 0x4", "\x73"+desc+"\x04\x00\x00\x78\x70")
	f("object in block data", "inside block data", "\x73"+desc+"\x03\x00\x00\x78\x70\x73")
	f("huge block", "2147483647 bytes announced", "\x73"+desc+"\x03\x00\x00\x78\x70\x7a\x7f\xff\xff\xff")
	f("huge array", "2147483647 bytes announced", "\x73"+desc+"\x02\x00\x01[\x00\x01f\x74\x00\x02[B\x78\x70\x75\x72\x00\x02[B\x00\x00\x00\x00\x00\x00\x00\x01\x02\x00\x00\x78\x70\x7f\xff\xff\xff")
	f("nested for ever", "deep", strings.Repeat("\x73"+desc+"\x02\x00\x01L\x00\x01f", 10000))
	f("many objects", "more than 256", "\x73"+strings.Repeat(desc+"\x02\x00\x40"+strings.Repeat("L\x00\x01f\x74\x00\x01x", 64)+"\x78", 5)+"\x70"+strings.Repeat("\x70", 5*64))
}

func TestPrimitiveFieldsAreSkipped(t *testing.T) {
	r := &reader{data: stream("\x73\x72\x00\x01A\x00\x00\x00\x00\x00\x00\x00\x01\x02\x00\x03I\x00\x01iJ\x00\x01jZ\x00\x01z\x78\x70", "\x00\x00\x00\x07", "\x00\x00\x00\x00\x00\x00\x00\x08", "\x01")}
	o := readObject(r)
	if r.err != nil || r.off != len(r.data) || !bytes.Equal(o.values["i"].([]byte), []byte{0, 0, 0, 7}) {
		t.Errorf("%+v, %v, %d of %d bytes read", o, r.err, r.off, len(r.data))
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"hadoop-3.4.3.jceks", "keytool-17.jceks"} {
		data := golden(f, name)
		f.Add(data[:len(data)-20])
	}
	f.Add([]byte{0xCE, 0xCE, 0xCE, 0xCE, 0, 0, 0, 2, 0, 0, 0, 0})
	pw, err := NewPassword([]byte("changeit"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		h := pw.digest()
		h.Write(body)
		data := h.Sum(bytes.Clone(body)) // or nothing would get past the digest
		entries, err := Parse(data, pw)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		if again := Append(nil, entries, pw); !bytes.Equal(again, data) {
			t.Errorf("read and written again: %x, was %x", again, data)
		}
	})
}

func FuzzReadObject(f *testing.F) {
	pw, err := NewPassword([]byte("changeit"))
	if err != nil {
		f.Fatal(err)
	}
	entries, err := Parse(golden(f, "keytool-17.jceks"), pw)
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range entries {
		if e.sealed != nil && e.alias != "otherpass" {
			plain, err := e.sealed.open(pw)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(plain)
		}
	}
	w := newObjectWriter(nil)
	w.object(keyMetadataClass)
	w.blockData([]byte("\x00\x00\x00\x02{}"))
	f.Add(w.buf)
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &reader{data: data}
		o := readObject(r)
		if r.err != nil {
			if !errors.Is(r.err, ErrFormat) {
				t.Fatal(r.err)
			}
			return
		}
		if o == nil || o.class == nil || r.off > len(data) || len(o.block) > len(data) {
			t.Errorf("%+v from %d bytes", o, len(data))
		}
	})
}

func FuzzUTF(f *testing.F) {
	f.Add([]byte("\x00\x03abc"))
	f.Add([]byte("\x00\x06\xed\xa0\xbd\xed\xb8\x80"))
	f.Add([]byte("\x00\x02\xc0\x80"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &reader{data: data}
		s := r.utf()
		if r.err != nil {
			return
		}
		back, err := appendUTF(nil, s)
		if err != nil || !bytes.Equal(back, data[:r.off]) {
			t.Errorf("%q is written as %x, was %x (%v)", s, back, data[:r.off], err)
		}
	})
}
