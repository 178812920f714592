package zookeeper

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/edekd/edekd/internal/zkserver"
	"github.com/edekd/edekd/proxy/authn/secret"
)

var text = []byte("u=alice&p=alice&t=simple-dt&e=1700000000000")

// sign returns the signature of text under the secret that signs now.
func sign(n *Client) []byte {
	current, _ := n.Secrets.Ring().Live(time.Now())
	return current.AppendSignature(nil, text)
}

func accepts(n *Client, signature []byte) bool {
	current, previous := n.Secrets.Ring().Live(time.Now())
	return current.Verifies(text, signature) || previous != nil && previous.Verifies(text, signature)
}

func current(n *Client) *secret.Key {
	k, _ := n.Secrets.Ring().Live(time.Now())
	return k
}

func TestServersAgreeOnSecretsAndRollThem(t *testing.T) {
	server := zkserver.Start(t, zkserver.Options{})
	const validity = 2 * time.Second
	one, log := openNode(t, secretsConfig(server, validity))
	other, _ := openNode(t, secretsConfig(server, validity))
	if !strings.Contains(log.String(), "everybody who reaches ZooKeeper can read") {
		t.Error("nobody was warned of a node that is open to all")
	}
	if !bytes.Equal(sign(one), sign(other)) {
		t.Fatal("two servers sign with different secrets")
	}
	var signatures [][]byte
	for range 3 {
		begun, signature := current(one), sign(one)
		signatures = append(signatures, signature)
		eventually(t, "a roll-over", func() bool { return current(one) != begun })
		eventually(t, "the other's roll-over", func() bool { return bytes.Equal(sign(one), sign(other)) })
		if !accepts(one, signature) || !accepts(other, signature) {
			t.Error("the previous secret is not valid any more")
		}
		late, _ := openNode(t, secretsConfig(server, validity))
		if !bytes.Equal(sign(late), sign(one)) || !accepts(late, signature) {
			t.Error("a server that comes later has other secrets")
		}
		if due := late.Secrets.Status().Due.Sub(one.Secrets.Status().Due).Abs(); due > validity/10 {
			t.Errorf("a server that comes later rolls over %v apart", due)
		}
	}
	if accepts(one, signatures[0]) || accepts(other, signatures[0]) {
		t.Error("a secret verifies for longer than two periods")
	}
}

func TestSecretsGoOnWithoutZooKeeper(t *testing.T) {
	server := zkserver.Start(t, zkserver.Options{})
	const validity = 3 * time.Second
	one, log := openNode(t, secretsConfig(server, validity))
	other, _ := openNode(t, secretsConfig(server, validity))
	first, firstKey := sign(one), current(one)
	server.Stop()
	eventually(t, "the roll-over that was agreed on", func() bool { return current(one) != firstKey })
	second, secondKey := sign(one), current(one)
	if !accepts(one, first) {
		t.Error("the previous secret is not valid any more")
	}
	eventually(t, "the other's roll-over to the same secret", func() bool { return bytes.Equal(sign(other), second) })
	eventually(t, "the end of the first secret", func() bool { return !accepts(one, first) })
	if current(one) != secondKey || !accepts(one, second) {
		t.Error("without ZooKeeper the last secret does not go on")
	}
	if one.Secrets.Status().Err == nil || !strings.Contains(log.String(), "those known go on") {
		t.Error("nobody was told that the secrets do not follow")
	}
	server.Start()
	eventually(t, "a roll-over with ZooKeeper back", func() bool { return current(one) != secondKey })
	eventually(t, "the other's roll-over", func() bool { return bytes.Equal(sign(one), sign(other)) })
	eventually(t, "a good status", func() bool { return one.Secrets.Status().Err == nil })
}

func TestSecretNodeRemoved(t *testing.T) {
	server := zkserver.Start(t, zkserver.Options{})
	one, _ := openNode(t, secretsConfig(server, time.Hour))
	other, _ := openNode(t, secretsConfig(server, time.Hour))
	before := sign(one)
	a := admin(t, server)
	if err := a.Delete("/edekd/kms/secret", -1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node made again", func() bool {
		data, _, err := a.Get("/edekd/kms/secret")
		return err == nil && len(data) > 0
	})
	late, _ := openNode(t, secretsConfig(server, time.Hour))
	for _, n := range []*Client{one, other, late} {
		if !bytes.Equal(sign(n), before) {
			t.Error("the secret changed")
		}
	}
}

