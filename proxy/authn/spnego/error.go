package spnego

import (
	"fmt"
	"strconv"
)

// Kind says why a token was not accepted.
type Kind int

// The kinds of refusal.
const (
	Malformed   Kind = iota // not a token, or not one that is whole
	Mechanism               // of a mechanism other than Kerberos, or of one that the client prefers to Kerberos
	Service                 // for a service that this server is not
	NoKey                   // for this server, but encrypted with a key that its keytab has not
	Enctype                 // encrypted with RC4, DES or something unknown
	Integrity               // does not decrypt with the key it names: forged, damaged or of a key since replaced
	NotYetValid             // a ticket of the future
	Expired                 // a ticket of the past
	Skew                    // clocks too far apart
	Name                    // of a client whose name has no written form that is unique, or who is nobody
	Replay                  // seen before
	Full                    // fresh perhaps, but there is no room to remember it
	Internal                // a mistake of ours
)

// Error is the refusal of a token.
type Error struct {
	Kind Kind
	// Text is for the sender, worded as Java's GSS words it: printable ASCII,
	// of bounded length, without what only the server's administrator may know.
	Text string
	// Detail is for the log: what to look at on this side. It may be empty.
	Detail string
}

// Error returns Text and Detail.
func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Text
	}
	return e.Text + ": " + e.Detail
}

// Retry reports whether the client is to try again with a fresh token. The
// answer is then 401 with the header "WWW-Authenticate: Negotiate" without a
// token. It is 403 with Text as the reason for all other errors.
func (e *Error) Retry() bool { return e.Kind == Replay || e.Kind == Full }

// The major status that Java's GSSException begins with.
const (
	gssFailure        = "Failure unspecified at GSS-API level"
	gssDefectiveToken = "Defective token detected"
	gssBadMechanism   = "Unsupported mechanism requested"
)

// maxQuoted bounds what is repeated of a name that somebody else chose.
const maxQuoted = 200

func refuse(kind Kind, format string, args ...any) *Error {
	status := gssFailure
	switch kind {
	case Malformed:
		status = gssDefectiveToken
	case Mechanism:
		status = gssBadMechanism
	}
	return &Error{Kind: kind, Text: fmt.Sprintf("GSSException: %s (Mechanism level: %s)", status, fmt.Sprintf(format, args...))}
}

// because adds what the log says and the sender does not learn.
func (e *Error) because(format string, args ...any) *Error {
	e.Detail = fmt.Sprintf(format, args...)
	return e
}

// quoted renders a name that arrived in clear text.
func quoted(name string) string {
	return strconv.QuoteToASCII(name[:min(len(name), maxQuoted)])
}
