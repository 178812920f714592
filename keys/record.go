package keys

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"

	"github.com/edekd/edekd/edek"
)

// record is what one key deposit holds: a key with all its versions.
//
// Its binary form is, numbers being unsigned varints of minimal length and
// strings being their length and bytes:
//
//	recordVersion · cipher · bit length · creation time in ms since 1970 ·
//	0, or 1 and the description · number of attributes, name and value of each
//	in ascending order of names · number of versions, material of each
//
// Every record has exactly one form.
type record struct {
	cipher      string
	bitLength   int
	created     int64
	description *string
	attributes  map[string]string
	versions    [][]byte // key bytes, at least one version
}

const (
	recordVersion = 1
	maxBitLength  = 1 << 31 // Hadoop's lengths are Java ints
)

var errRecord = errors.New("the record of the key does not parse: restore the newest backup in which it does")

func (r *record) metadata(name string) *edek.Metadata {
	return &edek.Metadata{
		Name: name, Cipher: r.cipher, BitLength: r.bitLength, Description: r.description,
		Attributes: r.attributes, Created: r.created, Versions: len(r.versions),
	}
}

// encode returns the binary form. It holds key bytes: the caller zeroes it.
func (r *record) encode() []byte {
	size := 64 + len(r.cipher)
	if r.description != nil {
		size += len(*r.description)
	}
	for k, v := range r.attributes {
		size += 2*binary.MaxVarintLen64 + len(k) + len(v)
	}
	for _, v := range r.versions {
		size += binary.MaxVarintLen64 + len(v)
	}
	b := make([]byte, 0, size) // growing later would leave key bytes behind
	b = append(b, recordVersion)
	b = appendString(b, r.cipher)
	b = binary.AppendUvarint(b, uint64(r.bitLength))
	b = binary.AppendUvarint(b, uint64(r.created))
	if r.description == nil {
		b = append(b, 0)
	} else {
		b = append(b, 1)
		b = appendString(b, *r.description)
	}
	b = binary.AppendUvarint(b, uint64(len(r.attributes)))
	for _, k := range slices.Sorted(maps.Keys(r.attributes)) {
		b = appendString(b, k)
		b = appendString(b, r.attributes[k])
	}
	b = binary.AppendUvarint(b, uint64(len(r.versions)))
	for _, v := range r.versions {
		b = appendString(b, v)
	}
	return b
}

func appendString[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decodeRecord reads the binary form. The versions of the record alias b.
func decodeRecord(b []byte) (*record, error) {
	d := decoder{b: b}
	if d.number(255) != recordVersion {
		return nil, errors.New("the record of the key is damaged or from a newer edekd: restore the newest backup in which it opens, or use that version")
	}
	r := &record{cipher: string(d.bytes())}
	r.bitLength = int(d.number(maxBitLength))
	r.created = int64(d.number(1<<63 - 1))
	if d.number(1) == 1 {
		s := string(d.bytes())
		r.description = &s
	}
	if n := d.number(uint64(len(b))); n > 0 && d.ok() {
		r.attributes = map[string]string{}
		last := ""
		for i := range n {
			k, v := string(d.bytes()), string(d.bytes())
			if !d.ok() || (i > 0 && k <= last) {
				return nil, errRecord
			}
			r.attributes[k], last = v, k
		}
	}
	n := d.number(uint64(len(b)))
	if n == 0 || !d.ok() {
		return nil, errRecord
	}
	for range n {
		r.versions = append(r.versions, d.bytes())
		if !d.ok() {
			return nil, errRecord
		}
	}
	if len(d.b) != 0 {
		return nil, errRecord
	}
	return r, nil
}

// decoder takes a record apart. After the first failure everything it returns
// is zero.
type decoder struct {
	b      []byte
	failed bool
}

func (d *decoder) ok() bool { return !d.failed }

// number takes a varint of at most limit, written as short as can be.
func (d *decoder) number(limit uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if d.failed || n <= 0 || v > limit || (n > 1 && d.b[n-1] == 0) {
		d.failed = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// bytes takes a string. It aliases the input.
func (d *decoder) bytes() []byte {
	n := d.number(uint64(len(d.b)))
	if d.failed || n > uint64(len(d.b)) {
		d.failed = true
		return nil
	}
	s := d.b[:n:n]
	d.b = d.b[n:]
	return s
}
