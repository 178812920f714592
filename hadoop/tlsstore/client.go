package tlsstore

import (
	"crypto/tls"
	"crypto/x509"
	"slices"

	"github.com/edekd/edekd/hadoop/conf"
)

// The properties that LoadClient reads, of ssl-client.xml.
const (
	ClientTruststoreLocation = "ssl.client.truststore.location"
	ClientTruststoreType     = "ssl.client.truststore.type"
	ClientTruststorePassword = "ssl.client.truststore.password"
)

// LoadClient makes the TLS configuration of a client from the properties of
// ssl-client.xml: which authorities it trusts, those of the system where no
// truststore is named. It is TLS 1.2 at least, and a server's certificate has to
// have its name. files are those that were read. The error is Problems.
func LoadClient(ssl *conf.Configuration) (config *tls.Config, files []string, err error) {
	l := &loader{site: ssl, ssl: ssl, loaded: &Loaded{Config: &tls.Config{MinVersion: tls.VersionTLS12}}}
	if _, ok := ssl.Lookup(ClientTruststoreLocation); ok {
		l.loaded.Config.RootCAs = l.authorities()
	}
	if len(l.problems) > 0 {
		return nil, nil, l.problems
	}
	slices.Sort(l.loaded.Files)
	return l.loaded.Config, slices.Compact(l.loaded.Files), nil
}

// authorities reads the truststore of a client, nil if it was refused.
func (l *loader) authorities() *x509.CertPool {
	l.kind(ClientTruststoreType)
	f := l.file(l.ssl, ClientTruststoreLocation)
	if f == nil {
		return nil
	}
	defer clear(f.content)
	password, ok := l.password(ClientTruststorePassword)
	if !ok {
		return nil
	}
	defer clear(password)
	certs, err := trustedCertificates(f, password)
	if err != nil {
		l.refuseStore(f, ClientTruststorePassword, err)
		return nil
	}
	if len(certs) == 0 {
		l.refuse(l.ssl, ClientTruststoreLocation, f.path+" holds no trusted certificate, so no server could be believed",
			"keytool -importcert -keystore "+f.path+" for each authority of the servers' certificates")
		return nil
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool
}
