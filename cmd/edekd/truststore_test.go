package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// check-config finds what is wrong with the truststore for a KMS behind, as the
// start does.
func TestTheTruststoreIsChecked(t *testing.T) {
	t.Parallel()
	s := newSite(t, "hadoop.kms.key.provider.uri", "kms://https@127.0.0.1:1/kms")
	bundle := filepath.Join(s.dir, "trust.pem")
	f := func(want string, properties ...string) {
		t.Helper()
		rename(t, filepath.Join(s.dir, "ssl-client.xml"), "<configuration>\n"+propertiesXML(t, properties...)+"</configuration>")
		checked, _ := exec.Command(binary, "check-config", s.dir).CombinedOutput()
		for _, said := range []string{string(checked), s.refused(t)} {
			if !strings.Contains(said, filepath.Join(s.dir, "ssl-client.xml")) || !strings.Contains(said, want) {
				t.Errorf("want %q in:\n%s", want, said)
			}
		}
	}
	f("no such file", "ssl.client.truststore.location", bundle)
	write(t, bundle, "nothing")
	f("ssl.client.truststore.location", "ssl.client.truststore.location", bundle)
	f("ssl.client.truststore.type", "ssl.client.truststore.location", bundle, "ssl.client.truststore.type", "foo")
}
