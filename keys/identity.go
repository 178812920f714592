package keys

import (
	"bytes"
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/ProtonMail/go-crypto/openpgp/s2k"

	"github.com/edekd/edekd/internal/durable"
	"github.com/edekd/edekd/keystore"
)

// Bounds of what is read from files an operator names.
const (
	maxIdentityFile   = 1 << 20
	maxPassphraseFile = 4096
)

// Identity is the OpenPGP key of a KMS. It opens the ring keys that seal all
// deposits, so who loses it loses every key, and who has it and the deposits
// has every key. It is safe for concurrent use.
type Identity struct {
	entity    *openpgp.Entity
	protected bool
	at        time.Time
}

// CreateIdentity makes a new identity and writes it to path, mode 0600 and
// durable, protected by the passphrase unless that is empty. The file is an
// armored OpenPGP secret key (version 4, Curve25519) that gpg --import reads.
// An existing file is never overwritten: the error is fs.ErrExist then.
func CreateIdentity(path string, passphrase []byte) (*Identity, error) {
	config := &packet.Config{
		Algorithm:     packet.PubKeyAlgoEdDSA,
		Curve:         packet.Curve25519,
		DefaultHash:   crypto.SHA256,
		DefaultCipher: packet.CipherAES256,
		// The most that a version 4 key and gpg 2.2 allow (RFC 4880, 3.7.1.3).
		S2KConfig: &s2k.Config{S2KMode: s2k.IteratedSaltedS2K, Hash: crypto.SHA256, S2KCount: 65011712},
	}
	entity, err := openpgp.NewEntity("edekd", "", "", config)
	if err != nil {
		return nil, fmt.Errorf("make an identity: %w", err)
	}
	if len(passphrase) > 0 {
		if err := entity.EncryptPrivateKeys(passphrase, config); err != nil {
			return nil, fmt.Errorf("protect the identity: %w", err)
		}
	}
	var file bytes.Buffer
	defer func() { clear(file.Bytes()) }()
	file.Grow(8 << 10) // growing later would leave a copy of the key behind
	w, err := armor.Encode(&file, openpgp.PrivateKeyType, nil)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(entity.SerializePrivateWithoutSigning(w, nil), w.Close()); err != nil {
		return nil, fmt.Errorf("encode the identity: %w", err)
	}
	file.WriteByte('\n')
	if err := durable.Create(path, 0o600, file.Bytes()); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("the identity file %s exists already and is never overwritten: %w", path, fs.ErrExist)
		}
		return nil, fmt.Errorf("write the identity: %w", err)
	}
	return LoadIdentity(path, passphrase)
}

// LoadIdentity reads the identity file at path: one OpenPGP secret key that
// can sign and has a key for encryption, armored or not. A file that group or
// others may read is refused. The passphrase is used if the file has one.
func LoadIdentity(path string, passphrase []byte) (*Identity, error) {
	content, err := ReadIdentityFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(content)
	id, err := ParseIdentity(content, passphrase)
	if err != nil {
		return nil, fmt.Errorf("identity file %s: %w", path, err)
	}
	return id, nil
}

// ReadIdentityFile returns the bytes of an identity file as LoadIdentity reads
// them. They may hold a private key: the caller zeroes them.
func ReadIdentityFile(path string) ([]byte, error) {
	content, err := readPrivate(path, "identity file", maxIdentityFile, 0o077)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: edekd makes one at its first start; if there was one, put it back or restore a backup (edekctl store restore)", err)
	}
	return content, err
}

// ReadIdentityOf is ReadIdentityFile for the identity of a box: when the file
// is missing, the error says whether the box needs it.
func ReadIdentityOf(ctx context.Context, box keystore.Reader, path string) ([]byte, error) {
	content, err := ReadIdentityFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return content, err
	}
	missing := err
	if err := box.List(ctx, "", func(*keystore.Deposit) bool { missing = missingIdentity(path); return false }); err != nil {
		return nil, fmt.Errorf("look whether the key store is empty: %w", err)
	}
	return nil, missing
}

