package interop

import "testing"

func TestEncryptionZoneOfMiniCluster(t *testing.T) {
	EachHadoop(t, func(t *testing.T, hadoop string) {
		edekd := StartEdekd(t)
		steps := map[string]func(){
			"stop the KMS":        func() { edekd.Stop(t) },
			"start the KMS again": func() { edekd.Start(t) },
		}
		program := Java(t, hadoop, checksPackage+"EncryptionZone", edekd.ProviderURI(), t.TempDir())
		RunChecks(t, program, steps,
			"create-key-and-zone",
			"zone-with-a-missing-key",
			"write-files", "read-files", "files-carry-the-first-version", "blocks-hold-ciphertext", "append",
			"rename-inside-the-zone", "rename-out-of-the-zone", "rename-into-the-zone",
			"no-file-opens-without-the-kms", "files-open-after-the-restart", "write-after-the-restart",
			"roll", "old-files-open-after-the-roll",
			"reencrypt-zone-completes", "files-carry-the-new-version", "new-files-carry-the-new-version",
			"read-files-after-reencryption",
		)
	})
}
