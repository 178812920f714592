// Package authz decides who may do what: the two layers of kms-acls.xml.
//
// The KMS layer asks whether a user may call an operation at all
// (hadoop.kms.acl.*, hadoop.kms.blacklist.*); the key layer whether he may do
// it to this key (key.acl.*, default.key.acl.*, whitelist.key.acl.*). A caller
// of the KMS needs the first, then the second wherever the key exists and
// hadoop.kms.key.authorization.enable is true. Nobody is exempt from either.
//
// The rules are those of KMSACLs, KeyAuthorizationKeyProvider and
// AccessControlList of Hadoop 3.4, compared case by case with those classes
// (testdata/observed). There is one difference: where the groups of a user
// cannot be looked up, Java takes him to be in none and here the question has
// no answer. "No groups" would let in whom a blacklist shuts out.
//
// A Policy is one immutable reading of the file. An Authorizer answers by the
// Policy in force and remembers for a second what it learnt from groups.
package authz

import (
	"sync/atomic"
	"time"

	"github.com/edekd/edekd/edek"
)

// Groups looks up the groups of users.
type Groups interface {
	// Of returns the groups of a user, none for a user who has none or is not
	// known. The error is for a look-up that failed. The slice is only read.
	Of(user string) ([]string, error)
}

// Type is a right at the KMS layer (KMSACLs.Type), without regard to keys.
type Type uint8

// The types, as in hadoop.kms.acl.CREATE.
const (
	Create Type = iota
	Delete
	Rollover
	Get
	GetKeys
	GetMetadata
	SetKeyMaterial
	GenerateEEK
	DecryptEEK
	types
)

var typeNames = [types]string{"CREATE", "DELETE", "ROLLOVER", "GET", "GET_KEYS", "GET_METADATA",
	"SET_KEY_MATERIAL", "GENERATE_EEK", "DECRYPT_EEK"}

// String is the type's name in properties.
func (t Type) String() string { return typeNames[t] }

// Right is a right to a key (KeyAuthorizationKeyProvider.KeyOpType).
type Right uint8

// The rights, as in key.acl.k.READ. keyAll, in the rules of one key, stands
// for all others.
const (
	KeyManagement Right = iota
	KeyGenerateEEK
	KeyDecryptEEK
	KeyRead
	keyAll
	rights
)

var rightNames = [rights]string{"MANAGEMENT", "GENERATE_EEK", "DECRYPT_EEK", "READ", "ALL"}

// String is the right's name in properties and denials.
func (r Right) String() string { return rightNames[r] }

// Denied is the answer no. Its text is the Java KMS's: users know it and look
// for it. The front end owes it Hadoop's AuthorizationException.
type Denied struct {
	text string
}

func (d *Denied) Error() string { return d.text }

// Is makes every denial an ErrDenied to errors.Is.
func (d *Denied) Is(target error) bool { return target == ErrDenied }

// ErrDenied is what an Authorizer says no with. The caller replaces it by the
// denial that tells the user what was refused.
var ErrDenied error = &Denied{"access denied"}

// OperationDenied is the refusal of the KMS layer. operation is the name of
// the call in the audit log; key is nil for calls whose denial names none.
func OperationDenied(user, operation string, key []byte) error {
	text := "User:" + user + " not allowed to do '" + operation + "'"
	if key != nil {
		text += " on '" + string(key) + "'"
	}
	return &Denied{text}
}

// KeyDenied is the refusal of the key layer.
func KeyDenied(user string, right Right, aclName string) error {
	return &Denied{"User [" + user + "] is not authorized to perform [" + right.String() + "] on key with ACL name [" + aclName + "]!!"}
}

// CreateDenied is the key layer's refusal of a new key.
func CreateDenied(user string) error {
	return &Denied{"User [" + user + "] is not authorized to create key !!"}
}

// GroupsBelieved is how long an answer that rests on a user's groups is given
// again without asking Groups. It adds to the time that Groups itself keeps
// what it knows, and is all there is to add: a change of rules counts at once.
const GroupsBelieved = time.Second

// Authorizer answers by the policy in force. Its methods are safe for
// concurrent use and do not allocate where the answer is yes and remembered or
// found without groups.
type Authorizer struct {
	state atomic.Pointer[state]
}

// state is what answers rest on, with the answers that were given: they are
// gone when it is.
type state struct {
	policy *Policy
	groups Groups
	memo   *memo
	// grouped says of each kind of question whether the last one could not be
	// answered without groups: the next is looked for in the memo first.
	grouped [2][types]atomic.Bool
}

// New returns an Authorizer with a policy in force.
func New(p *Policy, groups Groups) *Authorizer {
	a := &Authorizer{}
	a.Set(p, groups)
	return a
}

// Set puts a policy in force, and where groups come from. Nothing that was
// remembered before survives: every check that begins after Set returned is by
// these two, also if they are the same as before.
func (a *Authorizer) Set(p *Policy, groups Groups) {
	a.state.Store(&state{policy: p, groups: groups, memo: newMemo(MemoBytes)})
}

// MemoryBytes is the memory that remembered answers take, at most MemoBytes.
func (a *Authorizer) MemoryBytes() int64 { return a.state.Load().memo.bytes() }

// KMS asks the KMS layer: nil, ErrDenied, or a look-up of groups that failed,
// which is of the kind edek.Unavailable. Strings in c may be borrowed.
func (a *Authorizer) KMS(t Type, c *edek.Caller) error {
	return a.ask(question{layer: layerKMS, what: uint8(t), user: c.User, real: c.Real})
}

// Key asks the key layer about the key whose ACL name is given: the value of
// its attribute edek.AttributeACLName, else its own name. The answers are those of
// KMS. aclName may be a view of bytes that change after the call.
func (a *Authorizer) Key(right Right, aclName string, c *edek.Caller) error {
	return a.ask(question{layer: layerKey, what: uint8(right), user: c.User, real: c.Real, name: aclName})
}

// CreateKey asks the key layer about a new key. given is the request's
// attribute edek.AttributeACLName, "" for none. Where the answer is nil, aclName is
// what the attribute of the new key has to say: a key is born with the name of
// the rules that let it be made.
func (a *Authorizer) CreateKey(name, given string, c *edek.Caller) (aclName string, err error) {
	if aclName = given; aclName == "" {
		aclName = name
	}
	return aclName, a.Key(KeyManagement, aclName, c)
}

func (a *Authorizer) ask(q question) error {
	s := a.state.Load()
	s.policy.generalize(&q)
	w := who{user: q.user, real: q.real}
	grouped := &s.grouped[q.layer][q.what]
	first := grouped.Load()
	if !first {
		if v := s.policy.decide(&q, &w); v.decided {
			return v.err()
		}
		grouped.Store(true)
	}
	now := s.memo.now()
	hash := s.memo.hash(&q)
	if e := s.memo.get(hash, &q); e != nil && now < e.until {
		return e.err
	}
	if first {
		if v := s.policy.decide(&q, &w); v.decided {
			grouped.Store(false)
			return v.err()
		}
	}
	if err := w.ask(s.groups); err != nil {
		return err
	}
	err := s.policy.decide(&q, &w).err()
	s.memo.put(hash, &q, err, now)
	return err
}
