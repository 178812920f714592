package secret

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var start = time.UnixMilli(1700000000000)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func fileRing(t *testing.T, content string) (*Ring, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	write(t, path, content)
	r, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return r, path
}

// The vector was computed with the JDK from the rules of hadoop-auth's Signer.
func TestSignatureVector(t *testing.T) {
	r, _ := fileRing(t, "hadoop")
	key, previous := r.Live(start)
	if previous != nil {
		t.Error("a file has one secret")
	}
	text := []byte("u=alice&p=alice&t=simple-dt&e=1700000000000")
	const want = "AuJE3aPl9uAgLmpBWWMBtXsleDsyEeCwC4I0DWYW10c="
	if got := string(key.AppendSignature(nil, text)); got != want || len(got) != SignatureSize {
		t.Errorf("signature %s, want %s", got, want)
	}
	f := func(text, signature string, ok bool) {
		t.Helper()
		if key.Verifies([]byte(text), []byte(signature)) != ok {
			t.Errorf("%q under %q: %v", signature, text, !ok)
		}
	}
	f(string(text), want, true)
	f(string(text)+"0", want, false)
	f(string(text), want[:43], false)
	f(string(text), want+"=", false)
	f(string(text), "", false)
	f(string(text), strings.Replace(want, "=", "\n", 1), false)
	f(string(text), "BuJE3aPl9uAgLmpBWWMBtXsleDsyEeCwC4I0DWYW10c=", false)
	// The same bytes in another spelling of base64 ("d" for "c" leaves them alone).
	f(string(text), "AuJE3aPl9uAgLmpBWWMBtXsleDsyEeCwC4I0DWYW10d=", false)
}

func TestEqual(t *testing.T) {
	want := []byte("0123456789abcdefghijklmnopqrstuvwxyz")
	for n := range len(want) + 1 {
		got := append([]byte(nil), want[:n]...)
		if !Equal(want[:n], got) || n < len(want) && Equal(want, got) {
			t.Errorf("%d bytes: not equal to themselves, or equal to more", n)
		}
		for i := range n {
			for bit := range 8 {
				got[i] ^= 1 << bit
				if Equal(want[:n], got) {
					t.Errorf("%d bytes: bit %d of byte %d makes no difference", n, bit, i)
				}
				got[i] ^= 1 << bit
			}
		}
	}
	if !Equal(nil, []byte{}) {
		t.Error("nothing is not equal to nothing")
	}
}

func TestTrailingNewlineCounts(t *testing.T) {
	with, _ := fileRing(t, "hadoop\n")
	without, _ := fileRing(t, "hadoop")
	a, _ := with.Live(start)
	b, _ := without.Live(start)
	if b.Verifies([]byte("x"), a.AppendSignature(nil, []byte("x"))) {
		t.Error("the newline at the end of the file was dropped")
	}
}

func TestRandomSecretsRoll(t *testing.T) {
	const validity = time.Hour
	r, err := NewRandom(validity, start)
	if err != nil {
		t.Fatal(err)
	}
	first, previous := r.Live(start)
	if previous != nil {
		t.Error("there was no secret before the first")
	}
	if again, _ := r.Live(start.Add(validity - 1)); again != first {
		t.Error("rolled before its time")
	}
	second, previous := r.Live(start.Add(validity))
	if second == first || previous != first {
		t.Error("the second period has a new secret and the first one behind it")
	}
	if Equal(first.bytes, second.bytes) || len(second.bytes) != randomSize {
		t.Errorf("secrets of %d bytes that are equal or short", len(second.bytes))
	}
	third, previous := r.Live(start.Add(2*validity + time.Minute))
	if previous != second || third == second {
		t.Error("the third period does not follow the second")
	}
	// The clock going back changes nothing.
	if back, _ := r.Live(start); back != third {
		t.Error("rolled backwards")
	}
	// After a period without any request the last secret is too old to verify.
	late, previous := r.Live(start.Add(9*validity + time.Minute))
	if late == third || previous != nil {
		t.Error("a secret outlived its two periods")
	}
	if still, _ := r.Live(start.Add(10*validity - 1)); still != late {
		t.Error("periods no longer start where they did")
	}
}

