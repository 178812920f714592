// Command edekctl does to a KMS what "hadoop key" has no words for.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/edekd/edekd/internal/config"
	"github.com/edekd/edekd/internal/daemon"
)

const about = `Looks after the key store of edekd, explains its access rules and asks how it is.

Run it as the user that runs edekd: the files it makes belong to whoever runs it, and edekd must be able to read them.

Exit codes: 0 done, 1 failed or damage found, 2 wrong usage or a configuration that cannot be used.`

// cli is the command line. Its texts are the manual.
type cli struct {
	Store struct {
		Backup  backupCmd  `cmd:"" help:"Write store and identity into one file, while edekd runs or not."`
		Restore restoreCmd `cmd:"" help:"Bring store and identity back from such a file to where none are."`
		Verify  verifyCmd  `cmd:"" help:"Open every deposit in the store and count them, while edekd runs or not. Changes nothing."`
	} `cmd:"" help:"The embedded key store (sqlite://)."`
	ACL struct {
		Explain explainCmd `cmd:"" help:"Say whether kms-acls.xml lets a user do something, and by which rule. Reads the files in the folder, while edekd runs or not. Changes nothing. The exit code is 0 for either answer."`
	} `cmd:"" name:"acl" help:"The rules of who may do what (kms-acls.xml)."`
	Status statusCmd `cmd:"" help:"Ask the edekd that serves with this configuration on this host how it is: what /readyz says, with the state of a KMS behind it. The exit code is 0 when it is ready."`
}

// configFlag is the flag all commands share.
type configFlag struct {
	Config string `required:"" placeholder:"DIR" help:"Configuration folder of edekd, the one that holds kms-site.xml."`
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, out, errOut io.Writer) int {
	if err := daemon.Harden(); err != nil {
		return daemon.Exit(errOut, "edekctl", err)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()

	helped := false
	parser, err := kong.New(&cli{}, kong.Name("edekctl"), kong.Description(about), kong.Writers(out, errOut),
		kong.Exit(func(int) { helped = true }), kong.BindTo(ctx, (*context.Context)(nil)), kong.BindTo(out, (*io.Writer)(nil)))
	if err != nil {
		return daemon.Exit(errOut, "edekctl", err)
	}
	command, err := parser.Parse(args)
	if helped {
		return daemon.ExitOK
	}
	if err != nil {
		return daemon.Exit(errOut, "edekctl", &daemon.Refusal{What: err.Error(), Remedy: "edekctl --help"})
	}
	err = command.Run()
	var problems config.Problems
	if errors.As(err, &problems) {
		fmt.Fprintln(errOut, problems.Error())
		return daemon.ExitConfig
	}
	return daemon.Exit(errOut, "edekctl", err)
}
