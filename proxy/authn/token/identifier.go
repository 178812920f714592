package token

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/edekd/edekd/hadoop/writable"
)

// Kind is the kind of KMS delegation tokens (KMSDelegationToken.TOKEN_KIND_STR).
const Kind = "kms-dt"

// NameMax is the length in bytes of the longest name an identifier may hold.
// Hadoop's limit is a megabyte, far more than a request header can carry.
const NameMax = 1024

// issueNameMax is the length of the longest name this server puts into a token,
// so that the number of tokens bounds the memory they take.
const issueNameMax = 256

// identifierVersion is the only version there ever was.
const identifierVersion = 0

// Identifier is what a token says about itself. Nothing in it is to be believed
// before a Manager has verified the token.
type Identifier struct {
	Owner    string // whom the token acts for, not empty
	Renewer  string // short name of who may renew it; empty: nobody
	RealUser string // who asked for it in the owner's name; empty: the owner
	Issued   int64  // ms since the epoch
	MaxDate  int64  // the last moment to which it can be renewed, ms since the epoch
	Sequence int32
	KeyID    int32 // of the master key that made the password
}

// Append appends the identifier as AbstractDelegationTokenIdentifier writes it.
func (id *Identifier) Append(dst []byte) []byte {
	dst = append(dst, identifierVersion)
	dst = writable.AppendText(dst, id.Owner)
	dst = writable.AppendText(dst, id.Renewer)
	dst = writable.AppendText(dst, id.RealUser)
	dst = writable.AppendVLong(dst, id.Issued)
	dst = writable.AppendVLong(dst, id.MaxDate)
	dst = writable.AppendVInt(dst, id.Sequence)
	return writable.AppendVInt(dst, id.KeyID)
}

// String returns the text that Hadoop's messages put in parentheses.
func (id *Identifier) String() string {
	b := append([]byte(Kind), " owner="...)
	b = append(append(b, id.Owner...), ", renewer="...)
	b = append(append(b, id.Renewer...), ", realUser="...)
	b = append(append(b, id.RealUser...), ", issueDate="...)
	b = append(strconv.AppendInt(b, id.Issued, 10), ", maxDate="...)
	b = append(strconv.AppendInt(b, id.MaxDate, 10), ", sequenceNumber="...)
	b = append(strconv.AppendInt(b, int64(id.Sequence), 10), ", masterKeyId="...)
	return string(strconv.AppendInt(b, int64(id.KeyID), 10))
}

// Real returns who stands behind the owner, empty when it is the owner, as
// Hadoop has it: a real user of the owner's name counts as none.
func (id *Identifier) Real() string {
	if id.RealUser == id.Owner {
		return ""
	}
	return id.RealUser
}

// ReadIdentifier reads an identifier from r, which stands behind it afterwards:
// ZooKeeper's nodes hold more than the identifier. Only what Append writes is
// accepted, so that two identifiers are equal exactly when their bytes are. The
// errors are those of writable.Reader and of identifiers of another version.
func ReadIdentifier(r *writable.Reader) (Identifier, error) {
	if v := int8(r.Byte()); v != identifierVersion && r.Err() == nil {
		return Identifier{}, fmt.Errorf("Unknown version of delegation token %d", v) //nolint:staticcheck // Hadoop's words
	}
	id := Identifier{
		Owner:    r.Text(NameMax),
		Renewer:  r.Text(NameMax),
		RealUser: r.Text(NameMax),
		Issued:   r.VLong(),
		MaxDate:  r.VLong(),
		Sequence: r.VInt(),
		KeyID:    r.VInt(),
	}
	if err := r.Err(); err != nil {
		return Identifier{}, err
	}
	return id, nil
}

// errTrailing says that something stands behind the end. Hadoop overlooks it.
var errTrailing = errors.New("more data than a delegation token has")

// ParseIdentifier reads an identifier that takes all of b.
func ParseIdentifier(b []byte) (Identifier, error) {
	r := writable.NewReader(b)
	id, err := ReadIdentifier(r)
	if err == nil && len(r.Rest()) > 0 {
		err = errTrailing
	}
	if err != nil {
		return Identifier{}, err
	}
	return id, nil
}
