// Package krb5conf reads krb5.conf as MIT Kerberos does, with the files and
// folders it includes, and answers what edekd asks of it: the default realm, the
// clock skew, the realms' KDCs.
//
// Kerberos libraries of Go read one file and stumble over include lines and over
// blocks within a realm, which SSSD and most distributions write. So the files
// are read here, into a tree, and Client hands gokrb5 a text of just those
// relations that it understands.
//
// The format is the profile of MIT's krb5.conf(5):
//
//	include /absolute/file        anywhere, at the beginning of a line
//	includedir /absolute/folder   files of letters, digits, - and _, or *.conf
//	[section]
//	  relation = value            or "quoted value"
//	  subsection = {
//	    relation = value
//	  }
//
// An included file begins with a section of its own. A relation that may have
// one value only has the first that is found. Files, depth and total size are
// bounded, and every error names file and line.
package krb5conf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// DefaultPath is the file that is read when KRB5_CONFIG names no other.
const DefaultPath = "/etc/krb5.conf"

// DefaultClockSkew applies where libdefaults.clockskew says nothing else.
const DefaultClockSkew = 5 * time.Minute

const (
	maxFileSize   = 1 << 20 // bytes of one file
	maxFiles      = 256     // of one configuration
	maxTotalSize  = 4 << 20 // bytes of all of them
	maxDepth      = 10      // of inclusions, and of blocks within blocks
	maxClockSkew  = 24 * time.Hour
	pathSeparator = ":"
)

// Config is a configuration that has been read. It does not change.
type Config struct {
	root  node
	files []string
}

// node is a section: relations have values, subsections have children. Names
// repeat, so both are lists, in the order of the files.
type node struct {
	name     string
	value    string // of a relation
	children []*node
}

// Path returns what to Load: the value of KRB5_CONFIG, or DefaultPath.
func Path() string {
	if path := os.Getenv("KRB5_CONFIG"); path != "" {
		return path
	}
	return DefaultPath
}

// Load reads a configuration. Like KRB5_CONFIG, path may be several files with
// colons between them, of which those that exist are read; what an earlier one
// says counts. When there is none the error is fs.ErrNotExist, except for
// DefaultPath: a machine without it has an empty configuration.
func Load(path string) (*Config, error) {
	r := reader{config: &Config{}}
	var missing error
	for file := range strings.SplitSeq(path, pathSeparator) {
		if file == "" {
			continue
		}
		if err := r.file(file, 0); errors.Is(err, fs.ErrNotExist) && !slices.Contains(r.config.files, file) {
			missing = err
			r.config.files = append(r.config.files, file)
			continue
		} else if err != nil {
			return nil, err
		}
		r.found = true
	}
	if !r.found && path != DefaultPath {
		if missing == nil {
			missing = fs.ErrNotExist
		}
		return nil, fmt.Errorf("krb5.conf: %w: correct KRB5_CONFIG or unset it to read %s", missing, DefaultPath)
	}
	if _, err := r.config.clockSkew(); err != nil {
		return nil, err
	}
	return r.config, nil
}

// Files returns the files and folders that the configuration was made from, also
// the missing ones. When one of them changes, it is time to Load again.
func (c *Config) Files() []string { return slices.Clone(c.files) }

// DefaultRealm returns libdefaults.default_realm, "" where there is none.
func (c *Config) DefaultRealm() string { return c.first("libdefaults", "default_realm") }

// ClockSkew returns libdefaults.clockskew: how far the clocks of a client and a
// server may be apart.
func (c *Config) ClockSkew() time.Duration {
	skew, _ := c.clockSkew() // Load has looked at it
	return skew
}

func (c *Config) clockSkew() (time.Duration, error) {
	value := c.first("libdefaults", "clockskew")
	if value == "" {
		return DefaultClockSkew, nil
	}
	skew, err := parseDuration(value)
	if err == nil && (skew <= 0 || skew > maxClockSkew) {
		err = fmt.Errorf("it must be more than 0 and at most %v", maxClockSkew)
	}
	if err != nil {
		return 0, fmt.Errorf("krb5.conf: libdefaults.clockskew %q: %w: write seconds, such as 300", value, err)
	}
	return skew, nil
}

// Values returns all values of the relation with the given name, for example
// Values("realms", "EXAMPLE.COM", "kdc"), in the order in which they count.
func (c *Config) Values(path ...string) []string {
	nodes := []*node{&c.root}
	for _, name := range path {
		var next []*node
		for _, n := range nodes {
			for _, child := range n.children {
				if child.name == name {
					next = append(next, child)
				}
			}
		}
		nodes = next
	}
	var values []string
	for _, n := range nodes {
		if n.children == nil && n.value != "" {
			values = append(values, n.value)
		}
	}
	return values
}

func (c *Config) first(path ...string) string {
	if values := c.Values(path...); len(values) > 0 {
		return values[0]
	}
	return ""
}

// reader fills a Config from files.
type reader struct {
	config *Config
	found  bool
	count  int
	total  int
}

func (r *reader) file(path string, depth int) error {
	if !filepath.IsAbs(path) && depth > 0 {
		return fmt.Errorf("%s: an included path must be absolute", path)
	}
	if depth > maxDepth {
		return fmt.Errorf("%s: inclusions are nested deeper than %d: does a file include itself?", path, maxDepth)
	}
	if r.count++; r.count > maxFiles {
		return fmt.Errorf("%s: a configuration has at most %d files", path, maxFiles)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: it is not a regular file", path)
	}
	r.config.files = append(r.config.files, path)
	text, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if r.total += len(text); len(text) > maxFileSize || r.total > maxTotalSize {
		return fmt.Errorf("%s: a file may have %d bytes, all together %d", path, maxFileSize, maxTotalSize)
	}
	return r.parse(path, string(text), depth)
}

func (r *reader) folder(path string, depth int) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%s: an included path must be absolute", path)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	r.config.files = append(r.config.files, path)
	for _, entry := range entries {
		if !includedName(entry.Name()) {
			continue
		}
		file := filepath.Join(path, entry.Name())
		if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
			continue // removed since, or a folder within the folder
		}
		if err := r.file(file, depth); err != nil {
			return err
		}
	}
	return nil
}

// includedName reports whether includedir takes a file of this name, which
// editors' back-ups and packagers' leftovers are not to have.
func includedName(name string) bool {
	if strings.HasPrefix(name, ".") {
		return false
	}
	if strings.HasSuffix(name, ".conf") {
		return true
	}
	for _, c := range []byte(name) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return name != ""
}
