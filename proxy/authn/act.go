package authn

import (
	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/proxy/authn/token"
)

// ActKind is what it takes to act for somebody else.
type ActKind uint8

// The kinds of acts. Of Impersonate and UseToken only refusals are told: what
// somebody does who was let in has its own lines.
const (
	Impersonate ActKind = iota // doAs
	UseToken                   // a delegation token in the place of another proof
	GetToken
	RenewToken
	CancelToken
)

// Act is one of those, done or refused.
type Act struct {
	Kind ActKind
	// Caller is who asked for it: of Impersonate the user named and who wanted to
	// act for that one, both names as the sender gave them. Zero: nobody is known.
	Caller edek.Caller
	// Sequence is the number of the token; nil: there is none, or it cannot be
	// read. Of a refused token it is what the sender says.
	Sequence *int32
	Refusal  string // why not; empty: it was done
}

var actsOfOperations = map[token.Operation]ActKind{token.Get: GetToken, token.Renew: RenewToken, token.Cancel: CancelToken}

// actOf is an act of id's, who may be nil.
func actOf(kind ActKind, id *Identity) *Act {
	act := &Act{Kind: kind}
	if id != nil {
		act.Caller = id.Caller
	}
	return act
}

// refusedToken is the act of who brings a token that is not good. Nothing in it
// says who that is.
func refusedToken(text []byte) *Act { return actOf(UseToken, nil).numbered(token.Claimed(text)) }

// numbered adds the number of a token that can be read.
func (act *Act) numbered(id token.Identifier, err error) *Act {
	if err == nil {
		act.Sequence = &id.Sequence
	}
	return act
}

func (act *Act) refused(err *token.Error) *Act {
	act.Refusal = err.Error()
	return act
}
