package peer

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valyala/fasthttp"
)

// serve answers every request with the address it comes from, behind TLS if
// there is a configuration for it, until the test ends.
func serve(t *testing.T, p *Peers, config *tls.Config) (addr string) {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := p.Listener(tcp)
	if config != nil {
		l = tls.NewListener(l, config)
	}
	s := &fasthttp.Server{
		Handler:     func(ctx *fasthttp.RequestCtx) { ctx.SetBodyString(p.Addr(ctx).String()) },
		Logger:      discard{},
		ReadTimeout: 10 * time.Second,
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return tcp.Addr().String()
}

type discard struct{}

func (discard) Printf(string, ...any) {}

// certificate returns what a server and a client need for TLS.
func certificate(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return &tls.Config{Certificates: s.TLS.Certificates}, &tls.Config{RootCAs: roots, ServerName: "example.com"}
}

// answer reads an HTTP answer and returns its body, or what went wrong.
func answer(t *testing.T, conn net.Conn) string {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var response fasthttp.Response
	if err := response.Read(bufio.NewReader(conn)); err != nil {
		return "no answer"
	}
	if response.StatusCode() != fasthttp.StatusOK {
		return fmt.Sprint(response.StatusCode())
	}
	return string(response.Body())
}

const get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"

// version2 is a header of the PROXY protocol: a command (0 LOCAL, 1 PROXY), a
// family and the addresses.
func version2(command, family byte, rest ...byte) string {
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x20|command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(rest)))
	return string(append(b, rest...))
}

func TestProxyProtocol(t *testing.T) {
	v4 := []byte{1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187}
	v6 := append(append(bytes.Repeat([]byte{0}, 10), 0xff, 0xff, 1, 2, 3, 4), bytes.Repeat([]byte{7}, 20)...)
	serverTLS, clientTLS := certificate(t)
	for _, over := range []string{"TCP", "TLS"} {
		config := serverTLS
		if over == "TCP" {
			config = nil
		}
		var mu sync.Mutex
		var refused []string
		listed := believing(t, "127.0.0.0/30", ProxyV2)
		listed.OnRefused = func(proxy netip.Addr, err error) {
			mu.Lock()
			defer mu.Unlock()
			refused = append(refused, proxy.String()+" "+err.Error())
		}
		addr := serve(t, listed, config)
		// f sends a header and a request, and wants this answer.
		f := func(from, header, want string) {
			t.Helper()
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
			conn, err := dialer.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, header); err != nil {
				t.Fatal(err)
			}
			if config != nil {
				conn = tls.Client(conn, clientTLS)
			}
			got := "no answer"
			if _, err := io.WriteString(conn, get); err == nil {
				got = answer(t, conn)
			}
			if want == "refused" && (got == "400" || got == "no answer") {
				return
			}
			if got != want {
				t.Errorf("%s: %q from %s: %s, want %s", over, header, from, got, want)
			}
		}
		f("127.0.0.1", version2(1, 0x11, v4...), "1.2.3.4")
		f("127.0.0.1", version2(1, 0x11, append(v4, 4, 0, 2, 9, 9)...), "1.2.3.4") // with a TLV behind
		f("127.0.0.1", version2(1, 0x21, v6...), "1.2.3.4")
		f("127.0.0.1", "PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n", "1.2.3.4")
		f("127.0.0.1", "PROXY TCP6 2001:db8::1 2001:db8::2 80 443\r\n", "2001:db8::1")

		// The proxy stands for itself.
		f("127.0.0.2", version2(0, 0), "127.0.0.2")
		f("127.0.0.2", version2(0, 0x11, v4...), "127.0.0.2")
		f("127.0.0.2", version2(1, 0x12, v4...), "127.0.0.2")                           // a datagram
		f("127.0.0.2", version2(1, 0x31, bytes.Repeat([]byte{0}, 216)...), "127.0.0.2") // a Unix socket
		f("127.0.0.2", "PROXY UNKNOWN\r\n", "127.0.0.2")

		// Others are not believed, and need no header.
		f("127.0.0.9", "", "127.0.0.9")
		f("127.0.0.9", version2(1, 0x11, v4...), "refused")
		f("127.0.0.9", "PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n", "refused")
		if len(refused) > 0 {
			t.Errorf("%s: told of %q", over, refused)
		}

		// Listed ones that do not say a thing, or not in a way to be understood.
		for n, header := range []string{"", version2(1, 0x11, v4[:11]...), version2(2, 0x11, v4...), version2(1, 0), "PROXY TCP4 1.2.3.4\r\n", "PROXY TCP4 x y 1 2\r\n",
			strings.Repeat("P", 20), "PROXY " + strings.Repeat("x", 200)} {
			f("127.0.0.1", header, "refused")
			mu.Lock()
			if len(refused) != n+1 || !strings.HasPrefix(refused[n], "127.0.0.1 ") || !strings.Contains(refused[n], "send-proxy-v2") {
				t.Errorf("%s: %q: told of %q", over, header, refused)
			}
			mu.Unlock()
		}
		// A second header is the client's.
		f("127.0.0.1", version2(1, 0x11, v4...)+version2(1, 0x11, 9, 9, 9, 9, 9, 9, 9, 9, 0, 0, 0, 0), "refused")
		// A check that only connects is none of anybody's business.
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.(*net.TCPConn).CloseWrite()
		if got := answer(t, conn); got != "no answer" {
			t.Error(got)
		}
		conn.Close()
		mu.Lock()
		if len(refused) != 8 {
			t.Errorf("%s: told of %q", over, refused)
		}
		mu.Unlock()
	}
}

