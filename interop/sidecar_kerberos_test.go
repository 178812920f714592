package interop

import (
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/internal/zkserver"
	"github.com/edekd/edekd/upstream/kms"
)

// localhost is an address by the name that the servers of the realm have
// principals for.
func localhost(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return "localhost:" + port
}

// sidecar makes edekd log in with a keytab of its own at the KMS of these nodes.
func (r kerberizedRealm) sidecar(keytab string, nodes ...string) []string {
	return []string{
		"hadoop.kms.key.provider.uri", "kms://http@" + strings.Join(nodes, ";") + "/kms",
		"edekd.upstream.principal", "edekd/localhost@" + testRealm,
		"edekd.upstream.keytab", keytab,
		"edekd.upstream.poll.seconds", "1",
		// No node is to be given up on a busy machine.
		"edekd.upstream.attempt.ms", "20000", "edekd.upstream.total.ms", "40000",
	}
}

// frontSite lets Java KMSes act for everybody at another.
var frontSite = []string{"hadoop.kms.proxyuser.front.users", "*", "hadoop.kms.proxyuser.front.hosts", "*"}

// A Kerberized edekd before a Kerberized Java KMS, which shares tokens with it and
// alone denies anybody anything. Cookies, edekd's there too, live for two seconds.
func TestKerberizedSidecar(t *testing.T) {
	realm := startRealm(t)
	t.Setenv("KRB5_CONFIG", realm.Config)
	tokens := sharingTokens(zkserver.Start(t, zkserver.Options{}))
	realm.Add("edekd/localhost")
	keytab := realm.Keytab("edekd/localhost")
	java := startKerberizedJavaKMS(t, realm, "3.4.3", slices.Concat(cookieOf2s, behindSite, frontSite, tokens)...)
	edekd := realm.startEdekd(t, nil, slices.Concat(realm.sidecar(keytab, localhost(t, java.Addr)), cookieOf2s, tokens)...)

	t.Run("clients", func(t *testing.T) { runKerberized(t, realm, "3.4.3", edekd.Addr) })
	hive := &kms.Kerberos{Principal: "hive/localhost@" + testRealm, Keytab: realm.users}
	t.Run("life cycle", func(t *testing.T) { runUpstream(t, upstreamClient(t, hive, edekd.Addr), upstreamNames) })
	t.Run("tokens", func(t *testing.T) { realm.useTokens(t, localhost(t, edekd.Addr), localhost(t, java.Addr)) })
	t.Run("zone", func(t *testing.T) { runKerberizedZone(t, realm, edekd.Addr, "zonekey", nil) })

	// What a Java KMS asks another is asked by whoever its process is logged in as.
	realm.Add("front")
	ticket := "KRB5CCNAME=" + realm.Kinit("front")
	var fronts []string
	for range 2 {
		front := StartJavaKMS(t, "3.4.3", JavaKMSOptions{
			Provider: "kms://http@" + localhost(t, java.Addr) + "/kms",
			JVM:      []string{"-Djava.security.krb5.conf=" + realm.Config},
			Env:      []string{ticket},
			Site:     slices.Concat(realm.site(), behindSite, cookieOf2s),
		})
		fronts = append(fronts, localhost(t, front.Addr))
	}
	before := realm.startEdekd(t, nil, slices.Concat(realm.sidecar(keytab, fronts...), cookieOf2s)...)
	t.Run("clients before two fronts", func(t *testing.T) {
		kerberized(t, realm, "3.4.3", before.Addr, sharedKeyChecks, "existing")
	})
	t.Run("life cycle before two fronts", func(t *testing.T) {
		// Java's client makes a plus of a blank in a path, which the KMS behind takes for one.
		names := slices.DeleteFunc(slices.Clone(upstreamNames), func(name string) bool { return strings.Contains(name, " ") })
		runUpstream(t, upstreamClient(t, hive, before.Addr), names)
	})
	t.Run("zone before two fronts", func(t *testing.T) {
		const key = "zone2"
		c := upstreamClient(t, hive, before.Addr)
		runKerberizedZone(t, realm, before.Addr, key, func() {
			realm.curl(t, realm.Kinit("hdfs/localhost"), 200, negotiate(inJSON("--data", "{}", "http://"+localhost(t, java.Addr)+"/kms/v1/key/"+key)...)...)
			soon(t, "an EDEK of the new version", func() bool {
				all, err := c.Generate(t.Context(), edek.Caller{}, key, 1)
				if err != nil {
					t.Fatal(err)
				}
				return all[0].Version() == 1
			})
		})
		_, metrics := realm.curl(t, realm.Kinit("alice"), 200, negotiate("http://"+localhost(t, before.Addr)+"/metrics")...)
		for _, front := range fronts {
			if metricIn(t, metrics, `edekd_upstream_node_requests_total{node="`+front+`"}`) < 10 {
				t.Errorf("%s was hardly asked", front)
			}
		}
	})
}

// useTokens has each node take the tokens of every other for the key of
// Kerberized.java, until they are cancelled at any.
func (r kerberizedRealm) useTokens(t *testing.T, nodes ...string) {
	t.Helper()
	alice := r.Kinit("alice")
	const nobody = ""
	for i, issuer := range nodes {
		_, answer := r.curl(t, alice, 200, negotiate("http://"+issuer+"/kms/v1/?op=GETDELEGATIONTOKEN&renewer=yarn")...)
		token := field(t, answer, "Token", "urlString")
		as := func(node, path string, args ...string) string {
			t.Helper()
			args = append(args, "-H", "X-Hadoop-Delegation-Token: "+token, "http://"+node+"/kms/v1/"+path)
			_, answer := r.curl(t, nobody, 200, args...)
			return answer
		}
		for _, node := range nodes {
			var made []encrypted
			if err := json.Unmarshal([]byte(as(node, "key/kerberized/_eek?eek_op=generate&num_keys=1")), &made); err != nil || len(made) != 1 {
				t.Fatalf("generate with a token: %v, %v", made, err)
			}
			question, err := json.Marshal(map[string]string{"name": "kerberized", "iv": made[0].IV, "material": made[0].Inner.Material})
			if err != nil {
				t.Fatal(err)
			}
			deks := map[string]bool{}
			for _, opener := range nodes {
				deks[field(t, as(opener, "keyversion/kerberized@0/_eek?eek_op=decrypt", inJSON("--data", string(question))...), "material")] = true
			}
			if len(deks) != 1 {
				t.Errorf("an EDEK of %s holds %d DEKs", node, len(deks))
			}
		}
		r.curl(t, nobody, 200, "-X", "PUT", "http://"+nodes[(i+1)%len(nodes)]+"/kms/v1/?op=CANCELDELEGATIONTOKEN&token="+token)
		for _, node := range nodes {
			soon(t, "the end of a cancelled token", func() bool { return !listsNames(t, node, token) })
		}
	}
}

// listsNames reports whether a node takes a token.
func listsNames(t *testing.T, node, token string) bool {
	t.Helper()
	request, err := http.NewRequest("GET", "http://"+node+"/kms/v1/keys/names", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Hadoop-Delegation-Token", token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode == 200
}
