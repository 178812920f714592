package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/hadoop/jceks"
	"github.com/edekd/edekd/hadoop/uri"
)

// JCEKSPasswordEnv is the environment variable from which Hadoop takes a
// keystore's password before it looks anywhere else.
const JCEKSPasswordEnv = "HADOOP_KEYSTORE_PASSWORD"

// maxPasswordFile bounds what is read of a password file, in bytes.
const maxPasswordFile = 64 << 10

// JCEKSOptions says where the password of a keystore is. When neither the
// environment nor an option has one, it is "none", as in Hadoop.
type JCEKSOptions struct {
	// PasswordFile is the property
	// hadoop.security.keystore.java-keystore-provider.password-file, "" for
	// none. White space around the password is ignored.
	PasswordFile string
	// ConfigDir is where a relative PasswordFile is looked up; Hadoop takes
	// it from the class path, which begins there.
	ConfigDir string
}

func (o *JCEKSOptions) password() (*jceks.Password, error) {
	text := []byte("none")
	if env, ok := os.LookupEnv(JCEKSPasswordEnv); ok {
		text = []byte(env)
	} else if o.PasswordFile != "" {
		path := o.PasswordFile
		if !filepath.IsAbs(path) {
			path = filepath.Join(o.ConfigDir, path)
		}
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("keystore password: %w: check hadoop.security.keystore.java-keystore-provider.password-file, and that edekd may read that file", err)
		}
		defer file.Close()
		content, err := io.ReadAll(io.LimitReader(file, maxPasswordFile+1))
		defer clear(content)
		if err != nil {
			return nil, fmt.Errorf("keystore password: %w", err)
		}
		if len(content) > maxPasswordFile {
			return nil, fmt.Errorf("keystore password: %s has more than %d bytes: is it the right file?", path, maxPasswordFile)
		}
		text = bytes.TrimFunc(content, func(c rune) bool { return c <= ' ' })
	}
	defer clear(text)
	return jceks.NewPassword(text)
}

// jceksProvider keeps keys in a Java keystore file, the way of Hadoop's
// JavaKeyStoreProvider: per key one entry with its metadata under the key's
// name, and one with the material of each version under name@n. All entries
// stay sealed in memory and are unsealed when asked for, which takes tens of
// milliseconds each; metadata is remembered.
//
// Every change rewrites the whole file. Readers go on with the view they
// loaded and never wait. Java folds aliases to lower case when it looks them
// up; here they are compared as they are.
type jceksProvider struct {
	uri      string
	password *jceks.Password
	view     atomic.Pointer[jceksView]
	writing  chan struct{} // holds one token while a change is under way; guards file
	file     *jceksFile
}

// jceksView is what the file holds at one moment. It is not changed.
type jceksView struct {
	entries []*jceksEntry // in file order
	byAlias map[string]*jceksEntry
}

type jceksEntry struct {
	*jceks.Entry
	metadata atomic.Pointer[edek.Metadata] // once unsealed
}

func newJCEKSView(entries []*jceksEntry) *jceksView {
	v := &jceksView{entries: entries, byAlias: make(map[string]*jceksEntry, len(entries))}
	for _, e := range entries {
		v.byAlias[e.Alias()] = e
	}
	return v
}

