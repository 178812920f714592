package names

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestShortName(t *testing.T) {
	const realm = "EXAMPLE.COM"
	// f wants a name or, where it begins with !, an error.
	f := func(rules, mechanism, principal, want string) {
		t.Helper()
		r, err := New(rules, mechanism, realm)
		if err != nil {
			t.Errorf("%s: %v", rules, err)
			return
		}
		got, err := r.ShortName(principal)
		if err != nil {
			var noName *NoNameError
			if !errors.As(err, &noName) || noName.Principal != principal || got != "" {
				t.Errorf("%s: %s: %q with the error %#v", rules, principal, got, err)
			}
			got = "!" + err.Error()
		}
		if got != want {
			t.Errorf("%s: %s: got %q, want %q", rules, principal, got, want)
		}
	}
	const nn = "RULE:[2:$1@$0](nn@.*EXAMPLE.COM)s/.*/hdfs/\nDEFAULT"
	f(nn, "", "nn/h1.example.com@EXAMPLE.COM", "hdfs")
	f(nn, "hadoop", "alice@EXAMPLE.COM", "alice")
	f(nn, "hadoop", "alice/admin@EXAMPLE.COM", "alice")
	f(nn, "hadoop", "alice@OTHER.ORG", "!No rules applied to alice@OTHER.ORG")
	f(nn, "mit", "alice@OTHER.ORG", "alice@OTHER.ORG")
	f(nn, "hadoop", "alice", "alice")

	// Names that are not simple.
	f("RULE:[2:$1/$2]", "hadoop", "a/b@EXAMPLE.COM", "!Non-simple name a/b after auth_to_local rule RULE:[2:$1/$2]")
	f("RULE:[2:$1/$2]", "MIT", "a/b@EXAMPLE.COM", "a/b")
	f("RULE:[1:$1@$0]/L", "Hadoop", "A@EXAMPLE.COM", "!Non-simple name A@EXAMPLE.COM after auth_to_local rule RULE:[1:$1@$0]/L")

	// A rule that yields an empty user.
	for _, mechanism := range []string{"hadoop", "mit"} {
		f("RULE:[1:$1]s/.*//\nDEFAULT", mechanism, "alice@EXAMPLE.COM", "!auth_to_local rule RULE:[1:$1]s/.*//: leaves no user name: alice@EXAMPLE.COM")
		f("RULE:[1:]/L", mechanism, "alice@EXAMPLE.COM", "!auth_to_local rule RULE:[1:]/L: leaves no user name: alice@EXAMPLE.COM")
	}

	// What is no principal.
	for _, p := range []string{"", "@EXAMPLE.COM", "a@", "a/@EXAMPLE.COM", "/b@EXAMPLE.COM", "a@b@EXAMPLE.COM", "a/b/c@EXAMPLE.COM", "a/b/c", "a@X/Y"} {
		f("DEFAULT", "mit", p, "!Malformed Kerberos name: "+p)
	}
	for _, p := range []string{"a\nb@EXAMPLE.COM", "a\x00@EXAMPLE.COM", "a\u2028@EXAMPLE.COM", "a\u0085@EXAMPLE.COM", "\xff@EXAMPLE.COM", "😀@EXAMPLE.COM"} {
		f("DEFAULT", "mit", p, "!Malformed Kerberos name: "+strconv.QuoteToASCII(p))
	}
	f("DEFAULT", "mit", strings.Repeat("a", maxPrincipal), strings.Repeat("a", maxPrincipal))
	f("DEFAULT", "mit", strings.Repeat("a", maxPrincipal+1), "!Malformed Kerberos name: one of 1025 bytes")

	// Java's replacements.
	f("RULE:[1:$1]s/(a)/$1_svc/", "", "a@EXAMPLE.COM", "a_svc")
	f("RULE:[1:$1]s/(a)/$1svc/", "", "a@EXAMPLE.COM", "asvc")
	f("RULE:[1:$1]s/(a)/$11/", "", "a@EXAMPLE.COM", "a1")
	f(`RULE:[1:$1]s/(a)/\$1\\/`, "", "a@EXAMPLE.COM", `$1\`)
	f("RULE:[1:$1]s/.*/x/g", "", "a@EXAMPLE.COM", "xx")
	f("RULE:[1:$1]s/[a-z&&[^b]]/x/g", "", "abc@EXAMPLE.COM", "xbx")

	// Java compares k only with K here, Go also with the sign of Kelvin.
	f("RULE:[1:$1](.*)s/(?i)k/x/g", "", "kK\u212a@EXAMPLE.COM", "xx\u212a")
	// Releases of the JDK disagree on what these letters are.
	f(`RULE:[1:$1]s/\bx/y/`, "", "xé@EXAMPLE.COM", `!auth_to_local rule RULE:[1:$1]s/\bx/y/: \b and letters beyond ASCII: xé@EXAMPLE.COM`)
	f(`RULE:[1:$1](\bx)`, "", "xé@EXAMPLE.COM", `!auth_to_local rule RULE:[1:$1](\bx): \b and letters beyond ASCII: xé@EXAMPLE.COM`)
	f(`RULE:[1:$1]s/\bx/y/`, "", "x@EXAMPLE.COM", "y")
	f("RULE:[1:$1]/L", "", "ΑΣ@EXAMPLE.COM", "!auth_to_local rule RULE:[1:$1]/L: no lower case is known for a letter of ΑΣ: ΑΣ@EXAMPLE.COM")
	f("RULE:[1:$1]/L", "", "KÄTHE@EXAMPLE.COM", "käthe")
}

func TestDefaultWithoutRealm(t *testing.T) {
	r, err := New("DEFAULT", "hadoop", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"a@EXAMPLE.COM", "a/b@EXAMPLE.COM", "a/b"} {
		if name, err := r.ShortName(p); err == nil {
			t.Errorf("%s is %s", p, name)
		}
	}
}

func TestRefusedRules(t *testing.T) {
	f := func(rules string, rule, position int, what string) {
		t.Helper()
		_, err := New(rules, "hadoop", "EXAMPLE.COM")
		var syntax *SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%q: %v", rules, err)
			return
		}
		if syntax.Rule != rule || syntax.Position != position || !strings.Contains(syntax.What, what) || syntax.Remedy == "" {
			t.Errorf("%q: rule %d, position %d: %v", rules, syntax.Rule, syntax.Position, err)
		}
	}
	f("", 0, 0, "there are no name rules")
	f(" \n", 0, 0, "there are no name rules")
	f("\xff", 0, 0, "not UTF-8")
	f(strings.Repeat("DEFAULT\n", maxRules/8+1), 0, 0, "longer than")
	f("DEFAULT\nrule", 2, 1, "no rule begins here")
	f("RULE:[:$1]", 1, 7, "no number of components")
	f("RULE:[1:$2]", 1, 9, "$2 is beyond the 1 components")
	f("RULE:[2:$1$]", 1, 11, "a $ without the number")
	f("RULE:[1:ü\u0001]", 1, 10, "a control character")
	f("DEFAULT\nRULE:[1:ü$1]s/(?=a)b/c/", 2, 15, "look-around")
	f("RULE:[1:$1](?!a.*)", 1, 13, "? with nothing before it")
	f("RULE:[1:$1](a++)", 1, 15, "a possessive quantifier")
	f("RULE:[1:$1]s/(?>a)/b/", 1, 14, "an atomic group")
	f(`RULE:[1:$1]s/(a)\1/b/`, 1, 17, "a reference back")
	f(`RULE:[1:$1]s/(?<n>a)\k<n>/b/`, 1, 21, "a reference back")
	f(`RULE:[1:$1]s/\p{L}/b/`, 1, 18, `the class "L"`)
	f(`RULE:[1:$1]s/\p{IsLatin}/b/`, 1, 24, `the class "IsLatin"`)
	f(`RULE:[1:$1]s/[^a[b]]/b/`, 1, 20, "not the same in all releases")
	f(`RULE:[1:$1]s/[^a&&b]/b/`, 1, 20, "not the same in all releases")
	f(`RULE:[1:$1]s/[a&&]/b/`, 1, 18, "an empty part of a class")
	f(`RULE:[1:$1]s/[a&&&b]/b/`, 1, 18, "an & behind &&")
	f(`RULE:[1:$1]s/(?m)^a/b/`, 1, 16, "a flag")
	f(`RULE:[1:$1]s/(?x) a/b/`, 1, 16, "a flag")
	f(`RULE:[1:$1]s/\b{g}/b/`, 1, 16, "a boundary of another kind")
	f(`RULE:[1:$1]s/\Ga/b/`, 1, 15, `\G, which`)
	f(`RULE:[1:$1]s/(a*)*/b/`, 1, 18, "can match nothing")
	f(`RULE:[1:$1]s/^*/b/`, 1, 15, "can match nothing")
	f(`RULE:[1:$1]s/a{1001}/b/`, 1, 20, "more than 1000")
	f(`RULE:[1:$1]s/(?:(?:a{999}){999}){999}/b/`, 1, 14, "too large")
	f(`RULE:[1:$1]s/`+strings.Repeat("(", maxNesting+1)+"/b/", 1, 14+maxNesting, "nested deeper")
	f(`RULE:[1:$1]s/\x{1F600}/b/`, 1, 22, "beyond U+FFFF")
	f(`RULE:[1:$1]s/a/$1/`, 1, 16, "$1 is no group")
	f(`RULE:[1:$1]s/a/$x/`, 1, 16, "a $ without the number of a group")
	f(`RULE:[1:$1]s/a/${x}/`, 1, 16, "names no group")
	f(`RULE:[1:$1]s/a/x\/`, 1, 17, "a backslash without")
	f(`RULE:[1:$1]s/(?:(a)|b)+/x$1/`, 1, 26, "a group that is repeated")
	f("RULE:[1:$1]s/a/\n/", 1, 16, "a control character")

	if _, err := New("DEFAULT", "heimdal", ""); err == nil || !strings.Contains(err.Error(), `"heimdal" is no mechanism`) {
		t.Errorf("the mechanism heimdal: %v", err)
	}
}

// FuzzNew reads arbitrary rules and asks them for the name of an arbitrary
// principal.
func FuzzNew(f *testing.F) {
	f.Add("DEFAULT", "a/b@R")
	f.Add("RULE:[2:$1@$0]([nd]n@.*R)s/.*/hdfs/gL RULE:[1:$1]", "nn/h@R")
	f.Add(`RULE:[1:$1](a|b{1,2}?\b)s/(?i)(?<n>[a-z&&[^b\d-]])|\Q.\E$/${n}\$$0/g/L`, "ab.C@R")
	f.Add(`RULE:[1:$1]s/(?:a|(b)?)\x41\u0042\p{Alpha}\P{Punct}[^\W]/$1/`, "aABx!@R")
	f.Fuzz(func(t *testing.T, rules, principal string) {
		for _, mechanism := range []string{"hadoop", "mit"} {
			r, err := New(rules, mechanism, "R")
			if err != nil {
				var syntax *SyntaxError
				if !errors.As(err, &syntax) || syntax.What == "" || syntax.Remedy == "" || syntax.Position > utf8.RuneCountInString(syntax.Text)+1 {
					t.Fatalf("%v", err)
				}
				continue
			}
			name, err := r.ShortName(principal)
			if err != nil {
				if name != "" {
					t.Errorf("a name, %q, and an error: %v", name, err)
				}
				continue
			}
			if name == "" || strings.ContainsFunc(name, unicode.IsControl) || mechanism == "hadoop" && strings.ContainsAny(name, "/@") {
				t.Errorf("%q makes %q of %q", rules, name, principal)
			}
		}
	})
}
