package zookeeper

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/edekd/edekd/internal/kdc"
	"github.com/edekd/edekd/internal/zkserver"
)

// kerberized starts a KDC and a ZooKeeper that knows it.
func kerberized(t *testing.T) (*kdc.KDC, *zkserver.Server) {
	t.Helper()
	realm := kdc.Start(t, "EXAMPLE.TEST")
	realm.Add("zookeeper/localhost", "HTTP/localhost", "HTTP/other", "mallory/localhost")
	t.Setenv("KRB5_CONFIG", realm.Config)
	return realm, zkserver.Start(t, zkserver.Options{SuperPassword: "super", Kerberos: &zkserver.Kerberos{
		Principal: "zookeeper/localhost@EXAMPLE.TEST",
		Keytab:    realm.Keytab("zookeeper/localhost"),
		Config:    realm.Config,
	}})
}

func saslConfig(realm *kdc.KDC, s *zkserver.Server, principal string) Config {
	cfg := secretsConfig(s, time.Hour)
	cfg.Tokens = tokensConfig(s).Tokens
	// A name of the server's that the resolver turns into its principal's.
	cfg.Secrets.Servers = []string{strings.Replace(s.Addr, "127.0.0.1", "localhost", 1)}
	cfg.Secrets.Principal = principal
	cfg.Secrets.Keytab = realm.Keytab(principal)
	return cfg
}

func TestSASL(t *testing.T) {
	realm, server := kerberized(t)
	one, log := openNode(t, saslConfig(realm, server, "HTTP/localhost@EXAMPLE.TEST"))
	other, _ := openNode(t, saslConfig(realm, server, "HTTP/other")) // the default realm
	if string(sign(one)) != string(sign(other)) {
		t.Error("two servers sign with different secrets")
	}
	newToken(t, one.Tokens, 1)
	mustFind(t, other.Tokens, 1)
	if strings.Contains(log.String(), "everybody") {
		t.Errorf("a warning of nodes that are closed:\n%s", log)
	}

	a, stranger := admin(t, server), admin(t, server)
	if err := a.AddAuth("digest", []byte("super:super")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", "/kms/secret", "/zkdtsm/ZKDTSMRoot", one.Tokens.tokenPath(1), one.Tokens.root + keysName} {
		acl, _, err := a.GetACL("/edekd" + path)
		if err != nil || len(acl) != 1 || acl[0] != (zk.ACL{Perms: zk.PermAll, Scheme: "sasl", ID: "HTTP"}) {
			t.Errorf("%s: %v, %v", path, acl, err)
		}
		if _, _, err := stranger.Get("/edekd" + path); err != zk.ErrNoAuth {
			t.Errorf("%s is read by a stranger: %v", path, err)
		}
	}
	n, err := Open(t.Context(), saslConfig(realm, server, "mallory/localhost"), slog.New(slog.DiscardHandler))
	if err == nil {
		n.Close()
		t.Error("another principal reads the secrets")
	} else if !strings.Contains(err.Error(), "removeHostFromPrincipal") {
		t.Errorf("%v: without a remedy", err)
	}

	// Every new connection authenticates anew.
	server.Stop()
	server.Start()
	eventually(t, "the connection", func() bool { return one.Status().Connected })
	mustFind(t, one.Tokens, 1)
	newToken(t, one.Tokens, 2)
}

func TestSASLFails(t *testing.T) {
	realm, server := kerberized(t)
	f := func(says string, change func(*Config)) {
		t.Helper()
		cfg := saslConfig(realm, server, "HTTP/localhost")
		change(&cfg)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		n, err := Open(ctx, cfg, slog.New(slog.DiscardHandler))
		if err == nil {
			n.Close()
			t.Errorf("no error that says %q", says)
		} else if !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %q", err, says)
		}
	}
	f("keytab /nowhere", func(c *Config) { c.Secrets.Keytab = "/nowhere" })
	f("log in as HTTP/nobody@EXAMPLE.TEST", func(c *Config) { c.Secrets.Principal = "HTTP/nobody" })
	plain := zkserver.Start(t, zkserver.Options{})
	f("SASL: ", func(c *Config) { c.Secrets.Servers = []string{plain.Addr} })
	// A server that answers with what it likes.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go impostor(l)
	f("does not prove that it is zookeeper/localhost", func(c *Config) { c.Secrets.Servers = []string{l.Addr().String()} })
	broken := t.TempDir() + "/krb5.conf"
	if err := os.WriteFile(broken, []byte("[libdefaults\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KRB5_CONFIG", broken)
	f(broken, func(*Config) {})
}

// What the login takes is found wrong without a server, under the name of its property.
func TestCheckLogin(t *testing.T) {
	realm := kdc.Start(t, "EXAMPLE.TEST")
	realm.Add("HTTP/localhost", "HTTP/other")
	t.Setenv("KRB5_CONFIG", realm.Config)
	f := func(principal, keytab, says string) {
		t.Helper()
		for _, prefix := range []string{SecretsPrefix, TokensPrefix} {
			properties := map[string]string{providerProperty: "zookeeper", SecretsPrefix + "connection.string": "zk1", SecretsPrefix + "auth.type": "sasl"}
			if prefix == TokensPrefix {
				properties = map[string]string{tokensProperty: "true", TokensPrefix + "zkConnectionString": "zk1", TokensPrefix + "zkAuthType": "sasl"}
			}
			properties[prefix+"kerberos.principal"], properties[prefix+"kerberos.keytab"] = principal, keytab
			c := configuration(properties)
			cfg, _, err := ReadConfig(c)
			if err != nil {
				t.Fatal(err)
			}
			err = cfg.CheckLogin(c)
			if says == "" && err == nil {
				continue
			}
			if says == "" || err == nil || !strings.Contains(err.Error(), prefix+says) {
				t.Errorf("%s with %s: %v, want %s", principal, keytab, err, says)
			}
		}
	}
	keytab := realm.Keytab("HTTP/localhost")
	f("HTTP/localhost@EXAMPLE.TEST", keytab, "")
	f("HTTP/localhost", keytab, "")
	f("HTTP/other@EXAMPLE.TEST", keytab, "kerberos.principal")
	f("HTTP/localhost@OTHER.TEST", keytab, "kerberos.principal")
	f("HTTP/localhost@EXAMPLE.TEST", "/nowhere", "kerberos.keytab")
}

// impostor begins every session and answers SASL packets with garbage.
func impostor(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if _, err := readFrame(c, 1024); err != nil {
			c.Close()
			continue
		}
		frame := func(b []byte) {
			_, _ = c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
		}
		frame(append(make([]byte, 15), 1, 0, 0, 0, 0)) // session 1
		if _, err := readFrame(c, 64<<10); err == nil {
			token := []byte("\x60\x0d\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02\x02\x00")
			frame(append(binary.BigEndian.AppendUint32(make([]byte, 16), uint32(len(token))), token...))
		}
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	}
}
