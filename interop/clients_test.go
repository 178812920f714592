package interop

import (
	"path/filepath"
	"strings"
	"testing"
)

const checksPackage = "io.edekd.interop."

func TestKeyShell(t *testing.T) {
	EachHadoop(t, func(t *testing.T, hadoop string) {
		edekd := StartEdekd(t)
		// f runs `hadoop key args` and wants this exit status and these texts in what it prints.
		f := func(args string, status int, texts ...string) {
			t.Helper()
			words := append([]string{"org.apache.hadoop.crypto.key.KeyShell"}, strings.Split(args, " ")...)
			program := Java(t, hadoop, append(words, "-provider", edekd.ProviderURI())...)
			out, err := program.CombinedOutput()
			if program.ProcessState == nil {
				t.Fatalf("hadoop key %s: %v", args, err)
			}
			if got := program.ProcessState.ExitCode(); got != status {
				t.Errorf("hadoop key %s: exit status %d, want %d\n%s", args, got, status, out)
			}
			for _, text := range texts {
				if !strings.Contains(string(out), text) {
					t.Errorf("hadoop key %s: want %q in\n%s", args, text, out)
				}
			}
		}
		f("create zone -size 256 -description bob's -attr owner=alice -attr use=hdfs", 0,
			"zone has been successfully created with options Options{cipher='AES/CTR/NoPadding', bitLength=256, "+
				"description='bob's', attributes={owner=alice, use=hdfs}}.")
		f("create small", 0, "small has been successfully created", "bitLength=128")
		f("create zone", 1, "zone has not been created.", "IOException: Key zone already exists in ")
		f("create odd -size 100", 1, "odd has not been created.",
			"InvalidParameterException: Wrong keysize: must be equal to 128, 192 or 256")
		f("roll zone", 0, "zone has been successfully rolled.")
		f("roll nobody", 1, "Cannot roll key: nobody within ", "IOException: Can't find Metadata for key nobody")
		f("list -metadata", 0,
			"\nzone : cipher: AES/CTR/NoPadding, length: 256, description: bob's, created: ",
			", version: 2, attributes: [", "key.acl.name=zone", "owner=alice", "use=hdfs",
			"\nsmall : cipher: AES/CTR/NoPadding, length: 128, description: null, created: ",
			", version: 1, attributes: [key.acl.name=small] \n")
		f("invalidateCache zone", 0, "Cached keyversions of zone has been successfully invalidated.")
		f("delete small -f", 0, "small has been successfully deleted.")
		f("delete small -f", 1, "small has not been deleted.", "IOException: Key small does not exist in ")
		f("list", 0, "Listing keys for KeyProvider: ", "LoadBalancingKMSClientProvider@", "\nzone\n")
	})
}

// lifeCycleChecks are the checks of LifeCycle.java. All of them pass in front of
// a Java KMS 3.4.3 too.
var lifeCycleChecks = []string{
	"provider", "create", "create-128", "create-192", "create-256", "create-with-attributes",
	"create-with-material", "create-existing", "create-existing-with-material",
	"create-material-of-wrong-length", "create-length-of-no-aes-key", "refused-keys-do-not-exist", "metadata",
	"metadata-of-a-plain-key", "metadata-missing", "keys-metadata", "keys-metadata-of-none", "keys",
	"current-key", "current-key-missing", "key-version", "key-version-missing", "key-versions",
	"key-versions-missing", "roll", "roll-with-material", "roll-missing", "roll-missing-with-material",
	"roll-material-of-wrong-length", "versions-after-roll", "metadata-after-roll", "current-key-after-roll",
	"invalidate-cache", "invalidate-cache-missing", "generate-and-decrypt-128", "generate-and-decrypt-192",
	"generate-and-decrypt-256", "generate-never-repeats", "generate-missing", "decrypt-missing-version",
	"decrypt-version-of-another-key", "decrypt-short-iv", "decrypt-any-length", "warm-up", "warm-up-missing",
	"drain-after-roll", "reencrypt", "reencrypt-already-current", "reencrypt-batch",
	"reencrypt-missing-version", "reencrypt-batch-missing-version", "delete", "delete-missing",
	"decrypt-after-delete", "create-after-delete", "metadata-after-create",
	"name a/b",
	"name /lead/trail/",
	"name at@sign",
	"name schlüssel-鍵-🔑",
	"name 100%25",
	"name +plus",
	"name q?x=y&key=z",
	"name #hash;semi:colon",
	"name quote\"'`<>|\\^[]{}",
	"name _metadata",
	"name ..",
	"name tab\tend",
	"name with a space",
}

