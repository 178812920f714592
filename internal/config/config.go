// Package config is everything edekd can be told, read from a folder of
// Hadoop's own configuration files.
//
// Load reads core-site.xml and kms-site.xml, the latter laid over the former,
// and apart from them kms-acls.xml and ssl-server.xml. Files may be missing.
// Hadoop's defaults apply, then the files, then the KMS_* environment variables
// that Hadoop's own start-up reads. Settings of edekd's own are the edekd.*
// properties of kms-site.xml, listed by Properties.
//
// What cannot be used is refused, all of it at once, each with file, property
// and remedy. That holds above all for what edekd would have to enforce and
// cannot: callers without a name, a Ranger authorizer, Java classes. Where
// Java falls back to something weaker (a random signing secret in the place of
// an unreadable one, the default in the place of an odd boolean) Load refuses.
// Properties of Hadoop that edekd has no use for are accepted and ignored.
//
// Load looks at files and folders but changes none.
package config

import (
	"io/fs"
	"time"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/hadoop/conf"
)

// Config is the whole configuration. It is read-only once loaded.
type Config struct {
	// Dir is the absolute path of the configuration folder.
	Dir string

	HTTP     HTTP
	TLS      bool // hadoop.kms.ssl.enabled
	Auth     Auth
	Keys     Keys
	Cache    Cache
	Upstream Upstream
	Queue    Queue
	Audit    Audit
	Logs     Logs
	Limits   Limits

	// StateDir is edekd's own folder, an absolute path: edekd.state.dir. It
	// need not exist yet.
	StateDir string
	// HomeDir is the home folder of the user, what Java calls user.home.
	HomeDir string
	// Drain is how long connections are still accepted after SIGTERM:
	// edekd.drain.seconds, 0 to 8 s.
	Drain time.Duration
	// MetricsProcess is the service in the names of JMX beans:
	// hadoop.kms.metrics.process.name.
	MetricsProcess string

	// Warnings are remarks on a configuration that can be served.
	Warnings []Problem

	// Site is core-site.xml and kms-site.xml, ACLs kms-acls.xml and SSL the
	// file that hadoop.ssl.server.conf names, for what reads its properties
	// itself. All know Hadoop's defaults and the environment.
	Site, ACLs, SSL *conf.Configuration
	// ClientSSL is the file that hadoop.ssl.client.conf names, nil unless a
	// provider is reached by https.
	ClientSSL *conf.Configuration

	place func(property string) string
}

// Problem says of a property, one of kms-site.xml, what came to light only
// when its value was used. It knows where the property is set.
func (c *Config) Problem(property, what, remedy string) Problem {
	return Problem{File: c.place(property), Property: property, What: what, Remedy: remedy}
}

// HTTP is how edekd listens.
type HTTP struct {
	Host           string        // hadoop.kms.http.host
	Port           int           // hadoop.kms.http.port; 0 takes a free one
	MaxHeaderBytes int           // hadoop.http.max.request.header.size
	MaxThreads     int           // hadoop.http.max.threads: checked, and so far without effect
	IdleTimeout    time.Duration // hadoop.http.idle_timeout.ms
	Backlog        int           // hadoop.http.socket.backlog.size: checked, and without effect
	Headers        []Header      // hadoop.http.header.NAME, in the order of their names

	// UnixSocket is the absolute path of a socket that serves as the port does, ""
	// for none: edekd.http.unix-socket.
	UnixSocket      string
	UnixSocketMode  fs.FileMode       // its permissions: edekd.http.unix-socket.mode
	UnixSocketUsers map[uint32]string // short names by uid: edekd.http.unix-socket.users

	// MetricsAddress is a host:port for /metrics and /jmx without
	// authentication, "" for none: edekd.metrics.address.
	MetricsAddress string
	// ProfileAddress is an address of the loopback interface with a port, for Go's
	// profiles, "" for none: edekd.profile.address.
	ProfileAddress string
	// AdminsOnly keeps /metrics and /jmx on the port of the KMS to Admins, a list
	// as in kms-acls.xml: hadoop.security.instrumentation.requires.admin with
	// hadoop.security.authorization, and hadoop.kms.http.administrators.
	AdminsOnly bool
	Admins     string
}

// Header is a header added to every answer.
type Header struct{ Name, Value string }

// Auth is how callers prove who they are: hadoop.kms.authentication.*.
type Auth struct {
	Kerberos      bool     // type is kerberos, not simple
	Keytab        string   // kerberos.keytab
	Principal     string   // principal
	NameRules     string   // kerberos.name.rules
	RuleMechanism string   // kerberos.name.rules.mechanism
	Whitelist     []string // kerberos.endpoint.whitelist: paths that need no authentication

	// MaxInactive is how long a cookie lives unused, 0 for as long as any
	// (token.max-inactive-interval).
	MaxInactive      time.Duration
	TokenValidity    time.Duration // token.validity: how long a cookie lives
	CookieDomain     string        // cookie.domain, "" for none
	CookiePath       string        // cookie.path, "" for none
	CookiePersistent bool          // cookie.persistent: whether the cookie carries Expires
	// SharedSecret says that the secrets that sign cookies are in ZooKeeper:
	// signer.secret.provider is zookeeper.
	SharedSecret bool
	// SecretFile holds the secret that signs cookies, the whole content of the
	// file (signature.secret.file, where signer.secret.provider is file). When
	// "", and nothing is shared, secrets are random and die with the process.
	// Java falls back to random when the file is missing, unreadable or empty;
	// Load refuses.
	SecretFile string
}

