package proxy

import (
	"errors"
	"fmt"
	"testing"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/edek"
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
