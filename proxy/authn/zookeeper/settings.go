package zookeeper

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/edekd/edekd/hadoop/conf"
)

// Prefixes of the properties ReadConfig reads.
const (
	SecretsPrefix = "hadoop.kms.authentication.signer.secret.provider.zookeeper."
	TokensPrefix  = "hadoop.kms.authentication.zk-dt-secret-manager."

	providerProperty = "hadoop.kms.authentication.signer.secret.provider"
	tokensProperty   = TokensPrefix + "enable"
)

// Settings are those of one connection.
type Settings struct {
	Servers []string // host:port
	Chroot  string   // what all paths are below, such as /cluster1; empty: nothing

	// Principal is who to log in as with SASL, name or name/host with or without
	// @REALM; empty: nobody, and all nodes are open to everybody.
	Principal string
	Keytab    string // file with the principal's keys

	SessionTimeout time.Duration
	// ConnectTimeout is how long Open waits for a first connection and a request
	// for its answer.
	ConnectTimeout time.Duration
	Retries        int // of a request that may happen twice, when the connection breaks under it
}

// identity returns what ZooKeeper calls the principal, when host and realm are
// removed from it: the part that all servers of a service share.
func (s *Settings) identity() string {
	return s.Principal[:strings.IndexAny(s.Principal+"@", "/@")]
}

// Config says what to keep in ZooKeeper. What is nil is not kept there.
type Config struct {
	Secrets *SecretsConfig
	Tokens  *TokensConfig
}

// SecretsConfig is of the secrets that sign cookies.
type SecretsConfig struct {
	Settings
	Path     string        // of the node
	Validity time.Duration // how long a secret signs; that of a cookie
}

// TokensConfig is of delegation tokens.
type TokensConfig struct {
	// Settings are without effect when signing secrets are kept in ZooKeeper
	// too: as in Hadoop there is one connection then, that of the secrets.
	Settings
	WorkingPath string // what /ZKDTSMRoot is below
	Batch       int    // sequence numbers taken at once
}

// ReadConfig reads hadoop.kms.authentication.signer.secret.provider (whether it
// is zookeeper), signer.secret.provider.zookeeper.* and zk-dt-secret-manager.*.
// It leaves out Validity. Errors that come from a value are *conf.ValueError,
// joined. The warnings are about what had better be changed.
func ReadConfig(c *conf.Configuration) (cfg Config, warnings []string, err error) {
	r := &settingsReader{c: c}
	if strings.EqualFold(r.text(providerProperty, ""), "zookeeper") {
		cfg.Secrets = r.secrets()
	}
	if r.boolean(tokensProperty, false) {
		cfg.Tokens = r.tokens(cfg.Secrets == nil)
	}
	if err := errors.Join(r.errs...); err != nil {
		return Config{}, nil, err
	}
	return cfg, r.warnings, nil
}

// CheckLogin reads what the login with SASL takes, krb5.conf and keytab, and asks
// nobody. What is wrong is a *conf.ValueError of the keytab or the principal in c,
// which cfg was read from.
func (cfg Config) CheckLogin(c *conf.Configuration) error {
	prefix := TokensPrefix
	switch {
	case cfg.Secrets != nil:
		prefix = SecretsPrefix
	case cfg.Tokens == nil:
		return nil
	}
	s := cfg.settings()
	if s.Principal == "" {
		return nil
	}
	if _, err := os.Stat(s.Keytab); err != nil {
		return c.Wrong(prefix+"kerberos.keytab", fmt.Errorf("cannot be read: %w", err))
	}
	if err := newKerberos(s.Principal, s.Keytab).check(); err != nil {
		return c.Wrong(prefix+"kerberos.principal", fmt.Errorf("cannot log in to ZooKeeper: %w: name one that klist -kt shows, or export the keytab again", err))
	}
	return nil
}

// settingsReader collects what is wrong.
type settingsReader struct {
	c        *conf.Configuration
	errs     []error
	warnings []string
}

func (r *settingsReader) secrets() *SecretsConfig {
	// The times are Curator's defaults, which Hadoop cannot change here.
	s := r.connection(SecretsPrefix+"connection.string", SecretsPrefix+"auth.type", "none",
		SecretsPrefix+"kerberos.keytab", SecretsPrefix+"kerberos.principal", SecretsPrefix+"ssl.enabled")
	s.SessionTimeout, s.ConnectTimeout, s.Retries = time.Minute, 15*time.Second, 3
	path := SecretsPrefix + "path"
	cfg := &SecretsConfig{Settings: s, Path: r.text(path, "/hadoop-kms/hadoop-auth-signature-secret")}
	if !validPath(cfg.Path) {
		r.refuse(path, "is not the path of a node: write it as /folder/name")
	}
	return cfg
}

