package interop

import (
	"os/exec"
	"slices"
	"testing"

	"github.com/edekd/edekd/internal/kdc"
)

const testRealm = "EXAMPLE.TEST"

// kerberizedChecks are the checks of Kerberized.java. All of them pass in front
// of a Java KMS 3.4.3 too: TestKerberizedJavaKMS.
var kerberizedChecks = append([]string{"a-ticket-creates-a-key"}, sharedKeyChecks...)

// sharedKeyChecks are those for a key that is there.
var sharedKeyChecks = []string{
	"a-ticket-generates-and-decrypts", "a-provider-is-used-again",
	"a-ticket-does-not-open-what-rules-close", "the-cookie-names-the-principal",
	"without-ticket-and-token-there-is-no-way-in",
	"a-token-says-whose-it-is", "a-token-decrypts-without-a-ticket", "a-token-generates-without-a-ticket",
	"only-the-renewer-renews", "the-renewer-renews", "the-owner-cancels",
	"a-cancelled-token-opens-nothing", "a-cancelled-token-is-not-renewed",
	"the-renewer-cancels", "whoever-holds-a-token-cancels-it", "a-token-cancelled-by-the-renewer-opens-nothing",
	"a-service-acts-for-a-user", "a-service-does-not-act-for-everybody", "a-user-acts-for-nobody",
	"a-service-gets-a-token-for-a-user", "a-do-as-in-the-query", "a-do-as-in-the-query-of-somebody-else",
	"a-lost-handshake-is-recovered", "a-reset-handshake-is-recovered",
}

// kerberizedRealm is a KDC with the users of Kerberized.java, and the keytabs of
// users and server.
type kerberizedRealm struct {
	*kdc.KDC
	users, server string
}

func startRealm(t *testing.T) kerberizedRealm {
	t.Helper()
	realm := kdc.Start(t, testRealm)
	users := []string{"alice", "bob", "yarn/rm.example.com", "hive/localhost", "hdfs/localhost"}
	server := []string{"HTTP/localhost", "HTTP/127.0.0.1", "HTTP/127.0.0.2"}
	realm.Add(slices.Concat(users, server)...)
	return kerberizedRealm{realm, realm.Keytab(append(users, "HTTP/localhost")...), realm.Keytab(server...)}
}

// site is what a KMS of the realm is told, in name, value pairs of kms-site.xml.
func (r kerberizedRealm) site() []string {
	return []string{
		"hadoop.security.authentication", "kerberos",
		"hadoop.kms.authentication.type", "kerberos",
		"hadoop.kms.authentication.kerberos.keytab", r.server,
		"hadoop.kms.authentication.kerberos.principal", "*",
		"hadoop.kms.authentication.kerberos.name.rules", "DEFAULT",
		"hadoop.kms.proxyuser.hive.users", "joe",
		"hadoop.kms.proxyuser.hive.hosts", "localhost, 127.0.0.0/8",
	}
}

// kerberizedRules are what differs in kms-acls.xml from everything for everyone.
var kerberizedRules = []string{"hadoop.kms.acl.DECRYPT_EEK", "alice,joe"}

// client prepares one of the programs for Kerberized clients.
func (r kerberizedRealm) client(t *testing.T, hadoop, program string, args ...string) *exec.Cmd {
	return Java(t, hadoop, append([]string{"-Djava.security.krb5.conf=" + r.Config, checksPackage + program}, args...)...)
}

// runKerberized runs Kerberized.java against the KMS at addr, through a shim that
// loses answers when told to.
func runKerberized(t *testing.T, realm kerberizedRealm, hadoop, addr string) {
	t.Helper()
	kerberized(t, realm, hadoop, addr, kerberizedChecks)
}

func kerberized(t *testing.T, realm kerberizedRealm, hadoop, addr string, checks []string, more ...string) {
	t.Helper()
	port, shims := StartShims(t, addr, "127.0.0.1")
	lose := func(reset bool) func() {
		return func() {
			w := NewSwallow(1, "OPTIONS /kms/v1/")
			w.Header, w.Reset = "Authorization: Negotiate ", reset
			shims[0].Lose(w)
		}
	}
	args := append([]string{"kms://http@localhost:" + port + "/kms", "http://localhost:" + port + "/kms", testRealm, realm.users}, more...)
	program := realm.client(t, hadoop, "Kerberized", args...)
	RunChecks(t, program, map[string]func(){
		"lose the answer to a handshake":  lose(false),
		"reset the answer to a handshake": lose(true),
	}, checks...)
}

func startKerberizedJavaKMS(t *testing.T, realm kerberizedRealm, hadoop string, properties ...string) *JavaKMS {
	t.Helper()
	return StartJavaKMS(t, hadoop, JavaKMSOptions{
		JVM:   []string{"-Djava.security.krb5.conf=" + realm.Config},
		Site:  append(realm.site(), properties...),
		Rules: kerberizedRules,
	})
}

func TestKerberizedJavaKMS(t *testing.T) {
	realm := startRealm(t)
	runKerberized(t, realm, "3.4.3", startKerberizedJavaKMS(t, realm, "3.4.3").Addr)
}

func TestKerberizedClients(t *testing.T) {
	EachHadoop(t, func(t *testing.T, hadoop string) {
		realm := startRealm(t)
		edekd := StartKerberizedEdekd(t, realm)
		runKerberized(t, realm, hadoop, edekd.Addr)
	})
}

// StartKerberizedEdekd runs edekd as a server of the realm.
func StartKerberizedEdekd(t *testing.T, realm kerberizedRealm, properties ...string) *Edekd {
	t.Helper()
	return realm.startEdekd(t, kerberizedRules, properties...)
}

func (r kerberizedRealm) startEdekd(t *testing.T, rules []string, properties ...string) *Edekd {
	t.Helper()
	return startEdekd(t, edekdOptions{
		site:  append(r.site(), properties...),
		rules: rules,
		env:   []string{"KRB5_CONFIG=" + r.Config},
	})
}

var kerberizedZoneChecks = []string{
	"the-superuser-makes-a-zone", "a-user-writes-and-reads", "the-superuser-sees-ciphertext",
	"bob-may-not-read", "hdfs-may-not-read",
	"expired-cookies-are-not-noticed", "a-task-reads-and-writes-with-tokens",
	"roll", "old-files-open-after-the-roll",
	"reencrypt-zone-completes", "new-files-carry-the-new-version",
	"read-files-after-reencryption", "bob-may-not-read-what-was-reencrypted",
}

// cookieOf2s makes cookies expire while the programs run.
var cookieOf2s = []string{"hadoop.kms.authentication.token.validity", "2"}

// runKerberizedZone runs KerberizedZone.java with a zone key of that name. The
// program rolls it itself unless roll, when given, does it elsewhere.
func runKerberizedZone(t *testing.T, realm kerberizedRealm, addr, key string, roll func()) {
	t.Helper()
	args := []string{"kms://http@" + localhost(t, addr) + "/kms", t.TempDir(), testRealm, realm.users, key}
	checks, steps := slices.Clone(kerberizedZoneChecks), map[string]func(){}
	if roll != nil {
		steps["roll the key elsewhere"] = roll
		args = append(args, "elsewhere")
		checks[slices.Index(checks, "roll")] = "rolled-elsewhere"
	}
	RunChecks(t, realm.client(t, "3.4.3", "KerberizedZone", args...), steps, checks...)
}

func TestKerberizedZoneOfMiniCluster(t *testing.T) {
	realm := startRealm(t)
	runKerberizedZone(t, realm, StartKerberizedEdekd(t, realm, cookieOf2s...).Addr, "zonekey", nil)
}
