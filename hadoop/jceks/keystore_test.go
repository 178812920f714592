package jceks

import (
	"bytes"
	"crypto/cipher"
	"encoding/hex"
	"errors"
	"maps"
	"os"
	"strings"
	"testing"
	"time"
)

func password(t testing.TB, s string) *Password {
	t.Helper()
	pw, err := NewPassword([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return pw
}

func golden(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func parse(t testing.TB, data []byte) map[string]*Entry {
	t.Helper()
	entries, err := Parse(data, password(t, "changeit"))
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string]*Entry)
	for _, e := range entries {
		m[e.Alias()] = e
	}
	return m
}

// The files were written by KeyShell, see testdata/README.md.
func TestReadsWhatHadoopWrote(t *testing.T) {
	pw := password(t, "changeit")
	f := func(file string) {
		t.Helper()
		data := golden(t, file)
		entries := parse(t, data)
		if len(entries) != 5 {
			t.Fatalf("%s: %d entries", file, len(entries))
		}
		for alias, size := range map[string]int{"k1@0": 16, "k1@1": 16, "k2@0": 32} {
			algorithm, material, err := entries[alias].SecretKey(pw)
			if err != nil || algorithm != "AES/CTR/NoPadding" || len(material) != size {
				t.Errorf("%s %s: %q, %d bytes, %v", file, alias, algorithm, len(material), err)
			}
			if n := entries[alias].Iterations(); n != 200000 {
				t.Errorf("%s %s: %d iterations", file, alias, n)
			}
		}
		m, err := entries["k2"].KeyMetadata(pw)
		if err != nil {
			t.Fatal(err)
		}
		if m.Cipher != "AES/CTR/NoPadding" || m.BitLength != 256 || m.Versions != 1 || m.Description == nil || *m.Description != "two" ||
			!maps.Equal(m.Attributes, map[string]string{"team": "blue", "x": "y"}) || time.UnixMilli(m.Created).UTC().Year() != 2026 {
			t.Errorf("%s: k2 is %+v", file, m)
		}
		m, err = entries["k1"].KeyMetadata(pw)
		if err != nil || m.Versions != 2 || m.BitLength != 128 || m.Description != nil || m.Attributes != nil {
			t.Errorf("%s: k1 is %+v, %v", file, m, err)
		}
		all, err := Parse(data, pw)
		if err != nil {
			t.Fatal(err)
		}
		if again := Append(nil, all, pw); !bytes.Equal(again, data) {
			t.Errorf("%s: written again it differs", file)
		}
		// What we seal is, sealing apart, what Java sealed.
		f := func(alias string, ours *Entry, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			want, err1 := entries[alias].sealed.open(pw)
			got, err2 := ours.sealed.open(pw)
			if err1 != nil || err2 != nil || !bytes.Equal(got, want) {
				t.Errorf("%s %s: we serialize\n%q (%v), Java\n%q (%v)", file, alias, got, err2, want, err1)
			}
			if len(ours.raw) != len(entries[alias].raw) {
				t.Errorf("%s %s: our entry has %d bytes, Java's %d", file, alias, len(ours.raw), len(entries[alias].raw))
			}
		}
		algorithm, material, _ := entries["k1@0"].SecretKey(pw)
		e, err := NewSecretKey("k1@0", algorithm, material, time.Now(), pw)
		f("k1@0", e, err)
		e, err = NewKeyMetadata("k1", m, time.Now(), pw)
		f("k1", e, err)
	}
	f("hadoop-3.3.6.jceks")
	f("hadoop-3.4.3.jceks")
}

func TestReadsWhatKeytoolWrote(t *testing.T) {
	pw := password(t, "changeit")
	data := golden(t, "keytool-17.jceks")
	entries := parse(t, data)
	f := func(alias string, kind Kind, wantErr error) {
		t.Helper()
		e := entries[alias]
		if e == nil || e.Kind() != kind {
			t.Fatalf("%s: %+v", alias, e)
		}
		if _, _, err := e.SecretKey(pw); !errors.Is(err, wantErr) {
			t.Errorf("%s: %v, want %v", alias, err, wantErr)
		}
	}
	f("aeskey", SecretKey, nil)
	f("pair", PrivateKey, ErrType)
	f("root", Certificate, ErrType)
	f("otherpass", SecretKey, ErrPassword)
	f("des", SecretKey, ErrFormat) // a KeyRep, with an enum inside
	if _, err := entries["aeskey"].KeyMetadata(pw); !errors.Is(err, ErrType) {
		t.Errorf("metadata of a secret key: %v", err)
	}
	if _, material, err := entries["otherpass"].SecretKey(password(t, "different")); err != nil || len(material) != 16 {
		t.Errorf("otherpass under its own password: %d bytes, %v", len(material), err)
	}
	all, err := Parse(data, pw)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(Append(nil, all, pw), data) {
		t.Error("written again it differs")
	}
}

func TestPBEVectors(t *testing.T) {
	// From javax.crypto.Cipher of JDK 17, 1000 iterations, password "changeit".
	f := func(saltHex, wantHex string) {
		t.Helper()
		salt, _ := hex.DecodeString(saltHex)
		s := &sealed{salt: [8]byte(salt), rounds: 1000}
		block, iv, err := s.cipher(password(t, "changeit"))
		if err != nil {
			t.Fatal(err)
		}
		got := []byte("hello, keystore\x01")
		cipher.NewCBCEncrypter(block, iv[:]).CryptBlocks(got, got)
		if hex.EncodeToString(got) != wantHex {
			t.Errorf("salt %s: %x", saltHex, got)
		}
	}
	f("0102030405060708", "cb0e3d294b37dfabe7c8661d1ed29b0a")
	f("0102030401020304", "22a25f0b264b6ac9c543cb0efc8c6a6f")
}

func TestWrongPassword(t *testing.T) {
	for _, data := range [][]byte{golden(t, "hadoop-3.4.3.jceks"), Append(nil, nil, password(t, "changeit"))} {
		for _, wrong := range []string{"", "none", "Changeit", "changeit "} {
			if _, err := Parse(data, password(t, wrong)); !errors.Is(err, ErrPassword) || errors.Is(err, ErrFormat) {
				t.Errorf("password %q: %v", wrong, err)
			}
		}
	}
}

func TestUnusablePasswords(t *testing.T) {
	for _, bad := range []string{"pässword", "tab\t", "del\x7f", "nul\x00"} {
		if _, err := NewPassword([]byte(bad)); err == nil {
			t.Errorf("password %q was accepted, Java cannot seal with it", bad)
		}
	}
	if pw := password(t, "secret"); strings.Contains(pw.String()+pw.GoString(), "secret") {
		t.Error("the password shows itself")
	}
}

func TestEveryTruncationIsDamage(t *testing.T) {
	pw := password(t, "changeit")
	data := golden(t, "keytool-17.jceks")
	for n := range data {
		if _, err := Parse(data[:n], pw); !errors.Is(err, ErrFormat) {
			t.Fatalf("first %d bytes: %v", n, err)
		}
	}
	if _, err := Parse(append(bytes.Clone(data), 0), pw); !errors.Is(err, ErrFormat) {
		t.Errorf("one byte too many: %v", err)
	}
}

func TestEveryAlterationIsSeen(t *testing.T) {
	pw := password(t, "changeit")
	data := golden(t, "hadoop-3.4.3.jceks")
	for i := range data {
		data[i] ^= 0x10
		if _, err := Parse(data, pw); !errors.Is(err, ErrFormat) && !errors.Is(err, ErrPassword) {
			t.Fatalf("byte %d: %v", i, err)
		}
		data[i] ^= 0x10
	}
}

func TestForeignFilesAreNamed(t *testing.T) {
	f := func(start, want string) {
		t.Helper()
		data := append([]byte(start), make([]byte, 100)...)
		_, err := Parse(data, password(t, "changeit"))
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", start, err)
		}
	}
	f("\xfe\xed\xfe\xed\x00\x00\x00\x02", "JKS")
	f("0\x82\x01\x02", "PKCS#12")
	f("-----BEGIN", "CECECECE")
	f("\xce\xce\xce\xce\x00\x00\x00\x01", "version 1")
	f("\xce\xce\xce\xce\x00\x00\x00\x02\xff\xff\xff\xff", "negative length")
	f("\xce\xce\xce\xce\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x07", "unknown kind 7")
}

