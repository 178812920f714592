package main

import (
	"regexp"
	"strconv"
	"testing"
)

var cacheLine = regexp.MustCompile(`(?m)^edekd_cache_(limit_)?bytes\{cache="(\w+)"\} (\S+)$`)

// Each memory shows its size and its bound.
func TestMemoryIsShown(t *testing.T) {
	t.Parallel()
	p := newSite(t).start(t)
	p.must("POST", "/kms/v1/keys", `{"name":"k"}`, nil)
	if _, err := p.encrypt(kept, "k"); err != nil {
		t.Fatal(err)
	}
	sizes := func() map[string][2]float64 {
		_, page := fetch(t, p.base+"/metrics")
		sizes := map[string][2]float64{} // bytes and bound, by cache
		for _, m := range cacheLine.FindAllStringSubmatch(string(page), -1) {
			v, err := strconv.ParseFloat(m[3], 64)
			if err != nil {
				t.Fatal(err)
			}
			pair := sizes[m[2]]
			if m[1] == "" {
				pair[0] = v
			} else {
				pair[1] = v
			}
			sizes[m[2]] = pair
		}
		return sizes
	}
	for _, cache := range []string{"current", "version", "versions", "metadata", "cookies", "proxied", "answers", "tokens", "audit"} {
		if s, ok := sizes()[cache]; !ok || s[0] < 0 || s[1] < 1<<20 || s[0] > s[1] {
			t.Errorf("%s: %.0f bytes of %.0f", cache, s[0], s[1])
		}
	}
	// Ristretto takes things in when it finds the time.
	p.eventually("the caches are not empty", func() bool {
		s := sizes()
		return s["current"][0] > 0 && s["version"][0] > 0 && s["audit"][0] > 0
	})
	p.stop()
}
