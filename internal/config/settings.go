package config

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/hadoop/conf"
	"github.com/edekd/edekd/hadoop/uri"
)

const (
	day  = 24 * time.Hour
	year = 365 * day
)

// headerName is what Hadoop takes for the name of an extra header.
var headerName = regexp.MustCompile(`^[a-zA-Z_-]+$`)

func (l *loader) http() {
	s, h := &l.site, &l.cfg.HTTP
	h.Host = s.text(httpHost)
	if h.Host == "" || strings.ContainsAny(h.Host, " /\t\n") {
		s.refuse(httpHost, fmt.Sprintf("%q is no host to listen on", h.Host), "0.0.0.0 for all addresses, or one address of this host")
	}
	h.Port = s.number(httpPort, 0, 65535)
	h.MaxHeaderBytes = s.number(httpHeaderSize, 4096, 16<<20)
	h.MaxThreads = s.number(httpThreads, 1, 1_000_000)
	h.IdleTimeout = s.milliseconds(httpIdleTimeout, time.Millisecond, day)
	if h.IdleTimeout > 0 && h.IdleTimeout < 10*time.Second {
		s.warn(httpIdleTimeout, "Java clients keep idle connections for 5 s and fail when the server closes them first", "at least 10000")
	}
	h.Backlog = s.number(httpBacklog, 1, math.MaxInt32)
	for _, p := range s.conf.WithPrefix(httpHeaders) {
		name, value := strings.TrimPrefix(p.Name, httpHeaders), s.text(p.Name)
		switch {
		case !headerName.MatchString(name):
			s.refuse(p.Name, fmt.Sprintf("%q cannot name a header", name), "letters, hyphens and underscores after "+httpHeaders)
		case strings.ContainsFunc(value, control):
			s.refuse(p.Name, "a header's value cannot hold control characters", "a value of one line")
		default:
			h.Headers = append(h.Headers, Header{name, value})
		}
	}
	l.cfg.Drain = time.Duration(s.number("edekd.drain.seconds", 0, 8)) * time.Second
	l.instruments()
	l.unixSocket()
}

// instruments says who may see /metrics and /jmx, and where profiles are.
func (l *loader) instruments() {
	s, h := &l.site, &l.cfg.HTTP
	// Hadoop's administrators need both: without service authorization it lets
	// everybody in.
	admin, authorization := s.boolean(requiresAdmin), s.boolean(serviceAuthorization)
	h.AdminsOnly = admin && authorization
	if admin && !authorization {
		s.warn(requiresAdmin, "without effect, as in Hadoop, because "+serviceAuthorization+" is false", "set "+serviceAuthorization+" to true, too")
	}
	h.Admins = s.text(httpAdmins)
	const metrics, profile = "edekd.metrics.address", "edekd.profile.address"
	if h.MetricsAddress = s.text(metrics); h.MetricsAddress != "" {
		if _, ok := splitAddress(h.MetricsAddress); !ok {
			s.refuse(metrics, fmt.Sprintf("%q is no address to listen on", h.MetricsAddress), "host:port, such as 127.0.0.1:9601, with a port up to 65535")
		}
	}
	if h.ProfileAddress = s.text(profile); h.ProfileAddress != "" {
		// A name may stand for another address tomorrow.
		host, ok := splitAddress(h.ProfileAddress)
		if ip := net.ParseIP(host); !ok || !ip.IsLoopback() {
			s.refuse(profile, fmt.Sprintf("%q is no loopback address with a port", h.ProfileAddress), "127.0.0.1:9602 or [::1]:9602: profiles are for users of this host, never for a network")
		}
	}
}

// splitAddress returns the host of a host:port, and whether it is one.
func splitAddress(address string) (host string, ok bool) {
	host, port, err := net.SplitHostPort(address)
	if err == nil && port != "" {
		_, err = net.LookupPort("tcp", port)
	}
	return host, err == nil && port != ""
}

