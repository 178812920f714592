// Package credential finds the passwords that a Hadoop configuration needs, as
// Hadoop's Configuration.getPassword does: first in the credential stores that
// hadoop.security.credential.provider.path lists, which `hadoop credential
// create` fills, then in clear text in the configuration itself, unless
// hadoop.security.credential.clear-text-fallback is false.
//
// Stores of the kinds jceks and localjceks in local files are read. The kind
// user, which holds credentials of a running job, has nothing for a server and
// is passed over, as it is in a Java server. All others (stores in HDFS or in
// object stores, bcfks) are refused with the remedy, because what they hold
// may be what somebody relies on. A store whose file does not exist is empty,
// as in Hadoop.
//
// Nothing is kept: each call reads the stores again.
package credential

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/edekd/edekd/hadoop/conf"
	"github.com/edekd/edekd/hadoop/jceks"
	"github.com/edekd/edekd/hadoop/uri"
)

// The properties by which Hadoop is told about credential stores.
const (
	ProviderPath      = "hadoop.security.credential.provider.path"
	ClearTextFallback = "hadoop.security.credential.clear-text-fallback"
	PasswordFile      = "hadoop.security.credstore.java-keystore-provider.password-file"
)

// PasswordEnv is the environment variable from which Hadoop takes the password
// of credential stores before it looks at PasswordFile.
const PasswordEnv = "HADOOP_CREDSTORE_PASSWORD"

const (
	maxStore        = 4 << 20  // bytes of a credential store
	maxPasswordFile = 64 << 10 // bytes of a password file
)

// Error is a credential store that cannot be asked.
type Error struct {
	Alias    string // the credential that was looked for
	Source   conf.Source
	Property string // ProviderPath, PasswordFile, or ClearTextFallback
	What     string
	Remedy   string
	Err      error // what What was made from, nil for none
}

func (e *Error) Error() string {
	return fmt.Sprintf("credential %s: %s: %s: %s: %s", e.Alias, e.Source, e.Property, e.What, e.Remedy)
}

func (e *Error) Unwrap() error { return e.Err }

// Password returns the password that goes by the name alias, the name of the
// property that would hold it in clear text, in UTF-8. found is false when
// neither a store nor the configuration has it. The caller owns value and
// clears it after use.
//
// As in Hadoop, names in stores are compared without case, the first store
// that has the name wins, and clear text is not trimmed. None of the retired
// names of hadoop-common's own table names a password, so there is none to be
// tried as well.
//
// Errors are *Error, or *conf.ValueError for a value that cannot be expanded.
func Password(c *conf.Configuration, alias string) (value []byte, found bool, err error) {
	files, err := stores(c, alias)
	if err != nil {
		return nil, false, err
	}
	if len(files) > 0 {
		pw, err := storePassword(c, alias)
		if err != nil {
			return nil, false, err
		}
		for _, file := range files {
			value, found, err = fromStore(c, file, alias, pw)
			if err != nil || found {
				return value, found, err
			}
		}
	}
	clearText, err := c.Bool(ClearTextFallback, true)
	if err != nil || !clearText {
		return nil, false, err
	}
	text, found, err := c.Get(alias)
	if err != nil || !found {
		return nil, false, err
	}
	return []byte(text), true, nil
}

// Files returns the files that Password reads: stores, and the file with their
// password. A change of any of them may change what Password returns. What
// Password would refuse is left out.
func Files(c *conf.Configuration) []string {
	var files []string
	list, _ := c.Strings(ProviderPath)
	for _, provider := range list {
		if path, err := storePath(provider); err == nil && path != "" {
			files = append(files, path)
		}
	}
	if path, err := passwordFile(c); err == nil && path != "" && len(files) > 0 {
		files = append(files, path)
	}
	return files
}

