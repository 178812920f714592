package kms

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream"
)

// announce makes a fake one of ours: it announces batches and opens them. change
// may spoil an answer.
func (f *fake) announce(change func(all []object) []object) {
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set(batchHeader, batchDecrypt)
		name, ok := strings.CutSuffix(r.URL.Path, "/_decryptbatch")
		if !ok {
			return false
		}
		name = strings.TrimPrefix(name, "/kms/v1/key/")
		var in []struct {
			VersionName, IV     string
			EncryptedKeyVersion struct{ Material string }
		}
		body, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(body, &in); err != nil {
			exception(w, 400, "java.lang.IllegalArgumentException", err.Error())
			return true
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		all := []object{}
		for _, e := range in {
			_, n, _ := edek.SplitVersion(e.VersionName)
			dek, _ := f.keys[name][n].AppendDEK(nil, fromB64(e.IV), fromB64(e.EncryptedKeyVersion.Material))
			all = append(all, object{"material": b64(dek), "name": name, "versionName": "EK"})
		}
		if change != nil {
			all = change(all)
		}
		answer(w, 200, all)
		return true
	})
}

// batches counts the requests at a fake that a Java KMS takes for a roll-over.
func (f *fake) batches() (n int) {
	for _, request := range f.seen() {
		if strings.Contains(request, "_decryptbatch") {
			n++
		}
	}
	return n
}

func made(t *testing.T, c *Client, name string, n int) []edek.EDEK {
	t.Helper()
	all, err := c.Generate(t.Context(), alice, name, n)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestBatchesAreOpenedInOrder(t *testing.T) {
	for _, name := range []string{"k1", "a/b", "schlüssel", `q"uote`, "with blank"} {
		f := startFake(t, name)
		f.announce(nil)
		c := newClient(t, nil, f)
		if c.Batches() {
			t.Error("announced before anything was said")
		}
		all := made(t, c, name, 1)
		f.roll(name)
		all = append(all, made(t, c, name, maxOpened)...)
		deks, err := c.DecryptBatch(t.Context(), alice, name, all)
		if err != nil || len(deks) != len(all) || f.batches() != 2 {
			t.Fatalf("%s: %d DEKs in %d requests, %v", name, len(deks), f.batches(), err)
		}
		for i := range all {
			want, _ := f.keys[name][all[i].Version()].AppendDEK(nil, all[i].IV[:], all[i].Wrapped())
			if !bytes.Equal(deks[i], want) {
				t.Fatalf("%s: the DEK of %d is another's", name, i)
			}
		}
	}
}

// A Java KMS beside one of ours never gets a batch, which it would take for the
// roll-over of a key.
func TestOnlyWhoAnnouncedGetsBatches(t *testing.T) {
	java, ours := startFake(t, "k1"), startFake(t, "k1")
	ours.announce(nil)
	c := newClient(t, nil, java, ours)
	all := made(t, c, "k1", 3)
	opened, passed := 0, 0
	eventually(t, "a turn of each node", func() bool {
		made(t, c, "k1", 1)
		deks, err := c.DecryptBatch(t.Context(), alice, "k1", all)
		switch {
		case err == nil && len(deks) == 3:
			opened++
		case errors.Is(err, upstream.ErrNotSent):
			passed++
		default:
			t.Fatalf("%d DEKs, %v", len(deks), err)
		}
		return opened > 20 && passed > 20
	})
	if java.batches() != 0 || java.keys["k1/_decryptbatch"] != nil || ours.batches() != opened {
		t.Errorf("batches: Java got %d, ours %d of %d", java.batches(), ours.batches(), opened)
	}
	for _, n := range c.Nodes() {
		if !n.Usable || n.Faults != 0 {
			t.Errorf("a turn that was passed is held against %+v", n)
		}
	}
}

// A node that turns out to be another server gets no more batches: after its
// first answer without the header, and not when the login had to be repeated.
func TestAnAnnouncementEnds(t *testing.T) {
	for what, behave := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"Java": nil,
		"Java that wants a login": func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "_decryptbatch") {
				http.Error(w, "Authentication required", 401)
				return true
			}
			return false
		},
		"a breaking connection": func(w http.ResponseWriter, r *http.Request) bool { panic(http.ErrAbortHandler) },
	} {
		f := startFake(t, "k1")
		f.announce(nil)
		c := newClient(t, nil, f)
		all := made(t, c, "k1", 2)
		if !c.Batches() {
			t.Fatal("not announced")
		}
		f.set(behave)
		before := 0
		if behave == nil {
			made(t, c, "k1", 1)
		} else {
			c.DecryptBatch(t.Context(), alice, "k1", all)
			before = 1
		}
		if c.Batches() || f.batches() != before {
			t.Errorf("%s: still announced, %d batches", what, f.batches())
		}
		f.set(nil)
		if _, err := c.DecryptBatch(t.Context(), alice, "k1", all); err == nil || f.batches() != before {
			t.Errorf("%s: %v, %d batches", what, err, f.batches())
		}
	}
}

// A request that its caller called off is no sign of another server.
func TestAnAnnouncementOutlivesACallThatWasCalledOff(t *testing.T) {
	f := startFake(t, "k1")
	f.announce(nil)
	c := newClient(t, nil, f)
	made(t, c, "k1", 1)
	ctx, cancel := context.WithCancelCause(t.Context())
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		cancel(errors.New("another entry of its batch is wrong"))
		<-r.Context().Done()
		return true
	})
	if _, err := c.Generate(ctx, alice, "k1", 1); !errors.Is(ctx.Err(), context.Canceled) || err == nil {
		t.Fatalf("%v, %v", ctx.Err(), err)
	}
	if !c.Batches() {
		t.Error("no longer announced")
	}
}

func TestPoisonedBatches(t *testing.T) {
	for what, change := range map[string]func([]object) []object{
		"too few":        func(all []object) []object { return all[:1] },
		"too many":       func(all []object) []object { return append(all, all[0]) },
		"another key":    func(all []object) []object { all[1]["name"] = "k2"; return all },
		"no key":         func(all []object) []object { all[1]["name"] = nil; return all },
		"wrong version":  func(all []object) []object { all[1]["versionName"] = "k1@0"; return all },
		"a long DEK":     func(all []object) []object { all[1]["material"] = b64(make([]byte, 33)); return all },
		"a short DEK":    func(all []object) []object { all[1]["material"] = b64(make([]byte, 31)); return all },
		"no base64":      func(all []object) []object { all[1]["material"] = strings.Repeat("!", 43); return all },
		"nothing at all": func([]object) []object { return nil },
	} {
		f := startFake(t, "k1")
		f.announce(change)
		c := newClient(t, nil, f)
		deks, err := c.DecryptBatch(t.Context(), alice, "k1", made(t, c, "k1", 2))
		if edek.KindOf(err) != edek.Unavailable || deks != nil {
			t.Errorf("%s: %d DEKs, %v", what, len(deks), err)
		}
	}
}