func control(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

func (l *loader) auth() {
	s, a := &l.site, &l.cfg.Auth
	switch kind := s.text(authType); kind {
	case "simple":
	case "kerberos":
		a.Kerberos = true
		l.kerberos()
	default:
		s.refuse(authType, fmt.Sprintf("edekd cannot authenticate callers by %q", kind), "kerberos, or simple for a cluster where everybody is trusted")
	}
	if s.boolean(authAnonymous) {
		s.refuse(authAnonymous, "callers without a name cannot be served", "false")
	}
	a.TokenValidity = time.Duration(s.number(authValidity, 1, int(10*year/time.Second))) * time.Second
	if idle := s.number(authInactive, math.MinInt32, int(10*year/time.Second)); idle > 0 {
		a.MaxInactive = time.Duration(idle) * time.Second
	}
	a.CookieDomain = l.cookieAttribute(authCookieDomain)
	a.CookiePath = l.cookieAttribute(authCookiePath)
	a.CookiePersistent = s.boolean(authCookiePersist)

	switch provider := s.text(authSecret); provider {
	case "random":
		if s.isSet(authSecretFile) {
			s.warn(authSecretFile, "not used, because "+authSecret+" is random", "set "+authSecret+" to file, so that cookies outlive a restart and other servers accept them")
		}
	case "file":
		if !s.isSet(authSecretFile) {
			s.refuse(authSecretFile, authSecret+" is file, but no file is named (Java would take a random secret)", "the path of a file with the secret, the same on all servers")
		}
		a.SecretFile = s.readable(authSecretFile, s.filePath(authSecretFile), true)
	case "zookeeper":
		a.SharedSecret = true
	default:
		s.refuse(authSecret, fmt.Sprintf("edekd cannot take the secret for cookies from %q", provider), "random for a server that stands alone, zookeeper, or file with "+authSecretFile)
	}
}

func (l *loader) kerberos() {
	s, a := &l.site, &l.cfg.Auth
	a.Keytab = s.readable(authKeytab, s.filePath(authKeytab), true)
	if a.Principal = s.text(authPrincipal); a.Principal == "" {
		s.refuse(authPrincipal, "no principal is named", "* for all HTTP/ principals of the keytab")
	}
	a.NameRules, a.RuleMechanism = s.text(authNameRules), s.text(authRuleMechanism)
	if s.isSet(authToLocal) && !s.isSet(authNameRules) {
		s.warn(authToLocal, "is not what the KMS reads, here as in Java: users get their names by "+authNameRules+", which is not set", "set "+authNameRules+" in "+s.path+" to the same rules")
	}
	list, err := s.conf.Strings(authWhitelist)
	if err != nil {
		s.refuseValue(authWhitelist, err, "write the value out")
	}
	a.Whitelist = list
	for _, path := range list {
		if !slices.Contains(openable, path) {
			s.warn(authWhitelist, fmt.Sprintf("%q is not opened: callers have to authenticate there", path),
				"remove it: only "+strings.Join(openable, ", ")+" can be opened to everybody")
		}
	}
}

// openable are the paths that need no authentication if the whitelist has them.
var openable = []string{"/metrics", "/jmx", "/kms/jmx"}

func (l *loader) cookieAttribute(name string) string {
	value := l.site.text(name)
	if strings.ContainsRune(value, ';') || strings.ContainsFunc(value, control) {
		l.site.refuse(name, fmt.Sprintf("%q cannot stand in a cookie", value), "a value without semicolons and control characters")
	}
	return value
}

func (l *loader) keys() {
	s, k := &l.site, &l.cfg.Keys
	l.cfg.StateDir = s.filePath("edekd.state.dir")
	if l.cfg.StateDir != "" || s.isSet("edekd.identity.file") { // else the default, in the state folder, is wrong with it
		k.IdentityFile = s.filePath("edekd.identity.file")
	}
	k.PassphraseFile = s.readable("edekd.identity.passphrase-file", s.filePath("edekd.identity.passphrase-file"), true)
	k.Authorization = s.boolean(keyAuthorization)

	k.DefaultCipher = s.text(defaultCipher)
	k.DefaultBitLength = s.number(defaultBitLength, 1, math.MaxInt32)
	if material, err := edek.GenerateMaterial("", "", k.DefaultCipher, k.DefaultBitLength); err == nil {
		clear(material)
	} else if k.DefaultBitLength != 0 {
		name := defaultCipher
		if !s.isSet(name) {
			name = defaultBitLength
		}
		s.refuse(name, fmt.Sprintf("no keys of %d bits can be made for %q", k.DefaultBitLength, k.DefaultCipher),
			fmt.Sprintf("%s AES/CTR/NoPadding with %s 128, 192 or 256, or SM4/CTR/NoPadding with 128", defaultCipher, defaultBitLength))
	}
	k.Suite = edek.Suite(s.text(cipherSuite))
	if k.Suite != edek.AESCTR && k.Suite != edek.SM4CTR {
		s.refuse(cipherSuite, fmt.Sprintf("%q cannot wrap keys", k.Suite), fmt.Sprintf("%s or %s, the one the cluster's clients have", edek.AESCTR, edek.SM4CTR))
	}
	l.providers()
}

func (l *loader) providers() {
	s, k := &l.site, &l.cfg.Keys
	if !s.isSet(providerURI) {
		own := "sqlite://file@" + escape(filepath.Join(l.cfg.StateDir, "keys.db"))
		k.Providers = []string{own}
		l.defaultKeystore(own)
		return
	}
	list, err := s.conf.Strings(providerURI)
	if err != nil {
		s.refuseValue(providerURI, err, "write the value out")
		return
	}
	if k.Providers = list; len(list) == 0 {
		s.refuse(providerURI, "names no provider", "remove the property, or sqlite://file@/var/lib/edekd/keys.db")
	}
	for i, provider := range list {
		switch scheme, _, _ := strings.Cut(provider, "://"); scheme {
		case "sqlite", "jceks":
			if _, err := uri.LocalPath(provider); err != nil {
				s.refuse(providerURI, err.Error(), scheme+"://file@ followed by an absolute path")
			}
		case "kms":
			l.farProvider(provider)
		default:
			if i > 0 && scheme == provider && strings.HasPrefix(list[i-1], "kms://") {
				s.refuse(providerURI, fmt.Sprintf("%q names no provider: a comma divides providers, not the hosts of one", provider), "a semicolon between the hosts of a KMS: kms://https@HOST;HOST:9600/kms")
				continue
			}
			s.refuse(providerURI, "edekd cannot yet keep keys in "+conf.Quote(providerURI, provider), "sqlite://file@PATH, jceks://file@PATH for the file of a Java KMS, or kms://https@HOST:9600/kms for another KMS")
		}
	}
	jceks := slices.ContainsFunc(list, func(provider string) bool { return strings.HasPrefix(provider, "jceks:") })
	if file := s.text(passwordFile); file != "" {
		if !filepath.IsAbs(file) {
			file = filepath.Join(l.cfg.Dir, file)
		}
		k.KeystorePasswordFile = file
		if _, ok := l.env("HADOOP_KEYSTORE_PASSWORD"); jceks && !ok {
			k.KeystorePasswordFile = s.readable(passwordFile, file, true)
		}
	}
}

// defaultKeystore refuses edekd's default store where Hadoop's default has
// keys: an empty store in its place would look like the loss of them all. The
// home folder is looked for where Java finds it and where $HOME says.
func (l *loader) defaultKeystore(own string) {
	homes := []string{l.cfg.HomeDir}
	if home := l.variable("HOME"); home != l.cfg.HomeDir {
		homes = append(homes, home)
	}
	for _, home := range homes {
		if home == "" {
			continue
		}
		keystore := filepath.Join(home, "kms.keystore")
		for _, name := range []string{keystore, keystore + "_OLD", keystore + "_NEW"} {
			_, err := os.Stat(name)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
				continue
			}
			what := name + " exists, Hadoop's default for the keys of a KMS, and no provider is set"
			if err != nil {
				what = fmt.Sprintf("no provider is set, and whether Hadoop's default has keys cannot be seen: %v", err)
			}
			l.site.refuse(providerURI, what, fmt.Sprintf("jceks://file@%s to serve the keys in that file, or %s to begin with an empty store", escape(keystore), own))
			return
		}
	}
}

