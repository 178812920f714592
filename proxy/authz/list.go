package authz

import "github.com/edekd/edekd/edek"

// List is an access control list outside kms-acls.xml, such as
// hadoop.kms.http.administrators. It does not change.
type List struct {
	list list
}

// NewList reads a list in the form of Hadoop's AccessControlList: "users
// groups", divided at the first space. Nobody is one space.
func NewList(s string) *List { return &List{parseList(s)} }

// Member asks whether a caller is in a list: nil, ErrDenied, or a look-up of
// groups that failed, which is of the kind edek.Unavailable.
func (a *Authorizer) Member(l *List, c *edek.Caller) error {
	w := who{user: c.User, real: c.Real}
	m := l.list.match(&w)
	if m == matchUnknown {
		if err := w.ask(a.state.Load().groups); err != nil {
			return err
		}
		m = l.list.match(&w)
	}
	if !m.in() {
		return ErrDenied
	}
	return nil
}
