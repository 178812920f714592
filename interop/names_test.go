package interop

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edekd/edekd/hadoop/names"
)

// nameCase is a set of rules and who asks for a name by it.
type nameCase struct {
	rules, mechanism string
	principals       []string
}

const realm = "EXAMPLE.COM"

// principals are asked for by each of nameRules.
var principals = []string{
	"hdfs@EXAMPLE.COM", "hdfs", "hdfs/nn1.example.com@EXAMPLE.COM", "hdfs/nn1.example.com", "HTTP/kms@OTHER.ORG",
	"alice@OTHER.ORG", "Alice.B-C_d@EXAMPLE.COM", "a@b@EXAMPLE.COM", "a/b/c@EXAMPLE.COM", "@EXAMPLE.COM", "/host@EXAMPLE.COM",
	"hdfs@", "hdfs/@EXAMPLE.COM", "aaa@EXAMPLE.COM", "aba$1@EXAMPLE.COM", `back\slash@EXAMPLE.COM`, "joãozinho@EXAMPLE.COM", "KÄTHE@EXAMPLE.COM", "KATHE@K",
	"nn/_HOST@EXAMPLE.COM", "rm/h@EXAMPLE.COM", "x&y@EXAMPLE.COM", "o'hara@EXAMPLE.COM", "a b@EXAMPLE.COM", "svc-1/a.b@OTHER.ORG",
	"a@EXAMPLE.COM", "u1234567890@EXAMPLE.COM", "DEFAULT@EXAMPLE.COM", "aabbaab@EXAMPLE.COM", "[x]@EXAMPLE.COM", "a-b@EXAMPLE.COM", "a&b@EXAMPLE.COM",
}

