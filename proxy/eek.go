package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/cache"
	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/proxy/audit"
	"github.com/edekd/edekd/proxy/authz"
)

const (
	eekGenerate  = "generate"
	eekDecrypt   = "decrypt"
	eekReencrypt = "reencrypt"
)

// generatedAtOnce is how many EDEKs are drawn at a time: random numbers cost less
// by the kilobyte.
const generatedAtOnce = 64

func wrongEEKOp() error {
	return illegalArgument("IllegalArgumentException Wrong eek_op value, it must be generate or decrypt")
}

// eekArgs are the parameters of the rows on EDEKs; nil: not given.
type eekArgs struct{ op, numKeys []byte }

// readEEKArgs finds them in the query. fasthttp, which parses the whole URL for
// it, is asked only where something is encoded.
func readEEKArgs(ctx *fasthttp.RequestCtx) (a eekArgs) {
	_, query := splitTarget(ctx.Request.Header.RequestURI())
	if bytes.IndexByte(query, '%') >= 0 || bytes.IndexByte(query, '+') >= 0 {
		args := ctx.QueryArgs()
		if args.Has("eek_op") {
			a.op = nonNil(args.Peek("eek_op"))
		}
		if args.Has("num_keys") {
			a.numKeys = nonNil(args.Peek("num_keys"))
		}
		return a
	}
	for len(query) > 0 {
		var field []byte
		field, query, _ = bytes.Cut(query, []byte("&"))
		name, value, _ := bytes.Cut(field, []byte("="))
		switch {
		case a.op == nil && string(name) == "eek_op":
			a.op = nonNil(value)
		case a.numKeys == nil && string(name) == "num_keys":
			a.numKeys = nonNil(value)
		}
	}
	return a
}

// generate hands out new EDEKs of a key's current version. They are made in
// line: that costs less than taking them from a queue, and none can be stale.
func (s *Server) generate(r *request) error {
	args := readEEKArgs(r.ctx)
	n := 1
	if len(args.numKeys) > 0 {
		var err error
		if n, err = parseInt32(args.numKeys); err != nil {
			return &fault{answer{fasthttp.StatusInternalServerError, classQueryParam},
				fmt.Sprintf("java.lang.NumberFormatException: For input string: \"%s\"", args.numKeys)}
		}
	}
	if len(r.name) == 0 {
		return cannotBeEmpty("name")
	}
	if args.op == nil {
		return cannotBeNull("eekOp")
	}
	if string(args.op) != eekGenerate {
		return wrongEEKOp()
	}
	if n > s.c.Limits.NumKeys {
		return illegalArgument(fmt.Sprintf("num_keys may be at most %d (edekd.limits.num-keys)", s.c.Limits.NumKeys))
	}
	if err := s.mayCall(r, r.name); err != nil {
		return err
	}
	if n <= 0 {
		return s.generated(r, append(r.body(), emptyArray...))
	}
	zone, err := s.usableCurrent(r, view(r.name))
	if err != nil {
		return generateFault(err, r.name)
	}
	if r.far != nil {
		return s.generateFar(r, n)
	}
	var list edekList
	out, name, version := r.body(), zone.Name(), zone.VersionName()
	size := edek.IVSize + zone.DEKSize()
	for list.n < n {
		if r.edeks, err = zone.AppendGenerate(r.edeks[:0], min(n-list.n, generatedAtOnce)); err != nil {
			return generateFault(err, r.name)
		}
		for e := r.edeks; len(e) > 0; e = e[size:] {
			out = list.append(out, version, e[:edek.IVSize], e[edek.IVSize:size], &name)
		}
		if err := s.roomFor(out); err != nil {
			return err
		}
		if list.n < n { // room for all the others at once, unless they are too many anyway
			out = slices.Grow(out, min(len(out)/list.n*(n-list.n)+len(out), 2*s.c.Limits.BatchBody))
		}
	}
	return s.generated(r, list.end(out))
}

// generated answers with EDEKs.
func (s *Server) generated(r *request, body []byte) error {
	s.c.Audit.Count(s.event(r, audit.GenerateEEK, view(r.name)))
	s.meters.generate.Mark()
	return r.reply(body)
}

// generateFault gives an error the wrapping that the Java server's queue gives
// everything: an IOException. For an unknown key the words are Java's too,
// since they are what people search for. So a denial of the key layer is a 500
// here, which makes clients ask each server of theirs once.
func generateFault(err error, name []byte) error {
	if errors.Is(err, authz.ErrDenied) {
		return &fault{answer{fasthttp.StatusInternalServerError, classIO}, string(classAuthorization) + ": " + err.Error()}
	}
	switch edek.KindOf(err) {
	case edek.BadCipherInput:
		_, text := describe(err)
		return &fault{answer{fasthttp.StatusInternalServerError, classIO},
			"java.io.IOException: java.util.concurrent.ExecutionException: java.io.IOException: " + text}
	case edek.NotFound:
		return &fault{answer{fasthttp.StatusInternalServerError, classIO},
			"org.apache.hadoop.thirdparty.com.google.common.util.concurrent.UncheckedExecutionException: " +
				"java.lang.NullPointerException: No KeyVersion exists for key '" + string(name) + "' "}
	}
	return err
}

