package config

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"github.com/edekd/edekd/hadoop/conf"
)

// Load reads the configuration in the folder dir. env looks up environment
// variables, as os.LookupEnv does. The error is Problems; the Config is then
// good for nothing but its Warnings.
func Load(dir string, env func(string) (string, bool)) (*Config, error) {
	home, name := currentUser()
	return load(dir, env, home, name, (*loader).everything)
}

// LoadKeys is Load for tools that look after the key store: it fills and
// checks Keys and StateDir only. A store must be restorable on a host where
// the certificate, say, is still missing.
func LoadKeys(dir string, env func(string) (string, bool)) (*Config, error) {
	home, name := currentUser()
	return load(dir, env, home, name, (*loader).keys)
}

// LoadSite reads core-site.xml and kms-site.xml of a folder that Load has read
// before. What has become of the other files does not keep settings from being
// changed: ACLs and SSL are empty.
func LoadSite(dir string, env func(string) (string, bool)) (*Config, error) {
	home, name := currentUser()
	l := loader{cfg: &Config{Dir: dir, HomeDir: home}, env: env, report: &report{}}
	system := l.system(name)
	l.readSite(system)
	l.acls, l.ssl = l.section("kms-acls.xml", system), l.section("ssl-server.xml", system)
	l.override(&l.site)
	return l.finish((*loader).settings)
}

// LoadACLs reads the kms-acls.xml of a folder that Load has read before. What
// else has become of the configuration does not keep rules from being changed.
// The Configuration is there beside an error too, for its Files.
func LoadACLs(dir string, env func(string) (string, bool)) (*conf.Configuration, error) {
	home, name := currentUser()
	l := loader{cfg: &Config{Dir: dir, HomeDir: home}, env: env, report: &report{}}
	l.readACLs(l.system(name))
	if len(l.problems) > 0 {
		return l.acls.conf, l.problems
	}
	return l.acls.conf, nil
}

// LoadSSL reads the ssl-server.xml that c names again, whatever has become of
// the other files.
func (c *Config) LoadSSL(env func(string) (string, bool)) (*conf.Configuration, error) {
	_, name := currentUser()
	l := loader{cfg: &Config{Dir: c.Dir, HomeDir: c.HomeDir}, env: env, report: &report{}}
	system := l.system(name)
	l.site = l.section("kms-site.xml", system)
	l.site.conf = c.Site
	l.readSSL(system)
	l.override(&l.ssl)
	if len(l.problems) > 0 {
		return nil, l.problems
	}
	return l.ssl.conf, nil
}

func currentUser() (home, name string) {
	if u, err := user.Current(); err == nil {
		return u.HomeDir, u.Username
	}
	return "", ""
}

// load reads the files for a user with the given home folder and name, and
// then takes from them what fill does.
func load(dir string, env func(string) (string, bool), home, name string, fill func(*loader)) (*Config, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return &Config{}, Problems{{dir, "", err.Error(), "give the folder by its full path"}}
	}
	cfg := &Config{Dir: dir, HomeDir: home}
	if info, err := os.Stat(dir); err != nil {
		return cfg, Problems{{dir, "", fmt.Sprintf("the configuration folder cannot be read: %v", err), "name the folder that holds kms-site.xml and kms-acls.xml"}}
	} else if !info.IsDir() {
		return cfg, Problems{{dir, "", "not a folder", "name the folder that holds kms-site.xml"}}
	}

	l := loader{cfg: cfg, env: env, report: &report{}}
	l.readFiles(name)
	return l.finish(fill)
}

// finish takes from the files what fill does.
func (l *loader) finish(fill func(*loader)) (*Config, error) {
	for _, s := range []*section{&l.site, &l.acls, &l.ssl} {
		for _, w := range s.conf.Warnings() {
			l.warnings = append(l.warnings, Problem{w.Source.String(), w.Name, w.Text, "remove or rename the property"})
		}
	}
	cfg := l.cfg
	cfg.place = l.site.place
	cfg.Site, cfg.ACLs, cfg.SSL = l.site.conf, l.acls.conf, l.ssl.conf
	if l.site.sound {
		fill(l)
	}
	cfg.Warnings = l.warnings
	if len(l.problems) > 0 {
		return cfg, l.problems
	}
	return cfg, nil
}

func (l *loader) everything() {
	l.settings()
	if l.acls.sound {
		l.closedKeys()
	}
}

func (l *loader) settings() {
	l.names()
	l.http()
	l.auth()
	l.keys()
	l.upstream()
	l.caches()
	l.audit()
	l.limits()
	l.authorizationManager()
	if l.ssl.sound {
		l.tls()
	}
}

