package authz

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/hadoop/conf"
)

// static knows the groups of some users.
type static map[string][]string

func (s static) Of(user string) ([]string, error) { return s[user], nil }

// broken fails every look-up.
type broken struct{}

var errDirectory = errors.New("the directory does not answer")

func (broken) Of(string) ([]string, error) { return nil, errDirectory }

// rules makes a Configuration of names and values.
func rules(pairs ...string) *conf.Configuration {
	c := conf.New(os.LookupEnv, nil)
	for i := 0; i < len(pairs); i += 2 {
		c.Override(pairs[i], pairs[i+1], "test")
	}
	return c
}

// policy reads rules that are free of problems.
func policy(t testing.TB, pairs ...string) *Policy {
	t.Helper()
	p, _, err := NewPolicy(rules(pairs...))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// typeOf and rightOf find a right by its name.
func typeOf(t *testing.T, name string) Type {
	for i, known := range typeNames {
		if name == known {
			return Type(i)
		}
	}
	t.Fatalf("no type %s", name)
	return 0
}

func rightOf(t *testing.T, name string) Right {
	for i, known := range rightNames {
		if name == known {
			return Right(i)
		}
	}
	t.Fatalf("no right %s", name)
	return 0
}

// TestObservedInJava compares every answer in cases.txt, which the Java KMS's
// own classes gave, with ours.
func TestObservedInJava(t *testing.T) {
	text, err := os.ReadFile("testdata/observed/cases.txt")
	if err != nil {
		t.Fatal(err)
	}
	var callers []*edek.Caller
	groups := static{}
	pairs, asked := map[string][]string{}, map[string]*Authorizer{}
	authorizer := func(name string) *Authorizer {
		if asked[name] == nil {
			asked[name] = New(policy(t, pairs[name]...), groups)
		}
		return asked[name]
	}
	answers := func(allowed func(c *edek.Caller) error) string {
		letters := ""
		for _, c := range callers {
			switch err := allowed(c); {
			case err == nil:
				letters += "y"
			case errors.Is(err, ErrDenied):
				letters += "n"
			default:
				t.Fatal(err)
			}
		}
		return letters
	}

	cases := map[string]int{}
	for n, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		field := strings.Split(line, "\t")
		cases[field[0]]++
		var got string
		switch field[0] {
		case "caller":
			callers = append(callers, &edek.Caller{User: field[1], Real: field[2]})
			if field[3] != "" {
				groups[field[1]] = strings.Split(field[3], ",")
			}
			continue
		case "set":
			pairs[field[1]] = append(pairs[field[1]], field[2], unescape(t, field[3]))
			continue
		case "acl":
			l := parseList(unescape(t, field[1]))
			for _, c := range callers {
				w := who{user: c.User, real: c.Real, groups: groups[c.User], asked: true}
				got += map[bool]string{true: "y", false: "n"}[l.match(&w).in()]
			}
		case "kms":
			a := authorizer(field[1])
			got = answers(func(c *edek.Caller) error { return a.KMS(typeOf(t, field[2]), c) })
		case "key":
			a := authorizer(field[1])
			got = answers(func(c *edek.Caller) error { return a.Key(rightOf(t, field[2]), field[3], c) })
		case "create":
			a, given := authorizer(field[1]), strings.TrimPrefix(field[2], "-")
			got = answers(func(c *edek.Caller) error {
				stored, err := a.CreateKey(field[3], given, c)
				if want := map[bool]string{true: field[3], false: given}[given == ""]; stored != want {
					t.Errorf("cases.txt:%d: the attribute is %q, want %q", n+1, stored, want)
				}
				return err
			})
		case "text":
			user := callers[0].User
			switch field[1] {
			case "kms":
				var key []byte
				if field[5] != "" {
					key = []byte(field[5])
				}
				got = OperationDenied(user, field[4], key).Error()
			case "key":
				got = KeyDenied(user, rightOf(t, field[3]), field[5]).Error()
			case "create":
				got = CreateDenied(user).Error()
			}
		}
		if want := field[len(field)-1]; got != want {
			t.Errorf("cases.txt:%d: %s: got %s, Java says %s", n+1, line, got, want)
		}
	}
	for kind, least := range map[string]int{"caller": 7, "acl": 60, "kms": 36, "key": 300, "create": 60, "text": 6} {
		if cases[kind] < least {
			t.Errorf("%d cases of kind %s: the file is not the one this test was written for", cases[kind], kind)
		}
	}
}

func unescape(t *testing.T, s string) string {
	s, err := strconv.Unquote(`"` + s + `"`)
	if err != nil {
		t.Fatal(s, err)
	}
	return s
}
