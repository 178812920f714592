package authn

import "github.com/edekd/edekd/edek"

// How somebody authenticated. Cookies of another type than that of the
// configuration are refused.
const (
	TypeSimple   = "simple-dt"   // of `simple` authentication
	TypeKerberos = "kerberos-dt" // of `kerberos` authentication
	TypeUnix     = "simple-unix" // by the kernel's word on a Unix socket; no cookie has it
	TypeToken    = "token"       // by a delegation token; no cookie has it
)

// Identity is who sent a request. It is immutable and may be kept for as long
// as anybody likes; it says who somebody was when it was made.
type Identity struct {
	Caller   edek.Caller
	RealFull string // full name of the real user behind a proxied call, empty when not proxied
	Type     string // how they authenticated, one of the types above
	Expires  int64  // when that ends, ms since the epoch; cookie.Never: it does not
	// Generation counts the changes of name rules and proxy users; the identity
	// was made by those of this number.
	Generation uint64
}

// textBytes is the length of the names, which may share memory with others.
func (id *Identity) textBytes() int {
	return len(id.Caller.User) + len(id.Caller.Full) + len(id.Caller.Real) + len(id.RealFull)
}

// Auth is how they authenticated in one word: simple, kerberos, unix or token.
func (id *Identity) Auth() string {
	switch id.Type {
	case TypeKerberos:
		return "kerberos"
	case TypeUnix:
		return "unix"
	case TypeToken:
		return "token"
	}
	return "simple"
}

// proxiedBy returns the identity of somebody whom real acts for. user and full
// are their short and full names.
func proxiedBy(real *Identity, user, full string) Identity {
	return Identity{
		Caller:     edek.Caller{User: user, Full: full, Real: real.Caller.User},
		RealFull:   real.Caller.Full,
		Type:       real.Type,
		Expires:    real.Expires,
		Generation: real.Generation,
	}
}
