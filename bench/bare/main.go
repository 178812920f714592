// Command bare is what edekd is measured against: fasthttp with edekd's server
// settings, answering the bytes edekd answers, and doing nothing.
//
// It says "serving ADDRESS" and then takes orders, one JSON object a line, on
// standard input: what to answer from now on. It does not look at requests; that
// they are the ones edekd gets, and the answer the one edekd gave, is up to the
// measurement. It ends when standard input does.
package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// answer is one order.
type answer struct {
	Header [][2]string // but for Date, Content-Length, and what else fasthttp writes of its own accord
	Body   []byte      // base64 in the JSON
}

func main() {
	unixSocket := flag.String("unix", "", "listen on this socket instead of a free port of 127.0.0.1")
	pem := flag.String("tls", "", "serve TLS with the certificate and key of this PEM file")
	flag.Parse()
	if err := run(*unixSocket, *pem, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
}

func run(unixSocket, pem string, orders io.Reader, out io.Writer) error {
	network, addr := "tcp", "127.0.0.1:0"
	if unixSocket != "" {
		network, addr = "unix", unixSocket
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Fprintln(out, "serving", l.Addr())
	if pem != "" {
		certificate, err := tls.LoadX509KeyPair(pem, pem)
		if err != nil {
			return err
		}
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
	}
	var current atomic.Pointer[prepared]
	current.Store(&prepared{})
	failed := make(chan error, 1)
	go func() { failed <- newServer(&current).Serve(l) }()
	go func() { failed <- obey(orders, out, &current) }()
	return <-failed
}

// prepared is an answer as fasthttp takes it.
type prepared struct {
	contentType []byte
	header      [][2][]byte
	body        []byte
}

// newServer has the settings of proxy.New, but for the hooks, which do something.
func newServer(current *atomic.Pointer[prepared]) *fasthttp.Server {
	return &fasthttp.Server{
		Handler: func(ctx *fasthttp.RequestCtx) {
			a := current.Load()
			h := &ctx.Response.Header
			h.SetContentTypeBytes(a.contentType)
			for i := range a.header {
				h.SetCanonical(a.header[i][0], a.header[i][1])
			}
			ctx.Response.SetBody(a.body)
		},
		ReadBufferSize:               64 << 10,
		MaxRequestBodySize:           16 << 20,
		ReadTimeout:                  10 * time.Second,
		WriteTimeout:                 30 * time.Second,
		IdleTimeout:                  time.Hour,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		SecureErrorLogMessage:        true,
		CloseOnShutdown:              true,
		DisablePreParseMultipartForm: true,
	}
}

// obey takes orders and acknowledges each with "ok".
func obey(orders io.Reader, out io.Writer, current *atomic.Pointer[prepared]) error {
	lines := json.NewDecoder(bufio.NewReader(orders))
	for {
		var a answer
		if err := lines.Decode(&a); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("an order: %w", err)
		}
		p := &prepared{body: a.Body}
		for _, field := range a.Header {
			if field[0] == fasthttp.HeaderContentType {
				p.contentType = []byte(field[1])
			} else {
				p.header = append(p.header, [2][]byte{[]byte(field[0]), []byte(field[1])})
			}
		}
		current.Store(p)
		fmt.Fprintln(out, "ok")
	}
}
