package interop

import (
	"flag"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the answers of all servers into testdata/exchanges")

const exchangeDir = "testdata/exchanges"

// maxRules is how many classes of differences to the Java KMS we allow ourselves.
const maxRules = 20

// TestSideBySide sends every exchange to both releases of the Java KMS and to
// edekd on both of its file stores. Each must answer as recorded, and every
// difference between ours and Java's must have its rule in differences.txt.
func TestSideBySide(t *testing.T) {
	list := loadExchanges(t)
	servers := []string{Java343, Java336, EdekdJCEKS, EdekdSQLite}
	answers := map[string]map[string][]*Masked{}
	for _, server := range servers {
		answers[server] = runExchanges(t, server, list)
	}
	if *update {
		for _, e := range list {
			for _, server := range servers {
				e.Record(server, FormatMasked(answers[server][e.Name]))
			}
		}
		writeExchanges(t, list)
	}
	for _, server := range servers {
		checkRecorded(t, server, list, answers[server])
	}
	explainDifferences(t, "", list, answers, comparisons)
}

// comparisons are those of TestSideBySide.
var comparisons = [][2]string{{EdekdJCEKS, Java343}, {EdekdJCEKS, Java336}, {EdekdSQLite, Java343}}

// TestRecordedAnswers is TestSideBySide without Java: edekd against what the
// Java KMS is on record to answer. It takes seconds.
func TestRecordedAnswers(t *testing.T) {
	list := loadExchanges(t)
	answers := recordedAnswers(t, list)
	for _, server := range []string{EdekdJCEKS, EdekdSQLite} {
		answers[server] = runExchanges(t, server, list)
		checkRecorded(t, server, list, answers[server])
	}
	explainDifferences(t, "", list, answers, comparisons)
}

// recordedAnswers returns what both releases of the Java KMS are on record to
// answer.
func recordedAnswers(t *testing.T, list []*Exchange) map[string]map[string][]*Masked {
	t.Helper()
	answers := map[string]map[string][]*Masked{}
	for _, server := range []string{Java343, Java336} {
		answers[server] = map[string][]*Masked{}
		for _, e := range list {
			text, ok := e.Expected(server)
			if !ok {
				t.Fatalf("%s: nothing on record; run TestSideBySide with -update", e.Name)
			}
			masked, err := ParseMasked(text)
			if err != nil {
				t.Fatalf("%s: %v", e.Name, err)
			}
			answers[server][e.Name] = masked
		}
	}
	return answers
}

func loadExchanges(t *testing.T) []*Exchange {
	t.Helper()
	list, err := LoadExchanges(exchangeDir)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// runExchanges starts the server afresh and sends it the whole list.
func runExchanges(t *testing.T, server string, list []*Exchange) map[string][]*Masked {
	t.Helper()
	var addr, dir, provider string
	kind, variant, _ := strings.Cut(server, " ")
	switch kind {
	case "java":
		k := StartJavaKMS(t, variant)
		addr, dir, provider = k.Addr, k.Dir, k.Provider
	case "edekd":
		dir = t.TempDir()
		secret := filepath.Join(dir, "signature.secret")
		writeFile(t, secret, signingSecret)
		provider = variant + "://file@" + filepath.Join(dir, "kms.keystore")
		addr = StartEdekd(t,
			"hadoop.kms.key.provider.uri", provider,
			"hadoop.kms.authentication.signer.secret.provider", "file",
			"hadoop.kms.authentication.signature.secret.file", secret,
		).Addr
	}
	run, masker := NewRun(addr), NewMasker(addr, dir, provider)
	answers := map[string][]*Masked{}
	for _, e := range list {
		raw, err := run.Do(e)
		if err != nil {
			t.Fatalf("%s: %v", server, err)
		}
		answers[e.Name] = masker.Mask(e, raw)
	}
	return answers
}

// momentary are the exchanges that 3.3.6 answers in either of two ways, as its
// queue of EDEKs happens to be filled: of a deleted key it fails, as on record, or
// gives out what is left there, as 3.4.3 is on record to.
var momentary = []string{"keys-deleted-generate"}

func checkRecorded(t *testing.T, server string, list []*Exchange, answers map[string][]*Masked) {
	t.Helper()
	for _, e := range list {
		want, _ := e.Expected(server)
		got := FormatMasked(answers[e.Name])
		if server == Java336 && slices.Contains(momentary, e.Name) {
			if other, _ := e.Expected(Java343); got == other {
				continue
			}
		}
		if got != want {
			t.Errorf("%s answers %s with\n%s\n\non record is\n%s\n", server, e.Name, indent(got), indent(want))
		}
	}
}

// explainDifferences compares edekd's answers with Java's and demands a rule for
// each difference, and for each pattern of a rule a difference. Patterns that
// begin with "matrix/" are for the exchanges of the matrix, others for those of
// the group "".
func explainDifferences(t *testing.T, group string, list []*Exchange, answers map[string]map[string][]*Masked, comparisons [][2]string) {
	t.Helper()
	rules, err := LoadRules("differences.txt")
	if err != nil {
		t.Fatal(err)
	}
	if len(rules) > maxRules {
		t.Errorf("%d rules, %d are allowed", len(rules), maxRules)
	}
	page, err := os.ReadFile(filepath.Join("..", "docs", "compatibility.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if !strings.Contains(string(page), "`"+r.ID+"`") {
			t.Errorf("docs/compatibility.md says nothing of rule %s", r.ID)
		}
	}
	for _, pair := range comparisons {
		ours, theirs := pair[0], pair[1]
		comparison := ours + " to " + theirs
		identical, unexplained := 0, 0
		byRule := map[string]int{}
		for _, e := range list {
			parts := Differences(e.Method(), answers[theirs][e.Name], answers[ours][e.Name])
			if len(parts) == 0 {
				identical++
				continue
			}
			reasons := map[string]bool{}
			var open []string
			for _, part := range parts {
				explained := false
				for _, r := range rules {
					if r.Explain(comparison, path.Join(group, e.Name), part) {
						explained = true
						reasons[r.ID] = true
					}
				}
				if !explained {
					open = append(open, part)
				}
			}
			for id := range reasons {
				byRule[id]++
			}
			if len(open) > 0 {
				unexplained++
				t.Errorf("%s: %s differs in %s\n%s\n%s answers\n%s\n%s answers\n%s\n", comparison, e.Name, strings.Join(open, ", "),
					indent(e.Request), theirs, indent(FormatMasked(answers[theirs][e.Name])), ours, indent(FormatMasked(answers[ours][e.Name])))
			}
		}
		t.Logf("%s: %d exchanges, %d identical, %d unexplained", comparison, len(list), identical, unexplained)
		for _, r := range rules {
			if byRule[r.ID] > 0 {
				t.Logf("  %3d by rule %s", byRule[r.ID], r.ID)
			}
		}
	}
	for _, r := range rules {
		for _, p := range r.Unused() {
			if strings.HasPrefix(p, "matrix/") != (group == "matrix") {
				continue
			}
			t.Errorf("rule %s: pattern %s explains nothing", r.ID, p)
		}
	}
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(s, "\n", "\n    ")
}

// writeExchanges rewrites the group files with what is on record now.
func writeExchanges(t *testing.T, list []*Exchange) {
	t.Helper()
	groups := map[string]*strings.Builder{}
	for _, e := range list {
		b := groups[e.Group]
		if b == nil {
			text, err := os.ReadFile(filepath.Join(exchangeDir, e.Group+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			preamble, _, err := ParseExchanges(e.Group, string(text))
			if err != nil {
				t.Fatal(err)
			}
			b = &strings.Builder{}
			b.WriteString(strings.TrimRight(preamble, "\n") + "\n")
			groups[e.Group] = b
		}
		fmt.Fprintf(b, "\n%s", e.Format())
	}
	for group, b := range groups {
		if err := os.WriteFile(filepath.Join(exchangeDir, group+".txt"), []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestExchangeFileRoundTrip holds ParseExchanges and Format, FormatMasked and
// ParseMasked to be each other's inverse on the list itself.
func TestExchangeFileRoundTrip(t *testing.T) {
	for _, e := range loadExchanges(t) {
		_, again, err := ParseExchanges(e.Group, "preamble\n\n"+e.Format())
		if err != nil {
			t.Fatalf("%s: %v", e.Name, err)
		}
		if len(again) != 1 || fmt.Sprint(*again[0]) != fmt.Sprint(*e) {
			t.Errorf("%s comes back as\n%v\nfrom\n%v", e.Name, again, *e)
		}
		for server, text := range e.Recorded {
			masked, err := ParseMasked(text)
			if err != nil {
				t.Errorf("%s, %s: %v", e.Name, server, err)
				continue
			}
			if got := FormatMasked(masked); got != text {
				t.Errorf("%s, %s comes back as\n%s\nfrom\n%s", e.Name, server, got, text)
			}
		}
	}
}
