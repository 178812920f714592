package edek

import "strconv"

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
