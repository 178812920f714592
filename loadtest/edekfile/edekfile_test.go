package edekfile

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	all, err := Parse(strings.NewReader(
		`{"key":"zone","version":"zone@0","iv":"AAECAwQFBgcICQoLDA0ODw==","material":"+/+/"}` + "\n\n" +
			` {"material":"-_-_","iv":"AAECAwQFBgcICQoLDA0ODw","version":"a@b@12","key":"a@b"}` + "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	iv := []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	want := []EDEK{{"zone", "zone@0", iv, []byte{0xfb, 0xff, 0xbf}}, {"a@b", "a@b@12", iv, []byte{0xfb, 0xff, 0xbf}}}
	if !reflect.DeepEqual(all, want) {
		t.Errorf("%+v", all)
	}
}

func TestRefused(t *testing.T) {
	const good = `{"key":"k","version":"k@0","iv":"AAECAwQFBgcICQoLDA0ODw","material":"AAAA"}` + "\n"
	f := func(text, why string) {
		t.Helper()
		if all, err := Parse(strings.NewReader(text)); err == nil {
			t.Errorf("%.80q is taken for %+v", text, all)
		} else if !strings.HasPrefix(err.Error(), why) {
			t.Errorf("%.80q: %v, want %q", text, err, why)
		}
	}
	f("", "0: no encrypted key")
	f("\n\n", "2: no encrypted key")
	f(good+"nonsense", "2: no JSON object")
	f(good+good[:len(good)-1]+"{}", "2: more than one")
	f(strings.Replace(good, `"iv"`, `"IVs"`, 1), "1: no JSON object")
	f(strings.Replace(good, "k@0", "k", 1), "1: version")
	f(strings.Replace(good, "k@0", "j@0", 1), "1: version")
	f(strings.Replace(good, `"key":"k"`, `"key":""`, 1), "1: version")
	f(strings.Replace(good, "AAEC", "", 1), "1: iv")
	f(strings.Replace(good, "AAEC", "*AEC", 1), "1: iv")
	f(strings.Replace(good, "AAAA", "", 1), "1: material")
	f(strings.Replace(good, "AAAA", `AA\nAA`, 1), "1: material")
	f(strings.Replace(good, "AAAA", strings.Repeat("AAAA", 342), 1), "1: material")
	f(good+strings.Repeat("x", maxLine+1), "2: ")
	if _, err := Read(t.TempDir() + "/none"); err == nil {
		t.Error("a file that does not exist was read")
	}
}

// FuzzParse: what is read can be written, and reads the same again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"key":"k","version":"k@0","iv":"AAECAwQFBgcICQoLDA0ODw","material":"AAAA"}`))
	f.Add([]byte(`{"key":"a/b@c","version":"a/b@c@7","iv":"AAECAwQFBgcICQoLDA0ODw==","material":"+/8="}` + "\n\n{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := Parse(bytes.NewReader(text))
		if err != nil {
			return
		}
		var written []byte
		for i := range all {
			e := &all[i]
			line, err := json.Marshal(map[string]string{"key": e.Key, "version": e.Version,
				"iv": base64.StdEncoding.EncodeToString(e.IV), "material": base64.RawURLEncoding.EncodeToString(e.Material)})
			if err != nil {
				t.Fatal(err)
			}
			written = append(append(written, line...), '\n')
		}
		again, err := Parse(bytes.NewReader(written))
		if err != nil || !reflect.DeepEqual(again, all) {
			t.Errorf("%q was read as %+v, and after writing as %+v (%v)", text, all, again, err)
		}
	})
}
