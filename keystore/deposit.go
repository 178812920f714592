// Package keystore says what a deposit box is: opaque contents kept under
// handles, changed only by compare-and-swap, and never acknowledged before
// they are durable. Who stores them (a file, a database, a pair of hosts) is
// the business of the packages below it; what the contents mean is the
// business of the rooms above. A box reads no content: keys arrive sealed.
package keystore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Limits every box enforces, so that a deposit accepted by one fits all.
const (
	MaxHandle  = 200 << 10 // bytes: a percent-escaped key name of 64 KiB and its generation
	MaxContent = 16 << 20  // bytes
)

// Errors of a Depositor, to be found with errors.Is.
var (
	// ErrNotFound: nothing was ever put under the handle, or it was purged.
	ErrNotFound = errors.New("no such deposit")
	// ErrConflict: the deposit is not at the revision the caller expected.
	ErrConflict = errors.New("deposit changed meanwhile")
	// ErrInvalid: a handle or content that no box accepts (CheckPut).
	ErrInvalid = errors.New("not a valid deposit")
	// ErrFull: the box has no space left. The write was not done.
	ErrFull = errors.New("no space left for the key store")
	// ErrUnknownOutcome: the write may or may not have happened (the disk or
	// the network failed during commit). Read back before trying again.
	ErrUnknownOutcome = errors.New("outcome of the write is unknown")
)

// Deposit is what lies under a handle.
type Deposit struct {
	Handle   string // [A-Za-z0-9._~%/-], see MaxHandle
	Revision int64  // 1 for the first Put, one more for each that replaced it
	Content  []byte // owned by whoever received the Deposit
	Created  time.Time
	Modified time.Time
	Deleted  bool // a tombstone: content and revision are those at deletion
}

// CheckPut says whether a box may accept a deposit; the error is ErrInvalid.
// Every Depositor calls it before it stores anything.
func CheckPut(handle string, content []byte) error {
	if handle == "" || len(handle) > MaxHandle {
		return fmt.Errorf("%w: its handle has %d bytes, allowed are 1 to %d", ErrInvalid, len(handle), MaxHandle)
	}
	if len(content) > MaxContent {
		return fmt.Errorf("%w: its content has %d bytes, allowed are %d", ErrInvalid, len(content), MaxContent)
	}
	for i := 0; i < len(handle); i++ {
		switch c := handle[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("._~%/-", c) >= 0:
		default:
			return fmt.Errorf("%w: byte %#02x at offset %d of its handle", ErrInvalid, c, i)
		}
	}
	return nil
}

// Reader is the side of a deposit box that looks. All methods are safe for
// concurrent use.
type Reader interface {
	// Get returns the deposit under handle, a tombstone included, or
	// ErrNotFound.
	Get(ctx context.Context, handle string) (*Deposit, error)

	// List calls visit for each deposit whose handle begins with prefix,
	// tombstones included, in descending byte order of handles, so that of
	// numbered deposits the newest comes first, until visit returns false.
	// What visit does not ask for is not read. The deposits are one
	// consistent snapshot. visit must not call the box.
	List(ctx context.Context, prefix string, visit func(*Deposit) bool) error

	// Handles is List for the handles of the deposits that are no tombstones,
	// at a cost that depends neither on contents nor on tombstones. However
	// many of these walks are asked for, Get and List do not wait for them.
	Handles(ctx context.Context, prefix string, visit func(handle string) bool) error
}

// Depositor is a deposit box. All methods are safe for concurrent use. A
// write returns when its outcome is known and durable; when the context ends
// before the box has begun the write, it is not done and the error is the
// context's.
type Depositor interface {
	Reader

	// Put stores content under handle if the deposit there is at revision
	// expect, 0 meaning that none exists, not even a tombstone. It returns
	// the new revision, expect+1, so that a caller can bind content to it
	// before storing. A mismatch, and any Put upon a tombstone, is ErrConflict.
	// content is not retained.
	Put(ctx context.Context, handle string, expect int64, content []byte) (revision int64, err error)

	// Delete turns the deposit at revision expect into a tombstone. Any
	// mismatch, nothing there and a tombstone included, is ErrConflict.
	Delete(ctx context.Context, handle string, expect int64) error
}
