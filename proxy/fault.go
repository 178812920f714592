package proxy

import (
	"errors"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/proxy/authz"
)

// class is a Java exception class. Clients load it by name and throw it, so it
// decides what they do next: an IOException makes them try the next host, an
// IllegalArgumentException stops them (KMSClientProvider,
// LoadBalancingKMSClientProvider).
type class string

const (
	classIO                = class("java.io.IOException")
	classIllegalArgument   = class("java.lang.IllegalArgumentException")
	classInvalidParameter  = class("java.security.InvalidParameterException")
	classUndeclared        = class("java.lang.reflect.UndeclaredThrowableException")
	classCast              = class("java.lang.ClassCastException")
	classNullPointer       = class("java.lang.NullPointerException")
	classAuthorization     = class("org.apache.hadoop.security.authorize.AuthorizationException")
	classInternal          = class("java.lang.RuntimeException")
	classNoSuchPath        = class("com.sun.jersey.api.NotFoundException")
	classQueryParam        = class("com.sun.jersey.api.ParamException$QueryParamException")
	classNotAcceptedMethod = class("javax.ws.rs.WebApplicationException")
)

// simpleName is the name without package and outer class.
func (c class) simpleName() string {
	return string(c[strings.LastIndexAny(string(c), ".$")+1:])
}

// answer is how an error looks on the wire.
type answer struct {
	status int
	class  class
}

// faults maps what went wrong to what a Hadoop client is told. There is no
// 404 and no 409 in the key interface: not found is `{ }`, 400 or 500 by
// operation, a conflict is 500 (KMSExceptionsProvider).
var faults = map[edek.Kind]answer{
	edek.NotFound:        {fasthttp.StatusInternalServerError, classIO},
	edek.Exists:          {fasthttp.StatusInternalServerError, classIO},
	edek.Invalid:         {fasthttp.StatusBadRequest, classIllegalArgument},
	edek.BadParameter:    {fasthttp.StatusBadRequest, classInvalidParameter},
	edek.NoSuchAlgorithm: {fasthttp.StatusInternalServerError, classUndeclared},
	edek.WrongLength:     {fasthttp.StatusInternalServerError, classIO},
	edek.BadCipherInput:  {fasthttp.StatusInternalServerError, classIO},
	edek.Unavailable:     {fasthttp.StatusInternalServerError, classIO},
	edek.Conflict:        {fasthttp.StatusInternalServerError, classIO},
	edek.Corrupt:         {fasthttp.StatusInternalServerError, classIO},
	edek.Malformed:       {fasthttp.StatusInternalServerError, classIO},
	edek.WrongType:       {fasthttp.StatusInternalServerError, classCast},
	// A 500 would make clients send the change again, here or elsewhere.
	edek.Unsettled: {fasthttp.StatusBadRequest, classInternal},
}

// fault is an error that has its answer with it, for the few cases where the
// kind alone does not decide.
type fault struct {
	answer
	text string
}

func (f *fault) Error() string { return f.text }

func illegalArgument(text string) error {
	return &fault{answer{fasthttp.StatusBadRequest, classIllegalArgument}, text}
}

// describe turns an error into status, class and message. What is not in the
// family is ours to mend; the client learns only that.
func describe(err error) (answer, string) {
	if f, ok := errors.AsType[*fault](err); ok {
		return f.answer, f.text
	}
	if d, ok := errors.AsType[*authz.Denied](err); ok {
		return answer{fasthttp.StatusForbidden, classAuthorization}, d.Error()
	}
	if f, ok := errors.AsType[*edek.Foreign](err); ok {
		return answer{f.Status, class(f.Class)}, f.Text
	}
	if e, ok := errors.AsType[*edek.Error](err); ok {
		if a, ok := faults[e.Kind]; ok {
			return a, e.Text
		}
	}
	return answer{fasthttp.StatusInternalServerError, classIO}, "the server could not do this; its log says why"
}

// WriteError writes a complete answer in the shape of Hadoop's RemoteException.
// Only the first line of message is sent. A reason phrase always goes with the
// status: the Java client dereferences that of a 403 unchecked.
func WriteError(ctx *fasthttp.RequestCtx, status int, exception, class, message string) {
	message, _, _ = strings.Cut(message, "\n")
	b := make([]byte, 0, 256)
	b = append(b, "{\n  \"RemoteException\" : {\n    \"message\" : "...)
	b = appendString(b, message)
	b = append(b, ",\n    \"exception\" : "...)
	b = appendString(b, exception)
	b = append(b, ",\n    \"javaClassName\" : "...)
	b = appendString(b, class)
	b = append(b, "\n  }\n}"...)
	ctx.SetStatusCode(status)
	ctx.Response.Header.SetContentType(contentTypeJSON)
	ctx.Response.SetBodyRaw(b)
}

const contentTypeJSON = "application/json"
