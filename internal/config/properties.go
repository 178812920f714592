package config

import (
	"slices"
	"strings"
)

// Property describes one of edekd's own properties.
type Property struct {
	Name    string
	Default string // as it would be written in the file, "" when there is none
	Meaning string // one sentence
}

// properties is the one list of edekd's own properties. Their defaults are the
// lowest layer of the configuration.
var properties = []Property{
	{"edekd.state.dir", "${env.STATE_DIRECTORY:-/var/lib/edekd}", "The folder where edekd keeps what must outlive it: the key store, its identity, its logs."},
	{"edekd.identity.file", "${edekd.state.dir}/identity.pgp", "The OpenPGP identity that seals the keys in the store; it is made at the first start, and without it no key can be opened."},
	{"edekd.identity.passphrase-file", "", "A file with the passphrase that locks the identity; without it the identity is protected by its file mode alone."},
	{"edekd.log.dir", "", "The folder for kms.log and kms-audit.log; when it is not set, the audit log goes to the folder logs in the state folder and kms.log to standard error only."},
	{"edekd.log.max-bytes", "0", "How large a log file may grow before another is begun, in bytes; 0 means that only the end of a day begins one."},
	{"edekd.log.keep", "0", "How many ended files of each log are kept; 0 keeps all. What this deletes of the audit log is gone."},
	{"edekd.audit.format", "text", "How the audit log is written: text, Hadoop's lines in kms-audit.log; json, one object a line in kms-audit.json; or both."},
	{"edekd.access-log.enabled", "false", "Whether each request is logged, with address, status and time taken."},
	{"edekd.tls.certificate-file", "", "A PEM file with the certificate chain, the server's own certificate first."},
	{"edekd.tls.key-file", "", "A PEM file with the private key of the certificate, not encrypted."},
	{"edekd.metrics.address", "", "A host:port for /metrics and /jmx alone, without authentication; when it is not set, they are seen on the port of the KMS only."},
	{"edekd.profile.address", "", "A loopback address and port, such as 127.0.0.1:9602, where Go's profiles of the process can be fetched, without authentication; when it is not set, they cannot."},
	{"edekd.http.unix-socket", "", "A path where a Unix socket serves the KMS to processes of this host, beside the port."},
	{"edekd.http.unix-socket.mode", "0660", "The file mode of the socket, in octal: who may write it may connect."},
	{"edekd.http.unix-socket.users", "", "Which users' processes need no other proof on the socket, as uid=name, divided by commas."},
	{"edekd.proxies.trusted", "", "Addresses and networks of the proxies and balancers whose word counts for where a request comes from."},
	{"edekd.proxies.protocol", "none", "How they give the client's address: none, proxy-v2 or x-forwarded-for."},
	{"edekd.tokens.max", "1000000", "How many delegation tokens may live at once."},
	{"edekd.tokens.max-per-owner", "10000", "How many of them one owner may have, as each server counts those it issued or renewed; 0 means no such bound."},
	{"edekd.limits.num-keys", "10000", "How many encrypted keys one generate request may ask for."},
	{"edekd.limits.batch-entries", "20000", "How many encrypted keys one batch may hold, of reencrypts or decrypts."},
	{"edekd.limits.batch-body-bytes", "16777216", "How long the body of a batch may be, in bytes."},
	{"edekd.limits.body-bytes", "65536", "How long the body of any other request may be, in bytes."},
	{"edekd.upstream.authentication", "${hadoop.kms.authentication.type}", "How edekd proves itself to the KMS that kms:// names: simple or kerberos."},
	{"edekd.upstream.user", "", "What that KMS calls edekd: the short name edekd gives with simple, and that of its principal with kerberos; not set, the user that edekd runs as, or the first part of the principal. A caller of that name is refused."},
	{"edekd.upstream.principal", "", "The principal edekd logs in as; _HOST is this host's full name."},
	{"edekd.upstream.keytab", "${hadoop.kms.authentication.kerberos.keytab}", "The keytab with the keys of that principal."},
	{"edekd.upstream.authorization", "upstream", "Who decides what a caller gets from what was fetched ahead: upstream, which the caller must have asked himself lately, or local, kms-acls.xml alone, which with decrypt cache must say who may decrypt."},
	{"edekd.upstream.grant.seconds", "300", "How long a caller is served from what was fetched ahead after a request of his own that the KMS answered."},
	{"edekd.upstream.grant.outage.seconds", "0", "How much longer he is served when no server of the KMS answers, and after that until it is his turn to be asked for."},
	{"edekd.upstream.decrypt", "forward", "What becomes of decrypts: forward, each one goes to the KMS as the caller; cache, answers are kept in memory for callers who were lately let in; or local, copies of key versions are, with which edekd itself decrypts for those."},
	{"edekd.upstream.decrypt.cache-bytes", "67108864", "How much memory those answers or copies may take, in bytes."},
	{"edekd.upstream.decrypt.max-age.seconds", "300", "How old they may become, however often they are used."},
	{"edekd.upstream.ring.cover.seconds", "600", "How long what is fetched ahead of a key should last at the rate it is used, within the budget."},
	{"edekd.upstream.ring.budget-bytes", "67108864", "How much memory encrypted keys that were fetched ahead may take, in bytes."},
	{"edekd.upstream.ring.reserve.percent", "0", "The part of what was fetched ahead that is kept for certain users while no server of the KMS answers, in per cent."},
	{"edekd.upstream.ring.reserve.users", "", "Those users by their short names, divided by commas: the NameNodes' above all."},
	{"edekd.upstream.poll.seconds", "10", "How often keys in use are compared with those of the KMS, to see changes made elsewhere."},
	{"edekd.upstream.attempt.ms", "5000", "How long one server of the KMS may take to answer, in milliseconds."},
	{"edekd.upstream.total.ms", "12500", "How long a request to the KMS may take with its repetition, in milliseconds."},
	{"edekd.upstream.in-flight", "256", "How many requests may be under way at one server of the KMS; the others wait their turn."},
	{"edekd.drain.seconds", "3", "How long, after the signal to stop, connections are still accepted so that load balancers notice; 0 to 8."},
}