// loader fills a Config from three sections that know nothing of each other's
// properties, as in Hadoop.
type loader struct {
	*report
	cfg  *Config
	env  func(string) (string, bool)
	site section // core-site.xml and kms-site.xml
	acls section // kms-acls.xml
	ssl  section // ssl-server.xml

	userName string   // of the user edekd runs as
	farNodes []string // host:port of the KMSes behind that were read so far
}

// system is what Java has as system properties.
func (l *loader) system(userName string) map[string]string {
	l.userName = userName
	system := map[string]string{
		"user.home":      l.cfg.HomeDir,
		"user.name":      userName,
		"java.io.tmpdir": "/tmp",
		"kms.config.dir": l.cfg.Dir,
	}
	if value := l.variable("KMS_LOG"); value != "" {
		system[kmsLogDir] = value // as Hadoop's start script passes it on
	}
	return system
}

func (l *loader) readACLs(system map[string]string) {
	l.acls = l.section("kms-acls.xml", system)
	l.acls.load(l.acls.path)
}

func (l *loader) readFiles(userName string) {
	system := l.system(userName)
	l.readSite(system)
	l.readACLs(system)
	l.readSSL(system)
	l.override(&l.site)
	l.override(&l.ssl)
}

func (l *loader) readSite(system map[string]string) {
	l.site = l.section("kms-site.xml", system)
	l.site.load(filepath.Join(l.cfg.Dir, "core-site.xml"))
	l.site.load(l.site.path)
	l.site.conf.SetDefaults(hadoopDefaults)
	for _, p := range properties {
		if p.Default != "" {
			l.site.conf.SetDefaults(map[string]string{p.Name: p.Default})
		}
	}
}

func (l *loader) readSSL(system map[string]string) {
	l.ssl = l.section(l.site.text(sslServerConf), system)
	l.ssl.load(l.ssl.path)
}

// override lays the environment over a section.
func (l *loader) override(s *section) {
	for _, e := range environment {
		if value := l.variable(e.variable); value != "" && strings.HasPrefix(e.property, "ssl.") == (s == &l.ssl) {
			s.conf.Override(e.property, value, "environment variable "+e.variable)
		}
	}
}

// variable returns an environment variable, "" when it is not set.
func (l *loader) variable(name string) string {
	value, _ := l.env(name)
	return value
}

// expandEnv looks up a variable for ${env.…}. systemd divides the folders of a
// unit that has several by colons; the first is the unit's main one.
func (l *loader) expandEnv(name string) (string, bool) {
	value, ok := l.env(name)
	if name == "STATE_DIRECTORY" {
		value, _, _ = strings.Cut(value, ":")
	}
	return value, ok
}

func (l *loader) section(file string, system map[string]string) section {
	if !filepath.IsAbs(file) {
		file = filepath.Join(l.cfg.Dir, file)
	}
	return section{report: l.report, conf: conf.New(l.expandEnv, system), path: file, sound: true}
}

// names refuses edekd.* properties that edekd does not know or that stand in a
// file where it does not look for them, and warns of rules that are in the wrong
// file: they may be meant to close something.
func (l *loader) names() {
	for _, p := range l.site.conf.WithPrefix("") {
		known := slices.ContainsFunc(properties, func(known Property) bool { return known.Name == p.Name })
		if ours(p.Name) && !known {
			l.site.refuse(p.Name, "edekd has no such property", fmt.Sprintf("%s, if that is what is meant; edekd --help lists all", nearest(p.Name)))
		}
		if isRule(p.Name) {
			l.site.warn(p.Name, "ignored: rules are not read from this file", "move it to "+filepath.Join(l.cfg.Dir, "kms-acls.xml"))
		}
	}
	for _, s := range []*section{&l.acls, &l.ssl} {
		for _, p := range s.conf.WithPrefix("") {
			if ours(p.Name) {
				s.refuse(p.Name, "properties of edekd are not read from this file", "move it to "+l.site.path)
			}
		}
	}
}

// isRule tells whether a property's name begins as those of rules do.
func isRule(name string) bool {
	return slices.ContainsFunc([]string{"hadoop.kms.acl.", "hadoop.kms.blacklist.", "key.acl.", "default.key.acl.", "whitelist.key.acl."},
		func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// ours tells whether a property claims to be edekd's, in whatever case.
func ours(name string) bool { return strings.HasPrefix(strings.ToLower(name), "edekd.") }
