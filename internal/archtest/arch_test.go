// Package archtest holds the direction of dependencies between the rooms:
// a package may import only packages on lower floors (or inside its own room).
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/edekd/edekd/"

// floors names the lowest floor first. A package belongs to the entry with the
// longest matching prefix.
var floors = map[string]int{
	"internal":        0,
	"edek":            1,
	"hadoop":          1,
	"keystore":        1,
	"keystore/sqlite": 2,
	"upstream":        2,
	"keys":            3,
	"cache":           4,
	"proxy":           5,
	"loadtest":        5,
	"internal/config": 5, // what all rooms can be told, so it stands above them
	"cmd":             6,
	"interop":         7,
	"bench":           8, // has the Java KMS of interop beside it
}

func room(pkg string) (name string, floor int, ok bool) {
	rel := strings.TrimPrefix(pkg, module)
	for p := range floors {
		if (rel == p || strings.HasPrefix(rel, p+"/")) && len(p) > len(name) {
			name = p
		}
	}
	return name, floors[name], name != ""
}

func TestRoomsImportOnlyLowerFloors(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %s", exit.Stderr)
		}
		t.Fatal(err)
	}
	dec, packages := json.NewDecoder(strings.NewReader(string(out))), 0
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages++
		from, floor, ok := room(p.ImportPath)
		if !ok {
			t.Errorf("%s stands in no room: give it a floor here and a line in ARCHITECTURE.md", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, module) {
				continue
			}
			if to, toFloor, _ := room(imported); toFloor >= floor && to != from {
				t.Errorf("%s (floor %d) imports %s (floor %d)", p.ImportPath, floor, imported, toFloor)
			}
		}
	}
	if packages < 5 {
		t.Fatalf("go list found only %d packages: the test looks at nothing", packages)
	}
}
