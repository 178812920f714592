package zkserver

import (
	"strings"
	"testing"
)

// TestClassPath also fetches the jars, before other tests count on being quick.
func TestClassPath(t *testing.T) {
	jars, err := classPath()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(jars, "zookeeper-") {
		t.Errorf("no ZooKeeper in %s", jars)
	}
}
