package loadtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/edekd/edekd/loadtest/login"
	"github.com/edekd/edekd/loadtest/measure"
	"github.com/edekd/edekd/loadtest/result"
	"github.com/edekd/edekd/loadtest/wire"
)

// classify names the class of an error that is no answer.
func classify(err error) measure.Failure {
	f := measure.Failure{Sample: err.Error()}
	var refusal *login.Refusal
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var alert tls.AlertError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		f.Class, f.Waited = "timeout", true
	case errors.As(err, &refusal):
		f.Class = fmt.Sprintf("login HTTP %d", refusal.Status)
	case errors.As(err, &dns):
		f.Class = "host not found"
	case errors.As(err, &certificate):
		f.Class = "TLS certificate"
	case errors.As(err, &alert), errors.As(err, &record):
		f.Class = "TLS"
	case errors.Is(err, syscall.ECONNREFUSED):
		f.Class = "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		f.Class = "connection reset"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.EADDRNOTAVAIL):
		f.Class = "the generator has no more sockets"
	case errors.Is(err, wire.ErrUnanswered), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		f.Class = "connection closed"
	default:
		f.Class = "no answer"
	}
	return f
}

// judge says whether an answer is what the operation wants, nil when it is. keys is
// the number of encrypted keys expected.
func judge(op result.Op, a *wire.Answer, keys int) *measure.Failure {
	if a.Status != 200 {
		class, sample := remote(a)
		return &measure.Failure{Class: class, Sample: sample}
	}
	if op == result.Invalidate {
		return nil
	}
	// Hadoop's client takes any other type for no answer at all.
	if kind := bytes.ToLower(bytes.TrimSpace(a.Field("Content-Type"))); !bytes.HasPrefix(kind, []byte("application/json")) {
		return &measure.Failure{Class: "wrong answer", Sample: fmt.Sprintf("Content-Type %q", kind)}
	}
	mark, want := `"iv"`, keys
	switch op {
	case result.Decrypt, result.FirstDecrypt:
		mark, want = `"material"`, 1
	case result.Roll:
		mark, want = `"versionName"`, 1
	case result.Metadata:
		mark, want = `"cipher"`, 1
	}
	if got := bytes.Count(a.Body, []byte(mark)); got != want {
		return &measure.Failure{Class: "wrong answer", Sample: fmt.Sprintf("%d times %s, want %d", got, mark, want)}
	}
	return nil
}

// remote reads the class of a refusal, and its words.
func remote(a *wire.Answer) (class, message string) {
	class = fmt.Sprintf("HTTP %d", a.Status)
	var body struct {
		RemoteException struct {
			Message       *string `json:"message"`
			JavaClassName string  `json:"javaClassName"`
		}
	}
	if err := json.Unmarshal(a.Body, &body); err != nil || body.RemoteException.JavaClassName == "" {
		return class, string(a.Reason)
	}
	class += " " + body.RemoteException.JavaClassName
	if body.RemoteException.Message != nil {
		message = *body.RemoteException.Message
	}
	return class, message
}

// refused makes an error of an answer that stops the preparation.
func refused(what string, a *wire.Answer) error {
	class, message := remote(a)
	return errors.New(result.Printable(what + ": " + class + ": " + message))
}
