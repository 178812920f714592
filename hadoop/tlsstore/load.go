package tlsstore

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/edekd/edekd/hadoop/conf"
	"github.com/edekd/edekd/hadoop/credential"
	"github.com/edekd/edekd/hadoop/jceks"
	"github.com/edekd/edekd/hadoop/tlsstore/pkcs12"
)

// maxStore bounds a store, in bytes.
const maxStore = 16 << 20

// Loaded is what came out of one reading of the stores. It is read-only.
type Loaded struct {
	// Config serves connections. It belongs to the Loaded and must not be
	// changed; Reloadable.Config gives the one for a listener.
	Config *tls.Config
	// Certificates are the chains that can be served, with Leaf and key.
	Certificates []tls.Certificate
	// Files are those that were read: stores, PEM files, credential stores. A
	// change of any of them asks for another Load. The configuration's own
	// files are not among them.
	Files []string
	// NotAfter is when the first of the certificates that are served expires,
	// those of the chains above them included.
	NotAfter time.Time
	// Warnings are remarks on what can be served.
	Warnings []Problem
}

// loader makes a Loaded. site holds the properties of core-site.xml and
// kms-site.xml, ssl those of ssl-server.xml.
type loader struct {
	site, ssl *conf.Configuration
	loaded    *Loaded
	problems  Problems
}

// Load reads the stores and makes a configuration of them. site holds the
// properties of core-site.xml and kms-site.xml, ssl those of ssl-server.xml;
// Java takes site for both when there is no ssl-server.xml. Credential stores
// are those that ssl names, as in Java. The error is Problems.
//
// Password bytes and the encodings of private keys are zeroed when Load
// returns. What crypto/tls needs of the keys stays in memory with the Loaded.
func Load(site, ssl *conf.Configuration) (*Loaded, error) {
	l := &loader{site: site, ssl: ssl, loaded: &Loaded{Config: &tls.Config{NextProtos: []string{"http/1.1"}}}}
	l.certificates()
	l.clientCertificates()
	l.protocols()
	l.ciphers()
	if len(l.problems) > 0 {
		return nil, l.problems
	}
	slices.Sort(l.loaded.Files)
	l.loaded.Files = slices.Compact(l.loaded.Files)
	return l.loaded, nil
}

// certificates finds what the server proves itself with.
func (l *loader) certificates() {
	_, hasCert := l.site.Lookup(CertificateFile)
	_, hasKey := l.site.Lookup(KeyFile)
	var keys []*servedKey
	switch {
	case hasCert && hasKey:
		keys = l.pemPair()
	case hasCert:
		l.refuse(l.site, KeyFile, CertificateFile+" is set, the key of the certificate is not", "the path of a PEM file with the private key")
	case hasKey:
		l.refuse(l.site, CertificateFile, KeyFile+" is set, the certificate of the key is not", "the path of a PEM file with the certificate chain")
	default:
		keys = l.keystore()
	}
	if len(keys) == 0 {
		return
	}
	sortAsJava(keys)
	for _, k := range keys {
		l.loaded.Certificates = append(l.loaded.Certificates, k.cert)
		l.validity(k)
	}
	if len(keys) == 1 {
		l.loaded.Config.Certificates = l.loaded.Certificates
	} else {
		l.loaded.Config.GetCertificate = choose(keys) // which crypto/tls asks only where there are no Certificates
	}
}

// validity notes when a chain expires.
func (l *loader) validity(k *servedKey) {
	for i, der := range k.cert.Certificate {
		cert := k.cert.Leaf
		if i > 0 {
			var err error
			if cert, err = x509.ParseCertificate(der); err != nil {
				continue // the client may know better
			}
		}
		if l.loaded.NotAfter.IsZero() || cert.NotAfter.Before(l.loaded.NotAfter) {
			l.loaded.NotAfter = cert.NotAfter
		}
		now := time.Now()
		what := ""
		switch {
		case now.After(cert.NotAfter):
			what = "expired on " + cert.NotAfter.UTC().Format(time.RFC3339)
		case now.Before(cert.NotBefore):
			what = "is not valid before " + cert.NotBefore.UTC().Format(time.RFC3339)
		default:
			continue
		}
		l.warn(k.origin, k.property, fmt.Sprintf("%s: the certificate of %s %s, clients will refuse it", k.file, cert.Subject, what), "renew the certificate, or set the clock of this host")
	}
}

// pemPair reads the files of edekd's own properties.
func (l *loader) pemPair() []*servedKey {
	cert := l.file(l.site, CertificateFile)
	key := l.file(l.site, KeyFile)
	if cert == nil || key == nil {
		return nil
	}
	defer clear(key.content)
	l.exposed(key, 0o077)
	pair, err := pemKey(cert.content, key.content)
	if err != nil {
		l.refuse(l.site, CertificateFile, fmt.Sprintf("%s and %s do not make a TLS certificate: %v", cert.path, key.path, err), pemRemedy)
		return nil
	}
	return []*servedKey{newServedKey("", pair, cert)}
}

