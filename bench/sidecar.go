package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/edekd/edekd/bench/process"
	"github.com/edekd/edekd/bench/report"
	"github.com/edekd/edekd/bench/sidecar"
)

type sidecarCommand struct {
	machine
	sidecar.Options
	Parts   []string `default:"step,rings,zipf,nodes,decrypt,outage" help:"What to measure: ${default}."`
	Results string   `default:"bench/results/sidecar" help:"Folder for the file with the results."`
}

// Run measures the parts asked for, and fails when one could not be. A goal that
// is missed is no failure: it is printed, and in the file.
func (c *sidecarCommand) Run() error {
	for _, name := range c.Parts {
		if !slices.ContainsFunc(sidecar.Parts, func(p sidecar.Part) bool { return p.Name == name }) {
			return fmt.Errorf("there is no part %q", name)
		}
	}
	if err := c.take(); err != nil {
		return err
	}
	root, err := process.Root()
	if err != nil {
		return err
	}
	c.Options.ServerCPU, c.Options.ClientCPU = c.machine.ServerCPU, c.machine.ClientCPU
	file := report.File{Taken: time.Now(), Commit: report.Commit(root), Machine: report.ThisMachine(c.machine.ServerCPU), Unmeasured: map[string]string{},
		Options: options(&c.Options)}
	stolen, all := report.Stolen()
	for _, part := range sidecar.Parts {
		if !slices.Contains(c.Parts, part.Name) {
			continue
		}
		begin := time.Now()
		fmt.Fprintf(os.Stderr, "%s …", part.Name)
		rows, err := part.Measure(&c.Options)
		if err != nil {
			file.Unmeasured[part.Name] = err.Error()
		}
		file.Rows = append(file.Rows, rows...)
		fmt.Fprintf(os.Stderr, " %v\n", time.Since(begin).Round(time.Second))
	}
	stolenNow, allNow := report.Stolen()
	file.Machine.Steal = (stolenNow - stolen) / max(allNow-all, 1)
	if err := file.Print(os.Stdout); err != nil {
		return err
	}
	if !filepath.IsAbs(c.Results) {
		c.Results = filepath.Join(root, c.Results)
	}
	path, err := file.Write(c.Results)
	if err != nil {
		return err
	}
	fmt.Printf("\n%s at %s, %s, Go %s; the host took %.1f %%\nall of it is in %s\n", file.Commit, file.Taken.Format(time.DateTime),
		file.Machine.CPU, file.Machine.Go, 100*file.Machine.Steal, path)
	if len(file.Unmeasured) > 0 {
		return fmt.Errorf("%d parts could not be measured", len(file.Unmeasured))
	}
	return nil
}

// options are what the figures depend on, by name.
func options(o *sidecar.Options) map[string]string {
	named := map[string]string{}
	v := reflect.ValueOf(*o)
	for i := range v.NumField() {
		named[strings.ToLower(v.Type().Field(i).Name)] = fmt.Sprint(v.Field(i).Interface())
	}
	return named
}
