package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/edekd/edekd/bench/kms"
	"github.com/edekd/edekd/bench/process"
	"github.com/edekd/edekd/bench/report"
)

type runCommand struct {
	machine
	Slices  int           `default:"24" help:"Slices of each measurement, for each server."`
	Slice   time.Duration `default:"1s" help:"Length of a slice."`
	Open    time.Duration `default:"10s" help:"Length of an open-loop measurement."`
	Rounds  int           `default:"7" help:"How often each open-loop measurement is made, for each server."`
	Events  int           `default:"8" help:"How often each event is forced."`
	Parts   []string      `default:"memory,tcp,tls,unix,keys,connections,start,allocations,latency,events" help:"What to measure: ${default}."`
	Keys    int           `default:"100000" help:"Zone keys of the part keys."`
	Idle    int           `default:"9936" help:"Open connections without requests of the part connections."`
	Results string        `default:"bench/results" help:"Folder for the file with the results."`
}

type part struct {
	name    string
	measure func(*suite) error
}

// parts are the measurements by name, in the order they are made.
var parts = []part{
	{"memory", (*suite).inMemory},
	{"tcp", (*suite).overTCP},
	{"tls", (*suite).overTLS},
	{"unix", (*suite).overUnix},
	{"keys", (*suite).manyKeys},
	{"connections", (*suite).manyConnections},
	{"start", (*suite).start},
	{"allocations", (*suite).allocations},
	{"latency", (*suite).latency},
	{"events", (*suite).events},
}

// suite is one run.
type suite struct {
	runCommand
	file report.File
	dirs []string
}

// Run measures the parts asked for. What could not be measured is in the file and
// makes the run fail, but not the parts after it.
func (c *runCommand) Run() error {
	if err := c.take(); err != nil {
		return err
	}
	root, err := process.Root()
	if err != nil {
		return err
	}
	s := &suite{runCommand: *c}
	s.file = report.File{Taken: time.Now(), Commit: report.Commit(root), Machine: report.ThisMachine(c.ServerCPU), Unmeasured: map[string]string{},
		Options: map[string]string{"slices": fmt.Sprint(c.Slices), "slice": c.Slice.String(), "open": c.Open.String(), "rounds": fmt.Sprint(c.Rounds), "events": fmt.Sprint(c.Events),
			"parts": strings.Join(c.Parts, ","),
			"keys":  fmt.Sprint(c.Keys), "idle": fmt.Sprint(c.Idle)}}
	stolen, all := report.Stolen()
	for _, name := range c.Parts {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) {
			return fmt.Errorf("there is no part %q", name)
		}
	}
	for _, part := range parts {
		if !slices.Contains(c.Parts, part.name) {
			continue
		}
		begin := time.Now()
		fmt.Fprintf(os.Stderr, "%s …", part.name)
		if err := part.measure(s); err != nil {
			s.file.Unmeasured[part.name] = err.Error()
		}
		fmt.Fprintf(os.Stderr, " %v\n", time.Since(begin).Round(time.Second))
		s.removeDirs()
	}
	stolenNow, allNow := report.Stolen()
	s.file.Machine.Steal = (stolenNow - stolen) / max(allNow-all, 1)
	if !filepath.IsAbs(c.Results) {
		c.Results = filepath.Join(root, c.Results)
	}
	return s.finish(c.Results)
}

// finish shows and keeps the results.
func (s *suite) finish(dir string) error {
	if err := s.file.Print(os.Stdout); err != nil {
		return err
	}
	before, err := s.file.Previous(dir)
	if err != nil {
		return err
	}
	path, err := s.file.Write(dir)
	if err != nil {
		return err
	}
	fmt.Printf("\n%s at %s, %s, Go %s; the host took %.1f %%\nevery slice is in %s\n", s.file.Commit, s.file.Taken.Format(time.DateTime),
		s.file.Machine.CPU, s.file.Machine.Go, 100*s.file.Machine.Steal, path)
	if before != nil {
		worse := s.file.Regressions(before)
		for _, w := range worse {
			fmt.Println("WORSE:", w)
		}
		if len(worse) > 0 {
			err = errors.Join(err, fmt.Errorf("%d figures are more than 10 %% worse than before", len(worse)))
		}
	}
	if len(s.file.Unmeasured) > 0 {
		err = errors.Join(err, fmt.Errorf("%d parts could not be measured", len(s.file.Unmeasured)))
	}
	return err
}

// dir makes a folder that is removed after the part. fast ones are in memory,
// where the machine has such a file system: for stores that are filled before the
// measurement and hardly used in it.
func (s *suite) dir(fast bool) (string, error) {
	parent := ""
	if _, err := os.Stat("/dev/shm"); err == nil && fast {
		parent = "/dev/shm"
	}
	dir, err := os.MkdirTemp(parent, "edekd-bench-")
	if err == nil {
		s.dirs = append(s.dirs, dir)
	}
	return dir, err
}

func (s *suite) removeDirs() {
	for _, dir := range s.dirs {
		os.RemoveAll(dir)
	}
	s.dirs = nil
}

// withEdekd runs f with an edekd, and reports an end that isn't clean.
func (s *suite) withEdekd(o kms.Options, f func(*kms.Server) error) (err error) {
	if o.Dir, err = s.dir(false); err != nil {
		return err
	}
	return withEdekd(o, s.ServerCPU, f)
}

func withEdekd(o kms.Options, cpu int, f func(*kms.Server) error) error {
	o.CPU = cpu
	server, err := kms.StartEdekd(o)
	if err != nil {
		return err
	}
	return errors.Join(f(server), server.Stop())
}

// withBoth runs f with an edekd and a bare server of the same options.
func (s *suite) withBoth(o kms.Options, f func(*kms.Server, *kms.Bare) error) error {
	return s.withEdekd(o, func(edekd *kms.Server) error {
		o.CPU, o.Dir = s.ServerCPU, edekd.Dir
		bare, err := kms.StartBare(o)
		if err != nil {
			return err
		}
		return errors.Join(f(edekd, bare), bare.Stop())
	})
}
