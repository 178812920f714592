package zookeeper

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"

	"github.com/edekd/edekd/proxy/authn/token"
)

// Laid out by hand from ZKSignerSecretProvider.
const secretNodeHex = "00000000" + "00000003" + "6e6578" + "00000002" + "6375" + "00000000" + "0000018bcfe56800"

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSecretNode(t *testing.T) {
	n, err := parseSecretNode(unhex(t, secretNodeHex))
	if err != nil || string(n.next) != "nex" || string(n.current) != "cu" || len(n.previous) != 0 || n.roll != 1700000000000 {
		t.Fatalf("%+v, %v", n, err)
	}
	if got := hex.EncodeToString(n.append(nil)); got != secretNodeHex {
		t.Errorf("%s, want %s", got, secretNodeHex)
	}
	bad := func(text string) {
		t.Helper()
		if n, err := parseSecretNode(unhex(t, text)); err == nil {
			t.Errorf("%s is %+v", text, n)
		}
	}
	bad("")
	bad(secretNodeHex[:len(secretNodeHex)-2])
	bad(secretNodeHex + "00")
	bad("00000001" + secretNodeHex[8:])
	bad("00000000" + "ffffffff")
	bad("00000000" + "7fffffff" + "6e6578")
	bad("00000000" + "00000000" + "00000002" + "6375" + "00000000" + "0000018bcfe56800")
	bad("00000000" + "00000002" + "6375" + "00000000" + "00000000" + "0000018bcfe56800")
}

func TestDue(t *testing.T) {
	now := time.UnixMilli(1700000000000)
	f := func(roll, want time.Duration) {
		t.Helper()
		n := secretNode{roll: now.Add(roll).UnixMilli()}
		if got := n.due(now, time.Hour).Sub(now); got != want {
			t.Errorf("a node of %v: due in %v, want %v", roll, got, want)
		}
	}
	f(time.Minute, time.Minute)
	f(0, time.Hour)
	f(-time.Minute, 59*time.Minute)
	f(-61*time.Minute, 59*time.Minute)
	f(-time.Hour, time.Hour)
	for _, roll := range []int64{-1 << 63, 1<<63 - 1} {
		n := secretNode{roll: roll}
		if got := n.due(now, time.Hour).Sub(now); got != time.Hour {
			t.Errorf("a date that cannot be: due in %v", got)
		}
	}
}

func TestKeyNode(t *testing.T) {
	// VInt 2, VLong 1700000000000, VInt 8, eight bytes.
	const want = "02" + "8a018bcfe56800" + "08" + "0102030405060708"
	k := &token.MasterKey{ID: 2, Expires: 1700000000000, Secret: unhex(t, "0102030405060708")}
	if got := hex.EncodeToString(appendKeyNode(nil, k)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	got, err := parseKeyNode(unhex(t, want))
	if err != nil || got.ID != 2 || got.Expires != k.Expires || !bytes.Equal(got.Secret, k.Secret) {
		t.Errorf("id %d, expires %d, %v", got.ID, got.Expires, err)
	}
	for _, bad := range []string{"", want[:len(want)-2], want + "00", "028a018bcfe56800ff", "028a018bcfe5680000"} {
		if _, err := parseKeyNode(unhex(t, bad)); err == nil {
			t.Errorf("%s is a key", bad)
		}
	}
}

func TestTokenNode(t *testing.T) {
	id := token.Identifier{Owner: "alice", Renewer: "yarn", Issued: 1, MaxDate: 2, Sequence: 7, KeyID: 3}
	r := &token.Record{Sequence: 7, Identifier: id.Append(nil), Password: []byte("mac"), RenewDate: 1700000000000}
	const want = "00" + "05616c696365" + "047961726e" + "00" + "01" + "02" + "07" + "03" + "0000018bcfe56800" + "00000003" + "6d6163"
	if got := hex.EncodeToString(appendTokenNode(nil, r)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	got, err := parseTokenNode(unhex(t, want))
	if err != nil || got.Sequence != 7 || got.RenewDate != r.RenewDate || string(got.Password) != "mac" || !bytes.Equal(got.Identifier, r.Identifier) {
		t.Errorf("%d %d %q %x, %v", got.Sequence, got.RenewDate, got.Password, got.Identifier, err)
	}
	for cut := 0; cut < len(want); cut += 2 {
		if _, err := parseTokenNode(unhex(t, want[:cut])); err == nil {
			t.Errorf("%s is a token", want[:cut])
		}
	}
}

func FuzzSecretNode(f *testing.F) {
	f.Add(unhex(f, secretNodeHex))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := parseSecretNode(b)
		if err != nil {
			return
		}
		if again := n.append(nil); !bytes.Equal(again, b) {
			t.Errorf("%x is written again as %x", b, again)
		}
		now := time.UnixMilli(1700000000000)
		if due := n.due(now, time.Hour); !due.After(now) {
			t.Errorf("%x is due in %v", b, due.Sub(now))
		}
	})
}

func FuzzKeyNode(f *testing.F) {
	f.Add(unhex(f, "028a018bcfe56800080102030405060708"))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := parseKeyNode(b)
		if err != nil {
			return
		}
		if again := appendKeyNode(nil, k); !bytes.Equal(again, b) {
			t.Errorf("%x is written again as %x", b, again)
		}
	})
}

func FuzzTokenNode(f *testing.F) {
	f.Add(unhex(f, "0005616c696365047961726e00010207030000018bcfe56800000000036d6163"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseTokenNode(b)
		if err != nil {
			return
		}
		if again := appendTokenNode(nil, r); !bytes.Equal(again, b) {
			t.Errorf("%x is written again as %x", b, again)
		}
	})
}

func FuzzSASLReply(f *testing.F) {
	f.Add(unhex(f, "00000000"+"0000000000000000"+"00000000"+"00000002"+"0102"))
	f.Add(unhex(f, "00000000"+"0000000000000000"+"00000000"+"ffffffff"))
	f.Add(unhex(f, "00000000"+"0000000000000000"+"ffffff8d"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if reply, err := parseReply(b); err == nil && len(reply) > len(b) {
			t.Errorf("%d bytes out of %d", len(reply), len(b))
		}
	})
}