// OpenJCEKS opens the keystore file that a URI like jceks://file@/path names.
// A file that does not exist is an empty keystore and is created by the first
// change. It fails with ErrInUse when another process of ours has the file,
// with jceks.ErrPassword when the password does not fit, and with
// jceks.ErrFormat when the file is something else or damaged; such a file is
// left as it is, unless a change that a crash cut short left a good one beside
// it, in which case it is renamed.
func OpenJCEKS(ctx context.Context, providerURI string, opts JCEKSOptions) (Provider, error) {
	path, err := uri.LocalPath(providerURI)
	if err != nil {
		return nil, err
	}
	password, err := opts.password()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSymlink != 0 {
		return nil, fmt.Errorf("%s is a symbolic link, which the first change would replace by a file: "+
			"put the path that it leads to (readlink -f) into hadoop.kms.key.provider.uri", path)
	}
	file, err := lockJCEKSFile(path)
	if err != nil {
		return nil, err
	}
	stored, err := file.load(password)
	switch {
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w: chown the file to the user that runs edekd", err)
	case errors.Is(err, jceks.ErrFormat):
		err = fmt.Errorf("%w: nothing was changed; correct the path, or move the file away and restore a backup", err)
	case errors.Is(err, jceks.ErrPassword):
		err = fmt.Errorf("%w: set %s, or hadoop.security.keystore.java-keystore-provider.password-file, to the password it was made with; if it is that, restore the file from a backup", err, JCEKSPasswordEnv)
	}
	if err != nil {
		return nil, errors.Join(err, file.close())
	}
	entries := make([]*jceksEntry, len(stored))
	for i, e := range stored {
		entries[i] = &jceksEntry{Entry: e}
	}
	p := &jceksProvider{uri: providerURI, password: password, file: file, writing: make(chan struct{}, 1)}
	p.view.Store(newJCEKSView(entries))
	return p, nil
}

func (p *jceksProvider) String() string { return p.uri }

// Warnings implements Warner.
func (p *jceksProvider) Warnings() []string { return p.file.warnings() }

// Close waits for a change under way: the lock must not be free for another
// process while this one still writes.
func (p *jceksProvider) Close() error {
	p.writing <- struct{}{}
	defer p.end()
	return p.file.close()
}

// Names lists the secret keys without '@' in their names: as in Hadoop, a key
// with one exists but is not listed, for it looks like a version.
func (p *jceksProvider) Names(context.Context) ([]string, error) {
	var names []string
	for _, e := range p.view.Load().entries {
		if e.Kind() == jceks.SecretKey && !strings.Contains(e.Alias(), "@") {
			names = append(names, e.Alias())
		}
	}
	return names, nil
}

func (p *jceksProvider) Metadata(ctx context.Context, name string) (*edek.Metadata, error) {
	m, err := p.metadata(ctx, "get metadata", p.view.Load(), name)
	if err == nil && m == nil {
		err = &edek.Error{Kind: edek.NotFound, Op: "get metadata", Key: name, Text: "Key " + name + " not found"}
	}
	return m, err
}

// metadata returns nil when there is no such key.
func (p *jceksProvider) metadata(ctx context.Context, op string, v *jceksView, name string) (*edek.Metadata, error) {
	e := v.byAlias[name]
	if e == nil {
		return nil, nil
	}
	if m := e.metadata.Load(); m != nil {
		return m, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	stored, err := e.KeyMetadata(p.password)
	if errors.Is(err, jceks.ErrType) {
		return nil, &edek.Error{Kind: edek.Corrupt, Op: op, Key: name, Err: err,
			Text: "Can't cast key for " + name + " in keystore file:" + p.file.path +
				" to a KeyMetadata. Key may have been added using  keytool or some other non-Hadoop method."}
	}
	if err != nil {
		return nil, &edek.Error{Kind: edek.Corrupt, Op: op, Key: name, Err: err,
			Text: "Can't recover key for " + name + " from keystore " + p.file.path}
	}
	m := &edek.Metadata{
		Name:        name,
		Cipher:      stored.Cipher,
		BitLength:   stored.BitLength,
		Description: stored.Description,
		Attributes:  stored.Attributes,
		Created:     stored.Created,
		Versions:    stored.Versions,
	}
	e.metadata.Store(m)
	return m, nil
}

func (p *jceksProvider) Version(ctx context.Context, versionName string) (*edek.KeyVersion, error) {
	return p.version(ctx, p.view.Load(), versionName)
}

// Versions does not end with the context once it has begun to unseal: of a
// key with many versions, no question would ever be answered.
func (p *jceksProvider) Versions(ctx context.Context, name string) ([]*edek.KeyVersion, error) {
	const op = "get versions"
	v := p.view.Load()
	m, err := p.metadata(ctx, op, v, name)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, &edek.Error{Kind: edek.NotFound, Op: op, Key: name, Text: "Key " + name + " not found"}
	}
	var versions []*edek.KeyVersion
	for n := range m.Versions {
		version, err := p.version(context.WithoutCancel(ctx), v, edek.VersionName(name, n))
		if err != nil {
			for _, done := range versions {
				done.Zero()
			}
			return nil, err
		}
		versions = append(versions, version)
	}
	return versions, nil
}

