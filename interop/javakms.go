package interop

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// JavaKMS is a running KMS of the Hadoop distribution.
type JavaKMS struct {
	Addr string // host:port it listens on
	Dir  string // configuration, key store and logs
	// Provider is the URI of its key provider.
	Provider string

	process *os.Process
}

// Signal sends a signal to the process: SIGSTOP makes a server that accepts
// connections and never answers, SIGKILL one that is gone.
func (k *JavaKMS) Signal(tb testing.TB, signal syscall.Signal) {
	tb.Helper()
	if err := k.process.Signal(signal); err != nil {
		tb.Fatalf("%v to the Java KMS at %s: %v", signal, k.Addr, err)
	}
}

var jettyBound = regexp.MustCompile(`Jetty bound to port (\d+)`)

// JavaKMSOptions are what a test changes of a Java KMS. Site and Rules are name,
// value pairs that replace or join those of WriteKMSConfig.
type JavaKMSOptions struct {
	// Provider is the URI of its key provider, a JCEKS file of its own if empty.
	Provider string
	JVM      []string // options of the virtual machine
	Env      []string // variables of the environment
	Site     []string // of core-site.xml and kms-site.xml
	Rules    []string // of kms-acls.xml
	SSL      string   // the text of ssl-server.xml, where there is to be one
	// Client is one that is let in, http.DefaultClient for all without TLS.
	Client *http.Client
}

// StartJavaKMS runs the Java KMS of one Hadoop release on a free port, with the
// configuration of WriteKMSConfig in a folder of its own, and ends it with the
// test. Without options: simple authentication, a JCEKS file, everything
// allowed.
func StartJavaKMS(tb testing.TB, hadoop string, options ...JavaKMSOptions) *JavaKMS {
	tb.Helper()
	dir := tb.TempDir()
	provider := "jceks://file@" + filepath.Join(dir, "kms.keystore")
	var o JavaKMSOptions
	base, client := "http://", http.DefaultClient
	for _, more := range options {
		o.JVM, o.Env = append(o.JVM, more.JVM...), append(o.Env, more.Env...)
		o.Site, o.Rules = append(o.Site, more.Site...), append(o.Rules, more.Rules...)
		provider = cmp.Or(more.Provider, provider)
		if more.SSL != "" {
			base, client = "https://", more.Client
			writeFile(tb, filepath.Join(dir, "ssl-server.xml"), more.SSL)
			o.JVM = append(o.JVM, withConfiguration(tb, hadoop, dir)...)
		}
	}
	writeKMSConfig(tb, dir, provider, o.Site, o.Rules)
	logFile := filepath.Join(dir, "kms.log")
	cmd := Java(tb, hadoop, append(o.JVM,
		// A flush seals the metadata of every key anew, 200000 rounds each by
		// default; this is the least the JDK takes.
		"-Djdk.jceks.iterationCount=10000",
		"-Dkms.config.dir="+dir,
		"-Dkms.log.dir="+dir,
		"-Dinterop.log="+logFile,
		"org.apache.hadoop.crypto.key.kms.server.KMSWebServer")...)
	out, err := os.Create(filepath.Join(dir, "console.log"))
	if err != nil {
		tb.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), o.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		tb.Fatalf("starting the Java KMS: %v (is a JDK installed?)", err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
		out.Close()
	})

	deadline := time.After(90 * time.Second)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-exited:
			tb.Fatalf("the Java KMS ended at start:\n%s", logTail(out.Name(), logFile))
		case <-deadline:
			tb.Fatalf("the Java KMS did not come up:\n%s", logTail(out.Name(), logFile))
		case <-tick.C:
			text, _ := os.ReadFile(logFile)
			if m := jettyBound.FindSubmatch(text); m != nil {
				k := &JavaKMS{Addr: "127.0.0.1:" + string(m[1]), Dir: dir, Provider: provider, process: cmd.Process}
				k.warm(tb, client, base)
				return k
			}
		}
	}
}

// warm waits for the first answer, which takes Java seconds. It goes to edekd: a
// Java KMS before another keeps the cookie that its first caller got there, and
// uses it for whoever comes later.
func (k *JavaKMS) warm(tb testing.TB, client *http.Client, base string) {
	tb.Helper()
	patient := *client
	patient.Timeout = 90 * time.Second
	response, err := patient.Get(base + k.Addr + "/kms/v1/keys/names?user.name=edekd")
	if err != nil {
		tb.Fatalf("the Java KMS does not answer: %v", err)
	}
	response.Body.Close()
}

// WriteKMSConfig writes the kms-site.xml, kms-acls.xml and core-site.xml that
// both servers of a comparison are started with: one key provider, simple
// authentication, cookies signed with a known secret, every operation open to
// everyone, port 0 on the loopback interface.
func WriteKMSConfig(tb testing.TB, dir, providerURI string) {
	tb.Helper()
	writeKMSConfig(tb, dir, providerURI, nil, nil)
}

func writeKMSConfig(tb testing.TB, dir, providerURI string, site, rules []string) {
	tb.Helper()
	secret := filepath.Join(dir, "signature.secret")
	writeFile(tb, secret, signingSecret)
	writeFile(tb, filepath.Join(dir, "core-site.xml"), siteXML(site...))
	writeFile(tb, filepath.Join(dir, "kms-site.xml"), siteXML(append([]string{
		"hadoop.kms.http.host", "127.0.0.1",
		"hadoop.kms.http.port", "0",
		"hadoop.kms.key.provider.uri", providerURI,
		"hadoop.kms.authentication.type", "simple",
		"hadoop.kms.authentication.signer.secret.provider", "file",
		"hadoop.kms.authentication.signature.secret.file", secret,
	}, site...)...))
	var acls []string
	for _, op := range []string{"CREATE", "DELETE", "ROLLOVER", "GET", "GET_KEYS", "GET_METADATA", "SET_KEY_MATERIAL", "GENERATE_EEK", "DECRYPT_EEK"} {
		acls = append(acls, "hadoop.kms.acl."+op, "*")
	}
	for _, op := range []string{"MANAGEMENT", "GENERATE_EEK", "DECRYPT_EEK", "READ"} {
		acls = append(acls, "default.key.acl."+op, "*")
	}
	writeFile(tb, filepath.Join(dir, "kms-acls.xml"), siteXML(append(acls, rules...)...))
}

// siteXML renders a Hadoop configuration file of name, value pairs.
func siteXML(pairs ...string) string {
	var b strings.Builder
	b.WriteString("<?xml version=\"1.0\"?>\n<configuration>\n")
	for i := 0; i+1 < len(pairs); i += 2 {
		fmt.Fprintf(&b, "  <property><name>%s</name><value>%s</value></property>\n", pairs[i], pairs[i+1])
	}
	b.WriteString("</configuration>\n")
	return b.String()
}

func writeFile(tb testing.TB, path, text string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// logTail returns the last lines of the named files, for a failure message.
func logTail(files ...string) string {
	var b strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if len(text) > 4000 {
			text = text[len(text)-4000:]
		}
		fmt.Fprintf(&b, "%s:\n%s\n", filepath.Base(f), text)
	}
	return b.String()
}
