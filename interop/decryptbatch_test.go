package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
