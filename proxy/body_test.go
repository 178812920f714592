package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/edekd/edekd/edek"
)

func TestParseDecryptBody(t *testing.T) {
	f := func(body string, want string) {
		t.Helper()
		d, err := parseDecryptBody([]byte(body))
		got := fmt.Sprintf("%q %q %q", show(d.name), show(d.iv), show(d.material))
		if err != nil {
			got = edek.KindOf(err).String()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
	f(`{"name":"k","iv":"aXY","material":"bQ"}`, `"k" "iv" "m"`)
	f("{\n  \"name\" : \"k\",\n  \"iv\" : \"aXY=\",\n  \"material\" : \"bQ==\"\n}", `"k" "iv" "m"`)
	f("\xef\xbb\xbf"+`{"name":"k"}`, `"k" "absent" "absent"`)
	f(`{}`, `"absent" "absent" "absent"`)
	f(` { } `, `"absent" "absent" "absent"`)
	f(`{"name":"","iv":"","material":""}`, `"" "" ""`)
	f(`{"name":null,"iv":null,"material":null}`, `"absent" "absent" "absent"`)
	f(`{"name":"a","name":"b"}`, `"b" "absent" "absent"`)
	f(`{"iv":"QQ","iv":null}`, `"absent" "absent" "absent"`)
	f(`{"Name":"a","NAME":"b"}`, `"absent" "absent" "absent"`)
	f(`{"name":"\u006b\/\n\ud83d\ude00\ud83d"}`, `"k/\n😀�" "absent" "absent"`)
	f(`{"n\u0061me":"k"}`, `"k" "absent" "absent"`)
	f(`{"name":"é"}`, `"é" "absent" "absent"`)
	f(`{"other":{"name":"x","deep":[[["{"]]]},"name":"k","number":1e999}`, `"k" "absent" "absent"`)
	f(`{"name":"k"} trailing {`, `"k" "absent" "absent"`)
	f(`{"name":"k"}}`, `"k" "absent" "absent"`)
	f(`{"iv":"!a X+Y=="}`, `"absent" "i\x7f\x98" "absent"`)
	for _, malformed := range []string{"", " \n", "{", `{"name`, `{"name":`, `{"name":"k"`, `{"name":"k",}`, `{name:"k"}`, `{'name':'k'}`,
		`{"name":"a` + "\n" + `"}`, `{"name":"\x"}`, `{"name":"\u12"}`, `{"name" "k"}`, `{"name":"` + "\xff" + `"}`, `[]`, `"x"`, `1`, `true`, `null`, `nul`,
		`{"a":tru}`, `{]`, `{"a":01}`, strings.Repeat(`{"a":`, 20_000), strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000)} {
		f(malformed, "malformed")
	}
	for _, wrong := range []string{`{"name":1}`, `{"name":true}`, `{"name":[]}`, `{"name":{}}`, `{"iv":1.5}`, `{"material":["a"]}`} {
		f(wrong, "wrong type")
	}
}

func show(b []byte) string {
	if b == nil {
		return "absent"
	}
	return string(b)
}

func TestParseBatch(t *testing.T) {
	f := func(body string, limit int, want string) {
		t.Helper()
		entries, err := parseBatch(nil, []byte(body), limit)
		var got strings.Builder
		for _, e := range entries {
			fmt.Fprintf(&got, "%t %s %s %t %s %s;", e.present, show(e.versionName), show(e.iv), e.hasInner, show(e.innerVersion), show(e.wrapped))
		}
		if err != nil {
			got.WriteString(edek.KindOf(err).String())
		}
		if got.String() != want {
			t.Errorf("%s: %s, want %s", body, got.String(), want)
		}
	}
	plain := `{"versionName":"k@0","iv":"aXY","encryptedKeyVersion":{"versionName":"EEK","material":"bQ","name":"k"}}`
	parsed := "true k@0 iv true EEK m;"
	f("[]", 1, "")
	f(" [ ] ", 0, "")
	f("["+plain+"]", 1, parsed)
	f("["+plain+",\n"+plain+"] x", 2, parsed+parsed)
	f("["+plain+","+plain+"]", 1, "invalid")
	f("["+plain+"]", 0, "invalid")
	f("[null,"+plain+"]", 2, "false absent absent false absent absent;"+parsed)
	f(`[{}]`, 1, "true absent absent false absent absent;")
	f(`[{"encryptedKeyVersion":null}]`, 1, "true absent absent false absent absent;")
	f(`[{"encryptedKeyVersion":{}}]`, 1, "true absent absent true absent absent;")
	f(`[{"encryptedKeyVersion":{"material":"QQ"},"encryptedKeyVersion":{"versionName":"E"}}]`, 1, "true absent absent true E absent;")
	f("null", 1, "kind 0") // an answer of its own: Parameter 'jsonPayload' cannot be null
	f(`[{"iv":"QQ","iv":"Qg"}]`, 1, "true absent B false absent absent;")
	for _, malformed := range []string{"", "[", "[{}", "[{},", "[{},]", "[,]", "{}", `"x"`, "1", "[{}{}]", "[{\"a\":}]", strings.Repeat("[", 20_000)} {
		f(malformed, 10, "malformed")
	}
	for _, wrong := range []string{"[1]", `["x"]`, "[[]]", `[{"encryptedKeyVersion":1}]`, `[{"encryptedKeyVersion":"x"}]`, `[{"encryptedKeyVersion":[]}]`,
		`[{"iv":1}]`, `[{"versionName":{}}]`, `[{"encryptedKeyVersion":{"material":false}}]`} {
		f(wrong, 10, "wrong type")
	}
	for _, comma := range []string{"[" + plain + plain + "]", "[ " + plain + " " + plain + "]", "[" + plain + "," + plain + plain + "]", "[" + plain + plain + "," + plain + "]",
		"[" + plain + "," + plain + ",," + plain + "]", "[," + plain + "," + plain + "]"} {
		f(comma, 10, "malformed")
	}
	f("["+plain+",1]", 10, "wrong type") // no entry of a refused batch comes out
}

func TestObjectFields(t *testing.T) {
	f := func(field string, want string) {
		t.Helper()
		o, err := parseObject([]byte(`{"f":` + field + `}`))
		if err != nil {
			t.Fatalf("%s: %v", field, err)
		}
		n, nErr := o.integer("f")
		m, mErr := o.texts("f")
		got := fmt.Sprintf("%d %v %v", n, m, mErr == nil)
		if nErr != nil {
			got = fmt.Sprintf("%v %v %v", edek.KindOf(nErr), m, mErr == nil)
		}
		if mErr != nil && edek.KindOf(mErr) != edek.WrongType {
			t.Errorf("%s: %v", field, mErr)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", field, got, want)
		}
	}
	f("null", "0 map[] true")
	f("128", "128 map[] false")
	f("-1", "-1 map[] false")
	f("2147483647", "2147483647 map[] false")
	f("2147483648", "wrong type map[] false")
	f("-2147483649", "wrong type map[] false")
	f("1.0", "wrong type map[] false")
	f("1e2", "wrong type map[] false")
	f(`"128"`, "wrong type map[] false")
	f("true", "wrong type map[] false")
	f("[]", "wrong type map[] false")
	f("{}", "wrong type map[] true")
	f(`{"a":"b","c":"d"}`, "wrong type map[a:b c:d] true")
	f(`{"a":null}`, "wrong type map[] false")
	f(`{"a":1}`, "wrong type map[] false")
	f(`{"a":{"b":"c"}}`, "wrong type map[] false")
}

func TestMaterialIsClearedInTheObject(t *testing.T) {
	for _, text := range []string{`"c2VjcmV0c2VjcmV0"`, `"c2Vj\u0063mV0c2VjcmV0"`} {
		o, err := parseObject([]byte(`{"material":` + text + `}`))
		if err != nil {
			t.Fatal(err)
		}
		raw := o["material"]
		material, err := o.material()
		if err != nil || string(material) != "secretsecret" {
			t.Fatalf("%s: %q %v", text, material, err)
		}
		o.zero()
		if !bytes.Equal(raw, make([]byte, len(raw))) {
			t.Errorf("left in the object: %q", raw)
		}
	}
}

// slowDecryptBody is parseDecryptBody without the hand scanner.
func slowDecryptBody(body []byte) (d decryptBody, err error) {
	o, err := parseObject(body)
	if err == nil {
		err = errors.Join(o.text("name", &d.name), o.text("iv", &d.iv), o.text("material", &d.material))
	}
	return d, err
}

// What the hand scanner accepts, the slow parser reads the same way.
func FuzzDecryptBody(f *testing.F) {
	for _, seed := range []string{`{"name":"k","iv":"aXY","material":"bQ"}`, "{\n  \"name\" : \"k\",\n  \"iv\" : \"aXY=\"\n}\x00", `{}`, `{"name":"k"`, `{"name":null}`,
		`{"name":"a","name":"b"}`, `{"x":"y","name":"é"}`, `{"name":"a\nb"}`, `{"name":"a` + "\n" + `b"}`, `{"name":1,"iv":{}}`, `{"name":"k"}]]`, `{"n\u0061me":"k"}`,
		"\xef\xbb\xbf{}", `{"iv":"A","material":99999999999999999999}`, `{"name":"k",}`, `{"material":"` + strings.Repeat("A", 300) + `"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		fast, ok := scanDecryptBody(body)
		if !ok {
			if !reflect.DeepEqual(fast, decryptBody{}) {
				t.Fatalf("%q is declined with %q", body, fast)
			}
			parseDecryptBody(bytes.Clone(body))
			return
		}
		slow, err := slowDecryptBody(body)
		if err != nil || !reflect.DeepEqual(fast, slow) {
			t.Fatalf("%q: %q, slowly %q (%v)", body, fast, slow, err)
		}
		decoded, err := parseDecryptBody(bytes.Clone(body))
		if err != nil || fast.iv != nil && !bytes.Equal(decoded.iv, commonsDecode(fast.iv)) || fast.material != nil && !bytes.Equal(decoded.material, commonsDecode(fast.material)) {
			t.Fatalf("%q: %q (%v)", body, decoded, err)
		}
	})
}

// Entries that look like the one before are taken in one step. Any one byte
// that differs or lacks is found.
func TestEntriesAlike(t *testing.T) {
	f := func(entry string) {
		t.Helper()
		body := []byte("[" + entry + ",\n " + entry + ",\n " + entry + " ]")
		entries, ok := scanBatch(nil, bytes.Clone(body), 3)
		if !ok || len(entries) != 3 || !reflect.DeepEqual(entries[1], entries[2]) {
			t.Fatalf("%s: %v %+v", entry, ok, entries)
		}
		for i := range body {
			for _, c := range []byte("\"\\,:{}[] \n\x00\x1f\x7f\x80\xff=aA0-_+/!#") {
				changed := bytes.Clone(body)
				changed[i] = c
				checkScanBatch(t, changed, 3)
			}
			checkScanBatch(t, slices.Delete(bytes.Clone(body), i, i+1), 3)
		}
	}
	f(`{"versionName":"k@0","iv":"aXYaXYaXYaXY","encryptedKeyVersion":{"versionName":"EEK","material":"bQ","name":"k"}}`)
	f(`{ "encryptedKeyVersion":{"material":"bQbQbQbQbQ"} , "iv":"aXY"}`)
	f(`{"iv":"","encryptedKeyVersion":{"material":""}}`)
}

// checkScanBatch compares what the scanner accepts with what encoding/json says.
func checkScanBatch(t *testing.T, body []byte, limit int) {
	t.Helper()
	fast, ok := scanBatch(nil, body, limit)
	slow, err := parseBatchSlowly(nil, body, limit)
	if len(slow) > limit {
		t.Fatalf("%q: %d entries", body, len(slow))
	}
	if ok && (err != nil || len(fast) != len(slow) || len(fast) > 0 && !reflect.DeepEqual(fast, slow)) {
		t.Fatalf("%q: %+v, slowly %+v (%v)", body, fast, slow, err)
	}
}

func FuzzBatchBody(f *testing.F) {
	plain := `{"versionName":"k@0","iv":"aXY","encryptedKeyVersion":{"versionName":"EEK","material":"bQ","name":"k"}}`
	for _, seed := range []string{"[]", "[" + plain + "]", "[ " + plain + ", " + plain + " ]x", "[" + plain, "[null]", "[{}]", `[{"encryptedKeyVersion":{}}]`, `[{"encryptedKeyVersion":1}]`,
		`[{"iv":"a","iv":"b"}]`, `[{"encryptedKeyVersion":{},"encryptedKeyVersion":{}}]`, "[[]]", "{}", "[1e9]", "[{},{},{},{}]", "[{},]"} {
		f.Add([]byte(seed))
	}
	f.Add([]byte("[" + plain + "," + plain + "," + plain + "," + strings.Replace(plain, "aXY", `a"Y`, 1) + "]"))
	f.Add([]byte("[" + plain + "," + plain + "," + plain + "," + plain + "," + plain + "]"))
	f.Fuzz(func(t *testing.T, body []byte) { checkScanBatch(t, body, 5) })
}

// The first value of a body, as json.Decoder reads it.
func FuzzObject(f *testing.F) {
	for _, seed := range []string{`{"a":"b"}`, `{"a":"\ud83d\ude00\ud83d\u0041\\\/\"\b\f\n\r\t"}`, `{"a":"\ud83d\ud83d\ude00"}`, `{"a":"\ud83d\n"}`, `{"a":null}`, `{"a":1} {`, `{]`, `{"a":"}"}`, `{"a":"\"}"}`, `{"a":"\\"}x`, `[1]`, ``, `{"a":-0}`, "\xef\xbb\xbf{}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		o, err := parseObject(body)
		plain := bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
		var want map[string]any
		d := json.NewDecoder(bytes.NewReader(plain))
		d.UseNumber()
		wantErr := d.Decode(&want)
		if wantErr == nil && (want == nil || !utf8.Valid(plain[:d.InputOffset()])) {
			wantErr = errors.New("null, or not UTF-8")
		}
		if err != nil && strings.Contains(err.Error(), "nested") {
			return // Jackson's bound is tighter than encoding/json's
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v, json.Decoder: %v", body, err, wantErr)
		}
		if err != nil {
			if edek.KindOf(err) != edek.Malformed {
				t.Fatalf("%q: %v", body, err)
			}
			return
		}
		if len(o) != len(want) {
			t.Fatalf("%q: %q, want %v", body, o, want)
		}
		for field, value := range want {
			var text []byte
			err := o.text(field, &text)
			switch value := value.(type) {
			case nil:
				if err != nil || text != nil {
					t.Fatalf("%q: %q is %q (%v), not null", body, field, text, err)
				}
			case string:
				if err != nil || text == nil || string(text) != value {
					t.Fatalf("%q: %q is %q (%v), want %q", body, field, text, err, value)
				}
			default:
				if err == nil {
					t.Fatalf("%q: %q is %q, want %v", body, field, text, value)
				}
			}
		}
	})
}