// escape writes a path as it stands in a provider URI.
func escape(path string) string { return strings.ReplaceAll(path, "%", "%25") }

func (l *loader) caches() {
	s, c, q := &l.site, &l.cfg.Cache, &l.cfg.Queue
	c.Enabled = s.boolean(cacheEnable)
	c.Timeout = s.milliseconds(cacheTimeout, 0, year)
	c.CurrentTimeout = s.milliseconds(currentTimeout, 0, year)
	q.Size = s.number(queueSize, 1, 1_000_000)
	q.FillThreads = s.number(queueThreads, 1, 10_000)
	q.Expiry = s.milliseconds(queueExpiry, time.Millisecond, year)
	watermark, err := s.conf.Float(queueWatermark, 0)
	switch {
	case err != nil:
		s.refuseValue(queueWatermark, err, "a number above 0 and up to 1")
	case watermark <= 0 || watermark > 1:
		s.refuse(queueWatermark, fmt.Sprintf("%v is out of range", watermark), "a number above 0 and up to 1")
	}
	q.LowWatermark = watermark
}

func (l *loader) audit() {
	s, logs := &l.site, &l.cfg.Logs
	// Java's housekeeping runs ten times in a window and fails below 10 ms.
	l.cfg.Audit.Window = s.milliseconds(auditWindow, 10*time.Millisecond, day)
	loggers, err := s.conf.Strings(auditLogger)
	if err != nil {
		s.refuseValue(auditLogger, err, simpleAuditLogger)
	}
	for _, logger := range loggers {
		if logger != simpleAuditLogger {
			s.refuse(auditLogger, fmt.Sprintf("edekd runs no Java, so not the class %q either", logger), "remove the property: edekd writes "+simpleAuditLogger+"'s format by itself")
		}
	}
	if l.cfg.MetricsProcess = s.text(metricsProcess); l.cfg.MetricsProcess == "" || strings.ContainsAny(l.cfg.MetricsProcess, `,=:"*?`+"\n") {
		s.refuse(metricsProcess, fmt.Sprintf("%q cannot stand in the name of a JMX bean", l.cfg.MetricsProcess), "KMS, or another plain word")
	}

	switch format := s.text("edekd.audit.format"); format {
	case "text", "json", "both":
		l.cfg.Audit.Text, l.cfg.Audit.JSON = format != "json", format != "text"
	default:
		s.refuse("edekd.audit.format", fmt.Sprintf("%q is no form of the audit log", format), "text, json or both")
	}
	logs.MaxBytes = int64(s.number("edekd.log.max-bytes", 0, math.MaxInt))
	logs.Keep = s.number("edekd.log.keep", 0, 1_000_000)
	logs.Access = s.boolean("edekd.access-log.enabled")
	logs.ToFile = true
	switch {
	case s.isSet("edekd.log.dir"):
		logs.Dir = s.filePath("edekd.log.dir")
	case l.variable("KMS_LOG") != "":
		s.conf.Override(kmsLogDir, l.variable("KMS_LOG"), "environment variable KMS_LOG")
		logs.Dir = s.filePath(kmsLogDir)
	case s.isSet(kmsLogDir):
		logs.Dir = s.filePath(kmsLogDir)
	case s.isSet(hadoopLogDir):
		logs.Dir = s.filePath(hadoopLogDir)
	default:
		logs.Dir = filepath.Join(l.cfg.StateDir, "logs")
		logs.ToFile = false
	}
}

func (l *loader) limits() {
	s, limits := &l.site, &l.cfg.Limits
	limits.NumKeys = s.number("edekd.limits.num-keys", 1, 1_000_000)
	limits.BatchEntries = s.number("edekd.limits.batch-entries", 1, 1_000_000)
	limits.BatchBodyBytes = s.number("edekd.limits.batch-body-bytes", 1024, 1<<30)
	limits.BodyBytes = s.number("edekd.limits.body-bytes", 1024, 1<<30)
}
