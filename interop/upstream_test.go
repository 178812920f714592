package interop

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream/kms"
)

// upstreamClient is our client of KMS nodes as the service hive, which may act for joe.
func upstreamClient(t *testing.T, kerberos *kms.Kerberos, addrs ...string) *kms.Client {
	t.Helper()
	c, err := kms.New(kms.Config{Address: kms.Address{Scheme: "http", Nodes: addrs, Path: "/kms"}, Service: "hive", Kerberos: kerberos,
		Attempt: 20 * time.Second}) // a busy machine may be slow
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// upstreamNames are hard enough for a path.
var upstreamNames = []string{"k1", "a/b", "with blank", "plus+percent%", "schlüssel", `q"uo;te`}

// runUpstream does with our client what a front end does with keys that live in
// another KMS, and judges the answers.
func runUpstream(t *testing.T, c *kms.Client, names []string) {
	t.Helper()
	ctx, joe, service := t.Context(), edek.Caller{User: "joe", Full: "joe"}, edek.Caller{}
	wantForeign := func(what string, err error, status int, class string) {
		t.Helper()
		if f, ok := errors.AsType[*edek.Foreign](err); !ok || f.Status != status || f.Class != class {
			t.Errorf("%s: %v", what, err)
		}
	}
	const authorization, io, argument = "org.apache.hadoop.security.authorize.AuthorizationException", "java.io.IOException", "java.lang.IllegalArgumentException"

	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			text := "made by our client"
			v, err := c.Create(ctx, joe, &edek.NewKey{Name: name, Cipher: "AES/CTR/NoPadding", BitLength: 256, Description: &text})
			if err != nil || v.VersionName != edek.VersionName(name, 0) || len(v.Material) != 32 {
				t.Fatalf("create: %v, %v", v, err)
			}
			zone := edek.NewZoneKey(v, edek.AESCTR)
			_, err = c.Create(ctx, joe, &edek.NewKey{Name: name, BitLength: 128})
			wantForeign("create again", err, 500, io)
			m, err := c.Metadata(ctx, joe, name)
			if err != nil || m.Versions != 1 || m.BitLength != 256 || m.Description == nil || *m.Description != text || m.Created == 0 {
				t.Errorf("metadata: %+v, %v", m, err)
			}

			all, err := c.Generate(ctx, service, name, 500)
			if err != nil || len(all) != 500 {
				t.Fatalf("generate: %d, %v", len(all), err)
			}
			e := all[123]
			want, _ := zone.AppendDEK(nil, e.IV[:], e.Wrapped())
			dek, err := c.Decrypt(ctx, joe, name, edek.VersionName(name, 0), e.IV[:], e.Wrapped())
			if err != nil || !bytes.Equal(dek, want) {
				t.Errorf("decrypt: %v", err)
			}
			_, err = c.Decrypt(ctx, service, name, edek.VersionName(name, 0), e.IV[:], e.Wrapped())
			wantForeign("decrypt as the service", err, 403, authorization)
			_, err = c.Decrypt(ctx, edek.Caller{User: "alice"}, name, edek.VersionName(name, 0), e.IV[:], e.Wrapped())
			wantForeign("decrypt as somebody the service may not act for", err, 403, authorization)
			_, err = c.Decrypt(ctx, joe, name, edek.VersionName(name, 7), e.IV[:], e.Wrapped())
			wantForeign("decrypt with no such version", err, 400, argument)

			material := bytes.Repeat([]byte{7}, 32)
			if v, err = c.Roll(ctx, joe, name, material); err != nil || v.VersionName != edek.VersionName(name, 1) || !bytes.Equal(v.Material, material) {
				t.Fatalf("roll: %v, %v", v, err)
			}
			if err := c.InvalidateEverywhere(ctx, name); err != nil {
				t.Fatal(err)
			}
			if err := c.InvalidateCache(ctx, joe, name); err != nil {
				t.Fatal(err)
			}
			if all, err = c.Generate(ctx, joe, name, 3); err != nil || all[0].Version() != 1 {
				t.Errorf("generate after the roll: %v", err)
			}
			one, err := c.Reencrypt(ctx, joe, name, edek.VersionName(name, 0), e.IV[:], e.Wrapped())
			if err != nil || one.Version() != 1 {
				t.Errorf("reencrypt: %v", err)
			}
			batch, err := c.ReencryptBatch(ctx, joe, name, []edek.EDEK{e, one, all[2]})
			if err != nil || !slices.Equal(batch, []edek.EDEK{one, one, all[2]}) {
				t.Errorf("reencrypt batch: %v", err)
			}
			if dek, err = c.Decrypt(ctx, joe, name, edek.VersionName(name, 1), one.IV[:], one.Wrapped()); err != nil || !bytes.Equal(dek, want) {
				t.Errorf("decrypt what was re-encrypted: %v", err)
			}

			if v, err = c.CurrentVersion(ctx, joe, name); err != nil || v.VersionName != edek.VersionName(name, 1) || !bytes.Equal(v.Material, material) {
				t.Errorf("current version: %v, %v", v, err)
			}
			if v, err = c.Version(ctx, joe, edek.VersionName(name, 0)); err != nil || v.VersionName != edek.VersionName(name, 0) {
				t.Errorf("version: %v, %v", v, err)
			}
			if versions, err := c.Versions(ctx, joe, name); err != nil || len(versions) != 2 || versions[1].VersionName != edek.VersionName(name, 1) {
				t.Errorf("versions: %v, %v", versions, err)
			}
			if many, err := c.KeysMetadata(ctx, joe, []string{"none", name}); err != nil || many[0] != nil || many[1].Versions != 2 {
				t.Errorf("keys metadata: %v, %v", many, err)
			}
			if names, err := c.Names(ctx, joe); err != nil || !slices.Contains(names, name) {
				t.Errorf("names: %q, %v", names, err)
			}
			if err := c.Delete(ctx, joe, name); err != nil {
				t.Fatal(err)
			}
			if err := c.InvalidateEverywhere(ctx, name); err != nil {
				t.Fatal(err)
			}
			_, err = c.Metadata(ctx, joe, name)
			if edek.KindOf(err) != edek.NotFound {
				t.Errorf("metadata of nothing: %v", err)
			}
			_, err = c.Version(ctx, joe, edek.VersionName(name, 0))
			if edek.KindOf(err) != edek.NotFound {
				t.Errorf("version of nothing: %v", err)
			}
			_, err = c.Versions(ctx, joe, name)
			if edek.KindOf(err) != edek.NotFound {
				t.Errorf("versions of nothing: %v", err)
			}
			_, err = c.Generate(ctx, joe, name, 1)
			wantForeign("generate of nothing", err, 500, io)
			wantForeign("delete of nothing", c.Delete(ctx, joe, name), 500, io)
		})
	}
	if node := c.Nodes()[0]; node.Faults != 0 || !node.Usable {
		t.Errorf("answers count as faults: %+v", node)
	}
}

