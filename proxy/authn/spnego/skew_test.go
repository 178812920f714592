package spnego_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/edekd/edekd/proxy/authn/spnego"
)

// clocked is an acceptor whose clocks and clock skew a test sets.
type clocked struct {
	*spnego.Acceptor
	*minter
	t       *testing.T
	begin   time.Time
	now     time.Time
	elapsed time.Duration
	conf    string
	include string
}

func newClocked(t *testing.T, skew string) *clocked {
	t.Helper()
	realm, _ := start(t)
	begin := time.Now()
	c := &clocked{
		minter: newMinter(t, realm, "alice", service),
		t:      t, begin: begin, now: begin,
		conf: filepath.Join(t.TempDir(), "krb5.conf"), include: realm.Config,
	}
	c.write(skew)
	c.Acceptor = newAcceptor(t, spnego.Config{
		Keytab: realm.Keytab(service), Principal: service, Krb5Conf: c.conf,
		Now: func() time.Time { return c.now },
	})
	c.SetElapsed(func() time.Duration { return c.elapsed })
	return c
}

func (c *clocked) write(skew string) {
	c.t.Helper()
	if err := os.WriteFile(c.conf, []byte("include "+c.include+"\n[libdefaults]\nclockskew = "+skew+"\n"), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// reload puts another skew in force.
func (c *clocked) reload(skew string) {
	c.t.Helper()
	c.write(skew)
	if err := c.Reload(); err != nil {
		c.t.Fatal(err)
	}
}

// pass lets time pass to so many seconds after the beginning.
func (c *clocked) pass(seconds int) {
	c.elapsed = time.Duration(seconds) * time.Second
	c.now = c.begin.Add(c.elapsed)
}

// at makes a token of a client whose clock is so many seconds after the
// beginning.
func (c *clocked) at(seconds int) []byte {
	return c.tokenAt(c.begin.Add(time.Duration(seconds) * time.Second))
}

// others log in, so many that everything is forgotten that is old enough.
func (c *clocked) others() {
	c.t.Helper()
	for range 64 {
		wantPrincipal(c.t, c.Acceptor, c.tokenAt(c.now), "alice@"+home)
	}
}

func (c *clocked) accepted(token []byte) {
	c.t.Helper()
	wantPrincipal(c.t, c.Acceptor, token, "alice@"+home)
}

func TestReplaysAfterTheSkewWasLowered(t *testing.T) {
	c := newClocked(t, "300")
	ahead := c.at(290)
	c.accepted(ahead)
	c.reload("100")
	c.reload("10") // what was remembered for the first stays so
	c.pass(60)
	c.others()
	c.pass(285)
	c.reload("9")
	c.others()
	wantRefusal(t, c.Acceptor, ahead, spnego.Replay, "replay")

	// Back to the first skew while everything of its time is remembered: fresh
	// tokens of slow clocks are taken.
	c.reload("300")
	c.accepted(c.at(0))
	wantRefusal(t, c.Acceptor, ahead, spnego.Replay, "replay")
}

func TestMemoryShrinksWhenTheSkewWasLowered(t *testing.T) {
	c := newClocked(t, "300")
	c.reload("10")
	c.others()
	c.pass(2*300 + 31)
	c.others()
	c.pass(2*300 + 31 + 2*10 + 31)
	c.others()
	// The first 64 are forgotten, and of the next those in shards that the last
	// came to.
	if got := c.Stats().Remembered; got > 64+16 {
		t.Errorf("%d authenticators are remembered", got)
	}
}

func TestReplaysAfterTheSkewWasRaisedTwice(t *testing.T) {
	c := newClocked(t, "10")
	c.pass(45)
	token := c.at(50)
	c.accepted(token)
	c.pass(100)
	c.others() // the token is forgotten
	c.reload("60")
	c.pass(101)
	c.reload("300")
	wantRefusal(t, c.Acceptor, token, spnego.Skew, "older than the last change")
	c.accepted(c.at(91))
}

func TestReplaysAfterTheClockJumped(t *testing.T) {
	c := newClocked(t, "300")
	token := c.at(0)
	c.accepted(token)
	c.pass(1)
	c.now = c.begin.Add(time.Hour)
	c.others()
	c.pass(10)
	wantRefusal(t, c.Acceptor, token, spnego.Replay, "replay")
}

// Who finds that all clients are refused may raise the skew before he sees that
// the clock is wrong.
func TestSkewRaisedWhileTheClockWasAhead(t *testing.T) {
	c := newClocked(t, "10")
	c.now = c.begin.Add(time.Hour)
	c.reload("60")
	c.pass(59)
	wantRefusal(t, c.Acceptor, c.at(59), spnego.Skew, "older than the last change")
	c.pass(60)
	c.accepted(c.at(60))
}
