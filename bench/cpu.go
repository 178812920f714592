package main

import (
	"errors"
	"fmt"

	"github.com/edekd/edekd/bench/drive"
	"github.com/edekd/edekd/bench/kms"
	"github.com/edekd/edekd/bench/measure"
	"github.com/edekd/edekd/bench/report"
	"github.com/edekd/edekd/bench/stats"
)

// connections is how many a closed loop keeps busy, unless the number is the
// subject.
const connections = 16

// pair is one call, measured on an edekd and on a bare server that answers the
// same bytes.
type pair struct {
	name    string
	request []byte
	// perEDEK is the number of EDEKs of a request whose figure is the difference
	// to bare for each; 0 for a figure that is the ratio.
	perEDEK int
	goal    float64
}

// unitCPU is what all measurements of CPU time are in.
const unitCPU = "µs CPU/request"

// pairs measures calls over the transport of the servers.
func (s *suite) pairs(group string, edekd *kms.Server, bare *kms.Bare, all []pair) (err error) {
	var pools [2]*drive.Pool
	for i, target := range []drive.Target{edekd.Target, bare.Target} {
		if pools[i], err = drive.NewPool(target, connections, all[0].request); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, pools[i].Close()) }()
	}
	for _, p := range all {
		answer, err := pools[0].Exchange(p.request)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if err := bare.Mirror(answer); err != nil {
			return err
		}
		requests := drive.Requests{p.request}
		c, err := measure.Interleave([]measure.Variant{
			{Process: edekd.Process, Pool: pools[0], Active: connections, Requests: requests},
			{Process: bare.Process, Pool: pools[1], Active: connections, Requests: requests},
		}, s.Slices, s.Slice)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		r := report.Row{Group: group, Case: p.name, Unit: unitCPU, Ours: c.Micros[0], Beside: c.Micros[1],
			Figure: stats.Ratio(c.Micros[0], c.Micros[1]), FigureUnit: "× bare", Goal: &report.Goal{AtMost: p.goal},
			Guarded: true, Note: fmt.Sprintf("server busy %.0f %%, bare %.0f %%", 100*c.Busy[0], 100*c.Busy[1])}
		if p.perEDEK > 0 {
			r.Figure, r.FigureUnit = stats.Difference(c.Micros[0], c.Micros[1], float64(p.perEDEK)), "µs per EDEK above bare"
		}
		s.file.Rows = append(s.file.Rows, r)
	}
	return nil
}

// The goals, as factors of what the bare handler costs or in µs.
const (
	goalGenerate         = 1.15
	goalDecrypt          = 1.20
	goalGenerateInMemory = 1.0
	goalDecryptInMemory  = 1.2
	goalPerGenerated     = 0.30
	goalPerReencrypted   = 0.7
	goalPerDecrypted     = 0.7
	goalManyKeys         = 1.15
	goalManyConnections  = 1.1
)

// batchSize is the number of EDEKs of a batch, and of what HDFS re-encrypts at a
// time.
const batchSize = 1000

// prepared is what the requests of a measurement are made of.
type prepared struct {
	*kms.Client
	key    string
	cookie string // of the NameNode; "" where none is needed
	old    []kms.EDEK
	edek   kms.EDEK
}

// prepare makes a key with an old and a current version, and EDEKs of both.
func prepare(server *kms.Server) (*prepared, error) {
	p := &prepared{Client: kms.NewClient(server.Target), key: "zone"}
	err := p.Create(p.key)
	if err == nil && !server.Known {
		p.cookie, err = p.Cookie(kms.NameNode)
	}
	if err == nil {
		p.old, err = p.Generate(p.key, batchSize)
	}
	if err == nil {
		_, err = p.Roll(p.key)
	}
	if err == nil {
		var one []kms.EDEK
		if one, err = p.Generate(p.key, 1); err == nil {
			p.edek = one[0]
		}
	}
	return p, err
}

func (p *prepared) generate(n int) []byte { return p.GenerateRequest(p.key, n, p.cookie, "") }
func (p *prepared) decrypt() []byte       { return p.DecryptRequest(p.edek, p.cookie, "") }

func (p *prepared) single() []pair {
	return []pair{
		{"generate, num_keys=1", p.generate(1), 0, goalGenerate},
		{"decrypt", p.decrypt(), 0, goalDecrypt},
	}
}

func (s *suite) overTCP() error {
	return s.withBoth(kms.Options{}, func(edekd *kms.Server, bare *kms.Bare) error {
		p, err := prepare(edekd)
		if err != nil {
			return err
		}
		return s.pairs("CPU, loopback TCP", edekd, bare, append(p.single(),
			pair{"generate, num_keys=150", p.generate(150), 150, goalPerGenerated},
			pair{"generate, num_keys=500", p.generate(500), 500, goalPerGenerated},
			pair{"re-encrypt a batch of 1000", p.ReencryptRequest(p.old, p.cookie), batchSize, goalPerReencrypted},
			pair{"decrypt a batch of 1000", p.DecryptBatchRequest(p.old, p.cookie), batchSize, goalPerDecrypted},
		))
	})
}

// overTLS is over warm connections.
func (s *suite) overTLS() error {
	return s.withBoth(kms.Options{TLS: true}, func(edekd *kms.Server, bare *kms.Bare) error {
		p, err := prepare(edekd)
		if err != nil {
			return err
		}
		return s.pairs("CPU, TLS 1.3", edekd, bare, p.single())
	})
}

