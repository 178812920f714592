package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/edekd/edekd/edek"
)

// A generate sent after a roll was acknowledged gives EDEKs of that version or
// a later one, and no EDEK is given to two.
func TestNoStaleAndNoRepeatedEDEKUnderLoad(t *testing.T) {
	k := newKMS(t)
	k.create(t, "k1")
	const generators, rolls, each = 4, 25, 20
	var acknowledged atomic.Int64
	var stop atomic.Bool
	seen := make([][]string, generators)
	var wg sync.WaitGroup
	for g := range generators {
		c := k.dial(t)
		wg.Go(func() {
			for !stop.Load() {
				least := int(acknowledged.Load())
				if _, err := c.Write([]byte(requestText("GET", fmt.Sprintf("/kms/v1/key/k1/_eek?eek_op=generate&num_keys=%d&user.name=x", each), ""))); err != nil {
					t.Error(err)
					return
				}
				a, err := c.tryAnswer("GET")
				if err != nil || a.StatusCode != http.StatusOK {
					t.Errorf("generate: %d %s, %v", a.StatusCode, a.body, err)
					return
				}
				var list []eek
				if err := json.Unmarshal([]byte(a.body), &list); err != nil || len(list) != each {
					t.Errorf("%d EDEKs, %v", len(list), err)
					return
				}
				for _, e := range list {
					if _, n, ok := edek.SplitVersion(e.VersionName); !ok || n < least {
						t.Errorf("an EDEK of %s, sent for after version %d was acknowledged", e.VersionName, least)
					}
					seen[g] = append(seen[g], e.IV+e.EncryptedKeyVersion.Material)
				}
			}
		})
	}
	c := k.dial(t)
	for n := range rolls {
		c.send(t, requestText("POST", "/kms/v1/key/k1?user.name=x", "{}"))
		if a := c.answer(t, "POST"); a.StatusCode != http.StatusOK {
			t.Errorf("roll: %d %s", a.StatusCode, a.body)
			break
		}
		acknowledged.Store(int64(n + 1))
	}
	stop.Store(true)
	wg.Wait()
	given := map[string]bool{}
	for _, list := range seen {
		if len(list) == 0 {
			t.Error("a generator got nothing")
		}
		for _, e := range list {
			if given[e] {
				t.Fatal("one EDEK was given twice")
			}
			given[e] = true
		}
	}
	t.Logf("%d EDEKs over %d rolls", len(given), rolls)
}

// A deleted key is gone for every request sent after the delete was
// acknowledged, and a new key of its name is another one.
func TestDeletedKeyIsGoneAtOnceUnderLoad(t *testing.T) {
	k := newKMS(t)
	var wg sync.WaitGroup
	defer wg.Wait()
	var stop atomic.Bool
	defer stop.Store(true)
	for range 2 {
		c := k.dial(t)
		wg.Go(func() {
			for !stop.Load() { // keeps the caches warm and loads under way
				for _, target := range []string{"/key/k1/_eek?eek_op=generate&", "/keyversion/k1@0?", "/key/k1/_metadata?"} {
					if _, err := c.Write([]byte(requestText("GET", "/kms/v1"+target+"user.name=x", ""))); err != nil {
						t.Error(err)
						return
					}
					if _, err := c.tryAnswer("GET"); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	var last eek
	for n := range 15 {
		k.create(t, "k1")
		e := k.generate(t, "k1", 1)[0]
		if e.VersionName != "k1@0" {
			t.Fatalf("a new key begins at %s", e.VersionName)
		}
		dek := k.decrypt(t, "k1", e)
		if n > 0 && string(k.decrypt(t, "k1", last)) == string(dek) {
			t.Fatal("the new key opens the old key's EDEK")
		}
		last = e
		if a := k.call(t, "DELETE", "/key/k1", ""); a.StatusCode != http.StatusOK {
			t.Fatalf("delete: %d %s", a.StatusCode, a.body)
		}
		remote(t, k.call(t, "GET", "/key/k1/_eek?eek_op=generate", ""), 500, classIO)
		remote(t, k.call(t, "POST", "/keyversion/k1@0/_eek?eek_op=decrypt", e.decryptBody("k1")), 400, classIllegalArgument)
		for _, target := range []string{"/keyversion/k1@0", "/key/k1/_metadata", "/key/k1/_currentversion"} {
			if a := k.call(t, "GET", target, ""); a.body != "{ }" {
				t.Fatalf("%s after the delete: %s", target, a.body)
			}
		}
	}
}
