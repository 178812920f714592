package loadtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/edekd/edekd/loadtest/edekfile"
	"github.com/edekd/edekd/loadtest/login"
)

const (
	preparers  = 8        // connections used before and after the load
	batchBytes = 64 << 20 // of all prepared re-encryptions together
)

// prepare makes what the load needs: sessions, keys, encrypted keys.
func (r *run) prepare(ctx context.Context) error {
	r.zones = newZones()
	for _, t := range r.o.Targets {
		var of []*login.Session
		for _, i := range r.o.Identities {
			of = append(of, login.NewSession(i, t.Host, t.Addr))
		}
		r.sessions = append(r.sessions, of)
	}
	for _, name := range r.o.Keys {
		r.zones.zone(name)
	}
	for i := range r.o.EDEKs {
		r.zones.add(&r.o.EDEKs[i])
	}
	if err := r.createKeys(ctx); err != nil {
		return err
	}
	switch {
	case r.o.Profile.needsEDEKs():
		return r.fetchEDEKs(ctx)
	case r.o.Profile == Reencrypt:
		return r.fetchBatches(ctx)
	}
	return nil
}

// each calls f for the numbers below n, some at a time, with a connection to the
// first target, and reports progress.
func (r *run) each(ctx context.Context, phase string, n int, f func(ctx context.Context, c *client, s *login.Session, i int) error) error {
	var next, done atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range min(preparers, n) {
		group.Go(func() error {
			c := newClient(r.o.Targets[0], r.o.TLS, r.o.Timeout, func() {})
			defer c.close()
			stop := context.AfterFunc(ctx, c.abort)
			defer stop()
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				if err := f(ctx, c, r.sessions[0][i%len(r.sessions[0])], i); err != nil {
					return err
				}
				if d := done.Add(1); d%1000 == 0 || int(d) == n {
					r.progress(Progress{Phase: phase, Done: float64(d), Total: float64(n)})
				}
			}
		})
	}
	return group.Wait()
}

// createKeys makes the keys asked for that do not exist.
func (r *run) createKeys(ctx context.Context) error {
	made := make([]*zone, r.o.CreateKeys)
	for i := range made {
		made[i] = r.zones.zone(KeyName(i + 1))
	}
	return r.each(ctx, "making keys", len(made), func(ctx context.Context, c *client, s *login.Session, i int) error {
		z := made[i]
		a, err := c.do(ctx, s, "GET", []byte(z.path+"/_metadata"), nil)
		if err != nil {
			return fmt.Errorf("look for key %s: %w", z.name, err)
		}
		if a.Status != 200 {
			return refused("look for key "+z.name, a)
		}
		if bytes.Contains(a.Body, []byte(`"cipher"`)) {
			return nil
		}
		a, err = c.do(ctx, s, "POST", []byte("keys"), []byte("{\n  \"cipher\" : \"AES/CTR/NoPadding\",\n  \"name\" : "+z.quoted+",\n  \"length\" : 128\n}"))
		if err != nil {
			return fmt.Errorf("make key %s: %w", z.name, err)
		}
		if a.Status != 201 {
			return refused("make key "+z.name, a)
		}
		z.made = true
		return nil
	})
}

// deleteKeys takes away the keys that this run made.
func (r *run) deleteKeys(ctx context.Context) error {
	var made []*zone
	for _, z := range r.zones.all {
		if z.made {
			made = append(made, z)
		}
	}
	return r.each(ctx, "deleting keys", len(made), func(ctx context.Context, c *client, s *login.Session, i int) error {
		a, err := c.do(ctx, s, "DELETE", []byte(made[i].path), nil)
		if err != nil {
			return fmt.Errorf("delete key %s: %w", made[i].name, err)
		}
		if a.Status != 200 {
			return refused("delete key "+made[i].name, a)
		}
		return nil
	})
}

// generate asks for n encrypted keys.
func generate(ctx context.Context, c *client, s *login.Session, z *zone, n int) ([]edekfile.EDEK, error) {
	a, err := c.do(ctx, s, "GET", []byte(z.path+"/_eek?eek_op=generate&num_keys="+strconv.Itoa(n)), nil)
	if err != nil {
		return nil, fmt.Errorf("generate with %s: %w", z.name, err)
	}
	if a.Status != 200 {
		return nil, refused("generate with "+z.name, a)
	}
	all, err := parseGenerated(z.name, a.Body)
	if err != nil || len(all) != n {
		return nil, fmt.Errorf("generate with %s: the answer holds %d encrypted keys, want %d: %w", z.name, len(all), n, errors.Join(err, errAnswer))
	}
	return all, nil
}

var errAnswer = errors.New("not what a Hadoop KMS answers")

// fetchEDEKs generates encrypted keys for the zones that have none.
func (r *run) fetchEDEKs(ctx context.Context) error {
	var empty []*zone
	for _, z := range r.zones.all {
		if len(z.sealed) == 0 {
			empty = append(empty, z)
		}
	}
	if len(empty) == 0 {
		return nil
	}
	n := max(1, min(r.o.EDEKsPerKey, maxPrepared/len(empty)))
	var mu sync.Mutex
	return r.each(ctx, "generating EDEKs", len(empty), func(ctx context.Context, c *client, s *login.Session, i int) error {
		all, err := generate(ctx, c, s, empty[i], n)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for i := range all {
			r.zones.add(&all[i])
		}
		return nil
	})
}

// fetchBatches prepares one re-encryption for each zone, as many as there is room
// for. Keys of this run are rolled after that, so that there is something to do;
// what is of the current version already, servers return as it is.
func (r *run) fetchBatches(ctx context.Context) error {
	const each = 300 // bytes of one encrypted key in a body
	room := max(1, batchBytes/(each*r.o.Batch))
	r.zones.all = r.zones.all[:min(len(r.zones.all), room)]
	given := map[string][]edekfile.EDEK{}
	for _, e := range r.o.EDEKs {
		given[e.Key] = append(given[e.Key], e)
	}
	var mu sync.Mutex
	return r.each(ctx, "generating EDEKs", len(r.zones.all), func(ctx context.Context, c *client, s *login.Session, i int) error {
		z := r.zones.all[i]
		all := given[z.name]
		if len(all) == 0 {
			var err error
			if all, err = generate(ctx, c, s, z, r.o.Batch); err != nil {
				return err
			}
		}
		all = repeat(all, r.o.Batch)
		z.batch = appendBatch(nil, z, all)
		mu.Lock()
		r.zones.edeks += len(all)
		mu.Unlock()
		if !z.made {
			return nil
		}
		a, err := c.do(ctx, s, "POST", []byte(z.path), []byte("{ }"))
		if err != nil {
			return fmt.Errorf("roll %s: %w", z.name, err)
		}
		if a.Status != 200 {
			return refused("roll "+z.name, a)
		}
		return nil
	})
}

// repeat returns n of all, from the beginning again when there are fewer.
func repeat(all []edekfile.EDEK, n int) []edekfile.EDEK {
	out := make([]edekfile.EDEK, n)
	for i := range out {
		out[i] = all[i%len(all)]
	}
	return out
}