func TestClientProviderLifeCycle(t *testing.T) {
	EachHadoop(t, func(t *testing.T, hadoop string) {
		for _, client := range []string{"single", "balancing"} {
			t.Run(client, func(t *testing.T) {
				edekd := StartEdekd(t)
				program := Java(t, hadoop, checksPackage+"LifeCycle", edekd.ProviderURI(), "true", client)
				RunChecks(t, program, nil, lifeCycleChecks...)
			})
		}
	})
}

// One client is enough here: the keystore file is below everything it sees.
func TestClientProviderLifeCycleOverKeystoreFile(t *testing.T) {
	newest := HadoopVersions[len(HadoopVersions)-1]
	file := filepath.Join(t.TempDir(), "kms.keystore")
	edekd := StartEdekd(t, "hadoop.kms.key.provider.uri", "jceks://file@"+file)
	program := Java(t, newest, checksPackage+"LifeCycle", edekd.ProviderURI(), "false", "balancing")
	RunChecks(t, program, nil, lifeCycleChecks...)
}

func TestLoadBalancingClientSurvivesAHost(t *testing.T) {
	EachHadoop(t, func(t *testing.T, hadoop string) {
		edekd := StartEdekd(t)
		port, shims := StartShims(t, edekd.Addr, "127.0.0.1", "127.0.0.2")
		first, second := shims[0], shims[1]
		lose := func(times int, request string, reset bool) func() {
			return func() {
				w := NewSwallow(times, request)
				w.Reset = reset
				first.Lose(w)
				second.Lose(w)
			}
		}
		steps := map[string]func(){
			"both hosts were asked": func() {
				for i, s := range shims {
					if n := s.Requests("POST /kms/v1/keyversion/busy%400/_eek?eek_op=decrypt "); n == 0 {
						t.Errorf("host %d was asked for no DEK", i+1)
					}
				}
			},
			"second refuses": func() { second.Set(t, ShimRefuse) },
			"second cuts":    func() { second.Set(t, ShimCut) },
			"second is back": func() { second.Set(t, ShimForward) },
			"first refuses":  func() { first.Set(t, ShimRefuse) },
			"first is back, second hangs": func() {
				first.Set(t, ShimForward)
				second.Set(t, ShimHang)
			},
			"second refuses changes": func() { second.Set(t, ShimRefuse) },
			"first refuses too":      func() { first.Set(t, ShimRefuse) },
			"both are back": func() {
				first.Set(t, ShimForward)
				second.Set(t, ShimForward)
			},
			"lose one answer to roll":    lose(1, "POST /kms/v1/key/rolled ", false),
			"reset one answer to roll":   lose(1, "POST /kms/v1/key/rolled ", true),
			"lose two answers to roll":   lose(2, "POST /kms/v1/key/rolled ", false),
			"lose one answer to create":  lose(1, "POST /kms/v1/keys ", false),
			"lose one answer to delete":  lose(1, "DELETE /kms/v1/key/created ", false),
			"lose one answer to decrypt": lose(1, "POST /kms/v1/keyversion/busy%400/_eek?eek_op=decrypt ", false),
		}
		program := Java(t, hadoop, checksPackage+"LoadBalancing",
			"kms://http@127.0.0.1;127.0.0.2:"+port+"/kms", edekd.ProviderURI())
		RunChecks(t, program, steps,
			"both-hosts-up",
			"reads-and-edeks-go-on-while-a-host-fails",
			"a-hanging-host-costs-a-timeout-only",
			"create-with-one-host-down",
			"roll-with-one-host-down-1", "the-roll-took-effect-once-1",
			"roll-with-one-host-down-2", "the-roll-took-effect-once-2",
			"invalidate-with-one-host-down",
			"delete-with-one-host-down", "the-deletion-took-effect",
			"read-with-no-host", "use-after-both-came-back",
			"a-lost-roll-is-sent-again-and-makes-two-versions",
			"a-reset-roll-is-sent-again-too",
			"a-roll-lost-twice-goes-to-the-other-host",
			"a-lost-create-says-that-the-key-exists", "the-created-key-is-whole",
			"a-lost-delete-says-that-the-key-is-missing", "the-deleted-key-is-gone",
			"a-lost-decrypt-is-not-noticed",
		)
	})
}
