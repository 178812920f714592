// Package krb5client is the client's half of Kerberos: a ticket by a keytab, the
// first token for a service, and the service's proof that it is the one.
//
// Every Begin reads krb5.conf and keytab and asks the KDC anew. So no
// conversation begins with a ticket about to expire, and a changed keytab needs
// no reload. gokrb5 waits for KDCs without a deadline of the caller's, and panics
// at some malformed messages: callers recover.
package krb5client

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/jcmturner/gokrb5/v8/asn1tools"
	"github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/gssapi"
	"github.com/jcmturner/gokrb5/v8/iana/chksumtype"
	"github.com/jcmturner/gokrb5/v8/iana/flags"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/spnego"
	"github.com/jcmturner/gokrb5/v8/types"

	"github.com/edekd/edekd/internal/krb5conf"
)

// Login is who logs in.
type Login struct {
	Principal string // without a realm it is of krb5.conf's default
	Keytab    string // path
}

// Client reads krb5.conf and the keytab. It asks nobody. The caller calls Destroy.
func (l Login) Client() (*client.Client, error) {
	krb5, err := krb5conf.Load(krb5conf.Path())
	if err != nil {
		return nil, err
	}
	config, err := krb5.Client()
	if err != nil {
		return nil, err
	}
	keys, err := keytab.Load(l.Keytab)
	if err != nil {
		return nil, fmt.Errorf("keytab %s: %w", l.Keytab, err)
	}
	name, realm, _ := strings.Cut(l.Principal, "@")
	if realm == "" {
		realm = config.LibDefaults.DefaultRealm
	}
	return client.NewWithKeytab(name, realm, keys, config, client.DisablePAFXFAST(true)), nil
}

// Context is the client's side of a conversation that has begun.
type Context struct {
	// Key protects what follows: the ticket's, or after Verify what the server put
	// in its place.
	Key types.EncryptionKey

	auth types.Authenticator
}

// Begin gets a ticket for service/host and makes the first token: an AP-REQ that
// asks for mutual authentication, framed as GSS-API has it (RFC 4121, 4.1).
func (l Login) Begin(service, host string) (token []byte, c *Context, err error) {
	k, err := l.Client()
	if err != nil {
		return nil, nil, err
	}
	defer k.Destroy()
	if err := k.Login(); err != nil {
		return nil, nil, fmt.Errorf("log in as %s@%s with keytab %s: %w", k.Credentials.UserName(), k.Credentials.Domain(), l.Keytab, err)
	}
	ticket, key, err := k.GetServiceTicket(service + "/" + host)
	if err != nil {
		return nil, nil, fmt.Errorf("get a ticket for %s/%s: %w", service, host, err)
	}
	auth, err := types.NewAuthenticator(k.Credentials.Domain(), k.Credentials.CName())
	if err != nil {
		return nil, nil, err
	}
	auth.Cksum = types.Checksum{CksumType: chksumtype.GSSAPI, Checksum: contextFlags(gssapi.ContextFlagMutual | gssapi.ContextFlagInteg)}
	request, err := messages.NewAPReq(ticket, key, auth)
	if err != nil {
		return nil, nil, err
	}
	types.SetFlag(&request.APOptions, flags.APOptionMutualRequired)
	body, err := request.Marshal()
	if err != nil {
		return nil, nil, err
	}
	// 1.2.840.113554.1.2.2 in DER, then the TOK_ID of an AP-REQ.
	token = []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 0x01, 0x02, 0x02, 0x01, 0x00}
	return asn1tools.AddASNAppTag(append(token, body...), 0), &Context{Key: key, auth: auth}, nil
}

// contextFlags returns the checksum that carries the flags of a context without
// channel bindings (RFC 4121, 4.1.1).
func contextFlags(flags int) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 16)
	return binary.LittleEndian.AppendUint32(append(b, make([]byte, 16)...), uint32(flags))
}

// Verify checks the server's AP-REP: that it could read our authenticator, so
// that it has the service's key.
func (c *Context) Verify(reply []byte) error {
	var t spnego.KRB5Token
	if err := t.Unmarshal(reply); err != nil {
		return err
	}
	if t.IsKRBError() {
		return t.KRBError
	}
	if !t.IsAPRep() {
		return errors.New("its answer is no AP-REP")
	}
	plain, err := crypto.DecryptEncPart(t.APRep.EncPart, c.Key, keyusage.AP_REP_ENCPART)
	if err != nil {
		return err
	}
	var part messages.EncAPRepPart
	if err := part.Unmarshal(plain); err != nil {
		return err
	}
	if part.CTime.Unix() != c.auth.CTime.Unix() || part.Cusec != c.auth.Cusec {
		return errors.New("its answer is to another request")
	}
	if len(part.Subkey.KeyValue) > 0 {
		c.Key = part.Subkey
	}
	return nil
}
