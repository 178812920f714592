package loadtest

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"

	"github.com/edekd/edekd/loadtest/edekfile"
)

// zone is a zone key with what is needed to ask for it.
type zone struct {
	name   string
	path   string // key/NAME, escaped
	quoted string // the name as JSON
	made   bool   // by this run
	sealed []sealed
	batch  []byte // body of a re-encryption
}

// sealed is an encrypted key to be opened.
type sealed struct {
	path     string // of the request; shared by all of one version
	iv       [16]byte
	material []byte
}

// escape writes a name as a path segment. Java's form encoding, but for blanks,
// which Hadoop's client gets wrong.
func escape(name string) string {
	return strings.ReplaceAll(url.QueryEscape(name), "+", "%20")
}

func newZone(name string) *zone {
	// A string always has a JSON form.
	quoted, _ := json.Marshal(name)
	return &zone{name: name, path: "key/" + escape(name), quoted: string(quoted)}
}

// zones are all zone keys of a load, in the order of their popularity.
type zones struct {
	all    []*zone
	byName map[string]*zone
	paths  map[string]string // of version names
	edeks  int
}

func newZones() *zones { return &zones{byName: map[string]*zone{}, paths: map[string]string{}} }

// zone returns the zone of a name, made if need be.
func (z *zones) zone(name string) *zone {
	if known := z.byName[name]; known != nil {
		return known
	}
	added := newZone(name)
	z.byName[name] = added
	z.all = append(z.all, added)
	return added
}

// decryptPath returns the request path for a version.
func (z *zones) decryptPath(version string) string {
	path, known := z.paths[version]
	if !known {
		path = "keyversion/" + escape(version) + "/_eek?eek_op=decrypt"
		z.paths[version] = path
	}
	return path
}

// add gives a zone one more encrypted key.
func (z *zones) add(e *edekfile.EDEK) {
	to := z.zone(e.Key)
	to.sealed = append(to.sealed, sealed{path: z.decryptPath(e.Version), iv: [16]byte(e.IV), material: e.Material})
	z.edeks++
}

// The bodies below are as Hadoop's client writes them: Jackson's pretty style,
// names in the order of a Java HashMap.

// appendDecrypt appends the body of a decrypt request.
func appendDecrypt(dst []byte, z *zone, s *sealed) []byte {
	dst = append(dst, "{\n  \"material\" : \""...)
	dst = base64.StdEncoding.AppendEncode(dst, s.material)
	dst = append(dst, "\",\n  \"name\" : "...)
	dst = append(dst, z.quoted...)
	dst = append(dst, ",\n  \"iv\" : \""...)
	dst = base64.StdEncoding.AppendEncode(dst, s.iv[:])
	return append(dst, "\"\n}"...)
}

// appendBatch appends the body of a re-encryption.
func appendBatch(dst []byte, z *zone, all []edekfile.EDEK) []byte {
	dst = append(dst, "[ "...)
	for i := range all {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		// A string always has a JSON form.
		version, _ := json.Marshal(all[i].Version)
		dst = append(dst, "{\n  \"encryptedKeyVersion\" : {\n    \"material\" : \""...)
		dst = base64.RawURLEncoding.AppendEncode(dst, all[i].Material)
		dst = append(dst, "\",\n    \"name\" : "...)
		dst = append(dst, z.quoted...)
		dst = append(dst, ",\n    \"versionName\" : \"EEK\"\n  },\n  \"versionName\" : "...)
		dst = append(dst, version...)
		dst = append(dst, ",\n  \"iv\" : \""...)
		dst = base64.RawURLEncoding.AppendEncode(dst, all[i].IV)
		dst = append(dst, "\"\n}"...)
	}
	return append(dst, " ]"...)
}

// parseGenerated reads an answer to generate.
func parseGenerated(name string, body []byte) ([]edekfile.EDEK, error) {
	var generated []struct {
		VersionName         string
		IV                  string
		EncryptedKeyVersion struct{ Material string }
	}
	if err := json.Unmarshal(body, &generated); err != nil {
		return nil, err
	}
	var all []edekfile.EDEK
	for i := range generated {
		e := edekfile.EDEK{Key: name, Version: generated[i].VersionName}
		var err error
		if e.IV, err = edekfile.Decode(generated[i].IV); err != nil {
			return nil, err
		}
		if len(e.IV) != 16 {
			return nil, base64.CorruptInputError(len(e.IV))
		}
		if e.Material, err = edekfile.Decode(generated[i].EncryptedKeyVersion.Material); err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}
