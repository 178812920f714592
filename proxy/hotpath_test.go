package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttputil"

	"github.com/edekd/edekd/internal/race"
	"github.com/edekd/edekd/proxy/authz"
)

// A hot request as the Java client sends it, cookie included.
func (k *kms) hotRequest(tb testing.TB, op string) []byte {
	tb.Helper()
	a := k.call(tb, "OPTIONS", "/", "")
	cookies := a.Cookies()
	if len(cookies) != 1 {
		tb.Fatalf("handshake: %d %v", a.StatusCode, a.Header)
	}
	raw := a.Header.Get("Set-Cookie")
	cookie := raw[:bytes.IndexByte([]byte(raw), ';')]
	common := "Cookie: " + cookie + "\r\nCache-Control: no-cache\r\nPragma: no-cache\r\nUser-Agent: Java/17.0.15\r\n" +
		"Host: 127.0.0.1:9600\r\nAccept: text/html, image/gif, image/jpeg, */*; q=0.2\r\nConnection: keep-alive\r\n"
	if op == "generate" {
		return []byte("GET /kms/v1/key/k1/_eek?num_keys=1&eek_op=generate HTTP/1.1\r\nContent-Type: application/json\r\n" + common + "\r\n")
	}
	e := k.call(tb, "GET", "/key/k1/_eek?eek_op=generate&num_keys=1", "")
	var eeks []struct {
		IV    string
		Inner struct{ Material string } `json:"encryptedKeyVersion"`
	}
	if err := json.Unmarshal([]byte(e.body), &eeks); err != nil || len(eeks) != 1 {
		tb.Fatalf("generate: %v %s", err, e.body)
	}
	body := fmt.Sprintf("{\n  \"name\" : \"k1\",\n  \"iv\" : \"%s\",\n  \"material\" : \"%s\"\n}", eeks[0].IV, eeks[0].Inner.Material)
	return []byte("POST /kms/v1/keyversion/k1%400/_eek?eek_op=decrypt HTTP/1.1\r\nContent-Type: application/json\r\n" + common +
		fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body))
}

// hotContext is a request that was read from the wire, to be handled again and
// again.
func hotContext(tb testing.TB, raw []byte) *fasthttp.RequestCtx {
	tb.Helper()
	var ctx fasthttp.RequestCtx
	ctx.Init(&fasthttp.Request{}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711}, nil)
	if err := ctx.Request.Read(bufioReader(raw)); err != nil {
		tb.Fatal(err)
	}
	return &ctx
}

// groupRules let user x in at both layers, by groups only: nothing is decided
// without the groups.
var groupRules = append([]string{"hadoop.kms.acl.GENERATE_EEK", "hdfs staff", "hadoop.kms.blacklist.GENERATE_EEK", "root banned",
	"hadoop.kms.acl.DECRYPT_EEK", "hive staff", "hadoop.kms.blacklist.DECRYPT_EEK", "hdfs banned",
	"key.acl.k1.MANAGEMENT", "*", "key.acl.k1.GENERATE_EEK", "hdfs staff", "key.acl.k1.DECRYPT_EEK", "hive staff"}, openRules...)

// oneGroup is a directory in which everybody is in the group staff.
type oneGroup struct{}

func (oneGroup) Of(string) ([]string, error) { return []string{"users", "staff"}, nil }

func TestHotRequestsDoNotAllocate(t *testing.T) {
	t.Run("open rules", func(t *testing.T) { hotRequestsDoNotAllocate(t, newKMS(t)) })
	t.Run("group rules", func(t *testing.T) {
		hotRequestsDoNotAllocate(t, newKMS(t, func(c *Config) { c.Authz = authz.New(policy(t, groupRules...), oneGroup{}) }))
	})
}