// nameRules are accepted by both.
var nameRules = []string{
	"DEFAULT", " DEFAULT\n", "DEFAULTL", "DEFAULT/L", "\t\n DEFAULT DEFAULT",
	"RULE:[1:$1]", "RULE:[2:$1]", "RULE:[1:$1]/L", "RULE:[1:$1]L", "RULE:[2:$1@$0]", "RULE:[1:$0]", "RULE:[2:$2]", "RULE:[2:$1-$2]\nDEFAULT",
	"RULE:[0:x]DEFAULT", "RULE:[3:$3]DEFAULT", "RULE:[1:x$1y]", "RULE:[01:$1]", "RULE:[1:$01]",
	"RULE:[1:$1@$0](.*@EXAMPLE.COM)s/@.*//", "RULE:[1:$1@$0](.*@OTHER\\.ORG)s/@.*//\nDEFAULT", "RULE:[1:$1@$0](.*@EXAMPLE.COM)s/@.*///L\nRULE:[2:$1](HTTP)s/.*/http/",
	"RULE:[2:$1@$0]([nd]n@.*EXAMPLE.COM)s/.*/hdfs/\nRULE:[2:$1@$0]([rn]m@.*EXAMPLE.COM)s/.*/yarn/\nDEFAULT",
	"RULE:[2:$1;$2](^hdfs;nn1.*$)s/;.*$//", "RULE:[1:$1](alice)s/alice/bob/\nRULE:[1:$1]", "RULE:[1:$1]s/a/b/", "RULE:[1:$1]s/a/b/g", "RULE:[1:$1]s/a/b/gL",
	"RULE:[1:$1]s/(a)/$1_svc/g", "RULE:[1:$1]s/(a)(b)?/$2$1/", "RULE:[1:$1]s/(a)/$11/", "RULE:[1:$1]s/(a)/\\$1/", "RULE:[1:$1]s/(a)/\\\\$1\\\\/", "RULE:[1:$1]s/a/\\b\\c/",
	"RULE:[1:$1]s/(?<n>a+)/${n}x/g", "RULE:[1:$1]s/(a)(b)(a)(a)?(a)?(a)?(a)?(a)?(a)?(\\$)/$10$1/", "RULE:[1:$1]s/$/x/", "RULE:[1:$1]s/^/x/g", "RULE:[1:$1]s//x/", "RULE:[1:$1]s//x/g",
	"RULE:[1:$1]s/a*/x/g", "RULE:[1:$1]s/a*?/x/g", "RULE:[1:$1]s/.*/x/g", "RULE:[1:$1]s/^.*/x/g", "RULE:[1:$1]s/.*$/x/g", "RULE:[1:$1]s/a|ab/x/g", "RULE:[1:$1]s/(a|ab)(b|)/[$1$2]/",
	"RULE:[1:$1]s/[a-z&&[^b]]/x/g", "RULE:[1:$1]s/[a-z&&b-d]/x/g", "RULE:[1:$1]s/[a[bc]d]/x/g", "RULE:[1:$1]s/[a-d&&[bc]c]/x/g", "RULE:[1:$1]s/[a-d&&bc[d]&&c-z]/x/g",
	"RULE:[1:$1]s/[a&]/x/g", "RULE:[1:$1]s/[&-z]/x/g", "RULE:[1:$1]s/[a-]/x/g", "RULE:[1:$1]s/[\\w&&[^\\d]]/x/g", "RULE:[1:$1]s/[\\]\\[]/x/g", "RULE:[1:$1]s/[^\\s]+/x/", "RULE:[1:$1]s/[-a]/x/g", "RULE:[1:$1]s/[+--]/x/g",
	"RULE:[1:$1]s/\\p{Alpha}/x/g", "RULE:[1:$1]s/\\P{Lower}/x/g", "RULE:[1:$1]s/[\\p{Punct}&&[^$]]/x/g", "RULE:[1:$1]s/\\p{Alnum}+?/x/", "RULE:[1:$1]s/\\h/x/g", "RULE:[1:$1]s/[^\\H]/x/g",
	"RULE:[1:$1]s/(?i)k/x/g", "RULE:[1:$1]s/(?i)[^k]/x/g", "RULE:[1:$1]s/a(?i)B|C/x/g", "RULE:[1:$1]s/(?i:A)b/x/g", "RULE:[1:$1]s/(?i)a(?-i)B/x/", "RULE:[1:$1]s/(?i)ä/x/", "RULE:[1:$1]s/(?s).(?d)./x/",
	"RULE:[1:$1]s/\\Qa$1\\E$/x/", "RULE:[1:$1]s/\\Qa.b\\E+|[\\Q&-]\\E]/x/g", "RULE:[1:$1]s/\\x61|\\u0062|\\x{63}/x/g", "RULE:[1:$1]s/\\.|\\-|\\_|\\&|\\'/x/g", "RULE:[1:$1]s/a{2}|b{1,2}?|c{0,}/x/g",
	"RULE:[1:$1]s/\\Aa|b\\z|h\\Z/x/g", "RULE:[1:$1]s/}|]/x/g", "RULE:[1:$1](a{2,3})s/((?:a)+)/$1/", "RULE:[1:$1]s/(?:(?:a)|(b)?)b/$1/", "RULE:[1:$1]s/((?:(?:a)|b)*)b/[$1]/", "RULE:[1:$1]s/()/x/", "RULE:[1:$1]s/(a||b)c?/$1x/g",
	"RULE:[1:$1](.*)s/ã/a/", "RULE:[1:$1]s/ä/ae/gL", "RULE:[1:$1]s/./é/g", "RULE:[1:$1]s/[^a-z]//gL", "RULE:[1:$1@$0]s/x/@/", "RULE:[1:$1@$0]/L", "RULE:[1:$1]()DEFAULT", "RULE:[1:$1]s/a/b/\nRULE:[1:c]",
	"RULE:[1:$1](DEFAULT)RULE:[2:$1]DEFAULT", "RULE:[1:](x)DEFAULT", "RULE:[1:$1]s/.*//\nDEFAULT",
}

