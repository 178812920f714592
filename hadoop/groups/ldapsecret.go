package groups

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/edekd/edekd/hadoop/credential"
	"github.com/edekd/edekd/hadoop/jceks"
)

const (
	maxPasswordFile = 64 << 10 // bytes
	maxTrustStore   = 16 << 20
)

// password finds a password as LdapGroupsMapping does: in the credential stores
// under the name that the property alias gives, if one is given, then there or
// in clear text under its property's own name, then in the file that the
// property with .file after it names. It is empty when there is none.
func (s ldapSettings) password(suffix, alias string) (string, error) {
	names := []string{s.name(suffix), mappingPrefix + "ldap" + suffix}
	if alias != "" {
		name, err := s.text(alias, "")
		if err != nil {
			return "", err
		}
		if name != "" {
			names = append([]string{name}, names...)
		}
	}
	*s.files = append(*s.files, credential.Files(s.c)...)
	for _, name := range names {
		value, _, err := credential.Password(s.c, name)
		if err != nil {
			return "", s.wrong(suffix, "cannot be found out: %w", err)
		}
		if len(value) > 0 {
			defer clear(value)
			return string(value), nil
		}
	}
	path, err := s.text(suffix+".file", "")
	if err != nil || path == "" {
		return "", err
	}
	value, err := s.readFile(path, maxPasswordFile)
	if err != nil {
		return "", s.wrong(suffix+".file", "cannot be read: %w", err)
	}
	defer clear(value)
	// Java's trim, which takes the line end of an editor away.
	value = bytes.TrimFunc(value, func(r rune) bool { return r <= ' ' })
	if len(value) == 0 {
		return "", s.wrong(suffix+".file", "is empty: put the password into it")
	}
	return string(value), nil
}

// tlsConfig returns how a server proves that it is the right one: by a
// certificate for its name from the truststore, or without one from the
// authorities of this host.
func (s ldapSettings) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	keystore, err := s.text(".ssl.keystore", "")
	if err != nil {
		return nil, err
	}
	if keystore != "" {
		return nil, s.wrong(".ssl.keystore", "is for a certificate of the client, which is not supported: bind with a name and a password")
	}
	truststore, err := s.text(".ssl.truststore", "")
	if err != nil || truststore == "" {
		return config, err
	}
	password, err := s.password(".ssl.truststore.password", "")
	if err != nil {
		return nil, err
	}
	data, err := s.readFile(truststore, maxTrustStore)
	if err == nil {
		config.RootCAs, err = trusted(data, password)
	}
	if err != nil {
		return nil, s.wrong(".ssl.truststore", "cannot be read: %w", err)
	}
	return config, nil
}

// trusted returns the certificates of a truststore: PEM, PKCS#12, JKS or JCEKS,
// whatever its name says.
func trusted(data []byte, password string) (*x509.CertPool, error) {
	certificates, err := storedCertificates(data, password)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, c := range certificates {
		pool.AddCert(c)
	}
	if len(certificates) == 0 && !pool.AppendCertsFromPEM(data) {
		return nil, errors.New("it holds no certificate: a truststore is a PEM, PKCS#12, JKS or JCEKS file")
	}
	return pool, nil
}

// storedCertificates returns the trusted certificates of a keystore file, none
// for what is no keystore.
func storedCertificates(data []byte, password string) (all []*x509.Certificate, err error) {
	if len(data) > 0 && data[0] == 0x30 { // an ASN.1 sequence, as PKCS#12 begins
		return pkcs12.DecodeTrustStore(data, password)
	}
	entries, err := jceks.ParseCertificates(data, nil)
	if errors.Is(err, jceks.ErrFormat) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Kind() != jceks.Certificate {
			continue
		}
		for _, der := range e.Certificates() {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				return nil, err
			}
			all = append(all, c)
		}
	}
	return all, nil
}

// readFile reads a file of at most limit bytes.
func (s ldapSettings) readFile(path string, limit int64) ([]byte, error) {
	*s.files = append(*s.files, path)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return data, nil
}
