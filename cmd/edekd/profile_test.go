package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

var profilesLine = regexp.MustCompile(`msg="profiles are served" address=(http://127\.0\.0\.1:\d+/debug/pprof/)`)

// profiled starts an edekd with profiles and returns where they are.
func profiled(t *testing.T, properties ...string) (p *process, address string) {
	t.Helper()
	p = newSite(t, append([]string{"edekd.profile.address", "127.0.0.1:0"}, properties...)...).start(t)
	m := profilesLine.FindStringSubmatch(p.said())
	if m == nil {
		t.Fatal("the log does not say where profiles are")
	}
	return p, m[1]
}

// fetch returns an answer's status and content.
func fetch(t *testing.T, url string) (int, []byte) {
	t.Helper()
	resp, err := fresh.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, content
}

func TestProfiles(t *testing.T) {
	t.Parallel()
	p, address := profiled(t)
	p.must("POST", "/kms/v1/keys", `{"name":"secretive"}`, nil)
	f := func(path string, status int, parts ...string) {
		t.Helper()
		got, content := fetch(t, address+path)
		if got != status {
			t.Errorf("%s: %d, want %d: %.200q", path, got, status, content)
		}
		if unpacked, err := gzip.NewReader(bytes.NewReader(content)); err == nil {
			if content, err = io.ReadAll(unpacked); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		for _, part := range parts {
			if !bytes.Contains(content, []byte(part)) {
				t.Errorf("%s lacks %q: %.200q", path, part, content)
			}
		}
		if bytes.Contains(content, []byte("secretive")) {
			t.Errorf("%s tells the name of a key", path)
		}
	}
	f("", 200, "goroutine")
	f("heap?gc=1", 200, "inuse_space")
	f("allocs", 200, "alloc_space")
	f("goroutine?debug=1", 200, "main.serveKeys")
	f("profile?seconds=1", 200, "nanoseconds")
	f("trace?seconds=0.1", 200, "go 1.")
	f("none", 404)
	// The arguments of calls stay hidden.
	f("goroutine?debug=2", 403, "debug=1")
	// Longer than an answer may take.
	f("profile?seconds=301", 400)
	f("trace?seconds=301", 400)
	f("trace?seconds=1e99", 400)
	f("trace?seconds=NaN", 400)
	// It is another port, and one for looking only.
	f("../../healthz", 404)
	f("../../kms/v1/keys/names?user.name=test", 404)
	if status, _ := fetch(t, p.base+"/debug/pprof/heap?user.name=test"); status != 404 {
		t.Errorf("profiles on the port of the KMS: %d", status)
	}
	if resp, err := fresh.Post(address+"heap", "", nil); err != nil || resp.StatusCode != 405 {
		t.Errorf("POST: %v %v", resp, err)
	}
	p.stop()
	if _, err := fresh.Get(address); err == nil {
		t.Error("profiles are served after the end")
	}
}

func TestProfilesAreOffByDefault(t *testing.T) {
	t.Parallel()
	p := newSite(t).start(t)
	if said := p.said(); strings.Contains(said, "profiles") {
		t.Error(said)
	}
	if status, _ := fetch(t, p.base+"/debug/pprof/heap?user.name=test"); status != 404 {
		t.Errorf("profiles on the port of the KMS: %d", status)
	}
	p.stop()
}

// Only so many are made at a time, and one that is being made keeps no edekd
// from ending.
func TestProfilesEndWithTheProcess(t *testing.T) {
	t.Parallel()
	p, address := profiled(t)
	long := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ended := make(chan error, profilesAtOnce)
	for range profilesAtOnce {
		go func() {
			for {
				resp, err := long.Get(address + "heap?seconds=200") // the difference over this time
				if err == nil {
					resp.Body.Close()
				}
				// The question below may have had the place.
				if err != nil || resp.StatusCode != http.StatusServiceUnavailable {
					ended <- err
					return
				}
			}
		}()
	}
	p.eventually("all places are taken", func() bool {
		status, _ := fetch(t, address+"heap")
		return status == http.StatusServiceUnavailable
	})
	select {
	case err := <-ended:
		t.Fatalf("a profile has ended: %v", err)
	default:
	}
	p.signal(syscall.SIGTERM)
	p.ended()
	for range profilesAtOnce {
		select {
		case err := <-ended:
			if err == nil {
				t.Error("a profile that cannot be whole was answered")
			}
		case <-time.After(patience):
			t.Fatal("a profile outlives the process")
		}
	}
}

func TestProfileAddressIsRefused(t *testing.T) {
	t.Parallel()
	f := func(address, part string) {
		t.Helper()
		if said := newSite(t, "edekd.profile.address", address).refused(t); !strings.Contains(said, ": edekd.profile.address: ") || !strings.Contains(said, part) {
			t.Errorf("%s: %s", address, said)
		}
	}
	f("0.0.0.0:0", "no loopback address")
	p, address := profiled(t)
	f(strings.Split(address, "/")[2], "address already in use")
	p.stop()
}
