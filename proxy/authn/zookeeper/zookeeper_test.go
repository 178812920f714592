package zookeeper

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"go.uber.org/goleak"

	"github.com/edekd/edekd/internal/zkserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// waitLimit is how long a test waits for what has to come on a busy machine.
const waitLimit = 30 * time.Second

// eventually polls until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(waitLimit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, waitLimit)
		}
	}
}

// settingsFor has short times, so that what has to expire does.
func settingsFor(s *zkserver.Server) Settings {
	return Settings{
		Servers:        []string{s.Addr},
		Chroot:         "/edekd",
		SessionTimeout: 2 * time.Second,
		ConnectTimeout: 10 * time.Second,
		Retries:        3,
	}
}

func secretsConfig(s *zkserver.Server, validity time.Duration) Config {
	return Config{Secrets: &SecretsConfig{Settings: settingsFor(s), Path: "/kms/secret", Validity: validity}}
}

func tokensConfig(s *zkserver.Server) Config {
	return Config{Tokens: &TokensConfig{Settings: settingsFor(s), WorkingPath: "/zkdtsm", Batch: 10}}
}

// logged collects log lines.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func openNode(t *testing.T, cfg Config) (*Client, *logged) {
	t.Helper()
	log := new(logged)
	n, err := Open(t.Context(), cfg, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	t.Cleanup(func() {
		n.Close()
		if t.Failed() {
			t.Logf("log of a node:\n%s", log)
		}
	})
	return n, log
}

// admin is a connection of the test's own.
func admin(t *testing.T, s *zkserver.Server) *zk.Conn {
	t.Helper()
	c, events, err := zk.Connect([]string{s.Addr}, 10*time.Second, zk.WithLogInfo(false), zk.WithLogger(libraryLog{slog.New(slog.DiscardHandler)}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		for range events {
		}
	})
	for e := range events {
		if e.State == zk.StateHasSession {
			break
		}
	}
	return c
}
