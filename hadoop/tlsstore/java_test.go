package tlsstore_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edekd/edekd/hadoop/conf"
	"github.com/edekd/edekd/hadoop/tlsstore"
	"github.com/edekd/edekd/interop"
)

// TestKeysAreChosenAsByHadoop puts the same stores before Hadoop's own HTTP
// server and before ours, and compares which certificate clients are shown,
// and who is let in.
func TestKeysAreChosenAsByHadoop(t *testing.T) {
	var files []string
	var ours []*tls.Config
	for _, lines := range [][]string{
		{tlsstore.KeystoreLocation + " " + tlsstore.Fixture(t, "many.p12"), tlsstore.KeystorePassword + " changeit"},
		{tlsstore.KeystoreLocation + " " + tlsstore.Fixture(t, "two.jks"), tlsstore.KeystorePassword + " changeit"},
		{tlsstore.KeystoreLocation + " " + tlsstore.Fixture(t, "rsa.jks"), tlsstore.KeystorePassword + " changeit", tlsstore.KeystoreKeyPassword + " keychange"},
		// The keystore stands in for the truststore.
		{tlsstore.KeystoreLocation + " " + tlsstore.Fixture(t, "two.jks"), tlsstore.KeystorePassword + " changeit", tlsstore.NeedClientAuth + " true"},
	} {
		path := tlsstore.XML(t, lines...)
		files = append(files, path)
		c := conf.New(os.LookupEnv, nil)
		if err := c.LoadFile(path); err != nil {
			t.Fatal(err)
		}
		loaded, err := tlsstore.Load(c, c)
		if err != nil {
			t.Fatal(err)
		}
		ours = append(ours, loaded.Config)
	}
	ports := hadoopServers(t, files)
	client, err := tls.LoadX509KeyPair(tlsstore.Fixture(t, "client.pem"), tlsstore.Fixture(t, "client.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for i, port := range ports {
		addr := tlsstore.Serve(t, ours[i])
		for _, name := range []string{"", "rsa.example.com", "ec.example.com", "node1.cluster.example.com", "a.b.cluster.example.com", "unknown.example.com", "localhost",
			"apple.example.com", "pear.example.com", "plum.fruit.example.com", "x.fruit.example.com"} {
			for _, suite := range []uint16{0, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA} {
				for _, certificates := range [][]tls.Certificate{nil, {client}} {
					c := &tls.Config{InsecureSkipVerify: true, ServerName: name, Certificates: certificates}
					if suite != 0 {
						c.CipherSuites, c.MaxVersion = []uint16{suite}, tls.VersionTLS12
					}
					theirs, got := shown(net.JoinHostPort("127.0.0.1", port), c), shown(addr, c)
					if theirs != got {
						t.Errorf("%s\n%q, suite %#x, certificate %t: Hadoop shows %s, we show %s", files[i], name, suite, certificates != nil, theirs, got)
					}
				}
			}
		}
	}
}

// shown tells which chain a client is shown, or that it is refused.
func shown(addr string, c *tls.Config) string {
	conn, err := tls.Dial("tcp", addr, c)
	if err != nil {
		return "nothing"
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return "nothing"
	}
	var names []string
	for _, cert := range conn.ConnectionState().PeerCertificates {
		names = append(names, cert.Subject.CommonName)
	}
	return strings.Join(names, "<")
}

// hadoopServers starts Hadoop's server for each ssl-server.xml and returns the
// ports.
func hadoopServers(t *testing.T, files []string) []string {
	t.Helper()
	source, err := filepath.Abs("testdata/HadoopServer.java")
	if err != nil {
		t.Fatal(err)
	}
	cmd := interop.Java(t, "3.4.3", append([]string{source}, files...)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	var ports []string
	for lines := bufio.NewScanner(out); len(ports) < len(files) && lines.Scan(); {
		if port, ok := strings.CutPrefix(lines.Text(), "port "); ok {
			ports = append(ports, port)
		}
	}
	if len(ports) != len(files) {
		t.Fatal("Hadoop's server did not start")
	}
	return ports
}
