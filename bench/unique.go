package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edekd/edekd/bench/kms"
	"github.com/edekd/edekd/loadtest/wire"
)

type uniqueCommand struct {
	EDEKs       int           `name:"edeks" default:"10000000" help:"How many to take at least."`
	Connections int           `default:"64" help:"Over how many connections."`
	Zones       int           `default:"4" help:"Of how many zone keys."`
	Every       time.Duration `default:"100ms" help:"How often a key is rolled and its cache drained."`
}

// Run takes EDEKs from an edekd that may use all cores.
func (u *uniqueCommand) Run() error {
	dir, err := os.MkdirTemp("", "edekd-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, err := kms.StartEdekd(kms.Options{Dir: dir, Threads: 2})
	if err != nil {
		return err
	}
	begin := time.Now()
	found, err := u.take(server)
	if err = errors.Join(err, server.Stop()); err != nil {
		return err
	}
	fmt.Printf("%d EDEKs over %d connections in %v, %d rollovers and drains meanwhile: none twice, none of an old version\n",
		found.edeks, u.Connections, time.Since(begin).Round(time.Millisecond), found.drains)
	return nil
}

// taken is what a run without a fault has seen.
type taken struct{ edeks, drains int }

// iv is what tells EDEKs apart: two of one key with the same IV have the same
// keystream, whatever they wrap.
type iv [16]byte

// zone is a key that is rolled while EDEKs of it are taken.
type zone struct {
	name string
	// oldest is the lowest version that a request sent from now on may get: the
	// drain of all before it has been acknowledged.
	oldest atomic.Int64
}

// take fails when an EDEK comes twice, or with a version from before a drain that
// was acknowledged before its request was sent.
func (u *uniqueCommand) take(server *kms.Server) (taken, error) {
	client := kms.NewClient(server.Target)
	cookie, err := client.Cookie(kms.NameNode)
	if err != nil {
		return taken{}, err
	}
	zones := make([]*zone, u.Zones)
	for i := range zones {
		zones[i] = &zone{name: fmt.Sprintf("zone%d", i)}
		if err := client.Create(zones[i].name); err != nil {
			return taken{}, err
		}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var left atomic.Int64
	left.Store(int64(u.EDEKs))
	perWorker := make([][]iv, u.Connections)
	var workers, roller sync.WaitGroup
	for i := range perWorker {
		workers.Go(func() {
			w := taker{client: client, cookie: cookie, zones: zones, left: &left}
			if err := w.run(ctx, server.Target.Addr, i); err != nil {
				cancel(err)
			}
			perWorker[i] = w.seen
		})
	}
	var t taken
	rolling, stop := context.WithCancel(ctx)
	defer stop()
	roller.Go(func() {
		for ; rolling.Err() == nil; t.drains++ {
			if err := rollAndDrain(client, zones[t.drains%len(zones)]); err != nil {
				cancel(err)
				return
			}
			select {
			case <-rolling.Done():
			case <-time.After(u.Every):
			}
		}
	})
	workers.Wait()
	stop()
	roller.Wait()
	if err := context.Cause(ctx); err != nil {
		return t, err
	}
	all := slices.Concat(perWorker...)
	t.edeks = len(all)
	if double, found := repeated(all); found {
		return t, fmt.Errorf("the EDEK with the IV %x was handed out twice", double)
	}
	return t, nil
}

func rollAndDrain(client *kms.Client, z *zone) error {
	version, err := client.Roll(z.name)
	if err != nil {
		return err
	}
	if err := client.Drain(z.name); err != nil {
		return err
	}
	n, err := versionNumber([]byte(version))
	z.oldest.Store(n)
	return err
}

// repeated sorts ivs and returns one that is there twice.
func repeated(ivs []iv) (iv, bool) {
	slices.SortFunc(ivs, func(a, b iv) int { return bytes.Compare(a[:], b[:]) })
	for i := 1; i < len(ivs); i++ {
		if ivs[i] == ivs[i-1] {
			return ivs[i], true
		}
	}
	return iv{}, false
}

// amounts are how many EDEKs requests ask for, in turn.
var amounts = []int{1, 150, 1, 10, 500}

// taker takes EDEKs over one connection.
type taker struct {
	client *kms.Client
	cookie string
	zones  []*zone
	left   *atomic.Int64
	seen   []iv
}

func (w *taker) run(ctx context.Context, addr string, first int) error {
	const patience = 30 * time.Second
	dialer := wire.Dialer{Addr: addr}
	conn, err := dialer.Dial(ctx, time.Now().Add(patience))
	if err != nil {
		return err
	}
	defer conn.Close()
	for i := first; ctx.Err() == nil; i++ {
		n := amounts[i%len(amounts)]
		if w.left.Add(int64(-n)) <= int64(-n) {
			return nil
		}
		z := w.zones[i%len(w.zones)]
		oldest := z.oldest.Load()
		answer, err := conn.Do(w.client.GenerateRequest(z.name, n, w.cookie, ""), time.Now().Add(patience))
		if err != nil {
			return err
		}
		if answer.Status != 200 {
			return fmt.Errorf("generate: %d %.300s", answer.Status, answer.Body)
		}
		if err := w.keep(answer.Body, n, oldest); err != nil {
			return fmt.Errorf("%s: %w", z.name, err)
		}
	}
	return nil
}

var (
	ivField      = []byte(`"iv" : "`)
	versionField = []byte(`"versionName" : "`)
	inner        = []byte("EEK")
)

// keep reads the EDEKs of an answer.
func (w *taker) keep(body []byte, n int, oldest int64) error {
	before := len(w.seen)
	for rest := body; ; {
		text, after, found := quoted(rest, ivField)
		if !found {
			break
		}
		rest = after
		var v iv
		if got, err := base64.RawURLEncoding.Decode(v[:], text); err != nil || got != len(v) {
			return fmt.Errorf("an IV %q: %w", text, err)
		}
		w.seen = append(w.seen, v)
	}
	versions := 0
	for rest := body; ; {
		text, after, found := quoted(rest, versionField)
		if !found {
			break
		}
		rest = after
		if bytes.Equal(text, inner) {
			continue
		}
		versions++
		version, err := versionNumber(text)
		if err != nil {
			return err
		}
		if version < oldest {
			return fmt.Errorf("an EDEK of version %d, though the drain after the rollover to %d was acknowledged before the request was sent", version, oldest)
		}
	}
	if got := len(w.seen) - before; got != n || versions != n {
		return fmt.Errorf("%d EDEKs of %d versions for %d asked for", got, versions, n)
	}
	return nil
}

// quoted returns what stands in quotes after a field's name.
func quoted(text, field []byte) (value, rest []byte, found bool) {
	at := bytes.Index(text, field)
	if at < 0 {
		return nil, nil, false
	}
	return bytes.Cut(text[at+len(field):], []byte{'"'})
}

// versionNumber reads N of name@N.
func versionNumber(version []byte) (int64, error) {
	at := bytes.LastIndexByte(version, '@')
	if at < 0 {
		return 0, fmt.Errorf("%q is no version", version)
	}
	return strconv.ParseInt(string(version[at+1:]), 10, 64)
}
