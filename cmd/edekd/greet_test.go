package main

import (
	"io"
	"net"
	"strings"
	"testing"
)

// What is said of a KMS behind edekd is true from the first answer on: it is down
// if it never answered, and ok if it does.
func TestTheKMSBehindIsGreeted(t *testing.T) {
	t.Parallel()
	behind := newSite(t).start(t)
	live := strings.TrimPrefix(behind.base, "http://")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	f := func(status int, ready, nodes string, out ...string) {
		t.Helper()
		p := newSite(t, "hadoop.kms.key.provider.uri", "kms://http@"+nodes+"/kms").start(t)
		resp, err := fresh.Get(p.base + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != status || string(body) != ready {
			t.Errorf("%s: /readyz is %d %q, want %d %q; %v", nodes, resp.StatusCode, body, status, ready, err)
		}
		for _, node := range out {
			p.eventuallySays("node=" + node + " error=")
		}
		if n := strings.Count(p.said(), "is out of use"); n != len(out) {
			t.Errorf("%s: %d nodes are out of use, want %d", nodes, n, len(out))
		}
		p.stop()
	}
	f(503, "upstream: down\n", dead, dead)
	f(503, "upstream: down\n", silent.Addr().String(), silent.Addr().String())
	f(200, "ready\nupstream: ok\n", live)
	f(200, "ready\nupstream: ok\n1 of 2 servers of a KMS behind edekd out of use: the log says which and why\n", live+";"+dead, dead)
	behind.stop()
}
