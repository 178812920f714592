// Command edekd is the key management server that Hadoop clients talk to.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"

	"github.com/edekd/edekd/internal/config"
	"github.com/edekd/edekd/internal/daemon"
	_ "github.com/edekd/edekd/internal/daemon/stdlog"
)

// version is set when a release is built.
var version = "development"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, out, errOut io.Writer) int {
	if len(args) > 0 && args[0] == "check-config" {
		return checkConfig(args[1:], out, errOut)
	}
	flags := flag.NewFlagSet("edekd", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	dir := flags.String("config", "", "")
	showVersion := flags.Bool("version", false, "")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		printHelp(out)
		return daemon.ExitOK
	case err != nil:
		return daemon.Exit(errOut, "edekd", &daemon.Refusal{What: err.Error(), Remedy: "edekd --help"})
	case *showVersion:
		fmt.Fprintln(out, "edekd", version)
		return daemon.ExitOK
	case flags.NArg() > 0:
		return daemon.Exit(errOut, "edekd", &daemon.Refusal{What: fmt.Sprintf("unknown command %q", flags.Arg(0)), Remedy: "edekd --help"})
	case *dir == "":
		return daemon.Exit(errOut, "edekd", &daemon.Refusal{What: "no configuration folder is named",
			Remedy: "edekd --config /etc/hadoop/conf (or edekd --help)"})
	}
	c, err := config.Load(*dir, os.LookupEnv)
	if err != nil {
		return refuseConfig(errOut, allProblems(c, err))
	}
	err = serve(context.Background(), c, errOut)
	if isProblem(err) {
		return refuseConfig(errOut, allProblems(c, err))
	}
	return daemon.Exit(errOut, "edekd", err)
}

func checkConfig(args []string, out, errOut io.Writer) int {
	if len(args) != 1 || args[0] == "" || args[0][0] == '-' {
		return daemon.Exit(errOut, "edekd", &daemon.Refusal{What: "check-config takes one configuration folder",
			Remedy: "edekd check-config /etc/hadoop/conf"})
	}
	c, err := config.Load(args[0], os.LookupEnv)
	if err != nil {
		return refuseConfig(errOut, allProblems(c, err))
	}
	for _, w := range c.Warnings {
		fmt.Fprintln(errOut, "warning:", w.Error())
	}
	remarks := slog.New(slog.NewTextHandler(errOut, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	if problems := probe(c, remarks); len(problems) > 0 {
		return refuseConfig(errOut, problems)
	}
	fmt.Fprintf(out, "%s can be served\n", c.Dir)
	return daemon.ExitOK
}

// withoutTime leaves the time out of a log line: it says nothing of a
// configuration.
func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// allProblems adds to the problems found what the parts of the server have to
// say, so that one does not hide the others. About a property that has one
// already, and whose value c may therefore lack, nothing is added.
func allProblems(c *config.Config, found error) config.Problems {
	known := problemsOf(found)
	if c.Site == nil {
		return known
	}
	all := slices.Clone(known)
	for _, err := range probeCallers(c, slog.New(slog.DiscardHandler)) {
		for _, p := range problemsOf(err) {
			if !slices.ContainsFunc(known, func(k config.Problem) bool { return k.Property == p.Property }) {
				all = append(all, p)
			}
		}
	}
	return all
}

// isProblem tells whether err is of the configuration.
func isProblem(err error) bool {
	_, one := errors.AsType[config.Problem](err)
	_, many := errors.AsType[config.Problems](err)
	return one || many
}

// refuseConfig prints what is wrong with a configuration, a line for each
// problem: file, property, what, remedy.
func refuseConfig(w io.Writer, err error) int {
	fmt.Fprintln(w, err.Error())
	return daemon.ExitConfig
}
