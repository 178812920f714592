package proxy

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp/fasthttputil"

	"github.com/edekd/edekd/proxy/authz"
)

// Who may see what outside /kms/v1: without a name, as bob, as alice, who is an
// administrator.
func TestDoors(t *testing.T) {
	f := func(k *kms, path string, nobody, bob, alice int) {
		t.Helper()
		for query, want := range map[string]int{"": nobody, "?user.name=bob": bob, "?user.name=alice": alice} {
			if a := k.raw(t, requestText("GET", path+query, ""), 1)[0]; a.StatusCode != want {
				t.Errorf("%s%s: %d %.200s, want %d", path, query, a.StatusCode, a.body, want)
			}
		}
	}
	always := func(k *kms) {
		t.Helper()
		f(k, "/healthz", 200, 200, 200)
		f(k, "/readyz", 200, 200, 200)
		f(k, "/kms/v1/keys/names", 401, 200, 200)
		f(k, "/nothing", 401, 404, 404)
	}
	closed := newKMS(t, func(c *Config) { c.Open = nil })
	always(closed)
	f(closed, "/metrics", 401, 200, 200)
	f(closed, "/jmx", 401, 200, 200)
	f(closed, "/kms/jmx", 401, 200, 200)

	open := newKMS(t, func(c *Config) { c.Open = []string{"/metrics", "/jmx", "/kms/v1/keys/names", "/nothing"} })
	always(open) // what is not an instrument does not open
	f(open, "/metrics", 200, 200, 200)
	f(open, "/jmx", 200, 200, 200)
	f(open, "/kms/jmx", 401, 200, 200)
	for _, path := range []string{"/metrics/", "/Metrics", "//metrics", "/metrics;x", "/%6detrics", "/jmx/../metrics", "/metrics%2F"} {
		f(open, path, 401, 404, 404)
	}

	admins := newKMS(t, func(c *Config) {
		c.Open, c.Admins = []string{"/metrics", "/jmx"}, authz.NewList("alice")
	})
	always(admins)
	f(admins, "/metrics", 401, 403, 200)
	f(admins, "/jmx", 401, 403, 200)
	f(admins, "/kms/jmx", 401, 403, 200)
	a := admins.raw(t, requestText("GET", "/jmx?user.name=bob", ""), 1)[0]
	contains(t, remote(t, a, 403, classAuthorization), "User bob is unauthorized to access the page /jmx.")
}

// The port for instruments shows them to everybody, and nothing else to anybody.
func TestMetricsPort(t *testing.T) {
	k := newIdleKMS(t, func(c *Config) { c.Open, c.Admins = nil, authz.NewList(" ") })
	k.serve(t, k.listener)
	k.create(t, "k1")
	side := fasthttputil.NewInmemoryListener()
	served := make(chan error, 1)
	go func() { served <- k.ServeMetrics(side) }()
	get := func(method, path string) answered {
		t.Helper()
		main := k.listener
		k.listener = side
		defer func() { k.listener = main }()
		return k.raw(t, requestText(method, path, ""), 1)[0]
	}
	f := func(method, path string, status int, part string) {
		t.Helper()
		a := get(method, path)
		if a.StatusCode != status || !strings.Contains(a.body, part) || a.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s %s: %d %v %.200s", method, path, a.StatusCode, a.Header, a.body)
		}
	}
	f("GET", "/metrics", http.StatusOK, "edekd_requests_total")
	f("GET", "/jmx?qry=java.lang:type=Memory", http.StatusOK, "java.lang:type=Memory")
	f("GET", "/kms/jmx", http.StatusOK, "beans")
	f("GET", "/healthz", http.StatusOK, "ok")
	f("GET", "/readyz", http.StatusOK, "ready")
	for _, path := range []string{"/", "/kms/v1/keys/names?user.name=alice", "/kms/v1/key/k1/_metadata?user.name=alice", "/kms/v1/?op=GETDELEGATIONTOKEN&user.name=alice"} {
		f("GET", path, http.StatusNotFound, "there is nothing here")
	}
	f("POST", "/metrics", http.StatusMethodNotAllowed, "")
	f("DELETE", "/kms/v1/key/k1?user.name=alice", http.StatusMethodNotAllowed, "")
	k.Drain()
	f("GET", "/readyz", http.StatusServiceUnavailable, "draining")
	for _, secret := range []string{"k1", "alice", "user"} {
		if a := get("GET", "/metrics"); strings.Contains(a.body, `"`+secret+`"`) {
			t.Errorf("/metrics tells of %s", secret)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := k.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
