package cache

import (
	"context"
	"errors"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream"
)

// OpenBatch opens EDEKs for the caller as AppendDEK does, in few calls, where the
// other KMS has announced that it takes batches. deks is as long as all and gets
// the DEKs; what it stays nil for is to be opened one by one. The caller zeroes
// them, after an error too. ctx is to end with BatchDeadline.
func (f *FarKey) OpenBatch(ctx context.Context, c edek.Caller, all []edek.EDEK, deks [][]byte) error {
	if !f.provider.Batches() {
		return nil
	}
	known := f.facts.Load()
	missing, places := all, []int(nil)
	if len(all) > 0 && f.mayRecall(&c, known, &all[0]) {
		missing = nil
		for i := range all {
			if opened, hit := f.recall(&c, known, &all[i], nil); hit {
				deks[i] = opened
				continue
			}
			missing, places = append(missing, all[i]), append(places, i)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	asked := f.moment()
	opened, err := f.provider.DecryptBatch(ctx, c, f.name, missing)
	if foreign, ok := errors.AsType[*edek.Foreign](err); errors.Is(err, upstream.ErrNotSent) || ok && !denied(foreign) {
		return nil // one by one, it shows which of them is wrong
	}
	if err != nil {
		return f.judge(&c, err)
	}
	for i := range opened {
		f.opened(&c, known, &missing[i], opened[i], asked)
		if places != nil {
			deks[places[i]] = opened[i]
		} else {
			deks[i] = opened[i]
		}
	}
	return nil
}
