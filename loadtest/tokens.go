package loadtest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edekd/edekd/loadtest/login"
	"github.com/edekd/edekd/loadtest/target"
)

// Tokens are delegation tokens that a server gave to identities.
type Tokens struct {
	Identities []*login.Identity // who come with them

	server  target.Target
	config  *tls.Config
	timeout time.Duration
	given   []given
}

type given struct {
	session *login.Session
	token   string
}

// GetTokens gets a delegation token for each identity, from one server. The caller
// cancels them.
func GetTokens(ctx context.Context, t target.Target, config *tls.Config, timeout time.Duration, identities []*login.Identity) (*Tokens, error) {
	k := &Tokens{server: t, config: config, timeout: timeout, given: make([]given, len(identities)), Identities: make([]*login.Identity, len(identities))}
	err := k.each(ctx, len(identities), func(ctx context.Context, c *client, i int) error {
		s := login.NewSession(identities[i], t.Host, t.Addr)
		name := identities[i].Name
		if as := identities[i].As; as != "" {
			name = as
		}
		a, err := c.do(ctx, s, "GET", []byte("?op=GETDELEGATIONTOKEN"), nil)
		if err != nil {
			return fmt.Errorf("get a delegation token for %s: %w", name, err)
		}
		if a.Status != 200 {
			return refused("get a delegation token for "+name, a)
		}
		var answer struct{ Token struct{ URLString string } }
		if err := json.Unmarshal(a.Body, &answer); err != nil {
			return fmt.Errorf("get a delegation token for %s: %w", name, err)
		}
		if k.Identities[i], err = login.Token(name, answer.Token.URLString); err != nil {
			return err
		}
		k.given[i] = given{s, answer.Token.URLString}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, k.Cancel(context.WithoutCancel(ctx)))
	}
	return k, nil
}

// Cancel makes the tokens worthless.
func (k *Tokens) Cancel(ctx context.Context) error {
	return k.each(ctx, len(k.given), func(ctx context.Context, c *client, i int) error {
		g := k.given[i]
		if g.session == nil {
			return nil
		}
		a, err := c.do(ctx, g.session, "PUT", []byte("?op=CANCELDELEGATIONTOKEN&token="+url.QueryEscape(g.token)), nil)
		if err != nil {
			return fmt.Errorf("cancel a delegation token: %w", err)
		}
		if a.Status != 200 {
			return refused("cancel a delegation token", a)
		}
		return nil
	})
}

// each calls f for the numbers below n over a few connections.
func (k *Tokens) each(ctx context.Context, n int, f func(ctx context.Context, c *client, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for first := range min(preparers, n) {
		group.Go(func() error {
			c := newClient(k.server, k.config, k.timeout, func() {})
			defer c.close()
			stop := context.AfterFunc(ctx, c.abort)
			defer stop()
			for i := first; i < n; i += preparers {
				if err := f(ctx, c, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}
