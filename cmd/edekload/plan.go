package main

import (
	"github.com/edekd/edekd/loadtest/capacity"
	"github.com/edekd/edekd/loadtest/result"
)

type planCmd struct {
	FilesPerSecond       float64  `required:"" placeholder:"N" help:"Files opened per second in the cluster, to be read or written."`
	CreatesPerSecond     float64  `placeholder:"N" help:"Of these, files created per second."`
	Clients              int      `required:"" placeholder:"N" help:"Client processes at the same time."`
	ConnectionsPerClient float64  `default:"1" help:"Connections that a client process keeps open."`
	CoresPerNode         int      `default:"8" help:"Processors of a node."`
	Utilization          float64  `default:"0.5" help:"Share of the processors that the load may take."`
	Result               []string `arg:"" type:"existingfile" help:"Results written with --json, of the profiles clients, namenode and login-storm."`
}

func (c *planCmd) Run(s streams) error {
	var all []*result.Result
	for _, path := range c.Result {
		r, err := result.Read(path)
		if err != nil {
			return usage(err, "a file that edekload wrote with --json")
		}
		all = append(all, r)
	}
	const remedy = "edekload clients --json FILE with --pid or /metrics, a rate the server can bear, and for long enough"
	figures, err := capacity.Read(all)
	if err != nil {
		return usage(err, remedy)
	}
	plan, err := capacity.New(figures, capacity.Need{
		Files: c.FilesPerSecond, Creates: c.CreatesPerSecond, Clients: c.Clients, PerClient: c.ConnectionsPerClient,
		Cores: c.CoresPerNode, Busy: c.Utilization,
	})
	if err != nil {
		return usage(err, "edekload plan --help")
	}
	return plan.Text(s.out)
}
