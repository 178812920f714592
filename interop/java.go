package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// addOpens lets Hadoop's reflection into the JDK 17 packages it still touches.
var addOpens = []string{"java.lang", "java.util", "java.io", "java.net", "java.nio", "sun.nio.ch"}

// Java prepares `java` on the class path of one Hadoop release; args are further
// JVM options, the main class and its arguments. The caller sets standard output
// and environment and runs the command. The process is killed when the test
// ends. Hadoop's log4j output goes to a file whose last lines are shown if the
// test fails.
func Java(tb testing.TB, hadoop string, args ...string) *exec.Cmd {
	tb.Helper()
	log := filepath.Join(tb.TempDir(), "java.log")
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("last lines of Hadoop's log:\n%s", lastLines(log, 40))
		}
	})
	options := []string{
		"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
		"-Dlog4j.configuration=file:" + filepath.Join(RepoRoot(tb), "interop", "java", "log4j.properties"),
		"-Dinterop.log=" + log,
		"-cp", ClassPath(tb, hadoop),
	}
	for _, pkg := range addOpens {
		options = append(options, "--add-opens=java.base/"+pkg+"=ALL-UNNAMED")
	}
	return exec.CommandContext(tb.Context(), "java", append(options, args...)...)
}

// withConfiguration are options after which the virtual machine finds the files
// of a folder of configuration, such as ssl-client.xml.
func withConfiguration(tb testing.TB, hadoop, dir string) []string {
	tb.Helper()
	return []string{"-cp", dir + string(os.PathListSeparator) + ClassPath(tb, hadoop)}
}

// lastLines returns the last n lines of a file, or why it could not be read.
func lastLines(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Sprintf("(%v)", err)
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
