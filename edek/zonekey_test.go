package edek

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

func sequence(from byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = from + byte(i)
	}
	return b
}

func zoneKey(t testing.TB, material []byte) *ZoneKey {
	t.Helper()
	return NewZoneKey(&KeyVersion{Name: "k", VersionName: "k@0", Material: bytes.Clone(material)}, AESCTR)
}

// The vectors were computed with the JDK from Hadoop's rules.
func TestWrappingVectors(t *testing.T) {
	f := func(bits int, wantHex, wantWire string) {
		t.Helper()
		iv, dek := sequence(0xa0, 16), sequence(0x40, bits/8)
		z := zoneKey(t, sequence(0, bits/8))
		wrapped, err := z.AppendWrapped(nil, iv, dek)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(wrapped); got != wantHex {
			t.Errorf("AES-%d: wrapped %s, want %s", bits, got, wantHex)
		}
		if got := base64.RawURLEncoding.EncodeToString(wrapped); got != wantWire {
			t.Errorf("AES-%d: wire %s, want %s", bits, got, wantWire)
		}
		back, err := z.AppendDEK([]byte("prefix"), iv, wrapped)
		if err != nil || !bytes.Equal(back, append([]byte("prefix"), dek...)) {
			t.Errorf("AES-%d: unwrapped %x, %v", bits, back, err)
		}
	}
	f(128, "8beef5d45386171c8e0890f29bd7354a", "i-711FOGFxyOCJDym9c1Sg")
	f(192, "2036afda96d02de2c48f0b9873253bc9f43fe4291e0bb2e9", "IDav2pbQLeLEjwuYcyU7yfQ_5CkeC7Lp")
	f(256, "037bd6c02e6d5845b8e9a6b1c53771678ca876767c24ce6b961acf6534a6849a", "A3vWwC5tWEW46aaxxTdxZ4yodnZ8JM5rlhrPZTSmhJo")
}

// The counter arithmetic is ours; the standard library's CTR is the judge,
// carries across the 64-bit halves and the wrap-around included.
func TestKeystreamEqualsStandardCTR(t *testing.T) {
	ivs := [][]byte{bytes.Repeat([]byte{0}, 16), bytes.Repeat([]byte{0xff}, 16),
		append(bytes.Repeat([]byte{0x12}, 8), 0, 0, 0, 0, 0, 0, 0, 0), append(bytes.Repeat([]byte{0}, 8), 0, 0, 0, 0, 0, 0, 0, 1)}
	for range 200 {
		iv := make([]byte, 16)
		rand.Read(iv)
		ivs = append(ivs, iv)
	}
	for _, keyLen := range []int{16, 24, 32} {
		key := make([]byte, keyLen)
		rand.Read(key)
		z := zoneKey(t, key)
		block, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		for _, iv := range ivs {
			for _, n := range []int{0, 1, 15, 16, 17, 24, 32, 33, 80} {
				in := make([]byte, n)
				rand.Read(in)
				flipped := make([]byte, 16)
				for i := range iv {
					flipped[i] = ^iv[i]
				}
				want := make([]byte, n)
				cipher.NewCTR(block, flipped).XORKeyStream(want, in)
				got, err := z.AppendDEK(nil, iv, in)
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("key %d bytes, iv %x, %d bytes: got %x (%v), want %x", keyLen, iv, n, got, err, want)
				}
			}
		}
	}
}

func TestGenerateIsFreshAndSized(t *testing.T) {
	seen := map[string]bool{}
	for _, n := range []int{16, 24, 32} {
		z := zoneKey(t, sequence(0, n))
		for range 1000 {
			e, err := z.AppendGenerate(nil, 1)
			if err != nil || len(e) != IVSize+n {
				t.Fatalf("%d bytes, %v", len(e), err)
			}
			if seen[string(e)] {
				t.Fatal("the same EDEK twice")
			}
			seen[string(e)] = true
			dek, err := z.AppendDEK(nil, e[:IVSize], e[IVSize:])
			if err != nil || len(dek) != n {
				t.Fatalf("DEK %d bytes, %v", len(dek), err)
			}
		}
	}
}

