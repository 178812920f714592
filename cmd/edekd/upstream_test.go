package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/VictoriaMetrics/metrics"

	"github.com/edekd/edekd/keys"
	"github.com/edekd/edekd/upstream/kms"
)

func TestNodesAreShown(t *testing.T) {
	var all []keys.Provider
	for _, uri := range []string{"kms://http@127.0.0.1;127.0.0.2:1/kms", "kms://http@127.0.0.1:1/other"} {
		k, err := keys.OpenKMS(uri, kms.Config{Service: "edekd"}, false)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.Close() })
		all = append(all, k)
	}
	set := metrics.NewSet()
	registerNodes(set, keys.Chain(all...))
	var text bytes.Buffer
	set.WritePrometheus(&text)
	for _, line := range []string{
		`edekd_upstream_waiting{kms="kms://http@127.0.0.1;127.0.0.2:1/kms"} 0`,
		`edekd_upstream_refused_total{kms="kms://http@127.0.0.1:1/other"} 0`,
		`edekd_upstream_node_usable{node="127.0.0.1:1"} 1`,
		`edekd_upstream_node_usable{node="127.0.0.2:1"} 1`,
		`edekd_upstream_node_faults_total{node="127.0.0.2:1"} 0`,
	} {
		if n := strings.Count(text.String(), line+"\n"); n != 1 {
			t.Errorf("%s: %d times in\n%s", line, n, text.String())
		}
	}
}

// Where edekd alone decides who decrypts, by copies of keys or by DEKs that it
// remembers, not everybody may, neither from the start on nor later. Nothing listens
// where the KMS would be.
func TestDecryptingNearbyNeedsClosedRules(t *testing.T) {
	t.Parallel()
	for _, mode := range []struct {
		properties []string
		says       string
	}{
		{[]string{"edekd.upstream.decrypt", "local"}, "edekd.upstream.decrypt: local, while"},
		{[]string{"edekd.upstream.decrypt", "cache", "edekd.upstream.authorization", "local"},
			"edekd.upstream.decrypt: cache, with edekd.upstream.authorization local, while"},
	} {
		s := newSite(t, append(mode.properties, "hadoop.kms.key.provider.uri", "kms://http@127.0.0.1:1/kms")...)
		rules := func(who string) {
			rename(t, filepath.Join(s.dir, "kms-acls.xml"), "<configuration>\n"+propertiesXML(t, "hadoop.kms.acl.DECRYPT_EEK", who)+"</configuration>")
		}
		rules("*")
		if said := s.refused(t); !strings.Contains(said, mode.says) || !strings.Contains(said, "by hadoop.kms.acl.DECRYPT_EEK. Try: name") {
			t.Errorf("%s", said)
		}
		rules("hive")
		p := s.start(t)
		rules("*")
		p.eventuallySays("by hadoop.kms.acl.DECRYPT_EEK")
		p.stop()
	}
}

// Where the KMS behind decides who decrypts, the rules may leave it to that.
func TestOpenRulesBeforeAKMSThatDecides(t *testing.T) {
	t.Parallel()
	for _, properties := range [][]string{
		{"edekd.upstream.decrypt", "cache"},
		{"edekd.upstream.decrypt", "forward", "edekd.upstream.authorization", "local"},
	} {
		s := newSite(t, append(properties, "hadoop.kms.key.provider.uri", "kms://http@127.0.0.1:1/kms")...)
		rename(t, filepath.Join(s.dir, "kms-acls.xml"), "<configuration>\n"+propertiesXML(t, "hadoop.kms.acl.DECRYPT_EEK", "*")+"</configuration>")
		s.start(t).stop()
	}
}
