package interop

import (
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/keys"
)

// printMaterial prints the material of the named key versions as Hadoop's own
// provider sees it, one line of hex each.
const printMaterial = `
import java.net.URI;
import java.util.HexFormat;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.crypto.key.KeyProvider;
import org.apache.hadoop.crypto.key.KeyProviderFactory;

public class PrintMaterial {
  public static void main(String[] args) throws Exception {
    KeyProvider provider = KeyProviderFactory.get(new URI(args[0]), new Configuration());
    for (int i = 1; i < args.length; i++) {
      System.out.println("material " + HexFormat.of().formatHex(provider.getKeyVersion(args[i]).getMaterial()));
    }
  }
}
`

// TestJCEKSFileGoesBothWays passes one keystore file back and forth between
// edekd's provider and Hadoop's own, each changing what the other wrote.
func TestJCEKSFileGoesBothWays(t *testing.T) {
	EachHadoop(t, func(t *testing.T, hadoop string) {
		t.Setenv(keys.JCEKSPasswordEnv, "correct horse")
		path := filepath.Join(t.TempDir(), "kms.keystore")
		uri := "jceks://file@" + path
		ours := func(use func(p keys.Provider)) {
			t.Helper()
			p, err := keys.OpenJCEKS(t.Context(), uri, keys.JCEKSOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			use(p)
		}
		shell := func(args string, texts ...string) {
			t.Helper()
			words := append([]string{"org.apache.hadoop.crypto.key.KeyShell"}, strings.Split(args, " ")...)
			out, err := Java(t, hadoop, append(words, "-provider", uri)...).CombinedOutput()
			if err != nil {
				t.Fatalf("hadoop key %s: %v\n%s", args, err, out)
			}
			for _, text := range texts {
				if !strings.Contains(string(out), text) {
					t.Errorf("hadoop key %s: want %q in\n%s", args, text, out)
				}
			}
		}
		source := filepath.Join(t.TempDir(), "PrintMaterial.java")
		if err := os.WriteFile(source, []byte(printMaterial), 0o600); err != nil {
			t.Fatal(err)
		}

		material := make(map[string]string) // hex, by version name
		keep := func(v *edek.KeyVersion, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			material[v.VersionName] = hex.EncodeToString(v.Material)
		}
		sameInJava := func() {
			t.Helper()
			args := []string{source, uri}
			var want []string
			for name, key := range material {
				args, want = append(args, name), append(want, "material "+key)
			}
			out, err := Java(t, hadoop, args...).Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, err.(*exec.ExitError).Stderr)
			}
			got := regexp.MustCompile(`(?m)^material .*$`).FindAllString(string(out), -1)
			if !slices.Equal(got, want) {
				t.Errorf("of %q Java has %d versions right or wrong, want %d, all equal", args[2:], len(got), len(want))
			}
		}

		// A new file of ours, with metadata longer than one block of Java's streams.
		description := strings.Repeat("née ", 500) + "end"
		ours(func(p keys.Provider) {
			keep(p.Create(t.Context(), &edek.NewKey{Name: "zone", Cipher: "AES/CTR/NoPadding", BitLength: 256, Description: &description,
				Attributes: map[string]string{"key.acl.name": "zone"}}))
			keep(p.Create(t.Context(), &edek.NewKey{Name: "a/b", Cipher: "AES/CTR/NoPadding", BitLength: 128}))
			keep(p.Roll(t.Context(), "zone", nil))
		})
		sameInJava()
		shell("list -metadata", "a/b : cipher: AES/CTR/NoPadding, length: 128, description: null, ", " end, created: ",
			"version: 2, attributes: [key.acl.name=zone]", "zone : cipher: AES/CTR/NoPadding, length: 256, ")

		// Java changes it, and leaves a checksum of its own beside it.
		shell("roll zone", "zone has been successfully rolled.")
		shell("create theirs -size 192 -description two -attr team=blue", "theirs has been successfully created")
		shell("delete a/b -f", "a/b has been successfully deleted.")
		delete(material, "a/b@0")
		if _, err := os.Stat(filepath.Join(filepath.Dir(path), ".kms.keystore.crc")); err != nil {
			t.Errorf("Hadoop left no checksum, so the rest of this test shows less than it should: %v", err)
		}

		// Ours again: everything as it was, then more changes.
		ours(func(p keys.Provider) {
			names, err := p.Names(t.Context())
			if slices.Sort(names); err != nil || !slices.Equal(names, []string{"theirs", "zone"}) {
				t.Errorf("names %q, %v", names, err)
			}
			m, err := p.Metadata(t.Context(), "zone")
			if err != nil {
				t.Fatal(err)
			}
			if m.Versions != 3 || *m.Description != description || m.Attributes["key.acl.name"] != "zone" {
				t.Errorf("zone came back as %+v", m)
			}
			m, err = p.Metadata(t.Context(), "theirs")
			if err != nil {
				t.Fatal(err)
			}
			if m.BitLength != 192 || *m.Description != "two" || m.Attributes["team"] != "blue" || m.Versions != 1 {
				t.Errorf("theirs is %+v", m)
			}
			for _, version := range []string{"zone@0", "zone@1"} {
				v, err := p.Version(t.Context(), version)
				if err != nil || hex.EncodeToString(v.Material) != material[version] {
					t.Errorf("%s came back with other material (%v)", version, err)
				}
			}
			keep(p.Version(t.Context(), "zone@2"))
			keep(p.Version(t.Context(), "theirs@0"))
			keep(p.Roll(t.Context(), "theirs", nil))
		})
		sameInJava()
		shell("roll theirs", "theirs has been successfully rolled.")
		ours(func(p keys.Provider) {
			if m, err := p.Metadata(t.Context(), "theirs"); err != nil || m.Versions != 3 {
				t.Errorf("theirs is %+v, %v", m, err)
			}
			if err := p.Delete(t.Context(), "theirs"); err != nil {
				t.Error(err)
			}
		})
		shell("list", "\nzone")
	})
}
