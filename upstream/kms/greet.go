package kms

import (
	"context"
	"errors"
	"sync"
)

// errNoAnswer is said of a node that has not answered by the time the start waits.
var errNoAnswer = errors.New("no answer to edekd's login yet")

// Greet finds out which nodes take the service's login, so that what is said of
// them is true before the first request. It asks all at once and returns when all
// have answered or ctx ends. A node that has not let edekd in by then is out of use
// until it does.
func (c *Client) Greet(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, c.set.Attempt())
	defer cancel()
	var all sync.WaitGroup
	for i := range c.nodes {
		all.Go(func() {
			answer := make(chan error, 1)
			c.logins.Go(func() { answer <- c.probe(ctx, i) }) // may wait for a KDC, whatever ctx says
			var err error
			select {
			case err = <-answer:
			case <-ctx.Done():
			}
			if ctx.Err() != nil {
				err = errNoAnswer
			}
			if err != nil {
				c.set.Blame(i, err)
				return
			}
			c.config.Log.Info("a server of the KMS behind has let edekd in", "node", c.nodes[i].addr)
		})
	}
	all.Wait()
}
