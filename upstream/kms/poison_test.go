package kms

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream"
)

const (
	iv16 = `"oKGio6SlpqeoqaqrrK2urw"`
	dek  = `"A3vWwC5tWEW46aaxxTdxZ4yodnZ8JM5rlhrPZTSmhJo"`
)

func TestPoisonedEDEKs(t *testing.T) {
	f := startFake(t, "k")
	whole := `[{"versionName":"k@0","iv":` + iv16 + `,"encryptedKeyVersion":{"material":` + dek + `,"name":"k","versionName":"EEK"}}]`
	one := whole[1 : len(whole)-1]
	c, ctx := newClient(t, func(c *Config) { c.Open = time.Millisecond }, f), t.Context()
	try := func(body string) error {
		f.set(func(w http.ResponseWriter, r *http.Request) bool {
			return r.Method != http.MethodOptions && text(body)(w, r)
		})
		eventually(t, "the node is in use", func() bool { return c.State() == upstream.OK })
		return generate(c, "k", 1)
	}
	replace := func(old, with string) string { return strings.Replace(whole, old, with, 1) }
	// The version's name is enough.
	for _, body := range []string{whole, replace(`"name":"k"`, `"name":null`), replace(`"name":"k",`, ``)} {
		if err := try(body); err != nil {
			t.Fatal(err)
		}
	}
	for what, body := range map[string]string{
		"another key's version":       replace(`k@0`, `other@0`),
		"a longer key's version":      replace(`k@0`, `k2@0`),
		"no version":                  replace(`k@0`, `k`),
		"a version with zeros":        replace(`k@0`, `k@00`),
		"a null version":              replace(`"k@0"`, `null`),
		"another inner name":          replace(`"name":"k"`, `"name":"other"`),
		"not wrapped":                 replace(`"EEK"`, `"EK"`),
		"an IV of 15 bytes":           replace(iv16, `"oKGio6SlpqeoqaqrrK2u"`),
		"an IV of 17 bytes":           replace(iv16, `"oKGio6SlpqeoqaqrrK2urw8"`),
		"no IV":                       replace(`"iv":`+iv16+`,`, ``),
		"nothing wrapped":             replace(dek, `""`),
		"33 bytes wrapped":            replace(dek, `"A3vWwC5tWEW46aaxxTdxZ4yodnZ8JM5rlhrPZTSmhJoA"`),
		"a megabyte wrapped":          replace(dek, `"`+strings.Repeat("A", 1<<20)+`"`),
		"no base64":                   replace(dek, `"!!!WwC5tWEW46aaxxTdxZ4yodnZ8JM5rlhrPZTSmhJo"`),
		"no EDEK":                     `[ ]`,
		"two EDEKs":                   `[` + one + `,` + one + `]`,
		"an EDEK and more":            whole + `x`,
		"an object":                   one,
		"null":                        `null`,
		"a number":                    `7`,
		"an exception":                `{"RemoteException":{"message":"m","javaClassName":"java.io.IOException"}}`,
		"a version beyond int32":      replace(`k@0`, `k@2147483648`),
		"a version that is no string": replace(`"k@0"`, `{"k":0}`),
		"nested beyond measure":       strings.Repeat("[", 4000),
	} {
		before := c.Nodes()[0].Faults
		if err := try(body); edek.KindOf(err) != edek.Unavailable {
			t.Errorf("%s: %v", what, err)
		}
		if c.Nodes()[0].Faults == before {
			t.Errorf("%s does not count as a fault", what)
		}
	}

	e, _ := edek.NewEDEK(0, fromB64(strings.Trim(iv16, `"`)), fromB64(strings.Trim(dek, `"`)))
	batch := func(body string) error {
		f.set(func(w http.ResponseWriter, r *http.Request) bool {
			return r.Method != http.MethodOptions && text(body)(w, r)
		})
		eventually(t, "the node is in use", func() bool { return c.State() == upstream.OK })
		got, err := c.ReencryptBatch(ctx, alice, "k", []edek.EDEK{e})
		if err == nil && got[0].IV != e.IV {
			t.Errorf("%v", got)
		}
		return err
	}
	for _, body := range []string{replace(`"name":"k"`, `"name":null`), replace(`k@0`, `k@1`), strings.Replace(replace(`k@0`, `k@1`), `"name":"k"`, `"name":null`, 1)} {
		if err := batch(body); err != nil {
			t.Error(err)
		}
	}
	for what, body := range map[string]string{
		"another IV":     replace(`oKGi`, `pKGi`),
		"another length": replace(dek, `"A3vWwC5tWEW46aaxxTdxZw"`),
		"another key":    replace(`k@0`, `l@0`),
	} {
		f.set(func(w http.ResponseWriter, r *http.Request) bool {
			return r.Method != http.MethodOptions && text(body[1:len(body)-1])(w, r)
		})
		eventually(t, "the node is in use", func() bool { return c.State() == upstream.OK })
		if _, err := c.Reencrypt(ctx, alice, "k", "k@0", e.IV[:], e.Wrapped()); edek.KindOf(err) != edek.Unavailable {
			t.Errorf("one with %s: %v", what, err)
		}
	}
	for what, body := range map[string]string{
		"another ciphertext of the same version": replace(`A3vW`, `B3vW`),
		"another IV":                             replace(`oKGi`, `pKGi`),
		"another length":                         replace(dek, `"A3vWwC5tWEW46aaxxTdxZw"`),
	} {
		if err := batch(body); edek.KindOf(err) != edek.Unavailable {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestPoisonedKeys(t *testing.T) {
	f := startFake(t)
	c, ctx := newClient(t, func(c *Config) { c.Open = time.Millisecond }, f), t.Context()
	try := func(what, body string, call func() error) {
		t.Helper()
		f.set(func(w http.ResponseWriter, r *http.Request) bool {
			return r.Method != http.MethodOptions && text(body)(w, r)
		})
		eventually(t, "the node is in use", func() bool { return c.State() == upstream.OK })
		if err := call(); edek.KindOf(err) != edek.Unavailable {
			t.Errorf("%s: %v", what, err)
		}
	}
	decrypt := func() error {
		_, err := c.Decrypt(ctx, alice, "k", "k@0", make([]byte, 16), make([]byte, 32))
		return err
	}
	try("a DEK of another key", `{"material":`+dek+`,"name":"other","versionName":"EK"}`, decrypt)
	try("a DEK of nobody's", `{"material":`+dek+`,"name":null,"versionName":"EK"}`, decrypt)
	try("a DEK still wrapped", `{"material":`+dek+`,"name":"k","versionName":"EEK"}`, decrypt)
	try("a short DEK", `{"material":`+iv16+`,"name":"k","versionName":"EK"}`, decrypt)
	try("no DEK", `{"material":null,"name":"k","versionName":"EK"}`, decrypt)
	try("{ }", `{ }`, decrypt)
	metadata := func() error { _, err := c.Metadata(ctx, alice, "k"); return err }
	try("another key", `{"name":"other","cipher":"AES","length":128,"created":1,"versions":1}`, metadata)
	try("no versions", `{"name":"k","cipher":"AES","length":128,"created":1,"versions":0}`, metadata)
	try("many versions", `{"name":"k","cipher":"AES","length":128,"created":1,"versions":2147483648}`, metadata)
	try("an array", `[ ]`, metadata)
	several := func() error { _, err := c.KeysMetadata(ctx, alice, []string{"k", "l"}); return err }
	try("too few", `[ { } ]`, several)
	try("in another order", `[ {"name":"l","versions":1}, {"name":"k","versions":1} ]`, several)
	try("null", `null`, func() error { _, err := c.Names(ctx, alice); return err })
	try("numbers", `[ 1 ]`, func() error { _, err := c.Names(ctx, alice); return err })
	version := func() error { _, err := c.Version(ctx, alice, "k@1"); return err }
	try("another version", `{"material":`+dek+`,"name":"k","versionName":"k@0"}`, version)
	try("another key's version", `{"material":`+dek+`,"name":"l","versionName":"l@1"}`, version)
	try("versions of two keys", `[ {"material":`+dek+`,"name":"k","versionName":"k@0"}, {"material":`+dek+`,"name":"l","versionName":"l@0"} ]`,
		func() error { _, err := c.Versions(ctx, alice, "k"); return err })
}
