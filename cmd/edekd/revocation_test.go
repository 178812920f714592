package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/edekd/edekd/internal/zkserver"
)

// believed is how long another server's cancel may go unnoticed.
const believed = 10 * time.Second

// link leads to a server, and can be cut.
type link struct {
	addr string

	mu   sync.Mutex
	cut  bool
	open map[net.Conn]bool
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{addr: l.Addr().String(), open: map[net.Conn]bool{}}
	t.Cleanup(func() {
		l.Close()
		k.set(true)
	})
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil || !k.admit(near, far) {
				near.Close()
				if far != nil {
					far.Close()
				}
				continue
			}
			go k.copy(near, far)
			go k.copy(far, near)
		}
	}()
	return k
}

func (k *link) admit(both ...net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cut {
		return false
	}
	for _, c := range both {
		k.open[c] = true
	}
	return true
}

func (k *link) copy(to, from net.Conn) {
	io.Copy(to, from)
	to.Close()
	from.Close()
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.open, to)
	delete(k.open, from)
}

// set cuts the link, or mends it.
func (k *link) set(cut bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cut = cut
	if cut {
		for c := range k.open {
			c.Close()
		}
	}
}

// sharing are the properties of nodes that share secrets and tokens.
func sharing(zookeeper, node string) []string {
	const auth = "hadoop.kms.authentication."
	return []string{
		auth + "signer.secret.provider", "zookeeper",
		auth + "signer.secret.provider.zookeeper.connection.string", zookeeper,
		auth + "signer.secret.provider.zookeeper.path", node,
		auth + "signer.secret.provider.zookeeper.auth.type", "none",
		auth + "zk-dt-secret-manager.enable", "true",
		auth + "zk-dt-secret-manager.zkConnectionString", zookeeper,
		auth + "zk-dt-secret-manager.znodeWorkingPath", strings.TrimPrefix(node, "/"),
		auth + "zk-dt-secret-manager.zkAuthType", "none",
	}
}

// issue has a delegation token made for somebody.
func (s *steady) issue(user string) string {
	s.t.Helper()
	a := s.ask("GET", "/kms/v1/?op=GETDELEGATIONTOKEN&user.name="+user)
	var made struct {
		Token struct {
			Text string `json:"urlString"`
		} `json:"Token"`
	}
	if err := json.Unmarshal([]byte(a.body), &made); err != nil || made.Token.Text == "" {
		s.t.Fatalf("no token: %s %q", a.Status, a.body)
	}
	return made.Token.Text
}

func (s *steady) cancel(token, user string) int {
	s.t.Helper()
	return s.ask("PUT", "/kms/v1/?op=CANCELDELEGATIONTOKEN&user.name="+user+"&token="+token).StatusCode
}

// bears asks with a delegation token.
func (s *steady) bears(token string) int {
	s.t.Helper()
	return s.status("", "X-Hadoop-Delegation-Token: "+token)
}

func (s *steady) page(path string) string {
	s.t.Helper()
	a := s.ask("GET", path)
	if a.StatusCode != 200 {
		s.t.Fatalf("%s: %s %q", path, a.Status, a.body)
	}
	return a.body
}

