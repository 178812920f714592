package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/edekd/edekd/internal/config"
)

// binary is the edekd that all tests start.
var binary string

func TestMain(m *testing.M) { os.Exit(withBinary(m.Run)) }

// withBinary builds edekd, without the race detector, for as long as run takes.
func withBinary(run func() int) int {
	dir, err := os.MkdirTemp("", "edekd")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "edekd")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	// Also for the user without rights that one test runs it as.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run()
}

// TestScripts runs the command lines of testdata/script. Beside testscript's
// own commands there is `exits CODE PROGRAM [ARG ...]`.
func TestScripts(t *testing.T) {
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Dir(binary)+":"+e.Getenv("PATH"))
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("REPOSITORY", repository)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 {
					ts.Fatalf("usage: exits CODE PROGRAM [ARG ...]")
				}
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				got, failure := 0, (*exec.ExitError)(nil)
				if err := ts.Exec(args[1], args[2:]...); errors.As(err, &failure) {
					got = failure.ExitCode()
				} else {
					ts.Check(err)
				}
				if got != want {
					ts.Fatalf("exit code %d, want %d", got, want)
				}
			},
		},
	})
}

func TestHelpListsEveryProperty(t *testing.T) {
	var out, errOut bytes.Buffer
	if code := run([]string{"--help"}, &out, &errOut); code != 0 || errOut.Len() > 0 {
		t.Fatalf("exit code %d, standard error %q", code, errOut.String())
	}
	text := strings.Join(strings.Fields(out.String()), " ") // as if never wrapped
	for _, p := range config.Properties() {
		want := fmt.Sprintf("%s (default %s) %s", p.Name, orNone(p.Default), p.Meaning)
		if !strings.Contains(text, want) {
			t.Errorf("--help lacks %q", want)
		}
	}
	for line := range strings.Lines(out.String()) {
		if len(strings.TrimRight(line, "\n")) > 80 {
			t.Errorf("%q does not fit a terminal", line)
		}
	}
}
