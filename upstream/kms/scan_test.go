package kms

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// answers of a Java KMS, and what is nearly one.
var scanned = []string{
	`[ {` + "\n" + `  "versionName" : "k@0",` + "\n" + `  "iv" : ` + iv16 + `,` + "\n" + `  "encryptedKeyVersion" : {` + "\n" + `    "material" : ` + dek + `,` + "\n" +
		`    "name" : "k",` + "\n" + `    "versionName" : "EEK"` + "\n" + `  }` + "\n" + `} ]`,
	`[ {"encryptedKeyVersion":{"material":"","name":null,"versionName":"EEK"},"versionName":"k@0","iv":""}, {"versionName":null} ]`,
	`[{"iv":"aaaa","versionName":"k@0","encryptedKeyVersion":{"material":"bbbb","name":"k"}},{"iv":"cc\"c","versionName":"k@0","encryptedKeyVersion":{"material":"dddd","name":"k"}}]`,
	`[{"encryptedKeyVersion":{"material":"bbbb","name":"k"},"iv":"aaaa"},{"encryptedKeyVersion":{"material":"dddd","name":"k"},"iv":"cccc"} , {"encryptedKeyVersion":{"material":"dd\ndd","name":"k"},"iv":"c"}]`,
	`[ ]`, `[`, `[ {} ]`, `[ {}, ]`, `[,]`, `[ {} ] x`, `[ {"a":1} ]`, `[ {"iv":"a","iv":"b"} ]`, `[ {"IV":"a"} ]`, `[ {"iv":"\u0061"} ]`, `[ {"iv":"é"} ]`,
	"[ {\"iv\":\"\xff\"} ]", "[ {\"iv\":\"\x01\"} ]", `[ {"iv":nul} ]`, `[ {"iv":nullx} ]`, `[ {"encryptedKeyVersion":null} ]`, `null`, `{"material":"AAAA","name":"k","versionName":"EK"}`,
	`{ }`, `{"material":null}`, `{"material":"\/"}`, `{"material":7}`, `{"name":"k","name":"l"}`, `{"name":"k" "versionName":"x"}`, `{"name":"k",}`, `[ null ]`, ``, ` `,
}

func sameKey(t *testing.T, what string, fast, slow wireKey) {
	t.Helper()
	for _, pair := range [][2][]byte{{fast.material, slow.material}, {fast.name, slow.name}, {fast.version, slow.version}} {
		if !bytes.Equal(pair[0], pair[1]) || (pair[0] == nil) != (pair[1] == nil) {
			t.Errorf("%s: scanned %q, decoded %q", what, pair[0], pair[1])
		}
	}
}

func sameEDEK(t *testing.T, what string, fast, slow wireEDEK) {
	t.Helper()
	sameKey(t, what, fast.wrapped, slow.wrapped)
	sameKey(t, what, wireKey{fast.iv, fast.version, nil}, wireKey{slow.iv, slow.version, nil})
}

// What the scanner accepts, encoding/json accepts and reads the same.
func FuzzScan(f *testing.F) {
	for _, s := range scanned {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		what := fmt.Sprintf("%q", body)
		if fast, ok := scanEDEKs(body, 1000); ok {
			var slow []jsonEDEK
			if err := json.Unmarshal(body, &slow); err != nil || len(slow) != len(fast) {
				t.Fatalf("%s: %d scanned, %d decoded, %v", what, len(fast), len(slow), err)
			}
			for i := range fast {
				sameEDEK(t, what, fast[i], slow[i].wire())
			}
		}
		if fast, ok := scanEDEK(body); ok {
			var slow jsonEDEK
			if err := json.Unmarshal(body, &slow); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			sameEDEK(t, what, fast, slow.wire())
		}
		if fast, ok := scanKey(body); ok {
			var slow jsonKey
			if err := json.Unmarshal(body, &slow); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			sameKey(t, what, fast, slow.wire())
		}
		// None of these may do more than refuse.
		if wire, err := readEDEKs(body, 10); err == nil {
			for i := range wire {
				(&checker{name: "k"}).check(&wire[i])
			}
		}
		readKey(body)
		readMetadata(body, "k")
		remoteException(body)
		isEmpty(body)
	})
}

// The scanner is there to be used: what servers really send must not fall back.
func TestScannerTakesWhatServersSend(t *testing.T) {
	if all, ok := scanEDEKs([]byte(scanned[0]), 1); !ok || string(all[0].version) != "k@0" || string(all[0].wrapped.name) != "k" {
		t.Errorf("%v %v", all, ok)
	}
	if all, ok := scanEDEKs([]byte(scanned[1]), 2); !ok || all[0].wrapped.name != nil || all[0].wrapped.material == nil {
		t.Errorf("%v %v", all, ok)
	}
	if _, ok := scanEDEKs([]byte(scanned[1]), 1); ok {
		t.Error("more EDEKs than asked for are scanned")
	}
	if k, ok := scanKey([]byte(`{ "material" : "AAAA", "name" : "k", "versionName" : "EK" }`)); !ok || string(k.material) != "AAAA" {
		t.Errorf("%v %v", k, ok)
	}
	// Escapes and letters beyond ASCII are encoding/json's.
	if k, err := readKey([]byte(`{"material":"A\u0041","name":"schlüssel","versionName":"\"\n"}`)); err != nil || string(k.material) != "AA" || string(k.name) != "schlüssel" || string(k.version) != "\"\n" {
		t.Errorf("%q %v", k, err)
	}
}

func BenchmarkReadEDEKs(b *testing.B) {
	one := strings.Trim(scanned[0], "[ ]")
	body := []byte("[ " + one + strings.Repeat(", "+one, 499) + " ]")
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		all, err := readEDEKs(body, 500)
		if err != nil {
			b.Fatal(err)
		}
		key := checker{name: "k"}
		for i := range all {
			if _, err := key.check(&all[i]); err != nil {
				b.Fatal(err)
			}
		}
	}
}
