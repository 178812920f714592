// Command edekload puts load on Hadoop key management servers and measures what
// their users would feel.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/edekd/edekd/internal/daemon"
)

// version is set when a release is built.
var version = "development"

const about = `Puts load on Hadoop key management servers, edekd or Java's, and measures latency, errors and processor time.

A TARGET is a provider URI (kms://http@h1;h2:9600/kms) or a URL (http://h:9600/kms). Requests are due at fixed times, whatever the server does, and latency counts from there.

Ctrl-C ends a load early and prints what was measured; a second one ends at once.

Exit codes: 0 done, 1 an SLO was missed, nothing was answered, or the load was interrupted, 2 wrong usage.`

// cli is the command line. Its texts are the manual.
type cli struct {
	NameNode   nameNodeCmd   `cmd:"" name:"namenode" help:"Refills of 150 to 500 encrypted keys, as NameNodes ask for, and rollovers."`
	Clients    clientsCmd    `cmd:"" help:"One decrypt for each file opened; some zone keys are asked for more than others."`
	Mixed      mixedCmd      `cmd:"" help:"Of a thousand: 940 decrypts, 50 single generates, 5 refills, 5 questions for metadata."`
	Reencrypt  reencryptCmd  `cmd:"" help:"Batches of encrypted keys moved to the current version of their zone key."`
	LoginStorm loginStormCmd `cmd:"" name:"login-storm" help:"Clients that start: a new connection and a handshake, another connection and a first decrypt. With delegation tokens there is no handshake."`
	Plan       planCmd       `cmd:"" help:"Say what a cluster needs, from results written with --json."`
	Version    kong.VersionFlag
}

// streams are where a command writes.
type streams struct{ out, err io.Writer }

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, out, errOut io.Writer) int {
	if err := daemon.Harden(); err != nil {
		return daemon.Exit(errOut, "edekload", err)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	// From the first signal on, the next one has its usual effect.
	defer context.AfterFunc(ctx, cancel)()

	helped := false
	parser, err := kong.New(&cli{}, kong.Name("edekload"), kong.Description(about), kong.Writers(out, errOut),
		kong.Vars{"version": "edekload " + version}, kong.Exit(func(int) { helped = true }),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(streams{out, errOut}))
	if err != nil {
		return daemon.Exit(errOut, "edekload", err)
	}
	command, err := parser.Parse(args)
	if helped {
		return daemon.ExitOK
	}
	if err != nil {
		return daemon.Exit(errOut, "edekload", usage(err, "edekload --help"))
	}
	return daemon.Exit(errOut, "edekload", command.Run())
}

// usage makes an error one of wrong usage: exit code 2.
func usage(err error, remedy string) error {
	return &daemon.Refusal{What: err.Error(), Remedy: remedy}
}

func usagef(remedy, format string, args ...any) error {
	return usage(fmt.Errorf(format, args...), remedy)
}
