package interop

import (
	"slices"
	"testing"
)

// zoneChecks are the checks of EncryptionZone.java.
var zoneChecks = []string{
	"create-key-and-zone",
	"zone-with-a-missing-key",
	"write-files", "read-files", "files-carry-the-first-version", "blocks-hold-ciphertext", "append",
	"rename-inside-the-zone", "rename-out-of-the-zone", "rename-into-the-zone",
	"no-file-opens-without-the-kms", "files-open-after-the-restart", "write-after-the-restart",
	"roll", "old-files-open-after-the-roll",
	"reencrypt-zone-completes", "files-carry-the-new-version", "new-files-carry-the-new-version",
	"read-files-after-reencryption",
}

// runZone runs EncryptionZone.java with edekd as its KMS. The program rolls the
// zone key itself unless roll, when given, does it elsewhere.
func runZone(t *testing.T, hadoop string, edekd *Edekd, roll func()) {
	t.Helper()
	steps := map[string]func(){
		"stop the KMS":        func() { edekd.Stop(t) },
		"start the KMS again": func() { edekd.Start(t) },
	}
	args := []string{checksPackage + "EncryptionZone", edekd.ProviderURI(), t.TempDir()}
	checks := slices.Clone(zoneChecks)
	if roll != nil {
		steps["roll the key elsewhere"] = roll
		args = append(args, "elsewhere")
		checks[slices.Index(checks, "roll")] = "rolled-elsewhere"
	}
	RunChecks(t, Java(t, hadoop, args...), steps, checks...)
}

func TestEncryptionZoneOfMiniCluster(t *testing.T) {
	EachHadoop(t, func(t *testing.T, hadoop string) {
		runZone(t, hadoop, StartEdekd(t), nil)
	})
}
