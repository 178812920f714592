package proxy

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/cache"
	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/proxy/audit"
)

// Requests for far keys, whose material is behind another KMS. Both layers of
// our own rules were asked, or are asked here, as for near keys; the other KMS
// has its say besides. What it answers a caller goes to him as it came.

// ownName refuses who is called what edekd is called by the other KMS: what that
// one grants edekd would be his.
func (s *Server) ownName(r *request) error {
	c := &r.id.Caller
	if s.c.UpstreamUser == "" || c.User != s.c.UpstreamUser && c.Real != s.c.UpstreamUser {
		return nil
	}
	s.meters.unauthorized.Mark()
	if err := s.c.Audit.Unauthorized(s.event(r, rowOps[r.row], view(r.name))); err != nil {
		return unaudited(err)
	}
	return &fault{answer{fasthttp.StatusForbidden, classAuthorization},
		"User:" + c.User + " is refused: " + s.c.UpstreamUser + " is what this server is called by the KMS behind it"}
}

// generateFar hands out EDEKs of r.far.
func (s *Server) generateFar(r *request, n int) (err error) {
	if r.eeks, err = r.far.Generate(context.Background(), r.id.Caller, n, r.eeks[:0]); err != nil {
		return err
	}
	var list edekList
	out, name := r.body(), r.far.Name()
	for i := range r.eeks {
		e := &r.eeks[i]
		out = list.append(out, r.far.VersionName(e.Version()), e.IV[:], e.Wrapped(), &name)
		if err := s.roomFor(out); err != nil {
			return err
		}
	}
	return s.generated(r, list.end(out))
}

// farVersion returns the far key that a version belongs to, nil for a near one,
// once both layers were asked. name is the key's in the request's body, nil for
// none.
func (s *Server) farVersion(r *request, name []byte) (*cache.FarKey, error) {
	if !s.c.Cache.HasFar() {
		return nil, nil
	}
	if err := s.mayCall(r, name); err != nil {
		return nil, err
	}
	base, ok := edek.BaseName(view(r.name))
	if !ok {
		return nil, s.noSuchVersion(r.name)
	}
	switch _, far, err := s.c.Cache.MetadataFor(context.Background(), &r.id.Caller, base); {
	case edek.KindOf(err) == edek.NotFound:
		return nil, s.noSuchVersion(r.name)
	case err != nil || far == nil:
		return nil, err
	}
	if err := s.isVersionOf(r.name, name); err != nil {
		return nil, err
	}
	if _, err := s.mayUse(r, base); edek.KindOf(err) == edek.NotFound {
		return nil, s.noSuchVersion(r.name)
	} else if err != nil {
		return nil, err
	}
	return r.far, nil
}

// isVersionOf makes sure that a version's name is one, and of that key.
func (s *Server) isVersionOf(versionName, name []byte) error {
	base, _, ok := edek.SplitVersion(view(versionName))
	if !ok {
		return s.noSuchVersion(versionName)
	}
	if name == nil || base != string(name) {
		return otherKeysVersion(string(versionName), name)
	}
	return nil
}

func (s *Server) decryptFar(r *request, d decryptBody) error {
	var err error
	if r.keys, err = r.far.AppendDEK(context.Background(), r.id.Caller, view(r.name), d.iv, d.material, r.keys[:0]); err != nil {
		return err
	}
	s.c.Audit.Count(s.event(r, audit.DecryptEEK, view(d.name)))
	return r.reply(appendKeyVersion(r.body(), nonNil(r.keys), r.far.Name(), edek.EK))
}

func (s *Server) reencryptFar(r *request, d decryptBody) error {
	e, err := r.far.Reencrypt(context.Background(), r.id.Caller, view(r.name), d.iv, d.material)
	if err != nil {
		return err
	}
	s.c.Audit.Count(s.event(r, audit.ReencryptEEK, view(d.name)))
	name := r.far.Name()
	return r.reply(appendEncryptedKey(r.body(), r.far.VersionName(e.Version()), e.IV[:], e.Wrapped(), &name))
}

