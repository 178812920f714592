package kms

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream"
)

// wantNoFault is for after the questions of one user: whatever they were, the
// nodes answered.
func wantNoFault(t *testing.T, c *Client) {
	t.Helper()
	for _, n := range c.Nodes() {
		if n.Faults != 0 || n.Opened != 0 || !n.Usable {
			t.Errorf("what a user asks for is held against %+v", n)
		}
	}
	if c.State() != upstream.OK {
		t.Errorf("state %v", c.State())
	}
}

// A Java KMS gives back what is of the current version as it came, and opens
// encrypted keys of every length.
func TestEncryptedKeysOfOddLengthsAreNoFault(t *testing.T) {
	f := startFake(t, "k")
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("eek_op") != "reencrypt" {
			return false
		}
		body, _ := io.ReadAll(r.Body)
		var in struct{ IV, Material string }
		json.Unmarshal(body, &in)
		answer(w, 200, eek("k", 0, fromB64(in.IV), fromB64(in.Material), nil))
		return true
	})
	c, ctx := newClient(t, nil, f), t.Context()
	for _, size := range [][2]int{{16, 0}, {16, 33}, {16, 48}, {0, 32}, {15, 32}, {17, 32}} {
		iv, wrapped := make([]byte, size[0]), make([]byte, size[1])
		_, err := c.Reencrypt(ctx, alice, "k", "k@0", iv, wrapped)
		wantKind(t, err, edek.Invalid, "1 to 32 bytes")
		if size[0] == 16 {
			if dek, err := c.Decrypt(ctx, alice, "k", "k@0", iv, wrapped); err != nil || len(dek) != len(wrapped) {
				t.Errorf("%d bytes: %x, %v", size[1], dek, err)
			}
		}
	}
	for _, size := range []int{1, 16, 17, 32} {
		if _, err := c.Reencrypt(ctx, alice, "k", "k@0", make([]byte, 16), make([]byte, size)); err != nil {
			t.Error(err)
		}
	}
	wantNoFault(t, c)
}

// Material can be given, and an HMAC key be made, of whatever length.
func TestKeysOfMuchMaterialAreNoFault(t *testing.T) {
	const large, tooLarge = 64 << 10, 1 << 20
	for _, size := range []int{large, tooLarge} {
		f := startFake(t, "k")
		f.set(func(w http.ResponseWriter, r *http.Request) bool {
			io.Copy(io.Discard, r.Body)
			status := 200
			if r.URL.Path == "/kms/v1/keys" {
				status = 201
			}
			if r.Method != http.MethodOptions {
				answer(w, status, object{"material": b64(make([]byte, size)), "name": "k", "versionName": "k@0"})
			}
			return true
		})
		c, ctx := newClient(t, nil, f), t.Context()
		current := func() (*edek.KeyVersion, error) { return c.CurrentVersion(ctx, alice, "k") }
		version := func() (*edek.KeyVersion, error) { return c.Version(ctx, alice, "k@0") }
		create := func() (*edek.KeyVersion, error) { return c.Create(ctx, alice, &edek.NewKey{Name: "k"}) }
		roll := func() (*edek.KeyVersion, error) { return c.Roll(ctx, alice, "k", nil) }
		for i, call := range []func() (*edek.KeyVersion, error){current, version, create, roll} {
			v, err := call()
			switch {
			case size == large && (err != nil || len(v.Material) != size):
				t.Errorf("%d: %v, %v", i, v, err)
			case size == tooLarge && i < 2:
				wantKind(t, err, edek.Corrupt, "more than")
			case size == tooLarge:
				wantKind(t, err, edek.Unsettled, "has made the change, do not repeat it")
			}
		}
		if n := len(f.seen()); n != 4 {
			t.Errorf("%d requests", n)
		}
		wantNoFault(t, c)
		// What was given comes back, however much.
		if v, err := c.Create(ctx, alice, &edek.NewKey{Name: "k", Material: make([]byte, size)}); err != nil || len(v.Material) != size {
			t.Error(err)
		}
	}
}

// To Java, and in JSON, x\xff is x\ufffd: the answer would be about another key, or
// another would be made.
func TestNamesThatAreNotInUTF8AreNotSent(t *testing.T) {
	f := startFake(t, "k", "x\ufffd")
	c, ctx := newClient(t, nil, f), t.Context()
	for _, name := range []string{"x\xff", "\xed\xa0\x80"} {
		for what, call := range map[string]func() error{
			"metadata":   func() error { _, err := c.Metadata(ctx, alice, name); return err },
			"of several": func() error { _, err := c.KeysMetadata(ctx, edek.Caller{}, []string{"k", name}); return err },
			"create":     func() error { _, err := c.Create(ctx, alice, &edek.NewKey{Name: name}); return err },
			"roll":       func() error { _, err := c.Roll(ctx, alice, name, nil); return err },
			"delete":     func() error { return c.Delete(ctx, alice, name) },
			"generate":   func() error { return generate(c, name, 1) },
			"version":    func() error { _, err := c.Version(ctx, alice, name+"@0"); return err },
			"decrypt": func() error {
				_, err := c.Decrypt(ctx, alice, name, name+"@0", make([]byte, 16), make([]byte, 16))
				return err
			},
			"re-encrypt many":  func() error { _, err := c.ReencryptBatch(ctx, alice, name, nil); return err },
			"invalidate":       func() error { return c.InvalidateEverywhere(ctx, name) },
			"as the caller":    func() error { _, err := c.Generate(ctx, edek.Caller{User: name}, "k", 1); return err },
			"as the real user": func() error { _, err := c.Generate(ctx, edek.Caller{User: "alice", Real: name}, "k", 1); return err },
		} {
			if err := call(); edek.KindOf(err) != edek.Invalid || !strings.Contains(err.Error(), "not in UTF-8") {
				t.Errorf("%s of %q: %v", what, name, err)
			}
		}
	}
	if got := f.seen(); len(got) != 0 {
		t.Errorf("%q", got)
	}
	// The character itself is as good as any.
	if err := generate(c, "x\ufffd", 1); err != nil {
		t.Error(err)
	}
	wantNoFault(t, c)
}
