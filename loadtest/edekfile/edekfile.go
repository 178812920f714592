// Package edekfile reads encrypted data keys (EDEKs) from JSON lines, one object
// on each line:
//
//	{"key":"zone1","version":"zone1@3","iv":"…16 bytes…","material":"…"}
//
// iv and material are base64 of either alphabet, with or without padding: what the
// key management server returned when it made the key, or what HDFS keeps with
// a file. Empty lines are skipped.
package edekfile

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/edekd/edekd/edek"
)

// The bounds of a file.
const (
	MaxLines    = 2_000_000
	maxLine     = 16 << 10 // bytes
	ivSize      = 16
	maxMaterial = 1 << 10 // bytes of an encrypted key
)

// EDEK is an encrypted data key.
type EDEK struct {
	Key      string // name of the zone key
	Version  string // of the zone key: name@N
	IV       []byte // 16 bytes, as stored
	Material []byte // encrypted
}

// Read reads all encrypted keys of a file.
func Read(path string) ([]EDEK, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	all, err := Parse(file)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	return all, nil
}

// Parse reads all encrypted keys. An error begins with the number of the line.
func Parse(r io.Reader) ([]EDEK, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4<<10), maxLine)
	// Thousands of encrypted keys share a few names.
	shared := map[string]string{}
	share := func(s string) string {
		if known, ok := shared[s]; ok {
			return known
		}
		shared[s] = s
		return s
	}
	var all []EDEK
	n := 0
	for lines.Scan() {
		n++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		if len(all) == MaxLines {
			return nil, fmt.Errorf("%d: more than %d encrypted keys", n, MaxLines)
		}
		e, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("%d: %w", n, err)
		}
		e.Key, e.Version = share(e.Key), share(e.Version)
		all = append(all, e)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%d: %w", n+1, err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%d: no encrypted key in it", n)
	}
	return all, nil
}

func parseLine(line []byte) (e EDEK, err error) {
	var fields struct{ Key, Version, IV, Material string }
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&fields); err != nil {
		return e, fmt.Errorf("no JSON object with key, version, iv and material: %w", err)
	}
	if d.More() {
		return e, errors.New("more than one JSON object on a line")
	}
	e.Key, e.Version = fields.Key, fields.Version
	if name, _, ok := edek.SplitVersion(e.Version); e.Key == "" || !ok || name != e.Key {
		return e, fmt.Errorf("version %q is not one of key %q, like %q", e.Version, e.Key, edek.VersionName(e.Key, 0))
	}
	if e.IV, err = Decode(fields.IV); err != nil || len(e.IV) != ivSize {
		return e, fmt.Errorf("iv is not base64 of %d bytes", ivSize)
	}
	if e.Material, err = Decode(fields.Material); err != nil || len(e.Material) == 0 || len(e.Material) > maxMaterial {
		return e, fmt.Errorf("material is not base64 of 1 to %d bytes", maxMaterial)
	}
	return e, nil
}

// Decode decodes base64 of either alphabet, with or without padding.
func Decode(s string) ([]byte, error) {
	s = strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(s), "=")
	if strings.ContainsAny(s, "\r\n") {
		return nil, base64.CorruptInputError(0)
	}
	return base64.RawURLEncoding.DecodeString(s)
}
