// Package kms is a key management server as the measurements need it: started on
// a core of its own with everything on, or a bare one beside it, and the bytes of
// the requests that are sent to it.
//
// "Everything on" is what a production server has on the way of each request:
// senders known by cookie, both layers of kms-acls.xml decided by groups, the
// audit log in a file, metrics. Where a Java KMS is measured, it reads the very
// same files.
package kms

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The users of the measurements. The NameNode and the readers of files are in
// the group that the rules name; Service is a proxy user.
const (
	NameNode = "hdfs"
	Service  = "hive"
	Reader   = "alice"

	group = "staff"
)

// ReaderName is the i-th of the further users that Options.Readers asks for.
func ReaderName(i int) string { return fmt.Sprintf("reader%d", i) }

// Properties are name, value pairs of a configuration file.
type Properties []string

// WriteConfig writes core-site.xml, kms-site.xml and kms-acls.xml into dir. readers
// is how many further users are members of the group; more are further properties
// of kms-site.xml.
func WriteConfig(dir, provider string, readers int, more Properties) error {
	secret := filepath.Join(dir, "signature.secret")
	if err := os.WriteFile(secret, []byte("of the measurements only"), 0o600); err != nil {
		return err
	}
	groups := []string{NameNode + "=" + group + ",users", Service + "=" + group, Reader + "=users," + group}
	for i := range readers {
		groups = append(groups, ReaderName(i)+"="+group)
	}
	core := Properties{"hadoop.user.group.static.mapping.overrides", strings.Join(groups, ";")}
	site := Properties{
		"hadoop.kms.http.host", "127.0.0.1",
		"hadoop.kms.http.port", "0",
		"hadoop.http.idle_timeout.ms", "3600000",
		"hadoop.kms.key.provider.uri", provider,
		"hadoop.kms.authentication.type", "simple",
		"hadoop.kms.authentication.signer.secret.provider", "file",
		"hadoop.kms.authentication.signature.secret.file", secret,
		"hadoop.kms.proxyuser." + Service + ".users", "*",
		"hadoop.kms.proxyuser." + Service + ".hosts", "*",
	}
	for name, p := range map[string]Properties{"core-site.xml": core, "kms-site.xml": append(site, more...)} {
		if err := writeSite(filepath.Join(dir, name), p); err != nil {
			return err
		}
	}
	return WriteRules(dir, 0)
}

// WriteRules writes kms-acls.xml anew, in one step. Nobody but members of the
// group may do anything, so that each request needs the group; further rules make
// the file as long as that of a site with a hundred zones of rules their own. Each
// edition differs from the others, in a rule that concerns nobody.
func WriteRules(dir string, edition int) error {
	const members = "nobody " + group
	p := Properties{"key.acl.edition.READ", fmt.Sprintf("edition%d", edition)}
	for _, op := range []string{"CREATE", "DELETE", "ROLLOVER", "GET", "GET_KEYS", "GET_METADATA", "SET_KEY_MATERIAL", "GENERATE_EEK", "DECRYPT_EEK"} {
		p = append(p, "hadoop.kms.acl."+op, members)
	}
	for _, op := range []string{"GENERATE_EEK", "DECRYPT_EEK"} {
		p = append(p, "hadoop.kms.blacklist."+op, "root banned")
	}
	for _, op := range []string{"MANAGEMENT", "GENERATE_EEK", "DECRYPT_EEK", "READ"} {
		p = append(p, "default.key.acl."+op, members)
		for zone := range 100 {
			p = append(p, fmt.Sprintf("key.acl.zone%d.%s", zone, op), members)
		}
	}
	return writeSite(filepath.Join(dir, "kms-acls.xml"), p)
}

func writeSite(path string, p Properties) error {
	var b strings.Builder
	b.WriteString("<?xml version=\"1.0\"?>\n<configuration>\n")
	for i := 0; i+1 < len(p); i += 2 {
		fmt.Fprintf(&b, "  <property><name>%s</name><value>%s</value></property>\n", p[i], p[i+1])
	}
	b.WriteString("</configuration>\n")
	if err := os.WriteFile(path+".new", []byte(b.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// WriteCertificate writes a PEM file with a new P-256 key and a certificate of it
// for 127.0.0.1.
func WriteCertificate(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(240 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	return os.WriteFile(path, text, 0o600)
}
