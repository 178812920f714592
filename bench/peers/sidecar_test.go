package peers

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/bench/distance"
	"github.com/edekd/edekd/bench/drive"
	"github.com/edekd/edekd/bench/kms"
	"github.com/edekd/edekd/bench/process"
	"github.com/edekd/edekd/bench/report"
	"github.com/edekd/edekd/bench/sidecar"
	"github.com/edekd/edekd/bench/stats"
	"github.com/edekd/edekd/interop"
)

const (
	roundTrip      = 30 * time.Millisecond
	farConnections = 128

	goalRefills = 1.0 // × the CPU of clients that go straight
	goalSingles = 5.0 // × less
)

// profile is what clients ask the Java KMS for, straight or through edekd.
type profile struct {
	name     string
	rate     float64 // requests a second
	fewest   int     // EDEKs of one, drawn evenly between
	most     int
	goal     *report.Goal
	figure   func(straight, through []float64) stats.Interval
	unit     string
	requests int // different ones
}

// profiles: what a NameNode's queues lack, and what clients without one ask for.
var profiles = []profile{
	{name: "NameNode profile, num_keys=150–500", rate: 25, fewest: 150, most: 500, goal: &report.Goal{AtMost: goalRefills},
		figure: func(straight, through []float64) stats.Interval { return stats.Ratio(through, straight) }, unit: "× straight", requests: 100},
	{name: "num_keys=1", rate: 2000, fewest: 1, most: 1, goal: &report.Goal{AtLeast: goalSingles},
		figure: stats.Ratio, unit: "× less than straight", requests: 1},
}

// mix returns a profile's requests and how many EDEKs each asks for on average.
func (p *profile) mix(c *kms.Client, cookie string) (requests drive.Requests, keys float64) {
	random := rand.New(rand.NewPCG(11, 12))
	sum := 0
	for range p.requests {
		n := p.fewest + random.IntN(p.most-p.fewest+1)
		sum += n
		requests = append(requests, c.GenerateRequest(zone, n, cookie, ""))
	}
	return requests, float64(sum) / float64(p.requests)
}

// BenchmarkSidecar runs once: a Java KMS that clients go to, and one that edekd
// stands before, with the same keys and the same load at the clients.
func BenchmarkSidecar(b *testing.B) {
	if err := process.PinSelf(*clientCPU); err != nil {
		b.Fatal(err)
	}
	root := interop.RepoRoot(b)
	file := report.File{Taken: time.Now(), Commit: report.Commit(root), Machine: report.ThisMachine(*serverCPU), Options: map[string]string{
		"peer": "Java KMS " + Hadoop, "slices": fmt.Sprint(*slices), "slice": slice.String(), "warm": warm.String(), "roundtrip": roundTrip.String()}}
	stolen, all := report.Stolen()
	dir, _, _ := keystore(b)
	file.Rows = beforeJava(b, dir, *warm, *slices, *slice)
	stolenNow, allNow := report.Stolen()
	file.Machine.Steal = (stolenNow - stolen) / max(allNow-all, 1)
	if err := file.Print(os.Stdout); err != nil {
		b.Fatal(err)
	}
	path, err := file.Write(filepath.Join(root, "bench", "results", "sidecar"))
	if err != nil {
		b.Fatal(err)
	}
	fmt.Printf("\nevery slice is in %s\n", path)
}

// way is one of two to a Java KMS.
type way struct {
	java   *kms.Server
	client *kms.Client
	pool   *drive.Pool
	cookie string
	// made returns how many EDEKs the Java KMS has made and how many calls it has
	// got, when clients have got so many EDEKs by so many requests.
	made func(edeks, requests float64) (made, calls float64)
}

// beforeJava measures both ways, in turn.
func beforeJava(tb testing.TB, keys string, warm time.Duration, slices int, slice time.Duration) (rows []report.Row) {
	tb.Helper()
	straight := startJavaKMS(tb, *serverCPU, copyKeystore(tb, keys), nil)
	behind := startJavaKMS(tb, *serverCPU, copyKeystore(tb, keys), nil)
	line, err := distance.Listen("127.0.0.1:0", straight.Target.Addr, roundTrip)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := line.Close(); err != nil {
			tb.Error(err)
		}
	})
	front, err := sidecar.StartFront(tb.TempDir(), *serverCPU, roundTrip, nil, behind.Target.Addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := front.Stop(); err != nil {
			tb.Error(err)
		}
	})
	direct := openWay(tb, straight, drive.Target{Network: "tcp", Addr: line.Addr()})
	direct.made = func(edeks, requests float64) (float64, float64) { return edeks, requests }
	through := openWay(tb, behind, front.Target)
	through.made = func(float64, float64) (made, calls float64) {
		values, err := front.Client.Metrics()
		if err != nil {
			tb.Fatal(err)
		}
		for name, v := range values {
			switch {
			case name == "edekd_ring_fetched_total":
				made += v
			case strings.HasPrefix(name, "edekd_upstream_node_requests_total"):
				calls += v
			}
		}
		return made, calls
	}
	// Java is warmed up by the same load, however it will be asked later.
	for _, java := range []*way{direct, openWay(tb, behind, behind.Target)} {
		for _, p := range profiles {
			requests, _ := p.mix(java.client, java.cookie)
			if _, err := java.pool.Open(drive.Plan{Rate: p.rate, Length: warm, Requests: requests}); err != nil {
				tb.Fatalf("%s, warming Java up: %v", p.name, err)
			}
		}
	}
	for _, p := range profiles {
		rows = append(rows, p.measure(tb, []*way{direct, through}, warm, slices, slice)...)
	}
	return rows
}