// Properties lists edekd's own properties in the order of the manual.
func Properties() []Property { return slices.Clone(properties) }

// Names of Hadoop's properties that edekd reads.
const (
	httpHost             = "hadoop.kms.http.host"
	httpPort             = "hadoop.kms.http.port"
	httpHeaderSize       = "hadoop.http.max.request.header.size"
	httpThreads          = "hadoop.http.max.threads"
	httpIdleTimeout      = "hadoop.http.idle_timeout.ms"
	httpBacklog          = "hadoop.http.socket.backlog.size"
	httpHeaders          = "hadoop.http.header."
	httpTempDir          = "hadoop.http.temp.dir"
	sslEnabled           = "hadoop.kms.ssl.enabled"
	sslServerConf        = "hadoop.ssl.server.conf"
	sslClientConf        = "hadoop.ssl.client.conf"
	providerURI          = "hadoop.kms.key.provider.uri"
	passwordFile         = "hadoop.security.keystore.java-keystore-provider.password-file"
	defaultCipher        = "hadoop.security.key.default.cipher"
	defaultBitLength     = "hadoop.security.key.default.bitlength"
	cipherSuite          = "hadoop.security.crypto.cipher.suite"
	cacheEnable          = "hadoop.kms.cache.enable"
	cacheTimeout         = "hadoop.kms.cache.timeout.ms"
	currentTimeout       = "hadoop.kms.current.key.cache.timeout.ms"
	queueSize            = "hadoop.security.kms.encrypted.key.cache.size"
	queueWatermark       = "hadoop.security.kms.encrypted.key.cache.low.watermark"
	queueThreads         = "hadoop.security.kms.encrypted.key.cache.num.fill.threads"
	queueExpiry          = "hadoop.security.kms.encrypted.key.cache.expiry"
	auditWindow          = "hadoop.kms.audit.aggregation.window.ms"
	auditLogger          = "hadoop.kms.audit.logger"
	keyAuthorization     = "hadoop.kms.key.authorization.enable"
	metricsProcess       = "hadoop.kms.metrics.process.name"
	authType             = "hadoop.kms.authentication.type"
	authAnonymous        = "hadoop.kms.authentication.simple.anonymous.allowed"
	authValidity         = "hadoop.kms.authentication.token.validity"
	authInactive         = "hadoop.kms.authentication.token.max-inactive-interval"
	authCookieDomain     = "hadoop.kms.authentication.cookie.domain"
	authCookiePath       = "hadoop.kms.authentication.cookie.path"
	authCookiePersist    = "hadoop.kms.authentication.cookie.persistent"
	authSecret           = "hadoop.kms.authentication.signer.secret.provider"
	authSecretFile       = "hadoop.kms.authentication.signature.secret.file"
	authKeytab           = "hadoop.kms.authentication.kerberos.keytab"
	authPrincipal        = "hadoop.kms.authentication.kerberos.principal"
	authNameRules        = "hadoop.kms.authentication.kerberos.name.rules"
	authRuleMechanism    = "hadoop.kms.authentication.kerberos.name.rules.mechanism"
	authWhitelist        = "hadoop.kms.authentication.kerberos.endpoint.whitelist"
	authToLocal          = "hadoop.security.auth_to_local"
	httpAdmins           = "hadoop.kms.http.administrators"
	authManager          = "hadoop.kms.security.authorization.manager"
	requiresAdmin        = "hadoop.security.instrumentation.requires.admin"
	serviceAuthorization = "hadoop.security.authorization"
	kmsLogDir            = "kms.log.dir"
	hadoopLogDir         = "hadoop.log.dir"
	storeLocation        = "ssl.server.keystore.location"
	storePassword        = "ssl.server.keystore.password"
)