func TestReencryptKeepsDEKAndIV(t *testing.T) {
	for _, toLen := range []int{16, 32} {
		from, to := zoneKey(t, sequence(0, 16)), zoneKey(t, sequence(9, toLen))
		e, err := from.AppendGenerate(nil, 1)
		if err != nil {
			t.Fatal(err)
		}
		iv, wrapped := e[:IVSize], e[IVSize:]
		dek, _ := from.AppendDEK(nil, iv, wrapped)
		re, err := from.AppendReencrypted([]byte{1}, to, iv, wrapped)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := to.AppendDEK(nil, iv, re[1:])
		if !bytes.Equal(got, dek) {
			t.Errorf("DEK changed: %x, want %x", got, dek)
		}
		if tail := re[:cap(re)][len(re):]; bytes.Contains(tail, dek) {
			t.Error("the DEK is left behind the result")
		}
	}
}

func TestRefusedInput(t *testing.T) {
	z := zoneKey(t, sequence(0, 16))
	for _, iv := range [][]byte{nil, make([]byte, 15), make([]byte, 17)} {
		if _, err := z.AppendDEK(nil, iv, make([]byte, 16)); KindOf(err) != BadCipherInput {
			t.Errorf("IV of %d bytes: %v", len(iv), err)
		}
	}
	odd := zoneKey(t, sequence(0, 8))
	if _, err := odd.AppendGenerate(nil, 1); KindOf(err) != BadCipherInput {
		t.Errorf("8-byte zone key: %v", err)
	}
	if _, err := z.AppendReencrypted(nil, odd, make([]byte, 16), make([]byte, 16)); KindOf(err) != BadCipherInput {
		t.Errorf("reencrypt to an 8-byte zone key: %v", err)
	}
}

func TestSM4(t *testing.T) {
	z := NewZoneKey(&KeyVersion{Name: "k", VersionName: "k@0", Material: sequence(0, 16)}, SM4CTR)
	e, err := z.AppendGenerate(nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	sm, _ := z.AppendDEK(nil, e[:16], e[16:])
	ae, _ := zoneKey(t, sequence(0, 16)).AppendDEK(nil, e[:16], e[16:])
	if bytes.Equal(sm, ae) {
		t.Error("SM4 and AES give the same keystream")
	}
	if _, err := NewZoneKey(&KeyVersion{Material: sequence(0, 32)}, SM4CTR).AppendGenerate(nil, 1); KindOf(err) != BadCipherInput {
		t.Errorf("32-byte SM4 key: %v", err)
	}
}

func TestNoFormattingShowsKeyBytes(t *testing.T) {
	secret := []byte("SECRETSECRETSECR")
	z := zoneKey(t, secret)
	v := &KeyVersion{Name: "k", VersionName: "k@0", Material: secret}
	k := &NewKey{Name: "k", Material: secret}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		out := fmt.Sprintf(verb+verb+verb, z, v, k)
		for _, form := range []string{"SECRET", hex.EncodeToString(secret[:6]), "83, 69", "83 69"} {
			if strings.Contains(out, form) {
				t.Errorf("%s shows key bytes: %s", verb, out)
			}
		}
	}
}

func TestZoneKeyIsZeroedWhenDropped(t *testing.T) {
	material := sequence(1, 32)
	z := NewZoneKey(&KeyVersion{Name: "k", VersionName: "k@0", Material: material}, AESCTR)
	if _, err := z.AppendGenerate(nil, 1); err != nil {
		t.Fatal(err)
	}
	runtime.KeepAlive(z)
	z = nil
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		runtime.GC()
		if bytes.Equal(material, make([]byte, 32)) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("material still readable after the zone key was dropped")
}

func TestGenerateAndUnwrapDoNotAllocate(t *testing.T) {
	z := zoneKey(t, sequence(0, 32))
	buf := make([]byte, 0, 128)
	if n := testing.AllocsPerRun(1000, func() {
		e, _ := z.AppendGenerate(buf, 1)
		if _, err := z.AppendDEK(e, e[:16], e[16:48]); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkGenerate(b *testing.B) {
	z, buf := zoneKey(b, sequence(0, 32)), make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		z.AppendGenerate(buf, 1)
	}
}

func BenchmarkDEK(b *testing.B) {
	z, buf := zoneKey(b, sequence(0, 32)), make([]byte, 0, 64)
	iv, wrapped := make([]byte, 16), make([]byte, 32)
	b.ReportAllocs()
	for b.Loop() {
		z.AppendDEK(buf, iv, wrapped)
	}
}