func hotRequestsDoNotAllocate(t *testing.T, k *kms) {
	k.create(t, "k1")
	for _, op := range []string{"generate", "decrypt"} {
		raw := k.hotRequest(t, op)
		ctx := hotContext(t, raw)
		body := bytes.Clone(ctx.Request.Body())
		handle := func() {
			copy(ctx.Request.Body(), body) // decoded in place
			ctx.Response.Reset()
			k.handle(ctx)
		}
		for range 100 { // the caches settle
			handle()
		}
		if ctx.Response.StatusCode() != 200 {
			t.Fatalf("%s: %d %s", op, ctx.Response.StatusCode(), ctx.Response.Body())
		}
		n := testing.AllocsPerRun(2000, handle)
		t.Logf("%s: %v allocations per request", op, n)
		if n != 0 && !race.Enabled {
			t.Errorf("%s: %v allocations per request", op, n)
		}
	}
}

// BenchmarkHandle is what a request costs between parser and writer, under
// rules that users and under rules that groups decide.
func BenchmarkHandle(b *testing.B) {
	for rules, access := range map[string]*authz.Authorizer{
		"open":   authz.New(policy(b, openRules...), noGroups{}),
		"groups": authz.New(policy(b, groupRules...), oneGroup{}),
	} {
		k := newKMS(b, func(c *Config) { c.Authz = access })
		k.create(b, "k1")
		for _, op := range []string{"generate", "decrypt"} {
			ctx := hotContext(b, k.hotRequest(b, op))
			body := bytes.Clone(ctx.Request.Body())
			b.Run(op+"/"+rules, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					copy(ctx.Request.Body(), body)
					ctx.Response.Reset()
					k.handle(ctx)
				}
			})
			if ctx.Response.StatusCode() != fasthttp.StatusOK {
				b.Fatalf("%s: %s", op, ctx.Response.Body())
			}
		}
	}
}

// BenchmarkInMemory sends one request after the other over an in-memory
// connection: to the server, and to a bare fasthttp handler with the same
// settings that answers the same bytes and does nothing.
func BenchmarkInMemory(b *testing.B) {
	k := newKMS(b)
	k.create(b, "k1")
	for _, op := range []string{"generate", "decrypt"} {
		raw := k.hotRequest(b, op)
		answer := k.raw(b, string(raw), 1)[0]
		headers := [][2][]byte{{batchHeader, batchDecrypt}}
		for name, value := range k.common.Load().header.All() {
			headers = append(headers, [2][]byte{bytes.Clone(name), bytes.Clone(value)})
		}
		bare := fasthttp.Server{
			Handler: func(ctx *fasthttp.RequestCtx) {
				h := &ctx.Response.Header
				h.SetContentTypeBytes(jsonType)
				for i := range headers {
					h.SetCanonical(headers[i][0], headers[i][1])
				}
				ctx.Response.SetBodyString(answer.body)
			},
			ReadBufferSize: k.http.ReadBufferSize, MaxRequestBodySize: k.http.MaxRequestBodySize,
			ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: k.http.IdleTimeout,
			NoDefaultServerHeader: true, NoDefaultContentType: true, SecureErrorLogMessage: true,
			CloseOnShutdown: true, DisablePreParseMultipartForm: true, HeaderReceived: k.bodyLimit, ExpectHandler: k.expect,
		}
		bareListener := fasthttputil.NewInmemoryListener()
		go bare.Serve(bareListener)
		b.Run(op+"/bare", func(b *testing.B) { benchmarkConn(b, bareListener, raw) })
		b.Run(op+"/edekd", func(b *testing.B) { benchmarkConn(b, k.listener, raw) })
		bareListener.Close()
	}
}

func benchmarkConn(b *testing.B, l *fasthttputil.InmemoryListener, raw []byte) {
	c, err := l.Dial()
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, 4096)
	b.ReportAllocs()
	cpu := cpuTime(b)
	defer func() { b.ReportMetric(float64(cpuTime(b)-cpu)/float64(b.N), "cpu-ns/op") }()
	for b.Loop() {
		if _, err := c.Write(raw); err != nil {
			b.Fatal(err)
		}
		if _, err := readSome(c, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// cpuTime is what this process has used so far, client and server together.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// readSome reads one answer, which the server writes in one piece.
func readSome(c io.Reader, buf []byte) (int, error) {
	n, err := c.Read(buf)
	if err == nil && !bytes.HasPrefix(buf[:n], []byte("HTTP/1.1 200")) {
		err = fmt.Errorf("answer %q", buf[:n])
	}
	return n, err
}
