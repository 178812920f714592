package spnego

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/jcmturner/gokrb5/v8/iana/etypeID"
	"github.com/jcmturner/gokrb5/v8/types"
)

const (
	maxKeytab  = 4 << 20 // bytes
	maxEntries = 10_000
	maxParts   = 16 // components of a principal's name
)

// macSize holds the encryption types that are accepted, with the length of the
// checksum at the end of their ciphertexts.
var macSize = map[int32]int{
	etypeID.AES128_CTS_HMAC_SHA1_96:    12,
	etypeID.AES256_CTS_HMAC_SHA1_96:    12,
	etypeID.AES128_CTS_HMAC_SHA256_128: 16,
	etypeID.AES256_CTS_HMAC_SHA384_192: 24,
}

// keySize holds the length of the keys of the same types, in bytes.
var keySize = map[int32]int{
	etypeID.AES128_CTS_HMAC_SHA1_96:    16,
	etypeID.AES256_CTS_HMAC_SHA1_96:    32,
	etypeID.AES128_CTS_HMAC_SHA256_128: 16,
	etypeID.AES256_CTS_HMAC_SHA384_192: 32,
}

// entry is one key of a keytab.
type entry struct {
	principal string // service/host@REALM
	version   uint32 // kvno
	short     bool   // only the low eight bits of the version are known
	key       types.EncryptionKey
}

// matches reports whether the entry is for a ticket with this version; 0 is a
// ticket that does not tell.
func (e *entry) matches(version uint32) bool {
	return version == 0 || e.version == version || e.short && e.version == version&0xff
}

// readKeytab reads a keytab file. Errors name the file and never repeat what is
// in it.
func readKeytab(path string) (entries []entry, mode os.FileMode, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s: it is not a regular file", path)
	}
	if info.Size() > maxKeytab {
		return nil, 0, fmt.Errorf("%s: it is larger than the %d bytes a keytab may have", path, maxKeytab)
	}
	// One buffer of the right size, so that clear reaches every copy.
	data := make([]byte, info.Size())
	defer clear(data)
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	entries, err = parseKeytab(data)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	return entries, info.Mode(), nil
}

var errKeytab = errors.New("it is not a whole keytab: export it again with ktadd or ktutil")

// parseKeytab reads the format of MIT's keytab files, version 2, which is what
// MIT, Heimdal, Java, ktpass and Samba write. The keys are copies.
func parseKeytab(data []byte) ([]entry, error) {
	if len(data) < 2 || data[0] != 5 {
		return nil, errKeytab
	}
	if data[1] != 2 {
		return nil, fmt.Errorf("it is a keytab of version %d, only version 2 is read: export it again with ktutil", data[1])
	}
	var entries []entry
	in := fields{rest: data[2:]}
	for len(in.rest) >= 4 {
		size := int64(int32(in.uint32()))
		if size == 0 {
			break // the rest of the file is unused
		}
		hole := size < 0
		if hole {
			size = -size // an entry that was removed
		}
		body := in.bytes(size)
		if in.short {
			return nil, errKeytab
		}
		if hole {
			continue
		}
		e, err := parseEntry(body)
		if err != nil {
			return nil, err
		}
		if entries = append(entries, e); len(entries) > maxEntries {
			return nil, fmt.Errorf("a keytab may have %d keys", maxEntries)
		}
	}
	return entries, nil
}

func parseEntry(body []byte) (entry, error) {
	in := fields{rest: body}
	count := int(in.uint16())
	realm := in.counted()
	if count > maxParts {
		return entry{}, errKeytab
	}
	parts := make([]string, count)
	for i := range parts {
		parts[i] = string(in.counted())
	}
	in.uint32() // type of the name
	in.uint32() // time it was written
	e := entry{version: uint32(in.byte()), short: true}
	etype := int32(int16(in.uint16()))
	value := in.counted()
	if in.short {
		return entry{}, errKeytab
	}
	if len(in.rest) >= 4 {
		if version := in.uint32(); version != 0 {
			e.version, e.short = version, false
		}
	}
	e.principal = strings.Join(parts, "/") + "@" + string(realm)
	e.key = types.EncryptionKey{KeyType: etype, KeyValue: slices.Clone(value)}
	if size, known := keySize[etype]; known && len(value) != size {
		return entry{}, fmt.Errorf("a key of %s has %d bytes in the place of %d: export the keytab again", e.principal, len(value), size)
	}
	return e, nil
}

