package interop

import (
	"os/user"
	"testing"
)

// With copies of key versions HDFS goes on writing new files, and reading all, while
// the Java KMS behind edekd is gone. That what was written is right is shown by the
// Java KMS, once it is back.
func TestNewFilesWhileTheKMSBehindIsGone(t *testing.T) {
	const hadoop = "3.4.3"
	who, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	java := StartJavaKMS(t, hadoop, JavaKMSOptions{Site: behindSite})
	port, nodes := StartShims(t, java.Addr, "127.0.0.1")
	edekd := startEdekd(t, edekdOptions{
		site: []string{"hadoop.kms.key.provider.uri", "kms://http@127.0.0.1:" + port + "/kms", "edekd.upstream.user", "edekd",
			"edekd.upstream.decrypt", "local", "edekd.upstream.grant.outage.seconds", "600", "edekd.upstream.attempt.ms", "1000"},
		rules: []string{"default.key.acl.DECRYPT_EEK", who.Username + ",hdfs"},
	})
	usable := func() bool {
		return metric(t, edekd.Addr, `edekd_upstream_state{state="ok"}`) == 1
	}
	steps := map[string]func(){
		"lose the KMS behind": func() {
			soon(t, "EDEKs and a copy of the key", func() bool {
				return ready(t, edekd.Addr) && metric(t, edekd.Addr, "edekd_near_hits_total") > 0
			})
			nodes[0].Set(t, ShimRefuse)
			soon(t, "the state of an outage", func() bool {
				ask(t, "GET", edekd.Addr, "/key/zonekey/_metadata", "") // so that there is something to be refused
				return !usable()
			})
		},
		"find the KMS behind again": func() {
			nodes[0].Set(t, ShimForward)
			soon(t, "the end of the outage", usable)
			e := generate(t, edekd.Addr, "zonekey")
			if ours, theirs := decrypt(t, edekd.Addr, "zonekey", e), decrypt(t, java.Addr, "zonekey", e); ours != theirs {
				t.Errorf("decrypted by edekd: %s\nby Java: %s", ours, theirs)
			}
		},
	}
	RunChecks(t, Java(t, hadoop, checksPackage+"EncryptionZone", edekd.ProviderURI(), t.TempDir(), "outage"), steps,
		"create-key-and-zone", "zone-with-a-missing-key", "write-files", "read-files", "files-carry-the-first-version", "blocks-hold-ciphertext", "append",
		"new-files-without-the-kms-behind", "all-files-open-without-the-kms-behind", "all-files-open-with-the-kms-behind")
}
