package proxy

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/proxy/audit"
	"github.com/edekd/edekd/upstream/queue"
)

// changeTimeout bounds how long a change may wait for the store: the Java
// client gives up after 60 s.
const changeTimeout = 30 * time.Second

// changeContext is what changes run under. It is not the request's own, which
// ends when the server begins to stop: a change under way is finished and
// answered. Who has the key is looked up in the sender's turns.
func (r *request) changeContext() (context.Context, context.CancelFunc) {
	sender := queue.Caller{User: r.id.Caller.User, Real: r.id.Caller.Real}
	return context.WithTimeout(queue.For(context.Background(), sender), changeTimeout)
}

// auditReady refuses a change while it could not be audited.
func (s *Server) auditReady() error {
	if err := s.c.Audit.Ready(); err != nil {
		return &edek.Error{Kind: edek.Unavailable, Op: "audit",
			Text: "refused: the audit log cannot be written, and no change is made unaudited", Err: err}
	}
	return nil
}

// audited writes the audit line of a change that has happened. When that
// fails, the answer is an error that says so: a closed connection would make
// the client repeat the change.
func (s *Server) audited(r *request, op audit.Op, name, extra string) error {
	if err := s.c.Audit.Admin(context.Background(), s.event(r, op, name), extra); err != nil {
		return &edek.Error{Kind: edek.Unavailable, Op: "audit", Key: name,
			Text: op.String() + " has happened, but its audit line could not be written", Err: err}
	}
	return nil
}

// unknownKey gives an error that says that there is no such key the words that
// the Java server has for the row.
func unknownKey(err error, text string) error {
	if edek.KindOf(err) == edek.NotFound {
		return &fault{answer{fasthttp.StatusInternalServerError, classIO}, text}
	}
	return err
}

// jsonObject returns the body of a row that consumes a JSON object.
func (r *request) jsonObject() (object, error) {
	body, err := r.jsonBody()
	if err != nil {
		return nil, err
	}
	return parseObject(body)
}

func (s *Server) create(r *request) error {
	s.meters.admin.Mark()
	o, err := r.jsonObject()
	if err != nil {
		return err
	}
	defer o.zero()
	var name, cipher, description []byte
	if err := o.text("name", &name); err != nil {
		return err
	}
	if name == nil {
		return cannotBeNull("name")
	}
	if len(name) == 0 {
		return cannotBeEmpty("name")
	}
	if bytes.IndexByte(name, 0) >= 0 {
		return illegalArgument("a key name must not hold a NUL: no path could name it")
	}
	if err := s.mayCall(r, name); err != nil {
		return err
	}
	key := edek.NewKey{Name: string(name)}
	if err := o.text("cipher", &cipher); err != nil {
		return err
	}
	if key.BitLength, err = o.integer("length"); err != nil {
		return err
	}
	if key.Material, err = o.material(); err != nil {
		return err
	}
	defer clear(key.Material)
	if err := o.text("description", &description); err != nil {
		return err
	}
	if key.Attributes, err = o.texts("attributes"); err != nil {
		return err
	}
	if key.Material != nil {
		if err := s.mayGiveMaterial(r, name); err != nil {
			return err
		}
	}
	if key.Cipher = string(cipher); cipher == nil {
		key.Cipher = s.c.DefaultCipher
	}
	if key.BitLength == 0 {
		key.BitLength = s.c.DefaultBitLength
	}
	described := "null"
	if description != nil {
		described = string(description)
		key.Description = &described
	}
	if acl, given := key.Attributes[edek.AttributeACLName]; given && acl == "" {
		return illegalArgument("attribute '" + edek.AttributeACLName + "' cannot be empty")
	}
	if err := s.auditReady(); err != nil {
		return err
	}
	if err := s.mayCreate(r, &key); err != nil {
		return err
	}
	shown, err := s.seesMaterial(r)
	if err != nil {
		return err
	}
	ctx, cancel := r.changeContext()
	defer cancel()
	v, err := s.c.Cache.Create(ctx, r.id.Caller, &key)
	if err != nil {
		return err
	}
	defer v.Zero()
	if err := s.audited(r, audit.CreateKey, key.Name,
		fmt.Sprintf("UserProvidedMaterial:%t Description:%s", key.Material != nil, described)); err != nil {
		return err
	}
	r.ctx.Response.Header.Set("Location", scheme(r.ctx)+"://"+string(r.ctx.Request.Header.Host())+restBase+"/key/"+url.PathEscape(key.Name))
	r.ctx.SetStatusCode(fasthttp.StatusCreated)
	return r.replyVersion(v, shown)
}