const pemRemedy = "PEM files with the certificate chain, the server's own certificate first, and its private key, not encrypted (openssl pkey takes the encryption off)"

// keystore reads the store of ssl-server.xml.
func (l *loader) keystore() []*servedKey {
	if _, ok := l.ssl.Lookup(KeystoreLocation); !ok {
		l.refuse(l.ssl, KeystoreLocation, "TLS is switched on, but no certificate is named",
			"the path of a keystore, or in kms-site.xml "+CertificateFile+" and "+KeyFile+", which name PEM files")
		return nil
	}
	l.kind(KeystoreType)
	f := l.file(l.ssl, KeystoreLocation)
	if f == nil {
		return nil
	}
	defer clear(f.content)
	if f.format() == formatPEM {
		l.exposed(f, 0o077)
		pair, err := pemKey(f.content, f.content)
		if err != nil {
			l.refuse(l.ssl, KeystoreLocation, fmt.Sprintf("%s does not make a TLS certificate: %v", f.path, err), pemRemedy)
			return nil
		}
		return []*servedKey{newServedKey("", pair, f)}
	}
	l.exposed(f, 0o007)
	password, ok := l.password(KeystorePassword)
	if !ok {
		return nil
	}
	defer clear(password)
	if password == nil {
		l.refuse(l.ssl, KeystorePassword, "not set, but "+f.path+" needs a password", "the password of the store, here or in a credential store (hadoop credential create "+KeystorePassword+")")
		return nil
	}
	keyPassword, ok := l.password(KeystoreKeyPassword)
	if !ok {
		return nil
	}
	defer clear(keyPassword)
	s, err := readStore(f.content, password)
	if err != nil {
		l.refuseStore(f, KeystorePassword, err)
		return nil
	}
	return l.open(s, f, password, keyPassword)
}

// open unseals the keys of a store.
func (l *loader) open(s *store, f *file, password, keyPassword []byte) []*servedKey {
	if keyPassword == nil {
		keyPassword = password
	}
	var keys []*servedKey
	failed := false
	for _, sealed := range s.keys {
		pair, err := sealed.pair(keyPassword)
		switch {
		case err == nil:
			keys = append(keys, newServedKey(sealed.alias, pair, f))
			continue
		case errors.Is(err, errKeyType):
			l.warn(l.ssl, KeystoreLocation, fmt.Sprintf("%s: key %q is passed over: %v", f.path, sealed.alias, err), "a key of type RSA, EC (P-256, P-384, P-521) or Ed25519")
			continue
		case errors.Is(err, jceks.ErrPassword), errors.Is(err, pkcs12.ErrPassword):
			l.refuse(l.ssl, KeystoreKeyPassword, fmt.Sprintf("%s: the password does not open key %q", f.path, sealed.alias),
				"the password of the keys, if it is another than that of the store; keytool -keypasswd changes it, and all keys of a store must have the same")
		default:
			l.refuse(l.ssl, KeystoreLocation, fmt.Sprintf("%s: key %q: %v", f.path, sealed.alias, err), "import key and certificate again with keytool -importkeystore")
		}
		failed = true
	}
	if len(keys) == 0 && !failed {
		l.refuse(l.ssl, KeystoreLocation, f.path+" holds no private key with its certificate", "keytool -list shows what a store holds; a server needs an entry of type PrivateKeyEntry")
	}
	return keys
}

// clientCertificates makes them a condition where the configuration says so.
func (l *loader) clientCertificates() {
	need, err := l.ssl.Bool(NeedClientAuth, false)
	if err != nil {
		l.refuseValue(l.ssl, NeedClientAuth, err, "true or false")
		return
	}
	if !need {
		return
	}
	pool, ok := l.trusted()
	if !ok {
		return
	}
	l.loaded.Config.ClientAuth = tls.RequireAndVerifyClientCert
	l.loaded.Config.ClientCAs = pool
}

