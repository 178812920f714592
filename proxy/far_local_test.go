package proxy

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/cache"
	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream"
)

func newLocalSidecar(t *testing.T, adjust ...func(*cache.FarConfig)) *sidecar {
	t.Helper()
	return newSidecar(t, false, append([]func(*cache.FarConfig){func(c *cache.FarConfig) {
		c.Copies, c.DEKBytes, c.DEKAge, c.GrantOutage = true, 1<<20, time.Hour, time.Hour
	}}, adjust...)...)
}

func (s *sidecar) decryptAs(t *testing.T, user string, e eek) answered {
	t.Helper()
	return s.as(t, user, "POST", "/keyversion/"+e.VersionName+"/_eek?eek_op=decrypt", e.decryptBody("k1"))
}

// copied lets a user decrypt until it is done by a copy.
func (s *sidecar) copied(t *testing.T, user string, e eek) {
	t.Helper()
	eventually(t, "a decrypt of "+user+"'s by a copy", func() bool {
		var before, after int
		s.far.with(func() { before = s.far.single })
		if a := s.decryptAs(t, user, e); a.StatusCode != 200 {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
		s.far.with(func() { after = s.far.single })
		return before == after
	})
}

// outage takes the KMS behind away.
func (s *sidecar) outage() {
	gone := upstream.CacheOnly
	s.far.with(func() {
		s.far.state = &gone
		s.far.fail = &edek.Error{Kind: edek.Unavailable, Op: "ask", Text: "cache-only: no node can be reached"}
	})
}

// With copies, who was lately let decrypt opens EDEKs that nobody has opened before
// while the KMS behind is gone: what a new file needs. Nobody else does.
func TestDecryptLocal(t *testing.T) {
	s := newLocalSidecar(t)
	s.create(t, "k1")
	s.granted(t, "alice")
	s.copied(t, "alice", s.generate(t, "k1", 1)[0])
	s.outage()
	fresh := s.generateAs(t, "alice")
	a := s.decryptAs(t, "alice", fresh)
	if want := s.back.decryptAnswer(t, fresh); a.StatusCode != 200 || a.body != want {
		t.Errorf("%d %s, behind: %s", a.StatusCode, a.body, want)
	}
	batch := "[" + batchEntryText(t, fresh) + "," + batchEntryText(t, s.generateAs(t, "alice")) + "]"
	if a := s.as(t, "alice", "POST", "/key/k1/_decryptbatch", batch); a.StatusCode != 200 {
		t.Errorf("batch: %d %s", a.StatusCode, a.body)
	}
	s.hot(t, "alice", fresh)
	for user, status := range map[string]int{"eve": 500, "edekd": 403, "x&doAs=edekd": 403, "oozie&doAs=alice": 500} {
		if a := s.decryptAs(t, user, fresh); a.StatusCode != status || strings.Contains(a.body, "material") {
			t.Errorf("%s: %d %s", user, a.StatusCode, a.body)
		}
	}
	// What lets edekd decrypt shows nobody a key.
	for _, target := range []string{"/keyversion/k1@0", "/key/k1/_currentversion", "/key/k1/_versions"} {
		before := s.copies()
		if a := s.as(t, "edekd", "GET", target, ""); a.StatusCode != 403 || s.copies() != before {
			t.Errorf("%s: %d %s", target, a.StatusCode, a.body)
		}
	}
	// Local rules come first, and a denial behind ends it.
	s.c.Authz.Set(policy(t, append([]string{"hadoop.kms.blacklist.DECRYPT_EEK", "alice"}, openRules...)...), noGroups{})
	if a := s.decryptAs(t, "alice", fresh); a.StatusCode != 403 {
		t.Errorf("forbidden here: %d %s", a.StatusCode, a.body)
	}
	s.c.Authz.Set(policy(t, openRules...), noGroups{})
	s.far.with(func() {
		s.far.state = nil
		s.far.fail = &edek.Foreign{Status: 403, Class: string(classAuthorization), Text: "no", Node: "n"}
	})
	if a := s.as(t, "alice", "GET", "/key/k1/_eek?eek_op=generate&num_keys=5000", ""); a.StatusCode != 403 {
		t.Errorf("generate: %d %s", a.StatusCode, a.body)
	}
	if a := s.decryptAs(t, "alice", fresh); a.StatusCode != 403 {
		t.Errorf("after a denial: %d %s", a.StatusCode, a.body)
	}
}

// A key that was deleted and made anew behind has versions of the same names. The
// copies of the old ones open nothing of the new one's.
func TestCopiesOfADeletedKey(t *testing.T) {
	s := newLocalSidecar(t, func(c *cache.FarConfig) { c.Poll = 20 * time.Millisecond })
	s.create(t, "k1")
	s.granted(t, "alice")
	s.copied(t, "alice", s.generate(t, "k1", 1)[0])
	if a := s.back.call(t, "DELETE", "/key/k1", ""); a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	time.Sleep(2 * time.Millisecond) // two keys made in one millisecond look alike
	s.back.create(t, "k1")
	fresh := s.back.generate(t, "k1", 1)[0]
	want := s.back.decryptAnswer(t, fresh)
	eventually(t, "the new key's DEK", func() bool {
		a := s.decryptAs(t, "alice", fresh)
		return a.StatusCode == 200 && a.body == want
	})
	s.copied(t, "alice", fresh)
	if a := s.decryptAs(t, "alice", fresh); a.body != want {
		t.Errorf("%s, want %s", a.body, want)
	}
}

// A copy that opens an EDEK to something else than the KMS behind does is not used.
func TestCopyThatProvesWrong(t *testing.T) {
	said := make(chan string, 10)
	s := newLocalSidecar(t, func(c *cache.FarConfig) { c.Log = slog.New(slog.NewTextHandler(lines(said), nil)) })
	s.create(t, "k1")
	e := s.generate(t, "k1", 1)[0]
	s.far.with(func() { s.far.lie = true })
	want := s.back.decryptAnswer(t, e)
	if a := s.decryptAs(t, "alice", e); a.StatusCode != 200 || a.body != want {
		t.Fatalf("%d %s, want %s", a.StatusCode, a.body, want)
	}
	if line := <-said; !strings.Contains(line, "decrypts otherwise") || !strings.Contains(line, "k1@0") {
		t.Errorf("said %s", line)
	}
	s.outage()
	if a := s.decryptAs(t, "alice", e); a.StatusCode == 200 {
		t.Errorf("opened by a copy that is wrong: %s", a.body)
	}
}

// lines is a writer of log lines.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// Where edekd may not read key material, the KMS behind goes on decrypting.
func TestCopiesThatAreRefused(t *testing.T) {
	s := newLocalSidecar(t)
	s.rules.Set(policy(t, append([]string{"hadoop.kms.blacklist.GET", "edekd"}, openRules...)...), noGroups{})
	s.create(t, "k1")
	e := s.generate(t, "k1", 1)[0]
	eventually(t, "a refused copy", func() bool {
		if a := s.decryptAs(t, "alice", e); a.StatusCode != 200 {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
		return s.copies() > 0
	})
	for range 20 {
		if a := s.decryptAs(t, "alice", e); a.StatusCode != 200 {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
	}
	if n := s.copies(); n != 1 {
		t.Errorf("%d requests for what is refused", n)
	}
}

// Who may not change a key cannot empty what is ready of it, nor can a change that
// nobody was sent.
func TestChangesThatAreRefusedDropNothing(t *testing.T) {
	s := newLocalSidecar(t)
	s.rules.Set(policy(t, append([]string{"hadoop.kms.acl.ROLLOVER", "edekd", "hadoop.kms.acl.DELETE", "edekd"}, openRules...)...), noGroups{})
	s.create(t, "k1")
	s.granted(t, "alice")
	s.copied(t, "alice", s.generateAs(t, "alice"))
	for _, c := range [][3]string{{"POST", "/key/k1", "{}"}, {"DELETE", "/key/k1", ""}, {"POST", "/key/k1/_invalidatecache", ""}} {
		if a := s.as(t, "mallory", c[0], c[1], c[2]); a.StatusCode != 403 || s.cache.Ready("k1") == 0 {
			t.Errorf("%s %s: %d %s, %d ready", c[0], c[1], a.StatusCode, a.body, s.cache.Ready("k1"))
		}
	}
	var before int
	s.far.with(func() { before = s.far.single })
	if a := s.decryptAs(t, "alice", s.generateAs(t, "alice")); a.StatusCode != 200 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	s.far.with(func() {
		if s.far.single != before {
			t.Error("the copy is gone")
		}
	})
	s.far.with(func() {
		s.far.roll = &edek.Error{Kind: edek.Unavailable, Op: "roll", Key: "k1", Text: "cache-only: no node can be reached"}
	})
	if a := s.as(t, "mallory", "POST", "/key/k1", "{}"); a.StatusCode != 500 || s.cache.Ready("k1") == 0 {
		t.Errorf("a roll that nobody was sent: %d %s, %d ready", a.StatusCode, a.body, s.cache.Ready("k1"))
	}
}