// material returns the decoded key bytes a caller gave, nil for none. The
// caller owns and clears them.
func (o object) material() (material []byte, err error) {
	if err := o.text("material", &material); err != nil || material == nil {
		return nil, err
	}
	text := material
	material = appendBase64(make([]byte, 0, base64.RawStdEncoding.DecodedLen(len(text))), text)
	clear(text)
	return material, nil
}

func (s *Server) roll(r *request) error {
	s.meters.admin.Mark()
	o, err := r.jsonObject()
	if err != nil {
		return err
	}
	defer o.zero()
	if err := s.mayCall(r, r.name); err != nil {
		return err
	}
	if len(r.name) == 0 {
		return cannotBeEmpty("name")
	}
	material, err := o.material()
	if err != nil {
		return err
	}
	defer clear(material)
	if material != nil {
		if err := s.mayGiveMaterial(r, r.name); err != nil {
			return err
		}
	}
	if err := s.auditReady(); err != nil {
		return err
	}
	name := string(r.name)
	if _, err := s.mayUse(r, name); err != nil {
		text := "Can't find Metadata for key " + name
		if material != nil {
			text = "Key " + name + " not found"
		}
		return unknownKey(err, text)
	}
	shown, err := s.seesMaterial(r)
	if err != nil {
		return err
	}
	ctx, cancel := r.changeContext()
	defer cancel()
	v, err := s.c.Cache.Roll(ctx, r.id.Caller, name, material)
	if err != nil {
		return err
	}
	defer v.Zero()
	if err := s.audited(r, audit.RollNewVersion, name,
		fmt.Sprintf("UserProvidedMaterial:%t NewVersion:%s", material != nil, v.VersionName)); err != nil {
		return err
	}
	return r.replyVersion(v, shown)
}

// replyVersion answers with a version just made. Who may not get key bytes gets
// none.
func (r *request) replyVersion(v *edek.KeyVersion, shown bool) error {
	material := v.Material
	if !shown {
		material = nil
	}
	return r.reply(appendKeyVersion(r.body(), material, v.Name, v.VersionName))
}

func (s *Server) delete(r *request) error {
	s.meters.admin.Mark()
	if err := s.mayCall(r, r.name); err != nil {
		return err
	}
	if len(r.name) == 0 {
		return cannotBeEmpty("name")
	}
	if err := s.auditReady(); err != nil {
		return err
	}
	name := string(r.name)
	if _, err := s.mayUse(r, name); err != nil {
		return unknownKey(err, "Key "+name+" does not exist in "+s.c.Cache.Provider())
	}
	ctx, cancel := r.changeContext()
	defer cancel()
	if err := s.c.Cache.Delete(ctx, r.id.Caller, name); err != nil {
		return err
	}
	if err := s.audited(r, audit.DeleteKey, name, ""); err != nil {
		return err
	}
	return r.replyEmpty()
}

// invalidate forgets what is cached of a key. Java answers 200 for unknown
// keys too (HADOOP-17208).
func (s *Server) invalidate(r *request) error {
	s.meters.admin.Mark()
	if len(r.name) == 0 {
		return cannotBeEmpty("name")
	}
	if err := s.mayCall(r, r.name); err != nil {
		return err
	}
	name := string(r.name)
	if _, err := s.mayUse(r, name); err != nil && edek.KindOf(err) != edek.NotFound {
		return err
	}
	if r.far != nil {
		if err := s.c.Cache.InvalidateFor(context.Background(), r.id.Caller, r.far); err != nil {
			return err
		}
	} else {
		s.c.Cache.Invalidate(name)
	}
	if err := s.audited(r, audit.InvalidateCache, name, ""); err != nil {
		return err
	}
	return r.replyEmpty()
}