func TestUpstreamClientOfJavaKMS(t *testing.T) {
	EachHadoop(t, func(t *testing.T, hadoop string) {
		runUpstream(t, upstreamClient(t, nil, StartJavaKMS(t, hadoop, JavaKMSOptions{Site: simpleSite, Rules: kerberizedRules}).Addr), upstreamNames)
	})
}

func TestUpstreamClientOfEdekd(t *testing.T) {
	runUpstream(t, upstreamClient(t, nil, startEdekd(t, edekdOptions{site: simpleSite, rules: kerberizedRules}).Addr), upstreamNames)
}

func TestUpstreamClientWithKerberos(t *testing.T) {
	realm := startRealm(t)
	t.Setenv("KRB5_CONFIG", realm.Config)
	hive := &kms.Kerberos{Principal: "hive/localhost@" + testRealm, Keytab: realm.users}
	t.Run("of a Java KMS", func(t *testing.T) {
		runUpstream(t, upstreamClient(t, hive, startKerberizedJavaKMS(t, realm, "3.4.3").Addr), upstreamNames)
	})
	t.Run("of edekd", func(t *testing.T) {
		e := StartKerberizedEdekd(t, realm)
		c := upstreamClient(t, hive, e.Addr)
		runUpstream(t, c, upstreamNames)
		// A restart makes the cookie worthless and the connections too.
		e.Stop(t)
		e.Start(t)
		if _, err := c.Names(t.Context(), edek.Caller{User: "joe"}); err != nil {
			t.Error(err)
		}
	})
}