// fields reads big-endian fields. After the first that is not there, short is
// set and all further ones are zero.
type fields struct {
	rest  []byte
	short bool
}

func (f *fields) bytes(n int64) []byte {
	if f.short || n > int64(len(f.rest)) {
		f.short, f.rest = true, nil
		return nil
	}
	b := f.rest[:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) byte() byte {
	if b := f.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) uint16() uint16 {
	if b := f.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (f *fields) uint32() uint32 {
	if b := f.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (f *fields) counted() []byte { return f.bytes(int64(f.uint16())) }

// keyring holds the keys of the principals that are served.
type keyring map[string][]entry

// pick takes from a keytab the keys that the principals stand for: the names
// themselves, or all of HTTP/… for "*". Names without a realm belong to realm.
// Warnings are remarks that keep nobody from being served.
func pick(entries []entry, principals []string, realm string) (ring keyring, warnings []string, err error) {
	all := map[string][]entry{}
	for _, e := range entries {
		all[e.principal] = append(all[e.principal], e)
	}
	var http []string
	for name := range all {
		if strings.HasPrefix(name, httpService) {
			http = append(http, name)
		}
	}
	slices.Sort(http)
	if slices.Contains(principals, "*") {
		if len(http) == 0 {
			return nil, nil, fmt.Errorf("it has keys for no HTTP/… principal, only for %s: add one with ktadd", listed(all))
		}
		principals = http
	}
	ring = keyring{}
	for _, name := range principals {
		if !strings.Contains(name, "@") && realm != "" {
			name += "@" + realm
		}
		keys, found := all[name]
		if !found {
			return nil, nil, fmt.Errorf("it has no key for %s, only for %s: add it with ktadd, or name one of these", name, listed(all))
		}
		var strong []entry
		for _, e := range keys {
			if _, ok := macSize[e.key.KeyType]; ok {
				strong = append(strong, e)
			}
		}
		if len(strong) == 0 {
			warnings = append(warnings, fmt.Sprintf("%s has no AES key but only %s, which is refused: give the account AES keys and export the keytab again", name, etypesOf(keys)))
			continue
		}
		// The newest first: they are tried in this order when a ticket names no
		// version.
		slices.SortStableFunc(strong, func(a, b entry) int { return cmp.Compare(b.version, a.version) })
		ring[name] = strong
	}
	if len(ring) == 0 {
		return nil, nil, errors.New(strings.Join(warnings, "; "))
	}
	return ring, warnings, nil
}

// forgetOthers zeroes the keys of a keytab that are not in the ring.
func (r keyring) forgetOthers(entries []entry) {
	for _, e := range entries {
		_, served := r[e.principal]
		if _, accepted := macSize[e.key.KeyType]; !served || !accepted {
			clear(e.key.KeyValue)
		}
	}
}

// names returns the principals served, in order.
func (r keyring) names() []string {
	names := make([]string, 0, len(r))
	for name := range r {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// listed names a few principals of a keytab for an error message.
func listed(all map[string][]entry) string {
	if len(all) == 0 {
		return "nobody"
	}
	names := keyring(all).names()
	if len(names) > 5 {
		return strings.Join(names[:5], ", ") + fmt.Sprintf(" and %d more", len(names)-5)
	}
	return strings.Join(names, ", ")
}

func etypesOf(entries []entry) string {
	var names []string
	for _, e := range entries {
		if name := etypeName(e.key.KeyType); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

func etypeName(etype int32) string {
	switch etype {
	case etypeID.AES128_CTS_HMAC_SHA1_96:
		return "AES128 with SHA1"
	case etypeID.AES256_CTS_HMAC_SHA1_96:
		return "AES256 with SHA1"
	case etypeID.AES128_CTS_HMAC_SHA256_128:
		return "AES128 with SHA256"
	case etypeID.AES256_CTS_HMAC_SHA384_192:
		return "AES256 with SHA384"
	case etypeID.RC4_HMAC, etypeID.RC4_HMAC_EXP:
		return "RC4"
	case etypeID.DES_CBC_CRC, etypeID.DES_CBC_MD4, etypeID.DES_CBC_MD5:
		return "DES"
	case etypeID.DES3_CBC_SHA1_KD, etypeID.DES3_CBC_SHA1, etypeID.DES3_CBC_MD5:
		return "triple DES"
	}
	return fmt.Sprintf("encryption type %d", etype)
}
