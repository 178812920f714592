package cache

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestHotNamesAreRememberedOverARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hot-keys")
	names := []string{"zone", "with\nnewline", "schlüssel", `"quoted"`, ""}
	if err := writeHot(file, names); err != nil {
		t.Fatal(err)
	}
	if got, err := readHot(file); err != nil || !reflect.DeepEqual(got, names) {
		t.Errorf("%q %v", got, err)
	}
	if err := os.WriteFile(file, []byte("\"zone\"\n\"half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := readHot(file); err != nil || !reflect.DeepEqual(got, []string{"zone"}) {
		t.Errorf("%q %v", got, err)
	}
}
