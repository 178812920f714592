package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/edekd/edekd/bench/drive"
	"github.com/edekd/edekd/bench/kms"
)

type memoryCommand struct {
	machine
	Keys   int           `default:"100000" help:"Zone keys."`
	Users  int           `default:"10000" help:"Users, each with a cookie of his own."`
	Mixes  int           `default:"200000" help:"Pairs of a user and a key, drawn anew for each round."`
	Rounds int           `default:"12" help:"Rounds; memory may grow in the first half of them."`
	Round  time.Duration `default:"20s" help:"Length of a round."`
	Growth float64       `default:"0.05" help:"Part by which resident memory may grow in the second half."`
	Slower float64       `default:"4" help:"Factor by which a request may cost more than one of the same user for the same key; each new pair of user and key has an audit line of its own."`
}

// Run fails when memory grows on, or a request fails, or costs too much.
func (m *memoryCommand) Run() error {
	if err := m.take(); err != nil {
		return err
	}
	fast := os.TempDir()
	if _, err := os.Stat("/dev/shm"); err == nil {
		fast = "/dev/shm"
	}
	dir, err := os.MkdirTemp(fast, "edekd-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return withEdekd(kms.Options{Dir: dir, Readers: m.Users, Provider: "sqlite://file@" + filepath.Join(dir, "keys.db")}, m.ServerCPU, m.use)
}

func (m *memoryCommand) use(edekd *kms.Server) (err error) {
	c := kms.NewClient(edekd.Target)
	edeks, err := edeksOfKeys(c, m.Keys)
	if err != nil {
		return err
	}
	cookies := make([]string, m.Users)
	if err := kms.Each(m.Users, func(i int) (err error) {
		cookies[i], err = c.Cookie(kms.ReaderName(i))
		return err
	}); err != nil {
		return err
	}
	pool, err := drive.NewPool(edekd.Target, connections, c.DecryptRequest(edeks[0], cookies[0], ""))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	cost := func(requests drive.Requests) (float64, error) {
		before, err := edekd.CPU()
		if err != nil {
			return 0, err
		}
		answered, err := pool.Closed(m.Round, connections, requests)
		if err != nil {
			return 0, err
		}
		after, err := edekd.CPU()
		return micros(after-before) / float64(answered), err
	}
	// Every key is loaded from the store once: that is not the subject.
	load := make(drive.Requests, m.Keys)
	for i := range load {
		load[i] = c.DecryptRequest(edeks[i], cookies[0], "")
	}
	if _, err := pool.Each(len(load), load); err != nil {
		return err
	}
	one, err := cost(drive.Requests{c.DecryptRequest(edeks[0], cookies[0], "")})
	if err != nil {
		return err
	}
	fmt.Printf("%d keys, %d users; one user and key: %.1f µs CPU a request\n", m.Keys, m.Users, one)
	random := rand.New(rand.NewPCG(7, 8))
	var half, last int64
	for round := range m.Rounds {
		requests := make(drive.Requests, m.Mixes)
		for i := range requests {
			requests[i] = c.DecryptRequest(edeks[random.IntN(m.Keys)], cookies[random.IntN(m.Users)], "")
		}
		used, err := cost(requests)
		if err != nil {
			return err
		}
		if last, err = edekd.Resident(); err != nil {
			return err
		}
		if round < max(m.Rounds/2, 1) {
			half = last
		}
		fmt.Printf("round %d: %.1f µs CPU a request, %d MiB resident\n", round+1, used, last>>20)
		if used > m.Slower*one {
			return fmt.Errorf("a request costs %.1f times one of the same user for the same key", used/one)
		}
	}
	if growth := float64(last)/float64(half) - 1; growth > m.Growth {
		return fmt.Errorf("memory grew by %.1f %% in the second half", 100*growth)
	}
	return nil
}