// ParseIdentity is LoadIdentity for the content of a file. content is not
// retained.
func ParseIdentity(content, passphrase []byte) (*Identity, error) {
	read := openpgp.ReadKeyRing
	if bytes.HasPrefix(bytes.TrimSpace(content), []byte("-----BEGIN ")) {
		read = openpgp.ReadArmoredKeyRing
	}
	entities, err := read(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("not an OpenPGP key: %w: restore the file from a backup", err)
	}
	if len(entities) != 1 || entities[0].PrivateKey == nil || entities[0].PrivateKey.Dummy() {
		return nil, errors.New("it must hold exactly one OpenPGP secret key: export it with gpg --export-secret-keys FINGERPRINT")
	}
	id := &Identity{entity: entities[0], protected: entities[0].PrivateKey.Encrypted}
	if id.protected {
		if len(passphrase) == 0 {
			return nil, errors.New("it is protected by a passphrase: name the file that holds the passphrase in the configuration (edekd.identity.passphrase-file)")
		}
		if err := id.entity.DecryptPrivateKeys(passphrase); err != nil {
			return nil, fmt.Errorf("the passphrase does not open it: %w: check the passphrase file (edekd.identity.passphrase-file)", err)
		}
	}
	// Signatures and self-signatures are judged at the moment the key was
	// complete: a KMS must not lose its keys to a calendar or a wrong clock.
	id.at = id.entity.PrimaryKey.CreationTime
	signatures := []*packet.Signature{}
	if self, _ := id.entity.PrimarySelfSignature(); self != nil {
		signatures = append(signatures, self)
	}
	for _, sub := range id.entity.Subkeys {
		signatures = append(signatures, sub.Sig)
	}
	for _, sig := range signatures {
		if sig.CreationTime.After(id.at) {
			id.at = sig.CreationTime
		}
	}
	encryption, canEncrypt := id.entity.EncryptionKey(id.at)
	signing, canSign := id.entity.SigningKey(id.at)
	if !canEncrypt || !canSign || encryption.PrivateKey == nil || signing.PrivateKey == nil {
		return nil, errors.New("the key cannot both sign and decrypt: use a key with an encryption subkey")
	}
	return id, nil
}

// IdentityFor returns the identity that belongs to a box: the one in the file
// at path or, when there is no such file and the box is still empty, a new
// one. It never makes a new identity for a box that holds deposits, because
// that one could open none of them. Nor does it return an old one for a box
// without keys: the first start puts a ring key into the box, so its lack
// means that the box is not the one the identity belongs to, or was lost.
func IdentityFor(ctx context.Context, box keystore.Reader, path string, passphrase []byte) (*Identity, error) {
	empty, sealed := true, false
	err := box.List(ctx, "", func(d *keystore.Deposit) bool {
		empty = false
		sealed = strings.HasPrefix(d.Handle, ringPrefix) || strings.HasPrefix(d.Handle, keyPrefix)
		return !sealed
	})
	if err != nil {
		return nil, fmt.Errorf("look whether the key store is empty: %w", err)
	}
	switch _, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist) && empty:
		return CreateIdentity(path, passphrase)
	case errors.Is(err, fs.ErrNotExist):
		return nil, missingIdentity(path)
	case err == nil && !sealed:
		return nil, lostStore(path)
	}
	return LoadIdentity(path, passphrase)
}

// missingIdentity is the error of a store with deposits and no identity.
func missingIdentity(path string) error {
	return fmt.Errorf("the key store holds deposits, but the identity file %s that opens them is missing: put the file back, or restore a backup (edekctl store restore); without it the keys cannot be read", path)
}

