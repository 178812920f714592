package edek

import (
	"strconv"
	"strings"
)

// Foreign is what another KMS answered to a request that was passed on to it: an
// exception of Java's, for the client to get as it came.
type Foreign struct {
	Status int    // of HTTP, 400 to 599
	Class  string // Java's, with its package; a word of letters, digits and .$_
	Text   string // its message, one line; "" for none
	Node   string // which server said so, for the log
}

func (f *Foreign) Error() string {
	return f.Node + " answered " + strconv.Itoa(f.Status) + " " + f.Class + ": " + f.Text
}

// Denies reports whether the answer denies somebody something. A denial that came
// up while an EDEK was generated is a 500, whose text begins with the exception's
// name.
func (f *Foreign) Denies() bool {
	for _, class := range []string{"AuthorizationException", "AccessControlException"} {
		if strings.HasSuffix(f.Class, class) {
			return true
		}
		if head, _, ok := strings.Cut(f.Text, ":"); ok && strings.HasSuffix(head, class) {
			return true
		}
	}
	return f.Status == 403
}
