package interop

import (
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestClassPathHoldsKMSAndMiniCluster(t *testing.T) {
	EachHadoop(t, func(t *testing.T, hadoop string) {
		first := ClassPath(t, hadoop)
		var found []string
		for _, entry := range filepath.SplitList(first) {
			found = append(found, filepath.Base(entry))
		}
		have := strings.Join(found, "\n") + "\n"
		for _, jar := range []string{"hadoop-common", "hadoop-hdfs", "hadoop-hdfs-client", "hadoop-kms"} {
			if !strings.Contains(have, jar+"-"+hadoop+".jar\n") {
				t.Errorf("no %s in the class path", jar)
			}
		}
		for _, jar := range []string{"hadoop-common", "hadoop-hdfs"} {
			if !strings.Contains(have, jar+"-"+hadoop+"-tests.jar\n") {
				t.Errorf("no test jar of %s in the class path", jar)
			}
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if again, err := classPath(hadoop); err != nil || again != first {
					t.Errorf("a second look at the class path differs: %v", err)
				}
			})
		}
		wg.Wait()
	})
}
