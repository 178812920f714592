package zkserver

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

//go:embed pom.xml
var pom []byte

// classPath returns the jars of pom.xml as Java's -cp wants them. Maven runs only
// when pom.xml changed since its answer was kept, under .cache/zkserver at the
// root of the repository, or when a jar is gone; processes that ask at the same
// time wait for the first one.
func classPath() (string, error) {
	root, err := repoRoot()
	if err != nil {
		return "", err
	}
	cache := filepath.Join(root, ".cache", "zkserver")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}

	sum := sha256.Sum256(pom)
	file := filepath.Join(cache, "jars-"+hex.EncodeToString(sum[:8]))
	if b, err := os.ReadFile(file); err == nil && allExist(string(b)) {
		return string(b), nil
	}
	project := filepath.Join(cache, "pom.xml")
	if err := os.WriteFile(project, pom, 0o644); err != nil {
		return "", err
	}
	part := file + ".part"
	mvn := exec.Command("mvn", "-B", "-q", "-f", project, "dependency:build-classpath", "-Dmdep.outputFile="+part)
	if out, err := mvn.CombinedOutput(); err != nil {
		return "", fmt.Errorf("mvn dependency:build-classpath: %w (\"make setup\" installs Maven)\n%s", err, out)
	}
	b, err := os.ReadFile(part)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), os.Rename(part, file)
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

func allExist(list string) bool {
	for _, p := range filepath.SplitList(strings.TrimSpace(list)) {
		if _, err := os.Stat(p); err != nil {
			return false
		}
	}
	return true
}
