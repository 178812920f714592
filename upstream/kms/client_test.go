package kms

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/edekd/edekd/edek"
)

func TestEDEKsThroughTheirLife(t *testing.T) {
	for _, name := range []string{"k1", "a/b", "with blank", "schlüssel", `q"uote`, "plus+percent%", "x@y"} {
		f := startFake(t, name)
		c, ctx := newClient(t, nil, f), t.Context()
		all, err := c.Generate(ctx, alice, name, 1234)
		if err != nil || len(all) != 1234 {
			t.Fatalf("%s: %d, %v", name, len(all), err)
		}
		e := all[7]
		dek, err := c.Decrypt(ctx, alice, name, edek.VersionName(name, e.Version()), e.IV[:], e.Wrapped())
		want, _ := f.keys[name][0].AppendDEK(nil, e.IV[:], e.Wrapped())
		if err != nil || !bytes.Equal(dek, want) {
			t.Fatalf("%s: %x, %v", name, dek, err)
		}
		v, err := c.Roll(ctx, alice, name, nil)
		if err != nil || v.VersionName != edek.VersionName(name, 1) || len(v.Material) != 32 {
			t.Fatalf("%s: %v, %v", name, v, err)
		}
		one, err := c.Reencrypt(ctx, alice, name, edek.VersionName(name, 0), e.IV[:], e.Wrapped())
		if err != nil || one.Version() != 1 || one.IV != e.IV {
			t.Fatalf("%s: %v, %v", name, one, err)
		}
		again, err := c.ReencryptBatch(ctx, alice, name, []edek.EDEK{all[0], one, all[7]})
		if err != nil || again[1] != one || again[2] != one || again[0].Version() != 1 {
			t.Fatalf("%s: %v, %v", name, again, err)
		}
		if dek, err = c.Decrypt(ctx, alice, name, edek.VersionName(name, 1), one.IV[:], one.Wrapped()); err != nil || !bytes.Equal(dek, want) {
			t.Fatalf("%s: %x, %v", name, dek, err)
		}
	}
}

func TestKeysThroughTheirLife(t *testing.T) {
	f := startFake(t)
	c, ctx := newClient(t, nil, f), t.Context()
	text := "what it is for"
	v, err := c.Create(ctx, alice, &edek.NewKey{Name: "k", Cipher: "AES/CTR/NoPadding", BitLength: 256, Description: &text,
		Attributes: map[string]string{"key.acl.name": "k"}, Material: make([]byte, 32)})
	if err != nil || v.VersionName != "k@0" {
		t.Fatal(v, err)
	}
	if v, err = c.Roll(ctx, alice, "k", make([]byte, 32)); err != nil || v.VersionName != "k@1" {
		t.Fatal(v, err)
	}
	m, err := c.Metadata(ctx, alice, "k")
	if err != nil || m.Versions != 2 || m.BitLength != 256 || m.Attributes["key.acl.name"] != "k" {
		t.Fatal(m, err)
	}
	names := []string{"k", "none"}
	for range 400 {
		names = append(names, "another")
	}
	many, err := c.KeysMetadata(ctx, alice, names)
	if err != nil || len(many) != len(names) || many[0].Name != "k" || many[1] != nil {
		t.Fatal(many, err)
	}
	if list, err := c.Names(ctx, alice); err != nil || !slices.Equal(list, []string{"k"}) {
		t.Fatal(list, err)
	}
	if v, err = c.CurrentVersion(ctx, alice, "k"); err != nil || v.VersionName != "k@1" || v.Material[0] != 1 {
		t.Fatal(v, err)
	}
	if v, err = c.Version(ctx, alice, "k@0"); err != nil || v.VersionName != "k@0" || v.Material[0] != 0 {
		t.Fatal(v, err)
	}
	if all, err := c.Versions(ctx, alice, "k"); err != nil || len(all) != 2 || all[1].Material[0] != 1 {
		t.Fatal(all, err)
	}
	if err := c.InvalidateCache(ctx, alice, "k"); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, alice, "k"); err != nil {
		t.Fatal(err)
	}

	_, err = c.Metadata(ctx, alice, "k")
	wantKind(t, err, edek.NotFound)
	_, err = c.CurrentVersion(ctx, alice, "k")
	wantKind(t, err, edek.NotFound)
	_, err = c.Version(ctx, alice, "k@0")
	wantKind(t, err, edek.NotFound)
	_, err = c.Versions(ctx, alice, "k")
	wantKind(t, err, edek.NotFound)
	_, err = c.Version(ctx, alice, "k")
	wantKind(t, err, edek.NotFound)

	var foreign *edek.Foreign
	if err := c.Delete(ctx, alice, "k"); !errors.As(err, &foreign) || foreign.Status != 500 || foreign.Class != "java.io.IOException" ||
		foreign.Text != "Key k does not exist in jceks://file@/k" || foreign.Node != f.addr {
		t.Errorf("%v", err)
	}
	if err := generate(c, "none", 1); !errors.As(err, &foreign) || foreign.Text != "No KeyVersion exists for key 'none' " {
		t.Errorf("%v", err)
	}
	if _, err := c.Decrypt(ctx, alice, "k", "k@7", make([]byte, 16), make([]byte, 32)); !errors.As(err, &foreign) || foreign.Status != 400 {
		t.Errorf("%v", err)
	}
	c.Create(ctx, alice, &edek.NewKey{Name: "k"})
	if _, err := c.Create(ctx, alice, &edek.NewKey{Name: "k"}); !errors.As(err, &foreign) || strings.Contains(foreign.Text, "nowhere") {
		t.Errorf("%v", err)
	}
	if status := c.Nodes()[0]; !status.Usable || status.Faults != 0 {
		t.Errorf("answers of the interface count as faults: %+v", status)
	}
}

