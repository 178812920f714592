package authn

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

// naive reads a query parameter by the rules and nothing else.
func naive(query, name string, fold bool) (all []parameter) {
	for part := range strings.FieldsFuncSeq(query, func(r rune) bool { return r == '&' || r == ';' }) {
		key, value, valued := strings.Cut(part, "=")
		if decoded := string(decode([]byte(key))); decoded == name || fold && strings.EqualFold(decoded, name) {
			all = append(all, parameter{raw: []byte(value), given: true, bare: !valued})
		}
	}
	return all
}

func FuzzParameters(f *testing.F) {
	for _, seed := range []string{"user.name=a&doAs=b&op=c&delegation=d", "doAs=a;DOAS=b", "do%41s=a&doA%C5%BF=b", "op&op=x;;&&=", "x=%26doAs=y&doAs"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		if !utf8.ValidString(query) {
			return // naive would read it otherwise
		}
		p := parse([]byte(query))
		for name, got := range map[string]parameter{"user.name": p.user, "delegation": p.delegation, "op": p.op, "doAs": p.doAs} {
			all := naive(query, name, name == "doAs")
			if len(all) == 0 {
				if got.given {
					t.Errorf("%q: %s is given as %q", query, name, got.raw)
				}
				continue
			}
			if want := all[0]; !got.given || got.bare != want.bare || !bytes.Equal(got.raw, want.raw) {
				t.Errorf("%q: %s is %+v, want %+v", query, name, got, want)
			}
			if name != "doAs" {
				if again := p.first(name); again.bare != got.bare || !bytes.Equal(again.raw, got.raw) {
					t.Errorf("%q: the first %s is %+v or %+v", query, name, got, again)
				}
				continue
			}
			// Whoever reads another doAs than the first one reads the same user.
			for _, other := range all {
				if !p.disputed && other.value() != got.value() {
					t.Errorf("%q: %q and %q are not disputed", query, got.value(), other.value())
				}
			}
		}
	})
}
