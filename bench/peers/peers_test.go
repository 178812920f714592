package peers

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/edekd/edekd/bench/drive"
	"github.com/edekd/edekd/bench/kms"
	"github.com/edekd/edekd/bench/measure"
	"github.com/edekd/edekd/bench/process"
	"github.com/edekd/edekd/bench/report"
	"github.com/edekd/edekd/bench/stats"
	"github.com/edekd/edekd/interop"
)

var (
	serverCPU  = flag.Int("server-cpu", 0, "core that the servers run on")
	clientCPU  = flag.Int("client-cpu", 1, "core that the load comes from")
	slices     = flag.Int("slices", 20, "slices of each measurement, for each server")
	slice      = flag.Duration("slice", 2*time.Second, "length of a slice")
	warm       = flag.Duration("warm", 30*time.Second, "load of each kind that warms Java up before it is measured")
	operations = flag.Int("operations", 20000, "operations of Hadoop's own benchmark")
)

const (
	connections = 16
	zone        = "zone"
	// systest is a key that KMSBenchmark uses whatever it is told.
	systest   = "systest"
	batchSize = 1000
)

// call is one kind of request to both servers.
type call struct {
	name    string
	goal    float64 // × Java's requests per CPU second, at least
	request func(c *kms.Client, cookie string) []byte
}

func calls(old []kms.EDEK, current kms.EDEK) []call {
	generate := func(n int) func(*kms.Client, string) []byte {
		return func(c *kms.Client, cookie string) []byte { return c.GenerateRequest(zone, n, cookie, "") }
	}
	return []call{
		{"generate, num_keys=1", 8, generate(1)},
		{"decrypt", 8, func(c *kms.Client, cookie string) []byte { return c.DecryptRequest(current, cookie, "") }},
		{"generate, num_keys=150", 60, generate(150)},
		{"generate, num_keys=500", 60, generate(500)},
		{"re-encrypt a batch of 1000", 10, func(c *kms.Client, cookie string) []byte { return c.ReencryptRequest(old, cookie) }},
	}
}

// keystore makes a folder with a JCEKS file, by edekd, and EDEKs of an old and the
// current version of its key.
func keystore(tb testing.TB) (dir string, old []kms.EDEK, current kms.EDEK) {
	tb.Helper()
	dir = tb.TempDir()
	edekd := startEdekd(tb, dir)
	c := kms.NewClient(edekd.Target)
	err := c.Create(zone)
	if err == nil {
		err = c.Create(systest)
	}
	if err == nil {
		old, err = c.Generate(zone, batchSize)
	}
	if err == nil {
		_, err = c.Roll(zone)
	}
	var one []kms.EDEK
	if err == nil {
		one, err = c.Generate(zone, 1)
	}
	if err != nil {
		tb.Fatal(err)
	}
	if err := edekd.Stop(); err != nil {
		tb.Fatal(err)
	}
	return dir, old, one[0]
}

func startEdekd(tb testing.TB, dir string) *kms.Server {
	tb.Helper()
	edekd, err := kms.StartEdekd(kms.Options{CPU: *serverCPU, Dir: dir, Provider: provider(dir)})
	if err != nil {
		tb.Fatal(err)
	}
	return edekd
}

// copyKeystore gives another server the same keys.
func copyKeystore(tb testing.TB, from string) (dir string) {
	tb.Helper()
	dir = tb.TempDir()
	text, err := os.ReadFile(filepath.Join(from, "kms.keystore"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "kms.keystore"), text, 0o600)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return dir
}

// BenchmarkJava runs once: everything, with both kinds of virtual machine.
func BenchmarkJava(b *testing.B) {
	if err := process.PinSelf(*clientCPU); err != nil {
		b.Fatal(err)
	}
	root := interop.RepoRoot(b)
	file := report.File{Taken: time.Now(), Commit: report.Commit(root), Machine: report.ThisMachine(*serverCPU), Options: map[string]string{
		"peer": "Java KMS " + Hadoop, "slices": fmt.Sprint(*slices), "slice": slice.String(), "warm": warm.String(), "operations": fmt.Sprint(*operations)}}
	stolen, all := report.Stolen()
	dir, old, current := keystore(b)
	for _, java := range []struct {
		name string
		jvm  []string
	}{{"default heap", nil}, {"4 GB heap, parallel collector", tunedJVM}} {
		b.Run(java.name, func(b *testing.B) {
			edekd := startEdekd(b, dir)
			b.Cleanup(func() {
				if err := edekd.Stop(); err != nil {
					b.Error(err)
				}
			})
			peer := startJavaKMS(b, *serverCPU, copyKeystore(b, dir), java.jvm)
			file.Rows = append(file.Rows, perCPUSecond(b, "beside the Java KMS "+Hadoop+", "+java.name, edekd, peer, calls(old, current))...)
			file.Rows = append(file.Rows, hadoopsOwn(b, "Hadoop's KMSBenchmark, Java with "+java.name, edekd, peer)...)
		})
	}
	stolenNow, allNow := report.Stolen()
	file.Machine.Steal = (stolenNow - stolen) / max(allNow-all, 1)
	if err := file.Print(os.Stdout); err != nil {
		b.Fatal(err)
	}
	path, err := file.Write(filepath.Join(root, "bench", "results", "peers"))
	if err != nil {
		b.Fatal(err)
	}
	fmt.Printf("\nevery slice is in %s\n", path)
}

