package cache

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/upstream"
)

// stateLook is how often the state is looked at for the log.
const stateLook = 250 * time.Millisecond

// emptyLook is for how long rings that were all empty are not looked through again:
// each refusal has the word for the state.
const emptyLook = 50 * time.Millisecond

// State is how well keys can be served, "" where all are near. Near keys of a
// chain count as a provider that is ok. What nobody can serve, not even from what
// was fetched ahead, is down.
func (k *Cache) State() string {
	if k.far == nil {
		return ""
	}
	return k.far.state().String()
}

func (s *farSide) state() upstream.State {
	best, worst := upstream.Down, upstream.OK
	for _, far := range s.ones {
		is := far.State()
		best, worst = min(best, is), max(worst, is)
	}
	if s.near {
		best = upstream.OK
	}
	switch {
	case worst == upstream.OK:
		return upstream.OK
	case best < upstream.CacheOnly:
		return upstream.ReadOnly
	case s.holds():
		return upstream.CacheOnly
	}
	return upstream.Down
}

// worded puts the word for how keys can be served into a refusal, which has the one
// for how a single KMS does, as far as its breakers know.
func (s *farSide) worded(err error) error {
	refused, ok := errors.AsType[*edek.Error](err)
	if !ok || refused.Kind != edek.Unavailable {
		return err
	}
	word, rest, cut := strings.Cut(refused.Text, ": ")
	if !cut || word != upstream.CacheOnly.String() && word != upstream.OK.String() {
		return err
	}
	is := s.state()
	if is == upstream.OK {
		return err
	}
	right := *refused
	right.Text = is.String() + ": " + rest
	return &right
}

// registerState shows the state as one gauge for each word, 1 for the one that
// is so.
func (s *farSide) registerState(set *metrics.Set) {
	for _, word := range []upstream.State{upstream.OK, upstream.ReadOnly, upstream.CacheOnly, upstream.Down} {
		set.NewGauge(`edekd_upstream_state{state="`+word.String()+`"}`, func() float64 {
			if s.state() == word {
				return 1
			}
			return 0
		})
	}
}

// watchState tells of each change, and remembers outages, until ctx ends.
func (s *farSide) watchState(ctx context.Context) {
	tick := time.NewTicker(stateLook)
	defer tick.Stop()
	for was := upstream.OK; ; {
		for _, far := range s.ones {
			far.outages.Look(time.Now())
		}
		if is := s.state(); is != was {
			log := s.c.Log.Warn
			if is == upstream.OK {
				log = s.c.Log.Info
			}
			log("the state of the keys behind edekd has changed", "state", is.String(), "before", was.String())
			s.c.StateChanged(is, was)
			was = is
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// holds reports whether anything was fetched ahead or is remembered, so that
// some callers can be served without a node.
func (s *farSide) holds() bool {
	if s.deks != nil && s.deks.Bytes() > 0 {
		return true
	}
	if s.copies != nil && s.copies.Any() {
		return true
	}
	now := s.now()
	if looked := s.emptied.Load(); looked != 0 && now-looked < int64(emptyLook) {
		return false
	}
	if s.rings.Any() {
		return true
	}
	s.emptied.Store(now)
	return false
}
