package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/edekd/edekd/internal/config"
	"github.com/edekd/edekd/proxy"
	"github.com/edekd/edekd/proxy/peer"
)

// listen opens the port and returns the address that clients use.
func listen(c *config.Config, peers *peer.Peers, log *slog.Logger) (net.Listener, string, *certificate, error) {
	var cert *certificate
	if c.TLS {
		var err error
		if cert, err = newCertificate(c, log); err != nil {
			return nil, "", nil, err
		}
	}
	l, err := net.Listen("tcp", net.JoinHostPort(c.HTTP.Host, strconv.Itoa(c.HTTP.Port)))
	if err != nil {
		property, remedy := "hadoop.kms.http.host", "an address of this host, or 0.0.0.0 for all"
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			property, remedy = "hadoop.kms.http.port", "stop what listens there, or another port (0 takes a free one)"
		case errors.Is(err, syscall.EACCES):
			property, remedy = "hadoop.kms.http.port", "a port of 1024 or more: lower ones are the system's"
		}
		return nil, "", nil, c.Problem(property, "cannot listen: "+err.Error(), remedy)
	}
	scheme := "http"
	l = proxy.Listener(peers.Listener(&patientListener{Listener: l, log: log}))
	if cert != nil {
		scheme, l = "https", tls.NewListener(l, cert.Config())
	}
	port := l.Addr().(*net.TCPAddr).Port
	host := c.HTTP.Host
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		if host, err = os.Hostname(); err != nil {
			host = "localhost"
		}
	}
	return l, fmt.Sprintf("%s://%s/kms", scheme, net.JoinHostPort(host, strconv.Itoa(port))), cert, nil
}

// listenMetrics opens the port for /metrics and /jmx alone, where there is one.
func listenMetrics(c *config.Config, log *slog.Logger) (net.Listener, error) {
	if c.HTTP.MetricsAddress == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", c.HTTP.MetricsAddress)
	if err != nil {
		return nil, c.Problem("edekd.metrics.address", "cannot listen: "+err.Error(), "another address or port")
	}
	return &patientListener{Listener: l, log: log}, nil
}

// patientListener waits where the system is short of what a connection needs,
// files above all. The server takes every other error of Accept for the end: a
// crowd of clients would stop it.
type patientListener struct {
	net.Listener
	log  *slog.Logger
	said time.Time // when the shortage was last logged
}

const (
	acceptPause = 50 * time.Millisecond // until the next attempt
	acceptQuiet = time.Minute           // between log lines about it
)

// Accept is called by one goroutine at a time.
func (l *patientListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err == nil || !isShortage(err) {
			return c, err
		}
		if now := time.Now(); l.said.IsZero() || now.Sub(l.said) >= acceptQuiet {
			l.said = now
			l.log.Error("new connections have to wait", "error", err,
				"remedy", "raise the limit of open files (ulimit -n, LimitNOFILE=), or look for clients that open too many connections")
		}
		time.Sleep(acceptPause)
	}
}

func isShortage(err error) bool {
	for _, shortage := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, shortage) {
			return true
		}
	}
	return false
}
