package ring

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"time"
	"unsafe"

	"github.com/edekd/edekd/edek"
)

const (
	rest         = 5 * time.Millisecond   // of the keeper after it was woken, so that many takes wake it once
	fastWindow   = 100 * time.Millisecond // in which a rise of drain is noticed
	slowWindow   = 2 * time.Minute        // over which drain in the long run is averaged
	surveyEvery  = time.Second
	divideEvery  = 5 * time.Second // the budget, or at once when it refused something
	fetchTimeout = 30 * time.Second
	firstPause   = 100 * time.Millisecond // after a fetch that failed; doubled by each further one …
	longestPause = 30 * time.Second       // … up to this
	firstLatency = 50 * time.Millisecond  // of fetches, until one is measured

	ailingAfter = 3    // fetches that failed one after another, of any keys
	leastPace   = 1    // fetches a second that growth may make, whatever the drain
	warmPace    = 20   // keys a second that Warm fills
	growth      = 1.5  // paced fetches, as a multiple of those that the drain needs at most …
	mending     = 1.1  // … and after an outage, when all rings want to grow at once
	headway     = 3    // latencies of a fetch that a watermark outlasts
	margin      = 1.25 // what a drain that rises slowly may take beyond what was measured …
	deviations  = 4    // … and one that is as ever by chance

	edekBytes = int64(unsafe.Sizeof(edek.EDEK{})) // as Fetch returns it
)

// keeper decides what is fetched, for which ring, when.
type keeper struct {
	*Rings
	ctx      context.Context
	done     chan result
	underway int
	latency  float64 // seconds, of fetches: rises at once, falls slowly

	urgent  []*ring // below their watermarks; the next first
	growing []*ring // could grow; the shortest cover first

	pace    float64 // paced fetches a second
	tokens  float64 // paced fetches that may begin now
	counted time.Time

	failures   int  // of fetches, one after another
	fair       bool // what Fair said last
	ailing     bool // the upstream is not well: Fair says so, or fetches fail
	recovering bool // it was not, and there are rings below their watermarks
	mending    bool // it was not, and there are rings far from where they may grow to
	short      bool // the budget does not allow all that rings would like
	divided    time.Time
	measured   bool // latency was, once
}

// result is the end of a fetch.
type result struct {
	ring  *ring
	epoch uint64
	n     int64
	took  time.Duration
	err   error
}

func newKeeper(rs *Rings) *keeper {
	return &keeper{Rings: rs, done: make(chan result, rs.Fetches), latency: firstLatency.Seconds(), fair: true, pace: leastPace, counted: time.Now()}
}

func (k *keeper) run(ctx context.Context) {
	k.ctx = ctx
	surveys := time.NewTicker(surveyEvery)
	defer surveys.Stop()
	next := time.NewTimer(time.Hour)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-k.done:
			k.finish(r)
		case <-surveys.C:
			k.survey(time.Now())
		case <-next.C:
		case <-k.wake:
			select {
			case <-ctx.Done():
				return
			case <-time.After(rest):
			}
		}
		k.serve(time.Now())
		if wait := k.untilToken(); wait > 0 {
			next.Reset(wait)
		}
	}
}

// untilToken returns how long it takes until another paced fetch may begin, 0
// when none waits for that.
func (k *keeper) untilToken() time.Duration {
	if k.tokens >= 1 || len(k.growing)+len(k.urgent) == 0 || k.underway >= k.Fetches {
		return 0
	}
	return time.Duration((1-k.tokens)/k.pace*float64(time.Second)) + time.Millisecond
}

// serve looks at rings that takers flagged and begins what is due.
func (k *keeper) serve(now time.Time) {
	for r := k.flagged.Swap(nil); r != nil; {
		next := r.nextFlagged
		r.flagged.Store(false)
		k.look(r, now)
		r = next
	}
	k.tokens = min(1+k.pace/50, k.tokens+k.pace*now.Sub(k.counted).Seconds())
	k.counted = now

	for range len(k.urgent) {
		if k.underway >= k.Fetches {
			return
		}
		r := k.urgent[0]
		k.urgent = k.urgent[1:]
		paced := k.ailing || k.recovering && !r.starving
		switch missing := k.missing(r); {
		case missing <= 0 || !r.wanted || now.Before(r.until) || (k.ailing || r.failures > 0) && r.fetches > 0:
			r.urgent = false // the next look puts it back if need be
		case paced && k.tokens < 1:
			k.urgent = append(k.urgent, r)
		case k.begin(r, missing, now):
			if paced {
				k.tokens--
			}
			missing -= int64(k.Chunk)
			r.urgent = missing > 0
			if r.urgent {
				k.urgent = append(k.urgent, r) // behind the others: no key has all fetches
			}
		default:
			r.urgent = false
		}
	}
	// Growth leaves half of the fetches to what may become urgent. While fetches
	// fail, one of its fetches at a time finds out when they no longer do.
	for len(k.growing) > 0 && k.tokens >= 1 && k.underway < max(1, k.Fetches/2) && (!k.ailing || k.underway == 0) {
		r := k.growing[0]
		k.growing = k.growing[1:]
		r.growing = false
		_, _, goal := k.levels(r)
		if lacks := goal - r.depth() - r.coming; r.wanted && !now.Before(r.until) && lacks >= k.quantum(goal) && k.begin(r, lacks, now) {
			k.tokens--
			if lacks > int64(k.Chunk) {
				r.growing = true
				k.growing = append(k.growing, r)
			}
		}
	}
}

