package keys

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/edekd/edekd/hadoop/uri"
	"github.com/edekd/edekd/keystore/sqlite"
	"github.com/edekd/edekd/upstream/kms"
)

// Options are what the kinds of providers need beside their URI.
type Options struct {
	JCEKS          JCEKSOptions
	IdentityFile   string // seals the deposits of sqlite://
	PassphraseFile string // of IdentityFile, "" for none
	// KMS says how the nodes of kms:// are reached; its Address is not used. A
	// nil *tls.Config trusts the authorities of the system.
	KMS kms.Config
	// Copies lets edekd itself read key material behind kms://; see Far.Copy.
	Copies bool
}

// Open opens the providers of hadoop.kms.key.provider.uri, in their order. Of
// more than one it makes a chain: the first that knows a key answers, and only
// the first is written to.
func Open(ctx context.Context, uris []string, o Options) (Provider, error) {
	var c chain
	for _, u := range uris {
		p, err := open(ctx, u, o)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("key provider %s: %w", u, err), c.Close())
		}
		c = append(c, p)
	}
	switch len(c) {
	case 0:
		return nil, errors.New("no key provider is named")
	case 1:
		return c[0], nil
	}
	return Chain(c...), nil
}

// Chain makes one provider of several that are open. The first that knows a key
// answers for it, and only the first is written to.
func Chain(all ...Provider) Provider { return chain(all) }

func open(ctx context.Context, u string, o Options) (Provider, error) {
	scheme, _, _ := strings.Cut(u, "://")
	switch scheme {
	case "sqlite":
		return openSQLite(ctx, u, o)
	case "jceks":
		return OpenJCEKS(ctx, u, o.JCEKS)
	case "kms":
		return OpenKMS(u, o.KMS, o.Copies)
	}
	return nil, fmt.Errorf("scheme %q is not supported: use sqlite://file@/PATH, jceks://file@/PATH or kms://https@HOST:9600/kms", scheme)
}

func openSQLite(ctx context.Context, u string, o Options) (Provider, error) {
	path, err := uri.LocalPath(u)
	if err != nil {
		return nil, err
	}
	var passphrase []byte
	if o.PassphraseFile != "" {
		if passphrase, err = ReadPassphrase(o.PassphraseFile); err != nil {
			return nil, err
		}
		defer clear(passphrase)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		// An empty store, once made, would be in the way of the right one.
		if _, err := os.Lstat(o.IdentityFile); err == nil {
			return nil, lostStore(o.IdentityFile)
		}
	}
	box, err := sqlite.Open(path)
	if err != nil {
		return nil, err
	}
	id, err := IdentityFor(ctx, box, o.IdentityFile, passphrase)
	if err != nil {
		return nil, errors.Join(err, box.Close())
	}
	p, err := OpenDeposits(ctx, box, u, id)
	if err != nil {
		return nil, errors.Join(err, box.Close())
	}
	return p, nil
}