// mayUseFarBatch is mayUseBatch for a far key; it reports whether the key is one.
func (s *Server) mayUseFarBatch(r *request, entries []batchEntry) (bool, error) {
	if !s.c.Cache.HasFar() || len(entries) == 0 {
		return false, nil
	}
	switch _, far, err := s.c.Cache.MetadataFor(context.Background(), &r.id.Caller, view(r.name)); {
	case edek.KindOf(err) == edek.NotFound:
		return false, s.noSuchVersion(entries[0].versionName)
	case err != nil || far == nil:
		return false, err
	}
	for i := range entries {
		if err := s.isVersionOf(entries[i].versionName, r.name); err != nil {
			return false, err
		}
	}
	if _, err := s.mayUse(r, view(r.name)); edek.KindOf(err) == edek.NotFound {
		return false, s.noSuchVersion(entries[0].versionName)
	} else if err != nil {
		return false, err
	}
	return r.far != nil, nil
}

func (s *Server) reencryptBatchFar(r *request, entries []batchEntry) error {
	all := make([]edek.EDEK, len(entries))
	for i := range entries {
		_, version, _ := edek.SplitVersion(view(entries[i].versionName))
		e, err := edek.NewEDEK(version, entries[i].iv, entries[i].wrapped)
		if err != nil {
			return illegalArgument("entry " + strconv.Itoa(i) + ": an EDEK has an IV of 16 bytes and a key of 1 to 32")
		}
		all[i] = e
	}
	done, err := r.far.ReencryptBatch(context.Background(), r.id.Caller, all)
	if err != nil {
		return err
	}
	var list edekList
	out, name := r.body(), r.far.Name()
	for i := range done {
		e, shown := &done[i], &name
		if e.Version() == all[i].Version() {
			shown = nil
		}
		out = list.append(out, r.far.VersionName(e.Version()), e.IV[:], e.Wrapped(), shown)
	}
	s.c.Audit.OK(s.event(r, audit.ReencryptEEKBatch, view(r.name)), "reencrypted "+strconv.Itoa(len(entries))+" keys")
	return r.reply(list.end(out))
}

// farAtOnce is how many EDEKs of one batch are opened at a time.
const farAtOnce = 16

func (s *Server) decryptBatchFar(r *request, entries []batchEntry) (err error) {
	deks := make([][]byte, len(entries))
	defer func() {
		for _, dek := range deks {
			clear(dek)
		}
	}()
	ctx, cancel := r.far.BatchDeadline(context.Background(), len(entries))
	defer cancel()
	if all, ok := edeksOf(entries); ok {
		if err := r.far.OpenBatch(ctx, r.id.Caller, all, deks); err != nil {
			return err
		}
	}
	group, going := errgroup.WithContext(ctx)
	group.SetLimit(farAtOnce)
	for i := range entries {
		if going.Err() != nil {
			break
		}
		if deks[i] != nil {
			continue
		}
		group.Go(func() (err error) {
			e := &entries[i]
			deks[i], err = r.far.AppendDEK(going, r.id.Caller, view(e.versionName), e.iv, e.wrapped, nil)
			return err
		})
	}
	err = group.Wait()
	if _, answered := errors.AsType[*edek.Foreign](err); ctx.Err() != nil && !answered {
		return &edek.Error{Kind: edek.Unavailable, Op: "decrypt", Key: r.far.Name(), Err: err,
			Text: s.c.Cache.State() + ": the KMS behind did not answer to all of the batch in time: send fewer at a time, or allow more time for a request"}
	}
	if err != nil {
		return err
	}
	out := r.body()
	var list dekList
	for _, dek := range deks {
		out = list.append(out, dek, r.far.Name())
	}
	if err := s.batchAudited(r, len(entries)); err != nil {
		clear(out)
		return err
	}
	return r.reply(list.end(out))
}

// edeksOf returns the EDEKs of a batch, if that is what all entries are.
func edeksOf(entries []batchEntry) ([]edek.EDEK, bool) {
	all := make([]edek.EDEK, len(entries))
	for i := range entries {
		_, version, _ := edek.SplitVersion(view(entries[i].versionName))
		e, err := edek.NewEDEK(version, entries[i].iv, entries[i].wrapped)
		if err != nil {
			return nil, false
		}
		all[i] = e
	}
	return all, true
}

// metadataFar asks in the sender's name what r.far is.
func (s *Server) metadataFar(r *request) (*edek.Metadata, error) {
	ctx, cancel := r.far.Deadline(context.Background())
	defer cancel()
	return r.far.As(r.id.Caller).Metadata(ctx, r.far.Name())
}