// Two nodes share secrets and tokens. A cancel counts at once on its node and as
// soon as ZooKeeper tells on the other; when that one is cut off, it believes in
// the token for ten seconds at most, takes cookies all the same, and says what
// is the matter until it is back.
func TestCancelledTokensEndOnAllNodes(t *testing.T) {
	t.Parallel()
	server := zkserver.Start(t, zkserver.Options{})
	way := newLink(t, server.Addr)
	p, q := newSite(t, sharing(server.Addr, "/kms")...).start(t), newSite(t, sharing(way.addr, "/kms")...).start(t)
	here, there := p.steady(t, nil), q.steady(t, nil)
	cookie := p.steady(t, nil)
	cookie.login("?user.name=alice")
	elsewhere := q.steady(t, nil)
	elsewhere.cookie = cookie.cookie

	token := here.issue("alice")
	if here.bears(token) != 200 || there.bears(token) != 200 || elsewhere.status("") != 200 {
		t.Fatal("the nodes do not honour the same tokens and cookies")
	}
	if status := here.cancel(token, "alice"); status != 200 {
		t.Fatalf("cancel: %d", status)
	}
	if status := here.bears(token); status != 403 {
		t.Errorf("%d for a cancelled token on the node of the cancel", status)
	}
	q.within(believed, "a token was cancelled on the other node", func() bool { return there.bears(token) == 403 })

	known, unknown := here.issue("alice"), here.issue("alice")
	if there.bears(known) != 200 {
		t.Fatal("a new token is refused")
	}
	way.set(true)
	q.eventuallySays("the connection to ZooKeeper is lost")
	if status := here.cancel(known, "alice"); status != 200 {
		t.Fatalf("cancel: %d", status)
	}
	begun := time.Now()
	if status := there.bears(unknown); status != 500 {
		t.Errorf("%d for a token that cannot be looked up", status)
	}
	t.Logf("a token that cannot be looked up is answered after %v", time.Since(begun).Round(time.Millisecond))
	q.within(believed-time.Since(begun), "a token was cancelled behind the back of a node that is cut off", func() bool { return there.bears(known) == 500 })
	begun = time.Now()
	if status := there.ask("GET", "/kms/v1/?op=GETDELEGATIONTOKEN&user.name=alice").StatusCode; status != 500 {
		t.Errorf("%d for a token to be made", status)
	}
	if took := time.Since(begun); took > busy {
		t.Errorf("it took %v to say that ZooKeeper is away", took)
	}
	if elsewhere.status("") != 200 || there.status("?user.name=alice") != 200 {
		t.Error("cookies and callers without one are not served")
	}
	if ready := there.page("/readyz"); !strings.HasPrefix(ready, "ready\nZooKeeper is out of reach for ") {
		t.Errorf("/readyz says %q", ready)
	}
	const connected, followed = "edekd_zookeeper_connected ", "edekd_zookeeper_secrets_followed "
	if seen := there.page("/metrics"); !strings.Contains(seen, connected+"0\n") {
		t.Error("the metric does not tell of ZooKeeper's absence")
	}

	way.set(false)
	q.within(believed, "ZooKeeper is back", func() bool { return there.bears(known) == 403 && there.bears(unknown) == 200 })
	q.eventuallySays("ZooKeeper is connected again")
	if ready := there.page("/readyz"); ready != "ready\n" {
		t.Errorf("/readyz says %q", ready)
	}
	q.eventually("the metrics tell of ZooKeeper's return", func() bool {
		seen := there.page("/metrics")
		return strings.Contains(seen, connected+"1\n") && strings.Contains(seen, followed+"1\n")
	})
	last := there.issue("bob")
	if here.bears(last) != 200 || there.bears(last) != 200 {
		t.Error("a token made after the return is refused")
	}
	removeTokens(t, server.Addr, "/kms/ZKDTSMRoot/ZKDTSMTokensRoot")
	q.within(aSecond, "all tokens are removed from ZooKeeper", func() bool {
		return here.bears(last) == 403 && there.bears(last) == 403 && there.bears(unknown) == 403
	})
	p.stop()
	q.stop()
}

// removeTokens does what an operator does with ZooKeeper's own tools.
func removeTokens(t *testing.T, server, folder string) {
	t.Helper()
	conn, _, err := zk.Connect([]string{server}, patience, zk.WithLogInfo(false))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	names, _, err := conn.Children(folder)
	if err != nil || len(names) == 0 {
		t.Fatalf("tokens %q: %v", names, err)
	}
	for _, name := range names {
		if err := conn.Delete(folder+"/"+name, -1); err != nil {
			t.Fatal(err)
		}
	}
}

// A secret rolls over on all nodes without ending a cookie; other secrets in the
// node end them all, on all nodes, also those that were known.
func TestSecretsRollOverAndRetireOnAllNodes(t *testing.T) {
	t.Parallel()
	// period is that of a secret, and the life of a cookie: long beside what a
	// busy machine needs for a few requests.
	const period = 8 * time.Second
	server := zkserver.Start(t, zkserver.Options{})
	node := func(path string) *process {
		t.Helper()
		return newSite(t, append(sharing(server.Addr, path), "hadoop.kms.authentication.token.validity", fmt.Sprint(period.Seconds()))...).start(t)
	}
	p, q := node("/kms"), node("/kms")
	stranger := node("/stranger")

	conn, _, err := zk.Connect([]string{server.Addr}, patience, zk.WithLogInfo(false))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	secrets := func(path string) string {
		data, _, err := conn.Get(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	rollOver := func() {
		t.Helper()
		before := secrets("/kms")
		p.eventually("the secrets roll over", func() bool { return secrets("/kms") != before })
	}
	rollOver()
	time.Sleep(period / 2) // the cookie is to be young when its secret is old
	here, there := p.steady(t, nil), q.steady(t, nil)
	here.login("?user.name=alice")
	there.cookie = here.cookie
	rollOver()
	p.stays("a cookie outlives the time its secret signs", func() bool { return here.status("") == 200 && there.status("") == 200 })
	rollOver()

	here.cookie = ""
	here.login("?user.name=alice")
	there.cookie = here.cookie
	if there.status("") != 200 {
		t.Fatal("the nodes do not share secrets")
	}
	begun := time.Now()
	if _, err := conn.Set("/kms", []byte(secrets("/stranger")), -1); err != nil {
		t.Fatal(err)
	}
	q.within(aSecond, "other secrets take the place of those in ZooKeeper", func() bool { return here.status("") == 401 && there.status("") == 401 })
	if took := time.Since(begun); took > period/2 {
		t.Errorf("after %v the cookie may have ended by itself", took)
	}
	for _, node := range []*process{p, q} {
		node.eventuallySays("the signing secrets in ZooKeeper are others than those known here")
		node.stop()
	}
	stranger.stop()
}
