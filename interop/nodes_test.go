package interop

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gozk "github.com/go-zookeeper/zk"

	"github.com/edekd/edekd/internal/freeport"
	"github.com/edekd/edekd/internal/zkserver"
	"github.com/edekd/edekd/proxy/authn/zookeeper"
)

// sharing is what nodes behind one balancer are told, so that each takes the
// cookies and tokens of the others.
func sharing(zk *zkserver.Server) []string {
	const auth = "hadoop.kms.authentication."
	return append(sharingTokens(zk),
		auth+"signer.secret.provider", "zookeeper",
		auth+"signer.secret.provider.zookeeper.connection.string", zk.Addr,
		auth+"signer.secret.provider.zookeeper.path", "/hadoop-kms/hadoop-auth-signature-secret",
		auth+"signer.secret.provider.zookeeper.auth.type", "none",
	)
}

// sharingTokens are the settings of nodes of which each takes the tokens, but not
// the cookies, of the others.
func sharingTokens(zk *zkserver.Server) []string {
	const auth = "hadoop.kms.authentication."
	return []string{
		auth + "zk-dt-secret-manager.enable", "true",
		auth + "zk-dt-secret-manager.zkConnectionString", zk.Addr,
		auth + "zk-dt-secret-manager.znodeWorkingPath", "zkdtsm",
		auth + "zk-dt-secret-manager.zkAuthType", "none",
	}
}

// balancing is how HAProxy stands before nodes.
type balancing struct {
	mode    string // http or tcp
	options string // lines of the section defaults
	server  string // what is said of each node
}

// byRequest asks the nodes by turns, request by request and without stickiness.
// HAProxy writes names of headers in small letters unless told otherwise; the
// clients of Hadoop 3.3 know no cookie but that of a header spelled Set-Cookie.
var byRequest = balancing{mode: "http", options: "option http-keep-alive\n  option h1-case-adjust-bogus-client"}

// balance runs HAProxy before the nodes and returns its address.
func balance(t *testing.T, how balancing, nodes ...string) string {
	t.Helper()
	port, err := freeport.Take()
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	var b strings.Builder
	fmt.Fprintf(&b, `global
  maxconn 256
  tune.bufsize 131072
  h1-case-adjust set-cookie Set-Cookie
defaults
  mode %s
  balance roundrobin
  %s
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend kms
  bind %s
  default_backend nodes
backend nodes
`, how.mode, how.options, addr)
	for i, node := range nodes {
		fmt.Fprintf(&b, "  server node%d %s %s\n", i+1, node, how.server)
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	writeFile(t, file, b.String())
	path, err := exec.LookPath("haproxy")
	if err != nil {
		path = "/usr/sbin/haproxy"
	}
	cmd := exec.Command(path, "-db", "-f", file)
	out := new(strings.Builder)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: run \"make setup\"", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("HAProxy said:\n%s", out)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return addr
		}
		if time.Now().After(deadline) {
			t.Fatalf("HAProxy does not listen: %v", err)
		}
	}
}

// createOnEach makes the key of Kerberized.java on nodes that share no store: the
// same material on each.
func (r kerberizedRealm) createOnEach(t *testing.T, nodes ...string) {
	t.Helper()
	alice := r.Kinit("alice")
	for _, node := range nodes {
		_, port, _ := net.SplitHostPort(node)
		r.curl(t, alice, 201, negotiate(inJSON(
			"--data", `{"name":"kerberized","cipher":"AES/CTR/NoPadding","length":128,"material":"AAECAwQFBgcICQoLDA0ODw"}`,
			"http://localhost:"+port+"/kms/v1/keys")...)...)
	}
}

// Two nodes behind a balancer without stickiness, sharing secrets and tokens.
func TestNodesBehindABalancer(t *testing.T) {
	realm := startRealm(t)
	zk := zkserver.Start(t, zkserver.Options{})
	a := StartKerberizedEdekd(t, realm, sharing(zk)...).Addr
	b := StartKerberizedEdekd(t, realm, sharing(zk)...).Addr
	realm.createOnEach(t, a, b)
	kerberized(t, realm, "3.4.3", balance(t, byRequest, a, b), sharedKeyChecks, "existing")
}

// trustEachOther has every node take the cookies and tokens of every other. curl is
// told to present nothing else: Java's clients get a new cookie, unasked, for one
// that is refused.
func (r kerberizedRealm) trustEachOther(t *testing.T, nodes ...string) {
	t.Helper()
	at := func(node int, path string) string {
		_, port, _ := net.SplitHostPort(nodes[node%len(nodes)])
		return "http://localhost:" + port + "/kms/v1/" + path
	}
	const nobody = ""
	alice, yarn := r.Kinit("alice"), r.Kinit("yarn/rm.example.com")
	for i := range nodes {
		jar := filepath.Join(t.TempDir(), "jar")
		r.curl(t, alice, 200, negotiate("--cookie-jar", jar, at(i, "keys/names"))...)
		_, answer := r.curl(t, alice, 200, negotiate(at(i, "?op=GETDELEGATIONTOKEN&renewer=yarn"))...)
		token := field(t, answer, "Token", "urlString")
		header := "X-Hadoop-Delegation-Token: " + token
		for j := range nodes {
			r.curl(t, nobody, 200, "--cookie", jar, at(j, "keys/names"))
			r.curl(t, nobody, 200, "-H", header, at(j, "keys/names"))
			r.curl(t, yarn, 200, negotiate("-X", "PUT", at(j, "?op=RENEWDELEGATIONTOKEN&token="+token))...)
		}
		r.curl(t, nobody, 200, "-X", "PUT", at(i+1, "?op=CANCELDELEGATIONTOKEN&token="+token))
		for j := range nodes {
			soon(t, "the end of a cancelled token", func() bool {
				out, err := exec.CommandContext(t.Context(), "curl", "-s", "-H", header, at(j, "keys/names")).Output()
				return err == nil && strings.Contains(string(out), "can't be found in cache")
			})
		}
	}
}

