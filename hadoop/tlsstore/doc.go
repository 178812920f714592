// Package tlsstore makes the TLS configuration of a server from Hadoop's
// ssl-server.xml and the stores that it names.
//
// Stores may be of Java's kinds JKS, JCEKS and PKCS#12, or PEM. What a file is
// tells its first bytes, not the type in the configuration: keytool of JDK 9 and
// later writes PKCS#12 where older ones write JKS. Passwords come through
// package credential. Load refuses what cannot be used with the file, the
// property and a remedy, and touches no file but to read it.
//
// What is served follows the Java KMS, that is Jetty's SslContextFactory under
// Hadoop's HttpServer2: among several keys the one whose certificate has the
// name that the client asks for, client certificates as a gate that names
// nobody, cipher suites by Jetty's patterns. It is never weaker than TLS 1.2,
// or than the cipher suites that crypto/tls takes for secure.
//
// A Loaded is read-only. Reloadable exchanges one for another under a listener
// whose connections go on.
package tlsstore

import (
	"errors"
	"strings"

	"github.com/edekd/edekd/hadoop/conf"
	"github.com/edekd/edekd/hadoop/credential"
)

// The properties that Load reads: of ssl-server.xml, but for the last three,
// which are of core-site.xml and kms-site.xml.
const (
	KeystoreLocation    = "ssl.server.keystore.location"
	KeystoreType        = "ssl.server.keystore.type"
	KeystorePassword    = "ssl.server.keystore.password"
	KeystoreKeyPassword = "ssl.server.keystore.keypassword"
	TruststoreLocation  = "ssl.server.truststore.location"
	TruststoreType      = "ssl.server.truststore.type"
	TruststorePassword  = "ssl.server.truststore.password"
	NeedClientAuth      = "ssl.server.need.client.auth"
	ExcludeCiphers      = "ssl.server.exclude.cipher.list"
	IncludeCiphers      = "ssl.server.include.cipher.list"

	EnabledProtocols = "hadoop.ssl.enabled.protocols"
	CertificateFile  = "edekd.tls.certificate-file"
	KeyFile          = "edekd.tls.key-file"
)

// Problem is something in the configuration or in a store that cannot be used,
// or in Loaded.Warnings something that had better be changed.
type Problem struct {
	Place    string // file and line, or what else set the property, or where it is to be set
	Property string
	What     string // what is wrong, without a full stop
	Remedy   string // what to do, without a full stop
}

// Error is "place: property: what. Try: remedy".
func (p Problem) Error() string {
	return p.Place + ": " + p.Property + ": " + p.What + ". Try: " + p.Remedy
}

// Problems are all that keeps a configuration from being used. It is the error
// of Load.
type Problems []Problem

// Error has one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.Error()
	}
	return strings.Join(lines, "\n")
}

// place is where a property is set, or where it is to be set.
func place(c *conf.Configuration, property string) string {
	if p, ok := c.Lookup(property); ok {
		return p.Source.String()
	}
	if files := c.Files(); len(files) > 0 {
		return files[0]
	}
	return conf.Default
}

func (l *loader) refuse(c *conf.Configuration, property, what, remedy string) {
	l.problems = append(l.problems, Problem{place(c, property), property, what, remedy})
}

func (l *loader) warn(c *conf.Configuration, property, what, remedy string) {
	l.loaded.Warnings = append(l.loaded.Warnings, Problem{place(c, property), property, what, remedy})
}

// refuseValue reports an error of a getter of conf, or of credential.
func (l *loader) refuseValue(c *conf.Configuration, property string, err error, remedy string) {
	if value := (*conf.ValueError)(nil); errors.As(err, &value) {
		l.problems = append(l.problems, Problem{value.Property.Source.String(), value.Property.Name, value.What(), remedy})
		return
	}
	if e := (*credential.Error)(nil); errors.As(err, &e) {
		l.problems = append(l.problems, Problem{e.Source.String(), e.Property, e.What, e.Remedy})
		return
	}
	l.refuse(c, property, err.Error(), remedy)
}
