package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/internal/kdc"
	"github.com/edekd/edekd/internal/zkserver"
	"github.com/edekd/edekd/proxy/authn/token"
	"github.com/edekd/edekd/proxy/authn/zookeeper"
)

// javaPeer is a running ZooKeeperPeer.java.
type javaPeer struct {
	t     *testing.T
	stdin io.Writer
	lines *bufio.Scanner
}

func startJavaPeer(t *testing.T, program *exec.Cmd) *javaPeer {
	t.Helper()
	var stderr bytes.Buffer
	program.Stderr = &stderr
	stdin, err := program.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(checksLimit, func() { _ = program.Process.Kill() })
	t.Cleanup(func() {
		watchdog.Stop()
		_ = program.Process.Kill()
		_ = program.Wait()
		if t.Failed() {
			t.Logf("standard error of the Java peer:\n%s", stderr.Bytes())
		}
	})
	p := &javaPeer{t: t, stdin: stdin, lines: bufio.NewScanner(stdout)}
	p.lines.Buffer(nil, 1<<20)
	p.want("", "ready")
	return p
}

// ask sends a command and returns the answer, or the exception that was thrown
// instead.
func (p *javaPeer) ask(words ...string) (answer, exception string) {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, strings.Join(words, " ")+"\n"); err != nil {
		p.t.Fatal(err)
	}
	if !p.lines.Scan() {
		p.t.Fatalf("the Java peer ended at %q: %v", words, p.lines.Err())
	}
	var said struct{ Answer, Error string }
	if err := json.Unmarshal(p.lines.Bytes(), &said); err != nil {
		p.t.Fatalf("the Java peer answered %q: %v", p.lines.Bytes(), err)
	}
	return said.Answer, said.Error
}

// must is ask for what has to succeed.
func (p *javaPeer) must(words ...string) string {
	p.t.Helper()
	answer, exception := p.ask(words...)
	if exception != "" {
		p.t.Fatalf("Java, %s: %s", words[0], exception)
	}
	return answer
}

func (p *javaPeer) want(answer string, words ...string) {
	p.t.Helper()
	if got := p.must(words...); got != answer {
		p.t.Errorf("Java, %s: %q, want %q", words[0], got, answer)
	}
}

// soon polls until ok, for what other servers learn a little later.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 30s", what)
		}
	}
}

// goPeer is our side of what is shared.
type goPeer struct {
	node   *zookeeper.Client
	tokens *token.Manager
}

func startGoPeer(t *testing.T, settings zookeeper.Settings, validity time.Duration) *goPeer {
	t.Helper()
	settings.SessionTimeout, settings.ConnectTimeout, settings.Retries = time.Minute, 15*time.Second, 3
	node, err := zookeeper.Open(t.Context(), zookeeper.Config{
		Secrets: &zookeeper.SecretsConfig{Settings: settings, Path: "/kms/secret", Validity: validity},
		Tokens:  &zookeeper.TokensConfig{WorkingPath: "/zkdtsm", Batch: 100},
	}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Close)
	tokens, err := token.New(t.Context(), token.Config{Store: node.Tokens})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tokens.Close)
	return &goPeer{node: node, tokens: tokens}
}

const signedText = "u=alice&p=alice&t=kerberos&e=4102444800000"

// sign signs as Java's Signer does.
func (p *goPeer) sign() string {
	current, _ := p.node.Secrets.Ring().Live(time.Now())
	return string(current.AppendSignature([]byte(signedText+"&s="), []byte(signedText)))
}

func (p *goPeer) accepts(signed string) bool {
	text, signature, _ := strings.Cut(signed, "&s=")
	current, previous := p.node.Secrets.Ring().Live(time.Now())
	return current.Verifies([]byte(text), []byte(signature)) ||
		previous != nil && previous.Verifies([]byte(text), []byte(signature))
}

func (p *goPeer) issue(t *testing.T) string {
	t.Helper()
	issued, err := p.tokens.Issue(t.Context(), token.Request{Owner: "alice", Renewer: "yarn"})
	if err != nil {
		t.Fatal(err)
	}
	return string(issued.AppendURL(nil))
}

// refuses reports whether a token is unknown here.
func (p *goPeer) refuses(text string) bool {
	_, err := p.tokens.Verify([]byte(text), time.Now())
	return err != nil
}