func TestRollIsSeenByAllAtOnce(t *testing.T) {
	r, err := NewRandom(time.Hour, start)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	seen := make([]*Key, 16)
	for i := range seen {
		wg.Go(func() { seen[i], _ = r.Live(start.Add(time.Hour)) })
	}
	wg.Wait()
	for _, k := range seen {
		if k != seen[0] {
			t.Fatal("two secrets were made for one period")
		}
	}
}

func TestValidityMustBePositive(t *testing.T) {
	for _, d := range []time.Duration{0, -time.Second} {
		if _, err := NewRandom(d, start); err == nil || !strings.Contains(err.Error(), "token.validity") {
			t.Errorf("%v: %v", d, err)
		}
	}
}

func TestOpenFileRefuses(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	write(t, empty, "")
	f := func(path, says string) {
		t.Helper()
		if r, err := OpenFile(path); err == nil || r != nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", path, err)
		}
	}
	f("", "signature.secret.file")
	f(empty, "is empty")
	f(filepath.Join(dir, "missing"), "missing")
	f(dir, dir)
}

func TestReload(t *testing.T) {
	r, path := fileRing(t, "one")
	first, _ := r.Live(start)
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if same, _ := r.Live(start); same != first {
		t.Error("an unchanged file ended all cookies")
	}
	write(t, path, "")
	if err := r.Reload(); err == nil || !strings.Contains(err.Error(), "old secret stays") {
		t.Errorf("empty file: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := r.Reload(); err == nil {
		t.Error("a missing file went unnoticed")
	}
	if same, _ := r.Live(start); same != first {
		t.Error("a broken file replaced the secret")
	}
	write(t, path, "two")
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	second, previous := r.Live(start)
	if second == first || previous != nil || string(second.bytes) != "two" {
		t.Error("the new content is not the only secret")
	}
	random, err := NewRandom(time.Hour, start)
	if err != nil {
		t.Fatal(err)
	}
	if err := random.Reload(); err != nil {
		t.Errorf("random secrets: %v", err)
	}
}

func TestKeyHidesItsBytes(t *testing.T) {
	r, _ := fileRing(t, "topsecret")
	key, _ := r.Live(start)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
		if s := fmt.Sprintf(verb, key); strings.Contains(s, "topsecret") || strings.Contains(s, hex.EncodeToString([]byte("topsecret"))) {
			t.Errorf("%s shows %s", verb, s)
		}
	}
}

// What an InputStreamReader of JDK 17 made of the same bytes.
func TestDecodeAsJava(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		b, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(decodeAsJava(b)); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	f("", "")
	f("6861646f6f700a", "6861646f6f700a")
	f("c3a9e282acf09f9880", "c3a9e282acf09f9880") // text of all lengths
	f("efbbbf41", "efbbbf41")                     // a byte order mark stays
	f("efbfbd", "efbfbd")                         // so does U+FFFD itself
	f("ff", "efbfbd")
	f("c041", "efbfbd41")
	f("c080", "efbfbdefbfbd")
	f("c3", "efbfbd")
	f("e080", "efbfbdefbfbd")
	f("e1a0", "efbfbd")
	f("e18041", "efbfbd41")
	f("ed80", "efbfbd")
	f("eda080", "efbfbd") // an encoded surrogate is one
	f("edbfbf", "efbfbd")
	f("f0904141", "efbfbd4141")
	f("f0908041", "efbfbd41")
	f("f08080", "efbfbdefbfbdefbfbd")
	f("f490", "efbfbdefbfbd")
	f("f48f41", "efbfbd41")
	f("f4908080", "efbfbdefbfbdefbfbdefbfbd")
	f("f5808080", "efbfbdefbfbdefbfbdefbfbd")
}

func FuzzDecodeAsJava(f *testing.F) {
	f.Add([]byte("hadoop\n"))
	f.Add([]byte{0xed, 0xa0, 0x80, 0xff, 0xf0, 0x9f})
	f.Fuzz(func(t *testing.T, b []byte) {
		out := decodeAsJava(b)
		if again := decodeAsJava(out); string(again) != string(out) {
			t.Errorf("%x became %x, which is not text", b, out)
		}
		if text := strings.ToValidUTF8(string(b), ""); text == string(b) && string(out) != text {
			t.Errorf("text %q was changed to %q", b, out)
		}
	})
}