// perCPUSecond measures each call on both servers in turn, Java warmed up.
func perCPUSecond(b *testing.B, group string, edekd, java *kms.Server, all []call) (rows []report.Row) {
	b.Helper()
	servers := []*kms.Server{edekd, java}
	var clients []*kms.Client
	var cookies []string
	var pools []*drive.Pool
	for _, server := range servers {
		c := kms.NewClient(server.Target)
		cookie, err := c.Cookie(kms.NameNode)
		if err != nil {
			b.Fatal(err)
		}
		pool, err := drive.NewPool(server.Target, connections, c.GenerateRequest(zone, 1, cookie, ""))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { pool.Close() })
		clients, cookies, pools = append(clients, c), append(cookies, cookie), append(pools, pool)
	}
	for _, call := range all {
		variants := make([]measure.Variant, len(servers))
		for i, server := range servers {
			variants[i] = measure.Variant{Process: server.Process, Pool: pools[i], Active: connections,
				Requests: drive.Requests{call.request(clients[i], cookies[i])}}
		}
		if _, err := pools[1].Closed(*warm, connections, variants[1].Requests); err != nil {
			b.Fatalf("%s, warming Java up: %v", call.name, err)
		}
		c, err := measure.Interleave(variants, *slices, *slice)
		if err != nil {
			b.Fatalf("%s: %v", call.name, err)
		}
		rows = append(rows, report.Row{Group: group, Case: call.name, Unit: "µs CPU/request", Ours: c.Micros[0], Beside: c.Micros[1],
			Figure: stats.Ratio(c.Micros[1], c.Micros[0]), FigureUnit: "× Java's requests per CPU second", Goal: &report.Goal{AtLeast: call.goal},
			Note: fmt.Sprintf("server busy %.0f %%, Java %.0f %%", 100*c.Busy[0], 100*c.Busy[1])})
	}
	return rows
}

// rounds is how often Hadoop's benchmark runs against each server.
const rounds = 3

// hadoopsOwn runs Hadoop's benchmark. It shares the client's core and is itself
// what limits the rate; what the server spends on an operation is measured beside
// what the tool says.
func hadoopsOwn(b *testing.B, group string, edekd, java *kms.Server) (rows []report.Row) {
	b.Helper()
	jar := benchmarkJar(b)
	for _, op := range []string{"encrypt", "decrypt"} {
		var rate, cost [2][]float64
		for range rounds {
			for i, server := range []*kms.Server{edekd, java} {
				cmd := kmsBenchmark(b, jar, server.Target, "-op", op, "-threads", "3", "-numops", strconv.Itoa(*operations))
				before, err := server.CPU()
				if err != nil {
					b.Fatal(err)
				}
				out, err := cmd.CombinedOutput()
				if err != nil {
					b.Fatalf("KMSBenchmark: %v\n%s", err, out)
				}
				after, err := server.CPU()
				if err != nil {
					b.Fatal(err)
				}
				perSecond, err := opsPerSecond(out)
				if err != nil {
					b.Fatal(err)
				}
				rate[i] = append(rate[i], perSecond)
				cost[i] = append(cost[i], float64(after-before)/float64(time.Microsecond)/float64(*operations))
			}
		}
		rows = append(rows,
			report.Row{Group: group, Case: op + ", as the tool says", Unit: "operations/s", Ours: rate[0], Beside: rate[1],
				Figure: stats.Ratio(rate[0], rate[1]), FigureUnit: "× Java's operations/s"},
			report.Row{Group: group, Case: op + ", what the server spends", Unit: "µs CPU/operation", Ours: cost[0], Beside: cost[1],
				Figure: stats.Ratio(cost[1], cost[0]), FigureUnit: "× Java's operations per CPU second"})
	}
	return rows
}

var toolRate = regexp.MustCompile(`(?i)ops per sec: *([0-9.]+)`)

// opsPerSecond reads the result of KMSBenchmark: of several the last, as the first
// is of its warming up.
func opsPerSecond(out []byte) (float64, error) {
	all := toolRate.FindAllSubmatch(out, -1)
	if len(all) == 0 {
		return 0, fmt.Errorf("KMSBenchmark printed no rate:\n%s", bytes.TrimSpace(out))
	}
	return strconv.ParseFloat(string(all[len(all)-1][1]), 64)
}

func TestOpsPerSecond(t *testing.T) {
	got, err := opsPerSecond([]byte("--- encrypt stats ---\n# operations: 10\nOps per sec: 1.5\nOps per sec: 2345.25\n"))
	if err != nil || got != 2345.25 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := opsPerSecond([]byte("Exception in thread")); err == nil {
		t.Error("a failure has a rate")
	}
}

// TestKeystoreOfBoth: what the benchmark hands to both servers is one keystore
// with keys that decrypt.
func TestKeystoreOfBoth(t *testing.T) {
	dir, old, current := keystore(t)
	if len(old) != batchSize || old[0].VersionName != zone+"@0" || current.VersionName != zone+"@1" {
		t.Errorf("%d EDEKs of %s, and one of %s", len(old), old[0].VersionName, current.VersionName)
	}
	edekd := startEdekd(t, copyKeystore(t, dir))
	defer func() {
		if err := edekd.Stop(); err != nil {
			t.Error(err)
		}
	}()
	c := kms.NewClient(edekd.Target)
	cookie, err := c.Cookie(kms.NameNode)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := drive.NewPool(edekd.Target, 1, c.GenerateRequest(zone, 1, cookie, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, call := range calls(old, current) {
		if _, err := pool.Exchange(call.request(c, cookie)); err != nil {
			t.Errorf("%s: %v", call.name, err)
		}
	}
}