// sequence returns a token's number.
func sequence(t *testing.T, text string) int32 {
	t.Helper()
	parsed, err := token.ParseURL([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	id, err := token.ParseIdentifier(parsed.Identifier)
	if err != nil {
		t.Fatal(err)
	}
	return id.Sequence
}

func TestZooKeeperSharedWithJava(t *testing.T) {
	EachHadoop(t, func(t *testing.T, hadoop string) {
		// Long enough for Java to start within a period on a busy machine.
		const validity = 6 * time.Second
		server := zkserver.Start(t, zkserver.Options{})
		settings := zookeeper.Settings{Servers: []string{server.Addr}}
		startJava := func() *javaPeer {
			return startJavaPeer(t, Java(t, hadoop, checksPackage+"ZooKeeperPeer", server.Addr,
				strconv.FormatInt(validity.Milliseconds(), 10)))
		}
		// Each is once the one that makes the nodes.
		var ours *goPeer
		var java *javaPeer
		if hadoop == HadoopVersions[0] {
			java = startJava()
			ours = startGoPeer(t, settings, validity)
		} else {
			ours = startGoPeer(t, settings, validity)
			java = startJava()
		}
		t.Run("secrets", func(t *testing.T) { shareSecrets(t, ours, java) })
		t.Run("tokens", func(t *testing.T) { shareTokens(t, ours, java) })
		t.Run("sequence numbers", func(t *testing.T) { shareSequences(t, ours, java) })
	})
}

// shareSecrets follows both through some roll-overs.
func shareSecrets(t *testing.T, ours *goPeer, java *javaPeer) {
	agree := func() bool { return java.must("sign", signedText) == ours.sign() }
	soon(t, "one secret", agree)
	for range 3 {
		before := ours.sign()
		soon(t, "a roll-over", func() bool { return ours.sign() != before })
		soon(t, "one secret after a roll-over", agree)
		java.want(signedText, "check", before)
		java.want(signedText, "check", ours.sign())
		if !ours.accepts(before) || !ours.accepts(java.must("sign", signedText)) {
			t.Error("a cookie of Java's is refused")
		}
	}
}

// shareTokens has each use, renew and cancel what the other issued.
func shareTokens(t *testing.T, ours *goPeer, java *javaPeer) {
	theirs, mine := java.must("issue", "alice", "yarn"), ours.issue(t)
	if ours.refuses(theirs) {
		t.Error("a token of Java's is refused")
	}
	java.want("alice", "use", mine)
	if _, exception := java.ask("use", tampered(t, mine)); exception == "" {
		t.Error("Java takes a forged token")
	}
	if !ours.refuses(tampered(t, theirs)) {
		t.Error("a forged token of Java's is taken")
	}

	date, err := ours.tokens.Renew(t.Context(), []byte(theirs), "yarn")
	if err != nil || date < time.Now().UnixMilli() {
		t.Errorf("renewing a token of Java's: %d, %v", date, err)
	}
	java.want("alice", "use", theirs)
	java.must("renew", mine, "yarn")
	java.must("renew", theirs, "yarn")
	if _, err := ours.tokens.Renew(t.Context(), []byte(mine), "yarn"); err != nil {
		t.Errorf("renewing a token that Java renewed: %v", err)
	}

	java.must("cancel", mine, "alice")
	soon(t, "the end of a token Java cancelled", func() bool { return ours.refuses(mine) })
	if err := ours.tokens.Cancel(t.Context(), []byte(theirs), "yarn"); err != nil {
		t.Errorf("cancelling a token of Java's: %v", err)
	}
	soon(t, "the end in Java of a token cancelled here", func() bool {
		_, exception := java.ask("use", theirs)
		return strings.Contains(exception, "InvalidToken")
	})
	for _, text := range []string{mine, theirs} {
		if _, exception := java.ask("renew", text, "yarn"); !strings.Contains(exception, "InvalidToken") {
			t.Errorf("Java renews a cancelled token: %q", exception)
		}
		if err := ours.tokens.Cancel(t.Context(), []byte(text), "alice"); err == nil {
			t.Error("a token was cancelled twice")
		}
	}
}

// tampered returns the token with another password.
func tampered(t *testing.T, text string) string {
	t.Helper()
	parsed, err := token.ParseURL([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	forged := *parsed
	forged.Password = bytes.Clone(parsed.Password)
	forged.Password[0] ^= 1
	return string(forged.AppendURL(nil))
}

func shareSequences(t *testing.T, ours *goPeer, java *javaPeer) {
	seen := map[int32]bool{}
	for range 230 { // more than two batches each
		for _, text := range []string{ours.issue(t), java.must("issue", "alice", "yarn")} {
			if n := sequence(t, text); seen[n] || n <= 0 {
				t.Fatalf("token %d exists already", n)
			} else {
				seen[n] = true
			}
		}
	}
}

func TestZooKeeperSharedWithJavaBySASL(t *testing.T) {
	EachHadoop(t, func(t *testing.T, hadoop string) {
		realm := kdc.Start(t, "EXAMPLE.TEST")
		realm.Add("zookeeper/localhost", "HTTP/java", "HTTP/ours")
		t.Setenv("KRB5_CONFIG", realm.Config)
		server := zkserver.Start(t, zkserver.Options{Kerberos: &zkserver.Kerberos{
			Principal: "zookeeper/localhost@EXAMPLE.TEST",
			Keytab:    realm.Keytab("zookeeper/localhost"),
			Config:    realm.Config,
		}})
		addr := strings.Replace(server.Addr, "127.0.0.1", "localhost", 1)
		startOurs := func() *goPeer {
			return startGoPeer(t, zookeeper.Settings{
				Servers:   []string{addr},
				Principal: "HTTP/ours@EXAMPLE.TEST",
				Keytab:    realm.Keytab("HTTP/ours"),
			}, time.Hour)
		}
		startJava := func() *javaPeer {
			return startJavaPeer(t, Java(t, hadoop, "-Djava.security.krb5.conf="+realm.Config,
				checksPackage+"ZooKeeperPeer", addr, "3600000", realm.Keytab("HTTP/java"), "HTTP/java@EXAMPLE.TEST"))
		}
		var ours *goPeer
		var java *javaPeer
		if hadoop == HadoopVersions[0] {
			ours = startOurs()
			java = startJava()
		} else {
			java = startJava()
			ours = startOurs()
		}
		if java.must("sign", signedText) != ours.sign() {
			t.Error("two secrets")
		}
		shareTokens(t, ours, java)
	})
}