func openWay(tb testing.TB, java *kms.Server, target drive.Target) *way {
	tb.Helper()
	w := &way{java: java, client: kms.NewClient(target)}
	var err error
	if w.cookie, err = w.client.Cookie(kms.NameNode); err != nil {
		tb.Fatal(err)
	}
	if w.pool, err = drive.NewPool(target, farConnections+1, w.client.GenerateRequest(zone, 1, w.cookie, "")); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { w.pool.Close() })
	return w
}

// reading is what a Java KMS has used and done so far.
type reading struct {
	cpu         time.Duration
	made, calls float64
}

// measure loads both ways in turn. What a Java KMS used and did from one turn to
// its next counts for the first: edekd goes on fetching when its load is over.
func (p *profile) measure(tb testing.TB, ways []*way, warm time.Duration, slices int, slice time.Duration) []report.Row {
	tb.Helper()
	var cost, calls [2][]float64
	var before [2]reading
	var edeks, requests [2]float64 // so far, at the clients
	var took [2]float64            // seconds of the last turn
	for round := range slices + 2 {
		for i, w := range ways {
			now := reading{}
			var err error
			if now.cpu, err = w.java.CPU(); err != nil {
				tb.Fatal(err)
			}
			now.made, now.calls = w.made(edeks[i], requests[i])
			if made := now.made - before[i].made; round > 1 && made > 0 {
				cost[i] = append(cost[i], float64(now.cpu-before[i].cpu)/float64(time.Microsecond)/made)
			}
			if round > 1 {
				calls[i] = append(calls[i], (now.calls-before[i].calls)/took[i])
			}
			before[i] = now
			plan := drive.Plan{Rate: p.rate, Length: slice, InOrder: true}
			if round == 0 {
				plan.Length = warm
			}
			var keys float64
			plan.Requests, keys = p.mix(w.client, w.cookie)
			begin := time.Now()
			if _, err := w.pool.Open(plan); err != nil {
				tb.Fatalf("%s: %v", p.name, err)
			}
			took[i] = time.Since(begin).Seconds()
			sent := float64(int(p.rate * plan.Length.Seconds()))
			edeks[i], requests[i] = edeks[i]+keys*sent, requests[i]+sent
		}
	}
	for i := range cost {
		if len(cost[i]) == 0 {
			tb.Fatalf("%s: no EDEK was made in any slice: they are too short", p.name)
		}
	}
	group := "sidecar: before a Java KMS " + Hadoop
	note := fmt.Sprintf("%.0f requests/s, one key, round trip %v, warm-up %v, budget 64 MiB; through: per EDEK fetched ahead", p.rate, roundTrip, warm)
	return []report.Row{
		{Group: group, Case: p.name + ": its CPU, through beside straight", Unit: "µs CPU/EDEK", Ours: cost[1], Beside: cost[0],
			Figure: p.figure(cost[0], cost[1]), FigureUnit: p.unit, Goal: p.goal, Note: note},
		{Group: group, Case: p.name + ": calls it gets", Unit: "calls/s", Ours: calls[1], Beside: calls[0],
			Figure: stats.Ratio(calls[1], calls[0]), FigureUnit: "× straight"},
	}
}

// TestProfilesAskForWhatTheySay: the figures are per EDEK, so their number counts.
func TestProfilesAskForWhatTheySay(t *testing.T) {
	c := kms.NewClient(drive.Target{Network: "tcp", Addr: "127.0.0.1:1"})
	for i, want := range []struct{ requests, least, most int }{{100, 300, 350}, {1, 1, 1}} {
		requests, keys := profiles[i].mix(c, "")
		if len(requests) != want.requests || keys < float64(want.least) || keys > float64(want.most) {
			t.Errorf("%s: %d requests of %.1f EDEKs", profiles[i].name, len(requests), keys)
		}
	}
}
