package proxy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/cache"
	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/keys"
)

// loadable are the classes that a Hadoop client finds on its class path, with
// a constructor that takes a message: it throws what it is told to. The others
// only name the Java server's own failure; clients then throw an IOException.
var loadable = map[class]bool{
	classIO: true, classIllegalArgument: true, classInvalidParameter: true, classCast: true, classNullPointer: true, classInternal: true,
	classUndeclared:        false, // no constructor of that kind
	classNoSuchPath:        false,
	classQueryParam:        false,
	classNotAcceptedMethod: false,
}

func TestEveryKindHasAnAnswer(t *testing.T) {
	kinds := 0
	for k := edek.Kind(1); k.String() != fmt.Sprintf("kind %d", k); k++ {
		kinds++
		a, text := describe(fmt.Errorf("wrapped: %w", &edek.Error{Kind: k, Op: "op", Key: "key", Text: "text", Err: errors.New("cause")}))
		want, ok := faults[k]
		if !ok || a != want || text != "text" {
			t.Errorf("%v: %v %q", k, a, text)
		}
		if a.status != fasthttp.StatusBadRequest && a.status != fasthttp.StatusInternalServerError {
			t.Errorf("%v: status %d, which no Hadoop KMS gives", k, a.status)
		}
		if _, known := loadable[a.class]; !known {
			t.Errorf("%v: class %s is none that clients know", k, a.class)
		}
	}
	if kinds != len(faults) {
		t.Errorf("%d kinds, %d answers", kinds, len(faults))
	}
}

// A failure that another server may not have must make clients try it.
func TestWhatAnotherServerMayDoIsAnIOException(t *testing.T) {
	for _, k := range []edek.Kind{edek.Unavailable, edek.Conflict, edek.Corrupt} {
		if a := faults[k]; a.status != 500 || a.class != classIO {
			t.Errorf("%v: %v", k, a)
		}
	}
	a, text := describe(errors.New("pq: password of user edekd"))
	if a.status != 500 || a.class != classIO || text != "the server could not do this; its log says why" {
		t.Errorf("%v %q", a, text)
	}
}

func TestSimpleName(t *testing.T) {
	f := func(c class, want string) {
		t.Helper()
		if got := c.simpleName(); got != want {
			t.Errorf("%s: %s", c, got)
		}
	}
	f(classIO, "IOException")
	f(classQueryParam, "QueryParamException")
	f("NoPackage", "NoPackage")
}

func TestWriteError(t *testing.T) {
	f := func(message, wantMessage string) {
		t.Helper()
		var ctx fasthttp.RequestCtx
		WriteError(&ctx, 403, "AuthorizationException", "org.apache.hadoop.security.authorize.AuthorizationException", message)
		want := `{
  "RemoteException" : {
    "message" : ` + wantMessage + `,
    "exception" : "AuthorizationException",
    "javaClassName" : "org.apache.hadoop.security.authorize.AuthorizationException"
  }
}`
		if got := string(ctx.Response.Body()); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if ctx.Response.StatusCode() != 403 || string(ctx.Response.Header.ContentType()) != "application/json" {
			t.Errorf("%d %s", ctx.Response.StatusCode(), ctx.Response.Header.ContentType())
		}
	}
	f("User:x not allowed to do 'CREATE_KEY' on 'k'", `"User:x not allowed to do 'CREATE_KEY' on 'k'"`)
	f("", `""`)
	f("first\nsecond", `"first"`)
	f("a\"b\r\x00\xff", "\"a\\\"b\\r\\u0000\uFFFD\"")
}

// away is a store that cannot be reached.
type away struct{ keys.Provider }

func (away) Metadata(_ context.Context, name string) (*edek.Metadata, error) {
	return nil, &edek.Error{Kind: edek.Unavailable, Op: "metadata", Key: name, Text: "there is no way there"}
}
func (away) Close() error { return nil }

// While a store is away all requests fail. That fills no disk: neither with lines nor
// with what clients write into them.
func TestFailuresFillNoLog(t *testing.T) {
	cached, err := cache.New(away{}, cache.Config{Idle: time.Hour, CurrentAge: time.Hour, Suite: edek.AESCTR, Metrics: metrics.NewSet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cached.Close)
	k := newKMS(t, func(c *Config) { c.Cache = cached })
	began := time.Now()
	for range 10 * failuresLogged {
		if a := k.call(t, "GET", "/key/"+strings.Repeat("k", 3000)+"/_metadata?user.name=alice", ""); a.StatusCode != 500 {
			t.Fatal(a.StatusCode, a.body)
		}
	}
	seconds := int(time.Since(began)/time.Second) + 1
	lines := 0
	for line := range strings.Lines(k.log.String()) {
		if strings.Contains(line, "request failed") {
			lines++
			if len(line) > 1500 {
				t.Errorf("a line of %d bytes", len(line))
			}
		}
	}
	if lines < failuresLogged || lines > (seconds+1)*failuresLogged {
		t.Errorf("%d lines in %d s", lines, seconds)
	}
}
