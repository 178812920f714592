package main

import (
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
	f := func(status int, nodes string, out ...string) {
		t.Helper()
		p := newSite(t, "hadoop.kms.key.provider.uri", "kms://http@"+nodes+"/kms").start(t)
		if got, err := p.call(fresh, "GET", "/readyz", "", nil); got != status || err != nil {
			t.Errorf("%s: /readyz is %d, want %d; %v", nodes, got, status, err)
		}
		for _, node := range out {
			p.eventuallySays("node=" + node + " error=")
		}
		if n := strings.Count(p.said(), "is out of use"); n != len(out) {
			t.Errorf("%s: %d nodes are out of use, want %d", nodes, n, len(out))
		}
		p.stop()
	}
	f(503, dead, dead)
	f(503, silent.Addr().String(), silent.Addr().String())
	f(200, live)
	f(200, live+";"+dead, dead)
	behind.stop()
}
