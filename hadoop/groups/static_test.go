package groups

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestStaticAsInJava compares our tables with those of Hadoop's own class.
func TestStaticAsInJava(t *testing.T) {
	text, err := os.ReadFile("testdata/static.txt")
	if err != nil {
		t.Fatal(err)
	}
	cases := 0
	for n, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		cases++
		value, want, _ := strings.Cut(line, "\t")
		properties := map[string]string{classProperty: classNull}
		if value != "unset" {
			properties[staticProperty] = strings.ReplaceAll(value[1:len(value)-1], `\n`, "\n")
		}
		if got := tableFor(properties); got != want {
			t.Errorf("static.txt:%d: %s: got %s, Java says %s", n+1, value, got, want)
		}
	}
	if cases != 30 {
		t.Errorf("%d cases: the file is not the one this test was written for", cases)
	}
}

// tableFor writes the static table as Observe.java does.
func tableFor(properties map[string]string) string {
	c, err := New(configured(properties))
	if err != nil {
		return "error"
	}
	var all strings.Builder
	for _, user := range slices.Sorted(maps.Keys(c.static)) {
		all.WriteString("{" + user + "}")
		for _, group := range c.static[user] {
			all.WriteString("[" + group + "]")
		}
	}
	if all.Len() == 0 {
		return "none"
	}
	return strings.ReplaceAll(all.String(), "\n", `\n`)
}

func TestStaticWarnings(t *testing.T) {
	f := func(value string, want ...string) {
		t.Helper()
		c, err := New(configured(map[string]string{classProperty: classNull, staticProperty: value}))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, w := range c.Warnings() {
			_, name, _ := strings.Cut(w.Text, `"`)
			name, _, _ = strings.Cut(name, `"`)
			got = append(got, name)
			if w.Name != staticProperty {
				t.Errorf("warning about %s", w.Name)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: warnings about %q, want %q", value, got, want)
		}
	}
	f("dr.who=;")
	f("a=x y;b=z;\n")
	f("a=x, y;\n b=z", `\n b`, " y")
}

// FuzzStatic compares parseStatic with a reader that goes byte by byte.
func FuzzStatic(f *testing.F) {
	for _, seed := range []string{"dr.who=;", "a=x,y;b=;c", "=g", "a==b", "a=b=c", "a=,", ";=", "a=x;a=y", " a = b , c "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseStatic(text)
		want, ok := slowStatic(text)
		if (err == nil) != ok {
			t.Fatalf("%q: error %v, want one: %v", text, err, !ok)
		}
		if !maps.EqualFunc(got, want, slices.Equal) {
			t.Fatalf("%q: %q, want %q", text, got, want)
		}
	})
}

func slowStatic(text string) (map[string][]string, bool) {
	table := map[string][]string{}
	for _, entry := range slowTokens(text, ';') {
		fields := slowTokens(entry, '=')
		switch len(fields) {
		case 1:
			table[fields[0]] = nil
		case 2:
			var groups []string
			for _, group := range slowTokens(fields[1], ',') {
				if !slices.Contains(groups, group) {
					groups = append(groups, group)
				}
			}
			table[fields[0]] = groups
		default:
			return nil, false
		}
	}
	return table, true
}

func slowTokens(text string, delimiter byte) []string {
	var all []string
	piece := ""
	for i := range len(text) {
		if text[i] != delimiter {
			piece += text[i : i+1]
		}
		if piece != "" && (text[i] == delimiter || i == len(text)-1) {
			all = append(all, piece)
			piece = ""
		}
	}
	return all
}
