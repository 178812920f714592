package proxy

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
)

// remote checks that a is an error in Hadoop's shape and returns its message.
func remote(t testing.TB, a answered, status int, class class) (message string) {
	t.Helper()
	var e struct {
		RemoteException struct{ Message, Exception, JavaClassName string }
	}
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || a.Header.Get("Content-Type") != "application/json" {
		t.Errorf("no Hadoop error: %d %s %.300q", a.StatusCode, a.Header, a.body)
		return ""
	}
	r := e.RemoteException
	if a.StatusCode != status || r.JavaClassName != string(class) || r.Exception != class.simpleName() || r.Message == "" {
		t.Errorf("%d %+v, want %d %s", a.StatusCode, r, status, class)
	}
	if _, phrase, _ := strings.Cut(a.Status, " "); phrase == "" {
		t.Errorf("no reason phrase: %q", a.Status)
	}
	return r.Message
}

func contains(t testing.TB, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("%.300q does not contain %q", text, part)
	}
}

func TestBadBodies(t *testing.T) {
	k := newKMS(t)
	k.create(t, "k1")
	f := func(method, target, body string, status int, class class, part string) {
		t.Helper()
		contains(t, remote(t, k.call(t, method, target, body), status, class), part)
	}
	const decrypt = "/keyversion/k1@0/_eek?eek_op=decrypt"

	for _, truncated := range []string{`{`, `{"name`, `{"name":"k1","iv":"AAAA"`, `{"name":}`, `[`, "\x00", "nonsense", " ", "\xef\xbb\xbf"} {
		f("POST", "/keys", truncated, 500, classIO, "")
		f("POST", "/key/k1", truncated, 500, classIO, "")
		f("POST", decrypt, truncated, 500, classIO, "")
		f("POST", "/key/k1/_reencryptbatch", truncated, 500, classIO, "")
	}
	f("POST", "/keys", `[]`, 500, classIO, "a JSON object")
	f("POST", "/key/k1", `null`, 500, classIO, "a JSON object")
	f("POST", decrypt, `"x"`, 500, classIO, "a JSON object")
	f("POST", "/key/k1/_reencryptbatch", `{}`, 500, classIO, "a JSON array")

	f("POST", "/keys", `{}`, 400, classIllegalArgument, "Parameter 'name' cannot be null")
	f("POST", "/keys", `{"name":null}`, 400, classIllegalArgument, "Parameter 'name' cannot be null")
	f("POST", "/keys", `{"name":""}`, 400, classIllegalArgument, "Parameter 'name' cannot be empty")
	f("POST", "/keys", `{"name":1}`, 500, classCast, "'name'")
	f("POST", "/keys", `{"name":["a"]}`, 500, classCast, "'name'")
	f("POST", "/keys", `{"name":"n","cipher":{}}`, 500, classCast, "'cipher'")
	f("POST", "/keys", `{"name":"n","description":true}`, 500, classCast, "'description'")
	f("POST", "/keys", `{"name":"n","attributes":"a"}`, 500, classCast, "'attributes'")
	f("POST", "/keys", `{"name":"n","attributes":{"a":1}}`, 500, classCast, "'attributes'")
	f("POST", "/keys", `{"name":"n","material":5}`, 500, classCast, "'material'")
	for _, length := range []string{`"128"`, `128.0`, `1e2`, `99999999999`, `-99999999999999999999`, `true`} {
		f("POST", "/keys", `{"name":"n","length":`+length+`}`, 500, classCast, "'length'")
	}
	for _, length := range []string{`-1`, `-128`, `1`, `127`, `512`, `2147483647`, `-2147483648`} {
		f("POST", "/keys", `{"name":"n","length":`+length+`}`, 400, classInvalidParameter, "Wrong keysize")
	}
	f("POST", "/keys", `{"name":"n","cipher":"BLOWFISH/CTR"}`, 500, classUndeclared, "BLOWFISH")
	f("POST", "/keys", `{"name":"n","cipher":""}`, 500, classUndeclared, "")
	f("POST", "/keys", `{"name":"n","length":128,"material":"AAAA"}`, 500, classIO, "Wrong key length. Required 128, but got 24")
	f("POST", "/keys", `{"name":"n","length":128,"material":"!!"}`, 500, classIO, "Wrong key length. Required 128, but got 0")
	f("POST", "/keys", `{"name":"k1"}`, 500, classIO, "Key k1 already exists in ")
	f("POST", "/key/k1", `{"material":7}`, 500, classCast, "'material'")
	f("POST", "/key/k1", `{"material":"AAAA"}`, 500, classIO, "Wrong key length")
	f("POST", "/key/none", `{}`, 500, classIO, "none")

	f("POST", decrypt, `{"name":"k1","material":"AAAA"}`, 400, classIllegalArgument, "Parameter 'iv' cannot be null")
	f("POST", decrypt, `{"name":"k1","iv":"AAAA"}`, 400, classIllegalArgument, "Parameter 'material' cannot be null")
	f("POST", decrypt, `{"name":"k1","iv":1,"material":"AAAA"}`, 500, classCast, "'iv'")
	f("POST", decrypt, `{"name":"k1","iv":"AAAA","material":"AAAA"}`, 500, classIO, "java.security.InvalidAlgorithmParameterException: Wrong IV length")
	f("POST", decrypt, `{"name":"k1","iv":"?","material":"AAAA"}`, 500, classIO, "java.security.InvalidAlgorithmParameterException: Wrong IV length")
	f("POST", decrypt, `{"iv":"AAAA","material":"AAAA"}`, 400, classIllegalArgument, "KeyVersion 'k1@0' does not belong to the key 'null'")
	f("POST", decrypt, `{"name":"k2","iv":"AAAA","material":"AAAA"}`, 400, classIllegalArgument, "KeyVersion 'k1@0' does not belong to the key 'k2'")
	f("POST", "/keyversion/k1@1/_eek?eek_op=decrypt", `{"name":"k1","iv":"AAAA","material":"AAAA"}`, 400, classIllegalArgument, "'k1@1' not found")
	f("POST", "/keyversion/k1/_eek?eek_op=decrypt", `{"name":"k1","iv":"AAAA","material":"AAAA"}`, 400, classIllegalArgument, "'k1' not found")
	f("POST", "/keyversion//_eek?eek_op=decrypt", `{}`, 400, classIllegalArgument, "Parameter 'versionName' cannot be empty")
	whole := `{"name":"k1","iv":"AAAAAAAAAAAAAAAAAAAAAA","material":"AAAAAAAAAAAAAAAAAAAAAA"}`
	f("POST", "/keyversion/k1@0/_eek", whole, 400, classIllegalArgument, "Parameter 'eekOp' cannot be null")
	for _, op := range []string{"", "generate", "DECRYPT", "decrypt%00", "x"} {
		f("POST", "/keyversion/k1@0/_eek?eek_op="+op, whole, 400, classIllegalArgument, "Wrong eek_op value")
	}

	entry := func(version, inner string) string {
		return `{"versionName":` + version + `,"iv":"AAAAAAAAAAAAAAAAAAAAAA","encryptedKeyVersion":{"versionName":` + inner + `,"material":"AAAA"}}`
	}
	const batch = "/key/k1/_reencryptbatch"
	f("POST", batch, `[null]`, 400, classIllegalArgument, "Parameter 'valueMap' cannot be null")
	f("POST", batch, `[{}]`, 400, classIllegalArgument, "Parameter 'versionName' cannot be null")
	f("POST", batch, `[{"versionName":"k1@0"}]`, 400, classIllegalArgument, "Parameter 'iv' cannot be null")
	f("POST", batch, `[{"versionName":"k1@0","iv":"A"}]`, 400, classIllegalArgument, "Parameter 'encryptedKeyVersion' cannot be null")
	f("POST", batch, `[{"versionName":"k1@0","iv":"A","encryptedKeyVersion":{"versionName":"EEK"}}]`, 400, classIllegalArgument, "Parameter 'material' cannot be null")
	f("POST", batch, `[`+entry(`"k1@0"`, `"EK"`)+`]`, 400, classIllegalArgument, "EEK")
	f("POST", batch, `[`+entry(`"k1@0"`, `null`)+`]`, 400, classIllegalArgument, "Parameter 'versionName' cannot be null")
	f("POST", batch, `[`+entry(`"k1@5"`, `"EEK"`)+`]`, 400, classIllegalArgument, "'k1@5' not found")
	f("POST", batch, `[`+entry(`7`, `"EEK"`)+`]`, 500, classCast, "'versionName'")
	f("POST", "/key//_reencryptbatch", `[]`, 400, classIllegalArgument, "Parameter 'name' cannot be empty")
}

