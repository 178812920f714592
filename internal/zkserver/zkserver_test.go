package zkserver_test

import (
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/edekd/edekd/internal/zkserver"
)

// connect waits for a session.
func connect(t *testing.T, addr string) (*zk.Conn, <-chan zk.Event) {
	t.Helper()
	conn, events, err := zk.Connect([]string{addr}, time.Second, zk.WithLogInfo(false), zk.WithLogger(quiet{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	waitFor(t, events, zk.StateHasSession)
	return conn, events
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}

func waitFor(t *testing.T, events <-chan zk.Event, state zk.State) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case e := <-events:
			if e.State == state {
				return
			}
		case <-deadline:
			t.Fatalf("never %v", state)
		}
	}
}

func TestDataOutlivesAStop(t *testing.T) {
	s := zkserver.Start(t, zkserver.Options{SuperPassword: "pass"})
	conn, events := connect(t, s.Addr)
	if _, err := conn.Create("/kept", []byte("x"), 0, zk.DigestACL(zk.PermAll, "someone", "else")); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	waitFor(t, events, zk.StateDisconnected)
	s.Start()
	waitFor(t, events, zk.StateHasSession)
	if _, _, err := conn.Get("/kept"); err != zk.ErrNoAuth {
		t.Errorf("the ACL does not hold: %v", err)
	}
	if err := conn.AddAuth("digest", []byte("super:pass")); err != nil {
		t.Fatal(err)
	}
	data, _, err := conn.Get("/kept")
	if err != nil || string(data) != "x" {
		t.Errorf("after the restart: %q, %v", data, err)
	}
}

func TestSessionsExpireWhileTheNetworkIsGone(t *testing.T) {
	f := func(name string, breakIt func(*zkserver.Server)) {
		t.Run(name, func(t *testing.T) {
			s := zkserver.Start(t, zkserver.Options{})
			conn, events := connect(t, s.Addr)
			if _, err := conn.Create("/mine", nil, zk.FlagEphemeral, zk.WorldACL(zk.PermAll)); err != nil {
				t.Fatal(err)
			}
			_, _, watch, err := conn.GetW("/mine")
			if err != nil {
				t.Fatal(err)
			}
			breakIt(s)
			waitFor(t, events, zk.StateDisconnected)
			s.AwaitExpiry()
			s.Mend()
			waitFor(t, events, zk.StateExpired)
			if e := <-watch; e.Err != zk.ErrSessionExpired {
				t.Errorf("the watch saw %v", e)
			}
			waitFor(t, events, zk.StateHasSession)
			if exists, _, err := conn.Exists("/mine"); exists || err != nil {
				t.Errorf("the ephemeral node is still there: %v", err)
			}
		})
	}
	f("cut", (*zkserver.Server).Cut)
	f("hang", (*zkserver.Server).Hang)
}
