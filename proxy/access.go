package proxy

import (
	"context"
	"errors"
	"slices"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/cache"
	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/proxy/audit"
	"github.com/edekd/edekd/proxy/authz"
)

// rowOps are the operations that rows are in rules and audit log. Rows without
// one have no rules: whoever is authenticated may ask for them.
var rowOps = [rows]audit.Op{
	rowCreate:         audit.CreateKey,
	rowDelete:         audit.DeleteKey,
	rowRoll:           audit.RollNewVersion,
	rowInvalidate:     audit.InvalidateCache,
	rowKeysMetadata:   audit.GetKeysMetadata,
	rowNames:          audit.GetKeys,
	rowMetadata:       audit.GetMetadata,
	rowCurrentVersion: audit.GetCurrentKey,
	rowKeyVersion:     audit.GetKeyVersion,
	rowVersions:       audit.GetKeyVersions,
	rowGenerate:       audit.GenerateEEK,
	rowDecrypt:        audit.DecryptEEK,
	rowReencrypt:      audit.ReencryptEEK,
	rowReencryptBatch: audit.ReencryptEEKBatch,
	rowDecryptBatch:   audit.DecryptEEKBatch,
}

// rowCalls are the rules of rows, of those that have some.
var rowCalls = func() (calls [rows]*authz.Call) {
	all := slices.Concat(authz.Calls, authz.Additions)
	for row, op := range rowOps {
		for i := range all {
			if op != 0 && all[i].Op == op {
				calls[row] = &all[i]
			}
		}
	}
	return calls
}()

// rightOps are the rights of the key layer as the audit log has them.
var rightOps = [...]audit.Op{
	authz.KeyManagement:  audit.KeyManagement,
	authz.KeyGenerateEEK: audit.KeyGenerateEEK,
	authz.KeyDecryptEEK:  audit.KeyDecryptEEK,
	authz.KeyRead:        audit.KeyRead,
}

// mayCall asks the KMS layer whether the sender may call the row at all: any
// one of its types will do. key is what a denial names, nil for nothing.
func (s *Server) mayCall(r *request, key []byte) (err error) {
	for _, t := range rowCalls[r.row].Types {
		if err = s.c.Authz.KMS(t, &r.id.Caller); err == nil {
			return nil
		}
	}
	return s.operationDenied(r, key, err)
}

// mayGiveMaterial asks the KMS layer whether the sender may choose key bytes.
func (s *Server) mayGiveMaterial(r *request, key []byte) error {
	if err := s.c.Authz.KMS(authz.SetKeyMaterial, &r.id.Caller); err != nil {
		return s.operationDenied(r, key, err)
	}
	return nil
}

// seesMaterial asks the KMS layer whether the answer to the sender's change may
// show the key bytes. It is asked before the change: a look-up that fails must
// not turn what has happened into an error.
func (s *Server) seesMaterial(r *request) (bool, error) {
	err := s.c.Authz.KMS(authz.Get, &r.id.Caller)
	if errors.Is(err, authz.ErrDenied) {
		return false, nil
	}
	return err == nil, err
}

// operationDenied turns the KMS layer's no into the answer, and writes it down.
// An err that is no denial stays as it is.
func (s *Server) operationDenied(r *request, key []byte, err error) error {
	if !errors.Is(err, authz.ErrDenied) {
		return err
	}
	op := rowOps[r.row]
	s.meters.unauthorized.Mark()
	if err := s.c.Audit.Unauthorized(s.event(r, op, view(key))); err != nil {
		return unaudited(err)
	}
	return authz.OperationDenied(r.id.Caller.User, op.String(), key)
}

// mayUse asks the key layer whether the sender may do to the key what the row
// does, and returns the key's metadata and, in r.far, whether it is a far one. A key that does not exist has no rules:
// the error is then of the kind edek.NotFound, and the row must do without the
// key, even if it has come to be meanwhile.
func (s *Server) mayUse(r *request, name string) (*edek.Metadata, error) {
	m, far, err := s.c.Cache.MetadataFor(context.Background(), &r.id.Caller, name)
	r.far = far
	if err != nil {
		return m, err
	}
	if err := s.mayUseRuled(r, m.ACLName()); err != nil {
		return nil, err
	}
	return m, nil
}

// mayUseRuled is mayUse for a key whose ACL name is known.
func (s *Server) mayUseRuled(r *request, aclName string) error {
	if !s.c.KeyAuthorization {
		return nil
	}
	right := rowCalls[r.row].Right
	err := s.c.Authz.Key(right, aclName, &r.id.Caller)
	if errors.Is(err, authz.ErrDenied) {
		if err := s.auditKeyDenied(r, right, aclName); err != nil {
			return err
		}
		return authz.KeyDenied(r.id.Caller.User, right, aclName)
	}
	return err
}

// usableCurrent is mayUse and the key's current version, unless it is a far key.
func (s *Server) usableCurrent(r *request, name string) (current *edek.ZoneKey, err error) {
	if s.c.Cache.HasFar() {
		err = s.c.Cache.Whole(name, func() (err error) {
			if _, err = s.mayUse(r, name); err == nil && r.far == nil {
				current, err = s.c.Cache.Current(context.Background(), name)
			}
			return err
		})
		return current, err
	}
	zone, err := s.c.Cache.CurrentRuled(context.Background(), name)
	if err != nil {
		// Who may not use the key is told that, whatever else is wrong with it.
		if _, refused := s.mayUse(r, name); refused != nil {
			err = refused
		}
		return nil, err
	}
	return zone.ZoneKey, s.mayUseRuled(r, zone.ACLName)
}

// mayUseFetched is mayUse for a version that is at hand, by the rules that came with
// it where they did: so they are not those of another key that had its name before.
func (s *Server) mayUseFetched(r *request, zone cache.Ruled) error {
	if !s.c.Cache.HasFar() {
		return s.mayUseRuled(r, zone.ACLName)
	}
	_, err := s.mayUse(r, zone.Name())
	return err
}

// mayCreate asks the key layer about a new key and gives the key the attribute
// that names its rules.
func (s *Server) mayCreate(r *request, key *edek.NewKey) error {
	if !s.c.KeyAuthorization {
		return nil
	}
	aclName, err := s.c.Authz.CreateKey(key.Name, key.Attributes[edek.AttributeACLName], &r.id.Caller)
	if err != nil {
		if errors.Is(err, authz.ErrDenied) {
			if err := s.auditKeyDenied(r, authz.KeyManagement, aclName); err != nil {
				return err
			}
			err = authz.CreateDenied(r.id.Caller.User)
		}
		return err
	}
	if key.Attributes == nil {
		key.Attributes = map[string]string{}
	}
	key.Attributes[edek.AttributeACLName] = aclName
	return nil
}

// auditKeyDenied writes a denial of the key layer down as Java does: one line
// for the right, one for the key's ALL that did not help either.
func (s *Server) auditKeyDenied(r *request, right authz.Right, aclName string) error {
	for _, op := range []audit.Op{rightOps[right], audit.KeyAll} {
		e := s.event(r, op, aclName)
		if r.row == rowGenerate {
			e.Status = fasthttp.StatusInternalServerError // generateFault
		}
		if err := s.c.Audit.Unauthorized(e); err != nil {
			return unaudited(err)
		}
	}
	return nil
}
