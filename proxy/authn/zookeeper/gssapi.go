package zookeeper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jcmturner/gokrb5/v8/gssapi"
	"github.com/jcmturner/gokrb5/v8/iana/etypeID"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/types"

	"github.com/edekd/edekd/internal/krb5client"
)

const (
	opSASL      = 102 // ZooDefs.OpCode.sasl
	authFailed  = -115
	maxSASL     = 64 << 10 // bytes of one message of the conversation
	serviceName = "zookeeper"
)

// kerberos logs in to ZooKeeper servers with the keys of a keytab.
type kerberos struct{ krb5client.Login }

func newKerberos(principal, keytab string) *kerberos {
	return &kerberos{krb5client.Login{Principal: principal, Keytab: keytab}}
}

// converse authenticates a connection whose ZooKeeper session has just begun:
// SASL with GSSAPI (RFC 4752) in ZooKeeper's own packets. It asks the KDC anew
// each time, and reads keytab and krb5.conf anew, so a connection never begins
// with a ticket about to expire, and a changed keytab needs no reload. The
// server has to prove that it is zookeeper/host. Messages that make gokrb5 panic
// are errors.
func (k *kerberos) converse(conn net.Conn, host string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the server's Kerberos messages are malformed: %v", r)
		}
	}()
	token, s, err := k.Begin(serviceName, host)
	if err != nil {
		return err
	}
	reply, err := exchange(conn, token)
	if err != nil {
		return err
	}
	if err := s.Verify(reply); err != nil {
		return fmt.Errorf("the server does not prove that it is %s/%s: %w", serviceName, host, err)
	}
	offer, err := exchange(conn, nil)
	if err != nil {
		return err
	}
	choice, err := choose(s.Key, offer)
	if err != nil {
		return err
	}
	_, err = exchange(conn, choice)
	return err
}

// check tells whether the keytab has an AES key of the principal. It asks nobody.
func (k *kerberos) check() error {
	c, err := k.Client()
	if err != nil {
		return err
	}
	defer c.Destroy()
	for _, etype := range []int32{etypeID.AES256_CTS_HMAC_SHA1_96, etypeID.AES128_CTS_HMAC_SHA1_96,
		etypeID.AES256_CTS_HMAC_SHA384_192, etypeID.AES128_CTS_HMAC_SHA256_128} {
		if _, _, err := c.Credentials.Keytab().GetEncryptionKey(c.Credentials.CName(), c.Credentials.Domain(), 0, etype); err == nil {
			return nil
		}
	}
	return fmt.Errorf("keytab %s has no AES key of %s@%s", k.Keytab, c.Credentials.UserName(), c.Credentials.Domain())
}

// choose answers the server's offer of security layers: none, the connection
// itself is neither encrypted nor signed, as with Java's client.
func choose(key types.EncryptionKey, offer []byte) ([]byte, error) {
	const noLayer = 1
	var wrapped gssapi.WrapToken
	if err := wrapped.Unmarshal(offer, true); err != nil {
		return nil, fmt.Errorf("the server's offer of security layers: %w", err)
	}
	if ok, err := wrapped.Verify(key, keyusage.GSSAPI_ACCEPTOR_SEAL); !ok {
		return nil, fmt.Errorf("the server's offer of security layers: %w", err)
	}
	if len(wrapped.Payload) != 4 || wrapped.Payload[0]&noLayer == 0 {
		return nil, errors.New("the server insists on a security layer: set its SASL quality of protection to auth")
	}
	answer, err := gssapi.NewInitiatorWrapToken([]byte{noLayer, 0, 0, 0}, key)
	if err != nil {
		return nil, err
	}
	// A server that gave a key of its own wants to see that it is used.
	if wrapped.Flags&acceptorSubkey != 0 {
		answer.Flags |= acceptorSubkey
		answer.CheckSum = nil
		if err := answer.SetCheckSum(key, keyusage.GSSAPI_INITIATOR_SEAL); err != nil {
			return nil, err
		}
	}
	return answer.Marshal()
}

const acceptorSubkey = 0x04 // RFC 4121, 4.2.2

// exchange sends one message of the conversation and returns the answer.
func exchange(conn net.Conn, token []byte) ([]byte, error) {
	packet := binary.BigEndian.AppendUint32(nil, uint32(4+4+4+len(token)))
	packet = binary.BigEndian.AppendUint32(packet, 0) // xid
	packet = binary.BigEndian.AppendUint32(packet, opSASL)
	packet = binary.BigEndian.AppendUint32(packet, uint32(len(token)))
	if _, err := conn.Write(append(packet, token...)); err != nil {
		return nil, err
	}
	frame, err := readFrame(conn, maxSASL)
	if err != nil {
		return nil, fmt.Errorf("the server ended the SASL conversation: %w", err)
	}
	return parseReply(frame)
}

// parseReply returns the token in an answer: xid, zxid and error code before it,
// its length or -1 for none in front.
func parseReply(frame []byte) ([]byte, error) {
	const header = 4 + 8 + 4
	if len(frame) < header {
		return nil, io.ErrUnexpectedEOF
	}
	switch code := int32(binary.BigEndian.Uint32(frame[header-4:])); code {
	case 0:
	case authFailed:
		return nil, errors.New("the server refuses the authentication: its log says why")
	default:
		return nil, fmt.Errorf("the server refuses the authentication with code %d", code)
	}
	body := frame[header:]
	if len(body) < 4 {
		return nil, nil
	}
	size := int32(binary.BigEndian.Uint32(body))
	if size < 0 {
		return nil, nil
	}
	if int64(size) > int64(len(body)-4) {
		return nil, io.ErrUnexpectedEOF
	}
	return body[4 : 4+size], nil
}

// readFrame reads what stands behind its own length.
func readFrame(r io.Reader, limit int) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > uint32(limit) {
		return nil, fmt.Errorf("a packet of %d bytes: is this a ZooKeeper server?", n)
	}
	frame := make([]byte, n)
	_, err := io.ReadFull(r, frame)
	return frame, err
}

// kdcPatience is what is added to the time a connection may take: gokrb5 waits
// for a KDC without a deadline of ours.
const kdcPatience = 10 * time.Second
