package proxy

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/internal/race"
	"github.com/edekd/edekd/proxy/audit"
	"github.com/edekd/edekd/proxy/authz"
)

// batchBody writes EDEKs as _reencryptbatch and _decryptbatch take them.
func batchBody(list []eek) string {
	entries := make([]string, len(list))
	for i, e := range list {
		entries[i] = fmt.Sprintf(`{"versionName":%q,"iv":%q,"encryptedKeyVersion":{"versionName":"EEK","material":%q}}`,
			e.VersionName, e.IV, e.EncryptedKeyVersion.Material)
	}
	return "[" + strings.Join(entries, ",") + "]"
}

func TestDecryptBatchAnswersAsSingleDecrypts(t *testing.T) {
	k := newKMS(t)
	for _, name := range []string{"k1", "a/b", `quote"me`, "schlüssel", "x/_decryptbatch"} {
		escaped := url.PathEscape(name)
		text, _ := json.Marshal(name)
		if a := k.call(t, "POST", "/keys", fmt.Sprintf(`{"name":%s,"length":256}`, text)); a.StatusCode != 201 {
			t.Fatalf("%s: %d %s", name, a.StatusCode, a.body)
		}
		list := k.generate(t, escaped, 3)
		if a := k.call(t, "POST", "/key/"+escaped, "{}"); a.StatusCode != 200 {
			t.Fatalf("roll of %s: %d %s", name, a.StatusCode, a.body)
		}
		list = slices.Concat(list[:2], k.generate(t, escaped, 2), list[2:])
		var singles []string
		for _, e := range list {
			body := fmt.Sprintf(`{"name":%s,"iv":%q,"material":%q}`, text, e.IV, e.EncryptedKeyVersion.Material)
			a := k.call(t, "POST", "/keyversion/"+url.PathEscape(e.VersionName)+"/_eek?eek_op=decrypt", body)
			if a.StatusCode != 200 {
				t.Fatalf("%s: %d %s", name, a.StatusCode, a.body)
			}
			singles = append(singles, a.body)
		}
		a := k.call(t, "POST", "/key/"+escaped+"/_decryptbatch", batchBody(list))
		if want := "[ " + strings.Join(singles, ", ") + " ]"; a.StatusCode != 200 || a.body != want || a.Header.Get("Content-Type") != contentTypeJSON {
			t.Errorf("%s: %d %s\nwant %s", name, a.StatusCode, a.body, want)
		}
	}
	if a := k.call(t, "POST", "/key/none/_decryptbatch", "[]"); a.StatusCode != 200 || a.body != "[ ]" {
		t.Errorf("no entries: %d %s", a.StatusCode, a.body)
	}
}

// One entry that may not be opened keeps the others shut as well.
func TestDecryptBatchIsAllOrNothing(t *testing.T) {
	k := newKMS(t)
	k.create(t, "k1")
	k.create(t, "k2")
	good, foreign := k.generate(t, "k1", 2), k.generate(t, "k2", 1)[0]
	f := func(last eek, status int, class class, part string) {
		t.Helper()
		a := k.call(t, "POST", "/key/k1/_decryptbatch", batchBody(append(good[:2:2], last)))
		contains(t, remote(t, a, status, class), part)
	}
	f(foreign, 400, classIllegalArgument, "KeyVersion 'k2@0' does not belong to the key 'k1'")
	unknown, short, wrong := good[0], good[0], good[0]
	unknown.VersionName, short.IV, wrong.VersionName = "k1@7", "AAAA", "k1"
	f(unknown, 400, classIllegalArgument, "'k1@7' not found")
	f(wrong, 400, classIllegalArgument, "'k1' not found")
	f(short, 500, classIO, "Wrong IV length")
	named := strings.Replace(batchBody(good), `"EEK"`, `"EK"`, 1)
	contains(t, remote(t, k.call(t, "POST", "/key/k1/_decryptbatch", named), 400, classIllegalArgument), "must be 'EEK', but found 'EK'")
	for _, body := range []string{"[", `[{"versionName":7}]`, "[null]", "[{}]"} {
		if a := k.call(t, "POST", "/key/k1/_decryptbatch", body); a.StatusCode < 400 {
			t.Errorf("%s: %d %s", body, a.StatusCode, a.body)
		}
	}
	contains(t, remote(t, k.call(t, "POST", "/key//_decryptbatch", "[]"), 400, classIllegalArgument), "Parameter 'name' cannot be empty")
	if log := k.closedAudit(t); strings.Contains(log, "OK[op=DECRYPT") {
		t.Errorf("something was decrypted:\n%s", log)
	}
}

