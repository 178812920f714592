package kms

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/edekd/edekd/edek"
)

// base64URL is how a KMS writes bytes.
var base64URL = base64.RawURLEncoding.Strict()

// room is the most bytes that an EDEK or a key version of a key takes in an answer.
func room(name string, material int) int64 { return int64(512 + 2*6*len(name) + 2*material) }

const (
	// maxGenerated is how many EDEKs one request asks for: what takes a Java KMS
	// some 25 ms. Beyond, users could make a healthy node look slow.
	maxGenerated = 500
	usualEDEK    = 224 // bytes of one as Java writes it
)

// Generate asks for n new EDEKs of a key, for the caller; n is at least one.
// Many are asked for in several requests, one after another.
func (c *Client) Generate(ctx context.Context, caller edek.Caller, name string, n int) ([]edek.EDEK, error) {
	if n < 1 {
		return nil, &edek.Error{Kind: edek.Invalid, Op: "generate", Key: name, Text: fmt.Sprintf("%d EDEKs cannot be asked for", n)}
	}
	var all []edek.EDEK
	for len(all) < n {
		some, err := c.generate(ctx, caller, name, min(n-len(all), maxGenerated))
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = some
		} else {
			all = append(all, some...)
		}
	}
	return all, nil
}

func (c *Client) generate(ctx context.Context, caller edek.Caller, name string, n int) (all []edek.EDEK, err error) {
	r := &request{op: "generate", key: name, method: http.MethodGet, path: "key/" + escape(name) + "/_eek",
		query: "eek_op=generate&num_keys=" + strconv.Itoa(n), caller: caller, status: http.StatusOK,
		bound: 4096 + int64(n)*room(name, edek.MaxDEKSize), expect: int64(n) * usualEDEK}
	err = c.read(ctx, r, func(body []byte) error {
		wire, err := readEDEKs(body, n)
		if err != nil {
			return err
		}
		if len(wire) != n {
			return fmt.Errorf("%d EDEKs instead of %d", len(wire), n)
		}
		all = make([]edek.EDEK, n)
		key := checker{name: name}
		for i := range wire {
			if all[i], err = key.check(&wire[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

var errNames = errors.New("it names another key, or none")

// checker makes EDEKs of key name of what an answer has.
type checker struct {
	name   string
	text   []byte // the last version's name
	number int
}

// check makes one. The inner name may be null: the version's says which key it is,
// and a Java KMS leaves the other out of an EDEK that it re-encrypts to the version
// it has, or that it has from a Java KMS behind it.
func (c *checker) check(w *wireEDEK) (e edek.EDEK, err error) {
	if w.wrapped.name != nil && string(w.wrapped.name) != c.name || string(w.wrapped.version) != edek.EEK {
		return e, errNames
	}
	if c.text == nil || !bytes.Equal(c.text, w.version) {
		base, number, ok := edek.SplitVersion(string(w.version))
		if !ok || base != c.name {
			return e, errNames
		}
		c.text, c.number = w.version, number
	}
	var iv, wrapped [edek.MaxDEKSize]byte
	n, err := decode(iv[:], w.iv)
	if err != nil {
		return e, err
	}
	m, err := decode(wrapped[:], w.wrapped.material)
	if err != nil {
		return e, err
	}
	return edek.NewEDEK(c.number, iv[:n], wrapped[:m])
}

// decode reads base64 into dst, which does not grow.
func decode(dst, src []byte) (int, error) {
	if base64URL.DecodedLen(len(src)) > len(dst) {
		return 0, errors.New("bytes of a wrong length")
	}
	return base64URL.Decode(dst, src)
}

// sealed is the body of a request about one EDEK.
func sealed(name string, iv, wrapped []byte) []byte {
	b := append([]byte(`{"name":`), quoted(name)...)
	b = base64.StdEncoding.AppendEncode(append(b, `,"iv":"`...), iv)
	b = base64.StdEncoding.AppendEncode(append(b, `","material":"`...), wrapped)
	return append(b, `"}`...)
}

func quoted(s string) []byte {
	b, _ := json.Marshal(s) // a string always can be
	return b
}

// about makes the request about one EDEK of a version of key name.
func about(op, eekOp string, caller edek.Caller, name, versionName string, iv, wrapped []byte) (*request, error) {
	if base, ok := edek.BaseName(versionName); !ok || base != name {
		return nil, &edek.Error{Kind: edek.Invalid, Op: op, Key: name,
			Text: "KeyVersion '" + versionName + "' does not belong to the key '" + name + "'"}
	}
	return &request{op: op, key: name, method: http.MethodPost, path: "keyversion/" + escape(versionName) + "/_eek", query: "eek_op=" + eekOp,
		body: sealed(name, iv, wrapped), caller: caller, status: http.StatusOK, bound: 4096 + room(name, len(wrapped))}, nil
}

// Decrypt has an EDEK opened, given as its parts came from the caller: what is
// wrong with them is the upstream's to say, except that the version must be one
// of the key's. The DEK is as long as wrapped; who calls zeroes it.
func (c *Client) Decrypt(ctx context.Context, caller edek.Caller, name, versionName string, iv, wrapped []byte) (dek []byte, err error) {
	r, err := about("decrypt", "decrypt", caller, name, versionName, iv, wrapped)
	if err != nil {
		return nil, err
	}
	err = c.read(ctx, r, func(body []byte) error {
		k, err := readKey(body)
		if err != nil {
			return err
		}
		defer clear(k.material)
		dek, err = openedDEK(&k, name, len(wrapped))
		return err
	})
	if err != nil {
		return nil, err
	}
	return dek, nil
}

// Reencrypt has an EDEK, given as its parts came from the caller, wrapped under
// the key's current version. IV and length stay. Parts that an edek.EDEK cannot
// have are edek.Invalid: a Java KMS gives back what is of the current version
// already, whatever it is, and its answer would look like a fault.
func (c *Client) Reencrypt(ctx context.Context, caller edek.Caller, name, versionName string, iv, wrapped []byte) (e edek.EDEK, err error) {
	if _, err := edek.NewEDEK(0, iv, wrapped); err != nil {
		return e, &edek.Error{Kind: edek.Invalid, Op: "reencrypt", Key: name,
			Text: fmt.Sprintf("Invalid encrypted key of %d bytes with an iv of %d: it must have 1 to %d bytes, and its iv %d", len(wrapped), len(iv), edek.MaxDEKSize, edek.IVSize)}
	}
	r, err := about("reencrypt", "reencrypt", caller, name, versionName, iv, wrapped)
	if err != nil {
		return e, err
	}
	err = c.read(ctx, r, func(body []byte) error {
		w, err := readEDEK(body)
		if err != nil {
			return err
		}
		key := checker{name: name}
		if e, err = key.check(&w); err != nil {
			return err
		}
		if !bytes.Equal(e.IV[:], iv) || len(e.Wrapped()) != len(wrapped) {
			return errOther
		}
		return nil
	})
	if err != nil {
		return edek.EDEK{}, err
	}
	return e, nil
}

var errOther = errors.New("an EDEK of another file")

// sealedBatch is the body of a request about many EDEKs of one key.
func sealedBatch(name string, all []edek.EDEK) []byte {
	quotedName := quoted(name)
	body := make([]byte, 0, 2+len(all)*(200+2*len(quotedName)))
	body = append(body, '[')
	for i := range all {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(append(body, `{"versionName":`...), quotedName[:len(quotedName)-1]...)
		body = strconv.AppendInt(append(body, '@'), int64(all[i].Version()), 10)
		body = base64URL.AppendEncode(append(body, `","iv":"`...), all[i].IV[:])
		body = append(append(body, `","encryptedKeyVersion":{"name":`...), quotedName...)
		body = base64URL.AppendEncode(append(body, `,"versionName":"EEK","material":"`...), all[i].Wrapped())
		body = append(body, `"}}`...)
	}
	return append(body, ']')
}

// ReencryptBatch has EDEKs of one key wrapped under its current version. The
// results are in the order of all; those that were current come back as they are.
func (c *Client) ReencryptBatch(ctx context.Context, caller edek.Caller, name string, all []edek.EDEK) (done []edek.EDEK, err error) {
	r := &request{op: "reencrypt", key: name, method: http.MethodPost, path: "key/" + escape(name) + "/_reencryptbatch", body: sealedBatch(name, all),
		caller: caller, status: http.StatusOK, bound: 4096 + int64(len(all))*room(name, edek.MaxDEKSize), expect: int64(len(all)) * usualEDEK}
	err = c.read(ctx, r, func(body []byte) error {
		wire, err := readEDEKs(body, len(all))
		if err != nil {
			return err
		}
		if len(wire) != len(all) {
			return fmt.Errorf("%d EDEKs instead of %d", len(wire), len(all))
		}
		done = make([]edek.EDEK, len(all))
		key := checker{name: name}
		for i := range wire {
			e, err := key.check(&wire[i])
			if err != nil {
				return err
			}
			if e.IV != all[i].IV || len(e.Wrapped()) != len(all[i].Wrapped()) || e.Version() == all[i].Version() && e != all[i] {
				return errOther
			}
			done[i] = e
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}
