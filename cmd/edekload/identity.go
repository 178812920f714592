package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/edekd/edekd/loadtest"
	"github.com/edekd/edekd/loadtest/login"
)

// identityFlags say who the load is.
type identityFlags struct {
	Auth      string   `enum:"simple,kerberos,token" default:"simple" help:"How to say who one is: simple, kerberos or token. Tokens come from --token-file; without it they are got from the first target, with Kerberos if --keytab or --ccache is given, and cancelled at the end."`
	User      []string `default:"edekload" help:"Names to be believed (simple)."`
	Users     int      `placeholder:"N" help:"So many names, each a --user followed by a number."`
	Principal []string `help:"Kerberos principals of the keytab."`
	Keytab    string   `type:"existingfile" placeholder:"FILE" help:"Keys of the principals."`
	CCache    string   `name:"ccache" placeholder:"FILE" help:"Ticket cache that kinit filled, instead of a keytab."`
	DoAs      []string `name:"do-as" placeholder:"USER" help:"Act for these users: the servers must allow it."`
	TokenFile string   `type:"existingfile" placeholder:"FILE" help:"Delegation tokens in their URL form, one on each line."`
}

const maxUsers = 1_000_000

// identify fills in who the load is. done undoes at the end what has to be undone.
func (f *loadFlags) identify(ctx context.Context, o *loadtest.Options) (done func() error, err error) {
	i := &f.identityFlags
	o.Kind = i.Auth
	kerberos := i.Keytab != "" || i.CCache != ""
	switch {
	case i.TokenFile != "" && i.Auth != "token":
		return nil, usagef("--auth token", "--token-file is for delegation tokens")
	case i.Keytab != "" && i.CCache != "":
		return nil, usagef("one of them", "both --keytab and --ccache are given")
	case (i.Keytab != "") != (len(i.Principal) > 0):
		return nil, usagef("--keytab FILE --principal NAME", "--keytab and --principal go together")
	case i.Auth == "kerberos" && !kerberos:
		return nil, usagef("--keytab FILE --principal NAME, or --ccache FILE", "Kerberos needs a login")
	case i.Auth == "simple" && kerberos:
		return nil, usagef("--auth kerberos", "a keytab or ticket cache is given, which simple authentication has no use for")
	case i.Users < 0 || i.Users > maxUsers:
		return nil, usagef("at most "+fmt.Sprint(maxUsers), "%d users", i.Users)
	}
	if i.TokenFile != "" {
		o.Identities, err = readTokens(i.TokenFile)
		return func() error { return nil }, err
	}
	done = func() error { return nil }
	identities := i.names()
	if kerberos {
		k, err := i.login()
		if err != nil {
			return nil, err
		}
		done = func() error {
			k.Close()
			return nil
		}
		identities = k.Identities()
	}
	if len(i.DoAs) > 0 {
		var acting []*login.Identity
		for n, user := range i.DoAs {
			acting = append(acting, identities[n%len(identities)].For(user))
		}
		identities = acting
	}
	o.Identities = identities
	if i.Auth == "token" {
		tokens, err := loadtest.GetTokens(ctx, o.Targets[0], o.TLS, o.Timeout, identities)
		if err != nil {
			return nil, errors.Join(err, done())
		}
		o.Identities = tokens.Identities
		logout := done
		done = func() error {
			// The load may have been interrupted: this needs a time of its own.
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			return errors.Join(tokens.Cancel(ctx), logout())
		}
	}
	return done, nil
}

// names lists the users to be believed.
func (i *identityFlags) names() (all []*login.Identity) {
	if i.Users == 0 {
		for _, name := range i.User {
			all = append(all, login.Simple(name))
		}
		return all
	}
	for n := range i.Users {
		all = append(all, login.Simple(fmt.Sprint(i.User[n%len(i.User)], n+1)))
	}
	return all
}

func (i *identityFlags) login() (*login.Kerberos, error) {
	if i.CCache != "" {
		return login.NewCCache(i.CCache)
	}
	return login.NewKeytab(i.Keytab, i.Principal)
}

func readTokens(path string) (all []*login.Identity, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" {
			continue
		}
		if len(all) == maxUsers {
			return nil, usagef("fewer", "%s holds more than %d tokens", path, maxUsers)
		}
		token, err := login.Token(fmt.Sprintf("line %d of %s", n, path), text)
		if err != nil {
			return nil, usage(err, "what GETDELEGATIONTOKEN returns as urlString")
		}
		all = append(all, token)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(all) == 0 {
		return nil, usage(errors.New(path+" holds no token"), "what GETDELEGATIONTOKEN returns as urlString")
	}
	return all, nil
}