// lostStore is the error of a store without keys beside an identity.
func lostStore(identity string) error {
	return fmt.Errorf("the key store is empty although its identity %s exists: the store or its log (-wal) was lost, or a path is mistyped: "+
		"correct the path, bring the store together with its log, or restore a backup (edekctl store restore) after moving the empty store away; "+
		"if there never was a key, because the first start was cut short or a new store is wanted, move the identity to a safe place", identity)
}

// ReadPassphrase reads a passphrase from a file: its content without the line
// end. A file that others may read is refused; one that the group may read is
// not, because that is how service managers hand out credentials. The caller
// zeroes the result.
func ReadPassphrase(path string) ([]byte, error) {
	content, err := readPrivate(path, "passphrase file", maxPassphraseFile, 0o007)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: put it back, or correct edekd.identity.passphrase-file", err)
	}
	if err != nil {
		return nil, err
	}
	passphrase := bytes.TrimRight(content, "\r\n")
	if len(passphrase) == 0 {
		return nil, fmt.Errorf("passphrase file %s is empty: write the passphrase into it, or remove it from the configuration", path)
	}
	return passphrase, nil
}

// readPrivate reads a file of at most limit bytes that has none of the
// forbidden permission bits.
func readPrivate(path, what string, limit int64, forbidden fs.FileMode) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("read the %s: %w: chown it to the user that runs edekd", what, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read the %s: %w", what, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the %s: %w", what, err)
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s %s is not a regular file: correct the path in the configuration", what, path)
	case info.Mode().Perm()&forbidden != 0:
		return nil, fmt.Errorf("%s %s can be read by others (mode %04o): chmod 600 %s", what, path, info.Mode().Perm(), path)
	case info.Size() > limit:
		return nil, fmt.Errorf("%s %s is too large (%d bytes, at most %d): is it the right file?", what, path, info.Size(), limit)
	}
	content := make([]byte, info.Size())
	if _, err := io.ReadFull(f, content); err != nil {
		return nil, fmt.Errorf("read the %s: %w", what, err)
	}
	return content, nil
}

// Fingerprint is the OpenPGP fingerprint in capital hex digits.
func (id *Identity) Fingerprint() string {
	return strings.ToUpper(hex.EncodeToString(id.entity.PrimaryKey.Fingerprint))
}

// Protected says whether the file it came from needs a passphrase.
func (id *Identity) Protected() bool { return id.protected }

// String names the identity by its fingerprint.
func (id *Identity) String() string { return id.Fingerprint() }

// Format keeps every fmt verb from reaching the private key.
func (id *Identity) Format(f fmt.State, _ rune) { io.WriteString(f, id.Fingerprint()) }

func (id *Identity) config() *packet.Config {
	return &packet.Config{
		DefaultHash:   crypto.SHA256,
		DefaultCipher: packet.CipherAES256,
		Time:          func() time.Time { return id.at },
	}
}

// encrypt encrypts secret to the identity and signs it with it: who can write
// to the box knows no ring key, and can plant none of their own making.
func (id *Identity) encrypt(secret []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := openpgp.Encrypt(&out, []*openpgp.Entity{id.entity}, id.entity, &openpgp.FileHints{IsBinary: true}, id.config())
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(secret); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// decrypt fills secret with what encrypt was given, which must have that very
// length, and checks the signature.
func (id *Identity) decrypt(secret, message []byte) error {
	md, err := openpgp.ReadMessage(bytes.NewReader(message), openpgp.EntityList{id.entity}, nil, id.config())
	if err != nil {
		return err
	}
	if !md.IsEncrypted || !md.IsSigned || md.SignedBy == nil {
		return errors.New("not both encrypted to and signed by the identity")
	}
	if _, err := io.ReadFull(md.UnverifiedBody, secret); err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, md.UnverifiedBody)
	switch {
	case err != nil:
		return err
	case n != 0:
		return errors.New("longer than a ring key")
	case md.SignatureError != nil:
		return md.SignatureError
	case md.Signature == nil:
		return errors.New("its signature is missing")
	}
	return nil
}
