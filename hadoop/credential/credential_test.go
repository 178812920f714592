package credential_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edekd/edekd/hadoop/conf"
	"github.com/edekd/edekd/hadoop/credential"
	"github.com/edekd/edekd/interop"
)

// write writes an XML file of the given lines "name value" and returns its path.
func write(t testing.TB, lines ...string) string {
	t.Helper()
	var text strings.Builder
	text.WriteString("<configuration>\n")
	for _, line := range lines {
		name, value, _ := strings.Cut(line, "=")
		text.WriteString("<property><name>" + name + "</name><value>" + value + "</value></property>\n")
	}
	text.WriteString("</configuration>\n")
	path := filepath.Join(t.TempDir(), "core-site.xml")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t testing.TB, path string) *conf.Configuration {
	t.Helper()
	c := conf.New(os.LookupEnv, nil)
	if err := c.LoadFile(path); err != nil {
		t.Fatal(err)
	}
	return c
}

// answer words what Password returns.
func answer(t testing.TB, c *conf.Configuration, alias string) string {
	t.Helper()
	value, found, err := credential.Password(c, alias)
	switch {
	case err != nil:
		return "failed"
	case !found:
		return "none"
	}
	return "[" + string(value) + "]"
}

// TestAnswersAreHadoops puts every question to Configuration.getPassword as
// well, over stores that CredentialShell made.
func TestAnswersAreHadoops(t *testing.T) {
	interop.EachHadoop(t, func(t *testing.T, hadoop string) {
		t.Setenv(credential.PasswordEnv, "correct horse")
		dir := t.TempDir()
		first, second := filepath.Join(dir, "first.jceks"), filepath.Join(dir, "second.jceks")
		args := []string{"testdata/GetPassword.java",
			"create", "jceks://file@" + first, "ssl.server.keystore.password", "päßword 1",
			"create", "jceks://file@" + first, "Mixed.Case", "mixed",
			"create", "localjceks://file" + second, "ssl.server.keystore.password", "second",
			"create", "localjceks://file" + second, "only.second", "2",
		}
		type question struct{ path, alias, want string }
		var questions []question
		f := func(path string, alias, want string) {
			args = append(args, "get", path, alias)
			questions = append(questions, question{path, alias, want})
		}
		const provider = credential.ProviderPath + "="
		one := write(t, provider+"jceks://file@"+first, "ssl.server.keystore.password=clear", "other=  clear ${x}  ", "x=y", "MIXED.case=clear", "empty=")
		f(one, "ssl.server.keystore.password", "[päßword 1]")
		f(one, "mixed.case", "[mixed]")
		f(one, "MIXED.case", "[mixed]")
		f(one, "other", "[  clear y  ]")
		f(one, "empty", "none")
		f(one, "missing", "none")
		both := write(t, provider+"user:///,jceks://file@"+dir+"/nowhere.jceks,localjceks://file"+second+",jceks://file"+first, credential.ClearTextFallback+"=false", "other=clear")
		f(both, "ssl.server.keystore.password", "[second]")
		f(both, "only.second", "[2]")
		f(both, "mixed.case", "[mixed]")
		f(both, "other", "none")
		clear := write(t, "ssl.server.keystore.password=clear")
		f(clear, "ssl.server.keystore.password", "[clear]")
		closed := write(t, "ssl.server.keystore.password=clear", credential.ClearTextFallback+"=false")
		f(closed, "ssl.server.keystore.password", "none")
		unknown := write(t, provider+"nonsense://file@"+first, "ssl.server.keystore.password=clear")
		f(unknown, "ssl.server.keystore.password", "failed")
		broken := filepath.Join(dir, "broken.jceks")
		if err := os.WriteFile(broken, []byte("\xce\xce\xce\xce\x00\x00"), 0o600); err != nil {
			t.Fatal(err)
		}
		f(write(t, provider+"jceks://file@"+broken, "other=clear"), "other", "failed")

		out, err := interop.Java(t, hadoop, args...).Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		var theirs []string
		for line := range strings.Lines(string(out)) {
			if text, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "answer "); ok {
				theirs = append(theirs, text)
			}
		}
		if len(theirs) != len(questions) {
			t.Fatalf("%d answers to %d questions:\n%s", len(theirs), len(questions), out)
		}
		for i, q := range questions {
			if ours := answer(t, load(t, q.path), q.alias); ours != q.want || theirs[i] != q.want {
				t.Errorf("%s: we say %s, Hadoop says %s, want %s", q.alias, ours, theirs[i], q.want)
			}
		}
	})
}

