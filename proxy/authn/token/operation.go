package token

import (
	"bytes"
	"strconv"
)

// Operation is one of the three things a client may ask for by the parameter
// `op`, on any path.
type Operation string

const (
	Get    Operation = "GETDELEGATIONTOKEN"
	Renew  Operation = "RENEWDELEGATIONTOKEN"
	Cancel Operation = "CANCELDELEGATIONTOKEN"
)

// Names of the operations' parameters, which Hadoop compares exactly.
const (
	ParamOperation = "op"
	ParamRenewer   = "renewer" // of Get; the caller's short name if absent
	ParamService   = "service" // of Get
	ParamToken     = "token"   // of Renew and Cancel, required
)

// CannotCancel is the message of every cancellation that fails, a 404.
const CannotCancel = "Invalid delegation token, cannot cancel"

// ParseOperation returns the operation that a value of `op` names, in any case
// of letters. ok is false when it is none of the three: the request is then an
// ordinary one. A request with method OPTIONS is an ordinary one too.
func ParseOperation(value []byte) (op Operation, ok bool) {
	for _, op := range []Operation{Get, Renew, Cancel} {
		if len(value) == len(op) && string(bytes.ToUpper(value)) == string(op) {
			return op, true
		}
	}
	return "", false
}

// Method returns the one HTTP method that the operation takes.
func (op Operation) Method() string {
	if op == Get {
		return "GET"
	}
	return "PUT"
}

// NeedsCredential reports whether the sender must have authenticated by other
// means than a delegation token. To cancel a token one needs to have it only.
func (op Operation) NeedsCredential() bool { return op != Cancel }

// WrongMethod returns the message of the 400 for another method than Method.
func (op Operation) WrongMethod(method string) string {
	return "Wrong HTTP method [" + method + "] for operation [" + string(op) + "], it should be [" + op.Method() + "]"
}

// MissingToken returns the message of the 400 for a request without ParamToken.
func (op Operation) MissingToken() string {
	return "Operation [" + string(op) + "] requires the parameter [" + ParamToken + "]"
}

// AppendJSON appends the body that answers Get. Its type is application/json. (The
// newline that Hadoop writes behind it is lost: Jackson has closed the answer.)
func (t *Token) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"Token":{"urlString":"`...)
	dst = t.AppendURL(dst)
	return append(dst, `"}}`...)
}

// AppendRenewedJSON appends the body that answers Renew: the new renew date in
// ms since the epoch. Its type is application/json.
func AppendRenewedJSON(dst []byte, renewDate int64) []byte {
	dst = append(dst, `{"long":`...)
	dst = strconv.AppendInt(dst, renewDate, 10)
	return append(dst, '}')
}