// pipes is a listener of connections without a network, all from one address.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) { return <-p, nil }
func (p pipes) Close() error              { return nil }
func (p pipes) Addr() net.Addr            { return &net.TCPAddr{} }

type pipe struct{ net.Conn }

func (pipe) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 5)} }

func TestSlowHeaderIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := believing(t, "10.0.0.5", ProxyV2)
		told := 0
		p.OnRefused = func(netip.Addr, error) { told++ }
		accepted := make(pipes, 1)
		l := p.Listener(accepted)
		f := func(sent string, wantTold int) {
			t.Helper()
			here, there := net.Pipe()
			defer here.Close()
			defer there.Close()
			accepted <- pipe{there}
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			go io.WriteString(here, sent)
			start := time.Now()
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Errorf("%q: it was read", sent)
			}
			if took := time.Since(start); took != headerTime {
				t.Errorf("%q: it took %v", sent, took)
			}
			if a := address(conn.RemoteAddr()); a.String() != "10.0.0.5" {
				t.Errorf("%q: from %v", sent, a)
			}
			if told != wantTold {
				t.Errorf("%q: told %d times", sent, told)
			}
			here.Close()
			synctest.Wait()
		}
		f("", 0)
		f("PROX", 1)
		f("\r\n\r\n\x00\r\nQUIT\n\x21\x11", 2)
	})
}

func TestConnectionsOfProxiesCanBeHalfClosed(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	l := believing(t, "127.0.0.1", ProxyV2).Listener(tcp)
	client, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := client.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("%d, %v", n, err)
	}
}

// balance starts HAProxy with a configuration whose listener is on descriptor 3,
// and returns the address of that.
func balance(t *testing.T, config string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	path := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	program := "/usr/sbin/haproxy"
	if found, err := exec.LookPath("haproxy"); err == nil {
		program = found
	}
	haproxy := exec.Command(program, "-db", "-f", path)
	haproxy.ExtraFiles = []*os.File{file}
	var log bytes.Buffer
	haproxy.Stdout, haproxy.Stderr = &log, &log
	if err := haproxy.Start(); err != nil {
		t.Fatalf("%v: run make setup", err)
	}
	t.Cleanup(func() {
		haproxy.Process.Kill()
		haproxy.Wait()
		if t.Failed() {
			t.Logf("HAProxy said\n%s", &log)
		}
	})
	return l.Addr().String()
}

// TestHAProxy puts a real balancer between client and server.
func TestHAProxy(t *testing.T) {
	serverTLS, clientTLS := certificate(t)
	const head = "defaults\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n default-server inter 50ms fall 1 rise 1\n"
	// f asks through HAProxy until its checks have found the server.
	f := func(p *Peers, config *tls.Config, mode, options, server string) {
		t.Helper()
		addr := serve(t, p, config)
		balancer := balance(t, head+"listen l\n bind fd@3\n mode "+mode+"\n"+options+" server s "+addr+" source 127.0.0.1 "+server+"\n")
		deadline := time.Now().Add(15 * time.Second)
		for asked := 0; asked < 3; {
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 7)}}
			conn, err := dialer.Dial("tcp", balancer)
			if err != nil {
				t.Fatal(err)
			}
			if config != nil {
				conn = tls.Client(conn, clientTLS)
			}
			got := "no answer"
			if _, err := io.WriteString(conn, strings.Replace(get, "\r\n\r\n", "\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n", 1)); err == nil {
				got = answer(t, conn)
			}
			conn.Close()
			if got == "127.0.0.7" {
				asked++
				continue
			}
			if got != "no answer" && got != "503" || time.Now().After(deadline) {
				t.Errorf("%s: got %s", mode, got)
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	f(believing(t, "127.0.0.1", ProxyV2), nil, "tcp", "", "send-proxy-v2 check check-send-proxy")
	f(believing(t, "127.0.0.1", ProxyV2), serverTLS, "tcp", "", "send-proxy-v2 check check-send-proxy check-ssl verify none")
	f(believing(t, "127.0.0.1", ProxyV2), nil, "http", " option httpchk GET /\n", "send-proxy check check-send-proxy")
	f(believing(t, "127.0.0.1", ForwardedFor), nil, "http", " option httpchk GET /\n option forwardfor\n", "check")
}
