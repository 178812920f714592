package authz

import (
	"errors"
	"testing"

	"github.com/edekd/edekd/edek"
)

func TestListMembers(t *testing.T) {
	a := New(policy(t), static{"alice": {"ops"}})
	f := func(list, user, real string, in bool) {
		t.Helper()
		err := a.Member(NewList(list), &edek.Caller{User: user, Real: real})
		if in != (err == nil) || err != nil && !errors.Is(err, ErrDenied) {
			t.Errorf("%q for %s (%s): %v", list, user, real, err)
		}
	}
	f("alice", "alice", "", true)
	f("alice", "bob", "", false)
	f(" ops", "alice", "", true)
	f(" ops", "bob", "", false)
	f("bob ops", "bob", "", true)
	f("~hive", "bob", "hive", true)
	f("~hive", "hive", "", false)
	f("*", "anybody", "", true)
	f(" ", "alice", "", false)
	f("", "alice", "", false)

	a.Set(policy(t), broken{})
	if err := a.Member(NewList("alice ops"), &edek.Caller{User: "bob"}); edek.KindOf(err) != edek.Unavailable {
		t.Errorf("where the groups cannot be looked up: %v", err)
	}
	if err := a.Member(NewList("alice ops"), &edek.Caller{User: "alice"}); err != nil {
		t.Errorf("groups were needed for a user who is in the list: %v", err)
	}
}
