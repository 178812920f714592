// Command bench measures edekd: what a request costs beside a bare handler that
// does nothing, how long it takes under a load that does not wait, what memory is
// bounded by, and whether an encrypted key is ever handed out twice.
//
// docs/performance.md says how the figures come about and how to read them.
package main

import (
	"fmt"
	"os"

	"github.com/alecthomas/kong"

	"github.com/edekd/edekd/bench/process"
)

// machine are the options of every command.
type machine struct {
	ServerCPU int `name:"server-cpu" default:"0" help:"Core that the servers run on."`
	ClientCPU int `name:"client-cpu" default:"1" help:"Core that the load comes from; it must not share a physical core with the server's."`
}

// take moves this process out of the servers' way.
func (m *machine) take() error {
	if m.ServerCPU == m.ClientCPU {
		return fmt.Errorf("servers and load on core %d: they need one each", m.ServerCPU)
	}
	return process.PinSelf(m.ClientCPU)
}

type cli struct {
	Run     runCommand     `cmd:"" default:"withargs" help:"Measure everything and compare it with the last run."`
	Unique  uniqueCommand  `cmd:"" help:"Take millions of EDEKs while keys are rolled and caches drained; none may come twice or late."`
	Memory  memoryCommand  `cmd:"" help:"Use many keys as many users, and watch the memory."`
	Sidecar sidecarCommand `cmd:"" help:"Measure an edekd that stands before another KMS, a network away."`
	Soak    soakCommand    `cmd:"" help:"Load for minutes or hours, and watch memory, errors and goroutines."`
}

func main() {
	var c cli
	k := kong.Parse(&c, kong.Name("bench"), kong.Description("Measures edekd. docs/performance.md says how."))
	if err := k.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
