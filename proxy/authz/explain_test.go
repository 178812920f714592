package authz

import (
	"slices"
	"strings"
	"testing"

	"github.com/edekd/edekd/edek"
)

func TestExplain(t *testing.T) {
	p := policy(t,
		"hadoop.kms.acl.CREATE", "alice,~gw staff", "hadoop.kms.blacklist.CREATE", "mallory", "hadoop.kms.blacklist.GET", " ops", "hadoop.kms.acl.DELETE", "*",
		"default.key.acl.READ", "*", "default.key.acl.MANAGEMENT", "alice", "whitelist.key.acl.MANAGEMENT", "~gw",
		"key.acl.k.MANAGEMENT", "carol", "key.acl.k.ALL", " ops")
	groups := static{"bob": {"users", "staff"}, "dave": {"ops"}, "mallory": {"staff"}}
	check := func(e Explanation, err error, allowed bool, says string, rules ...string) {
		t.Helper()
		var got []string
		for _, r := range e.Rules {
			got = append(got, r.Name)
		}
		if err != nil || e.Allowed != allowed || !strings.Contains(e.Why, says) || !slices.Equal(got, rules) {
			t.Errorf("%+v %v by %q, want %v because %q by %q", e, err, got, allowed, says, rules)
		}
	}
	kms := func(typ Type, user, real string, allowed bool, says string, rules ...string) {
		t.Helper()
		e, err := p.ExplainKMS(typ, &edek.Caller{User: user, Real: real}, groups)
		check(e, err, allowed, says, rules...)
	}
	kms(Create, "alice", "", true, `user "alice" is in the list`, "hadoop.kms.acl.CREATE")
	kms(Create, "carol", "gw", true, `real user "gw" is in the list`, "hadoop.kms.acl.CREATE")
	kms(Create, "bob", "", true, `"bob" is in the list through group "staff"`, "hadoop.kms.acl.CREATE")
	kms(Create, "dave", "", false, `user "dave" is not in the list, nor are the groups [ops]`, "hadoop.kms.acl.CREATE")
	kms(Create, "mallory", "", false, `user "mallory" is in the list`, "hadoop.kms.blacklist.CREATE")
	kms(Get, "dave", "", false, `through group "ops"`, "hadoop.kms.blacklist.GET")
	kms(Get, "bob", "", true, "hadoop.kms.acl.GET is not set, which lets everyone in")
	kms(Delete, "bob", "", true, "the list is everyone", "hadoop.kms.acl.DELETE")

	key := func(right Right, name, user, real string, allowed bool, says string, rules ...string) {
		t.Helper()
		e, err := p.ExplainKey(right, name, &edek.Caller{User: user, Real: real}, groups)
		check(e, err, allowed, says, rules...)
	}
	key(KeyRead, "other", "bob", "", true, "the list is everyone", "default.key.acl.READ")
	key(KeyRead, "k", "bob", "", false, "nor are the groups [users, staff]; the key has rules of its own, so default.key.acl.READ does not count for it", "key.acl.k.ALL")
	key(KeyRead, "k", "dave", "", true, `through group "ops"`, "key.acl.k.ALL")
	key(KeyManagement, "k", "carol", "", true, `user "carol"`, "key.acl.k.MANAGEMENT")
	key(KeyManagement, "k", "bob", "gw", true, `real user "gw"`, "whitelist.key.acl.MANAGEMENT")
	key(KeyManagement, "k", "bob", "", false, `user "bob" is not in the list`, "key.acl.k.MANAGEMENT", "whitelist.key.acl.MANAGEMENT", "key.acl.k.ALL")
	key(KeyManagement, "other", "bob", "", false, `user "bob" is not in the list`, "default.key.acl.MANAGEMENT", "whitelist.key.acl.MANAGEMENT")
	key(KeyDecryptEEK, "other", "bob", "", false, "none of key.acl.other.DECRYPT_EEK, default.key.acl.DECRYPT_EEK and whitelist.key.acl.DECRYPT_EEK is set, which keeps everyone out")

	p = policy(t, "key.acl.k.READ", "alice", "default.key.acl.DECRYPT_EEK", "*")
	key(KeyDecryptEEK, "k", "alice", "", false, "the key has rules of its own, so default.key.acl.DECRYPT_EEK does not count for it, and none of key.acl.k.DECRYPT_EEK, key.acl.k.ALL and")
}

// TestExplanationsAgreeWithAnswers asks for both, for all calls and callers.
func TestExplanationsAgreeWithAnswers(t *testing.T) {
	p := policy(t, "hadoop.kms.acl.CREATE", "alice,~gw staff", "hadoop.kms.blacklist.GET", " ops", "hadoop.kms.acl.DECRYPT_EEK", " ",
		"default.key.acl.READ", " ops", "whitelist.key.acl.MANAGEMENT", "~gw", "key.acl.k.DECRYPT_EEK", "bob", "key.acl.k.ALL", " ops")
	groups := static{"bob": {"users", "staff"}, "dave": {"ops"}}
	a, asked := New(p, groups), 0
	for _, call := range Calls {
		for _, user := range []string{"alice", "bob", "dave"} {
			for _, real := range []string{"", "gw"} {
				c := &edek.Caller{User: user, Real: real}
				for _, typ := range call.Types {
					e, err := p.ExplainKMS(typ, c, groups)
					if got := a.KMS(typ, c); err != nil || (got == nil) != e.Allowed {
						t.Errorf("%s for %v: %v, explained as %+v", typ, c, got, e)
					}
				}
				for _, name := range []string{"k", "other"} {
					e, err := p.ExplainKey(call.Right, name, c, groups)
					if got := a.Key(call.Right, name, c); err != nil || (got == nil) != e.Allowed {
						t.Errorf("%s on %s for %v: %v, explained as %+v", call.Right, name, c, got, e)
					}
					asked++
				}
			}
		}
	}
	if asked != 14*3*2*2 {
		t.Errorf("%d questions", asked)
	}
}
