package proxy

import (
	"bufio"
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

// Whatever is read as a request gets an answer, and none is our own defect.
func FuzzRequest(f *testing.F) {
	k := newKMS(f)
	k.create(f, "k1")
	e := k.generate(f, "k1", 1)[0]
	for _, seed := range []string{
		requestText("POST", "/kms/v1/keys?user.name=x", `{"name":"k2","length":128,"material":"AAECAwQFBgcICQoLDA0ODw=="}`),
		requestText("POST", "/kms/v1/key/k1?user.name=x", "{}"),
		requestText("DELETE", "/kms/v1/key/k2?user.name=x", ""),
		requestText("POST", "/kms/v1/key/k1/_invalidatecache?user.name=x", ""),
		requestText("GET", "/kms/v1/keys/metadata?key=k1&key=none&user.name=x", ""),
		requestText("GET", "/kms/v1/key/k1/_eek?eek_op=generate&num_keys=2&user.name=x", ""),
		requestText("POST", "/kms/v1/keyversion/k1%400/_eek?eek_op=decrypt&user.name=x", e.decryptBody("k1")),
		requestText("POST", "/kms/v1/keyversion/k1@0/_eek?eek_op=reencrypt&user.name=x", e.decryptBody("k1")),
		requestText("POST", "/kms/v1/key/k1/_reencryptbatch?user.name=x", `[{"versionName":"k1@0","iv":"`+e.IV+`","encryptedKeyVersion":{"versionName":"EEK","material":"AAAA"}}]`),
		requestText("GET", "/kms/v1/key/a%2F/_versions;x=y/?user.name=x", ""),
		requestText("OPTIONS", "/kms/v1/?user.name=x&op=GETDELEGATIONTOKEN", ""),
		requestText("GET", "/jmx?qry=java.lang:*&user.name=x", ""),
		requestText("GET", "http://h/readyz?doAs=y", "", `Cookie: hadoop.auth="u=x&p=x"`),
		"POST /kms/v1/keys?user.name=x HTTP/1.0\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var ctx fasthttp.RequestCtx
		ctx.Init(&fasthttp.Request{}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711}, nil)
		if ctx.Request.Read(bufio.NewReader(strings.NewReader(text))) != nil {
			return
		}
		k.handle(&ctx)
		body := ctx.Response.Body()
		if strings.Contains(string(body), string(classInternal)) {
			t.Errorf("%q: %s\n%s", text, body, k.log.String())
		}
		if ct := string(ctx.Response.Header.ContentType()); ct == contentTypeJSON && !json.Valid(body) {
			t.Errorf("%q: %d, and no JSON: %q", text, ctx.Response.StatusCode(), body)
		}
	})
}
