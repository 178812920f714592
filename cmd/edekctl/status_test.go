package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStatus(t *testing.T) {
	code, text := http.StatusOK, "ready\nupstream: read-only\n"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		w.WriteHeader(code)
		w.Write([]byte(text))
	}))
	dir := t.TempDir()
	site := `<configuration><property><name>edekd.metrics.address</name><value>` + strings.TrimPrefix(server.URL, "http://") +
		`</value></property><property><name>edekd.state.dir</name><value>` + dir + `</value></property></configuration>`
	if err := os.WriteFile(filepath.Join(dir, "kms-site.xml"), []byte(site), 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(wantExit int, want string) {
		t.Helper()
		var out, errOut bytes.Buffer
		if exit := run([]string{"status", "--config", dir}, &out, &errOut); exit != wantExit || !strings.Contains(out.String()+errOut.String(), want) {
			t.Errorf("exit %d: %s%s", exit, out.String(), errOut.String())
		}
	}
	f(0, "ready\nupstream: read-only")
	code, text = http.StatusServiceUnavailable, "upstream: down\n"
	f(1, "upstream: down\n")
	server.Close()
	f(1, "does not answer")
}