// parseInt32 reads a number as Java's Integer.parseInt does.
func parseInt32(text []byte) (int, error) {
	n, err := strconv.ParseInt(view(text), 10, 32)
	return int(n), err
}

// decryptOrReencrypt does both operations of a key version's _eek.
func (s *Server) decryptOrReencrypt(r *request) error {
	op := readEEKArgs(r.ctx).op
	if string(op) == eekReencrypt {
		r.row = rowReencrypt
	}
	body, err := r.jsonBody()
	if err != nil {
		return err
	}
	d, err := parseDecryptBody(body)
	if err != nil {
		return err
	}
	switch {
	case len(r.name) == 0:
		return cannotBeEmpty("versionName")
	case op == nil:
		return cannotBeNull("eekOp")
	case d.iv == nil:
		return cannotBeNull("iv")
	case d.material == nil:
		return cannotBeNull("material")
	case string(op) != eekDecrypt && string(op) != eekReencrypt:
		return wrongEEKOp()
	}
	if r.row == rowReencrypt {
		return s.reencrypt(r, d)
	}
	return s.decrypt(r, d)
}

// zoneKey finds the key version an EDEK names and makes sure it belongs to key
// name: otherwise one could reach a key under another's access rules.
func (s *Server) zoneKey(versionName, name []byte) (cache.Ruled, error) {
	zone, err := s.c.Cache.VersionRuled(context.Background(), view(versionName))
	if edek.KindOf(err) == edek.NotFound {
		return cache.Ruled{}, s.noSuchVersion(versionName)
	}
	if err != nil {
		return cache.Ruled{}, err
	}
	if name != nil && zone.Name() == string(name) {
		return zone, nil
	}
	return cache.Ruled{}, otherKeysVersion(zone.VersionName(), name)
}

func otherKeysVersion(versionName string, name []byte) error {
	if name == nil {
		name = []byte("null")
	}
	return illegalArgument("KeyVersion '" + versionName + "' does not belong to the key '" + string(name) + "'")
}

func (s *Server) noSuchVersion(versionName []byte) error {
	if !s.c.KeyAuthorization {
		return &fault{answer{fasthttp.StatusInternalServerError, classNullPointer},
			"KeyVersion name '" + string(versionName) + "' does not exist"}
	}
	return illegalArgument("'" + string(versionName) + "' not found")
}

// usableZoneKey asks both layers about the version in the request's path and
// key name in its body, and returns the version.
func (s *Server) usableZoneKey(r *request, name []byte) (*edek.ZoneKey, error) {
	if err := s.mayCall(r, name); err != nil {
		return nil, err
	}
	zone, err := s.zoneKey(r.name, name)
	if err != nil {
		return nil, err
	}
	if err = s.mayUseFetched(r, zone); edek.KindOf(err) == edek.NotFound {
		return nil, s.noSuchVersion(r.name)
	}
	return zone.ZoneKey, err
}

func (s *Server) decrypt(r *request, d decryptBody) error {
	s.meters.decrypt.Mark()
	if far, err := s.farVersion(r, d.name); err != nil {
		return err
	} else if far != nil {
		return s.decryptFar(r, d)
	}
	zone, err := s.usableZoneKey(r, d.name)
	if err != nil {
		return err
	}
	r.keys, err = zone.AppendDEK(r.keys[:0], d.iv, d.material)
	if err != nil {
		return err
	}
	s.c.Audit.Count(s.event(r, audit.DecryptEEK, view(d.name)))
	return r.reply(appendKeyVersion(r.body(), nonNil(r.keys), zone.Name(), edek.EK))
}

// nonNil keeps zero bytes of material apart from no material.
func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func (s *Server) reencrypt(r *request, d decryptBody) error {
	s.meters.reencrypt.Mark()
	if far, err := s.farVersion(r, d.name); err != nil {
		return err
	} else if far != nil {
		return s.reencryptFar(r, d)
	}
	zone, err := s.usableZoneKey(r, d.name)
	if err != nil {
		return err
	}
	current, err := s.c.Cache.Current(context.Background(), zone.Name())
	if err != nil {
		return err
	}
	r.keys, err = zone.AppendReencrypted(r.keys[:0], current, d.iv, d.material)
	if err != nil {
		return err
	}
	s.c.Audit.Count(s.event(r, audit.ReencryptEEK, view(d.name)))
	name := zone.Name()
	return r.reply(appendEncryptedKey(r.body(), current.VersionName(), d.iv, nonNil(r.keys), &name))
}
