package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/edekd/edekd/internal/config"
)

// statusWait bounds how long edekd may take to say how it is.
const statusWait = 10 * time.Second

type statusCmd struct {
	configFlag
}

// Run asks the edekd of a configuration for /readyz and passes on what it says.
func (cmd *statusCmd) Run(ctx context.Context, out io.Writer) error {
	c, err := config.Load(cmd.Config, os.LookupEnv)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, statusWait)
	defer cancel()
	client, url := readyz(c)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("edekd does not answer: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return err
	}
	fmt.Fprintln(out, strings.TrimSpace(string(text)))
	if response.StatusCode != http.StatusOK {
		return errors.New("edekd is not ready")
	}
	return nil
}

// readyz returns where an edekd on this host says how it is, and how to ask
// there. Who serves the port is not checked: nothing is sent, and nothing depends
// on the answer.
func readyz(c *config.Config) (*http.Client, string) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	client := &http.Client{Transport: transport}
	switch {
	case c.HTTP.MetricsAddress != "":
		return client, "http://" + local(c.HTTP.MetricsAddress) + "/readyz"
	case c.HTTP.UnixSocket != "":
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", c.HTTP.UnixSocket)
		}
		return client, "http://localhost/readyz"
	}
	scheme := "http://"
	if c.TLS {
		scheme = "https://"
	}
	return client, scheme + local(net.JoinHostPort(c.HTTP.Host, strconv.Itoa(c.HTTP.Port))) + "/readyz"
}

// local is an address to reach a listener by that may listen on all.
func local(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("localhost", port)
	}
	return address
}