func TestAliasTwiceIsDamage(t *testing.T) {
	pw := password(t, "changeit")
	e := parse(t, golden(t, "hadoop-3.4.3.jceks"))["k1@0"]
	if _, err := Parse(Append(nil, []*Entry{e, e}, pw), pw); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}

func TestNewEntries(t *testing.T) {
	pw := password(t, "p w")
	created := time.UnixMilli(1700000000123)
	material := []byte("0123456789abcdef")
	f := func(alias string) {
		t.Helper()
		e, err := NewSecretKey(alias, "AES", material, created, pw)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(e.raw, material) {
			t.Error("the entry is not sealed")
		}
		back, err := Parse(Append(nil, []*Entry{e}, pw), pw)
		if err != nil || len(back) != 1 {
			t.Fatalf("%q: %d entries, %v", alias, len(back), err)
		}
		e = back[0]
		if e.Alias() != alias || e.Kind() != SecretKey || !e.Created().Equal(created) || e.Iterations() != Iterations {
			t.Errorf("%q came back as %q, kind %d, %v, %d", alias, e.Alias(), e.Kind(), e.Created(), e.Iterations())
		}
		algorithm, got, err := e.SecretKey(pw)
		if err != nil || algorithm != "AES" || !bytes.Equal(got, material) {
			t.Errorf("%q: %q, %q, %v", alias, algorithm, got, err)
		}
	}
	f("")
	f("K1@0")
	f("a/b c\n%\x00é€😀")

	if _, err := NewSecretKey("k", "AES", nil, created, pw); err == nil {
		t.Error("an empty key was sealed, Java has none")
	}
	for _, bad := range []string{"\xff", strings.Repeat("a", 65536), strings.Repeat("€", 21846)} {
		if _, err := NewSecretKey(bad, "AES", material, created, pw); err == nil {
			t.Errorf("alias of %d bytes was accepted", len(bad))
		}
	}
}

