package proxy

import (
	"bytes"
	"context"
	"strconv"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/proxy/audit"
)

// batchHeader on the answers to whoever is authenticated says which batches
// there are beyond Hadoop's. Clients wait to see it: a Java KMS takes the POST
// of a path that it does not know for a roll-over.
var (
	batchHeader  = []byte("X-Edekd-Batch")
	batchDecrypt = []byte("decrypt")
)

// readBatch returns the entries of a batch on a key, all of them whole, once the
// KMS layer lets the sender call the row.
func (s *Server) readBatch(r *request) ([]batchEntry, error) {
	body, err := r.jsonBody()
	if err != nil {
		return nil, err
	}
	entries, err := parseBatch(r.batch[:0], body, s.c.Limits.BatchEntries)
	r.batch = entries
	if err != nil {
		return nil, err
	}
	if len(entries) > s.c.Limits.BatchEntries {
		return nil, tooManyEntries(s.c.Limits.BatchEntries)
	}
	if len(r.name) == 0 {
		return nil, cannotBeEmpty("name")
	}
	if err := s.mayCall(r, r.name); err != nil {
		return nil, err
	}
	for i := range entries {
		if err := entries[i].check(); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// mayUseBatch makes sure that all entries, of which there must be one, belong to
// the key before anything is made of any, and asks the key layer.
func (s *Server) mayUseBatch(r *request, entries []batchEntry) error {
	var known []byte
	for i := range entries {
		if version := entries[i].versionName; !bytes.Equal(version, known) {
			if _, err := s.zoneKey(version, r.name); err != nil {
				return err
			}
			known = version
		}
	}
	_, err := s.mayUse(r, view(r.name))
	if edek.KindOf(err) == edek.NotFound {
		return s.noSuchVersion(entries[0].versionName)
	}
	return err
}

// reencryptBatch brings a NameNode's EDEKs to the current version. Entries that
// are there already go back as they came, with a null key name, as Java's do.
func (s *Server) reencryptBatch(r *request) error {
	s.meters.batch.Mark()
	entries, err := s.readBatch(r)
	if err != nil {
		return err
	}
	if far, err := s.mayUseFarBatch(r, entries); err != nil {
		return err
	} else if far {
		return s.reencryptBatchFar(r, entries)
	}
	var zone, current *edek.ZoneKey
	var name string
	if len(entries) > 0 {
		if err := s.mayUseBatch(r, entries); err != nil {
			return err
		}
		if current, err = s.c.Cache.Current(context.Background(), view(r.name)); err != nil {
			return err
		}
		name = current.Name()
	}
	var list edekList
	out := r.body()
	if length := len(r.ctx.Request.Body()); cap(out) < length {
		out = make([]byte, 0, length) // an entry's answer is as long as the entry, mostly
	}
	for i := range entries {
		e := &entries[i]
		if string(e.versionName) == current.VersionName() {
			out = list.append(out, current.VersionName(), e.iv, e.wrapped, nil)
			continue
		}
		if zone, err = s.usableOr(zone, r, e.versionName); err != nil {
			return err
		}
		if r.keys, err = zone.AppendReencrypted(r.keys[:0], current, e.iv, e.wrapped); err != nil {
			return err
		}
		out = list.append(out, current.VersionName(), e.iv, nonNil(r.keys), &name)
	}
	s.c.Audit.OK(s.event(r, audit.ReencryptEEKBatch, view(r.name)), "reencrypted "+strconv.Itoa(len(entries))+" keys")
	return r.reply(list.end(out))
}

// decryptBatch opens EDEKs of one key, of any of its versions. It is not in the
// Java server's interface; docs/decryptbatch.md describes it.
func (s *Server) decryptBatch(r *request) (err error) {
	s.meters.decryptBatch.Mark()
	entries, err := s.readBatch(r)
	if err != nil {
		return err
	}
	if far, err := s.mayUseFarBatch(r, entries); err != nil {
		return err
	} else if far {
		return s.decryptBatchFar(r, entries)
	}
	if len(entries) > 0 {
		if err := s.mayUseBatch(r, entries); err != nil {
			return err
		}
	}
	out := r.body()
	if length := len(r.ctx.Request.Body()); cap(out) < length {
		out = make([]byte, 0, length) // an entry's answer is shorter than the entry, mostly
	}
	defer func() {
		if err != nil {
			clear(out)
		}
	}()
	var list dekList
	var zone *edek.ZoneKey
	for i := range entries {
		e := &entries[i]
		if zone, err = s.usableOr(zone, r, e.versionName); err != nil {
			return err
		}
		if r.keys, err = zone.AppendDEK(r.keys[:0], e.iv, e.wrapped); err != nil {
			return err
		}
		out = list.append(out, r.keys, zone.Name())
		clear(r.keys) // the next may be longer and leave this place
	}
	if err := s.batchAudited(r, len(entries)); err != nil {
		return err
	}
	return r.reply(list.end(out))
}

// batchAudited writes down that n EDEKs of a key were opened.
func (s *Server) batchAudited(r *request, n int) error {
	if err := s.c.Audit.Batch(s.event(r, audit.DecryptEEKBatch, view(r.name)), n, "decrypted "+strconv.Itoa(n)+" keys"); err != nil {
		return &edek.Error{Kind: edek.Unavailable, Op: "audit", Text: "the audit log cannot be written, and no batch is decrypted unaudited", Err: err}
	}
	return nil
}

// usableOr returns zone if it is the version named, as it mostly is from one
// entry of a batch to the next, and looks the version up otherwise. The key may be
// another by now than the one mayUseBatch asked about: so the rules are asked again.
func (s *Server) usableOr(zone *edek.ZoneKey, r *request, versionName []byte) (*edek.ZoneKey, error) {
	if zone != nil && zone.VersionName() == string(versionName) {
		return zone, nil
	}
	found, err := s.zoneKey(versionName, r.name)
	if err == nil {
		err = s.mayUseFetched(r, found)
	}
	return found.ZoneKey, err
}

// check reports what a batch entry lacks, in the Java server's order and words.
func (e *batchEntry) check() error {
	switch {
	case !e.present:
		return cannotBeNull("valueMap")
	case e.versionName == nil:
		return cannotBeNull("versionName")
	case e.iv == nil:
		return cannotBeNull("iv")
	case !e.hasInner:
		return cannotBeNull("encryptedKeyVersion")
	case e.innerVersion == nil:
		return cannotBeNull("versionName")
	case e.wrapped == nil:
		return cannotBeNull("material")
	case string(e.innerVersion) != edek.EEK:
		return illegalArgument("encryptedKey version name must be 'EEK', but found '" + string(e.innerVersion) + "'")
	}
	return nil
}