// stores returns the files of all stores of the provider path.
func stores(c *conf.Configuration, alias string) ([]string, error) {
	list, err := c.Strings(ProviderPath)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, provider := range list {
		path, err := storePath(provider)
		if err != nil {
			return nil, fail(c, alias, ProviderPath, err.Error(), "name a store on this host, jceks://file@/absolute/path; hadoop credential create makes one", nil)
		}
		if path != "" {
			files = append(files, path)
		}
	}
	return files, nil
}

// storePath returns the file of a provider, "" for one without.
func storePath(provider string) (string, error) {
	switch kind, _, _ := strings.Cut(provider, ":"); kind {
	case "user":
		return "", nil
	case "jceks", "localjceks":
		return uri.LocalPath(provider)
	case "bcfks", "localbcfks":
		return "", fmt.Errorf("%s is a store of Bouncy Castle's FIPS kind, which only Java can read", conf.Quote(ProviderPath, provider))
	default:
		return "", fmt.Errorf("%s is a kind of credential store that edekd does not know", conf.Quote(ProviderPath, provider))
	}
}

func fromStore(c *conf.Configuration, path, alias string, pw *jceks.Password) (value []byte, found bool, err error) {
	content, err := readFile(path, maxStore)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fail(c, alias, ProviderPath, err.Error(), "let the user that edekd runs as read the file", err)
	}
	broken := func(err error) error {
		remedy := "restore the file from a backup, or create the credentials again with hadoop credential create"
		if errors.Is(err, jceks.ErrPassword) {
			remedy = "set the environment variable " + PasswordEnv + ", or " + PasswordFile + ", to the password the store was made with (none, if neither was set then)"
		}
		return fail(c, alias, ProviderPath, path+": "+err.Error(), remedy, err)
	}
	entries, err := jceks.Parse(content, pw)
	if err != nil {
		return nil, false, broken(err)
	}
	for _, e := range entries {
		if !strings.EqualFold(e.Alias(), alias) {
			continue
		}
		_, value, err := e.SecretKey(pw)
		if err != nil {
			return nil, false, broken(err)
		}
		return value, true, nil
	}
	return nil, false, nil
}

// storePassword finds the password of all stores: environment, file, "none".
func storePassword(c *conf.Configuration, alias string) (*jceks.Password, error) {
	text, remedy := []byte("none"), ""
	if env, ok := os.LookupEnv(PasswordEnv); ok {
		text, remedy = []byte(env), "check the environment variable "+PasswordEnv
	} else {
		path, err := passwordFile(c)
		if err != nil {
			return nil, err
		}
		if path != "" {
			content, err := readFile(path, maxPasswordFile)
			defer clear(content)
			if err != nil {
				return nil, fail(c, alias, PasswordFile, err.Error(), "name a file with the password that edekd may read; a relative name starts from the configuration folder", err)
			}
			text, remedy = bytes.TrimFunc(content, func(r rune) bool { return r <= ' ' }), "check the file "+path
		}
	}
	defer clear(text)
	pw, err := jceks.NewPassword(text)
	if err != nil {
		return nil, fail(c, alias, PasswordFile, err.Error(), remedy, err)
	}
	return pw, nil
}

// passwordFile returns the path in PasswordFile, "" when it is not set. Java
// looks for the file on its class path, which begins in the configuration
// folder.
func passwordFile(c *conf.Configuration) (string, error) {
	path, err := c.String(PasswordFile, "")
	if err != nil || path == "" || filepath.IsAbs(path) {
		return path, err
	}
	if files := c.Files(); len(files) > 0 {
		path = filepath.Join(filepath.Dir(files[0]), path)
	}
	return path, nil
}

// readFile reads a regular file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path) // before opening, because opening a pipe would wait for its writer
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > limit {
		clear(content)
		return nil, fmt.Errorf("%s has more than %d bytes: is it the right file?", path, limit)
	}
	return content, nil
}

func fail(c *conf.Configuration, alias, property, what, remedy string, err error) error {
	p, ok := c.Lookup(property)
	if !ok {
		p.Source = conf.Source{File: conf.Default}
	}
	return &Error{alias, p.Source, property, what, remedy, err}
}