// The store was made by CredentialShell, see testdata/README.md.
func golden(t testing.TB) string {
	t.Helper()
	content, err := os.ReadFile("testdata/none.jceks")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "none.jceks")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func unsetenv(t testing.TB) {
	t.Helper()
	t.Setenv(credential.PasswordEnv, "") // so that it is restored
	if err := os.Unsetenv(credential.PasswordEnv); err != nil {
		t.Fatal(err)
	}
}

func TestPasswordOfTheStore(t *testing.T) {
	store := golden(t)
	c := func(lines ...string) *conf.Configuration {
		return load(t, write(t, append(lines, credential.ProviderPath+"=jceks://file@"+store)...))
	}
	unsetenv(t)
	if got := answer(t, c(), "bind"); got != "[secret]" {
		t.Errorf("by default: %s", got)
	}
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(" none\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := answer(t, c(credential.PasswordFile+"="+file), "bind"); got != "[secret]" {
		t.Errorf("by a file: %s", got)
	}
	relative := c(credential.PasswordFile + "=words/password")
	words := filepath.Join(filepath.Dir(relative.Files()[0]), "words")
	if err := os.Mkdir(words, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := answer(t, relative, "bind"); got != "failed" {
		t.Errorf("by a file that is missing: %s", got)
	}
	if err := os.WriteFile(filepath.Join(words, "password"), []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := answer(t, relative, "bind"); got != "[secret]" {
		t.Errorf("by a file in the configuration folder: %s", got)
	}
	if got := credential.Files(relative); len(got) != 2 || got[0] != store || got[1] != filepath.Join(words, "password") {
		t.Errorf("files %v", got)
	}
	t.Setenv(credential.PasswordEnv, "wrong")
	if got := answer(t, c(credential.PasswordFile+"="+file), "bind"); got != "failed" {
		t.Errorf("the environment comes first: %s", got)
	}
}

func TestRefusals(t *testing.T) {
	unsetenv(t)
	f := func(want, property string, lines ...string) {
		t.Helper()
		path := write(t, lines...)
		_, _, err := credential.Password(load(t, path), "bind")
		e := (*credential.Error)(nil)
		if !errors.As(err, &e) {
			t.Fatalf("%v: %v", lines, err)
		}
		if !strings.Contains(err.Error(), want) || e.Property != property || e.Source.File != path || e.Remedy == "" || e.Alias != "bind" {
			t.Errorf("%v: %v, want %q for %s", lines, err, want, property)
		}
	}
	const provider = credential.ProviderPath + "="
	store := golden(t)
	f("which only Java can read", credential.ProviderPath, provider+"bcfks://file@/x")
	f("does not know", credential.ProviderPath, provider+"nonsense")
	f("only local files", credential.ProviderPath, provider+"jceks://hdfs@nn/x")
	f("is not a file", credential.ProviderPath, provider+"jceks://file@"+t.TempDir())
	f("no such file", credential.PasswordFile, provider+"jceks://file@"+store, credential.PasswordFile+"=/nowhere")
	if err := os.Truncate(store, 100); err != nil {
		t.Fatal(err)
	}
	f("not an intact JCEKS keystore", credential.ProviderPath, provider+"jceks://file@"+store)
	t.Setenv(credential.PasswordEnv, "wrong")
	f("set the environment variable "+credential.PasswordEnv, credential.ProviderPath, provider+"jceks://file@"+golden(t))
	t.Setenv(credential.PasswordEnv, "pässword")
	f("printable ASCII", credential.PasswordFile, provider+"jceks://file@"+golden(t), credential.PasswordFile+"=/nowhere")
	if value, found, err := credential.Password(load(t, write(t, credential.ClearTextFallback+"=maybe")), "bind"); err == nil {
		t.Errorf("neither true nor false: %q, %t", value, found)
	}
}