// Keys is where zone keys live and how new ones are made.
type Keys struct {
	// Providers are the URIs of the chain, at least one:
	// hadoop.kms.key.provider.uri. When that is not set, it is a SQLite file in
	// StateDir, unless Hadoop's own default, kms.keystore in the home folder,
	// exists: then Load refuses to choose.
	Providers []string
	// KeystorePasswordFile holds the password of JCEKS files where the
	// environment variable HADOOP_KEYSTORE_PASSWORD is not set, "" for none:
	// hadoop.security.keystore.java-keystore-provider.password-file. A
	// relative name starts from Dir, which Java finds on its class path.
	KeystorePasswordFile string
	// IdentityFile holds the OpenPGP identity that seals deposits:
	// edekd.identity.file. It need not exist yet.
	IdentityFile string
	// PassphraseFile holds the passphrase of IdentityFile, "" for none:
	// edekd.identity.passphrase-file.
	PassphraseFile string

	DefaultCipher    string     // hadoop.security.key.default.cipher
	DefaultBitLength int        // hadoop.security.key.default.bitlength
	Suite            edek.Suite // hadoop.security.crypto.cipher.suite: wraps DEKs
	Authorization    bool       // hadoop.kms.key.authorization.enable: whether new keys get the attribute key.acl.name
}

// Upstream is how the KMS is used that a provider kms:// names: edekd.upstream.*.
// All of it is zero where there is none.
type Upstream struct {
	Kerberos  bool   // authentication is kerberos, not simple
	User      string // user: what edekd is called there, never ""
	Principal string // principal
	Keytab    string // keytab

	LocalAuthorization bool          // authorization is local
	Grant              time.Duration // grant.seconds
	GrantOutage        time.Duration // grant.outage.seconds

	CacheDecrypts bool          // decrypt is cache
	LocalDecrypts bool          // decrypt is local
	DecryptBytes  int64         // decrypt.cache-bytes
	DecryptAge    time.Duration // decrypt.max-age.seconds

	RingCover time.Duration // ring.cover.seconds
	RingBytes int64         // ring.budget-bytes
	// RingReserve is the share of each ring that only Reserved get while the KMS is
	// not well: ring.reserve.percent and ring.reserve.users, short names.
	RingReserve float64
	Reserved    map[string]bool

	Poll           time.Duration // poll.seconds
	Attempt, Total time.Duration // attempt.ms, total.ms
	InFlight       int           // in-flight
}

// Cache is how long keys are remembered.
type Cache struct {
	Enabled        bool          // hadoop.kms.cache.enable
	Timeout        time.Duration // hadoop.kms.cache.timeout.ms: versions and metadata, after the last use
	CurrentTimeout time.Duration // hadoop.kms.current.key.cache.timeout.ms: current versions, after loading
}

// Queue is how many EDEKs of far keys are made ahead:
// hadoop.security.kms.encrypted.key.cache.*. Near keys need no queue.
type Queue struct {
	Size         int           // size: EDEKs for each key
	LowWatermark float64       // low.watermark: the part of Size below which the queue is filled up
	FillThreads  int           // num.fill.threads
	Expiry       time.Duration // expiry: of a queue nobody asks
}

// Audit is what goes to kms-audit.log and kms-audit.json in Logs.Dir.
type Audit struct {
	Text   bool          // edekd.audit.format is text or both
	JSON   bool          // edekd.audit.format is json or both
	Window time.Duration // hadoop.kms.audit.aggregation.window.ms
}

// Logs is where log files are.
type Logs struct {
	// Dir is the folder of kms-audit.log: edekd.log.dir, else the environment
	// variable KMS_LOG, kms.log.dir, hadoop.log.dir, else logs in the state
	// folder. It need not exist yet.
	Dir string
	// ToFile tells whether kms.log is written to Dir as well as to standard
	// error: when Dir was named, not taken by default.
	ToFile   bool
	MaxBytes int64 // of a log file before another is begun, 0 for no bound: edekd.log.max-bytes
	Keep     int   // how many ended log files are kept, 0 for all: edekd.log.keep
	// Access tells whether each request is logged: edekd.access-log.enabled.
	Access bool
}

// Limits bound what one request may ask for, where Java has no bound.
type Limits struct {
	NumKeys        int // edekd.limits.num-keys
	BatchEntries   int // edekd.limits.batch-entries
	BatchBodyBytes int // edekd.limits.batch-body-bytes
	BodyBytes      int // edekd.limits.body-bytes
}
