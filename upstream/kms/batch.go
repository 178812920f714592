package kms

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/edekd/edekd/edek"
)

// How an edekd announces that it opens EDEKs in batches. A Java KMS takes the
// path for the roll-over of a key, so that nobody may try it unannounced. One that
// took an edekd's place since cannot read the array as what a roll-over brings.
const (
	batchHeader  = "X-Edekd-Batch"
	batchDecrypt = "decrypt"
)

// maxOpened is how many EDEKs one request has opened.
const maxOpened = 1000

// Batches reports whether the last answer of any node announced that it opens
// EDEKs in batches.
func (c *Client) Batches() bool {
	for _, n := range c.nodes {
		if n.batches.Load() {
			return true
		}
	}
	return false
}

// DecryptBatch has EDEKs of one key opened, for the caller. The DEKs are in the
// order of all, and as long as what was wrapped; who calls zeroes them. It is
// upstream.ErrNotSent if the node whose turn it is has not announced that it can.
// Many are opened in several requests, one after another.
func (c *Client) DecryptBatch(ctx context.Context, caller edek.Caller, name string, all []edek.EDEK) (deks [][]byte, err error) {
	deks = make([][]byte, 0, len(all))
	for len(deks) < len(all) {
		from := len(deks)
		if deks, err = c.decryptBatch(ctx, caller, name, all[from:min(from+maxOpened, len(all))], deks); err != nil {
			zero(deks)
			return nil, err
		}
	}
	return deks, nil
}

func (c *Client) decryptBatch(ctx context.Context, caller edek.Caller, name string, all []edek.EDEK, deks [][]byte) ([][]byte, error) {
	r := &request{op: "decrypt", key: name, method: http.MethodPost, path: "key/" + escape(name) + "/_decryptbatch", body: sealedBatch(name, all),
		caller: caller, status: http.StatusOK, bound: 4096 + int64(len(all))*room(name, edek.MaxDEKSize), expect: int64(len(all)) * usualEDEK, batch: true}
	before := len(deks)
	err := c.read(ctx, r, func(body []byte) (err error) {
		wire, err := readKeys(body, len(all))
		if err != nil {
			return err
		}
		defer func() {
			for i := range wire {
				clear(wire[i].material)
			}
			if err != nil { // another node may yet answer well
				zero(deks[before:])
				deks = deks[:before]
			}
		}()
		if len(wire) != len(all) {
			return fmt.Errorf("%d DEKs instead of %d", len(wire), len(all))
		}
		for i := range wire {
			dek, err := openedDEK(&wire[i], name, len(all[i].Wrapped()))
			if err != nil {
				return err
			}
			deks = append(deks, dek)
		}
		return nil
	})
	return deks, err
}

// openedDEK makes a DEK of so many bytes of what an answer has.
func openedDEK(k *wireKey, name string, size int) ([]byte, error) {
	if string(k.name) != name || string(k.version) != edek.EK {
		return nil, errNames
	}
	if len(k.material) != base64URL.EncodedLen(size) {
		return nil, errors.New("a DEK of a wrong length")
	}
	dek := make([]byte, size)
	// The library skips line ends, which leaves fewer bytes.
	if n, err := base64URL.Decode(dek, k.material); err != nil || n != size {
		clear(dek)
		return nil, errors.New("a DEK that is no base64")
	}
	return dek, nil
}

func zero(deks [][]byte) {
	for _, dek := range deks {
		clear(dek)
	}
}
