package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"github.com/edekd/edekd/bench/drive"
	"github.com/edekd/edekd/bench/kms"
	"github.com/edekd/edekd/bench/process"
	"github.com/edekd/edekd/bench/report"
	"github.com/edekd/edekd/bench/stats"
)

// cpuPerOp finds call, server and CPU time in a line of proxy's BenchmarkInMemory.
var cpuPerOp = regexp.MustCompile(`(?m)^BenchmarkInMemory/(\w+)/(bare|edekd)\S*\s.*?\s([0-9.]+) cpu-ns/op`)

// inMemory runs proxy's own benchmark, which sends requests over a connection in
// memory, client and server in one process: no kernel, hardly any noise. Their
// difference is what this code costs.
func (s *suite) inMemory() error {
	test, err := process.BuildTest("./proxy")
	if err != nil {
		return err
	}
	micros := map[string][]float64{} // by call and server
	for range s.Slices {
		out, err := s.pinned(test, "-test.run=^$", "-test.bench=^BenchmarkInMemory$", "-test.cpu=1", "-test.benchtime="+s.Slice.String())
		if err != nil {
			return err
		}
		found := cpuPerOp.FindAllSubmatch(out, -1)
		if len(found) != 4 {
			return fmt.Errorf("BenchmarkInMemory of proxy prints other lines than this program reads:\n%s", out)
		}
		for _, f := range found {
			nanos, err := strconv.ParseFloat(string(f[3]), 64)
			if err != nil {
				return err
			}
			name := string(f[1]) + "/" + string(f[2])
			micros[name] = append(micros[name], nanos/1000)
		}
	}
	for _, call := range []struct {
		name string
		goal float64
	}{{"generate", goalGenerateInMemory}, {"decrypt", goalDecryptInMemory}} {
		ours, bare := micros[call.name+"/edekd"], micros[call.name+"/bare"]
		s.file.Rows = append(s.file.Rows, report.Row{Group: "CPU, in memory (client and server)", Case: call.name, Unit: unitCPU, Ours: ours, Beside: bare,
			Figure: stats.Difference(ours, bare, 1), FigureUnit: "µs above bare", Goal: &report.Goal{AtMost: call.goal}, Guarded: true})
	}
	return nil
}

// pinned runs a test binary on the server's core and returns what it prints.
func (s *suite) pinned(binary string, args ...string) ([]byte, error) {
	root, err := process.Root()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	cmd := exec.Command(binary, args...)
	cmd.Dir = root + "/proxy" // where go test would run it
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := process.Start(cmd, s.ServerCPU)
	if err != nil {
		return nil, err
	}
	if err := p.Wait(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", binary, err, out.Bytes())
	}
	return out.Bytes(), nil
}

// allocations counts what the whole server allocates for a request, by each way
// to say who sends it, less what it allocates to be asked. What runs in the
// background has a share.
func (s *suite) allocations() error {
	const group = "allocations"
	test, err := process.BuildTest("./proxy")
	if err != nil {
		return err
	}
	// These tests fail on one allocation in the handler.
	if _, err := s.pinned(test, "-test.run=^(TestHotRequestsDoNotAllocate|TestKnownSendersDoNotAllocate)$", "-test.count=1"); err != nil {
		return err
	}
	s.file.Rows = append(s.file.Rows, report.Row{Group: group, Case: "handler, generate and decrypt, by cookie, token and doAs", FigureUnit: "per request",
		Goal: &report.Goal{}, Guarded: true, Note: "proxy's tests, which fail on one"})
	return s.withEdekd(kms.Options{}, func(edekd *kms.Server) (err error) {
		p, err := prepare(edekd)
		if err != nil {
			return err
		}
		token, err := p.Token(kms.NameNode)
		if err != nil {
			return err
		}
		service, err := p.Cookie(kms.Service)
		if err != nil {
			return err
		}
		pool, err := drive.NewPool(edekd.Target, connections, p.decrypt())
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, pool.Close()) }()
		for _, sender := range []struct{ name, auth, query string }{
			{"cookie", p.cookie, ""},
			{"token", token, ""},
			{"cookie and doAs", service, "&doAs=" + kms.Reader},
		} {
			for _, call := range []struct {
				name    string
				request []byte
			}{
				{"generate", p.GenerateRequest(p.key, 1, sender.auth, sender.query)},
				{"decrypt", p.DecryptRequest(p.edek, sender.auth, sender.query)},
			} {
				per, err := allocationsPer(p.Client, pool, drive.Requests{call.request}, s.Slices, s.Slice)
				if err != nil {
					return fmt.Errorf("%s by %s: %w", call.name, sender.name, err)
				}
				s.file.Rows = append(s.file.Rows, report.Row{Group: group, Case: "process, " + call.name + " by " + sender.name, Unit: "allocations/request",
					Ours: per, Figure: stats.Of(per), FigureUnit: "per request", Goal: &report.Goal{AtMost: backgroundAllocations}, Guarded: true})
			}
		}
		return nil
	})
}

// backgroundAllocations is what the process may allocate per request besides its
// handlers, at full load: audit lines, timers.
const backgroundAllocations = 0.01

func allocationsPer(c *kms.Client, pool *drive.Pool, requests drive.Requests, slices int, length time.Duration) ([]float64, error) {
	const mallocs = "go_memstats_mallocs_total"
	if _, err := pool.Closed(length, connections, requests); err != nil { // warm up
		return nil, err
	}
	count := func() (float64, error) {
		values, err := c.Metrics()
		if err == nil && values[mallocs] == 0 {
			err = fmt.Errorf("/metrics has no %s", mallocs)
		}
		return values[mallocs], err
	}
	per := make([]float64, 0, slices)
	for range slices {
		first, err := count()
		if err != nil {
			return nil, err
		}
		before, err := count()
		if err != nil {
			return nil, err
		}
		answered, err := pool.Closed(length, connections, requests)
		if err != nil {
			return nil, err
		}
		after, err := count()
		if err != nil {
			return nil, err
		}
		scrape := before - first // is itself one that allocates
		per = append(per, (after-before-scrape)/float64(answered))
	}
	return per, nil
}
