package zookeeper

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/hadoop/conf"
)

func configuration(properties map[string]string) *conf.Configuration {
	c := conf.New(func(string) (string, bool) { return "", false }, nil)
	for name, value := range properties {
		c.Override(name, value, "test")
	}
	return c
}

// Properties of both parts.
var secretsProperties = map[string]string{
	providerProperty:                    "zookeeper",
	SecretsPrefix + "connection.string": "zk1:2181, zk2/kms",
	SecretsPrefix + "auth.type":         "sasl",

	SecretsPrefix + "kerberos.keytab":    "/etc/kms.keytab",
	SecretsPrefix + "kerberos.principal": "HTTP/kms1@EXAMPLE.TEST",
}

var tokensProperties = map[string]string{
	tokensProperty:                       "true",
	TokensPrefix + "zkConnectionString":  "[::1]:2182",
	TokensPrefix + "zkAuthType":          "none",
	TokensPrefix + "zkSessionTimeout":    "4000",
	TokensPrefix + "zkConnectionTimeout": "5000",
	TokensPrefix + "zkNumRetries":        "2",
}

func TestReadConfig(t *testing.T) {
	f := func(want Config, warnings int, parts ...map[string]string) {
		t.Helper()
		all := map[string]string{}
		for _, p := range parts {
			maps.Copy(all, p)
		}
		got, warned, err := ReadConfig(configuration(all))
		if err != nil || !reflect.DeepEqual(got, want) || len(warned) != warnings {
			t.Errorf("got %+v %+v\nwith warnings %q, %v", got.Secrets, got.Tokens, warned, err)
		}
	}
	secrets := &SecretsConfig{
		Settings: Settings{
			Servers: []string{"zk1:2181", "zk2:2181"}, Chroot: "/kms",
			Principal: "HTTP/kms1@EXAMPLE.TEST", Keytab: "/etc/kms.keytab",
			SessionTimeout: time.Minute, ConnectTimeout: 15 * time.Second, Retries: 3,
		},
		Path: "/hadoop-kms/hadoop-auth-signature-secret",
	}
	tokens := &TokensConfig{
		Settings: Settings{
			Servers:        []string{"[::1]:2182"},
			SessionTimeout: 4 * time.Second, ConnectTimeout: 5 * time.Second, Retries: 2,
		},
		WorkingPath: "/zkdtsm", Batch: 100,
	}
	f(Config{}, 0)
	f(Config{}, 0, map[string]string{providerProperty: "random"})
	f(Config{Secrets: secrets}, 0, secretsProperties)
	f(Config{Tokens: tokens}, 1, tokensProperties)
	// Of two connections that of the secrets counts; the other may be anything.
	f(Config{Secrets: secrets, Tokens: &TokensConfig{WorkingPath: "/zkdtsm", Batch: 100}}, 0, secretsProperties, tokensProperties,
		map[string]string{TokensPrefix + "zkConnectionString": "", TokensPrefix + "zkAuthType": "x"})
	f(Config{Secrets: secrets, Tokens: &TokensConfig{WorkingPath: "/a/b", Batch: 7}}, 2, secretsProperties, tokensProperties, map[string]string{
		TokensPrefix + "znodeWorkingPath":        "/a/b",
		TokensPrefix + "token.seqnum.batch.size": "7",
		TokensPrefix + "token.watcher.enabled":   "false",
	})
}

func TestReadConfigRefuses(t *testing.T) {
	f := func(name, value, says string) {
		t.Helper()
		all := maps.Clone(secretsProperties)
		if strings.HasPrefix(name, TokensPrefix) {
			all = maps.Clone(tokensProperties)
		}
		all[name] = value
		_, _, err := ReadConfig(configuration(all))
		var problem *conf.ValueError
		if !errors.As(err, &problem) || problem.Property.Name != name || !strings.Contains(err.Error(), says) {
			t.Errorf("%s = %q: %v", name, value, err)
		}
	}
	connection := SecretsPrefix + "connection.string"
	f(connection, "", "names no server")
	f(connection, "/kms", "names no server")
	f(connection, "#HOSTNAME#:#PORT#,...", "write host:port")
	f(connection, "zk1:2181/a//b", "not a path")
	f(connection, ":2181", "write host:port")
	f(SecretsPrefix+"path", "relative", "/folder/name")
	f(SecretsPrefix+"path", "/", "/folder/name")
	f(SecretsPrefix+"path", "/a/../b", "/folder/name")
	f(SecretsPrefix+"path", "/a/", "/folder/name")
	f(SecretsPrefix+"auth.type", "digest", "none or sasl")
	f(SecretsPrefix+"ssl.enabled", "true", "TLS")
	f(SecretsPrefix+"kerberos.keytab", "", "names no file")
	f(SecretsPrefix+"kerberos.principal", "", "not a principal")
	f(SecretsPrefix+"kerberos.principal", "kms/#HOSTNAME#", "not a principal")
	f(TokensPrefix+"zkAuthType", "", "none or sasl")
	f(TokensPrefix+"zkSessionTimeout", "0", "100 to")
	f(TokensPrefix+"zkNumRetries", "many", "whole number")
	f(TokensPrefix+"znodeWorkingPath", "", "folder")
	f(TokensPrefix+"token.seqnum.batch.size", "0", "from 1")
	f(TokensPrefix+"ssl.enabled", "true", "TLS")
	// What is not set at all is missed under its name.
	_, _, err := ReadConfig(configuration(map[string]string{tokensProperty: "true"}))
	for _, name := range []string{"zkConnectionString", "zkAuthType"} {
		if err == nil || !strings.Contains(err.Error(), "default: "+TokensPrefix+name+": not set: ") {
			t.Errorf("%v does not miss %s", err, name)
		}
	}
}

func TestPrincipals(t *testing.T) {
	f := func(principal, identity string) {
		t.Helper()
		if got := (&Settings{Principal: principal}).identity(); got != identity {
			t.Errorf("%s is %q, want %q", principal, got, identity)
		}
	}
	f("HTTP/kms1@EXAMPLE.TEST", "HTTP")
	f("kms@EXAMPLE.TEST", "kms")
	f("kms", "kms")
	f("", "")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	got, err := resolveHost("HTTP/_HOST@EXAMPLE.TEST")
	if first, _, _ := strings.Cut(host, "."); err != nil || !strings.HasPrefix(got, "HTTP/"+strings.ToLower(first)) || !strings.HasSuffix(got, "@EXAMPLE.TEST") {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := resolveHost("HTTP_HOST"); err != nil || got != "HTTP_HOST" {
		t.Errorf("%s, %v", got, err)
	}
}

// The library pauses when every server was tried once in vain.
func TestHostsPauseAfterARound(t *testing.T) {
	var h hosts
	if err := h.Init([]string{"a:1", "b:1"}); err != nil {
		t.Fatal(err)
	}
	var pauses []bool
	next := func() string {
		server, pause := h.Next()
		pauses = append(pauses, pause)
		return server
	}
	if first := next(); next() == first || next() != first {
		t.Error("the servers do not take turns")
	}
	h.Connected()
	next()
	next()
	next()
	if got, want := fmt.Sprint(pauses), "[false false true false false true]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if h.Len() != 2 {
		t.Error(h.Len())
	}
}