func TestBadQueries(t *testing.T) {
	k := newKMS(t)
	k.create(t, "k1")
	f := func(target string, status int, class class, part string) {
		t.Helper()
		contains(t, remote(t, k.call(t, "GET", target, ""), status, class), part)
	}
	f("/key/k1/_eek", 400, classIllegalArgument, "Parameter 'eekOp' cannot be null")
	f("/key/k1/_eek?eek_op=", 400, classIllegalArgument, "Wrong eek_op value")
	f("/key/k1/_eek?eek_op=decrypt", 400, classIllegalArgument, "Wrong eek_op value")
	f("/key/k1/_eek?eek_op=Generate", 400, classIllegalArgument, "Wrong eek_op value")
	for _, n := range []string{"x", "1.5", "1e1", "%201", "0x1", "1_0", "99999999999", "-99999999999", "2147483648", "%00"} {
		f("/key/k1/_eek?eek_op=generate&num_keys="+n, 500, classQueryParam, "NumberFormatException")
	}
	f("/key/k1/_eek?eek_op=generate&num_keys=10001", 400, classIllegalArgument, "10000")
	f("/key/k1/_eek?eek_op=generate&num_keys=2147483647", 400, classIllegalArgument, "10000")
	f("/key//_eek?eek_op=generate", 400, classIllegalArgument, "Parameter 'name' cannot be empty")
	f("/key/none/_eek?eek_op=generate", 500, classIO, "No KeyVersion exists for key 'none' ")
	f("/key/", 400, classIllegalArgument, "Parameter 'name' cannot be empty")
	f("/keyversion/", 400, classIllegalArgument, "Parameter 'versionName' cannot be empty")
	f("/key/k1%", 400, classIllegalArgument, "percent")
	f("/key/k1%4", 400, classIllegalArgument, "percent")
	f("/key/%zz/_metadata", 400, classIllegalArgument, "percent")
	f("/key/k%00", 400, classIllegalArgument, "NUL")
	f("/nothing", 500, classNoSuchPath, "/kms/v1/nothing")
	f("//keys/names", 500, classNoSuchPath, "")
	f("/keys", 500, classNotAcceptedMethod, "GET")

	eeks := func(target string, n int) {
		t.Helper()
		a := k.call(t, "GET", target, "")
		var list []any
		if err := json.Unmarshal([]byte(a.body), &list); err != nil || a.StatusCode != 200 || len(list) != n {
			t.Errorf("%s: %d, %d EDEKs (%v)", target, a.StatusCode, len(list), err)
		}
	}
	eeks("/key/k1/_eek?eek_op=generate", 1)
	eeks("/key/k1/_eek?eek_op=generate&num_keys=", 1)
	eeks("/key/k1/_eek?eek_op=generate&num_keys=%2B2", 2)
	eeks("/key/k1/_eek?eek_op=generate&num_keys=10000", 10_000)
	eeks("/key/k1/_eek?eek_op=generate&num_keys=0", 0)
	eeks("/key/k1/_eek?eek_op=generate&num_keys=-2147483648", 0)
	eeks("/key/k1/_eek?eek_op=generate&num_keys=2&num_keys=x&eek_op=decrypt", 2) // the first counts
	eeks("/key/k1;a=b/_eek;c?eek_op=generate", 1)
	eeks("/key/k1/_eek/?eek_op=generate", 1)
}

