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
	"strings"
	"unicode/utf8"

	"github.com/edekd/edekd/edek"
)

const (
	metadataPath = "keys/metadata"

	maxNames    = 32 << 20 // bytes of an answer that lists all keys, or all versions of one
	maxMetadata = 1 << 20  // of one key's metadata
	maxVersion  = 1 << 20  // of one version

	// maxQueried is how much of names one request may ask for, each counted
	// with four bytes more: Java's client cuts so. And how many names: a Java
	// KMS that has just started can take 85 ms to unseal the metadata of one.
	maxQueried     = 1500
	maxQueriedKeys = 40
)

func (c *Client) namesRequest(caller edek.Caller) *request {
	return &request{op: "list keys", method: http.MethodGet, path: "keys/names", caller: caller, status: http.StatusOK, bound: maxNames, swollen: true, slow: true}
}

func readNames(body []byte) (names []string, err error) {
	if err := json.Unmarshal(body, &names); err != nil || names == nil {
		return nil, errShape
	}
	return names, nil
}

// Names lists the keys that the caller may see.
func (c *Client) Names(ctx context.Context, caller edek.Caller) (names []string, err error) {
	err = c.read(ctx, c.namesRequest(caller), func(body []byte) error {
		names, err = readNames(body)
		return err
	})
	return names, err
}

// namesAt lists the keys of one node, as the service.
func (c *Client) namesAt(ctx context.Context, n *node) (names []string, err error) {
	err = c.ask(ctx, n, c.pooled, c.namesRequest(edek.Caller{}), func(body []byte) error {
		names, err = readNames(body)
		return err
	})
	return names, err
}

type jsonMetadata struct {
	Name        *string           `json:"name"`
	Cipher      string            `json:"cipher"`
	Length      int32             `json:"length"`
	Description *string           `json:"description"`
	Attributes  map[string]string `json:"attributes"`
	Created     int64             `json:"created"`
	Versions    int32             `json:"versions"`
}

// isEmpty reports whether a body is the { } by which a KMS says that it knows no
// such key or version.
func isEmpty(body []byte) bool {
	body = bytes.TrimSpace(body)
	return len(body) >= 2 && body[0] == '{' && body[len(body)-1] == '}' && len(bytes.TrimSpace(body[1:len(body)-1])) == 0
}

func readMetadata(body []byte, name string) (*edek.Metadata, error) {
	var j jsonMetadata
	if err := json.Unmarshal(body, &j); err != nil {
		return nil, errShape
	}
	if j.Name == nil || *j.Name != name {
		return nil, errNames
	}
	if j.Versions < 1 || j.Length < 0 || j.Created < 0 {
		return nil, errors.New("metadata that no key can have")
	}
	return &edek.Metadata{Name: name, Cipher: j.Cipher, BitLength: int(j.Length), Description: j.Description,
		Attributes: j.Attributes, Created: j.Created, Versions: int(j.Versions)}, nil
}

func unknown(op, key string) error {
	return &edek.Error{Kind: edek.NotFound, Op: op, Key: key, Text: "the upstream KMS does not know it"}
}

// Metadata describes a key. A Java KMS may answer from a cache that a roll
// through another node does not reach; KeysMetadata is fresh.
func (c *Client) Metadata(ctx context.Context, caller edek.Caller, name string) (m *edek.Metadata, err error) {
	r := &request{op: "get metadata", key: name, method: http.MethodGet, path: "key/" + escape(name) + "/_metadata",
		caller: caller, status: http.StatusOK, bound: maxMetadata, swollen: true}
	err = c.read(ctx, r, func(body []byte) error {
		if isEmpty(body) {
			return unknown(r.op, name)
		}
		m, err = readMetadata(body, name)
		return err
	})
	return m, err
}

