package keys

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream"
	"github.com/edekd/edekd/upstream/kms"
)

// remote is a far provider of given keys, which may be out of reach or refuse
// edekd itself.
type remote struct {
	*KMS // nil: what is not below is not called
	keys map[string]int
	err  error
	made []string // callers of changes
}

func (r *remote) String() string { return "kms://http@far/kms" }
func (r *remote) Close() error   { return nil }
func (r *remote) Names(context.Context) ([]string, error) {
	return nil, errors.New("asked in edekd's own name")
}
func (r *remote) As(c edek.Caller) Remote { return &remoteAs{asCaller{nil, c}, r} }
func (r *remote) Metadata(_ context.Context, name string) (*edek.Metadata, error) {
	if r.err != nil {
		return nil, r.err
	}
	n, ok := r.keys[name]
	if !ok {
		return nil, &edek.Error{Kind: edek.NotFound, Op: "metadata", Key: name, Text: "no such key"}
	}
	return &edek.Metadata{Name: name, Versions: n}, nil
}

type remoteAs struct {
	asCaller
	r *remote
}

func (a *remoteAs) Names(context.Context) ([]string, error) {
	var names []string
	for name := range a.r.keys {
		names = append(names, name)
	}
	return names, a.r.err
}

func (a *remoteAs) Create(_ context.Context, key *edek.NewKey) (*edek.KeyVersion, error) {
	a.r.made = append(a.r.made, a.caller.User)
	a.r.keys[key.Name] = 1
	return &edek.KeyVersion{Name: key.Name, VersionName: key.Name + "@0"}, nil
}

func (a *remoteAs) Delete(_ context.Context, name string) error {
	a.r.made = append(a.r.made, a.caller.User)
	delete(a.r.keys, name)
	return nil
}

// In a chain the caller's name goes where it counts, the holder is found in
// edekd's own, and who cannot be asked ends the search.
func TestChainsOfNearAndFar(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	near, err := Open(ctx, []string{"sqlite://file@" + filepath.Join(dir, "keys.db")}, Options{IdentityFile: filepath.Join(dir, "identity.pgp")})
	if err != nil {
		t.Fatal(err)
	}
	far := &remote{keys: map[string]int{"there": 2}}
	alice := edek.Caller{User: "alice"}

	first := Chain(far, near)
	defer near.Close()
	if _, err := As(first, alice).Create(ctx, &edek.NewKey{Name: "new", Cipher: "AES/CTR/NoPadding", BitLength: 128}); err != nil || far.made[0] != "alice" {
		t.Errorf("%v, made by %q", err, far.made)
	}
	if p, m, err := Holder(ctx, first, "there"); p != Provider(far) || err != nil || m.Versions != 2 {
		t.Errorf("%v %v %v", p, m, err)
	}
	if names, err := As(first, alice).Names(ctx); err != nil || len(names) != 2 {
		t.Errorf("%q %v", names, err)
	}
	if err := As(first, alice).Delete(ctx, "new"); err != nil || len(far.made) != 2 {
		t.Errorf("%v, made by %q", err, far.made)
	}

	second := Chain(near, far)
	if _, err := As(second, alice).Create(ctx, &edek.NewKey{Name: "here", Cipher: "AES/CTR/NoPadding", BitLength: 128}); err != nil || len(far.made) != 2 {
		t.Errorf("%v, made by %q", err, far.made)
	}
	if err := As(second, alice).Delete(ctx, "there"); edek.KindOf(err) != edek.Unavailable || far.keys["there"] != 2 {
		t.Errorf("a key beyond the first: %v", err)
	}
	far.err = &edek.Error{Kind: edek.Unavailable, Op: "metadata", Text: "no node"}
	for _, c := range []Provider{first, second} {
		if _, _, err := Holder(ctx, c, "unknown"); edek.KindOf(err) != edek.Unavailable {
			t.Errorf("not known here, and there nobody knows: %v", err)
		}
		if _, err := As(c, alice).Create(ctx, &edek.NewKey{Name: "there"}); edek.KindOf(err) != edek.Unavailable {
			t.Errorf("created beside one that may exist: %v", err)
		}
	}
	if _, _, err := Holder(ctx, first, "here"); edek.KindOf(err) != edek.Unavailable {
		t.Errorf("a near key stands in for one of a KMS that is away: %v", err)
	}
	if p, _, err := Holder(ctx, second, "here"); err != nil || p != near {
		t.Errorf("a near key before it: %v", err)
	}
}

// A KMS that is away keeps nobody from starting, is no unknown key, and never
// gives key material in edekd's own name.
func TestOpenKMS(t *testing.T) {
	p, err := Open(t.Context(), []string{"kms://http@127.0.0.1:1/kms"}, Options{KMS: kms.Config{Service: "edekd", Attempt: 2 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Metadata(t.Context(), "k"); edek.KindOf(err) != edek.Unavailable {
		t.Errorf("metadata: %v", err)
	}
	if _, err := p.Version(t.Context(), "k@0"); edek.KindOf(err) != edek.Unavailable {
		t.Errorf("version: %v", err)
	}
	if _, err := p.Versions(t.Context(), "k"); edek.KindOf(err) != edek.Unavailable {
		t.Errorf("versions: %v", err)
	}
	far, near := FarOnes(p)
	if len(far) != 1 || near || far[0].State() > upstream.CacheOnly || p.String() != "kms://http@127.0.0.1:1/kms" {
		t.Errorf("%v %v %v", far, near, p)
	}
	if _, err := Open(t.Context(), []string{"kms://gopher@h/kms"}, Options{}); err == nil {
		t.Error("a URI without a scheme of HTTP was opened")
	}
}

// What another KMS refuses edekd is not told a caller as if it was about him.
func TestOwnRefusals(t *testing.T) {
	err := own("metadata", "k", &edek.Foreign{Status: 403, Class: "org.apache.hadoop.security.authorize.AuthorizationException", Text: "User:edekd not allowed"})
	if _, foreign := errors.AsType[*edek.Foreign](err); foreign || edek.KindOf(err) != edek.Unavailable {
		t.Error(err)
	}
}