// trusted reads the authorities of client certificates. As in Jetty a keystore
// of Java stands in for a truststore that is not named.
func (l *loader) trusted() (*x509.CertPool, bool) {
	location, passwordOf := TruststoreLocation, TruststorePassword
	if _, ok := l.ssl.Lookup(TruststoreLocation); !ok {
		if _, ok := l.site.Lookup(CertificateFile); ok {
			l.noTruststore()
			return nil, false
		}
		location, passwordOf = KeystoreLocation, KeystorePassword
	} else {
		l.kind(TruststoreType)
	}
	f := l.file(l.ssl, location)
	if f == nil {
		return nil, false
	}
	defer clear(f.content)
	if location == KeystoreLocation && f.format() == formatPEM { // which does not tell a chain from authorities
		l.noTruststore()
		return nil, false
	}
	password, ok := l.password(passwordOf)
	if !ok {
		return nil, false
	}
	defer clear(password)
	certs, err := trustedCertificates(f, password)
	if err != nil {
		l.refuseStore(f, passwordOf, err)
		return nil, false
	}
	if len(certs) == 0 {
		l.refuse(l.ssl, location, f.path+" holds no trusted certificate, so no client could be let in", "keytool -importcert -keystore "+f.path+" for each authority of client certificates, or "+NeedClientAuth+" false")
		return nil, false
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool, true
}

func (l *loader) noTruststore() {
	l.refuse(l.ssl, TruststoreLocation, NeedClientAuth+" is true, but no truststore is named", "a store or a PEM file with the authorities of client certificates")
}

// kind refuses types of stores that cannot be read. Those that can are told
// apart by their content.
func (l *loader) kind(property string) {
	kind, err := l.ssl.String(property, "")
	if err != nil {
		l.refuseValue(l.ssl, property, err, "jks, pkcs12, jceks or pem")
		return
	}
	switch strings.ToLower(kind) {
	case "", "jks", "pkcs12", "p12", "pfx", "jceks", "pem":
		return
	}
	l.refuse(l.ssl, property, fmt.Sprintf("stores of type %q cannot be read", kind), "keytool -importkeystore -deststoretype pkcs12 makes a PKCS#12 store of it: then pkcs12")
}

// password looks a password up. The caller zeroes it; nil stands for none.
func (l *loader) password(property string) (value []byte, ok bool) {
	value, found, err := credential.Password(l.ssl, property)
	if err != nil {
		l.refuseValue(l.ssl, property, err, "write the value out")
		return nil, false
	}
	l.loaded.Files = append(l.loaded.Files, credential.Files(l.ssl)...)
	if found && value == nil {
		value = []byte{}
	}
	return value, true
}

func (l *loader) refuseStore(f *file, passwordOf string, err error) {
	if errors.Is(err, jceks.ErrPassword) || errors.Is(err, pkcs12.ErrPassword) || errors.Is(err, errPasswordText) {
		l.refuse(l.ssl, passwordOf, fmt.Sprintf("%s: %v", f.path, err), "the password the store was made with: keytool -list -keystore "+f.path+" tells whether it fits; if it does, restore the file")
		return
	}
	l.refuse(f.origin, f.property, fmt.Sprintf("%s: %v", f.path, err), "restore the file from a backup, or name another; was it still being copied?")
}

// file is a store or PEM file, and the property that names it.
type file struct {
	origin   *conf.Configuration
	property string
	path     string
	mode     os.FileMode
	content  []byte
}

// file reads the file that a property names; nil if it was refused.
func (l *loader) file(c *conf.Configuration, property string) *file {
	path, err := c.String(property, "")
	if err != nil {
		l.refuseValue(c, property, err, "write the path out")
		return nil
	}
	if !filepath.IsAbs(path) {
		l.refuse(c, property, fmt.Sprintf("%q is not an absolute path", path), "a path that begins with / or with ${kms.config.dir}, which is the configuration folder")
		return nil
	}
	f := &file{origin: c, property: property, path: filepath.Clean(path)}
	l.loaded.Files = append(l.loaded.Files, f.path)
	if err := f.read(); err != nil {
		l.refuse(c, property, err.Error(), "name a file that the user that edekd runs as may read")
		return nil
	}
	return f
}

func (f *file) read() error {
	info, err := os.Stat(f.path) // before opening, because opening a pipe would wait for its writer
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", f.path)
	}
	f.mode = info.Mode().Perm()
	in, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer in.Close()
	f.content = make([]byte, 0, min(info.Size(), maxStore)+512) // growing would leave copies of keys behind
	for {
		n, err := in.Read(f.content[len(f.content):cap(f.content)])
		f.content = f.content[:len(f.content)+n]
		switch {
		case err == io.EOF && len(f.content) == 0:
			return fmt.Errorf("%s is empty", f.path)
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case len(f.content) == cap(f.content):
			return fmt.Errorf("%s is larger than %d bytes, or grew while it was read", f.path, maxStore)
		}
	}
}

// exposed remarks on a private key that others may read.
func (l *loader) exposed(f *file, others os.FileMode) {
	if f.mode&others != 0 {
		l.warn(f.origin, f.property, fmt.Sprintf("%s holds a private key, but its mode %#o lets other users at it", f.path, f.mode), "chmod 600 "+f.path)
	}
}