const simpleAuditLogger = "org.apache.hadoop.crypto.key.kms.server.SimpleKMSAuditLogger"

// hadoopDefaults are the values of kms-default.xml and core-default.xml of
// Hadoop 3.4 that edekd or a ${variable} may ask for.
var hadoopDefaults = map[string]string{
	httpHost:             "0.0.0.0",
	httpPort:             "9600",
	httpHeaderSize:       "65536",
	httpThreads:          "1000",
	httpIdleTimeout:      "60000",
	httpBacklog:          "500",
	httpTempDir:          "${hadoop.tmp.dir}/kms",
	sslEnabled:           "false",
	sslServerConf:        "ssl-server.xml",
	sslClientConf:        "ssl-client.xml",
	defaultCipher:        "AES/CTR/NoPadding",
	defaultBitLength:     "128",
	cipherSuite:          "AES/CTR/NoPadding",
	cacheEnable:          "true",
	cacheTimeout:         "600000",
	currentTimeout:       "30000",
	queueSize:            "100",
	queueWatermark:       "0.3",
	queueThreads:         "2",
	queueExpiry:          "43200000",
	auditWindow:          "10000",
	auditLogger:          simpleAuditLogger,
	keyAuthorization:     "true",
	metricsProcess:       "KMS",
	authType:             "simple",
	authAnonymous:        "false",
	authValidity:         "36000",
	authInactive:         "-1",
	authCookiePersist:    "false",
	authSecret:           "random",
	authKeytab:           "${user.home}/kms.keytab",
	authPrincipal:        "HTTP/localhost",
	authNameRules:        "DEFAULT",
	requiresAdmin:        "false",
	serviceAuthorization: "false",
	"hadoop.tmp.dir":     "/tmp/hadoop-${user.name}",
}

// environment names the variables that override properties, as Hadoop's
// KMSWebServer does; its response header size has no meaning here.
var environment = []struct{ variable, property string }{
	{"KMS_TEMP", httpTempDir},
	{"KMS_HTTP_PORT", httpPort},
	{"KMS_MAX_THREADS", httpThreads},
	{"KMS_MAX_HTTP_HEADER_SIZE", httpHeaderSize},
	{"KMS_SSL_ENABLED", sslEnabled},
	{"KMS_SSL_KEYSTORE_FILE", storeLocation},
	{"KMS_SSL_KEYSTORE_PASS", storePassword},
}

// nearest returns the known name that needs the fewest edits to become name: of
// those that name is the beginning of, if there are any, since the end of a name is
// what is most easily left out.
func nearest(name string) string {
	best, fewest, begins := "", -1, false
	for _, p := range properties {
		longer := strings.HasPrefix(p.Name, name)
		if d := distance(name, p.Name); fewest < 0 || longer && !begins || longer == begins && d < fewest {
			best, fewest, begins = p.Name, d, longer
		}
	}
	return best
}

// distance is the number of bytes to insert, remove or replace to make b of a.
// Beyond 200 bytes a does not count.
func distance(a, b string) int {
	a = a[:min(len(a), 200)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