// refusedByBoth cannot be rules.
var refusedByBoth = []string{
	"RULE", "default", "RULE:[:$1]", "RULE:[a:$1]", "RULE:[1:$1", "RULE:[1:$1](a(b)c)", "RULE:[1:$1]s/a", "RULE:[1:$1]s/a/b", "RULE:[1:$1]s/(/b/", "RULE:[1:$1]s/*/b/",
	"RULE:[1:$1]s/[/b/", "RULE:[1:$1]s/[z-a]/b/", "RULE:[1:$1]s/a{2,1}/b/", "RULE:[1:$1]s/a{/b/", "RULE:[1:$1]s/\\/b/", "RULE:[1:$1](a]DEFAULT", "RULE:[99999999999:$1]", "DEFAULT;", "# x\nDEFAULT",
	"RULE:[1:$1]s/a**/b/", "RULE:[1:$1]s/\\p{Nonsense}/b/", "RULE:[1:$1]s/[]/b/", "RULE:[1:$1]s/\\j/b/", "RULE:[1:$1]s/\\x4/b/", "RULE:[1:$1]s/(?<n>a)(?<n>b)/b/", "RULE:[1:$1]s/(?y)a/b/", "RULE:[1:$1]s/a|+/b/", "RULE:[1:$1](?i)", "RULE:[1:$1](a(?i)",
}

// answers asks Hadoop for the names of all principals, one slice for each case;
// rules it refuses have one answer, which begins with "!".
func answers(t *testing.T, hadoop string, cases []nameCase) [][]string {
	t.Helper()
	krb5 := filepath.Join(t.TempDir(), "krb5.conf")
	if err := os.WriteFile(krb5, []byte("[libdefaults]\n default_realm = "+realm+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var in, stderr bytes.Buffer
	for _, c := range cases {
		fmt.Fprintf(&in, "%x %x", c.rules, c.mechanism)
		for _, p := range c.principals {
			fmt.Fprintf(&in, " %x", p)
		}
		in.WriteByte('\n')
	}
	program := Java(t, hadoop, "-Djava.security.krb5.conf="+krb5, checksPackage+"ShortNames")
	program.Stdin, program.Stderr = &in, &stderr
	out, err := program.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(cases) {
		t.Fatalf("%d answers for %d questions\n%s", len(lines), len(cases), &stderr)
	}
	all := make([][]string, len(cases))
	for i, line := range lines {
		for word := range strings.SplitSeq(line, " ") {
			text, err := hex.DecodeString(word)
			if err != nil {
				t.Fatal(err)
			}
			all[i] = append(all[i], string(text))
		}
	}
	return all
}

// compare says what is wrong with our answers for c, where Hadoop's are java.
func compare(t *testing.T, c nameCase, java []string) {
	t.Helper()
	rules, err := names.New(c.rules, c.mechanism, realm)
	if err != nil {
		t.Errorf("%q is refused: %v", c.rules, err)
		return
	}
	if len(java) != len(c.principals) {
		t.Errorf("%q is accepted; Hadoop says %q", c.rules, java)
		return
	}
	for i, p := range c.principals {
		name, err := rules.ShortName(p)
		ours := "=" + name
		if err != nil {
			ours = "!" + err.Error()
		}
		if ours != java[i] && !stricter(p, ours, java[i]) {
			t.Errorf("%q, %s, %q: got %q, Hadoop says %q", c.rules, c.mechanism, p, ours, java[i])
		}
	}
}

// stricter tells of the answers that differ on purpose: there are no empty names,
// and none where a part of the principal is missing.
func stricter(principal, ours, java string) bool {
	switch {
	case strings.HasSuffix(ours, "leaves no user name: "+principal):
		return java == "="
	case strings.HasSuffix(ours, "$0 of a name without realm: "+principal):
		return true // Java writes null for the realm
	}
	return false
}

// TestNameRulesAgainstHadoop compares every rule for every principal.
func TestNameRulesAgainstHadoop(t *testing.T) {
	var cases []nameCase
	for _, rules := range nameRules {
		for _, mechanism := range []string{"hadoop", "MIT"} {
			cases = append(cases, nameCase{rules, mechanism, principals})
		}
	}
	for _, rules := range refusedByBoth {
		cases = append(cases, nameCase{rules, "hadoop", principals[:1]})
	}
	EachHadoop(t, func(t *testing.T, hadoop string) {
		for i, java := range answers(t, hadoop, cases) {
			if c := cases[i]; i < 2*len(nameRules) {
				compare(t, c, java)
			} else if _, err := names.New(c.rules, c.mechanism, realm); err == nil || !strings.HasPrefix(java[0], "!") {
				t.Errorf("%q: got %v, Hadoop says %q", c.rules, err, java)
			}
		}
	})
}

// TestGeneratedNameRulesAgainstHadoop compares rules made of all that the
// translation of regular expressions knows, put together by chance.
func TestGeneratedNameRulesAgainstHadoop(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(4, 9))}
	var cases []nameCase
	refused := 0
	for len(cases) < 6000 {
		rules := "RULE:[1:$1]"
		if g.IntN(4) == 0 {
			rules += "(" + strings.NewReplacer("(", "", ")", "").Replace(g.expression(2)) + ")"
		}
		groups := 0
		expr := g.expression(3)
		for i := range expr {
			if strings.HasPrefix(expr[i:], "(") && !strings.HasPrefix(expr[i:], "(?") {
				groups++
			}
		}
		rules += "s/" + expr + "/<$0"
		for n := range groups {
			// A group in a repetition may not be asked for.
			more := rules + fmt.Sprintf(",$%d", n+1)
			if _, err := names.New(more+">/", "mit", realm); err == nil {
				rules = more
			}
		}
		rules += ">/" + []string{"", "g"}[g.IntN(2)]
		if _, err := names.New(rules, "mit", realm); err != nil {
			refused++
			continue
		}
		c := nameCase{rules: rules, mechanism: "mit"}
		for range 12 {
			c.principals = append(c.principals, g.word()+"@"+realm)
		}
		cases = append(cases, c)
	}
	if refused > 3*len(cases) {
		t.Errorf("%d expressions were refused before %d were not", refused, len(cases))
	}
	hadoop := HadoopVersions[len(HadoopVersions)-1]
	for i, java := range answers(t, hadoop, cases) {
		compare(t, cases[i], java)
	}
}