// unknownThere says that a key is unknown to the other KMS, or was to the sender.
var unknownThere = &edek.Error{Kind: edek.NotFound, Op: "metadata", Text: "no such key"}

// keysMetadataFar asks in the sender's name for those of the keys that are far
// and that he may ask for here. It returns what they are by name.
func (s *Server) keysMetadataFar(r *request, asked [][]byte) (map[string]*edek.Metadata, error) {
	if !s.c.Cache.HasFar() {
		return nil, nil
	}
	var far []*cache.FarKey
	for _, name := range asked {
		if _, err := s.mayUse(r, view(name)); err != nil && edek.KindOf(err) != edek.NotFound {
			return nil, err
		}
		if r.far != nil {
			far = append(far, r.far)
		}
	}
	described := make(map[string]*edek.Metadata, len(far))
	for len(far) > 0 {
		first := far[0].Provider()
		var names []string
		rest := far[:0:0]
		for _, f := range far {
			if f.Provider() == first {
				names = append(names, f.Name())
			} else {
				rest = append(rest, f)
			}
		}
		slices.Sort(names)
		names = slices.Compact(names)
		ctx, cancel := far[0].Deadline(context.Background())
		all, err := far[0].As(r.id.Caller).KeysMetadata(ctx, names)
		cancel()
		if err != nil {
			return nil, err
		}
		for i, m := range all[:min(len(all), len(names))] {
			described[names[i]] = m
		}
		far = rest
	}
	return described, nil
}

func (s *Server) currentVersionFar(r *request) error {
	ctx, cancel := r.far.Deadline(context.Background())
	defer cancel()
	v, err := r.far.As(r.id.Caller).CurrentVersion(ctx, r.far.Name())
	if edek.KindOf(err) == edek.NotFound {
		return r.replyEmptyObject()
	}
	if err != nil {
		return err
	}
	defer v.Zero()
	s.c.Audit.Count(s.event(r, audit.GetCurrentKey, view(r.name)))
	return r.reply(appendKeyVersion(r.body(), v.Material, v.Name, v.VersionName))
}

// farOf reports whether the version in the request's path is one of a far key,
// which it leaves in r.far once the key layer was asked.
func (s *Server) farOf(r *request) (bool, error) {
	base, _, ok := edek.SplitVersion(view(r.name))
	if !ok || !s.c.Cache.HasFar() {
		return false, nil
	}
	if _, far, err := s.c.Cache.MetadataFor(context.Background(), &r.id.Caller, base); err != nil || far == nil {
		return false, err
	}
	if _, err := s.mayUse(r, base); err != nil {
		return false, err
	}
	return r.far != nil, nil
}

func (s *Server) keyVersionFar(r *request) error {
	ctx, cancel := r.far.Deadline(context.Background())
	defer cancel()
	v, err := r.far.As(r.id.Caller).Version(ctx, string(r.name))
	if edek.KindOf(err) == edek.NotFound {
		return r.replyEmptyObject()
	}
	if err != nil {
		return err
	}
	defer v.Zero()
	s.c.Audit.Count(s.event(r, audit.GetKeyVersion, r.far.Name()))
	return r.reply(appendKeyVersion(r.body(), v.Material, v.Name, v.VersionName))
}

func (s *Server) versionsFar(r *request) error {
	ctx, cancel := r.far.Deadline(context.Background())
	defer cancel()
	all, err := r.far.As(r.id.Caller).Versions(ctx, r.far.Name())
	if err != nil && edek.KindOf(err) != edek.NotFound {
		return err
	}
	var list list
	out := r.body()
	for _, v := range all {
		out = appendKeyVersion(list.next(out), v.Material, v.Name, v.VersionName)
		v.Zero()
	}
	s.c.Audit.OK(s.event(r, audit.GetKeyVersions, view(r.name)), "")
	return r.reply(list.end(out))
}

// upstreamDenied writes down that the other KMS denied a caller something.
func (s *Server) upstreamDenied(r *request, err error) error {
	foreign, ok := errors.AsType[*edek.Foreign](err)
	if !ok || class(foreign.Class) != classAuthorization {
		return nil
	}
	s.meters.unauthorized.Mark()
	e := s.event(r, rowOps[r.row], view(r.name))
	e.Status = foreign.Status
	if err := s.c.Audit.Unauthorized(e); err != nil {
		return unaudited(err)
	}
	return nil
}
