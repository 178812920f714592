package cache

import (
	"context"
	"errors"
	"time"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/keys"
	"github.com/edekd/edekd/upstream"
)

// poll compares what is known of far keys in use with what the other KMS says,
// until ctx ends.
func (s *farSide) poll(ctx context.Context) {
	tick := time.NewTicker(s.c.Poll)
	defer tick.Stop()
	save := time.NewTicker(hotInterval)
	defer save.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-save.C:
			s.saveHot()
			continue
		case <-tick.C:
		}
		hot := map[keys.Far][]*FarKey{}
		now := s.now()
		for _, f := range s.all() {
			switch unused := now - f.used.Load(); {
			case unused > int64(s.rings.Expiry):
				s.remove(f.name)
			case unused <= int64(farHot):
				hot[f.provider] = append(hot[f.provider], f)
			}
		}
		for provider, list := range hot {
			for len(list) > 0 && ctx.Err() == nil && provider.State() < upstream.CacheOnly {
				n := min(len(list), farPollBatch)
				s.compare(ctx, provider, list[:n])
				list = list[n:]
			}
		}
	}
}

// compare asks for the metadata of some keys at once. One key that edekd may not
// see fails the whole question: it is looked for by halves.
func (s *farSide) compare(ctx context.Context, provider keys.Far, list []*FarKey) {
	names, epochs := make([]string, len(list)), make([]uint64, len(list))
	for i, f := range list {
		names[i], epochs[i] = f.name, f.epochNow()
	}
	asked := s.now()
	within, cancel := context.WithTimeout(ctx, s.c.Timeout)
	defer cancel()
	all, err := provider.As(edek.Caller{}).KeysMetadata(within, names)
	if err == nil && len(all) != len(list) {
		err = errors.New("another number of keys than was asked for")
	}
	if _, refused := errors.AsType[*edek.Foreign](err); refused {
		if len(list) > 1 {
			s.compare(ctx, provider, list[:len(list)/2])
			s.compare(ctx, provider, list[len(list)/2:])
			return
		}
		if denied(err) {
			s.c.Log.Warn("edekd may not see a key that it served; it is looked up anew", "key", list[0].name, "error", err)
			s.forget(list[0].name)
		}
		return
	}
	if err != nil {
		s.c.Log.Debug("keys could not be compared with those of the other KMS", "provider", provider.String(), "error", err)
		return
	}
	for i, f := range list {
		if all[i] == nil {
			s.changes.Inc()
			s.forget(f.name)
			continue
		}
		f.take(within, all[i], asked, epochs[i])
	}
}

// staleness is how long ago the facts of a key in use were last confirmed, the
// longest of all, in seconds.
func (s *farSide) staleness() float64 {
	now, oldest := s.now(), int64(0)
	for _, f := range s.all() {
		if known := f.facts.Load(); known != nil && now-f.used.Load() <= int64(farHot) {
			oldest = max(oldest, now-known.checked)
		}
	}
	return time.Duration(oldest).Seconds()
}
