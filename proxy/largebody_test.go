package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/proxy/authn"
)

// batchHeaders announce a batch of n bytes, from whoever query says.
func batchHeaders(query string, n int) string {
	return fmt.Sprintf("POST /kms/v1/key/k/_reencryptbatch%s HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", query, n)
}

func TestLargeBodyOfNobodyIsNotAwaited(t *testing.T) {
	k := newKMS(t)
	for _, n := range []int{64<<10 + 1, 16 << 20} {
		c := k.dial(t)
		c.send(t, batchHeaders("", n)) // and no byte of the body
		a := c.answer(t, "POST")
		if a.StatusCode != 401 || a.Header.Get("WWW-Authenticate") != "PseudoAuth" {
			t.Errorf("%d bytes: %d %v", n, a.StatusCode, a.Header)
		}
		c.closed(t)
	}
	if n := k.large.inUse.Load(); n != 0 {
		t.Errorf("%d bytes still reserved", n)
	}
	if log := k.closedAudit(t); strings.Count(log, "UNAUTHENTICATED") != 2 {
		t.Errorf("audit log:\n%s", log)
	}
}

func TestLargeBodiesShareABudget(t *testing.T) {
	k := newKMS(t)
	const size = 16 << 20
	var waiting []*client
	for range largeBodyBudget / size {
		c := k.dial(t)
		c.send(t, batchHeaders("?user.name=x", size))
		waiting = append(waiting, c)
	}
	deadline := time.Now().Add(10 * time.Second)
	for k.large.inUse.Load() < largeBodyBudget {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes reserved", k.large.inUse.Load())
		}
		time.Sleep(time.Millisecond)
	}
	over := k.dial(t)
	over.send(t, batchHeaders("?user.name=x", size))
	if a := over.answer(t, "POST"); a.StatusCode != 500 || !strings.Contains(a.body, `"java.io.IOException"`) || !strings.Contains(a.body, "try again") {
		t.Errorf("beyond the budget: %d %s", a.StatusCode, a.body)
	}
	if a := k.call(t, "POST", "/key/k/_reencryptbatch", "[]"); a.StatusCode != 200 {
		t.Errorf("a small batch meanwhile: %d %s", a.StatusCode, a.body)
	}
	for _, c := range waiting {
		c.Close() // gives up in the middle of the body
	}
	for k.large.inUse.Load() > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes reserved after everybody left", k.large.inUse.Load())
		}
		time.Sleep(time.Millisecond)
	}
	body := "[" + strings.Repeat(" ", 100<<10) + "]"
	if a := k.call(t, "POST", "/key/k/_reencryptbatch", body); a.StatusCode != 200 || k.large.inUse.Load() != 0 {
		t.Errorf("a large batch later: %d %s, %d bytes reserved", a.StatusCode, a.body, k.large.inUse.Load())
	}
}

func TestAnswersAreBounded(t *testing.T) {
	k := newKMS(t, func(c *Config) { c.Limits.BatchBody = 50_000 })
	long := strings.Repeat("n", 5000)
	k.create(t, long)
	if a := k.call(t, "GET", "/key/"+long+"/_eek?eek_op=generate&num_keys=20", ""); a.StatusCode != 400 || !strings.Contains(a.body, "ask for fewer") {
		t.Errorf("generate: %d %.200s", a.StatusCode, a.body)
	}
	if a := k.call(t, "GET", "/keys/metadata?"+strings.Repeat("key="+long+"&", 11), ""); a.StatusCode != 400 || !strings.Contains(a.body, "ask for fewer") {
		t.Errorf("metadata: %d %.200s", a.StatusCode, a.body)
	}
}

func TestCrowdedBatchIsRefusedBeforeItIsParsed(t *testing.T) {
	for _, body := range []string{
		"[" + strings.Repeat("0,", 20) + "0]",
		"[" + strings.Repeat(`{"versionName":"k@0"},`, 20) + "{}]",
	} {
		if _, err := parseBatch(nil, []byte(body), 20); err == nil || !strings.Contains(err.Error(), "at most 20") {
			t.Errorf("%s: %v", body, err)
		}
	}
	if entries, err := parseBatch(nil, []byte("["+strings.Repeat("{},", 19)+"{}]"), 20); err != nil || len(entries) != 20 {
		t.Errorf("20 of 20: %d, %v", len(entries), err)
	}
}

func TestNameWithNULIsRefused(t *testing.T) {
	k := newKMS(t)
	if a := k.call(t, "POST", "/keys", `{"name":"a\u0000b"}`); a.StatusCode != 400 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

func TestTwoLengthsAreRefusedAlsoWithoutBody(t *testing.T) {
	k := newKMS(t)
	a := k.raw(t, "POST /kms/v1/key/k/_invalidatecache?user.name=x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 1)[0]
	if a.StatusCode != 400 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

// Who sends a large body is asked outside the handler, where nothing but this
// keeps a panic from ending the process.
func TestPanicBeforeTheBodyIsSurvived(t *testing.T) {
	k := newKMS(t, func(c *Config) { c.Authn = new(authn.Authenticator) })
	c := k.dial(t)
	c.send(t, batchHeaders("?user.name=x", 1<<20))
	if a := c.answer(t, "POST"); a.StatusCode != 400 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a := k.raw(t, "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n", 1)[0]; a.StatusCode != 200 {
		t.Errorf("afterwards: %d", a.StatusCode)
	}
}

// What nobody comes back for is given back when it is overdue, and only then.
func TestReservationsOfLostBodiesEnd(t *testing.T) {
	var l largeBodies
	now := time.Now()
	var lost, arrived fasthttp.RequestHeader
	if !l.take(&lost, largeBodyBudget/2, now) || !l.take(&arrived, largeBodyBudget/2, now) {
		t.Fatal("the budget is not to be had")
	}
	l.claim(&arrived)
	var next fasthttp.RequestHeader
	if l.take(&next, 1, now.Add(bodyOverdue)) {
		t.Error("more than the budget")
	}
	if !l.take(&next, 1, now.Add(bodyOverdue+2*time.Second)) {
		t.Error("a lost body keeps its share")
	}
	if n := l.inUse.Load(); n != largeBodyBudget/2+1 {
		t.Errorf("%d bytes in use", n)
	}
	l.giveBack(&arrived)
	l.giveBack(&next)
	if n := l.inUse.Load(); n != 0 || len(l.held) != 0 {
		t.Errorf("%d bytes in use, %d reservations", n, len(l.held))
	}
}
