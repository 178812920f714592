package conf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// noEnv is an empty environment.
func noEnv(string) (string, bool) { return "", false }

// stricter holds the answers in which we differ from Java on purpose.
var stricter = map[string]string{
	"base.xml\tbool\ti.word": "error", // Java logs that "ten" is no boolean and takes the default
}

// TestObservedInJava compares every answer in cases.txt, which Hadoop's own
// class gave, with ours.
func TestObservedInJava(t *testing.T) {
	text, err := os.ReadFile("testdata/observed/cases.txt")
	if err != nil {
		t.Fatal(err)
	}
	cases, differing := 0, 0
	for n, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		cases++
		field := strings.Split(line, "\t")
		question, want := strings.Join(field[:3], "\t"), field[3]
		if ours, ok := stricter[question]; ok {
			differing++
			want = ours
		}
		if got := answer(field[0], field[1], field[2]); got != want {
			t.Errorf("cases.txt:%d: %s: got %s, Java says %s", n+1, question, got, want)
		}
	}
	if cases < 150 || differing != len(stricter) {
		t.Errorf("%d cases, %d of them stricter than Java: the file is not the one this test was written for", cases, differing)
	}
}

func answer(files, getter, name string) string {
	env := map[string]string{"CONF_SET": "set", "CONF_EMPTY": ""}
	c := New(func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		map[string]string{"user.home": "/home/u", "user.name": "u"})
	for file := range strings.SplitSeq(files, ",") {
		if err := c.LoadFile(filepath.Join("testdata/observed", file)); err != nil {
			return "error"
		}
	}
	result, err := ask(c, getter, name)
	if err != nil {
		return "error"
	}
	return result
}

func ask(c *Configuration, getter, name string) (string, error) {
	switch getter {
	case "get", "string":
		value, ok, err := c.Get(name)
		if err != nil || !ok {
			return "unset", err
		}
		if getter == "string" {
			value, err = c.String(name, "")
		}
		return strconv.Quote(value), err
	case "raw":
		p, ok := c.Lookup(name)
		if !ok {
			return "unset", nil
		}
		return strconv.Quote(p.Raw), nil
	case "int":
		n, err := c.Int(name, -999)
		return strconv.Itoa(n), err
	case "int64":
		n, err := c.Int64(name, -999)
		return strconv.FormatInt(n, 10), err
	case "bool":
		b, err := c.Bool(name, true)
		return strconv.FormatBool(b), err
	case "float":
		f, err := c.Float(name, -999)
		text := strconv.FormatFloat(f, 'f', -1, 64)
		if !strings.Contains(text, ".") {
			text += ".0"
		}
		return text, err
	case "duration":
		d, err := c.Duration(name, -999*time.Millisecond, time.Millisecond)
		return fmt.Sprintf("%dms", d.Milliseconds()), err
	case "strings":
		list, err := c.Strings(name)
		for i := range list {
			list[i] = strconv.Quote(list[i])
		}
		return strings.Join(list, " "), err
	}
	return "", fmt.Errorf("unknown getter %s", getter)
}

