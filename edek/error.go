package edek

import (
	"errors"
	"strconv"
)

// Kind says what went wrong in terms that every room shares. The front end
// maps each kind to one status and one Java class; nothing below it knows HTTP.
type Kind uint8

const (
	NotFound        Kind = iota + 1 // no such key, or no such version of it
	Exists                          // a key of that name exists already
	Invalid                         // an argument breaks a documented rule
	BadParameter                    // a key length the algorithm does not have
	NoSuchAlgorithm                 // a cipher nobody can generate keys for
	WrongLength                     // material of another length than declared
	BadCipherInput                  // an IV or key the cipher refuses
	Unavailable                     // the store, the disk or a peer cannot serve now
	Conflict                        // somebody else changed it meanwhile
	Corrupt                         // stored bytes that do not open or parse
	Malformed                       // a request that is not what it claims to be, JSON above all
	WrongType                       // a JSON value of another type than the field has
	Unsettled                       // a change was passed on, and whether it happened, or what came of it, is not known
)

var kindNames = [...]string{
	NotFound: "not found", Exists: "exists", Invalid: "invalid", BadParameter: "bad parameter",
	NoSuchAlgorithm: "no such algorithm", WrongLength: "wrong length", BadCipherInput: "bad cipher input",
	Unavailable: "unavailable", Conflict: "conflict", Corrupt: "corrupt",
	Malformed: "malformed", WrongType: "wrong type", Unsettled: "unsettled",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// Error is the one error family of the key rooms. Text is what a Hadoop client
// gets to read, so where Hadoop has words for the case, Text is those words.
// It never contains key bytes.
type Error struct {
	Kind Kind
	Op   string // what was being done: "create", "roll", …
	Key  string // key or version name, empty when none is involved
	Text string
	Err  error // cause, nil when there is none
}

func (e *Error) Error() string {
	s := e.Op
	if e.Key != "" {
		s += " " + strconv.Quote(e.Key)
	}
	s += ": " + e.Text
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the outermost *Error in err's chain, 0 when there
// is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return 0
}
