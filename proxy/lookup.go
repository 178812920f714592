package proxy

import (
	"context"
	"slices"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/proxy/audit"
)

// What does not exist is no error here: `{ }` or `[ ]` with 200, which the
// Java client turns into null.

func (s *Server) metadata(r *request) error {
	s.meters.admin.Mark()
	if len(r.name) == 0 {
		return cannotBeEmpty("name")
	}
	if err := s.mayCall(r, r.name); err != nil {
		return err
	}
	m, err := s.mayUse(r, view(r.name))
	if err == nil && r.far != nil {
		m, err = s.metadataFar(r)
	}
	if err != nil && edek.KindOf(err) != edek.NotFound {
		return err
	}
	s.c.Audit.OK(s.event(r, audit.GetMetadata, view(r.name)), "")
	if err != nil {
		return r.replyEmptyObject()
	}
	return r.reply(appendMetadata(r.body(), m))
}

func (s *Server) keysMetadata(r *request) error {
	s.meters.admin.Mark()
	if err := s.mayCall(r, nil); err != nil {
		return err
	}
	names := r.ctx.QueryArgs().PeekMulti("key")
	described, err := s.keysMetadataFar(r, names)
	if err != nil {
		return err
	}
	var list list
	out := r.body()
	for _, name := range names {
		m, err := s.mayUse(r, view(name))
		if err == nil && r.far != nil {
			if m = described[r.far.Name()]; m == nil {
				err = unknownThere
			}
		}
		switch {
		case err == nil:
			out = appendMetadata(list.next(out), m)
		case edek.KindOf(err) == edek.NotFound:
			out = append(list.next(out), emptyObject...)
		default:
			return err
		}
		if err := s.roomFor(out); err != nil {
			return err
		}
	}
	s.c.Audit.OK(s.event(r, audit.GetKeysMetadata, ""), "")
	return r.reply(list.end(out))
}

func (s *Server) names(r *request) error {
	s.meters.admin.Mark()
	if err := s.mayCall(r, nil); err != nil {
		return err
	}
	names, err := s.c.Cache.Names(context.Background(), r.id.Caller)
	if err != nil {
		return err
	}
	slices.Sort(names)
	var list list
	out := r.body()
	for _, name := range names {
		out = appendString(list.next(out), name)
	}
	s.c.Audit.OK(s.event(r, audit.GetKeys, ""), "")
	return r.reply(list.end(out))
}

func (s *Server) currentVersion(r *request) error {
	s.meters.key.Mark()
	if len(r.name) == 0 {
		return cannotBeEmpty("name")
	}
	if err := s.mayCall(r, r.name); err != nil {
		return err
	}
	zone, err := s.usableCurrent(r, view(r.name))
	if err == nil && r.far != nil {
		return s.currentVersionFar(r)
	}
	if err != nil && edek.KindOf(err) != edek.NotFound {
		return err
	}
	s.c.Audit.Count(s.event(r, audit.GetCurrentKey, view(r.name)))
	if err != nil {
		return r.replyEmptyObject()
	}
	return r.replyZoneKey(zone)
}

func (s *Server) keyVersion(r *request) error {
	s.meters.key.Mark()
	if len(r.name) == 0 {
		return cannotBeEmpty("versionName")
	}
	if err := s.mayCall(r, nil); err != nil {
		return err
	}
	switch far, err := s.farOf(r); {
	case edek.KindOf(err) == edek.NotFound:
		return r.replyEmptyObject()
	case err != nil:
		return err
	case far:
		return s.keyVersionFar(r)
	}
	zone, err := s.c.Cache.VersionRuled(context.Background(), view(r.name))
	if err == nil {
		err = s.mayUseFetched(r, zone)
	}
	if edek.KindOf(err) == edek.NotFound {
		return r.replyEmptyObject()
	}
	if err != nil {
		return err
	}
	s.c.Audit.Count(s.event(r, audit.GetKeyVersion, view(r.name[:len(zone.Name())])))
	return r.replyZoneKey(zone.ZoneKey)
}

func (s *Server) versions(r *request) error {
	s.meters.key.Mark()
	if len(r.name) == 0 {
		return cannotBeEmpty("name")
	}
	if err := s.mayCall(r, r.name); err != nil {
		return err
	}
	var zones []*edek.ZoneKey
	err := s.c.Cache.Whole(view(r.name), func() (err error) {
		if _, err = s.mayUse(r, view(r.name)); err == nil && r.far == nil {
			zones, err = s.c.Cache.Versions(context.Background(), view(r.name))
		}
		return err
	})
	if err == nil && r.far != nil {
		return s.versionsFar(r)
	}
	if err != nil && edek.KindOf(err) != edek.NotFound {
		return err
	}
	var list list
	out := r.body()
	for _, zone := range zones {
		out = r.appendZoneKey(list.next(out), zone)
	}
	s.c.Audit.OK(s.event(r, audit.GetKeyVersions, view(r.name)), "")
	return r.reply(list.end(out))
}

func (r *request) replyZoneKey(zone *edek.ZoneKey) error {
	return r.reply(r.appendZoneKey(r.body(), zone))
}

// appendZoneKey appends a key version with its material.
func (r *request) appendZoneKey(out []byte, zone *edek.ZoneKey) []byte {
	r.keys = zone.AppendMaterial(r.keys[:0])
	return appendKeyVersion(out, r.keys, zone.Name(), zone.VersionName())
}
