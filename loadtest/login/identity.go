// Package login is who a load says it is: names that are believed, Kerberos
// principals, delegation tokens; and the handshake by which Hadoop's client turns
// the first two into a cookie.
package login

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"

	"github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/credentials"
	"github.com/jcmturner/gokrb5/v8/gssapi"
	"github.com/jcmturner/gokrb5/v8/iana/flags"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/spnego"

	"github.com/edekd/edekd/internal/krb5conf"
)

// Identity is one user. It is safe for concurrent use.
type Identity struct {
	Name string
	// As is the user to act for (doAs), "" for nobody.
	As string

	ticket func(host string) ([]byte, error) // Kerberos
	token  string                            // delegation token
}

// Simple is a user whose name is believed.
func Simple(name string) *Identity { return &Identity{Name: name} }

// Token is the owner of a delegation token, given in its URL form.
func Token(name, urlString string) (*Identity, error) {
	if urlString == "" || strings.ContainsFunc(urlString, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, fmt.Errorf("the delegation token of %s is not in its URL form", name)
	}
	return &Identity{Name: name, token: urlString}, nil
}

// For returns the identity acting for another user.
func (i *Identity) For(user string) *Identity {
	acting := *i
	acting.As = user
	return &acting
}

// NeedsLogin tells whether the identity gets a cookie before its first request. A
// delegation token is sent with each request instead.
func (i *Identity) NeedsLogin() bool { return i.token == "" }

// Kerberos logs principals in at the KDC.
type Kerberos struct {
	clients []*client.Client
}

// NewKeytab logs principals in with their keys. Without a realm they are of the
// default realm.
func NewKeytab(path string, principals []string) (*Kerberos, error) {
	config, err := krb5conf.Load(krb5conf.Path())
	if err != nil {
		return nil, err
	}
	cfg, err := config.Client()
	if err != nil {
		return nil, err
	}
	keys, err := keytab.Load(path)
	if err != nil {
		return nil, fmt.Errorf("keytab %s: %w", path, err)
	}
	k := &Kerberos{}
	for _, principal := range principals {
		name, realm, _ := strings.Cut(principal, "@")
		if realm == "" {
			realm = cfg.LibDefaults.DefaultRealm
		}
		c := client.NewWithKeytab(name, realm, keys, cfg, client.DisablePAFXFAST(true))
		if err := c.Login(); err != nil {
			k.Close()
			return nil, fmt.Errorf("log in as %s@%s with keytab %s: %w", name, realm, path, err)
		}
		k.clients = append(k.clients, c)
	}
	return k, nil
}

// NewCCache takes the login that kinit left in a ticket cache.
func NewCCache(path string) (*Kerberos, error) {
	config, err := krb5conf.Load(krb5conf.Path())
	if err != nil {
		return nil, err
	}
	cfg, err := config.Client()
	if err != nil {
		return nil, err
	}
	cache, err := credentials.LoadCCache(strings.TrimPrefix(path, "FILE:"))
	if err != nil {
		return nil, fmt.Errorf("ticket cache %s: %w", path, err)
	}
	c, err := client.NewFromCCache(cache, cfg, client.DisablePAFXFAST(true))
	if err != nil {
		return nil, fmt.Errorf("ticket cache %s: %w", path, err)
	}
	return &Kerberos{clients: []*client.Client{c}}, nil
}

// Identities returns the principals that are logged in.
func (k *Kerberos) Identities() (all []*Identity) {
	for _, c := range k.clients {
		all = append(all, &Identity{
			Name:   c.Credentials.UserName() + "@" + c.Credentials.Domain(),
			ticket: func(host string) ([]byte, error) { return ticket(c, host) },
		})
	}
	return all
}

// Close forgets the logins.
func (k *Kerberos) Close() {
	for _, c := range k.clients {
		c.Destroy()
	}
}

// ticket makes a fresh token for HTTP/host, raw Kerberos that asks for mutual
// authentication, as Hadoop's client sends it.
func ticket(c *client.Client, host string) (token []byte, err error) {
	// gokrb5 panics on some malformed answers of a KDC.
	defer func() {
		if r := recover(); r != nil {
			token, err = nil, fmt.Errorf("ticket for HTTP/%s: malformed: %v", host, r)
		}
	}()
	t, key, err := c.GetServiceTicket("HTTP/" + strings.ToLower(host))
	if err != nil {
		return nil, fmt.Errorf("ticket for HTTP/%s: %w", host, err)
	}
	request, err := spnego.NewKRB5TokenAPREQ(c, t, key, []int{gssapi.ContextFlagInteg, gssapi.ContextFlagMutual}, []int{flags.APOptionMutualRequired})
	if err != nil {
		return nil, fmt.Errorf("ticket for HTTP/%s: %w", host, err)
	}
	return request.Marshal()
}

// appendAs appends the doAs parameter to a request's target.
func (i *Identity) appendAs(target []byte) []byte {
	if i.As == "" {
		return target
	}
	return append(append(target, mark(target)+"doAs="...), url.QueryEscape(i.As)...)
}

// mark is what stands before one more query parameter.
func mark(target []byte) string {
	if bytes.IndexByte(target, '?') >= 0 {
		return "&"
	}
	return "?"
}
