package tlsstore

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edekd/edekd/hadoop/conf"
)

// A client believes the servers that its truststore vouches for and no others,
// whatever the system's authorities say.
func TestLoadClient(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	file := filepath.Join(t.TempDir(), "trust.pem")
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, authority, 0o600); err != nil {
		t.Fatal(err)
	}
	ssl := conf.New(os.LookupEnv, nil)
	get := func() error {
		t.Helper()
		c, _, err := LoadClient(ssl)
		if err != nil {
			t.Fatal(err)
		}
		if c.InsecureSkipVerify || c.MinVersion < tls.VersionTLS12 {
			t.Errorf("%+v", c)
		}
		client := http.Client{Transport: &http.Transport{TLSClientConfig: c, DisableKeepAlives: true}}
		response, err := client.Get(server.URL)
		if err == nil {
			response.Body.Close()
		}
		return err
	}
	if err := get(); err == nil {
		t.Error("a server that nobody vouches for is believed")
	}
	ssl.Override(ClientTruststoreLocation, file, "test")
	if err := get(); err != nil {
		t.Error(err)
	}
	_, files, err := LoadClient(ssl)
	if err != nil || len(files) != 1 || files[0] != file {
		t.Errorf("%q %v", files, err)
	}
	refused := func(location, what string) {
		t.Helper()
		ssl.Override(ClientTruststoreLocation, location, "test")
		_, _, err := LoadClient(ssl)
		if problems, ok := errors.AsType[Problems](err); !ok || !strings.Contains(problems.Error(), what) {
			t.Errorf("%s: %v", location, err)
		}
	}
	refused("trust.pem", "not an absolute path")
	refused(file+".none", "no such file")
	if err := os.WriteFile(file, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(file, file)
}