// write puts files into a new folder, whose path it returns.
func write(t testing.TB, files map[string]string) string {
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func property(name, value string) string {
	return "<property><name>" + name + "</name><value>" + value + "</value></property>"
}

func TestDefaultsAndOverrides(t *testing.T) {
	dir := write(t, map[string]string{"a.xml": `<configuration>
<property><name>set</name><value>file</value></property>
<property><name>fixed</name><value>file</value><final>true</final></property>
</configuration>`})
	c := New(noEnv, nil)
	if err := c.LoadFile(filepath.Join(dir, "a.xml")); err != nil {
		t.Fatal(err)
	}
	c.SetDefaults(map[string]string{"set": "default", "unset": "default"})
	c.Override("fixed", "forced", "environment variable X")

	f := func(name, raw, source string) {
		t.Helper()
		p, ok := c.Lookup(name)
		if !ok || p.Raw != raw || p.Source.String() != source {
			t.Errorf("%s: %+v, want %q from %s", name, p, raw, source)
		}
	}
	f("set", "file", filepath.Join(dir, "a.xml:2"))
	f("unset", "default", "default")
	f("fixed", "forced", "environment variable X")
	if got := c.WithPrefix("un"); len(got) != 1 || got[0].Name != "unset" {
		t.Errorf("WithPrefix: %v", got)
	}
}

func TestWarnings(t *testing.T) {
	dir := write(t, map[string]string{
		"a.xml": "<configuration>\n<property name='f' value='1' final='true'/>\n<property/></configuration>",
		"b.xml": "<configuration>\n" + property("f", "1") + "\n" + property("f", "2") + "\n" + property("fs.default.name", "x") + "</configuration>",
	})
	c := New(noEnv, nil)
	for _, name := range []string{"a.xml", "b.xml"} {
		if err := c.LoadFile(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, w := range c.Warnings() {
		got = append(got, fmt.Sprintf("%s:%d %s: %s", filepath.Base(w.Source.File), w.Source.Line, w.Name, w.Text))
	}
	want := []string{
		"a.xml:3 : a property without a name is ignored",
		"b.xml:3 f: ignored, because " + filepath.Join(dir, "a.xml") + ":2 makes the property final",
		"b.xml:4 fs.default.name: is deprecated: use fs.defaultFS",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestValueErrorNamesFileAndLine(t *testing.T) {
	dir := write(t, map[string]string{"a.xml": "<configuration>\n" + property("port", "96oo") + "\n" + property("loop", "${loop2}") + property("loop2", "${loop}") + "</configuration>"})
	c := New(noEnv, nil)
	if err := c.LoadFile(filepath.Join(dir, "a.xml")); err != nil {
		t.Fatal(err)
	}
	_, err := c.Int("port", 0)
	if want := filepath.Join(dir, "a.xml") + `:2: port: "96oo" is not a whole number`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	var value *ValueError
	if _, err := c.String("loop", ""); !errors.As(err, &value) || value.Property.Source.Line != 3 {
		t.Errorf("a circle of variables: %v", err)
	}
	if _, err := c.Duration("none", time.Second, time.Second); err != nil {
		t.Error(err)
	}
	c.Override("long", "106752d", "test")
	if _, err := c.Duration("long", 0, time.Second); err == nil {
		t.Error("292 years and more are accepted")
	}
	c.Override("nan", "NaN", "test")
	if _, err := c.Float("nan", 0); err == nil {
		t.Error("NaN is accepted")
	}
}

func TestExpansionIsBounded(t *testing.T) {
	c := New(noEnv, nil)
	c.Override("a", strings.Repeat("x", maxExpanded/2), "test")
	c.Override("b", "${a}${a}${a}", "test")
	if _, _, err := c.Get("b"); err == nil {
		t.Error("the value is not refused")
	}
}

func TestRefusedFiles(t *testing.T) {
	const include = `<c xmlns:xi="http://www.w3.org/2001/XInclude">` + "\n" + `<xi:include href="%s"/></c>`
	f := func(text, place, says string) {
		t.Helper()
		dir := write(t, map[string]string{"a.xml": text, "good.xml": "<c/>", "circle.xml": fmt.Sprintf(include, "./sub/../a.xml"), "sub/x": ""})
		c := New(noEnv, nil)
		err := c.LoadFile(filepath.Join(dir, "a.xml"))
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || !strings.Contains(syntax.What, says) || syntax.Remedy == "" {
			t.Errorf("%.80q: error %v does not say %q", text, err, says)
			return
		}
		if got := strings.TrimPrefix(syntax.Source.String(), dir+"/"); got != place {
			t.Errorf("%.80q: at %s, want %s", text, got, place)
		}
		if len(c.WithPrefix("")) != 0 {
			t.Errorf("%.80q: half of a broken file was taken", text)
		}
	}
	f("", "a.xml:1", "holds no XML element")
	f("  \n<!-- only this -->", "a.xml:2", "holds no XML element")
	f("<c>\n"+property("a", "1")+"\n</d>", "a.xml:3", "not well-formed")
	f("<c>\n"+property("a", "1"), "a.xml:2", "not well-formed")
	f("<c>\n<x>&undefined;</x></c>", "a.xml:2", "not well-formed")
	f("<!DOCTYPE c [<!ENTITY e 'x'>]>\n<c>&e;</c>", "a.xml:2", "not well-formed")
	f("<c>\xff\xfe</c>", "a.xml:1", "not well-formed")
	f(`<?xml version="1.0" encoding="UTF-16"?><c/>`, "a.xml:1", "not readable as XML")
	f("<c/>\n<c/>", "a.xml:2", "second document")
	f("<c/>\ntext", "a.xml:2", "text stands outside")
	f(strings.Repeat("<c>", maxNesting+1)+strings.Repeat("</c>", maxNesting+1), "a.xml:1", "nested deeper")
	f("<c>"+strings.Repeat(" ", maxFile), "a.xml", "larger than")
	f("<c>"+strings.Repeat("<property/>", maxItems+1)+"</c>", "a.xml:1", "more than 65536 properties")
	f(fmt.Sprintf(include, "a.xml"), "a.xml:2", "includes itself")
	f(fmt.Sprintf(include, "circle.xml"), "circle.xml:2", "includes itself")
	f(fmt.Sprintf(include, "http://example.com/a.xml"), "a.xml:2", "only local files")
	f(fmt.Sprintf(include, "file://host/a.xml"), "a.xml:2", "only local files")
	f(fmt.Sprintf(include, "jar:file:/a.jar!/b.xml"), "a.xml:2", "only local files")
	f(fmt.Sprintf(include, ""), "a.xml:2", "names no file")
	f(fmt.Sprintf(include, "none.xml"), "a.xml:2", "does not exist")
	f(fmt.Sprintf(include, "sub"), "sub", "not a regular file")
	f("<c>"+strings.Repeat(`<include href="good.xml"/>`, maxIncludes+1)+"</c>", "a.xml:1", "files are included")
	f("<c><include href='none.xml'><fallback><include href='none.xml'/></fallback></include></c>", "a.xml:1", "does not exist")
}

func TestInclusionDepthIsBounded(t *testing.T) {
	files := map[string]string{}
	for i := range maxDepth + 1 {
		files[fmt.Sprintf("%d.xml", i)] = fmt.Sprintf(`<c><include href="%d.xml"/></c>`, i+1)
	}
	dir := write(t, files)
	err := New(noEnv, nil).LoadFile(filepath.Join(dir, "0.xml"))
	if err == nil || !strings.Contains(err.Error(), "deep") {
		t.Errorf("%d files within each other: %v", maxDepth+1, err)
	}
}

func TestIncludeByFileURL(t *testing.T) {
	dir := write(t, map[string]string{"b.xml": "<c>" + property("b", "1") + "</c>"})
	main := filepath.Join(dir, "a.xml")
	if err := os.WriteFile(main, []byte(`<c><include href="file://`+dir+`/b.xml"/></c>`), 0o600); err != nil {
		t.Fatal(err)
	}
	c := New(noEnv, nil)
	if err := c.LoadFile(main); err != nil {
		t.Fatal(err)
	}
	if p, _ := c.Lookup("b"); p.Source.String() != filepath.Join(dir, "b.xml:1") {
		t.Errorf("the included property comes from %s", p.Source)
	}
}

func TestMissingFile(t *testing.T) {
	err := New(noEnv, nil).LoadFile(filepath.Join(t.TempDir(), "none.xml"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// FuzzDocument reads arbitrary text as a file and expands whatever it holds.
func FuzzDocument(f *testing.F) {
	seeds, err := filepath.Glob("testdata/observed/*.xml")
	if err != nil || len(seeds) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, seed := range seeds {
		text, err := os.ReadFile(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p := &parser{folder: "/nonexistent"}
		if err := p.document("/nonexistent/fuzz.xml", text); err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || syntax.What == "" || syntax.Remedy == "" {
				t.Fatalf("error without place or remedy: %v", err)
			}
			return
		}
		c := New(noEnv, map[string]string{"user.home": "/home/u"})
		c.add(p.items)
		for _, property := range c.WithPrefix("") {
			value, _, err := c.Get(property.Name)
			if err == nil && len(value) > maxExpanded+len(property.Raw) {
				t.Errorf("%s expands to %d bytes", property.Name, len(value))
			}
			if _, err := c.Strings(property.Name); err != nil && !errors.As(err, new(*ValueError)) {
				t.Error(err)
			}
		}
	})
}

func TestUnused(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first.xml"), filepath.Join(dir, "second.xml")
	for path, text := range map[string]string{
		first: `<configuration><property><name>a</name><value>1</value></property>
<property><name>b</name><value></value></property>
<property><name>a</name><value>2</value></property>
<property><name>c</name><value>1</value><final>true</final></property>
<property><name>c</name><value>2</value></property></configuration>`,
		second: `<configuration><property><name>a</name><value>3</value></property></configuration>`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := New(noEnv, nil)
	for _, path := range []string{first, second} {
		if err := c.LoadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	want := []Unused{{Property: Property{Name: "b", Source: Source{first, 2}}}, {Property{"a", "1", Source{first, 1}}, Source{first, 3}}}
	if got := c.Unused(); len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %v, want %v", got, want)
	}
}
