package spnego

import (
	"crypto/sha256"
	"sync"
	"time"
)

const (
	// DefaultReplays is how many authenticators are remembered unless the
	// configuration says otherwise: a million, of about 80 bytes each.
	DefaultReplays = 1 << 20

	shards = 16
	// buckets group clients by a hash of their names. One bucket may fill half
	// of the memory, so that no single client locks out all others.
	buckets = 256
	// margin is added to the time for which an authenticator is remembered, for
	// those that are being looked at while the clock skew changes.
	margin = 30 * time.Second
)

// replays remembers the authenticators that were accepted, by a hash of their
// ciphertext. Times are those of Acceptor.elapsed, which no change of the clock
// makes longer or shorter.
//
// When the memory is full, what is new is refused. To forget instead would let
// whoever can fill it replay what he overheard.
type replays struct {
	perShard  int
	perBucket int
	shard     [shards]replayShard
}

type replayShard struct {
	mu      sync.Mutex
	seen    map[replayID]struct{}
	order   []replayEntry // oldest first, from head on
	head    int
	clients [buckets]int32
}

type replayID [16]byte

type replayEntry struct {
	id     replayID
	at     time.Duration
	client uint8
}

// newReplays makes a memory for at least limit authenticators.
func newReplays(limit int) *replays {
	perShard := max(2, (limit+shards-1)/shards)
	r := &replays{perShard: perShard, perBucket: (perShard + 1) / 2}
	for i := range r.shard {
		r.shard[i].seen = map[replayID]struct{}{}
	}
	return r
}

// add remembers an authenticator, and forgets those that came longer than life
// ago. Of those who bring the same one at the same time it returns fresh to
// exactly one; full to all who come when there is no room.
func (r *replays) add(authenticator []byte, client string, now, life time.Duration) (fresh, full bool) {
	digest := sha256.Sum256(authenticator)
	id := replayID(digest[:])
	bucket := sha256.Sum256([]byte(client))[0]
	s := &r.shard[digest[len(id)]%shards]

	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(now - life)
	if _, known := s.seen[id]; known {
		return false, false
	}
	if len(s.seen) >= r.perShard || int(s.clients[bucket]) >= r.perBucket {
		return false, true
	}
	s.seen[id] = struct{}{}
	s.order = append(s.order, replayEntry{id: id, at: now, client: bucket})
	s.clients[bucket]++
	return true, false
}

// expire forgets what came before the given time.
func (s *replayShard) expire(before time.Duration) {
	for s.head < len(s.order) && s.order[s.head].at < before {
		delete(s.seen, s.order[s.head].id)
		s.clients[s.order[s.head].client]--
		s.head++
	}
	if s.head > len(s.order)/2 {
		s.order = s.order[:copy(s.order, s.order[s.head:])]
		s.head = 0
	}
}

// size returns how many authenticators are remembered.
func (r *replays) size() int {
	n := 0
	for i := range r.shard {
		s := &r.shard[i]
		s.mu.Lock()
		n += len(s.seen)
		s.mu.Unlock()
	}
	return n
}
