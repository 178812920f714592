package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/edekd/edekd/hadoop/uri"
	"github.com/edekd/edekd/internal/config"
	"github.com/edekd/edekd/internal/daemon"
	"github.com/edekd/edekd/internal/durable"
	"github.com/edekd/edekd/keys"
	"github.com/edekd/edekd/keystore/backup"
	"github.com/edekd/edekd/keystore/sqlite"
)

// site is where a configuration says the embedded store is.
type site struct {
	database string
	identity string
	pass     string // file with the passphrase of identity, "" for none
}

func (f *configFlag) site() (*site, error) {
	c, err := config.LoadKeys(f.Config, os.LookupEnv)
	if err != nil {
		return nil, err
	}
	s := &site{identity: c.Keys.IdentityFile, pass: c.Keys.PassphraseFile}
	for _, u := range c.Keys.Providers {
		if !strings.HasPrefix(u, "sqlite://") {
			continue
		}
		if s.database != "" {
			return nil, &daemon.Refusal{What: "hadoop.kms.key.provider.uri names more than one sqlite:// store",
				Remedy: "a configuration folder for each that names only that one"}
		}
		if s.database, err = uri.LocalPath(u); err != nil {
			return nil, &daemon.Refusal{What: "hadoop.kms.key.provider.uri", Err: err}
		}
	}
	if s.database == "" {
		return nil, &daemon.Refusal{What: fmt.Sprintf("no embedded store is configured: hadoop.kms.key.provider.uri is %s", strings.Join(c.Keys.Providers, ",")),
			Remedy: "back up what that names by its own means; a jceks:// store is a file to copy"}
	}
	return s, nil
}

// readIdentity returns the content of the identity file. What is wrong with the
// store itself is left to whoever opens it next.
func (s *site) readIdentity(ctx context.Context) ([]byte, error) {
	r, err := sqlite.OpenReader(s.database)
	if err != nil {
		return keys.ReadIdentityFile(s.identity)
	}
	defer r.Close()
	return keys.ReadIdentityOf(ctx, r, s.identity)
}

// open parses the content of an identity file with the configured passphrase.
func (s *site) open(identity []byte) (*keys.Identity, error) {
	var passphrase []byte
	if s.pass != "" {
		var err error
		if passphrase, err = keys.ReadPassphrase(s.pass); err != nil {
			return nil, err
		}
		defer clear(passphrase)
	}
	return keys.ParseIdentity(identity, passphrase)
}

// census opens the store at path and counts what it holds.
func census(ctx context.Context, path string, id *keys.Identity) (*keys.Census, string, error) {
	r, err := sqlite.OpenReader(path)
	if err != nil {
		return nil, "", err
	}
	defer r.Close()
	if err := r.Check(ctx); err != nil {
		return nil, "", err
	}
	c, err := keys.TakeCensus(ctx, r, id)
	return c, r.ID(), err
}