// look measures a ring and makes it urgent if it is below its watermark.
func (k *keeper) look(r *ring, now time.Time) {
	if r.gone {
		return
	}
	if epoch := r.epoch.Load(); epoch != r.epochSeen {
		r.epochSeen, r.coming = epoch, 0
	}
	asked := r.asked.Load()
	if asked > 0 && asked != r.windowed {
		r.wanted, r.used = true, now
	}
	if r.window.IsZero() {
		r.window = now
	}
	if d := now.Sub(r.window); d >= fastWindow {
		r.before = float64(asked-r.windowed) * min(1, fastWindow.Seconds()/d.Seconds())
		r.window, r.windowed = now, asked
	}
	missed := r.missed.Load()
	r.starving = missed != r.seen
	r.seen = missed
	if !r.wanted {
		return
	}
	water, _, _ := k.levels(r)
	r.mark.Store(max(1, water-r.coming))
	if r.depth()+r.coming < water && !r.urgent {
		r.urgent = true
		k.urgent = append(k.urgent, r)
	}
}

// depth is how many EDEKs are ready.
func (r *ring) depth() int64 { return max(0, r.chain.Load().depth.Load()) }

// fast is the drain just now, a second: of the window that has begun and the
// one before it, whichever is more.
func (r *ring) fast() float64 {
	return max(r.before, float64(r.asked.Load()-r.windowed)) / fastWindow.Seconds()
}

// levels returns the depth below which a ring is filled, the depth to which it
// is filled then, and the depth to which it may grow.
func (k *keeper) levels(r *ring) (water, target, goal int64) {
	working := int64(math.Ceil(max(r.fast(), r.slow) * (k.latency + rest.Seconds()) * headway))
	size := int64(k.Size)
	water = max(int64(math.Ceil(float64(size)*k.LowWatermark)), working, 1)
	target = max(size, 2*working)
	goal = target
	if k.fair {
		goal = max(goal, k.lasting(r.slow))
	}
	if k.short && r.allowance < goal {
		goal = r.allowance
		target = min(target, goal)
		water = min(water, (target+1)/2)
	}
	return water, target, goal
}

// lasting returns the depth that a ring may grow to so that, at a drain, it
// always lasts for Cover: it can lack a quantum when an outage begins. What is
// asked for in that time, and the drain measured over slowWindow, vary as chance
// has it.
func (k *keeper) lasting(drain float64) int64 {
	cover := k.Cover.Seconds()
	likely := drain * cover
	deviation := math.Sqrt(likely * (1 + cover/(2*slowWindow.Seconds())))
	least := int64(math.Ceil(likely+max(likely*(margin-1), deviations*deviation)) / (1 - k.Reserve))
	return least + k.quantum(least)*16/15 + 1 // the quantum of the sum is so much more
}

// quantum is how much a ring has to lack before a fetch for its growth is worth
// a call: as much as between Hadoop's watermark and its size, more for large
// rings, never more than a fetch brings.
func (k *keeper) quantum(goal int64) int64 {
	least := int64(float64(k.Size) * (1 - k.LowWatermark))
	return max(1, min(int64(k.Chunk), max(least, goal/16)))
}

// missing is what an urgent ring lacks, once it is filled at all.
func (k *keeper) missing(r *ring) int64 {
	_, target, _ := k.levels(r)
	return target - r.depth() - r.coming
}

// begin starts a fetch if the budget allows it.
func (k *keeper) begin(r *ring, n int64, now time.Time) bool {
	n = min(n, int64(k.Chunk))
	bytes := int64(slabsFor(int(n)))*slabBytes + n*edekBytes
	if !k.reserve(bytes) {
		return false
	}
	k.underway++
	r.fetches++
	r.coming += n
	r.mark.Store(max(1, r.mark.Load()-n))
	k.meters.fetches.Inc()
	mark, epoch := k.order.Load(), r.epochSeen
	k.ended.Go(func() {
		ctx, cancel := context.WithTimeout(k.ctx, fetchTimeout)
		defer cancel()
		edeks, err := k.Fetch(ctx, r.name, int(n))
		took := time.Since(now)
		if err == nil {
			kept, slabs := r.splice(mark, edeks[:min(len(edeks), int(n))])
			k.bytes.Add(slabs*slabBytes - bytes)
			k.meters.fetched.AddInt64(kept)
			if kept == 0 && r.epoch.Load() == epoch {
				err = errOld
			}
		} else {
			k.bytes.Add(-bytes)
		}
		k.done <- result{ring: r, epoch: epoch, n: n, took: took, err: err}
	})
	return true
}