// KeysMetadata describes keys, in the order of names; nil stands for one that
// does not exist. One key that the caller may not see, or whose name no key can
// have, fails all of them.
func (c *Client) KeysMetadata(ctx context.Context, caller edek.Caller, names []string) ([]*edek.Metadata, error) {
	for _, name := range names {
		if !utf8.ValidString(name) {
			return nil, noUTF8("get metadata", name, "the name")
		}
	}
	all := make([]*edek.Metadata, 0, len(names))
	for len(names) > 0 {
		count, size := 0, 0
		var query strings.Builder
		for count < min(len(names), maxQueriedKeys) && (count == 0 || size+4+len(names[count]) <= maxQueried) {
			if count > 0 {
				query.WriteByte('&')
			}
			query.WriteString("key=" + escape(names[count]))
			size += 4 + len(names[count])
			count++
		}
		asked := names[:count]
		names = names[count:]
		r := &request{op: "get metadata", key: asked[0], method: http.MethodGet, path: metadataPath, query: query.String(),
			caller: caller, status: http.StatusOK, bound: min(int64(count)*maxMetadata, maxNames), swollen: true}
		if count > 1 {
			r.key += fmt.Sprintf(" and %d more", count-1)
		}
		var some []*edek.Metadata
		err := c.read(ctx, r, func(body []byte) error {
			var list []json.RawMessage
			if err := json.Unmarshal(body, &list); err != nil {
				return errShape
			}
			if len(list) != count {
				return fmt.Errorf("%d keys instead of %d", len(list), count)
			}
			some = make([]*edek.Metadata, count)
			for i, one := range list {
				if isEmpty(one) {
					continue
				}
				m, err := readMetadata(one, asked[i])
				if err != nil {
					return err
				}
				some[i] = m
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// keyVersion makes a version of key name of what an answer has. Its material is
// a copy.
func (w *wireKey) keyVersion(name string) (*edek.KeyVersion, error) {
	base, _, ok := edek.SplitVersion(string(w.version))
	if !ok || base != name || string(w.name) != name {
		return nil, errNames
	}
	v := &edek.KeyVersion{Name: name, VersionName: string(w.version)}
	if w.material != nil {
		material := make([]byte, base64URL.DecodedLen(len(w.material)))
		if n, err := base64URL.Decode(material, w.material); err != nil || n != len(material) {
			clear(material)
			return nil, errors.New("material that is no base64")
		}
		v.Material = material
	}
	return v, nil
}

// readVersion reads an answer that is one version of key name.
func readVersion(body []byte, name string) (*edek.KeyVersion, error) {
	w, err := readKey(body)
	if err != nil {
		return nil, err
	}
	defer clear(w.material)
	return w.keyVersion(name)
}

// CurrentVersion returns a key's newest version, with its material. A Java KMS
// may be half a minute behind a roll. The caller zeroes it.
func (c *Client) CurrentVersion(ctx context.Context, caller edek.Caller, name string) (v *edek.KeyVersion, err error) {
	r := &request{op: "get current version", key: name, method: http.MethodGet, path: "key/" + escape(name) + "/_currentversion",
		caller: caller, status: http.StatusOK, bound: maxVersion, swollen: true}
	err = c.read(ctx, r, func(body []byte) error {
		if isEmpty(body) {
			return unknown(r.op, name)
		}
		v, err = readVersion(body, name)
		return err
	})
	return v, err
}

// Version returns a key version with its material. The caller zeroes it.
func (c *Client) Version(ctx context.Context, caller edek.Caller, versionName string) (v *edek.KeyVersion, err error) {
	name, _, ok := edek.SplitVersion(versionName)
	if !ok {
		return nil, unknown("get version", versionName)
	}
	r := &request{op: "get version", key: versionName, method: http.MethodGet, path: "keyversion/" + escape(versionName),
		caller: caller, status: http.StatusOK, bound: maxVersion, swollen: true}
	err = c.read(ctx, r, func(body []byte) error {
		if isEmpty(body) {
			return unknown(r.op, versionName)
		}
		if v, err = readVersion(body, name); err == nil && v.VersionName != versionName {
			v.Zero()
			err = errNames
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return v, nil
}

// Versions returns all versions of a key with their material, as the upstream
// orders them: oldest first. The caller zeroes them.
func (c *Client) Versions(ctx context.Context, caller edek.Caller, name string) (all []*edek.KeyVersion, err error) {
	r := &request{op: "get versions", key: name, method: http.MethodGet, path: "key/" + escape(name) + "/_versions",
		caller: caller, status: http.StatusOK, bound: maxNames, swollen: true, slow: true}
	err = c.read(ctx, r, func(body []byte) error {
		var list []jsonKey
		defer func() {
			for i := range list {
				clear(list[i].Material)
			}
		}()
		if err := json.Unmarshal(body, &list); err != nil || list == nil {
			return errShape
		}
		if len(list) == 0 {
			return unknown(r.op, name)
		}
		all = make([]*edek.KeyVersion, 0, len(list))
		for i := range list {
			w := list[i].wire()
			v, err := w.keyVersion(name)
			if err != nil {
				for _, v := range all {
					v.Zero()
				}
				return err
			}
			all = append(all, v)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Create makes a key as the caller. What the upstream does not tell the caller
// of the material is nil. The caller zeroes the result.
func (c *Client) Create(ctx context.Context, caller edek.Caller, key *edek.NewKey) (*edek.KeyVersion, error) {
	if err := addressable("create", key.Name); err != nil {
		return nil, err
	}
	b := append([]byte(`{"name":`), quoted(key.Name)...)
	if key.Cipher != "" {
		b = append(append(b, `,"cipher":`...), quoted(key.Cipher)...)
	}
	if key.BitLength != 0 {
		b = strconv.AppendInt(append(b, `,"length":`...), int64(key.BitLength), 10)
	}
	if key.Description != nil {
		b = append(append(b, `,"description":`...), quoted(*key.Description)...)
	}
	if len(key.Attributes) > 0 {
		attributes, _ := json.Marshal(key.Attributes) // strings always can be
		b = append(append(b, `,"attributes":`...), attributes...)
	}
	b = appendMaterial(b, key.Material, ",")
	b = append(b, '}')
	defer clear(b)
	return c.change(ctx, &request{op: "create", key: key.Name, method: http.MethodPost, path: "keys", body: b, caller: caller, status: http.StatusCreated}, len(key.Material))
}

// appendMaterial appends a member for material, if there is any, without leaving
// a copy behind.
func appendMaterial(b, material []byte, before string) []byte {
	if material == nil {
		return b
	}
	b = append(make([]byte, 0, len(b)+32+base64.StdEncoding.EncodedLen(len(material))), b...)
	b = append(append(b, before...), `"material":"`...)
	return append(base64.StdEncoding.AppendEncode(b, material), '"')
}

// Roll makes a new current version as the caller, of material, or of what the
// upstream generates when that is nil. The caller zeroes the result.
func (c *Client) Roll(ctx context.Context, caller edek.Caller, name string, material []byte) (*edek.KeyVersion, error) {
	if err := addressable("roll", name); err != nil {
		return nil, err
	}
	b := append(appendMaterial([]byte{'{'}, material, ""), '}')
	defer clear(b)
	return c.change(ctx, &request{op: "roll", key: name, method: http.MethodPost, path: "key/" + escape(name), body: b, caller: caller, status: http.StatusOK}, len(material))
}

// addressable refuses names that stand at the end of a path and would be taken
// for another key's there: Java's server decodes a path before it looks for the
// last slash.
func addressable(op, name string) error {
	for _, tail := range []string{"/", "/_invalidatecache", "/_reencryptbatch"} {
		if strings.HasSuffix(name, tail) {
			return &edek.Error{Kind: edek.Invalid, Op: op, Key: name, Text: "a KMS takes the end of this name for a part of its interface"}
		}
	}
	return nil
}

// change sends a change that is answered with a key version. A success that is
// too long to be read is edek.Unsettled too: all that follows a change is still
// to be done, and nobody may make it again.
func (c *Client) change(ctx context.Context, r *request, material int) (v *edek.KeyVersion, err error) {
	r.bound, r.swollen = maxVersion+room(r.key, material), true
	err = c.write(ctx, r, func(body []byte) error {
		v, err = readVersion(body, r.key)
		return err
	})
	if errors.Is(err, errSwollen) {
		err = &edek.Error{Kind: edek.Unsettled, Op: r.op, Key: r.key, Err: err,
			Text: "the upstream KMS has made the change, do not repeat it: but the new version is too long to be passed on"}
	}
	return v, err
}

// Delete removes a key with all its versions, as the caller.
func (c *Client) Delete(ctx context.Context, caller edek.Caller, name string) error {
	if err := addressable("delete", name); err != nil {
		return err
	}
	return c.write(ctx, &request{op: "delete", key: name, method: http.MethodDelete, path: "key/" + escape(name), caller: caller, status: http.StatusOK}, nil)
}

// InvalidateCache makes one node forget what it has cached of a key, as the
// caller: whether he may is the upstream's to say. InvalidateEverywhere does the
// rest.
func (c *Client) InvalidateCache(ctx context.Context, caller edek.Caller, name string) error {
	return c.read(ctx, invalidation(name, caller), nil)
}
