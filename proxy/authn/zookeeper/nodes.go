package zookeeper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/edekd/edekd/hadoop/writable"
	"github.com/edekd/edekd/proxy/authn/token"
)

const (
	// maxSecret is the longest signing secret, in bytes, that is believed to be
	// one. Servers make secrets of secretSize.
	maxSecret  = 4096
	secretSize = 32
	// maxKey is Hadoop's bound on a master key, in bytes (DelegationKey).
	maxKey = 1 << 20
	// maxPassword bounds the MAC of a token, in bytes.
	maxPassword = 1024
)

// secretNode is what the node of the signing secrets holds.
type secretNode struct {
	next, current []byte
	previous      []byte // empty: none
	roll          int64  // when next becomes current, ms since the epoch
}

// append encodes the node as ZKSignerSecretProvider does, all numbers
// big-endian: int32 0; length and bytes of the next, the current and the
// previous secret; int64 date of the roll-over.
func (n *secretNode) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, 0)
	for _, s := range [][]byte{n.next, n.current, n.previous} {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(s)))
		dst = append(dst, s...)
	}
	return binary.BigEndian.AppendUint64(dst, uint64(n.roll))
}

// parseSecretNode reads what append writes. The secrets share b's memory.
func parseSecretNode(b []byte) (*secretNode, error) {
	r := writable.NewReader(b)
	if version := fixed32(r); version != 0 && r.Err() == nil {
		return nil, fmt.Errorf("format %d is not known", version)
	}
	var n secretNode
	for _, s := range []*[]byte{&n.next, &n.current, &n.previous} {
		size := fixed32(r)
		if size < 0 || size > maxSecret {
			return nil, fmt.Errorf("a secret of %d bytes", size)
		}
		*s = r.Fixed(int(size))
	}
	n.roll = fixed64(r)
	if err := ended(r); err != nil {
		return nil, err
	}
	if len(n.next) == 0 || len(n.current) == 0 {
		return nil, errors.New("an empty secret")
	}
	return &n, nil
}

// due returns the first date of the node's roll-over, in steps of validity, that
// lies after the given time.
func (n *secretNode) due(after time.Time, validity time.Duration) time.Time {
	due := time.UnixMilli(n.roll)
	// A date centuries away would overflow the arithmetic below.
	if late := after.Sub(due); late > maxAway || late < -maxAway {
		return after.Add(validity)
	} else if late >= 0 {
		due = due.Add((late/validity + 1) * validity)
	}
	return due
}

// maxAway bounds how far from now a believable roll-over is.
const maxAway = 100 * 365 * 24 * time.Hour

// appendKeyNode encodes a master key as Hadoop's DelegationKey does: VInt ID,
// VLong expiry in ms since the epoch, VInt length, key bytes.
func appendKeyNode(dst []byte, k *token.MasterKey) []byte {
	dst = writable.AppendVInt(dst, k.ID)
	dst = writable.AppendVLong(dst, k.Expires)
	return writable.AppendBytes(dst, k.Secret)
}

// parseKeyNode reads what appendKeyNode writes. The key is a copy.
func parseKeyNode(b []byte) (*token.MasterKey, error) {
	r := writable.NewReader(b)
	id, expires, secret := r.VInt(), r.VLong(), r.Bytes(maxKey)
	if err := ended(r); err != nil {
		return nil, err
	}
	if len(secret) == 0 {
		return nil, errors.New("an empty key")
	}
	return token.NewMasterKey(id, expires, append([]byte(nil), secret...)), nil
}

// appendTokenNode encodes a token as ZKDelegationTokenSecretManager does:
// identifier, int64 renew date in ms since the epoch, int32 length, password.
func appendTokenNode(dst []byte, r *token.Record) []byte {
	dst = append(dst, r.Identifier...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.RenewDate))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(r.Password)))
	return append(dst, r.Password...)
}

// parseTokenNode reads what appendTokenNode writes. Identifier and password
// share b's memory; Version is for the caller to set.
func parseTokenNode(b []byte) (*token.Record, error) {
	r := writable.NewReader(b)
	id, err := token.ReadIdentifier(r)
	if err != nil {
		return nil, err
	}
	size := len(b) - len(r.Rest())
	record := &token.Record{Sequence: id.Sequence, Identifier: b[:size:size], RenewDate: fixed64(r)}
	length := fixed32(r)
	if length < 0 || length > maxPassword {
		return nil, fmt.Errorf("a password of %d bytes", length)
	}
	record.Password = r.Fixed(int(length))
	if err := ended(r); err != nil {
		return nil, err
	}
	if length == 0 {
		return nil, errors.New("an empty password")
	}
	return record, nil
}

// parseCounter reads Curator's SharedCount: an int32, big-endian.
func parseCounter(b []byte) (int32, error) {
	r := writable.NewReader(b)
	n := fixed32(r)
	return n, ended(r)
}

func appendCounter(dst []byte, n int32) []byte {
	return binary.BigEndian.AppendUint32(dst, uint32(n))
}

// fixed32 and fixed64 read what Java's DataOutputStream writes for an int and a
// long.
func fixed32(r *writable.Reader) int32 {
	if b := r.Fixed(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func fixed64(r *writable.Reader) int64 {
	if b := r.Fixed(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

// ended checks that all was read and that nothing stands behind it.
func ended(r *writable.Reader) error {
	if err := r.Err(); err != nil {
		return err
	}
	if n := len(r.Rest()); n > 0 {
		return fmt.Errorf("%d bytes too many", n)
	}
	return nil
}