// A Java KMS and edekd behind one balancer, as while one replaces the other.
func TestRollingReplacement(t *testing.T) {
	EachHadoop(t, func(t *testing.T, hadoop string) {
		realm := startRealm(t)
		site := sharing(zkserver.Start(t, zkserver.Options{}))
		java := startKerberizedJavaKMS(t, realm, hadoop, site...).Addr
		edekd := StartKerberizedEdekd(t, realm, site...).Addr
		realm.trustEachOther(t, java, edekd)
		realm.createOnEach(t, java, edekd)
		kerberized(t, realm, hadoop, balance(t, byRequest, java, edekd), sharedKeyChecks, "existing")
	})
}

// The same with two of us, the first being the one that makes the nodes in
// ZooKeeper, where each logs in by Kerberos and others are kept out.
func TestRollingReplacementWithSASL(t *testing.T) {
	EachHadoop(t, func(t *testing.T, hadoop string) {
		realm := startRealm(t)
		realm.Add("zookeeper/localhost")
		zk := zkserver.Start(t, zkserver.Options{Kerberos: &zkserver.Kerberos{
			Principal: "zookeeper/localhost@" + testRealm,
			Keytab:    realm.Keytab("zookeeper/localhost"),
			Config:    realm.Config,
		}})
		zk.Addr = strings.Replace(zk.Addr, "127.0.0.1", "localhost", 1) // whose principal it has
		as := func(host string) []string {
			site := sharing(zk)
			for prefix, auth := range map[string]string{zookeeper.SecretsPrefix: "auth.type", zookeeper.TokensPrefix: "zkAuthType"} {
				site = append(site, prefix+auth, "sasl",
					prefix+"kerberos.keytab", realm.server, prefix+"kerberos.principal", "HTTP/"+host+"@"+testRealm)
			}
			return site
		}
		first := StartKerberizedEdekd(t, realm, as("127.0.0.1")...).Addr
		java := startKerberizedJavaKMS(t, realm, hadoop, as("localhost")...).Addr
		second := StartKerberizedEdekd(t, realm, as("127.0.0.2")...).Addr
		realm.trustEachOther(t, first, java, second)
		realm.createOnEach(t, first, java, second)
		kerberized(t, realm, hadoop, balance(t, byRequest, first, java, second), sharedKeyChecks, "existing")

		stranger, _, err := gozk.Connect([]string{zk.Addr}, 10*time.Second, gozk.WithLogger(discard{}))
		if err != nil {
			t.Fatal(err)
		}
		defer stranger.Close()
		for _, node := range []string{"/hadoop-kms/hadoop-auth-signature-secret", "/zkdtsm/ZKDTSMRoot/ZKDTSMMasterKeyRoot"} {
			if _, _, err := stranger.Get(node); !errors.Is(err, gozk.ErrNoAuth) {
				t.Errorf("a stranger reads %s: %v", node, err)
			}
		}
	})
}

type discard struct{}

func (discard) Printf(string, ...any) {}

// Where a service may act for others from is judged by the address of the client,
// not by that of the balancer, and not by what clients say of themselves.
func TestAddressesBehindABalancer(t *testing.T) {
	const proxy, known, unknown = "127.0.0.9", "127.0.0.5", "127.0.0.6"
	f := func(protocol string, how balancing) {
		t.Run(protocol, func(t *testing.T) {
			how.server += " source " + proxy
			var nodes []*Edekd
			for range 2 {
				nodes = append(nodes, StartEdekd(t,
					"edekd.proxies.trusted", proxy,
					"edekd.proxies.protocol", protocol,
					"edekd.audit.format", "json",
					"hadoop.kms.proxyuser.hive.users", "joe",
					"hadoop.kms.proxyuser.hive.hosts", known))
			}
			balancer := balance(t, how, nodes[0].Addr, nodes[1].Addr)
			list := func(status int, from, to string, more ...string) {
				t.Helper()
				args := append(more, "--interface", from, "http://"+to+"/kms/v1/keys/names?user.name=hive&doAs=joe")
				curl(t, nil, status, args...)
			}
			for range 2 {
				list(200, known, balancer)
			}
			for range 2 {
				list(403, unknown, balancer)
				list(403, unknown, balancer, "-H", "X-Forwarded-For: "+known)
			}
			list(403, unknown, nodes[0].Addr, "-H", "X-Forwarded-For: "+known)
			list(200, known, nodes[0].Addr, "-H", "X-Forwarded-For: "+unknown)

			for i, node := range nodes {
				node.Stop(t)
				log, err := os.ReadFile(filepath.Join(node.state, "logs", "kms-audit.json"))
				if err != nil {
					t.Fatal(err)
				}
				want := 2 - i // the first was asked directly, too
				if got := strings.Count(string(log), `"client":"`+known+`"`); got != want {
					t.Errorf("node %d has %d lines of %s, want %d:\n%s", i+1, got, known, want, log)
				}
			}
		})
	}
	f("x-forwarded-for", balancing{mode: "http", options: "option forwardfor"})
	f("proxy-v2", balancing{mode: "tcp", server: "send-proxy-v2"})
}