func TestSecretsReplaced(t *testing.T) {
	server := zkserver.Start(t, zkserver.Options{})
	one, _ := openNode(t, secretsConfig(server, time.Hour))
	before := sign(one)
	a := admin(t, server)
	n := secretNode{next: []byte("new next"), current: []byte("new current"), roll: time.Now().Add(time.Hour).UnixMilli()}
	if _, err := a.Set("/edekd/kms/secret", n.append(nil), -1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of a secret that was replaced", func() bool { return !accepts(one, before) })

	before = sign(one)
	if _, err := a.Set("/edekd/kms/secret", []byte("garbage"), -1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a complaint", func() bool { return one.Secrets.Status().Err != nil })
	if !accepts(one, before) {
		t.Error("garbage ended the secrets")
	}
	if _, err := Open(t.Context(), secretsConfig(server, time.Hour), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "holds no signing secrets") {
		t.Errorf("a start with garbage: %v", err)
	}
	if _, err := a.Set("/edekd/kms/secret", n.append(nil), -1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the complaint's end", func() bool { return one.Secrets.Status().Err == nil })
}

// A server whose clock is ahead rolls over first; the others follow and do not
// roll again when it is time by their own clock, whatever date was written.
func TestSecretsRolledByAnotherServerFirst(t *testing.T) {
	server := zkserver.Start(t, zkserver.Options{})
	one, _ := openNode(t, secretsConfig(server, time.Hour))
	a := admin(t, server)
	f := func(date time.Duration) {
		t.Helper()
		before := current(one)
		data, stat, err := a.Get("/edekd/kms/secret")
		if err != nil {
			t.Fatal(err)
		}
		n, err := parseSecretNode(data)
		if err != nil {
			t.Fatal(err)
		}
		rolled := secretNode{next: randomSecret(), current: n.next, previous: n.current, roll: time.Now().Add(date).UnixMilli()}
		if _, err := a.Set("/edekd/kms/secret", rolled.append(nil), stat.Version); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a roll-over", func() bool {
			now, previous := one.Secrets.Ring().Live(time.Now())
			return now != before && previous == before
		})
		eventually(t, "the next date", func() bool {
			due := time.Until(one.Secrets.Status().Due)
			return due > 59*time.Minute && due < 62*time.Minute
		})
	}
	f(time.Hour + time.Minute)
	f(time.Minute)
	f(-5*time.Hour + time.Minute)
}

func TestSecretsKeepTheirKeysThroughAnExpiredSession(t *testing.T) {
	server := zkserver.Start(t, zkserver.Options{})
	one, _ := openNode(t, secretsConfig(server, time.Hour))
	before := current(one)
	server.Cut()
	server.AwaitExpiry()
	server.Mend()
	eventually(t, "the connection", func() bool { return one.Status().Connected })
	if current(one) != before {
		t.Error("all cookies ended")
	}
	n := secretNode{next: []byte("new next"), current: []byte("new current"), roll: time.Now().Add(time.Hour).UnixMilli()}
	if _, err := admin(t, server).Set("/edekd/kms/secret", n.append(nil), -1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what the new session tells", func() bool { return current(one) != before })
}

func TestOpenFails(t *testing.T) {
	server := zkserver.Start(t, zkserver.Options{})
	f := func(says string, change func(*Config)) {
		t.Helper()
		cfg := secretsConfig(server, time.Hour)
		cfg.Tokens = tokensConfig(server).Tokens
		cfg.Secrets.ConnectTimeout = time.Second
		change(&cfg)
		n, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
		if err == nil {
			n.Close()
			t.Errorf("no error that says %q", says)
		} else if !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %q", err, says)
		}
	}
	f("token.validity", func(c *Config) { c.Secrets.Validity = 0 })
	f(ErrAway.Error(), func(c *Config) { c.Secrets.Servers = []string{"127.0.0.1:1"} })
	f("refused", func(c *Config) { c.Secrets.Servers = []string{"127.0.0.1:1"} })
	a := admin(t, server)
	if _, err := a.Create("/locked", nil, 0, zk.DigestACL(zk.PermAll, "some", "body")); err != nil {
		t.Fatal(err)
	}
	f("/locked", func(c *Config) { c.Secrets.Chroot = "/locked/below" })
	f("/locked", func(c *Config) { c.Secrets.Chroot = ""; c.Secrets.Path = "/locked" })
	f("/locked", func(c *Config) { c.Secrets.Chroot = ""; c.Tokens.WorkingPath = "/locked" })
}
