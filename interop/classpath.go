// Package interop drives edekd with the Java it stands in for: unmodified
// Hadoop clients, a MiniDFSCluster with an encryption zone, and a real Java KMS
// whose answers are compared with ours.
//
// The Java side is not built by Maven: its dependency plugin resolves one class
// path per Hadoop version (pom.xml), javac compiles the programs under java/,
// and plain java runs them. Both results are kept under .cache/interop at the
// root of the repository, so that only the first run on a machine is slow. Each
// program prints one line of JSON per check; the Go side knows every check by
// name, so a program that ends early cannot pass.
package interop

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// HadoopVersions are the releases every interop test runs against, oldest first.
// 3.5.0 is missing because its KMS artifacts were never published.
var HadoopVersions = []string{"3.3.6", "3.4.3"}

// EachHadoop runs f as one subtest per entry of HadoopVersions.
func EachHadoop(t *testing.T, f func(t *testing.T, hadoop string)) {
	t.Helper()
	for _, v := range HadoopVersions {
		t.Run("hadoop-"+v, func(t *testing.T) { f(t, v) })
	}
}

// ClassPath returns the class path of one Hadoop release: the programs under
// java/, compiled against that release, then Hadoop's clients, HDFS with its
// test jars, and the Java KMS. Maven and javac run only when pom.xml or a source
// changed since the cached result was made; processes that ask at the same time
// wait for the first one.
func ClassPath(tb testing.TB, hadoop string) string {
	tb.Helper()
	cp, err := classPath(hadoop)
	if err != nil {
		tb.Fatalf("class path of Hadoop %s: %v", hadoop, err)
	}
	return cp
}

// RepoRoot returns the folder that holds go.mod.
func RepoRoot(tb testing.TB) string {
	tb.Helper()
	root, err := repoRoot()
	if err != nil {
		tb.Fatal(err)
	}
	return root
}

func repoRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod in this folder or above it")
		}
		dir = parent
	}
}

func classPath(hadoop string) (string, error) {
	root, err := repoRoot()
	if err != nil {
		return "", err
	}
	cache := filepath.Join(root, ".cache", "interop")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(filepath.Join(cache, "lock-"+hadoop))
	if err != nil {
		return "", err
	}
	defer unlock()

	interop := filepath.Join(root, "interop")
	jars, err := resolveJars(interop, cache, hadoop)
	if err != nil {
		return "", err
	}
	classes, err := compile(filepath.Join(interop, "java"), cache, hadoop, jars)
	if err != nil {
		return "", err
	}
	return classes + string(os.PathListSeparator) + jars, nil
}

// resolveJars returns Maven's class path for pom.xml at the given version. A
// cached answer is used while all of its jars still exist.
func resolveJars(interop, cache, hadoop string) (string, error) {
	pom := filepath.Join(interop, "pom.xml")
	sum, err := hashFiles(pom)
	if err != nil {
		return "", err
	}
	file := filepath.Join(cache, "jars-"+hadoop+"-"+sum)
	if b, err := os.ReadFile(file); err == nil && allExist(string(b)) {
		return string(b), nil
	}
	part := file + ".part"
	mvn := exec.Command("mvn", "-B", "-q", "-f", pom, "dependency:build-classpath",
		"-Dhadoop.version="+hadoop, "-Dmdep.outputFile="+part)
	if out, err := mvn.CombinedOutput(); err != nil {
		return "", fmt.Errorf("mvn dependency:build-classpath: %w\n%s", err, out)
	}
	b, err := os.ReadFile(part)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), os.Rename(part, file)
}

// compile builds every source under dir against jars, into a folder named for
// the sources' hash.
func compile(dir, cache, hadoop, jars string) (string, error) {
	sources, err := javaSources(dir)
	if err != nil {
		return "", err
	}
	sum, err := hashFiles(sources...)
	if err != nil {
		return "", err
	}
	classes := filepath.Join(cache, "classes-"+hadoop+"-"+sum)
	if _, err := os.Stat(classes); err == nil {
		return classes, nil
	}
	part := classes + ".part"
	if err := os.RemoveAll(part); err != nil {
		return "", err
	}
	if err := os.MkdirAll(part, 0o755); err != nil {
		return "", err
	}
	if len(sources) > 0 {
		args := append([]string{"-nowarn", "-proc:none", "-cp", jars, "-d", part}, sources...)
		if out, err := exec.Command("javac", args...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("javac: %w\n%s", err, out)
		}
	}
	return classes, os.Rename(part, classes)
}

func javaSources(dir string) ([]string, error) {
	var sources []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".java" {
			sources = append(sources, path)
		}
		return err
	})
	return sources, err
}

// hashFiles names a set of files by their paths and contents.
func hashFiles(paths ...string) (string, error) {
	h := sha256.New()
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n", p, len(b))
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

func allExist(list string) bool {
	for _, p := range filepath.SplitList(list) {
		if _, err := os.Stat(p); err != nil {
			return false
		}
	}
	return true
}

// lockFile takes an exclusive lock that other processes, and other calls in this
// one, wait for. The file stays: removing it would let two holders in.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
