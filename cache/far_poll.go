package cache

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edekd/edekd/edek"
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
		hot := map[*farProvider][]*FarKey{}
		one := map[*farProvider]*FarKey{}
		now := s.now()
		for _, f := range s.all() {
			one[f.provider] = f
			switch {
			case now-f.used.Load() > int64(s.rings.Expiry):
				s.remove(f.name)
			case f.inUse(now) && !f.asked(now):
				hot[f.provider] = append(hot[f.provider], f)
			}
		}
		for _, provider := range s.ones { // whether it answers again is asked, whoever uses it
			switch f := one[provider]; {
			case !provider.mute.Load() || len(hot[provider]) > 0:
			case f == nil:
				provider.mute.Store(false)
			default:
				hot[provider] = []*FarKey{f}
			}
		}
		for provider, list := range hot {
			for len(list) > 0 && ctx.Err() == nil && provider.Far.State() < upstream.CacheOnly {
				n := min(len(list), farPollBatch)
				_ = s.compare(ctx, provider, list[:n]) // logged
				list = list[n:]
			}
		}
	}
}

// inUse reports whether the key was asked for so lately that it is polled.
func (f *FarKey) inUse(now int64) bool { return now-f.used.Load() <= int64(farHot) }

// asked reports whether facts were confirmed since the last poll, more or less.
func (f *FarKey) asked(now int64) bool {
	known := f.facts.Load()
	return known != nil && now-known.checked < int64(f.side.c.Poll/2)
}

// exceptionsMax is how many exceptions one after another, which are no denials, are
// taken for the fault of single keys: halves of farPollBatch keys lead to one key in
// six, and to two that are beside each other in eight. A KMS that answers everything
// so is not asked about each key.
const exceptionsMax = 8

// compare asks for the metadata of some keys at once, and takes in what is said.
// One key that edekd may not see, or that the other KMS cannot read, fails the whole
// question: it is looked for by halves. The error says that the other KMS did not
// answer.
func (s *farSide) compare(ctx context.Context, provider *farProvider, list []*FarKey) error {
	exceptions := 0
	return s.halve(ctx, provider, list, &exceptions)
}

// halve is compare for a part of its keys, after so many exceptions in a row.
func (s *farSide) halve(ctx context.Context, provider *farProvider, list []*FarKey, exceptions *int) error {
	if *exceptions >= exceptionsMax {
		return errExceptions
	}
	names, epochs := make([]string, len(list)), make([]uint64, len(list))
	for i, f := range list {
		names[i], epochs[i] = f.name, f.epochNow()
	}
	asked, answers := s.now(), provider.answers.Load()
	within, cancel := context.WithTimeout(ctx, s.c.Timeout)
	defer cancel()
	all, err := provider.As(edek.Caller{}).KeysMetadata(within, names)
	if err == nil && len(all) != len(list) {
		err = errors.New("another number of keys than was asked for")
	}
	if _, refused := errors.AsType[*edek.Foreign](err); refused {
		provider.heard()
		if *exceptions++; denied(err) {
			*exceptions = 0
		}
		if len(list) > 1 {
			return errors.Join(s.halve(ctx, provider, list[:len(list)/2], exceptions), s.halve(ctx, provider, list[len(list)/2:], exceptions))
		}
		if denied(err) {
			s.c.Log.Warn("edekd may not see a key that it served; it is looked up anew", "key", list[0].name, "error", err)
			list[0].vanished(ctx)
		}
		provider.questions.answer(list, nil)
		return nil
	}
	switch {
	case !unheard(err):
		provider.heard()
	case ctx.Err() == nil: // it had the time of a request
		provider.missed(answers)
	}
	if err != nil {
		s.c.Log.Debug("keys could not be compared with those of the other KMS", "provider", provider.String(), "error", err)
		return err
	}
	*exceptions = 0
	var taken errgroup.Group // all nodes are told of each key that has changed
	taken.SetLimit(tellMax)
	for i, f := range list {
		taken.Go(func() error {
			if all[i] == nil {
				s.changes.Inc()
				f.vanished(ctx)
			} else {
				f.take(ctx, all[i], asked, epochs[i])
			}
			provider.questions.answer(list[i:i+1], nil)
			return nil
		})
	}
	return taken.Wait()
}

// tellMax is how many changed keys nodes are told of at once.
const tellMax = 8

var errExceptions = errors.New("the KMS behind answers with one exception after another")

// vanished ends what is known of a key that the other KMS has no more, or that edekd
// may not see. All nodes are told to forget it: their own queues may hold EDEKs of
// it, and once it is made anew nothing would show that it was another. What is
// learned of a new one meanwhile ends with it.
func (f *FarKey) vanished(ctx context.Context) {
	known := f.facts.Load() != nil
	f.drop()
	if known {
		ctx, cancel := f.Deadline(ctx)
		defer cancel()
		f.tell(ctx, "a key was deleted behind edekd, and not all servers could be told to forget what they had made of it")
	}
	f.side.forget(f.name)
}

// staleness is how long ago the facts of a key in use were last confirmed, the
// longest of all, in seconds.
func (s *farSide) staleness() float64 {
	now, oldest := s.now(), int64(0)
	for _, f := range s.all() {
		if known := f.facts.Load(); known != nil && f.inUse(now) {
			oldest = max(oldest, now-known.checked)
		}
	}
	return time.Duration(oldest).Seconds()
}
