package proxy

import (
	"bytes"
	"errors"
)

// row is one line of the REST interface's table.
type row uint8

const (
	rowUnknown row = iota
	rowCreate
	rowDelete
	rowRoll
	rowInvalidate
	rowKeysMetadata
	rowNames
	rowMetadata
	rowCurrentVersion
	rowKeyVersion
	rowVersions
	rowGenerate
	rowDecrypt
	rowReencrypt
	rowReencryptBatch
	rowDecryptBatch
	rowOptions
	rowToken
	rowOther // outside /kms/v1
	rows
)

// rowLabels are the values of the label op in metrics.
var rowLabels = [rows]string{"unknown", "create_key", "delete_key", "roll_new_version", "invalidate_cache",
	"get_keys_metadata", "get_keys", "get_metadata", "get_current_key", "get_key_version", "get_key_versions",
	"generate_eek", "decrypt_eek", "reencrypt_eek", "reencrypt_eek_batch", "decrypt_eek_batch", "options", "delegation_token", "other"}

// restBase is where the interface lives.
const restBase = "/kms/v1"

// splitTarget cuts a raw request target into path and query. An absolute-form
// target loses scheme and host: the host there never decides anything.
func splitTarget(target []byte) (path, query []byte) {
	target, _, _ = bytes.Cut(target, []byte("#"))
	path, query, _ = bytes.Cut(target, []byte("?"))
	if len(path) > 0 && path[0] == '/' {
		return path, query
	}
	scheme, rest, absolute := bytes.Cut(path, []byte("://"))
	if absolute && (bytes.EqualFold(scheme, []byte("http")) || bytes.EqualFold(scheme, []byte("https"))) {
		if slash := bytes.IndexByte(rest, '/'); slash >= 0 {
			return rest[slash:], query
		}
		return []byte("/"), query
	}
	return path, query
}

// restPath returns what follows /kms/v1 in path; ok is false outside it.
func restPath(path []byte) (rest []byte, ok bool) {
	if !bytes.HasPrefix(path, []byte(restBase)) {
		return nil, false
	}
	rest = path[len(restBase):]
	return rest, len(rest) == 0 || rest[0] == '/'
}

// resource is what a path names, before the method is looked at.
type resource uint8

const (
	resUnknown resource = iota
	resBase             // /kms/v1 itself
	resKeys
	resKeysMetadata
	resKeysNames
	resKey
	resKeyMetadata
	resKeyCurrentVersion
	resKeyVersions
	resKeyEEK
	resKeyInvalidate
	resKeyReencryptBatch
	resKeyDecryptBatch
	resKeyVersion
	resKeyVersionEEK
)

// keyTails are the sub-resources of a key. Anything else after a key's name is
// part of the name: that is how the Java server's patterns match.
var keyTails = []struct {
	tail string
	res  resource
}{
	{"/_eek", resKeyEEK},
	{"/_metadata", resKeyMetadata},
	{"/_currentversion", resKeyCurrentVersion},
	{"/_versions", resKeyVersions},
	{"/_invalidatecache", resKeyInvalidate},
	{"/_reencryptbatch", resKeyReencryptBatch},
}

// parsePath finds the resource in rest, the raw path after /kms/v1, and the
// still percent-encoded name of key or version in it. The name runs from the
// fixed head to the fixed tail over any number of slashes, dots and all: no
// segment is ever interpreted, so the name that is authorised is the name that
// is used. Before a fixed tail's end one slash more is accepted, as in Java.
func parsePath(rest []byte) (res resource, name []byte) {
	if after, ok := bytes.CutPrefix(rest, []byte("/key/")); ok {
		trimmed := bytes.TrimSuffix(after, []byte("/"))
		for _, t := range keyTails {
			if name, ok := bytes.CutSuffix(trimmed, []byte(t.tail)); ok {
				return t.res, name
			}
		}
		return resKey, after
	}
	if after, ok := bytes.CutPrefix(rest, []byte("/keyversion/")); ok {
		if name, ok := bytes.CutSuffix(bytes.TrimSuffix(after, []byte("/")), []byte("/_eek")); ok {
			return resKeyVersionEEK, name
		}
		return resKeyVersion, after
	}
	switch string(rest) {
	case "", "/":
		return resBase, nil
	case "/keys", "/keys/":
		return resKeys, nil
	case "/keys/metadata", "/keys/metadata/":
		return resKeysMetadata, nil
	case "/keys/names", "/keys/names/":
		return resKeysNames, nil
	}
	return resUnknown, nil
}

// asDecryptBatch returns the key in the path that the Java server does not have.
// To Java, name is a key's whole name there, and it stays that for every method
// but POST and for every body but a JSON array, which Java can make nothing of.
func asDecryptBatch(method []byte, res resource, name []byte) (key []byte, ok bool) {
	if res != resKey || string(method) != "POST" {
		return nil, false
	}
	return bytes.CutSuffix(bytes.TrimSuffix(name, []byte("/")), []byte("/_decryptbatch"))
}

// rowOf returns the row that method does on a resource; HEAD does GET's.
// rowDecrypt stands for reencrypt too, until eek_op is looked at.
func rowOf(method []byte, res resource) row {
	switch string(method) {
	case "GET", "HEAD":
		switch res {
		case resKeysMetadata:
			return rowKeysMetadata
		case resKeysNames:
			return rowNames
		case resKey, resKeyMetadata:
			return rowMetadata
		case resKeyCurrentVersion:
			return rowCurrentVersion
		case resKeyVersions:
			return rowVersions
		case resKeyVersion:
			return rowKeyVersion
		case resKeyEEK:
			return rowGenerate
		}
	case "POST":
		switch res {
		case resKeys:
			return rowCreate
		case resKey:
			return rowRoll
		case resKeyInvalidate:
			return rowInvalidate
		case resKeyReencryptBatch:
			return rowReencryptBatch
		case resKeyDecryptBatch:
			return rowDecryptBatch
		case resKeyVersionEEK:
			return rowDecrypt
		}
	case "DELETE":
		if res == resKey {
			return rowDelete
		}
	}
	return rowUnknown
}

// cutParameters removes matrix parameters (";x=y" up to the next slash), which
// Java ignores. It returns path itself when there are none; otherwise it
// overwrites it.
func cutParameters(path []byte) []byte {
	if bytes.IndexByte(path, ';') < 0 {
		return path
	}
	out, skip := path[:0], false
	for _, c := range path {
		switch c {
		case ';':
			skip = true
		case '/':
			skip = false
		}
		if !skip {
			out = append(out, c)
		}
	}
	return out
}

var (
	errBadEscape = errors.New("a percent sign in the path must begin an escape of two hexadecimal digits")
	errNUL       = errors.New("the path must not hold a NUL")
)

// appendUnescaped appends path with percent escapes decoded, once. A plus stays
// a plus, and no NUL gets through in either form.
func appendUnescaped(dst, path []byte) ([]byte, error) {
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			if i+2 >= len(path) {
				return dst, errBadEscape
			}
			hi, lo := unhex(path[i+1]), unhex(path[i+2])
			if hi > 15 || lo > 15 {
				return dst, errBadEscape
			}
			c = hi<<4 | lo
			i += 2
		}
		if c == 0 {
			return dst, errNUL
		}
		dst = append(dst, c)
	}
	return dst, nil
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 16
}
