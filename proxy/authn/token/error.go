package token

import (
	"errors"
	"time"

	"github.com/edekd/edekd/hadoop/writable"
)

// Java classes of the errors. Their names are part of what clients are told.
const (
	ClassInvalidToken  = "org.apache.hadoop.security.token.SecretManager$InvalidToken"
	ClassAccessControl = "org.apache.hadoop.security.AccessControlException"
	ClassEOF           = "java.io.EOFException"
	ClassIO            = "java.io.IOException"
)

// Error says why a token, or what was asked of it, was refused; the fault is the
// sender's. Every other error of a Manager means that its store could not be
// asked, and that another server, or this one later, may well say yes.
type Error struct {
	Class   string // name of the Java class
	Message string // in Hadoop's words; may be empty
}

// Error returns class and message as Java's Throwable.toString does, which is
// what Hadoop's answers carry.
func (e *Error) Error() string {
	if e.Message == "" {
		return e.Class
	}
	return e.Class + ": " + e.Message
}

func invalid(message string) *Error { return &Error{ClassInvalidToken, message} }
func denied(message string) *Error  { return &Error{ClassAccessControl, message} }

// undecodable is the error for a token or identifier that cannot be parsed. A
// length beyond the data is the end of it, as in Java.
func undecodable(err error) *Error {
	if errors.Is(err, writable.ErrEnd) {
		return &Error{Class: ClassEOF}
	}
	return &Error{ClassIO, err.Error()}
}

// formatTime is Hadoop's Time.formatTime, in the local time zone.
func formatTime(ms int64) string {
	return time.UnixMilli(ms).Format("2006-01-02 15:04:05,000-0700")
}
