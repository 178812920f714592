package interop

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const matrixFile = "testdata/matrix.txt"

// TestMatrix asks the questions of the matrix of both releases of the Java KMS
// and of edekd, each with the same rules. Each must answer, and audit, as
// recorded, and each difference must have its rule in differences.txt.
func TestMatrix(t *testing.T) {
	list := Matrix()
	servers := []string{Java343, Java336, EdekdJCEKS}
	answers := map[string]map[string][]*Masked{}
	for _, server := range servers {
		answers[server] = runMatrix(t, server, list)
	}
	if *update {
		var b strings.Builder
		b.WriteString("The authorization matrix of matrix.go, with what the servers answered and what they wrote into the audit log.\n")
		for _, e := range list {
			for _, server := range servers {
				e.Record(server, FormatMasked(answers[server][e.Name]))
			}
			b.WriteString("\n" + e.Format())
		}
		writeFile(t, matrixFile, b.String())
	}
	recorded := loadMatrix(t)
	for _, server := range servers {
		checkRecorded(t, server, recorded, answers[server])
	}
	explainDifferences(t, "matrix", recorded, answers, [][2]string{{EdekdJCEKS, Java343}, {EdekdJCEKS, Java336}})
}

// TestRecordedMatrix is TestMatrix without Java.
func TestRecordedMatrix(t *testing.T) {
	list := loadMatrix(t)
	answers := recordedAnswers(t, list)
	answers[EdekdJCEKS] = runMatrix(t, EdekdJCEKS, list)
	checkRecorded(t, EdekdJCEKS, list, answers[EdekdJCEKS])
	explainDifferences(t, "matrix", list, answers, [][2]string{{EdekdJCEKS, Java343}, {EdekdJCEKS, Java336}})
}

// loadMatrix reads the record, which must be of the matrix as it is now.
func loadMatrix(t *testing.T) []*Exchange {
	t.Helper()
	text, err := os.ReadFile(matrixFile)
	if err != nil {
		t.Fatal(err)
	}
	_, recorded, err := ParseExchanges("matrix", string(text))
	if err != nil {
		t.Fatal(err)
	}
	list := Matrix()
	if len(list) != len(recorded) {
		t.Fatalf("the matrix has %d exchanges, %d are on record; run TestMatrix with -update", len(list), len(recorded))
	}
	for i, e := range list {
		if r := recorded[i]; e.Name != r.Name || e.Request != r.Request || e.BodyVaries != r.BodyVaries {
			t.Fatalf("%s is on record as %s with another request; run TestMatrix with -update", e.Name, r.Name)
		}
		for server, text := range recorded[i].Recorded {
			masked, err := ParseMasked(text)
			if err != nil {
				t.Fatalf("%s, %s: %v", e.Name, server, err)
			}
			if again := FormatMasked(masked); again != text {
				t.Fatalf("%s, %s comes back as\n%s\nfrom\n%s", e.Name, server, again, text)
			}
		}
	}
	return recorded
}

var (
	javaAudit  = regexp.MustCompile(`^\S+ \S+ kms-audit \[[^]]*\] (.*)$`)
	edekdAudit = regexp.MustCompile(`^\S+ \S+ (.*)$`)
)

// runMatrix starts the server under the rules of the matrix and asks it.
func runMatrix(t *testing.T, server string, list []*Exchange) map[string][]*Masked {
	t.Helper()
	var addr, dir, provider, log string
	line := edekdAudit
	kind, variant, _ := strings.Cut(server, " ")
	switch kind {
	case "java":
		// Java looks for the groups' properties on its class path only.
		global := t.TempDir()
		writeFile(t, filepath.Join(global, "core-site.xml"), siteXML(matrixSite...))
		k := StartJavaKMS(t, variant, JavaKMSOptions{Site: matrixSite, Rules: matrixRules,
			JVM: []string{"-cp", global + string(os.PathListSeparator) + ClassPath(t, variant)}})
		addr, dir, provider, line, log = k.Addr, k.Dir, k.Provider, javaAudit, filepath.Join(k.Dir, "kms.log")
	case "edekd":
		dir = t.TempDir()
		secret := filepath.Join(dir, "signature.secret")
		writeFile(t, secret, signingSecret)
		provider, log = variant+"://file@"+filepath.Join(dir, "kms.keystore"), filepath.Join(dir, "kms-audit.log")
		addr = startEdekd(t, edekdOptions{rules: matrixRules, site: append([]string{
			"edekd.log.dir", dir,
			"hadoop.kms.key.provider.uri", provider,
			"hadoop.kms.authentication.signer.secret.provider", "file",
			"hadoop.kms.authentication.signature.secret.file", secret,
		}, matrixSite...)}).Addr
	}
	run, fence, masker := NewRun(addr), NewRun(addr), NewMasker(addr, dir, provider)
	audit := auditReader{tb: t, path: log, text: func(s string) (string, bool) {
		m := line.FindStringSubmatch(s)
		if m == nil {
			return "", false
		}
		return m[1], true
	}}
	answers := map[string][]*Masked{}
	for _, e := range list {
		raw, err := run.Do(e)
		if err != nil {
			t.Fatalf("%s: %v", server, err)
		}
		answers[e.Name] = masker.Mask(e, raw)
		if strings.HasPrefix(e.Name, "setup-") && e.Name != "setup-fence" {
			continue // before there is a fence
		}
		lines := audit.next(fence)
		if e.Name == "setup-fence" {
			continue // of all the setup
		}
		last := len(answers[e.Name]) - 1
		answers[e.Name][last].Audit = masker.Audit(lines)
	}
	return answers
}