// overUnix is over the local socket, with cookies and with senders that the kernel
// names, and then the socket beside TCP.
func (s *suite) overUnix() error {
	if err := s.withBoth(kms.Options{Unix: true, Known: true}, func(local *kms.Server, bare *kms.Bare) error {
		p, err := prepare(local)
		if err != nil {
			return err
		}
		return s.pairs("CPU, Unix socket, senders named by the kernel", local, bare, p.single())
	}); err != nil {
		return err
	}
	return s.withBoth(kms.Options{Unix: true}, func(local *kms.Server, bare *kms.Bare) error {
		p, err := prepare(local)
		if err != nil {
			return err
		}
		const group = "CPU, Unix socket"
		if err := s.pairs(group, local, bare, p.single()); err != nil {
			return err
		}
		return s.withEdekd(kms.Options{}, func(remote *kms.Server) error {
			q, err := prepare(remote)
			if err != nil {
				return err
			}
			for i, name := range []string{"generate, num_keys=1", "decrypt"} {
				if err := s.against(report.Row{Group: group, Case: name + ", beside loopback TCP", FigureUnit: "× TCP"},
					side{local, p.single()[i].request}, side{remote, q.single()[i].request}); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// side is one of two edekds.
type side struct {
	server  *kms.Server
	request []byte
}

// against measures one edekd beside another.
func (s *suite) against(r report.Row, ours, beside side) (err error) {
	variants := make([]measure.Variant, 2)
	for i, e := range []side{ours, beside} {
		pool, err := drive.NewPool(e.server.Target, connections, e.request)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, pool.Close()) }()
		variants[i] = measure.Variant{Process: e.server.Process, Pool: pool, Active: connections, Requests: drive.Requests{e.request}}
	}
	return s.row(r, variants)
}

// row measures two variants and adds the ratio of their costs.
func (s *suite) row(r report.Row, variants []measure.Variant) error {
	c, err := measure.Interleave(variants, s.Slices, s.Slice)
	if err != nil {
		return err
	}
	r.Unit, r.Ours, r.Beside, r.Figure = unitCPU, c.Micros[0], c.Micros[1], stats.Ratio(c.Micros[0], c.Micros[1])
	r.Note = fmt.Sprintf("server busy %.0f %%, beside it %.0f %%", 100*c.Busy[0], 100*c.Busy[1])
	s.file.Rows = append(s.file.Rows, r)
	return nil
}

// manyKeys decrypts under zone keys chosen at random, beside always the same one.
func (s *suite) manyKeys() error {
	store, err := s.dir(true)
	if err != nil {
		return err
	}
	return s.withEdekd(kms.Options{Provider: "sqlite://file@" + store + "/keys.db"}, func(edekd *kms.Server) (err error) {
		c := kms.NewClient(edekd.Target)
		requests, err := decryptsOfKeys(c, s.Keys)
		if err != nil {
			return err
		}
		pool, err := drive.NewPool(edekd.Target, connections, requests[0])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, pool.Close()) }()
		// Each once, so that all are known.
		if _, err := pool.Each(len(requests), requests); err != nil {
			return err
		}
		return s.row(report.Row{Group: "CPU, many", Case: fmt.Sprintf("decrypt, %d zone keys at random, beside one", s.Keys),
			FigureUnit: "× one key", Goal: &report.Goal{AtMost: goalManyKeys}, Guarded: true},
			[]measure.Variant{
				{Process: edekd.Process, Pool: pool, Active: connections, Requests: requests},
				{Process: edekd.Process, Pool: pool, Active: connections, Requests: requests[:1]}})
	})
}

func zoneName(i int) string { return fmt.Sprintf("key%06d", i) }

// decryptsOfKeys makes keys, and for each a request to decrypt an EDEK of it.
func decryptsOfKeys(c *kms.Client, keys int) (drive.Requests, error) {
	cookie, err := c.Cookie(kms.NameNode)
	if err != nil {
		return nil, err
	}
	edeks, err := edeksOfKeys(c, keys)
	if err != nil {
		return nil, err
	}
	requests := make(drive.Requests, keys)
	for i, e := range edeks {
		requests[i] = c.DecryptRequest(e, cookie, "")
	}
	return requests, nil
}

func edeksOfKeys(c *kms.Client, keys int) ([]kms.EDEK, error) {
	edeks := make([]kms.EDEK, keys)
	return edeks, kms.Each(keys, func(i int) error {
		if err := c.Create(zoneName(i)); err != nil {
			return err
		}
		one, err := c.Generate(zoneName(i), 1)
		if err == nil {
			edeks[i] = one[0]
		}
		return err
	})
}

// activeConnections are those with requests, with and without idle ones beside.
const activeConnections = 64

func (s *suite) manyConnections() error {
	return s.withEdekd(kms.Options{}, func(crowded *kms.Server) error {
		return s.withEdekd(kms.Options{}, func(quiet *kms.Server) (err error) {
			variants := make([]measure.Variant, 2)
			for i, server := range []*kms.Server{crowded, quiet} {
				p, err := prepare(server)
				if err != nil {
					return err
				}
				pool, err := drive.NewPool(server.Target, activeConnections+s.Idle*(1-i), p.decrypt())
				if err != nil {
					return fmt.Errorf("%w (%d connections need a limit of open files beyond that: ulimit -n)", err, s.Idle)
				}
				defer func() { err = errors.Join(err, pool.Close()) }()
				variants[i] = measure.Variant{Process: server.Process, Pool: pool, Active: activeConnections, Requests: drive.Requests{p.decrypt()}}
			}
			return s.row(report.Row{Group: "CPU, many", Case: fmt.Sprintf("decrypt, 64 of %d open connections active, beside 64 open", activeConnections+s.Idle),
				FigureUnit: "× 64 open", Goal: &report.Goal{AtMost: goalManyConnections}, Guarded: true}, variants)
		})
	})
}