// generator makes regular expressions and words for them to match.
type generator struct{ *rand.Rand }

func (g generator) pick(from ...string) string { return from[g.IntN(len(from))] }

func (g generator) word() string {
	var b strings.Builder
	for range 1 + g.IntN(8) {
		b.WriteString(g.pick("a", "b", "c", "a", "b", "A", "B", "-", "_", ".", "1", "2", "&", "ä", "$"))
	}
	return b.String()
}

func (g generator) expression(depth int) string {
	var b strings.Builder
	for i := range 1 + g.IntN(3) {
		if i > 0 && g.IntN(3) == 0 {
			b.WriteByte('|')
		}
		b.WriteString(g.atom(depth))
		if g.IntN(2) == 0 {
			b.WriteString(g.pick("*", "+", "?", "{2}", "{1,2}", "{0,1}", "{1,}") + g.pick("", "", "?"))
		}
	}
	return b.String()
}

func (g generator) atom(depth int) string {
	if depth > 0 && g.IntN(2) == 0 {
		return g.pick("(", "(?:", "(?i:", "(") + g.expression(depth-1) + ")"
	}
	return g.pick("a", "b", "c", "A", ".", "^", "$", "1", "_", `\w`, `\d`, `\W`, `\D`, `\p{Upper}`, `\P{Alpha}`, `\$`, "[ab]", "[^ab]", "(?i)", "ä",
		"[a-c&&[^b]]", `[\w&&[^_1]]`, "[a[1-2]]", "[&a]", `\Qb.\E`, "[a-b&&b-c]", `[^\wä]`, "|", "")
}