func TestWhomTheUpstreamSees(t *testing.T) {
	f := startFake(t, "k")
	c, ctx := newClient(t, nil, f), t.Context()
	generate(c, "k", 2)
	c.Generate(ctx, edek.Caller{}, "k", 1)
	c.Generate(ctx, edek.Caller{User: "a&b=c d", Real: "oozie"}, "k", 1)
	c.Delete(ctx, alice, "k")
	want := []string{
		"GET /kms/v1/key/k/_eek?eek_op=generate&num_keys=2&user.name=edekd&doAs=alice",
		"GET /kms/v1/key/k/_eek?eek_op=generate&num_keys=1&user.name=edekd",
		"GET /kms/v1/key/k/_eek?eek_op=generate&num_keys=1&user.name=edekd&doAs=a%26b%3Dc+d",
		"DELETE /kms/v1/key/k?user.name=edekd&doAs=alice",
	}
	if got := f.seen(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	var foreign *edek.Foreign
	if _, err := c.Generate(ctx, edek.Caller{User: "edekd"}, "k", 1); !errors.As(err, &foreign) || foreign.Status != 403 {
		t.Errorf("a caller named like the service: %v", err)
	}
	if got := f.seen(); len(got) != len(want) {
		t.Errorf("%q", got)
	}
}

// What comes as doAs goes through the upstream's own rules, which may make the
// service's name of a principal's.
func TestCallersWithLongNamesAreNotPassedOn(t *testing.T) {
	f := startFake(t, "k")
	c := newClient(t, nil, f)
	for _, caller := range []edek.Caller{{User: "edekd@EXAMPLE.COM"}, {User: "edekd/h@EXAMPLE.COM"}, {User: "edekd/h"}, {User: "alice", Real: "edekd@EXAMPLE.COM"}} {
		_, err := c.Generate(t.Context(), caller, "k", 1)
		if foreign, ok := errors.AsType[*edek.Foreign](err); !ok || foreign.Status != 403 || foreign.Class != accessClass || !strings.Contains(foreign.Text, "name.rules must make a short name") {
			t.Errorf("%+v: %v", caller, err)
		}
	}
	if got := f.seen(); len(got) != 0 {
		t.Errorf("%q", got)
	}
	// What a full name looks like does not matter: it is not sent.
	if _, err := c.Generate(t.Context(), edek.Caller{User: "alice", Full: "alice/h@EXAMPLE.COM", Real: "oozie"}, "k", 1); err != nil {
		t.Error(err)
	}
}

func TestNamesThatWouldLeadElsewhereAreNotSent(t *testing.T) {
	f := startFake(t, "k")
	c, ctx := newClient(t, nil, f), t.Context()
	for _, name := range []string{"", ".", "..", "a/../k", "k\x00"} {
		wantKind(t, generate(c, name, 1), edek.Invalid)
		wantKind(t, c.Delete(ctx, alice, name), edek.Invalid)
	}
	for _, name := range []string{"k/", "k/_invalidatecache", "k/_reencryptbatch"} {
		_, err := c.Create(ctx, alice, &edek.NewKey{Name: name})
		wantKind(t, err, edek.Invalid)
		_, err = c.Roll(ctx, alice, name, nil)
		wantKind(t, err, edek.Invalid)
		wantKind(t, c.Delete(ctx, alice, name), edek.Invalid)
	}
	_, err := c.Decrypt(ctx, alice, "k", "other@0", make([]byte, 16), make([]byte, 32))
	wantKind(t, err, edek.Invalid, "does not belong to the key 'k'")
	wantKind(t, generate(c, "k", 0), edek.Invalid)
	_, err = c.Generate(ctx, edek.Caller{Full: "alice@EXAMPLE"}, "k", 1)
	wantKind(t, err, edek.Invalid, "no short name")
	if got := f.seen(); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

func TestChangesHaveConnectionsOfTheirOwn(t *testing.T) {
	f := startFake(t, "k")
	c := newClient(t, nil, f)
	for range 5 {
		if err := generate(c, "k", 1); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.connections(); n != 1 {
		t.Errorf("%d connections for reads one after another", n)
	}
	for range 3 {
		if _, err := c.Roll(context.Background(), alice, "k", nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.connections(); n != 4 {
		t.Errorf("%d connections after three changes", n)
	}
}

func TestParseURI(t *testing.T) {
	f := func(uri, scheme, nodes, path string) {
		t.Helper()
		a, err := ParseURI(uri)
		if err != nil || a.Scheme != scheme || strings.Join(a.Nodes, " ") != nodes || a.Path != path {
			t.Errorf("%s: %+v, %v", uri, a, err)
		}
	}
	f("kms://https@h1;h2:9600/kms", "https", "h1:9600 h2:9600", "/kms")
	f("kms://http@localhost:9600/kms/", "http", "localhost:9600", "/kms")
	f("kms://https@kms.example.com/kms", "https", "kms.example.com:443", "/kms")
	f("kms://http@h1:1;h2:2;h3/kms", "http", "h1:1 h2:2 h3:80", "/kms")
	f("kms://http@[::1]:9600/a/b", "http", "[::1]:9600", "/a/b")
	f("kms://http@h:9600", "http", "h:9600", "")
	for _, bad := range []string{"", "jceks://file@/x", "kms://h1:9600/kms", "kms://ftp@h:1/kms", "kms://http@/kms", "kms://http@h:0/kms", "kms://http@h:99999/kms",
		"kms://http@h:x/kms", "kms://http@h;;i:1/kms", "kms://http@h:1;h:1/kms", "kms://http@u@h:1/kms", "kms://http@h:1/kms?x", "kms://http@h:1/kms#x", "kms://http@[x]:1/kms",
		"kms://http@h:1/k ms", "kms://http@h:1/k%zz", "kms://http@h\x00:1/kms"} {
		if a, err := ParseURI(bad); err == nil {
			t.Errorf("%q: %+v", bad, a)
		} else if !strings.Contains(err.Error(), "write it like") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("kms://https@h1;h2:9600/kms")
	f.Add("kms://http@[::1]:1;b/x")
	f.Fuzz(func(t *testing.T, uri string) {
		a, err := ParseURI(uri)
		if err != nil {
			return
		}
		c, err := New(Config{Address: a, Service: "s"})
		if err != nil {
			t.Fatalf("%q is read, but %v", uri, err)
		}
		c.Close()
	})
}
