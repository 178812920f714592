package proxy

import (
	"bytes"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

func TestSplitTarget(t *testing.T) {
	f := func(target, path, query string) {
		t.Helper()
		p, q := splitTarget([]byte(target))
		if string(p) != path || string(q) != query {
			t.Errorf("%q: path %q, query %q", target, p, q)
		}
	}
	f("", "", "")
	f("/", "/", "")
	f("/kms/v1/keys", "/kms/v1/keys", "")
	f("/kms/v1/keys?a=b?c", "/kms/v1/keys", "a=b?c")
	f("/kms/v1/keys?", "/kms/v1/keys", "")
	f("/a#b?c=d", "/a", "")
	f("/a?b#c", "/a", "b")
	f("/a%3Fb%23c", "/a%3Fb%23c", "")
	f("http://other:1/kms/v1/keys?x", "/kms/v1/keys", "x")
	f("HTTPS://other/", "/", "")
	f("http://other", "/", "")
	f("http://other?x", "/", "x")
	f("/a?u=http://b/c", "/a", "u=http://b/c")
	f("//other/kms/v1/keys", "//other/kms/v1/keys", "")
	f("*", "*", "")
	f("a?u=://b/kms/v1/keys", "a", "u=://b/kms/v1/keys")
	f("://b/kms/v1/keys", "://b/kms/v1/keys", "")
	f("/a/b://c/d", "/a/b://c/d", "")
}

func TestParsePath(t *testing.T) {
	f := func(rest string, want resource, wantName string) {
		t.Helper()
		res, name := parsePath([]byte(rest))
		if res != want || string(name) != wantName {
			t.Errorf("%q: resource %d, name %q; want %d, %q", rest, res, name, want, wantName)
		}
	}
	f("", resBase, "")
	f("/", resBase, "")
	f("//", resUnknown, "")
	f("/keys", resKeys, "")
	f("/keys/", resKeys, "")
	f("/keys//", resUnknown, "")
	f("//keys", resUnknown, "")
	f("/Keys", resUnknown, "")
	f("/key%73", resUnknown, "")
	f("/keys/names", resKeysNames, "")
	f("/keys/names/", resKeysNames, "")
	f("/keys/metadata", resKeysMetadata, "")
	f("/keys/other", resUnknown, "")
	f("/key", resUnknown, "")
	f("/key/", resKey, "")
	f("/key/k", resKey, "k")
	f("/key/a/b", resKey, "a/b")
	f("/key/k/_eek", resKeyEEK, "k")
	f("/key/k/_eek/", resKeyEEK, "k")
	f("/key/k//_eek", resKeyEEK, "k/")
	f("/key/k/_eek//", resKey, "k/_eek//")
	f("/key//_eek", resKeyEEK, "")
	f("/key/_eek", resKey, "_eek")
	f("/key/k/_eek/_eek", resKeyEEK, "k/_eek")
	f("/key/k/_eek/_metadata", resKeyMetadata, "k/_eek")
	f("/key/k/_eekx", resKey, "k/_eekx")
	f("/key/k%2F_eek", resKey, "k%2F_eek")
	f("/key/k/%5Feek", resKey, "k/%5Feek")
	f("/key/../keys/names", resKey, "../keys/names")
	f("/key/k/_metadata", resKeyMetadata, "k")
	f("/key/k/_currentversion", resKeyCurrentVersion, "k")
	f("/key/k/_versions", resKeyVersions, "k")
	f("/key/k/_invalidatecache", resKeyInvalidate, "k")
	f("/key/k/_reencryptbatch", resKeyReencryptBatch, "k")
	f("/key/k/_decryptbatch", resKey, "k/_decryptbatch")
	f("/keyversion/", resKeyVersion, "")
	f("/keyversion/k@0", resKeyVersion, "k@0")
	f("/keyversion/k@0/_eek", resKeyVersionEEK, "k@0")
	f("/keyversion/k@0/_eek/", resKeyVersionEEK, "k@0")
	f("/keyversion/a/b%400/_eek", resKeyVersionEEK, "a/b%400")
	f("/keyversion/k@0/_metadata", resKeyVersion, "k@0/_metadata")
	f("/keyversion", resUnknown, "")
}

func TestRestPath(t *testing.T) {
	f := func(path, rest string, inside bool) {
		t.Helper()
		got, ok := restPath([]byte(path))
		if ok != inside || ok && string(got) != rest {
			t.Errorf("%q: %q %v", path, got, ok)
		}
	}
	f("/kms/v1", "", true)
	f("/kms/v1/", "/", true)
	f("/kms/v1/keys", "/keys", true)
	f("/kms/v12/keys", "", false)
	f("/kms/v2", "", false)
	f("/kms//v1/keys", "", false)
	f("/KMS/v1/keys", "", false)
	f("/kms/./v1", "", false)
	f("", "", false)
}

// Every method on every resource: what is not in this list is refused.
func TestRowOf(t *testing.T) {
	served := map[string]row{}
	add := func(method string, res resource, r row) { served[method+string(rune(res))] = r }
	for _, method := range []string{"GET", "HEAD"} {
		add(method, resKeysMetadata, rowKeysMetadata)
		add(method, resKeysNames, rowNames)
		add(method, resKey, rowMetadata)
		add(method, resKeyMetadata, rowMetadata)
		add(method, resKeyCurrentVersion, rowCurrentVersion)
		add(method, resKeyVersions, rowVersions)
		add(method, resKeyVersion, rowKeyVersion)
		add(method, resKeyEEK, rowGenerate)
	}
	add("POST", resKeys, rowCreate)
	add("POST", resKey, rowRoll)
	add("POST", resKeyInvalidate, rowInvalidate)
	add("POST", resKeyReencryptBatch, rowReencryptBatch)
	add("POST", resKeyDecryptBatch, rowDecryptBatch)
	add("POST", resKeyVersionEEK, rowDecrypt)
	add("DELETE", resKey, rowDelete)
	for _, method := range []string{"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "TRACE", "CONNECT", "get", "X", ""} {
		for res := resUnknown; res <= resKeyVersionEEK; res++ {
			if got, want := rowOf([]byte(method), res), served[method+string(rune(res))]; got != want {
				t.Errorf("%s on resource %d: row %d, want %d", method, res, got, want)
			}
		}
	}
}

func TestCutParameters(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		if got := cutParameters([]byte(in)); string(got) != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	f("/kms/v1/keys", "/kms/v1/keys")
	f("/kms/v1/keys;x=y", "/kms/v1/keys")
	f("/kms;a/v1;b=c;d/keys;", "/kms/v1/keys")
	f(";x/kms", "/kms")
	f("/key/k;/_eek", "/key/k/_eek")
	f("/key/k%3Bx", "/key/k%3Bx")
}

func TestAppendUnescaped(t *testing.T) {
	f := func(in, want string, wantErr error) {
		t.Helper()
		got, err := appendUnescaped([]byte("<"), []byte(in))
		if err != wantErr || err == nil && string(got) != "<"+want {
			t.Errorf("%q: %q %v", in, got, err)
		}
	}
	f("", "", nil)
	f("k%400", "k@0", nil)
	f("a%2Fb%2fc", "a/b/c", nil)
	f("a+b%2Bc%20d", "a+b+c d", nil)
	f("%25", "%", nil)
	f("%252F", "%2F", nil) // once
	f("%C3%A9%0A%ff", "é\n\xff", nil)
	f("%", "", errBadEscape)
	f("%4", "", errBadEscape)
	f("%4g", "", errBadEscape)
	f("%+1", "", errBadEscape)
	f("a%00", "", errNUL)
	f("a\x00b%41", "", errNUL)
}

var pathModel = []struct {
	pattern *regexp.Regexp
	res     resource
}{
	{regexp.MustCompile(`(?s)^/key/(.*)/_eek/?$`), resKeyEEK},
	{regexp.MustCompile(`(?s)^/key/(.*)/_metadata/?$`), resKeyMetadata},
	{regexp.MustCompile(`(?s)^/key/(.*)/_currentversion/?$`), resKeyCurrentVersion},
	{regexp.MustCompile(`(?s)^/key/(.*)/_versions/?$`), resKeyVersions},
	{regexp.MustCompile(`(?s)^/key/(.*)/_invalidatecache/?$`), resKeyInvalidate},
	{regexp.MustCompile(`(?s)^/key/(.*)/_reencryptbatch/?$`), resKeyReencryptBatch},
	{regexp.MustCompile(`(?s)^/key/(.*)$`), resKey},
	{regexp.MustCompile(`(?s)^/keyversion/(.*)/_eek/?$`), resKeyVersionEEK},
	{regexp.MustCompile(`(?s)^/keyversion/(.*)$`), resKeyVersion},
	{regexp.MustCompile(`^/?()$`), resBase},
	{regexp.MustCompile(`^/keys/?()$`), resKeys},
	{regexp.MustCompile(`^/keys/metadata/?()$`), resKeysMetadata},
	{regexp.MustCompile(`^/keys/names/?()$`), resKeysNames},
}

// Against regular expressions, which is how the Java server routes, and
// net/url's unescaping.
func FuzzParsePath(f *testing.F) {
	for _, seed := range []string{"/kms/v1/key/k/_eek?eek_op=generate", "/kms/v1/key/a%2Fb/../_metadata/", "/kms/v1/keyversion/k%400/_eek;x=y/",
		"http://h/kms/v1/keys/names", "/kms/v1/key//_eek", "/kms/v1/key/%00", "/kms/v1/key/%zz", "/kms/v1/key/" + strings.Repeat("n", 300), "x?y=://z/kms/v1", "/kms/v1;x/key;y/\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		path, query := splitTarget([]byte(target))
		if bytes.ContainsAny(path, "?#") || bytes.ContainsRune(query, '#') {
			t.Fatalf("path %q, query %q", path, query)
		}
		path = cutParameters(bytes.Clone(path))
		if bytes.ContainsRune(path, ';') {
			t.Fatalf("parameters are left in %q", path)
		}
		rest, ok := restPath(path)
		if !ok {
			return
		}
		res, name := parsePath(rest)
		want, wantName := resUnknown, ""
		for _, m := range pathModel {
			if match := m.pattern.FindSubmatch(rest); match != nil {
				want, wantName = m.res, string(match[1])
				break
			}
		}
		if res != want || string(name) != wantName {
			t.Fatalf("%q: resource %d, name %q; want %d, %q", rest, res, name, want, wantName)
		}
		got, err := appendUnescaped(nil, name)
		plain, wantErr := url.PathUnescape(string(name))
		if strings.ContainsRune(plain, 0) {
			wantErr = errNUL
		}
		if (err == nil) != (wantErr == nil) || err == nil && string(got) != plain {
			t.Fatalf("%q is %q (%v), want %q (%v)", name, got, err, plain, wantErr)
		}
	})
}

func FuzzEEKArgs(f *testing.F) {
	for _, query := range []string{"", "eek_op=generate&num_keys=1", "num_keys=%31&eek_op=a+b", "eek_op", "eek_op=&eek_op=x", "&&num_keys=2=3&", "EEK_OP=x", "eek%5fop=x",
		"a=b#eek_op=x", "a=b?eek_op=x", "=&=eek_op", "num_keys&num_keys=2"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		if strings.ContainsFunc(query, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			t.Skip("no request line has control bytes")
		}
		var ctx fasthttp.RequestCtx
		ctx.Request.Header.SetHost("h")
		ctx.Request.Header.SetRequestURI("/kms/v1/key/k/_eek?" + query)
		got, want := readEEKArgs(&ctx), ctx.QueryArgs()
		for name, value := range map[string][]byte{"eek_op": got.op, "num_keys": got.numKeys} {
			if want.Has(name) != (value != nil) || string(want.Peek(name)) != string(value) {
				t.Errorf("%q: %s is %q, to fasthttp %q", query, name, value, want.Peek(name))
			}
		}
	})
}