// finish notes the end of a fetch.
func (k *keeper) finish(f result) {
	now, r := time.Now(), f.ring
	k.underway--
	r.fetches--
	if f.epoch == r.epochSeen {
		r.coming -= f.n
	}
	if f.err == nil {
		k.meters.latency.Update(f.took.Seconds())
		if took := f.took.Seconds(); !k.measured {
			k.latency, k.measured = took, true
		} else if took > k.latency {
			k.latency = min(took, 2*k.latency)
		} else {
			k.latency += (took - k.latency) / 16
		}
		r.failures, r.until, r.starving = 0, time.Time{}, false
		k.failures = 0
		k.look(r, now)
		return
	}
	k.meters.failed.Inc()
	if edek.KindOf(f.err) == edek.NotFound {
		k.end(r)
		return
	}
	pause := min(longestPause, firstPause<<min(r.failures, 20))
	r.failures++
	r.until = now.Add(pause/2 + rand.N(pause))
	// That one key is refused says nothing of the upstream's health.
	if _, refused := errors.AsType[*edek.Foreign](f.err); !refused && !errors.Is(f.err, errOld) {
		k.failures++
		k.weather(now)
	}
}

// end forgets a ring, of which nothing more is to be fetched.
func (k *keeper) end(r *ring) {
	k.forget(r)
	r.gone, r.wanted = true, false
}

// weather finds out how the upstream is.
func (k *keeper) weather(now time.Time) {
	k.fair = k.Fair == nil || k.Fair()
	ailing := k.failures >= ailingAfter || !k.fair
	if ailing == k.ailing {
		return
	}
	k.ailing = ailing
	k.recovering = !ailing
	k.mending = k.mending || !ailing
	k.tokens = min(k.tokens, 1)
	k.table.all(func(r *ring) {
		if ailing {
			r.keep.Store(int64(float64(r.depth()) * k.Reserve))
			return
		}
		r.keep.Store(0)
		r.failures, r.until = 0, time.Time{}
	})
}

// survey measures all rings, forgets those that nobody wants, divides the
// budget, and lists what could grow.
func (k *keeper) survey(now time.Time) {
	k.weather(now)
	k.warm(now)
	var rings []*ring
	var asked int64
	need, low := 0.0, false
	k.table.all(func(r *ring) {
		asked += k.average(r)
		if r.used.IsZero() {
			r.used = now
		}
		if now.Sub(r.used) >= k.Expiry {
			k.end(r)
			return
		}
		k.look(r, now)
		if !r.wanted {
			return
		}
		rings = append(rings, r)
		water, _, goal := k.levels(r)
		need += r.slow / float64(k.quantum(goal))
		low = low || r.failures == 0 && r.depth() < water
	})
	k.meters.asked.AddInt64(asked)
	if k.pace = max(leastPace, growth*need); k.mending {
		k.pace = max(leastPace, mending*need)
	}
	k.recovering = k.recovering && low
	if refused := k.crowded.Swap(false); refused || now.Sub(k.divided) >= divideEvery {
		k.divided = now
		k.divide(rings, refused)
	}

	for _, r := range k.growing {
		r.growing = false
	}
	k.growing = k.growing[:0]
	type lacking struct {
		*ring
		share float64 // of its goal that it has
	}
	var lack []lacking
	far := false
	for _, r := range rings {
		_, _, goal := k.levels(r)
		if have := r.depth() + r.coming; !r.urgent && goal-have >= k.quantum(goal) {
			far = far || goal-have >= 3*k.quantum(goal)
			lack = append(lack, lacking{r, float64(have) / float64(goal)})
		}
	}
	k.mending = k.mending && far
	slices.SortFunc(lack, func(a, b lacking) int {
		if a.share < b.share {
			return -1
		}
		return 1
	})
	for _, l := range lack {
		l.growing = true
		k.growing = append(k.growing, l.ring)
	}
}

// average takes what was asked since the last survey into the drain in the
// long run, and returns it. A young average counts all that it knows alike.
func (k *keeper) average(r *ring) int64 {
	total := r.asked.Load()
	asked := total - r.surveyed
	r.surveyed = total
	if asked == 0 && r.slow == 0 {
		return 0
	}
	r.age = min(r.age+surveyEvery.Seconds(), slowWindow.Seconds())
	r.slow += (float64(asked)/surveyEvery.Seconds() - r.slow) * surveyEvery.Seconds() / max(r.age, 10)
	if r.slow < 1e-6 {
		r.slow = 0
	}
	r.rate.Store(math.Float64bits(r.slow))
	return asked
}

// warm makes the next rings that Warm asked for wanted.
func (k *keeper) warm(now time.Time) {
	if k.ailing || k.recovering {
		return
	}
	k.warming.Lock()
	names := k.warming.names
	next := names[:min(warmPace, len(names))]
	k.warming.names = names[len(next):]
	k.warming.Unlock()
	for _, name := range next {
		r := k.table.findOrAdd(name, k.admit)
		if r == nil {
			return
		}
		r.wanted, r.used = true, now
	}
}
