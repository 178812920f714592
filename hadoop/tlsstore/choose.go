package tlsstore

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/edekd/edekd/hadoop/conf"
)

// keyKind is the type of a private key.
type keyKind int

const (
	ecKey keyKind = iota
	edKey
	rsaKey
)

// servedKey is a private key with its chain, and the names it serves.
type servedKey struct {
	alias  string
	cert   tls.Certificate
	kind   keyKind
	hosts  []string // names in lower case
	wilds  []string // *.domain without its first two characters
	origin *conf.Configuration
	file   string
	// property names file.
	property string
}

// newServedKey takes the names from the certificate as Jetty does: DNS names
// among the alternative ones and the common name too. A certificate that may
// sign others is chosen for no name.
func newServedKey(alias string, pair tls.Certificate, f *file) *servedKey {
	k := &servedKey{alias: alias, cert: pair, origin: f.origin, file: f.path, property: f.property}
	switch pair.PrivateKey.(type) {
	case *ecdsa.PrivateKey:
		k.kind = ecKey
	case ed25519.PrivateKey:
		k.kind = edKey
	default:
		k.kind = rsaKey
	}
	if pair.Leaf.KeyUsage&x509.KeyUsageCertSign != 0 {
		return k
	}
	for _, name := range append(slices.Clone(pair.Leaf.DNSNames), pair.Leaf.Subject.CommonName) {
		name = strings.ToLower(name)
		if domain, ok := strings.CutPrefix(name, "*."); ok {
			k.wilds = append(k.wilds, domain)
		} else if name != "" {
			k.hosts = append(k.hosts, name)
		}
	}
	return k
}

// matches is X509.matches of Jetty for a host name in lower case.
func (k *servedKey) matches(host string) bool {
	if slices.Contains(k.hosts, host) || slices.Contains(k.wilds, host) {
		return true
	}
	_, domain, ok := strings.Cut(host, ".")
	return ok && slices.Contains(k.wilds, domain)
}

// choose picks the key for a client as the JDK, SslContextFactory.Server's
// sniSelect and SunX509's key manager do together. The types of keys are gone
// through in the order of preference. Of the keys of one type that the client
// can check, that one is taken whose certificate has the name the client asks
// for, with the fewest wildcards; when no certificate at all has the name, the
// first. keys are in Java's order.
func choose(keys []*servedKey) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		host := strings.ToLower(hello.ServerName)
		named := slices.ContainsFunc(keys, func(k *servedKey) bool { return k.matches(host) })
		anyName := *hello
		anyName.ServerName = "" // the names are compared here
		for _, kind := range preferred(hello) {
			var best *servedKey
			for _, k := range keys {
				if k.kind != kind || named && !k.matches(host) || best != nil && (!named || len(k.wilds) >= len(best.wilds)) {
					continue
				}
				if anyName.SupportsCertificate(&k.cert) == nil {
					best = k
				}
			}
			if best != nil {
				return &best.cert, nil
			}
		}
		return nil, errNoCertificate
	}
}

var errNoCertificate = errors.New("no certificate of the server's has the name and the type that the client asks for")

// preferred puts the types of keys into the order in which a JDK tries them:
// that of the client's signature algorithms in TLS 1.3, that of its own cipher
// suites before.
func preferred(hello *tls.ClientHelloInfo) []keyKind {
	if !slices.Contains(hello.SupportedVersions, tls.VersionTLS13) {
		return []keyKind{ecKey, edKey, rsaKey}
	}
	var kinds []keyKind
	for _, scheme := range hello.SignatureSchemes {
		kind, ok := schemeKinds[scheme]
		if ok && !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

var schemeKinds = map[tls.SignatureScheme]keyKind{
	tls.ECDSAWithP256AndSHA256: ecKey,
	tls.ECDSAWithP384AndSHA384: ecKey,
	tls.ECDSAWithP521AndSHA512: ecKey,
	tls.Ed25519:                edKey,
	tls.PSSWithSHA256:          rsaKey,
	tls.PSSWithSHA384:          rsaKey,
	tls.PSSWithSHA512:          rsaKey,
}

// sortAsJava puts keys into the order in which a Java server comes to them when
// no name decides: by type, then in the order of a java.util.HashMap of their
// aliases, in which SunX509's key manager keeps them.
func sortAsJava(keys []*servedKey) {
	buckets := uint32(16)
	for 4*uint32(len(keys)) > 3*buckets {
		buckets *= 2
	}
	bucket := func(alias string) uint32 {
		var h uint32
		for _, unit := range utf16.Encode([]rune(strings.ToLower(alias))) {
			h = 31*h + uint32(unit)
		}
		return (h ^ h>>16) & (buckets - 1)
	}
	slices.SortStableFunc(keys, func(a, b *servedKey) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(bucket(a.alias), bucket(b.alias)))
	})
}
