package spnego

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/jcmturner/gokrb5/v8/types"
)

// keytabEntry builds one entry of a keytab with an AES256-SHA1 key of ones;
// wide is the version in 32 bits, -1 for an entry without it.
func keytabEntry(principal string, version byte, wide int) []byte {
	name, realm, _ := strings.Cut(principal, "@")
	parts := strings.Split(name, "/")
	counted := func(b []byte, s string) []byte {
		return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
	}
	body := binary.BigEndian.AppendUint16(nil, uint16(len(parts)))
	body = counted(body, realm)
	for _, part := range parts {
		body = counted(body, part)
	}
	body = append(body, 0, 0, 0, 1, 0x60, 0, 0, 0, version, 0, 18)
	body = counted(body, strings.Repeat("\x01", 32))
	if wide >= 0 {
		body = binary.BigEndian.AppendUint32(body, uint32(wide))
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func keytabOf(parts ...[]byte) []byte { return append([]byte{5, 2}, slices.Concat(parts...)...) }

func TestKeytabVersionsAndHoles(t *testing.T) {
	hole := append([]byte{0xff, 0xff, 0xff, 0xfb}, "12345"...)
	entries, err := parseKeytab(keytabOf(
		keytabEntry("HTTP/a@R", 3, -1), hole, keytabEntry("HTTP/a@R", 44, 300), keytabEntry("HTTP/b@R", 5, 0),
		[]byte{0, 0, 0, 0}, []byte("left over")))
	if err != nil {
		t.Fatal(err)
	}
	f := func(e entry, principal string, yes, no []uint32) {
		t.Helper()
		if e.principal != principal || e.key.KeyType != 18 || string(e.key.KeyValue) != strings.Repeat("\x01", 32) {
			t.Errorf("principal %s, key type %d", e.principal, e.key.KeyType)
		}
		for _, v := range yes {
			if !e.matches(v) {
				t.Errorf("%s of version %d is not for a ticket of version %d", principal, e.version, v)
			}
		}
		for _, v := range no {
			if e.matches(v) {
				t.Errorf("%s of version %d is for a ticket of version %d", principal, e.version, v)
			}
		}
	}
	if len(entries) != 3 {
		t.Fatalf("%d entries", len(entries))
	}
	f(entries[0], "HTTP/a@R", []uint32{0, 3, 259}, []uint32{2, 4, 258})
	f(entries[1], "HTTP/a@R", []uint32{0, 300}, []uint32{44, 3})
	f(entries[2], "HTTP/b@R", []uint32{0, 5, 261}, []uint32{6})
}

func TestBrokenKeytabs(t *testing.T) {
	good := keytabEntry("HTTP/a@R", 3, 3)
	f := func(data []byte, want string) {
		t.Helper()
		_, err := parseKeytab(data)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d bytes: error %v, want %q", len(data), err, want)
		}
		if err != nil && strings.Contains(err.Error(), "\x01") {
			t.Error("the error repeats what is in the keytab")
		}
	}
	f(nil, "not a whole keytab")
	f([]byte("a text"), "not a whole keytab")
	f([]byte{5, 1}, "a keytab of version 1")
	for n := 7; n < len(good); n++ {
		f(keytabOf(good[:n]), "not a whole keytab")
	}
	f(keytabOf([]byte{0x80, 0, 0, 0}), "not a whole keytab")
	f(keytabOf([]byte{0x7f, 0xff, 0xff, 0xff}), "not a whole keytab")
	f(keytabOf([]byte{0, 0, 0, 4, 0xff, 0xff, 0, 0}), "not a whole keytab")
	short := slices.Clone(good)
	binary.BigEndian.PutUint32(short, uint32(len(good)-4-4-32+16))
	binary.BigEndian.PutUint16(short[len(short)-4-32-2:], 16)
	f(keytabOf(short[:len(good)-4-16]), "a key of HTTP/a@R has 16 bytes in the place of 32")
	f(keytabOf(slices.Repeat(good, maxEntries+1)), "a keytab may have 10000 keys")
}

func TestNewestKeyIsTriedFirst(t *testing.T) {
	entries, err := parseKeytab(keytabOf(
		keytabEntry("HTTP/a@R", 1, 1), keytabEntry("HTTP/a@R", 3, 0x7fffffff), keytabEntry("HTTP/a@R", 0, 0x40000000)))
	if err != nil {
		t.Fatal(err)
	}
	ring, _, err := pick(entries, []string{"HTTP/a"}, "R")
	if err != nil {
		t.Fatal(err)
	}
	var versions []uint32
	for _, e := range ring["HTTP/a@R"] {
		versions = append(versions, e.version)
	}
	if want := []uint32{0x7fffffff, 0x40000000, 1}; !slices.Equal(versions, want) {
		t.Errorf("order %v, want %v", versions, want)
	}
}

func TestOtherKeysAreForgotten(t *testing.T) {
	entries, err := parseKeytab(keytabOf(keytabEntry("HTTP/a@R", 1, 1), keytabEntry("hdfs/a@R", 1, 1), keytabEntry("HTTP/b@R", 1, 1)))
	if err != nil {
		t.Fatal(err)
	}
	ring, _, err := pick(entries, []string{"HTTP/a"}, "R")
	if err != nil {
		t.Fatal(err)
	}
	ring.forgetOthers(entries)
	for _, e := range entries {
		want := strings.Repeat("\x00", 32)
		if e.principal == "HTTP/a@R" {
			want = strings.Repeat("\x01", 32)
		}
		if string(e.key.KeyValue) != want {
			t.Errorf("the key of %s is %x", e.principal, e.key.KeyValue)
		}
	}
}

func FuzzKeytab(f *testing.F) {
	f.Add(keytabOf(keytabEntry("HTTP/a@R", 3, 3), keytabEntry("b@R", 3, -1)))
	f.Add(keytabOf([]byte{0xff, 0xff, 0xff, 0xff, 0}))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseKeytab(data)
		if err != nil {
			return
		}
		total := 0
		for _, e := range entries {
			total += len(e.principal) + len(e.key.KeyValue)
		}
		if total > 2*len(data) {
			t.Errorf("%d bytes became %d", len(data), total)
		}
		if ring, _, err := pick(entries, []string{"*"}, "R"); err == nil && len(ring.names()) == 0 {
			t.Error("nobody is served, and that is no error")
		}
	})
}

// Names that could be taken for other names, or break a line of a log.
func TestClientNames(t *testing.T) {
	f := func(want, realm string, parts ...string) {
		t.Helper()
		got, refusal := clientName(types.PrincipalName{NameString: parts}, realm)
		if got != want || (refusal != nil) != (want == "") {
			t.Errorf("%q %q: %q, %v, want %q", parts, realm, got, refusal, want)
		}
	}
	f("alice@R", "R", "alice")
	f("nn/host.test@R", "R", "nn", "host.test")
	f("a/b/c@R", "R", "a", "b", "c")
	f("Jürgen & co@R", "R", "Jürgen & co")
	f("", "R")
	f("", "", "alice")
	f("", "R", "")
	f("", "R", "alice@R")
	f("", "R", "hdfs/host")
	f("", "R", "hdfs", "host@R")
	f("", "R/S", "alice")
	f("", "A@R", "alice")
	f("", "R", "a\nb")
	f("", "R\r", "a")
	f("", "R", "a\xff")
	f("", "R", "a\u2028b")
	f("", "R", "WELLKNOWN", "ANONYMOUS")
}