// Names go in by JSON and are found again by path, byte for byte and by no
// other spelling.
func TestOddNames(t *testing.T) {
	k := newKMS(t)
	long := strings.Repeat("n", 10<<10)
	for name, path := range map[string]string{
		"a/b":                   "a/b",
		"/":                     "/",
		"a%2Fb":                 "a%252Fb",
		"100%":                  "100%25",
		"a b":                   "a%20b",
		"a+b":                   "a+b",
		"é€😀":                   "%C3%A9%E2%82%AC%F0%9F%98%80",
		"raw é":                 "raw%20é",
		"\x01\n\x7f":            "%01%0A%7F",
		`key %^[\n{]}|"<>\`:     "key%20%25%5E%5B%5Cn%7B%5D%7D%7C%22%3C%3E%5C",
		"../../keys/names":      "../../keys/names",
		"x/./y//z":              "x/./y//z",
		"k@0":                   "k@0",
		"K":                     "K",
		"semi;colon":            "semi%3Bcolon",
		"q?u#":                  "q%3Fu%23",
		"_eek":                  "_eek",
		"with/_metadata/inside": "with/_metadata/inside",
		long:                    long,
	} {
		body, _ := json.Marshal(map[string]string{"name": name})
		if a := k.call(t, "POST", "/keys", string(body)); a.StatusCode != 201 {
			t.Fatalf("create %.40q: %d %s", name, a.StatusCode, a.body)
		} else if location := a.Header.Get("Location"); !strings.HasPrefix(location, "http://kms.example:9600/kms/v1/key/") || strings.ContainsAny(strings.TrimPrefix(location, "http://kms.example:9600/kms/v1/key/"), " /?#\n\"") {
			t.Errorf("%.40q: Location %.100q", name, location)
		} else if a := k.raw(t, requestText("GET", strings.TrimPrefix(location, "http://kms.example:9600")+"?user.name=x", ""), 1)[0]; len(a.body) < 20 {
			t.Errorf("%.40q is not found at its Location %.100q: %s", name, location, a.body)
		}
		a := k.call(t, "GET", "/key/"+path+"/_metadata", "")
		var m struct{ Name string }
		if json.Unmarshal([]byte(a.body), &m); a.StatusCode != 200 || m.Name != name {
			t.Errorf("%.40q at %.40q: %d %.100s", name, path, a.StatusCode, a.body)
		}
		if a := k.call(t, "GET", "/key/"+path+"/_eek?eek_op=generate", ""); a.StatusCode != 200 {
			t.Errorf("generate %.40q: %d %.100s", name, a.StatusCode, a.body)
		}
		if a := k.call(t, "GET", "/keyversion/"+path+"@0", ""); a.StatusCode != 200 || len(a.body) < 20 {
			t.Errorf("version of %.40q: %d %.100s", name, a.StatusCode, a.body)
		}
	}
	for _, other := range []string{"k", "a%2fb%20", "A/B", "a//b", "a b ", "keys/names", "x/y/z", "a%252Fb%00", "%FF", "e%CC%81", long[1:]} {
		a := k.call(t, "GET", "/key/"+strings.ReplaceAll(other, " ", "%20")+"/_metadata", "")
		if strings.HasSuffix(other, "%00") {
			remote(t, a, 400, classIllegalArgument)
		} else if a.StatusCode != 200 || a.body != "{ }" {
			t.Errorf("%.40q: %d %.100s", other, a.StatusCode, a.body)
		}
	}
	a := k.call(t, "POST", "/keys", `{"name":"`+strings.Repeat("n", 60<<10)+`"}`)
	if a.StatusCode >= 500 && a.StatusCode != 500 || a.StatusCode < 200 {
		t.Errorf("a name of 60 KiB: %d %.200s", a.StatusCode, a.body)
	}
}

func TestContentTypes(t *testing.T) {
	k := newKMS(t)
	f := func(header string, ok bool) {
		t.Helper()
		a := k.raw(t, "POST /kms/v1/key/none?user.name=x HTTP/1.1\r\nHost: h\r\n"+header+"Content-Length: 2\r\n\r\n{}", 1)[0]
		class := classIO // no such key
		if !ok {
			class = classNotAcceptedMethod
		}
		remote(t, a, 500, class)
	}
	f("Content-Type: application/json\r\n", true)
	f("Content-Type: application/json; charset=utf-8\r\n", true)
	f("content-type:  APPLICATION/JSON ;charset=x\r\n", true)
	f("", false)
	f("Content-Type:\r\n", false)
	f("Content-Type: text/plain\r\n", false)
	f("Content-Type: application/jsonx\r\n", false)
	f("Content-Type: application/x-www-form-urlencoded\r\n", false)
	f("Content-Type: multipart/form-data; boundary=x\r\n", false)
}

func TestUnsupportedMethods(t *testing.T) {
	k := newKMS(t)
	for _, method := range []string{"PUT", "PATCH", "TRACE", "DELETE", "BREW", "post"} {
		a := k.call(t, method, "/keys", "")
		contains(t, remote(t, a, 500, classNotAcceptedMethod), method)
	}
	remote(t, k.call(t, "PUT", "/key/k/_metadata", "{}"), 500, classNotAcceptedMethod)
	remote(t, k.call(t, "DELETE", "/key/k/_metadata", ""), 500, classNotAcceptedMethod)
	// These are for the authentication filter, on any path.
	for _, op := range []string{"GETDELEGATIONTOKEN", "renewdelegationtoken", "CancelDelegationToken"} {
		a := k.call(t, "POST", "/keys?op="+op, "")
		if want := "400 Wrong HTTP method [POST] for operation [" + strings.ToUpper(op) + "]"; !strings.HasPrefix(a.Status, want) {
			t.Errorf("%s: %s", op, a.Status)
		}
	}
}

func TestOptionsOnEveryPath(t *testing.T) {
	k := newKMS(t)
	f := func(target, allow string) {
		t.Helper()
		a := k.call(t, "OPTIONS", target, "")
		if a.StatusCode != 200 || a.Header.Get("Allow") != allow || len(a.Cookies()) != 1 {
			t.Errorf("%s: %d %v", target, a.StatusCode, a.Header)
		}
	}
	f("/", "OPTIONS")
	f("", "OPTIONS")
	f("/?op=GETDELEGATIONTOKEN", "OPTIONS")
	f("/keys", "OPTIONS,POST")
	f("/keys/names", "OPTIONS,HEAD,GET")
	f("/keys/metadata?key=a", "OPTIONS,HEAD,GET")
	f("/key/k", "OPTIONS,HEAD,GET,POST,DELETE")
	f("/key/k/_eek?eek_op=generate", "OPTIONS,HEAD,GET")
	f("/key/k/_invalidatecache", "OPTIONS,POST")
	f("/key/k/_reencryptbatch", "OPTIONS,POST")
	f("/keyversion/k%400", "OPTIONS,HEAD,GET")
	f("/keyversion/k%400/_eek?eek_op=decrypt", "OPTIONS,POST")
	remote(t, k.call(t, "OPTIONS", "/nothing", ""), 500, classNoSuchPath)
	if a := k.raw(t, "OPTIONS /kms/v1/keys HTTP/1.1\r\nHost: h\r\n\r\n", 1)[0]; a.StatusCode != 401 || a.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("nobody: %d %v", a.StatusCode, a.Header)
	}
}

func TestBodilessPost(t *testing.T) {
	k := newKMS(t)
	k.create(t, "k1")
	c := k.dial(t)
	for _, headers := range []string{"", "Content-Length: 0\r\n", "Content-Type: application/json\r\n"} {
		c.send(t, "POST /kms/v1/key/k1/_invalidatecache?user.name=x HTTP/1.1\r\nHost: h\r\n"+headers+"\r\n")
		if a := c.answer(t, "POST"); a.StatusCode != 200 || a.body != "" || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("%q: %d %v %q", headers, a.StatusCode, a.Header, a.body)
		}
	}
	c.send(t, "POST /kms/v1/key/k1?user.name=x HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n\r\n")
	contains(t, remote(t, c.answer(t, "POST"), 500, classIO), "no body")
}

func chunked(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(p), p)
	}
	return b.String() + "0\r\n\r\n"
}

func TestChunkedBodies(t *testing.T) {
	k := newKMS(t)
	const head = "POST /kms/v1/keys?user.name=x HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
	c := k.dial(t)
	c.send(t, head+chunked(`{"na`, `me":"`, `k1"}`))
	if a := c.answer(t, "POST"); a.StatusCode != 201 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	c.send(t, head+chunked(`{"name":"`+strings.Repeat("n", 60<<10)+`"`)) // truncated JSON
	remote(t, c.answer(t, "POST"), 500, classIO)
	go io.WriteString(c.Conn, head+chunked(strings.Repeat("n", 60<<10), strings.Repeat("n", 60<<10)))
	contains(t, remote(t, c.answer(t, "POST"), 400, classIllegalArgument), "edekd.limits.body-bytes")
	c.closed(t)
	for _, broken := range []string{"zz\r\n", "-1\r\n", "ffffffffffffffffffff\r\n", "2\r\n{}xx0\r\n\r\n"} {
		c := k.dial(t)
		go io.WriteString(c.Conn, head+broken)
		remote(t, c.answer(t, "POST"), 400, classIllegalArgument)
		c.closed(t)
	}
}

// A request whose length can be read in two ways must not be read at all.
func TestAmbiguousLengthsAreRefused(t *testing.T) {
	k := newKMS(t)
	const smuggled = "GET /kms/v1/keys/names?user.name=y HTTP/1.1\r\nHost: h\r\n\r\n"
	for _, lengths := range []string{
		"Content-Length: 2\r\nContent-Length: 3\r\n",
		"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
		"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
		"Transfer-Encoding: identity, chunked\r\n",
		"Transfer-Encoding: xchunked\r\n",
		"Content-Length: +2\r\n",
		"Content-Length: -2\r\n",
		"Content-Length: 0x2\r\n",
		"Content-Length: 99999999999999999999999\r\n",
		"Content-Length : 2\r\n",
	} {
		c := k.dial(t)
		go io.WriteString(c.Conn, "POST /kms/v1/key/none?user.name=x HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"+lengths+"\r\n0\r\n\r\n"+smuggled)
		a := c.answer(t, "POST")
		if a.StatusCode/100 == 2 {
			t.Errorf("%q: %d", lengths, a.StatusCode)
		}
		if a, err := c.tryAnswer("GET"); err == nil {
			t.Errorf("%q: the rest was read as a request: %d %s", lengths, a.StatusCode, a.body)
		}
	}
}

// A body that a GET brings is not the next request.
func TestBodyOfGetIsNoRequest(t *testing.T) {
	k := newKMS(t)
	k.create(t, "k1")
	c := k.dial(t)
	const hidden = "DELETE /kms/v1/key/k1?user.name=y HTTP/1.1\r\nHost: h\r\n\r\n"
	c.send(t, requestText("GET", "/kms/v1/keys/names?user.name=x", hidden)+requestText("GET", "/kms/v1/key/k1?user.name=x", ""))
	if a := c.answer(t, "GET"); a.body != `[ "k1" ]` {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a := c.answer(t, "GET"); !strings.Contains(a.body, `"k1"`) {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}