func report(out io.Writer, c *keys.Census, id *keys.Identity) {
	fmt.Fprintf(out, "%s with %s, %s, %s; identity %s\n",
		count(c.Keys, "key"), count(c.Versions, "version"), count(c.Deleted, "deleted key"), count(c.RingKeys, "ring key"), id.Fingerprint())
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// damage is an error that lists what does not open, nil if there is nothing.
func damage(c *keys.Census) error {
	if len(c.Damaged) == 0 {
		return nil
	}
	return fmt.Errorf("%s cannot be opened; if there is an older backup in which they can, restore that one:\n%w",
		count(len(c.Damaged), "deposit"), errors.Join(c.Damaged...))
}

// opened returns the site of a store with the content of its identity file,
// which the caller clears, and the identity in it.
func (f *configFlag) opened(ctx context.Context) (s *site, identity []byte, id *keys.Identity, err error) {
	if s, err = f.site(); err != nil {
		return nil, nil, nil, err
	}
	if identity, err = s.readIdentity(ctx); err != nil {
		return nil, nil, nil, err
	}
	if id, err = s.open(identity); err != nil {
		clear(identity)
		return nil, nil, nil, fmt.Errorf("identity file %s: %w", s.identity, err)
	}
	return s, identity, id, nil
}

type verifyCmd struct{ configFlag }

func (cmd *verifyCmd) Run(ctx context.Context, out io.Writer) error {
	s, identity, id, err := cmd.opened(ctx)
	if err != nil {
		return err
	}
	defer clear(identity)
	c, _, err := census(ctx, s.database, id)
	if err != nil {
		return fmt.Errorf("verify %s: %w", s.database, err)
	}
	fmt.Fprintf(out, "%s: ", s.database)
	report(out, c, id)
	return damage(c)
}

type backupCmd struct {
	configFlag
	To string `required:"" placeholder:"FILE" help:"New file to write. It gets mode 0600; an existing file is never overwritten."`
}

func (cmd *backupCmd) Run(ctx context.Context, out io.Writer) error {
	s, identity, id, err := cmd.opened(ctx)
	if err != nil {
		return err
	}
	defer clear(identity)
	if _, err := os.Lstat(cmd.To); err == nil {
		return exists(cmd.To)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(cmd.To), ".edekctl-backup-*")
	if err != nil {
		return fmt.Errorf("make room for a snapshot beside %s: %w", cmd.To, err)
	}
	defer os.RemoveAll(tmp)
	snapshot := filepath.Join(tmp, "keys.db")
	now := time.Now()
	if err := takeSnapshot(ctx, s.database, snapshot); err != nil {
		return fmt.Errorf("back up %s: %w", s.database, err)
	}
	// What is counted is what is in the file, not what the store may hold by now.
	c, storeID, err := census(ctx, snapshot, id)
	if err != nil {
		return fmt.Errorf("back up %s: %w", s.database, err)
	}
	err = backup.Write(cmd.To, &backup.Backup{Created: now, StoreID: storeID, Identity: identity}, snapshot)
	if errors.Is(err, fs.ErrExist) {
		return exists(cmd.To)
	}
	if err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	fmt.Fprintf(out, "%s: ", cmd.To)
	report(out, c, id)
	if id.Protected() {
		fmt.Fprintln(out, "The identity in it is locked by its passphrase, which is not in it: keep the passphrase in another place.")
	} else {
		fmt.Fprintln(out, "WARNING: the identity in it has no passphrase: whoever holds this file holds the keys.")
	}
	return damage(c)
}

func exists(path string) error {
	return fmt.Errorf("%s exists and is never overwritten: name another file, or move it away", path)
}

func takeSnapshot(ctx context.Context, database, to string) error {
	r, err := sqlite.OpenReader(database)
	if err != nil {
		return err
	}
	defer r.Close()
	return r.Snapshot(ctx, to)
}

type restoreCmd struct {
	configFlag
	From string `required:"" placeholder:"FILE" help:"Backup file."`
}

func (cmd *restoreCmd) Run(ctx context.Context, out io.Writer) error {
	s, err := cmd.site()
	if err != nil {
		return err
	}
	file, err := os.Open(cmd.From)
	if err != nil {
		return err
	}
	defer file.Close()
	for _, dir := range []string{filepath.Dir(s.database), filepath.Dir(s.identity)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	lock, err := sqlite.Hold(s.database)
	if err != nil {
		return err
	}
	defer lock.Release()
	if err := s.mustBeFree(); err != nil {
		return err
	}

	tmp := s.database + ".restore"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a restore that died here
		return err
	}
	b, err := backup.Read(file, tmp)
	if err != nil {
		return fmt.Errorf("%s: %w: try another backup", cmd.From, err)
	}
	defer os.Remove(tmp)
	defer clear(b.Identity)
	id, err := s.open(b.Identity)
	if err != nil {
		return fmt.Errorf("the identity in %s: %w", cmd.From, err)
	}
	c, storeID, err := census(ctx, tmp, id)
	if err != nil {
		return fmt.Errorf("the store in %s: %w", cmd.From, err)
	}
	if storeID != b.StoreID {
		return fmt.Errorf("%s: its manifest is for the store %s, its snapshot is of %s: try another backup", cmd.From, b.StoreID, storeID)
	}
	if err := s.placeIdentity(b.Identity); err != nil {
		return err
	}
	// With the identity alone nothing is there yet that edekd would serve, so
	// this is the moment at which the restore happens.
	if err := durable.Place(tmp, s.database); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s, as of %s: ", s.database, b.Created.Local().Format(time.RFC3339))
	report(out, c, id)
	return damage(c)
}

// mustBeFree fails when a store is where one is to be restored. The error names
// all its files, and the identity, which belongs to them: a restore leaves it
// alone only if it is the very same.
func (s *site) mustBeFree() error {
	var there []string
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		if _, err := os.Lstat(s.database + suffix); err == nil {
			there = append(there, s.database+suffix)
		}
	}
	if len(there) == 0 {
		return nil
	}
	if _, err := os.Lstat(s.identity); err == nil {
		there = append(there, s.identity)
	}
	return fmt.Errorf("a store is here and is never overwritten: move all its files to a safe place, together, and keep them until the restored keys are known to be right:\n  %s",
		strings.Join(there, "\n  "))
}

// placeIdentity writes the identity file unless the same one is there.
func (s *site) placeIdentity(identity []byte) error {
	err := durable.Create(s.identity, 0o600, identity)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	there, err := keys.ReadIdentityFile(s.identity)
	if err != nil {
		return err
	}
	defer clear(there)
	if !bytes.Equal(there, identity) {
		return fmt.Errorf("another identity is in %s and is never overwritten: it may be all that opens other keys; move it to a safe place", s.identity)
	}
	return nil
}
