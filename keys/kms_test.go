package keys

import (
	"errors"
	"testing"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream/kms"
)

// What a caller has no right to, edekd does not do for itself either. Nothing
// listens at the address: a request would be another error.
func TestInItsOwnNameAKMSShowsAndChangesNothing(t *testing.T) {
	k, err := OpenKMS("kms://http@127.0.0.1:1/kms", kms.Config{Service: "edekd"}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	ctx := t.Context()
	_, version := k.Version(ctx, "k@0")
	_, versions := k.Versions(ctx, "k")
	_, create := k.Create(ctx, &edek.NewKey{Name: "k"})
	_, roll := k.Roll(ctx, "k", nil)
	for op, err := range map[string]error{"version": version, "versions": versions, "create": create, "roll": roll, "delete": k.Delete(ctx, "k")} {
		if !errors.Is(err, errOwnName) {
			t.Errorf("%s: %v", op, err)
		}
	}
}
