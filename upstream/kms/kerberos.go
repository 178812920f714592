package kms

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/edekd/edekd/internal/krb5client"
)

// begin logs in at the KDC and makes a token for HTTP/host: raw Kerberos that
// asks for mutual authentication, as Hadoop's client sends it. A login is needed
// only when a cookie has run out, so each is a new one. A malformed answer that
// makes gokrb5 panic is an error.
func (k *Kerberos) begin(host string) (token []byte, proof *krb5client.Context, err error) {
	defer func() {
		if r := recover(); r != nil {
			token, proof, err = nil, nil, fmt.Errorf("the KDC's messages are malformed: %v", r)
		}
	}()
	return krb5client.Login{Principal: k.Principal, Keytab: k.Keytab}.Begin("HTTP", host)
}

// verify checks the server's AP-REP in the header WWW-Authenticate.
func verify(proof *krb5client.Context, challenge string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("its answer is malformed: %v", r)
		}
	}()
	const scheme = "negotiate "
	if len(challenge) < len(scheme) || !strings.EqualFold(challenge[:len(scheme)], scheme) {
		return errors.New("it answers with no token")
	}
	reply, err := base64.StdEncoding.DecodeString(strings.TrimSpace(challenge[len(scheme):]))
	if err != nil {
		return err
	}
	return proof.Verify(reply)
}