func (r *settingsReader) tokens(alone bool) *TokensConfig {
	cfg := new(TokensConfig)
	if alone {
		cfg.Settings = r.connection(TokensPrefix+"zkConnectionString", TokensPrefix+"zkAuthType", "",
			TokensPrefix+"kerberos.keytab", TokensPrefix+"kerberos.principal", TokensPrefix+"ssl.enabled")
		cfg.SessionTimeout = r.millis(TokensPrefix + "zkSessionTimeout")
		cfg.ConnectTimeout = r.millis(TokensPrefix + "zkConnectionTimeout")
		cfg.Retries = r.number(TokensPrefix+"zkNumRetries", 3, 0, 1000)
	}
	working := TokensPrefix + "znodeWorkingPath"
	cfg.WorkingPath = r.text(working, "zkdtsm")
	if strings.HasPrefix(cfg.WorkingPath, "/") {
		r.warnings = append(r.warnings, working+" begins with a slash, which a Java KMS does not start with: remove it")
	}
	cfg.WorkingPath = "/" + strings.TrimPrefix(cfg.WorkingPath, "/")
	if !validPath(cfg.WorkingPath) {
		r.refuse(working, "is not the path of a node: write it as folder or folder/name")
	}
	cfg.Batch = r.number(TokensPrefix+"token.seqnum.batch.size", 100, 1, 1_000_000)
	if watcher := TokensPrefix + "token.watcher.enabled"; !r.boolean(watcher, true) {
		r.warnings = append(r.warnings, watcher+" is false, which has no effect: only tokens in use are watched, and that is how a cancellation elsewhere is noticed; remove it")
	}
	return cfg
}

func (r *settingsReader) connection(connection, auth, defaultAuth, keytab, principal, ssl string) (s Settings) {
	var err error
	if s.Servers, s.Chroot, err = parseConnection(r.text(connection, "")); err != nil {
		r.refuse(connection, err.Error())
	}
	if r.boolean(ssl, false) {
		r.refuse(ssl, "cannot be served: TLS to ZooKeeper is not supported; use its plain port with SASL, on a network you trust, or through a TLS tunnel on this machine")
	}
	switch r.text(auth, defaultAuth) {
	case "none":
		r.warnings = append(r.warnings, auth+" is none: everybody who reaches ZooKeeper can read and change the secrets there, and so forge cookies and tokens; use sasl")
	case "sasl":
		s.Keytab, s.Principal = r.text(keytab, ""), r.text(principal, "")
		if s.Keytab == "" {
			r.refuse(keytab, "names no file: SASL needs the keytab of the principal")
		}
		if s.Principal, err = resolveHost(s.Principal); err != nil {
			r.refuse(principal, err.Error())
		} else if s.identity() == "" || strings.Contains(s.Principal, "#") {
			r.refuse(principal, "is not a principal: SASL needs one, such as HTTP/host@REALM")
		}
	default:
		r.refuse(auth, "must be none or sasl")
	}
	return s
}

// parseConnection splits host:port,host:port/chroot. The default port is
// ZooKeeper's, 2181.
func parseConnection(text string) (servers []string, chroot string, err error) {
	list := text
	if at := strings.IndexByte(text, '/'); at >= 0 {
		list, chroot = text[:at], strings.TrimSuffix(text[at:], "/")
		if chroot != "" && !validPath(chroot) {
			return nil, "", errors.New("ends in something that is not a path")
		}
	}
	for server := range strings.SplitSeq(list, ",") {
		server = strings.TrimSpace(server)
		if server == "" {
			continue
		}
		if strings.ContainsAny(server, "#$ \t") {
			return nil, "", fmt.Errorf("names %q: write host:port,host:port of your ZooKeeper servers", server)
		}
		host, port, err := net.SplitHostPort(server)
		if err != nil {
			host, port = strings.Trim(server, "[]"), "2181"
		}
		if host == "" || port == "" || strings.ContainsAny(host, "[]") {
			return nil, "", fmt.Errorf("names %q: write host:port", server)
		}
		servers = append(servers, net.JoinHostPort(host, port))
	}
	if len(servers) == 0 {
		return nil, "", errors.New("names no server: write host:port,host:port of your ZooKeeper servers")
	}
	return servers, chroot, nil
}

// validPath reports whether ZooKeeper takes a path that is not its root.
func validPath(path string) bool {
	if len(path) < 2 || path[0] != '/' {
		return false
	}
	for part := range strings.SplitSeq(path[1:], "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsFunc(part, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			return false
		}
	}
	return true
}

// resolveHost puts this host's name in the place of _HOST, as Hadoop does in the
// principal of the token store.
func resolveHost(principal string) (string, error) {
	if !strings.Contains(principal, "/_HOST") {
		return principal, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("has _HOST, and this host does not know its name: %w", err)
	}
	if full, err := net.LookupCNAME(host); err == nil {
		host = strings.TrimSuffix(full, ".")
	}
	return strings.Replace(principal, "/_HOST", "/"+strings.ToLower(host), 1), nil
}

func (r *settingsReader) text(name, def string) string {
	value, err := r.c.String(name, def)
	r.note(err)
	return value
}

func (r *settingsReader) boolean(name string, def bool) bool {
	value, err := r.c.Bool(name, def)
	r.note(err)
	return value
}

func (r *settingsReader) number(name string, def, least, most int) int {
	value, err := r.c.Int(name, def)
	r.note(err)
	if err == nil && (value < least || value > most) {
		r.refuse(name, fmt.Sprintf("is not a number from %d to %d", least, most))
	}
	return value
}

// millis reads a time of 10 seconds by default, up to an hour.
func (r *settingsReader) millis(name string) time.Duration {
	return time.Duration(r.number(name, 10_000, 100, 3_600_000)) * time.Millisecond
}

func (r *settingsReader) note(err error) {
	if err != nil {
		r.errs = append(r.errs, err)
	}
}

// refuse says what is wrong with the value of a property.
func (r *settingsReader) refuse(name, what string) {
	r.errs = append(r.errs, r.c.Wrong(name, errors.New(what)))
}