// Java writes block data in pieces of 1024 bytes; so do we.
func TestLongMetadata(t *testing.T) {
	pw := password(t, "none")
	for _, size := range []int{0, 100, 200, 255, 900, 1024, 5000} {
		description := strings.Repeat("<é>", size)
		e, err := NewKeyMetadata("k", &KeyMetadata{Cipher: "AES/CTR/NoPadding", BitLength: 128, Created: 1, Description: &description, Versions: 3}, time.Now(), pw)
		if err != nil {
			t.Fatal(err)
		}
		m, err := e.KeyMetadata(pw)
		if err != nil || *m.Description != description || m.Versions != 3 {
			t.Errorf("size %d: %+v, %v", size, m, err)
		}
	}
}

func TestMetadataIsChecked(t *testing.T) {
	pw := password(t, "none")
	f := func(payload string, want error) {
		t.Helper()
		w := newObjectWriter(nil)
		w.object(keyMetadataClass)
		w.blockData([]byte(payload))
		e, err := newEntry("k", w.buf, time.Now(), pw)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.KeyMetadata(pw); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", payload, err, want)
		}
	}
	f("\x00\x00\x00\x12{ \"versions\" : 1 }", nil)
	f("\x00\x00\x00\x11{ \"versions\" : 1 }", ErrFormat)
	f("", ErrFormat)
	f("\x00\x00\x00\x01{", ErrFormat)
	f("\x00\x00\x00\x0f{\"versions\":-1}", ErrFormat)
	f("\x00\x00\x00\x17{\"versions\":2147483647}", ErrFormat)
}

func TestSealingParametersAreBounded(t *testing.T) {
	s := &sealed{rounds: MaxIterations + 1, content: make([]byte, 8)}
	if _, err := s.open(password(t, "x")); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}
