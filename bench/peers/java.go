// Package peers measures edekd beside the Java KMS of a Hadoop release: on one
// machine in one run, with one client, one keystore file and one set of
// configuration files.
//
// The measurements are benchmarks of Go's testing package, so that `go test`
// alone does not run them; `make bench-peers` does.
package peers

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/bench/drive"
	"github.com/edekd/edekd/bench/kms"
	"github.com/edekd/edekd/bench/process"
	"github.com/edekd/edekd/interop"
)

// Hadoop is the release measured.
const Hadoop = "3.4.3"

// fullyOptimised takes back what the interop tests ask the virtual machine for,
// which is a quick start. They also ask for the serial collector, which is what it
// chooses by itself on one core.
const fullyOptimised = "-XX:TieredStopAtLevel=4"

// tunedJVM is what an administrator of a busy KMS would set.
var tunedJVM = []string{"-Xms4g", "-Xmx4g", "-XX:+AlwaysPreTouch", "-XX:-UseSerialGC", "-XX:+UseParallelGC"}

const javaStart = 2 * time.Minute

var jettyBound = regexp.MustCompile(`Jetty bound to port (\d+)`)

// startJavaKMS runs a Java KMS on one core, in a folder that has its keystore file,
// and ends it with the benchmark.
func startJavaKMS(tb testing.TB, cpu int, dir string, jvm []string) *kms.Server {
	tb.Helper()
	if err := kms.WriteConfig(dir, provider(dir), 0, nil); err != nil {
		tb.Fatal(err)
	}
	log := filepath.Join(dir, "kms.log")
	args := append(logging(tb, log), fullyOptimised, "-cp", dir+string(os.PathListSeparator)+interop.ClassPath(tb, Hadoop))
	args = append(append(args, jvm...),
		"-Dkms.config.dir="+dir, "-Dkms.log.dir="+dir, "org.apache.hadoop.crypto.key.kms.server.KMSWebServer")
	cmd := interop.Java(tb, Hadoop, args...)
	console, err := os.Create(filepath.Join(dir, "console.log"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { console.Close() })
	cmd.Stdout, cmd.Stderr = console, console
	p, err := process.Start(cmd, cpu)
	if err != nil {
		tb.Fatal(err)
	}
	// The status of a virtual machine ended by a signal says nothing.
	tb.Cleanup(func() { _ = p.Stop() })
	for deadline := time.Now().Add(javaStart); ; time.Sleep(100 * time.Millisecond) {
		text, err := os.ReadFile(log)
		if m := jettyBound.FindSubmatch(text); m != nil {
			return &kms.Server{Process: p, Dir: dir, Target: drive.Target{Network: "tcp", Addr: "127.0.0.1:" + string(m[1])}}
		}
		select {
		case <-p.Exited():
			deadline = time.Time{}
		default:
		}
		if time.Now().After(deadline) {
			said, _ := os.ReadFile(console.Name())
			tb.Fatalf("the Java KMS did not start (%v):\n%s\n%s", err, said, text)
		}
	}
}

// provider is the keystore file of a folder.
func provider(dir string) string { return "jceks://file@" + filepath.Join(dir, "kms.keystore") }

// logging are the options that put Hadoop's log into a file and the audit log
// beside it.
func logging(tb testing.TB, log string) []string {
	return []string{"-Dlog4j.configuration=file:" + filepath.Join(interop.RepoRoot(tb), "bench", "peers", "log4j.properties"), "-Dinterop.log=" + log}
}

// benchmarkJar returns the jar with Hadoop's KMSBenchmark, which Maven fetches.
func benchmarkJar(tb testing.TB) string {
	tb.Helper()
	out := filepath.Join(tb.TempDir(), "jar")
	mvn := exec.Command("mvn", "-B", "-q", "-f", filepath.Join(interop.RepoRoot(tb), "bench", "peers", "pom.xml"),
		"dependency:build-classpath", "-Dhadoop.version="+Hadoop, "-Dmdep.outputFile="+out)
	if text, err := mvn.CombinedOutput(); err != nil {
		tb.Fatalf("mvn: %v\n%s", err, text)
	}
	jar, err := os.ReadFile(out)
	if err != nil {
		tb.Fatal(err)
	}
	return strings.TrimSpace(string(jar))
}

// kmsBenchmark prepares Hadoop's own benchmark against one server, as the NameNode.
func kmsBenchmark(tb testing.TB, jar string, target drive.Target, args ...string) *exec.Cmd {
	tb.Helper()
	dir := tb.TempDir()
	core := "<configuration><property><name>hadoop.security.key.provider.path</name><value>kms://http@" + target.Addr + "/kms</value></property></configuration>"
	if err := os.WriteFile(filepath.Join(dir, "core-site.xml"), []byte(core), 0o600); err != nil {
		tb.Fatal(err)
	}
	path := strings.Join([]string{dir, jar, interop.ClassPath(tb, Hadoop)}, string(os.PathListSeparator))
	options := append(logging(tb, filepath.Join(dir, "client.log")), fullyOptimised, "-cp", path, "org.apache.hadoop.crypto.key.kms.server.KMSBenchmark")
	cmd := interop.Java(tb, Hadoop, append(options, args...)...)
	cmd.Env = append(os.Environ(), "HADOOP_USER_NAME="+kms.NameNode)
	return cmd
}