func TestDecryptBatchIsOneAuditEvent(t *testing.T) {
	var text, objects lockedBuffer
	log := audit.New(&text, audit.Options{JSON: &objects})
	k := newKMS(t, func(c *Config) {
		c.Audit = log
		c.Authz = authz.New(policy(t, append([]string{"hadoop.kms.acl.DECRYPT_EEK", "x", "key.acl.k2.MANAGEMENT", "*", "key.acl.k2.GENERATE_EEK", "*"}, openRules...)...), noGroups{})
	})
	k.create(t, "k1")
	k.create(t, "k2")
	list, closed := k.generate(t, "k1", 3), k.generate(t, "k2", 1)
	for range 2 {
		if a := k.call(t, "POST", "/key/k1/_decryptbatch", batchBody(list)); a.StatusCode != 200 {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
	}
	contains(t, remote(t, k.raw(t, requestText("POST", "/kms/v1/key/k1/_decryptbatch?user.name=eve", batchBody(list)), 1)[0], 403, classAuthorization),
		"User:eve not allowed to do 'DECRYPT_EEK_BATCH' on 'k1'")
	contains(t, remote(t, k.call(t, "POST", "/key/k2/_decryptbatch", batchBody(closed)), 403, classAuthorization), "[DECRYPT_EEK]")
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for line, n := range map[string]int{
		"OK[op=DECRYPT_EEK_BATCH, key=k1, user=x] decrypted 3 keys\n": 2,
		"UNAUTHORIZED[op=DECRYPT_EEK_BATCH, key=k1, user=eve] \n":     1,
		"UNAUTHORIZED[op=DECRYPT_EEK, key=k2, user=x] \n":             1,
		"UNAUTHORIZED[op=ALL, key=k2, user=x] \n":                     1,
	} {
		if got := strings.Count(text.String(), line); got != n {
			t.Errorf("%d of %q in\n%s", got, line, text.String())
		}
	}
	events := 0
	for line := range strings.Lines(objects.String()) {
		var e struct {
			Op, Decision, Key, User, Details string
			Count                            int
			IntervalMs                       *int
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.Op == "DECRYPT_EEK_BATCH" && e.Decision == "allowed" {
			events++
			if e.Count != 3 || e.IntervalMs != nil || e.Key != "k1" || e.User != "x" || e.Details != "decrypted 3 keys" {
				t.Errorf("%s", line)
			}
		}
	}
	if events != 2 {
		t.Errorf("%d events in\n%s", events, objects.String())
	}
	if n := k.meters.decryptBatch.Count(); n != 4 {
		t.Errorf("%d calls counted", n)
	}
	var b bytes.Buffer
	k.c.Metrics.WritePrometheus(&b)
	contains(t, b.String(), `edekd_requests_total{op="decrypt_eek_batch",status="200"} 2`)
}

// Single decrypts are counted whatever becomes of the log; a batch, whose line
// would be lost, is not opened.
func TestDecryptBatchWithoutAuditLogIsRefused(t *testing.T) {
	k, disk := newKMSWithSink(t)
	k.create(t, "k1")
	list := k.generate(t, "k1", 1)
	disk.full.Store(true)
	k.call(t, "GET", "/key/k1/_metadata", "") // a line to stall at
	<-disk.refused
	for range 20_000 {
		if a := k.call(t, "POST", "/key/k1/_decryptbatch", batchBody(list)); a.StatusCode != 200 {
			contains(t, remote(t, a, 500, classIO), "no batch is decrypted unaudited")
			k.decrypt(t, "k1", list[0])
			return
		}
	}
	t.Error("the log never became full")
}

func TestLargeDecryptBatches(t *testing.T) {
	k := newKMS(t, func(c *Config) { c.Limits.BatchBody = 1 << 20; c.Limits.BatchEntries = 2000 })
	k.create(t, "k1")
	list := k.generate(t, "k1", 2000)
	var answers []struct{ Material, Name, VersionName string }
	a := k.call(t, "POST", "/key/k1/_decryptbatch", batchBody(list))
	if err := json.Unmarshal([]byte(a.body), &answers); err != nil || len(answers) != len(list) {
		t.Fatalf("%v, %d %.300s", err, a.StatusCode, a.body)
	}
	for i, e := range list {
		if i%100 == 0 && base64.RawURLEncoding.EncodeToString(k.decrypt(t, "k1", e)) != answers[i].Material {
			t.Errorf("another key at %d", i)
		}
	}
	contains(t, remote(t, k.call(t, "POST", "/key/k1/_decryptbatch", batchBody(append(list, list[0]))), 400, classIllegalArgument), "at most 2000 entries")
	remote(t, k.call(t, "POST", "/key/k1/_decryptbatch", "[]"+strings.Repeat(" ", 1<<20)), 400, classIllegalArgument)

	c := k.dial(t)
	c.send(t, strings.Replace(batchHeaders("", 1<<20), "_reencryptbatch", "_decryptbatch", 1)) // of nobody, and no byte of the body
	if a := c.answer(t, "POST"); a.StatusCode != 401 || a.Header.Get(string(batchHeader)) != "" {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
	c.closed(t)
	if n := k.large.inUse.Load(); n != 0 {
		t.Errorf("%d bytes still reserved", n)
	}
}

// Whoever is authenticated is told that there are batches, whatever becomes of
// the request; nobody else is.
func TestBatchesAreAnnounced(t *testing.T) {
	k := newKMS(t)
	k.create(t, "k1")
	f := func(method, target, announced string, status int) {
		t.Helper()
		a := k.raw(t, requestText(method, target, ""), 1)[0]
		if got := a.Header.Values(string(batchHeader)); strings.Join(got, "|") != announced || a.StatusCode != status {
			t.Errorf("%s %s: %d, announced %q", method, target, a.StatusCode, got)
		}
	}
	f("OPTIONS", "/kms/v1/key/k1/_decryptbatch?user.name=x", "decrypt", 200)
	f("GET", "/kms/v1/key/k1/_eek?eek_op=generate&user.name=x", "decrypt", 200)
	f("GET", "/kms/v1/key/none/_eek?eek_op=generate&user.name=x", "decrypt", 500)
	f("GET", "/kms/v1/key/k1/_metadata", "", 401)
	f("GET", "/kms/v1/key/k1/_metadata?user.name=x&doAs=y", "", 403)
	f("GET", "/kms/v1/?op=GETDELEGATIONTOKEN&user.name=x", "", 403)
	f("GET", "/healthz", "", 200)
}

// Only a POST of an array is a batch: for all else, and where the slash is
// written %2F, what looks like its path is the name of a key, as in Java.
func TestKeysNamedLikeTheDecryptBatch(t *testing.T) {
	f := func(method, rest, want string) {
		t.Helper()
		res, name := parsePath([]byte(rest))
		key, ok := asDecryptBatch([]byte(method), res, name)
		if ok != (want != "") || ok && string(key) != want {
			t.Errorf("%s %s: %q %v, want %q", method, rest, key, ok, want)
		}
	}
	f("POST", "/key/k/_decryptbatch", "k")
	f("POST", "/key/k/_decryptbatch/", "k")
	f("POST", "/key/k/_decryptbatch/_decryptbatch", "k/_decryptbatch")
	f("POST", "/key/k/_decryptbatch//", "")
	f("POST", "/key/k%2F_decryptbatch", "")
	f("POST", "/key/_decryptbatch", "")
	f("POST", "/key/k/_decryptbatch/_invalidatecache", "")
	f("POST", "/keyversion/k/_decryptbatch", "")
	for _, method := range []string{"GET", "HEAD", "DELETE", "OPTIONS", "PUT", "post"} {
		f(method, "/key/k/_decryptbatch", "")
	}

	k := newKMS(t)
	k.create(t, "k/_decryptbatch")
	contains(t, k.call(t, "GET", "/key/k/_decryptbatch", "").body, `"name" : "k/_decryptbatch"`)
	contains(t, k.call(t, "POST", "/key/k%2F_decryptbatch", "{}").body, `"k/_decryptbatch@1"`)
	contains(t, k.call(t, "POST", "/key/k/_decryptbatch", "{}").body, `"k/_decryptbatch@2"`)
	contains(t, k.call(t, "POST", "/key/k%2F_decryptbatch/_decryptbatch", "\ufeff \n[]").body, "[ ]")
	contains(t, remote(t, k.call(t, "POST", "/key/k%2F_decryptbatch", "[]"), 500, classIO), "a JSON object")
	contains(t, k.call(t, "GET", "/key/k%2F_decryptbatch/_metadata", "").body, `"versions" : 3`)
	if a := k.call(t, "DELETE", "/key/k/_decryptbatch", ""); a.StatusCode != 200 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

// hotBatch is a request for the decryption of n EDEKs.
func (k *kms) hotBatch(tb testing.TB, n int) *fasthttp.RequestCtx {
	body := batchBody(k.generate(tb, "k1", n))
	head, _, _ := bytes.Cut(k.hotRequest(tb, "decrypt"), []byte("Content-Length:"))
	head = bytes.Replace(head, []byte("/keyversion/k1%400/_eek?eek_op=decrypt"), []byte("/key/k1/_decryptbatch"), 1)
	return hotContext(tb, fmt.Appendf(nil, "%sContent-Length: %d\r\n\r\n%s", head, len(body), body))
}

// A batch costs a few allocations, none of them for an entry.
func TestDecryptBatchesHardlyAllocate(t *testing.T) {
	k := newKMS(t)
	k.create(t, "k1")
	for _, n := range []int{10, 1000} {
		ctx := k.hotBatch(t, n)
		body := bytes.Clone(ctx.Request.Body())
		handle := func() {
			copy(ctx.Request.Body(), body) // decoded in place
			ctx.Response.Reset()
			k.handle(ctx)
		}
		for range 50 {
			handle()
		}
		if ctx.Response.StatusCode() != 200 {
			t.Fatalf("%d %s", ctx.Response.StatusCode(), ctx.Response.Body())
		}
		allocations := testing.AllocsPerRun(200, handle)
		t.Logf("%d entries: %v allocations", n, allocations)
		if allocations > 10 && !race.Enabled {
			t.Errorf("%d entries: %v allocations", n, allocations)
		}
	}
}

// hotReencrypt is a request to re-encrypt n EDEKs of a version before the
// current one.
func (k *kms) hotReencrypt(tb testing.TB, n int) *fasthttp.RequestCtx {
	body := batchBody(k.generate(tb, "k1", n))
	if a := k.call(tb, "POST", "/key/k1", "{}"); a.StatusCode != 200 {
		tb.Fatalf("roll: %d %s", a.StatusCode, a.body)
	}
	head, _, _ := bytes.Cut(k.hotRequest(tb, "decrypt"), []byte("Content-Length:"))
	_, rest, _ := bytes.Cut(head, []byte("\r\n"))
	return hotContext(tb, fmt.Appendf(nil, "POST /kms/v1/key/k1/_reencryptbatch HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s", rest, len(body), body))
}

// hotGenerate is a request for n EDEKs.
func (k *kms) hotGenerate(tb testing.TB, n int) *fasthttp.RequestCtx {
	return hotContext(tb, bytes.Replace(k.hotRequest(tb, "generate"), []byte("num_keys=1&"), fmt.Appendf(nil, "num_keys=%d&", n), 1))
}

// BenchmarkMany is what requests for many EDEKs cost between parser and writer.
func BenchmarkMany(b *testing.B) {
	k := newKMS(b, func(c *Config) { c.Audit = audit.New(io.Discard, audit.Options{}) })
	k.create(b, "k1")
	f := func(name string, n int, ctx *fasthttp.RequestCtx) {
		b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
			body := bytes.Clone(ctx.Request.Body())
			b.ReportAllocs()
			cpu := cpuTime(b)
			for b.Loop() {
				copy(ctx.Request.Body(), body) // decoded in place
				ctx.Response.Reset()
				k.handle(ctx)
			}
			b.ReportMetric(float64(cpuTime(b)-cpu)/float64(b.N*n), "cpu-ns/EDEK")
			if ctx.Response.StatusCode() != fasthttp.StatusOK {
				b.Fatalf("%s", ctx.Response.Body())
			}
		})
	}
	f("generate", 150, k.hotGenerate(b, 150))
	f("generate", 500, k.hotGenerate(b, 500))
	f("decrypt", 1000, k.hotBatch(b, 1000))
	f("reencrypt", 1000, k.hotReencrypt(b, 1000))
}