func (p *jceksProvider) version(ctx context.Context, v *jceksView, versionName string) (*edek.KeyVersion, error) {
	notFound := &edek.Error{Kind: edek.NotFound, Op: "get version", Key: versionName, Text: "'" + versionName + "' not found"}
	name, _, ok := edek.SplitVersion(versionName)
	e := v.byAlias[versionName]
	if !ok || e == nil {
		return nil, notFound
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	_, material, err := e.SecretKey(p.password)
	if errors.Is(err, jceks.ErrType) { // the metadata of a key called name@n
		return nil, notFound
	}
	if err != nil {
		return nil, &edek.Error{Kind: edek.Corrupt, Op: "get version", Key: versionName, Err: err,
			Text: "Can't recover key " + versionName + " from " + p.file.path}
	}
	return &edek.KeyVersion{Name: name, VersionName: versionName, Material: material}, nil
}

// begin waits for the turn to change the file; end gives it on.
func (p *jceksProvider) begin(ctx context.Context, op, name string) error {
	select {
	case p.writing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &edek.Error{Kind: edek.Unavailable, Op: op, Key: name, Text: "other changes of the keystore are under way", Err: ctx.Err()}
	}
}

func (p *jceksProvider) end() { <-p.writing }

func (p *jceksProvider) Create(ctx context.Context, key *edek.NewKey) (*edek.KeyVersion, error) {
	const op = "create"
	version := &edek.KeyVersion{Name: key.Name, VersionName: edek.VersionName(key.Name, 0), Material: append([]byte(nil), key.Material...)}
	if key.Material == nil {
		var err error
		version.Material, err = edek.GenerateMaterial(op, key.Name, key.Cipher, key.BitLength)
		if err != nil {
			return nil, err
		}
	}
	err := p.create(ctx, op, key, version)
	if err != nil {
		version.Zero()
		return nil, err
	}
	return version, nil
}

func (p *jceksProvider) create(ctx context.Context, op string, key *edek.NewKey, version *edek.KeyVersion) error {
	if !utf8.ValidString(key.Name) {
		return &edek.Error{Kind: edek.Invalid, Op: op, Key: key.Name, Text: "Key names must be valid UTF-8"}
	}
	if strings.ToLower(key.Name) != key.Name {
		return &edek.Error{Kind: edek.Invalid, Op: op, Key: key.Name, Text: "Uppercase key names are unsupported: " + key.Name}
	}
	if err := p.begin(ctx, op, key.Name); err != nil {
		return err
	}
	defer p.end()
	v := p.view.Load()
	if v.byAlias[key.Name] != nil {
		return &edek.Error{Kind: edek.Exists, Op: op, Key: key.Name, Text: "Key " + key.Name + " already exists in " + p.uri}
	}
	if err := edek.CheckMaterial(op, key.Name, version.Material, key.BitLength); err != nil {
		return err
	}
	return p.store(op, v, version, &edek.Metadata{
		Name:        key.Name,
		Cipher:      key.Cipher,
		BitLength:   key.BitLength,
		Description: key.Description,
		Attributes:  maps.Clone(key.Attributes),
		Created:     time.Now().UnixMilli(),
		Versions:    1,
	})
}

func (p *jceksProvider) Roll(ctx context.Context, name string, material []byte) (*edek.KeyVersion, error) {
	const op = "roll"
	if err := p.begin(ctx, op, name); err != nil {
		return nil, err
	}
	defer p.end()
	v := p.view.Load()
	old, err := p.metadata(ctx, op, v, name)
	if err != nil {
		return nil, err
	}
	if old == nil {
		text := "Can't find Metadata for key " + name
		if material != nil {
			text = "Key " + name + " not found"
		}
		return nil, &edek.Error{Kind: edek.NotFound, Op: op, Key: name, Text: text}
	}
	version := &edek.KeyVersion{Name: name, VersionName: edek.VersionName(name, old.Versions), Material: append([]byte(nil), material...)}
	if material == nil {
		version.Material, err = edek.GenerateMaterial(op, name, old.Cipher, old.BitLength)
	} else {
		err = edek.CheckMaterial(op, name, material, old.BitLength)
	}
	if err == nil {
		m := *old
		m.Versions++
		err = p.store(op, v, version, &m)
	}
	if err != nil {
		version.Zero()
		return nil, err
	}
	return version, nil
}

// store adds a new version and puts the key's metadata in place of what there
// may be.
func (p *jceksProvider) store(op string, v *jceksView, version *edek.KeyVersion, m *edek.Metadata) error {
	if v.byAlias[version.VersionName] != nil {
		return &edek.Error{Kind: edek.Conflict, Op: op, Key: m.Name,
			Text: "Key version " + version.VersionName + " already exists in " + p.uri + " and belongs to no key, or to another one"}
	}
	if len(version.Material) == 0 {
		return &edek.Error{Kind: edek.Invalid, Op: op, Key: m.Name, Text: "Empty key"}
	}
	now := time.Now()
	secret, err := jceks.NewSecretKey(version.VersionName, m.Cipher, version.Material, now, p.password)
	if err != nil {
		return &edek.Error{Kind: edek.Invalid, Op: op, Key: m.Name, Text: "Can't store key " + version.VersionName + " in " + p.uri, Err: err}
	}
	described, err := jceks.NewKeyMetadata(m.Name, &jceks.KeyMetadata{
		Cipher:      m.Cipher,
		BitLength:   m.BitLength,
		Created:     m.Created,
		Description: m.Description,
		Attributes:  m.Attributes,
		Versions:    m.Versions,
	}, now, p.password)
	if err != nil {
		return &edek.Error{Kind: edek.Invalid, Op: op, Key: m.Name, Text: "Can't set metadata key " + m.Name, Err: err}
	}
	e := &jceksEntry{Entry: described}
	e.metadata.Store(m)
	entries := make([]*jceksEntry, 0, len(v.entries)+2)
	for _, old := range v.entries {
		if old.Alias() != m.Name {
			entries = append(entries, old)
		}
	}
	return p.save(op, m.Name, append(entries, e, &jceksEntry{Entry: secret}))
}

func (p *jceksProvider) Delete(ctx context.Context, name string) error {
	const op = "delete"
	if err := p.begin(ctx, op, name); err != nil {
		return err
	}
	defer p.end()
	v := p.view.Load()
	m, err := p.metadata(ctx, op, v, name)
	if err != nil {
		return err
	}
	if m == nil {
		return &edek.Error{Kind: edek.NotFound, Op: op, Key: name, Text: "Key " + name + " does not exist in " + p.uri}
	}
	var entries []*jceksEntry
	for _, e := range v.entries {
		base, n, ok := edek.SplitVersion(e.Alias())
		if e.Alias() != name && !(ok && base == name && n < m.Versions) {
			entries = append(entries, e)
		}
	}
	return p.save(op, name, entries)
}

// save writes the file and then shows the new view. After a failure the view
// is still what the file holds.
func (p *jceksProvider) save(op, name string, entries []*jceksEntry) error {
	stored := make([]*jceks.Entry, len(entries))
	for i, e := range entries {
		stored[i] = e.Entry
	}
	content := jceks.Append(nil, stored, p.password)
	if len(content) > jceks.MaxFileSize {
		return &edek.Error{Kind: edek.Unavailable, Op: op, Key: name, Text: fmt.Sprintf("%s would grow beyond %d bytes", p.file.path, jceks.MaxFileSize)}
	}
	committed, err := p.file.replace(content)
	if committed {
		p.view.Store(newJCEKSView(entries))
	}
	if errors.Is(err, errChanged) {
		return &edek.Error{Kind: edek.Conflict, Op: op, Key: name, Err: err,
			Text: p.file.path + " is no longer the file that was read, nothing was saved: stop the other program that writes it, then restart this one so that it reads the file again"}
	}
	if err != nil {
		e := &edek.Error{Kind: edek.Unavailable, Op: op, Key: name, Text: "Can't store keystore " + p.uri, Err: err}
		if !committed && (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)) {
			e.Text += ": its disk is full, nothing was changed"
		}
		return e
	}
	return nil
}
