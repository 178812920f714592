package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/internal/config"
	"github.com/edekd/edekd/keys"
	"github.com/edekd/edekd/keystore"
	"github.com/edekd/edekd/keystore/sqlite"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"edekctl": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start":   start,
			"stop":    stop,
			"create":  create,
			"current": current,
			"mangle":  mangle,
			"break":   breakSeal,
		},
	})
}

// running has the provider that each script has started.
var running sync.Map // *testscript.TestScript to keys.Provider

func provider(ts *testscript.TestScript) keys.Provider {
	p, ok := running.Load(ts)
	if !ok {
		ts.Fatalf("nothing was started")
	}
	return p.(keys.Provider)
}

// start DIR opens the configured providers, as edekd does, until stop or the
// end of the script. With "!" they must be refused.
func start(ts *testscript.TestScript, neg bool, args []string) {
	c, err := config.Load(ts.MkAbs(args[0]), func(name string) (string, bool) { v := ts.Getenv(name); return v, v != "" })
	ts.Check(err)
	for _, dir := range []string{c.StateDir, filepath.Dir(c.Keys.IdentityFile)} {
		ts.Check(os.MkdirAll(dir, 0o700))
	}
	p, err := keys.Open(context.Background(), c.Keys.Providers, keys.Options{IdentityFile: c.Keys.IdentityFile, PassphraseFile: c.Keys.PassphraseFile})
	if neg {
		if err == nil {
			p.Close()
			ts.Fatalf("it started")
		}
		return
	}
	ts.Check(err)
	running.Store(ts, p)
	ts.Defer(func() {
		if p, left := running.LoadAndDelete(ts); left {
			p.(keys.Provider).Close()
		}
	})
}

func stop(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(provider(ts).Close())
	running.Delete(ts)
}

// create NAME VERSIONS makes a key of that many versions.
func create(ts *testscript.TestScript, _ bool, args []string) {
	ctx := context.Background()
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	_, err = provider(ts).Create(ctx, &edek.NewKey{Name: args[0], Cipher: "AES/CTR/NoPadding", BitLength: 128})
	ts.Check(err)
	for range n - 1 {
		_, err = provider(ts).Roll(ctx, args[0], nil)
		ts.Check(err)
	}
}

// current NAME VERSIONS fails unless the key has that many versions and the
// last one can be read.
func current(ts *testscript.TestScript, _ bool, args []string) {
	m, err := provider(ts).Metadata(context.Background(), args[0])
	ts.Check(err)
	if strconv.Itoa(m.Versions) != args[1] {
		ts.Fatalf("key %s has %d versions", args[0], m.Versions)
	}
	_, err = provider(ts).Version(context.Background(), m.CurrentVersion())
	ts.Check(err)
}

// mangle FILE OFFSET changes the byte at an offset, counted from the end when
// it is negative.
func mangle(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	content, err := os.ReadFile(path)
	ts.Check(err)
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	if at < 0 {
		at += len(content)
	}
	content[at] ^= 1
	ts.Check(os.WriteFile(path, content, 0o600))
}

// breakSeal FILE changes the last byte of every key deposit in a store.
func breakSeal(ts *testscript.TestScript, _ bool, args []string) {
	ctx := context.Background()
	s, err := sqlite.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer s.Close()
	var found []*keystore.Deposit
	ts.Check(s.List(ctx, "key/", func(d *keystore.Deposit) bool { found = append(found, d); return true }))
	for _, d := range found {
		d.Content[len(d.Content)-1] ^= 1
		_, err := s.Put(ctx, d.Handle, d.Revision, d.Content)
		ts.Check(err)
	}
}
