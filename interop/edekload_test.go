package interop

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// TestLoadToolAgainstJava puts every load of edekload on a real Java KMS: it has to
// take our requests for those of a Hadoop client.
func TestLoadToolAgainstJava(t *testing.T) {
	tool := filepath.Join(t.TempDir(), "edekload")
	if out, err := exec.Command("go", "build", "-o", tool, "../cmd/edekload").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	EachHadoop(t, func(t *testing.T, hadoop string) {
		url := "http://" + StartJavaKMS(t, hadoop).Addr + "/kms"
		for profile, args := range map[string][]string{
			"namenode":    {"--roll-every=200ms"},
			"clients":     nil,
			"mixed":       {"--users=5"},
			"reencrypt":   {"--batch=500"},
			"login-storm": {"--auth=token"},
		} {
			args = append(append([]string{profile, "--rate=20", "--duration=1s", "--create-keys=2", "--slo=errors<=0"}, args...), url)
			out, err := exec.Command(tool, args...).CombinedOutput()
			if err != nil || !regexp.MustCompile(`(?m)^ +[a-z-]+ +(1\d|20) +0 `).Match(out) {
				t.Errorf("%q: %v\n%s", args, err, out)
			} else {
				t.Logf("%s", out)
			}
		}
	})
}
