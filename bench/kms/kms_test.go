package kms

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/bench/drive"
)

func startEdekd(t *testing.T, o Options) (*Server, *Client) {
	t.Helper()
	o.Dir = t.TempDir()
	s, err := StartEdekd(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s, NewClient(s.Target)
}

func pool(t *testing.T, target drive.Target, connections int) *drive.Pool {
	t.Helper()
	p, err := drive.NewPool(target, connections, []byte("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// TestBareAnswersTheSameBytes: what a bare server sends differs from what it
// mirrors in nothing but the date.
func TestBareAnswersTheSameBytes(t *testing.T) {
	for _, secure := range []bool{false, true} {
		s, c := startEdekd(t, Options{TLS: secure})
		if err := c.Create("k"); err != nil {
			t.Fatal(err)
		}
		cookie, err := c.Cookie(NameNode)
		if err != nil {
			t.Fatal(err)
		}
		edeks, err := c.Generate("k", 3)
		if err != nil {
			t.Fatal(err)
		}
		b, err := StartBare(Options{Dir: s.Dir, TLS: secure})
		if err != nil {
			t.Fatal(err)
		}
		ours, bare := pool(t, s.Target, 2), pool(t, b.Target, 2)
		for name, request := range map[string][]byte{
			"generate":  c.GenerateRequest("k", 2, cookie, ""),
			"decrypt":   c.DecryptRequest(edeks[0], cookie, ""),
			"doAs":      c.GenerateRequest("k", 1, mustCookie(t, c, Service), "&doAs="+Reader),
			"reencrypt": c.ReencryptRequest(edeks, cookie),
		} {
			answer, err := ours.Exchange(request)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			want := bytes.Clone(answer)
			if err := b.Mirror(want); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got, err := bare.Exchange(request)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if undated(got) != undated(want) {
				t.Errorf("%s is answered\n%s\nand by the bare server\n%s", name, want, got)
			}
		}
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
	}
}

func mustCookie(t *testing.T, c *Client, user string) string {
	t.Helper()
	cookie, err := c.Cookie(user)
	if err != nil {
		t.Fatal(err)
	}
	return cookie
}

// undated is an answer without the date.
func undated(answer []byte) string {
	head, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	lines = slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, "Date: ") })
	return strings.Join(lines, "\n") + "\n\n" + body
}

func TestTokensAndMetrics(t *testing.T) {
	s, c := startEdekd(t, Options{Readers: 2})
	if err := c.Create("k"); err != nil {
		t.Fatal(err)
	}
	token, err := c.Token(NameNode)
	if err != nil {
		t.Fatal(err)
	}
	p := pool(t, s.Target, 1)
	if _, err := p.Exchange(c.GenerateRequest("k", 1, token, "")); err != nil {
		t.Error(err)
	}
	if _, err := p.Exchange(c.GenerateRequest("k", 1, mustCookie(t, c, ReaderName(1)), "")); err != nil {
		t.Error(err)
	}
	if _, err := pool(t, s.Target, 1).Exchange(c.GenerateRequest("k", 1, mustCookie(t, c, ReaderName(2)), "")); err == nil {
		t.Error("somebody outside the group gets keys: the rules are not in force")
	}
	values, err := c.Metrics()
	if err != nil || values["go_memstats_mallocs_total"] == 0 || values["go_goroutines"] == 0 || values[`edekd_requests_total{op="generate_eek",status="200"}`]+values[`edekd_requests_total{op="generate",status="200"}`] != 2 {
		t.Errorf("%v %v", err, values)
	}
	version, err := c.Roll("k")
	if err != nil || version != "k@1" {
		t.Errorf("rolled to %q, %v", version, err)
	}
	if err := c.Drain("k"); err != nil {
		t.Error(err)
	}
	// The audit log is in force, too.
	deadline := time.Now().Add(20 * time.Second)
	for {
		text, err := os.ReadFile(s.AuditLog())
		if err == nil && bytes.Contains(text, []byte("op=GENERATE_EEK, key=k, user=hdfs")) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the audit log: %v\n%s", err, text)
		}
	}
}

func TestEach(t *testing.T) {
	done := make([]bool, 100)
	if err := Each(len(done), func(i int) error { done[i] = true; return nil }); err != nil {
		t.Fatal(err)
	}
	for i, d := range done {
		if !d {
			t.Errorf("%d was left out", i)
		}
	}
	broken := errors.New("broken")
	if err := Each(1000, func(i int) error {
		if i > 2 {
			return broken
		}
		return nil
	}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

// TestCollect: the server counts the collections that were asked for.
func TestCollect(t *testing.T) {
	s, c := startEdekd(t, Options{Profiles: true})
	forced := func() float64 {
		t.Helper()
		values, err := c.Metrics()
		if err != nil {
			t.Fatal(err)
		}
		return values["go_gc_forced_count"]
	}
	before := forced()
	collector, err := s.Collector()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := collector.Collect(); err != nil {
			t.Fatal(err)
		}
	}
	if err := collector.Close(); err != nil {
		t.Fatal(err)
	}
	if n := forced() - before; n != 3 {
		t.Errorf("%v collections, want 3", n)
	}
}
