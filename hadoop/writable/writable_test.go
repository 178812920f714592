package writable

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"
)

// Computed with the JDK from the rules of WritableUtils.
func TestNumbers(t *testing.T) {
	f := func(n int64, want string) {
		t.Helper()
		b := AppendVLong(nil, n)
		if got := hex.EncodeToString(b); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
		r := NewReader(append(b, 0x55))
		if got := r.VLong(); got != n || r.Err() != nil || len(r.Rest()) != 1 {
			t.Errorf("%s is %d (%v, %x left), want %d", want, got, r.Err(), r.Rest(), n)
		}
	}
	f(0, "00")
	f(127, "7f")
	f(128, "8f80")
	f(255, "8fff")
	f(256, "8e0100")
	f(65535, "8effff")
	f(-1, "ff")
	f(-112, "90")
	f(-113, "8770")
	f(1700000000000, "8a018bcfe56800")
	f(-1700000000000, "82018bcfe567ff")
	f(math.MaxInt64, "887fffffffffffffff")
	f(math.MinInt64, "807fffffffffffffff")
}

func TestNumbersRefused(t *testing.T) {
	f := func(in string, want error) {
		t.Helper()
		b, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		r := NewReader(b)
		if n := r.VInt(); n != 0 || !errors.Is(r.Err(), want) || r.Rest() != nil {
			t.Errorf("%s is %d, %v, want %v", in, n, r.Err(), want)
		}
	}
	f("", ErrEnd)
	f("8f", ErrEnd)
	f("8a018bcfe568", ErrEnd)
	f("88", ErrEnd)
	f("8f7f", ErrCanonical)               // 127 in two bytes
	f("8e0080", ErrCanonical)             // 128 in three
	f("8800000000000000ff", ErrCanonical) // 255 in nine
	f("8700", ErrCanonical)               // -1 in two bytes
	f("88ffffffffffffffff", ErrCanonical) // not a positive number at all
	f("8c80000000", ErrInt)               // one more than fits
	f("8480000000", ErrInt)               // one less than fits
}

func TestTextsAndBytes(t *testing.T) {
	long := strings.Repeat("é", 100)
	b := AppendText(nil, "")
	b = AppendText(b, "alice")
	b = AppendText(b, long)
	b = AppendBytes(b, []byte{0xff, 0xfe})
	b = AppendBytes(b, nil)
	r := NewReader(b)
	if s := r.Text(10); s != "" {
		t.Errorf("empty text is %q", s)
	}
	if s := r.Text(5); s != "alice" {
		t.Errorf("text is %q", s)
	}
	if s := r.Text(200); s != long {
		t.Errorf("long text is %q", s)
	}
	got := r.Bytes(2)
	if !bytes.Equal(got, []byte{0xff, 0xfe}) {
		t.Errorf("bytes are %x", got)
	}
	if cap(got) != len(got) {
		t.Error("appending to what was read would write into what follows")
	}
	if got := r.Bytes(0); len(got) != 0 || r.Err() != nil || len(r.Rest()) != 0 {
		t.Errorf("%x, %v, %x left", got, r.Err(), r.Rest())
	}
}

func TestLengths(t *testing.T) {
	f := func(in []byte, limit int, says string) {
		t.Helper()
		r := NewReader(in)
		if b := r.Bytes(limit); b != nil || r.Err() == nil || r.Err().Error() != says {
			t.Errorf("%x: %x, %v", in, b, r.Err())
		}
	}
	f(append(AppendVInt(nil, math.MaxInt32), "abc"...), math.MaxInt32, ErrEnd.Error())
	f(append(AppendVInt(nil, math.MaxInt32), "abc"...), 100, ErrEnd.Error())
	f(append(AppendVInt(nil, -5), "abc"...), 100, "tried to deserialize -5 bytes of data!  newLength must be non-negative.")
	f(append(AppendVInt(nil, math.MinInt32), "abc"...), 100, "tried to deserialize -2147483648 bytes of data!  newLength must be non-negative.")
	f([]byte{4, 'a', 'b', 'c', 'd'}, 3, "tried to deserialize 4 bytes of data, but maxLength = 3")
	f([]byte{4, 'a', 'b', 'c'}, 3, ErrEnd.Error())
	f([]byte{4, 'a', 'b', 'c'}, 4, ErrEnd.Error())
}

// Texts longer than Hadoop's megabyte are refused before the data is looked at.
func TestTextLengths(t *testing.T) {
	f := func(in []byte, says string) {
		t.Helper()
		r := NewReader(in)
		if s := r.Text(3); s != "" || r.Err() == nil || r.Err().Error() != says {
			t.Errorf("%x: %q, %v", in, s, r.Err())
		}
	}
	f(AppendVInt(nil, 1<<20), ErrEnd.Error())
	f(AppendVInt(nil, 1<<20+1), "tried to deserialize 1048577 bytes of data, but maxLength = 1048576")
	f(AppendVInt(nil, -5), "tried to deserialize -5 bytes of data!  newLength must be non-negative.")
	f([]byte{4, 'a', 'b', 'c', 'd'}, "tried to deserialize 4 bytes of data, but maxLength = 3")
	f([]byte{4, 'a', 'b', 'c'}, ErrEnd.Error())
}

func TestFirstErrorStays(t *testing.T) {
	r := NewReader([]byte{2, 0xff, 0xff, 1, 2, 3})
	if s := r.Text(10); s != "" || !errors.Is(r.Err(), ErrUTF8) {
		t.Errorf("%q, %v", s, r.Err())
	}
	if r.Byte() != 0 || r.VLong() != 0 || r.Bytes(9) != nil || r.Fixed(1) != nil || !errors.Is(r.Err(), ErrUTF8) {
		t.Errorf("reading went on after an error, or it became %v", r.Err())
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte{0, 0x7f, 0x8f, 0x80, 5, 'a', 'l', 'i', 'c', 'e', 2, 1, 2})
	f.Add([]byte("\x00\x05alice\x04yarn\x00\x8a\x01\x8b\xcf\xe5\x68\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(b)
		long, number, text, bytes, one := r.VLong(), r.VInt(), r.Text(64), r.Bytes(64), r.Byte()
		if r.Err() != nil {
			return
		}
		again := AppendVLong(nil, long)
		again = AppendVInt(again, number)
		again = AppendText(again, text)
		again = AppendBytes(again, bytes)
		again = append(append(again, one), r.Rest()...)
		if string(again) != string(b) {
			t.Errorf("%x was read as %x", b, again)
		}
	})
}
