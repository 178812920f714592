package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// secretive are names of values that must not be compared but by secret.Equal.
var secretive = regexp.MustCompile(`(?i)password|signature|digest|checksum|credential|secret|mac$|sum$|sig$`)

// comparisons are the functions that compare bytes and stop at a difference, or
// do it right but in a second place.
var comparisons = map[string]bool{
	"bytes.Equal": true, "bytes.Compare": true, "bytes.EqualFold": true, "bytes.HasPrefix": true,
	"slices.Equal": true, "strings.EqualFold": true, "strings.Compare": true, "reflect.DeepEqual": true,
}

// Signatures, MACs and remembered credentials are compared in one place:
// secret.Equal.
func TestOneComparisonOfSecrets(t *testing.T) {
	files, calls := 0, 0
	err := filepath.WalkDir("../../proxy", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files++
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		for _, wrong := range secretComparisons(file) {
			t.Errorf("%s: %s: use secret.Equal", set.Position(wrong.Pos()), wrong.what)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && (calledName(call) == "secret.Equal" || file.Name.Name == "secret" && calledName(call) == "Equal") {
				calls++
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 30 || calls < 5 {
		t.Fatalf("%d files with %d calls of secret.Equal: the test looks at the wrong place", files, calls)
	}
}

// wrongComparison is a place where a secret is compared by other means.
type wrongComparison struct {
	ast.Node
	what string
}

func secretComparisons(file *ast.File) (found []wrongComparison) {
	for _, imported := range file.Imports {
		if imported.Path.Value == `"crypto/subtle"` {
			found = append(found, wrongComparison{imported, "crypto/subtle is imported"})
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			name := calledName(n)
			if name == "hmac.Equal" {
				found = append(found, wrongComparison{n, name})
			}
			for _, argument := range n.Args {
				if comparisons[name] && namesSecret(argument) {
					found = append(found, wrongComparison{n, name + " of a secret"})
				}
			}
		case *ast.BinaryExpr:
			if n.Op != token.EQL && n.Op != token.NEQ {
				break
			}
			for _, side := range []ast.Expr{n.X, n.Y} {
				if call, ok := side.(*ast.CallExpr); ok && calledName(call) == "string" && namesSecret(call) {
					found = append(found, wrongComparison{n, "a secret as a string under " + n.Op.String()})
				}
			}
		}
		return true
	})
	return found
}

// calledName is the name of a called function, with its package if it has one.
func calledName(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if pkg, ok := f.X.(*ast.Ident); ok {
			return pkg.Name + "." + f.Sel.Name
		}
	}
	return ""
}

// namesSecret reports whether an expression speaks of a secret.
func namesSecret(e ast.Expr) (found bool) {
	ast.Inspect(e, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && secretive.MatchString(id.Name) {
			found = true
		}
		return !found
	})
	return found
}

func TestSecretComparisonsAreFound(t *testing.T) {
	f := func(body string, want int) {
		t.Helper()
		file, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\n"+body, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := secretComparisons(file); len(got) != want {
			t.Errorf("%s: %d found, want %d", body, len(got), want)
		}
	}
	f(`import "crypto/subtle"`, 1)
	f(`var _ = hmac.Equal(a, b)`, 1)
	f(`var _ = bytes.Equal(record.Password, b)`, 1)
	f(`var _ = bytes.Equal(a, mac.Sum(nil))`, 1)
	f(`var _ = bytes.Equal(got, expectedMAC)`, 1)
	f(`var _ = slices.Equal(sentSig, b)`, 1)
	f(`var _ = string(signature) == want`, 1)
	f(`var _ = want != string(t.Password)`, 1)
	f(`var _ = secret.Equal(record.Password, b)`, 0)
	f(`var _ = bytes.Equal(key, name)`, 0)
	f(`var _ = len(signature) == 3`, 0)
}
