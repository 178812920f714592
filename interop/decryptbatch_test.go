package interop

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/edekd/edekd/edek"
)

// An engine that opens many files at once asks an edekd for batches, after it saw
// them announced, and a Java KMS for one DEK after the other.
func TestEngineDecryptsInBatches(t *testing.T) {
	EachHadoop(t, func(t *testing.T, hadoop string) {
		edekd := startEdekd(t, edekdOptions{rules: []string{"hadoop.kms.acl.DECRYPT_EEK", "alice"}})
		java := StartJavaKMS(t, hadoop)
		RunChecks(t, Java(t, hadoop, checksPackage+"DecryptBatches", edekd.Addr, java.Addr), nil,
			"a-batch-is-what-single-decrypts-are", "many-go-in-several-batches",
			"a-user-without-the-right-hears-it-from-a-single-decrypt",
			"an-entry-of-another-key-fails-its-batch",
			"a-java-kms-is-never-sent-a-batch", "a-java-kms-that-gets-a-batch-changes-nothing",
		)
		t.Run("where an edekd was", func(t *testing.T) { batchesRollNothing(t, java.Addr) })
		edekd.Stop(t)
		log, err := os.ReadFile(filepath.Join(edekd.state, "logs", "kms-audit.log"))
		if err != nil {
			t.Fatal(err)
		}
		var batches []string
		for line := range strings.Lines(string(log)) {
			if at := strings.Index(line, "DECRYPT_EEK_BATCH"); at >= 0 {
				batches = append(batches, strings.TrimSpace(line[at:]))
			}
		}
		const want = "DECRYPT_EEK_BATCH, key=a/batch, user=alice] decrypted 110 keys|" +
			"DECRYPT_EEK_BATCH, key=a/batch, user=alice] decrypted 1000 keys|" +
			"DECRYPT_EEK_BATCH, key=a/batch, user=alice] decrypted 500 keys|" +
			"DECRYPT_EEK_BATCH, key=a/batch, user=bob]"
		if got := strings.Join(batches, "|"); got != want {
			t.Errorf("batches in the audit log:\n%s\nwant\n%s", got, want)
		}
	})
}

// batchesRollNothing has our client send batches to a Java KMS that has taken the
// place of an edekd, as somebody who may roll: to Java their path is that of a key
// to roll, of which there is even one.
func batchesRollNothing(t *testing.T, java string) {
	var got []string
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: java})
	forward.ModifyResponse = func(r *http.Response) error {
		if path := r.Request.URL.Path; strings.HasSuffix(path, "/_decryptbatch") {
			got = append(got, r.Request.Method+" "+path)
		}
		r.Header.Set("X-Edekd-Batch", "decrypt") // the last answer of the edekd
		return nil
	}
	server := httptest.NewServer(forward)
	t.Cleanup(server.Close)
	c := upstreamClient(t, nil, server.Listener.Addr().String())
	names := []string{"zone", "zone/_decryptbatch"}
	for _, name := range names {
		v, err := c.Create(t.Context(), edek.Caller{}, &edek.NewKey{Name: name, Cipher: "AES/CTR/NoPadding", BitLength: 128})
		if err != nil {
			t.Fatal(err)
		}
		v.Zero()
	}
	versions := func() (n []int) {
		t.Helper()
		all, err := c.KeysMetadata(t.Context(), edek.Caller{}, names)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			n = append(n, m.Versions)
		}
		return n
	}
	for _, n := range []int{1, 2, 300} {
		all, err := c.Generate(t.Context(), edek.Caller{}, "zone", n)
		if err != nil {
			t.Fatal(err)
		}
		got = nil
		_, err = c.DecryptBatch(t.Context(), edek.Caller{}, "zone", all)
		if f, ok := errors.AsType[*edek.Foreign](err); !ok || f.Status != 500 {
			t.Errorf("a batch of %d: %v", n, err)
		}
		if !slices.Equal(got, []string{"POST /kms/v1/key/zone/_decryptbatch"}) {
			t.Errorf("a batch of %d: the Java KMS got %q", n, got)
		}
	}
	if n := versions(); !slices.Equal(n, []int{1, 1}) {
		t.Errorf("after batches %q have %d versions", names, n)
	}
	// An object rolls: the requests above came where keys are rolled.
	if status, text := ask(t, "POST", java, "/key/zone/_decryptbatch", "{}"); status != 200 {
		t.Errorf("roll: %d %s", status, text)
	}
	if n := versions(); !slices.Equal(n, []int{1, 2}) {
		t.Errorf("after a roll %q have %d versions", names, n)
	}
}
