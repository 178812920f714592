package proxy

import "testing"

// Who is denied anything on a key by the KMS behind is served nothing of it from
// memory any more, whatever he asked for.
func TestADenialOfAnythingEndsTheGrant(t *testing.T) {
	s := newSidecar(t, false)
	s.create(t, "k1")
	s.create(t, "k2")
	for _, row := range []struct{ op, method, target, body string }{
		{"GET_METADATA", "GET", "/key/k1/_metadata", ""},
		{"GET_METADATA", "GET", "/keys/metadata?key=k2&key=k1", ""},
		{"GET", "GET", "/key/k1/_currentversion", ""},
		{"GET", "GET", "/keyversion/k1@0", ""},
		{"GET", "GET", "/key/k1/_versions", ""},
		{"CREATE", "POST", "/keys", `{"name":"k1"}`},
		{"ROLLOVER", "POST", "/key/k1", "{}"},
		{"DELETE", "DELETE", "/key/k1", ""},
	} {
		s.rules.Set(policy(t, openRules...), noGroups{})
		s.granted(t, "alice")
		s.rules.Set(policy(t, append([]string{"hadoop.kms.blacklist." + row.op, "alice", "hadoop.kms.blacklist.GENERATE_EEK", "alice"}, openRules...)...), noGroups{})
		if a := s.as(t, "alice", "GET", generateOne, ""); a.StatusCode != 200 {
			t.Fatalf("%+v: with a grant: %d %s", row, a.StatusCode, a.body)
		}
		if a := s.as(t, "alice", row.method, row.target, row.body); a.StatusCode != 403 {
			t.Errorf("%+v: %d %s", row, a.StatusCode, a.body)
		}
		s.granted(t, "bob") // something is ready, also where a change was tried
		if a := s.as(t, "alice", "GET", generateOne, ""); a.StatusCode != 403 {
			t.Errorf("%+v: denied, and then served from memory: %d %s", row, a.StatusCode, a.body)
		}
	}
}
